// What the client tells of its own accord: that messages arrived, were read, and that the user types.

import { type Clock, Timer } from "./clock.js";
import type { ConversationState } from "./state.js";

export interface ReceiptParts {
  clock: Clock;
  send(frame: object): boolean;
  /** Whether senders are told that messages arrived. */
  tellsDelivery: boolean;
}

/** Arrivals are gathered for this long; one receipt stands for all messages before it. */
const GATHER_MS = 500;
/** Receipts of arrival in one gathering. */
const RECEIPTS_MAX = 20;
/** While the user types, the gateway is told again this often; it ends a typing after 6 s. */
const TYPING_AGAIN_MS = 3_000;
/** After this long without a key the user types no longer. */
const TYPING_ENDS_MS = 4_000;

export class Receipts {
  readonly #parts: ReceiptParts;
  readonly #arrived = new Map<ConversationState, string>();
  /** The message up to which the user has read, until the gateway has heard it. */
  readonly #read = new Map<ConversationState, string>();
  readonly #heard = new WeakMap<ConversationState, string>();
  readonly #gather: Timer;
  readonly #typing = new Map<ConversationState, { saidAtMs: number; ends: Timer }>();

  constructor(parts: ReceiptParts) {
    this.#parts = parts;
    this.#gather = new Timer(parts.clock);
  }

  arrived(state: ConversationState, messageId: string): void {
    if (!this.#parts.tellsDelivery || state.frame?.large) return;
    this.#arrived.set(state, messageId);
    if (!this.#gather.isSet) this.#gather.start(GATHER_MS, () => this.#tellArrived());
  }

  read(state: ConversationState, messageId: string): void {
    if (this.#read.get(state) === messageId || (state.unread === 0 && this.#heard.get(state) === messageId)) return;
    this.#read.set(state, messageId);
    state.setUnread(0);
    this.#tellRead(state, messageId);
  }

  /** The gateway has heard how far the user has read, or doesn't want to hear it. */
  readHeard(state: ConversationState): void {
    const messageId = this.#read.get(state);
    if (messageId !== undefined) this.#heard.set(state, messageId);
    this.#read.delete(state);
  }

  /** A new connection: what was not heard is told again. */
  online(): void {
    for (const [state, messageId] of this.#read) this.#tellRead(state, messageId);
    if (this.#arrived.size > 0) this.#tellArrived();
  }

  typing(state: ConversationState, isTyping: boolean): void {
    const now = this.#parts.clock.now();
    const typing = this.#typing.get(state);
    if (!isTyping) {
      if (!typing) return;
      typing.ends.stop();
      this.#typing.delete(state);
      this.#sayTyping(state, false);
      return;
    }
    const { saidAtMs, ends } = typing ?? { saidAtMs: Number.NEGATIVE_INFINITY, ends: new Timer(this.#parts.clock) };
    ends.start(TYPING_ENDS_MS, () => this.typing(state, false));
    const isDue = now - saidAtMs >= TYPING_AGAIN_MS;
    this.#typing.set(state, { saidAtMs: isDue ? now : saidAtMs, ends });
    if (isDue) this.#sayTyping(state, true);
  }

  close(): void {
    this.#gather.stop();
    for (const { ends } of this.#typing.values()) ends.stop();
  }

  #sayTyping(state: ConversationState, isTyping: boolean): void {
    const conversationId = state.id;
    if (conversationId !== undefined) this.#parts.send({ type: "typing", payload: { conversationId, isTyping } });
  }

  #tellRead(state: ConversationState, upTo: string): void {
    this.#parts.send({ type: "message.read", payload: { conversationId: state.id, upTo }, ref: `read ${state.id}` });
  }

  #tellArrived(): void {
    let left = RECEIPTS_MAX;
    for (const [state, upTo] of this.#arrived) {
      const frame = { type: "message.delivered", payload: { conversationId: state.id, upTo }, ref: "delivered" };
      if (left === 0 || !this.#parts.send(frame)) break;
      this.#arrived.delete(state);
      left -= 1;
    }
    if (this.#arrived.size > 0 && left === 0) this.#gather.start(GATHER_MS * 2, () => this.#tellArrived());
  }
}
