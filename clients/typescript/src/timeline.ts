// The messages of one conversation that are known, without any network: each once by its id, in the order of `seq`.
// It says what is missing; others fetch it.

import type { MessageFrame } from "./types.js";

/** A change of a message whose text isn't told with it. */
export interface Change {
  id: string;
  rev: number;
  fields: Partial<MessageFrame>;
}

/** Changes of messages that are not there yet; more are forgotten, and come with the message. */
const EARLY_CHANGES_MAX = 256;

export class Timeline {
  /** Every message with a `seq` above this one, up to `top`, is there. Below it nothing was loaded. */
  #floor = 0;
  #top = 0;
  #rev = 0;
  #isStarted = false;
  /** The highest `seq` that is there. */
  #newest = 0;
  readonly #bySeq = new Map<number, MessageFrame>();
  readonly #seqById = new Map<string, number>();
  /** Revs above `#rev` that came out of turn. */
  readonly #revs = new Set<number>();
  /** The lowest `seq` told live that lies below the floor. */
  #below: number | undefined;
  readonly #early = new Map<string, Change>();
  #sorted: readonly MessageFrame[] | undefined;

  get isStarted(): boolean {
    return this.#isStarted;
  }

  /** The highest `seq` without a hole below it. */
  get top(): number {
    return this.#top;
  }

  /** The highest `rev` without a hole below it. */
  get rev(): number {
    return this.#rev;
  }

  get floor(): number {
    return this.#floor;
  }

  get hasOlder(): boolean {
    return this.#floor > 0;
  }

  /** Whether a later message is there and an earlier one is not. */
  get hasHole(): boolean {
    return this.#newest > this.#top;
  }

  /** A message that was told live lies below what is loaded, so the history has to be loaded down to it. */
  get mustReach(): number | undefined {
    return this.#below;
  }

  get newest(): MessageFrame | undefined {
    return this.#bySeq.get(this.#newest);
  }

  byId(id: string): MessageFrame | undefined {
    const seq = this.#seqById.get(id);
    return seq === undefined ? undefined : this.#bySeq.get(seq);
  }

  bySeq(seq: number): MessageFrame | undefined {
    return this.#bySeq.get(seq);
  }

  /**
   * Begins, or begins anew: what stands below `lastSeq` has to be loaded, what comes later is told. Of what is there, only
   * what isn't older stays.
   */
  start(lastSeq: number, rev: number): void {
    const kept = [...this.#bySeq.values()].filter(({ seq }) => seq >= lastSeq);
    this.#isStarted = true;
    this.#floor = lastSeq;
    this.#top = lastSeq;
    this.#newest = lastSeq;
    this.#rev = rev;
    this.#below = undefined;
    this.#revs.clear();
    this.#bySeq.clear();
    this.#seqById.clear();
    this.#sorted = undefined;
    for (const message of kept) this.add(message);
  }

  /** A message as it was told or fetched. Answers whether anything changed. */
  add(message: MessageFrame, isLive = false): boolean {
    if (!this.#isStarted) this.start(message.seq - 1, message.rev - 1);
    this.sawRev(message.rev);
    const { seq } = message;
    if (seq < this.#floor) {
      if (isLive) this.#below = Math.min(this.#below ?? seq, seq);
      // A page that is on its way may hold it as it was before.
      this.#remember({ id: message.id, rev: message.rev, fields: message });
      return false;
    }
    const known = this.#bySeq.get(seq);
    if (known && known.rev >= message.rev) return false;
    const early = this.#early.get(message.id);
    this.#early.delete(message.id);
    const isLater = early !== undefined && early.rev > message.rev;
    this.#put(isLater ? { ...message, ...early.fields, rev: early.rev } : message);
    return true;
  }

  /** A change of one message. Answers whether anything changed. */
  change(change: Change): boolean {
    this.sawRev(change.rev);
    const known = this.byId(change.id);
    if (known) {
      if (known.rev >= change.rev) return false;
      this.#put({ ...known, ...change.fields, rev: change.rev });
      return true;
    }
    this.#remember(change);
    return false;
  }

  /** Something in the conversation changed, and with it its counter. */
  sawRev(rev: number): void {
    if (rev <= this.#rev) return;
    this.#revs.add(rev);
    while (this.#revs.delete(this.#rev + 1)) this.#rev += 1;
  }

  /** The changes up to `rev` were fetched. */
  changesFetched(rev: number): void {
    this.#rev = Math.max(this.#rev, rev);
    for (const seen of this.#revs) if (seen <= this.#rev) this.#revs.delete(seen);
    while (this.#revs.delete(this.#rev + 1)) this.#rev += 1;
  }

  /** A page that begins right above `after`; a number that it leaves out doesn't exist for this user. */
  addAfter(after: number, items: readonly MessageFrame[]): void {
    for (const message of items) this.add(message);
    const last = items.at(-1)?.seq ?? after;
    if (after <= this.#top && last > this.#top) this.#rise(last);
  }

  /** The page that ends right below `before`; `isFull`: there may be more before it. */
  addBefore(before: number, items: readonly MessageFrame[], isFull: boolean): void {
    const lowest = isFull ? (items[0]?.seq ?? before) : 1;
    if (before > this.#floor) this.#floor = Math.min(this.#floor, lowest - 1);
    for (const message of items) this.add(message);
    if (this.#below !== undefined && this.#below > this.#floor) this.#below = undefined;
  }

  /** Everything up to the newest known one was fetched; a hole that is left doesn't exist for this user. */
  closeHoles(): void {
    this.#rise(this.#newest);
  }

  /** The loaded messages, ascending; the same array until one changes. */
  get messages(): readonly MessageFrame[] {
    this.#sorted ??= [...this.#bySeq.values()].filter(({ seq }) => seq > this.#floor).sort((a, b) => a.seq - b.seq);
    return this.#sorted;
  }

  #remember(change: Change): void {
    const before = this.#early.get(change.id);
    if (before && before.rev >= change.rev) return;
    this.#early.set(change.id, { ...change, fields: { ...before?.fields, ...change.fields } });
    if (this.#early.size > EARLY_CHANGES_MAX) this.#early.delete(this.#early.keys().next().value as string);
  }

  #put(message: MessageFrame): void {
    const { seq } = message;
    const isNext = seq > this.#newest;
    this.#bySeq.set(seq, message);
    this.#seqById.set(message.id, seq);
    if (isNext && this.#sorted) this.#sorted = [...this.#sorted, message];
    else this.#sorted = undefined;
    this.#newest = Math.max(this.#newest, seq);
    // The newest message of a list is known before anything was loaded.
    if (seq === this.#floor) this.#floor -= 1;
    if (seq === this.#top + 1) this.#rise(seq);
  }

  #rise(seq: number): void {
    this.#top = Math.max(this.#top, seq);
    while (this.#bySeq.has(this.#top + 1)) this.#top += 1;
    this.#newest = Math.max(this.#newest, this.#top);
  }
}
