// What was written and isn't known to be stored: kept over reloads, sent in order, repeated until the gateway answers.

import { type Clock, Timer } from "./clock.js";
import { closed, type ErrorBody, ParleyError } from "./errors.js";
import { holdLock, whenGone } from "./locks.js";
import { backOffMs } from "./retry.js";
import type { MessageFrame, QueueStorage } from "./types.js";

/** A message that waits. It is stored as it stands here. */
export interface Entry {
  tempId: string;
  /** The queue of the page that sends it. */
  queue: string;
  /** Ascends in the order of writing. */
  order: number;
  /** Who wrote it; absent if nobody had signed in yet. */
  userId?: string | undefined;
  conversationId?: string | undefined;
  to?: string | undefined;
  content: string;
  kind?: string | undefined;
  replyTo?: string | undefined;
  /** Refused for good, until the user sends it again. */
  error?: ErrorBody | undefined;
}

export interface QueueParts {
  storage: QueueStorage;
  clock: Clock;
  isOnline(): boolean;
  /** The signed-in user, as far as it is known. */
  userId(): string | undefined;
  send(frame: object): boolean;
  /** An entry came, changed or went. */
  onChange(entry: Entry): void;
}

interface Waiting {
  entry: Entry;
  isKept: boolean;
  isUnderWay: boolean;
  tries: number;
  notBeforeMs: number;
  done: { resolve(message: MessageFrame): void; reject(fault: ParleyError): void }[];
}

const PREFIX = "parley:message:";
const USER_KEY = "parley:user";
/** After this without an answer a message is sent again. */
const ANSWER_MS_MAX = 15_000;
/** Sends in one second, below the gateway's limit for a connection. */
const SENDS_PER_SECOND = 30;
/** How long a new page sends nothing at most, because pages before it left older messages behind: those go first. */
const INHERIT_MS = 2_000;
/** How often the storage is searched for what other tabs left behind. */
const SEARCH_MS = 20_000;
/** A storage that takes longer is waited for no longer. */
const STORAGE_MS_MAX = 5_000;

export class Queue {
  readonly #parts: QueueParts;
  readonly #clock: Clock;
  readonly #name = randomId();
  readonly #waiting = new Map<string, Waiting>();
  readonly #watched = new Set<string>();
  readonly #release: () => void;
  readonly #pump: Timer;
  readonly #search: Timer;
  readonly #inheriting: Timer;
  /** Queues whose messages go before this page's own; `undefined` once they are here. */
  #before: Set<string> | undefined = new Set();
  /** Since when messages of other queues have been in the storage, as far as this page saw. */
  #seen = new Map<string, number>();
  #lastOrder = 0;
  #sentAtMs: number[] = [];
  /** The last user of this storage. */
  #storedUser: string | undefined;
  #isClosed = false;

  constructor(parts: QueueParts) {
    this.#parts = parts;
    this.#clock = parts.clock;
    this.#pump = new Timer(parts.clock);
    this.#search = new Timer(parts.clock);
    this.#inheriting = new Timer(parts.clock);
    this.#release = holdLock(this.#name);
    void this.#begin();
  }

  get entries(): Entry[] {
    return [...this.#waiting.values()].map(({ entry }) => entry).sort((a, b) => a.order - b.order);
  }

  get size(): number {
    return this.#waiting.size;
  }

  add(what: Pick<Entry, "conversationId" | "to" | "content" | "kind" | "replyTo">): Promise<MessageFrame> {
    this.#lastOrder = Math.max(this.#clock.now(), this.#lastOrder + 1);
    const entry: Entry = {
      ...what,
      tempId: randomId(),
      queue: this.#name,
      order: this.#lastOrder,
      userId: this.#parts.userId() ?? this.#storedUser,
    };
    const waiting = this.#take(entry, false);
    const stored = new Promise<MessageFrame>((resolve, reject) => waiting.done.push({ resolve, reject }));
    // The message itself shows its error, so nobody has to wait for the answer.
    stored.catch(() => {});
    void this.#keep(waiting);
    return stored;
  }

  /** The message is stored, however that became known. */
  settle(message: MessageFrame): void {
    const waiting = message.tempId ? this.#waiting.get(message.tempId) : undefined;
    if (!waiting) return;
    this.#forget(waiting);
    for (const { resolve } of waiting.done) resolve(message);
    this.pump();
  }

  /** Answers whether the error belonged to a message. */
  refuse(tempId: unknown, fault: ErrorBody): boolean {
    const waiting = typeof tempId === "string" ? this.#waiting.get(tempId) : undefined;
    if (!waiting) return false;
    waiting.isUnderWay = false;
    // Of these two the connection takes care.
    if (fault.retryable || fault.code === "TOKEN_EXPIRED" || fault.code === "UNAUTHENTICATED") {
      const waitMs = fault.retryAfterMs ?? backOffMs(waiting.tries, this.#clock.random());
      waiting.notBeforeMs = this.#clock.now() + waitMs;
    } else {
      waiting.entry = { ...waiting.entry, error: fault };
      void this.#keep(waiting);
      this.#parts.onChange(waiting.entry);
      for (const { reject } of waiting.done.splice(0)) reject(new ParleyError(fault));
    }
    this.pump();
    return true;
  }

  /** Sends a refused message again, behind what waits already. */
  again(tempId: string): Promise<MessageFrame> {
    const waiting = this.#waiting.get(tempId);
    if (!waiting?.entry.error) return Promise.reject(closed("there is no such refused message"));
    const isTaken = waiting.entry.error.code === "CONFLICT";
    this.#forget(waiting);
    this.#lastOrder = Math.max(this.#clock.now(), this.#lastOrder + 1);
    const fresh = { order: this.#lastOrder, error: undefined, ...(isTaken ? { tempId: randomId() } : {}) };
    const renewed = this.#take({ ...waiting.entry, ...fresh }, false);
    const stored = new Promise<MessageFrame>((resolve, reject) => renewed.done.push({ resolve, reject }));
    stored.catch(() => {});
    void this.#keep(renewed);
    return stored;
  }

  /** Forgets a refused message. One that is on its way can't be called back. */
  drop(tempId: string): void {
    const waiting = this.#waiting.get(tempId);
    if (waiting?.entry.error) this.#forget(waiting);
  }

  /** The connection is gone, and with it the answers. */
  lost(): void {
    for (const waiting of this.#waiting.values()) {
      if (waiting.isUnderWay) waiting.notBeforeMs = 0;
      waiting.isUnderWay = false;
    }
  }

  /** Somebody signed in. */
  async signedIn(userId: string): Promise<void> {
    this.#storedUser = userId;
    for (const waiting of this.#waiting.values()) {
      if (waiting.entry.userId !== undefined) continue;
      waiting.entry = { ...waiting.entry, userId };
      void this.#keep(waiting);
    }
    this.pump();
    await this.#quietly(() => this.#parts.storage.setItem(USER_KEY, userId));
    await this.#adoptOthers();
  }

  close(): void {
    this.#isClosed = true;
    this.#pump.stop();
    this.#search.stop();
    this.#inheriting.stop();
    this.#release();
  }

  /** Sends what may be sent now: of each conversation the first that waits. */
  pump(): void {
    this.#pump.stop();
    if (this.#isClosed || this.#before || !this.#parts.isOnline()) return;
    const now = this.#clock.now();
    let nextMs = Number.POSITIVE_INFINITY;
    const busy = new Set<string>();
    for (const { tempId } of this.entries) {
      const waiting = this.#waiting.get(tempId);
      if (!waiting || waiting.entry.error || this.#isForeign(waiting.entry)) continue;
      const { entry } = waiting;
      const lane = entry.conversationId ?? `to ${entry.to}`;
      if (busy.has(lane)) continue;
      busy.add(lane);
      if (!waiting.isKept) continue;
      const dueMs = waiting.notBeforeMs - now;
      const roomMs = this.#roomInMs(now);
      if (dueMs > 0 || roomMs > 0) nextMs = Math.min(nextMs, Math.max(dueMs, roomMs));
      else if (this.#send(waiting, now)) nextMs = Math.min(nextMs, ANSWER_MS_MAX);
    }
    if (nextMs < Number.POSITIVE_INFINITY) this.#pump.start(nextMs, () => this.pump());
  }

  #send(waiting: Waiting, now: number): boolean {
    const { tempId, conversationId, to, content, kind, replyTo } = waiting.entry;
    const payload = { conversationId, to, content, kind, replyTo, tempId };
    if (!this.#parts.send({ type: "message.send", payload, ref: tempId })) return false;
    this.#sentAtMs.push(now);
    waiting.isUnderWay = true;
    waiting.tries += 1;
    waiting.notBeforeMs = now + ANSWER_MS_MAX;
    return true;
  }

  #roomInMs(now: number): number {
    this.#sentAtMs = this.#sentAtMs.filter((atMs) => atMs > now - 1_000);
    return this.#sentAtMs.length < SENDS_PER_SECOND ? 0 : 1_000 - (now - (this.#sentAtMs[0] ?? now));
  }

  #isForeign(entry: Entry): boolean {
    const user = this.#parts.userId();
    return user !== undefined && entry.userId !== undefined && entry.userId !== user;
  }

  #take(entry: Entry, isKept: boolean): Waiting {
    const waiting: Waiting = { entry, isKept, isUnderWay: false, tries: 0, notBeforeMs: 0, done: [] };
    this.#waiting.set(entry.tempId, waiting);
    this.#parts.onChange(entry);
    return waiting;
  }

  #forget(waiting: Waiting): void {
    const { entry } = waiting;
    this.#waiting.delete(entry.tempId);
    this.#parts.onChange(entry);
    void this.#quietly(() => this.#parts.storage.removeItem(PREFIX + entry.tempId));
  }

  // A message is kept before it is sent: else a reload at the wrong moment would lose it.
  async #keep(waiting: Waiting): Promise<void> {
    const { entry } = waiting;
    await this.#quietly(() => this.#parts.storage.setItem(PREFIX + entry.tempId, JSON.stringify(entry)));
    if (this.#waiting.get(entry.tempId) !== waiting) {
      // It went meanwhile.
      if (!this.#waiting.has(entry.tempId))
        await this.#quietly(() => this.#parts.storage.removeItem(PREFIX + entry.tempId));
      return;
    }
    waiting.isKept = true;
    this.pump();
  }

  async #begin(): Promise<void> {
    const user = await this.#quietly(() => this.#parts.storage.getItem(USER_KEY));
    this.#storedUser ??= user ?? undefined;
    await this.#adoptOthers();
    if (this.#isClosed || !this.#before) return;
    if (this.#before.size === 0) this.#inherited();
    else this.#inheriting.start(INHERIT_MS, () => void this.#inheritAnyway());
  }

  /** Takes over what pages left that are gone. */
  async #adoptOthers(): Promise<void> {
    if (this.#isClosed) return;
    this.#search.start(SEARCH_MS, () => void this.#adoptOthers());
    const others = this.#watch(await this.#stored());
    const now = this.#clock.now();
    this.#seen = new Map(others.map(({ tempId }) => [tempId, this.#seen.get(tempId) ?? now]));
    // A tab that is well would have sent it meanwhile. This one is frozen, or its lock hangs.
    const isStuck = ({ tempId }: Entry) => now - (this.#seen.get(tempId) ?? now) >= SEARCH_MS;
    if (this.#parts.isOnline()) await this.#takeOver(others.filter(isStuck));
  }

  /** Waits for the end of each other page that has messages in the storage. Answers with those messages. */
  #watch(stored: Entry[]): Entry[] {
    const others = stored.filter(({ queue }) => queue !== this.#name);
    for (const { queue } of others) {
      if (this.#watched.has(queue)) continue;
      this.#watched.add(queue);
      this.#before?.add(queue);
      whenGone(queue, () => this.#adopt(queue));
    }
    return others;
  }

  /** The lock of a page before is still held. */
  async #inheritAnyway(): Promise<void> {
    const before = this.#before;
    const stored = await this.#stored();
    const kept = this.#takeOver(stored.filter(({ queue }) => before?.has(queue)));
    this.#inherited();
    await kept;
  }

  /** Sends for a page that may live. Then both send; the gateway stores a `tempId` once. A refused one stays with its page. */
  #takeOver(entries: Entry[]): Promise<void> {
    return this.#takeAll(entries.filter(({ error }) => !error));
  }

  /** What pages before this one left behind is here. */
  #inherited(): void {
    this.#before = undefined;
    this.#inheriting.stop();
    this.pump();
  }

  async #adopt(queue: string): Promise<void> {
    // A page between may have taken some of it and be gone, too; then that page is watched from here on.
    const others = this.#watch(await this.#stored());
    this.#watched.delete(queue);
    const kept = this.#takeAll(others.filter((entry) => entry.queue === queue));
    if (this.#before?.delete(queue) && this.#before.size === 0) this.#inherited();
    await kept;
  }

  /** Makes messages this page's own: all at once, so that none is sent before an older one is here. */
  async #takeAll(entries: Entry[]): Promise<void> {
    if (this.#isClosed) return;
    const own = entries.filter((entry) => !this.#isForeign(entry) && !this.#waiting.has(entry.tempId));
    this.#lastOrder = Math.max(this.#lastOrder, ...own.map(({ order }) => order));
    const taken = own
      .sort((a, b) => a.order - b.order)
      .map((entry) => this.#take({ ...entry, queue: this.#name }, false));
    for (const waiting of taken) await this.#keep(waiting);
  }

  async #stored(): Promise<Entry[]> {
    const keys = (await this.#quietly(() => this.#parts.storage.getAllKeys())) ?? [];
    const found: Entry[] = [];
    for (const key of keys) {
      if (!key.startsWith(PREFIX)) continue;
      const text = await this.#quietly(() => this.#parts.storage.getItem(key));
      const entry = text ? readEntry(text) : undefined;
      if (entry) found.push(entry);
    }
    return found;
  }

  // A storage that is full, forbidden or hangs must not keep a message from being sent.
  async #quietly<T>(run: () => T | Promise<T>): Promise<T | undefined> {
    const deadline = new Timer(this.#clock);
    const late = new Promise<undefined>((resolve) => deadline.start(STORAGE_MS_MAX, () => resolve(undefined)));
    try {
      return await Promise.race([run(), late]);
    } catch {
      return undefined;
    } finally {
      deadline.stop();
    }
  }
}

function readEntry(text: string): Entry | undefined {
  try {
    const entry = JSON.parse(text) as Entry;
    return typeof entry.tempId === "string" && typeof entry.content === "string" ? entry : undefined;
  } catch {
    return undefined;
  }
}

/** 128 random bits. `randomUUID` is missing in pages over plain http and in React Native. */
export function randomId(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
