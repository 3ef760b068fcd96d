// Finds the state of a conversation, by its id or by the other user of a direct one.

import type { Entry } from "./queue.js";
import { ConversationState, otherMember, type StateParts } from "./state.js";
import type { ConversationFrame, ConversationInfo, ConversationKind } from "./types.js";

export interface DirectoryParts extends StateParts {
  /** The messages that wait. */
  waiting(): readonly Entry[];
}

export class Directory {
  readonly #parts: DirectoryParts;
  /** Two states of one conversation: one that was asked for by its user, one by its id, before these were known as one. */
  readonly #byId = new Map<string, ConversationState[]>();
  readonly #byPeer = new Map<string, ConversationState>();

  constructor(parts: DirectoryParts) {
    this.#parts = parts;
  }

  states(id: string): readonly ConversationState[] {
    return this.#byId.get(id) ?? [];
  }

  /** Whether what stands in the conversation is known, and not its id alone. */
  isKnown(id: string): boolean {
    return this.states(id).some(({ timeline }) => timeline.isStarted);
  }

  /** Every state once. */
  all(): Set<ConversationState> {
    return new Set([...[...this.#byId.values()].flat(), ...this.#byPeer.values()]);
  }

  /** The conversation with this user, whether or not it was opened. */
  withUser(userId: string): ConversationState {
    const known = this.#byPeer.get(userId) ?? this.#new(undefined, userId, "direct");
    this.#byPeer.set(userId, known);
    return known;
  }

  withId(id: string, kind?: ConversationKind): ConversationState {
    const known = this.#byId.get(id)?.[0] ?? this.#new(id, undefined, kind);
    if (!this.#byId.has(id)) this.#byId.set(id, [known]);
    return known;
  }

  /** The states that this conversation's frame is for; there is at least one. */
  statesFor(frame: ConversationFrame): readonly ConversationState[] {
    const states = this.#byId.get(frame.id) ?? [];
    this.#byId.set(frame.id, states);
    const peer = otherMember(frame, this.#parts.me());
    const asked = peer === undefined ? undefined : this.#byPeer.get(peer);
    if (asked && !states.includes(asked)) states.push(asked);
    const [first = this.#new(frame.id)] = states;
    if (states.length === 0) states.push(first);
    if (peer !== undefined && !asked) this.#byPeer.set(peer, first);
    return states;
  }

  /** The conversation with a user was opened by a message. Answers its state, if the id is news. */
  opened(userId: string, id: string): ConversationState | undefined {
    const state = this.#byPeer.get(userId);
    if (!state || state.id !== undefined) return undefined;
    state.id = id;
    this.#byId.set(id, [state, ...this.states(id)]);
    return state;
  }

  /** The user's conversations, newest activity first. */
  list(): readonly ConversationInfo[] {
    const states = [...this.#byId.values()].flatMap(([state]) => (state?.isMember && state.frame ? [state] : []));
    const at = ({ timeline, frame }: ConversationState) => timeline.newest?.createdAt ?? frame?.createdAt ?? "";
    return states.sort((a, b) => (at(a) < at(b) ? 1 : at(a) > at(b) ? -1 : 0)).map(({ info }) => info.get());
  }

  unread(): number {
    return [...this.#byId.values()].reduce((sum, [state]) => sum + (state?.isMember ? state.unread : 0), 0);
  }

  #new(id?: string, peer?: string, kind?: ConversationKind): ConversationState {
    const state = new ConversationState(this.#parts, id, peer, kind);
    for (const entry of this.#parts.waiting()) if (state.isTarget(entry)) state.waits(entry, true);
    return state;
  }
}
