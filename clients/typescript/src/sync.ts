// Fetching by REST what the socket could not tell: everything after a resync, holes, older pages.

import type { Clock } from "./clock.js";
import { ParleyError } from "./errors.js";
import type { Page, Rest } from "./rest.js";
import { backOffMs } from "./retry.js";
import type { ConversationState } from "./state.js";
import type { ConversationFrame, MessageFrame } from "./types.js";

export interface SyncParts {
  /** False once the client has stopped: then nothing is tried again. */
  isActive(): boolean;
  rest: Rest;
  clock: Clock;
  states(id: string): readonly ConversationState[];
  /** All that are known, under every name. */
  all(): Iterable<ConversationState>;
  /** Applies a conversation of the list; makes its state if there is none. */
  apply(frame: ConversationFrame): void;
  /** A message came by REST. */
  onMessage(state: ConversationState, message: MessageFrame): void;
}

const PAGE = 100;
/** Messages of a first page, and of each older one. */
const OLDER = 50;
/** Over this many missed messages only the newest page is fetched, and older ones on demand. */
const MISSED_MAX = 1_000;
/** A later message may overtake an earlier one by some milliseconds; this long a hole is no hole yet. */
const HOLE_MS = 5_000;
/** Conversations that are fetched side by side. */
const SIDE_BY_SIDE = 4;

const path = (id: string) => `/api/v1/conversations/${encodeURIComponent(id)}`;

export class Sync {
  readonly #parts: SyncParts;
  /** Counts runs; a run that isn't the last one ends. */
  #run = 0;
  /** Conversations that came or went by events while the list was walked. */
  #moved = new Map<string, boolean>();

  constructor(parts: SyncParts) {
    this.#parts = parts;
  }

  /** Ends the run under way: the connection for which it fetched is gone. */
  stop(): void {
    this.#run += 1;
  }

  /** An event said that the user is in a conversation, or no longer. */
  moved(id: string, isMember: boolean): void {
    this.#moved.set(id, isMember);
  }

  /** Fetches everything that is missing; `true` when it is there, `false` if the run was stopped. */
  async everything(): Promise<boolean> {
    const run = ++this.#run;
    const isStopped = () => run !== this.#run || !this.#parts.isActive();
    const seen = await this.#insist(isStopped, () => this.#walk(isStopped));
    if (!seen) return false;
    for (const state of this.#parts.all()) {
      const { id } = state;
      if (id !== undefined && state.isMember && !seen.has(id) && !this.#moved.has(id)) state.gone();
    }
    const queue = [...seen.values()];
    const work = async () => {
      for (let frame = queue.shift(); frame && !isStopped(); frame = queue.shift()) {
        const conversation = frame;
        await this.#insist(isStopped, () => this.catchUp(conversation));
      }
    };
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work));
    return !isStopped();
  }

  /** Fetches one conversation and what is missing in it. A conversation that isn't the user's is gone. */
  async one(id: string): Promise<void> {
    await this.#insist(this.#isOver, async () => {
      const frame: ConversationFrame = await this.#parts.rest.get(path(id));
      this.#parts.apply(frame);
      await this.catchUp(frame);
    });
  }

  /** Fetches the changes of a conversation that was fetched itself a moment ago. */
  async catchUp(frame: ConversationFrame): Promise<void> {
    for (const state of this.#parts.states(frame.id)) {
      const { timeline } = state;
      if (timeline.top >= frame.lastSeq && timeline.rev >= frame.rev) continue;
      const missed = frame.lastSeq - timeline.top;
      if (!state.isWanted || missed > MISSED_MAX) {
        timeline.start(frame.lastSeq, frame.rev);
        if (frame.lastMessage) this.#take(state, frame.lastMessage);
        state.changed();
        if (state.isWanted) await this.older(state);
        continue;
      }
      if (missed > 0) await this.#after(state);
      const since = `${path(frame.id)}/messages?limit=${PAGE}&changedSince=${timeline.rev}`;
      await this.#parts.rest.pages<MessageFrame>(since, "changedSince", (items) => {
        for (const message of items) this.#take(state, message);
        return undefined;
      });
      timeline.changesFetched(frame.rev);
      state.changed();
    }
  }

  /** Loads the page before what is loaded. */
  async older(state: ConversationState): Promise<void> {
    const { timeline, id } = state;
    if (id === undefined || state.isLoading || !timeline.isStarted || !timeline.hasOlder) return;
    state.isLoading = true;
    state.fault = undefined;
    state.history.touch();
    try {
      const before = timeline.floor + 1;
      const messages = `${path(id)}/messages?limit=${OLDER}&before=${before}`;
      const { items }: Page<MessageFrame> = await this.#parts.rest.get(messages);
      timeline.addBefore(before, items, items.length >= OLDER);
      for (const message of items) this.#parts.onMessage(state, message);
    } catch (fault) {
      state.fault = fault instanceof ParleyError ? fault : undefined;
      throw fault;
    } finally {
      state.isLoading = false;
      state.changed();
    }
  }

  /** Loads a first page for somebody who looks at the messages. */
  async firstPage(state: ConversationState): Promise<void> {
    await this.#insist(this.#isOver, async () => {
      while (state.isLoading) await this.#sleep(50);
      if (state.timeline.messages.length < OLDER / 2) await this.older(state);
    });
  }

  /** A hole that stays open is fetched. */
  watchHoles(state: ConversationState): void {
    const { timeline } = state;
    const isWhole = () => !timeline.hasHole && timeline.mustReach === undefined;
    if (isWhole() || !this.#parts.isActive()) return state.hole.stop();
    if (state.hole.isSet) return;
    const top = timeline.top;
    state.hole.start(HOLE_MS, () => {
      if (isWhole()) return;
      // The first one was closed, and another one is open.
      if (timeline.mustReach === undefined && timeline.top > top) return this.watchHoles(state);
      void this.#insist(this.#isOver, () => this.#fill(state)).then((isDone) => {
        if (isDone) this.watchHoles(state);
      });
    });
  }

  async #fill(state: ConversationState): Promise<true> {
    if (state.timeline.hasHole) {
      await this.#after(state);
      state.timeline.closeHoles();
    }
    for (let reach = state.timeline.mustReach; reach !== undefined; reach = state.timeline.mustReach) {
      const { floor } = state.timeline;
      await this.older(state);
      if (state.timeline.floor >= floor) break;
    }
    state.changed();
    return true;
  }

  async #after(state: ConversationState): Promise<void> {
    if (state.id === undefined) return;
    let after = state.timeline.top;
    const messages = `${path(state.id)}/messages?limit=${PAGE}`;
    for (;;) {
      const { items }: Page<MessageFrame> = await this.#parts.rest.get(`${messages}&after=${after}`);
      state.timeline.addAfter(after, items);
      for (const message of items) this.#parts.onMessage(state, message);
      state.changed();
      after = items.at(-1)?.seq ?? after;
      if (items.length < PAGE) return;
    }
  }

  async #walk(isStopped: () => boolean): Promise<Map<string, ConversationFrame>> {
    const seen = new Map<string, ConversationFrame>();
    this.#moved.clear();
    await this.#parts.rest.pages<ConversationFrame>(`/api/v1/conversations?limit=${PAGE}`, "cursor", (items) => {
      for (const frame of isStopped() ? [] : items) {
        if (this.#moved.get(frame.id) === false) continue;
        seen.set(frame.id, frame);
        this.#parts.apply(frame);
      }
      return isStopped();
    });
    return seen;
  }

  #take(state: ConversationState, message: MessageFrame): void {
    state.timeline.add(message);
    this.#parts.onMessage(state, message);
  }

  readonly #isOver = () => !this.#parts.isActive();

  /** Tries until it succeeds, is refused for good (then nothing comes of it), or is stopped. */
  async #insist<T>(isStopped: () => boolean, run: () => Promise<T>): Promise<T | undefined> {
    for (let tries = 0; !isStopped(); tries += 1) {
      try {
        const result = await run();
        return isStopped() ? undefined : result;
      } catch (fault) {
        const isFinal = fault instanceof ParleyError && !fault.retryable;
        if (isFinal && fault.code !== "UNAUTHENTICATED" && fault.code !== "TOKEN_EXPIRED") return undefined;
        const atLeastMs = fault instanceof ParleyError ? fault.retryAfterMs : 0;
        await this.#sleep(backOffMs(tries, this.#parts.clock.random(), atLeastMs));
      }
    }
    return undefined;
  }

  #sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.#parts.clock.setTimeout(resolve, delayMs));
  }
}
