// The user's events in their order: which one is next, which position may be resumed from, and which frame has to wait
// until its conversation was fetched.

import type { Position } from "./connection.js";
import type { Frame, MessageFrame, Welcome } from "./types.js";

export interface FeedParts {
  isKnown(conversationId: string): boolean;
  /** Whether this message of the user's own opened a conversation, so that it is known now. */
  isOpenedBy(message: MessageFrame): boolean;
  /** Fetches a conversation; it is known afterwards unless it isn't the user's. */
  fetch(conversationId: string): Promise<void>;
  fetchEverything(): void;
  apply(frame: Frame): void;
}

/** Frames that wait for one conversation. */
const HELD_MAX = 1_000;

export class Feed {
  readonly #parts: FeedParts;
  /** The place of this connection in the user's events. */
  #live: Position | undefined;
  /** The place up to which everything was applied or fetched. */
  #safe: Position | undefined;
  #isSynced = false;
  /** Frames about conversations that are being fetched. */
  readonly #held = new Map<string, Frame[]>();

  constructor(parts: FeedParts) {
    this.#parts = parts;
  }

  /** Where the next connection may go on from. */
  get position(): Position | undefined {
    return this.#safe;
  }

  get isSynced(): boolean {
    return this.#isSynced;
  }

  forgetPosition(): void {
    this.#safe = undefined;
  }

  /** Answers whether the events that were missed follow; if not, everything has to be fetched. */
  begins(welcome: Welcome): boolean {
    this.#live = { epoch: welcome.epoch, seq: welcome.seq };
    this.#isSynced = welcome.resumed && this.#safe !== undefined;
    // A fetch that was cut off is made up for by the events that follow.
    if (this.#isSynced) this.#safe = this.#live;
    return this.#isSynced;
  }

  /** A fetch begins. Until it is done the position before stays: whoever is cut off now fetches again. */
  lacks(): void {
    this.#isSynced = false;
  }

  /** Everything up to the events of this connection is there. */
  complete(): void {
    this.#isSynced = true;
    this.#safe = this.#live;
  }

  /** Takes a frame. Answers whether it was news. */
  take(frame: Frame): boolean {
    if (frame.type === "resync" || frame.type === "position") {
      this.#moved(frame);
      return true;
    }
    if (frame.seq === undefined) {
      this.#route(frame);
      return true;
    }
    if (!this.#live || frame.seq <= this.#live.seq) return false;
    // The gateway leaves none out. If one is missing all the same, it is fetched.
    if (frame.seq > this.#live.seq + 1) this.#parts.fetchEverything();
    this.#route(frame);
    this.#live = { ...this.#live, seq: frame.seq };
    if (this.#isSynced) this.#safe = this.#live;
    return true;
  }

  /** A conversation is known now: the frames about it are applied. */
  known(conversationId: string): void {
    const held = this.#held.get(conversationId);
    this.#held.delete(conversationId);
    for (const frame of held ?? []) this.#parts.apply(frame);
  }

  #moved({ type, payload, seq }: Extract<Frame, { type: "resync" | "position" }>): void {
    const told = { epoch: payload.epoch, seq: payload.seq };
    const isSame = this.#live?.epoch === told.epoch && this.#live.seq === told.seq;
    this.#live = told;
    if (type === "position") {
      if (this.#isSynced) this.#safe = told;
    } else if (seq !== undefined || this.#isSynced || !isSame) {
      // The one that follows `auth_success` says what is being done already.
      this.#parts.fetchEverything();
    }
  }

  #route(frame: Frame): void {
    const id = conversationOf(frame);
    if (id === undefined || this.#parts.isKnown(id)) return this.#parts.apply(frame);
    if (frame.type === "message.sent" && this.#parts.isOpenedBy(frame.payload.message)) return this.#parts.apply(frame);
    const held = this.#held.get(id);
    if (held) {
      held.push(frame);
      // The fetch that succeeds brings what was stored before it, so the oldest can be spared.
      if (held.length > HELD_MAX) held.shift();
      return;
    }
    this.#held.set(id, [frame]);
    void this.#parts.fetch(id).then(() => {
      // It isn't the user's any more, or the client has stopped and will fetch everything.
      if (!this.#parts.isKnown(id)) this.#held.delete(id);
    });
  }
}

/** The conversation that must be known before the frame can be applied. */
function conversationOf(frame: Frame): string | undefined {
  switch (frame.type) {
    case "message.sent":
    case "message.new":
    case "message.edited":
      return frame.payload.message.conversationId;
    case "message.deleted":
    case "message.read_ack":
    case "message.read_update":
    case "message.delivered_update":
    case "reaction.updated":
    case "member.joined":
    case "member.left":
      return frame.payload.conversationId;
    default:
      return undefined;
  }
}
