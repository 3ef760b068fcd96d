// What is known about one conversation, and its snapshots. It applies what others bring; it asks for nothing.

import { type Clock, Timer } from "./clock.js";
import { ParleyError } from "./errors.js";
import type { Entry } from "./queue.js";
import { type Batch, Cell } from "./store.js";
import { type Change, Timeline } from "./timeline.js";
import type {
  ChatMessage,
  ConversationFrame,
  ConversationInfo,
  ConversationKind,
  History,
  Member,
  MessageFrame,
  MessageStatus,
} from "./types.js";

/** What a state needs of its client. */
export interface StateParts {
  batch: Batch;
  clock: Clock;
  me(): string | undefined;
  /** Its place in the list, its last message or its unread count may have changed. */
  onInfo(): void;
  /** Somebody looks at the messages for the first time. */
  onWanted(state: ConversationState): void;
}

/** The server ends a typing after 6 s; its word may be lost. */
const TYPING_MS_MAX = 8_000;

export class ConversationState {
  id: string | undefined;
  peer: string | undefined;
  kind: ConversationKind | undefined;
  frame: ConversationFrame | undefined;
  isMember = false;
  unread = 0;
  /** Whether somebody looks at the messages, so that all later ones are fetched. */
  isWanted = false;
  isLoading = false;
  fault: ParleyError | undefined;
  readonly timeline = new Timeline();
  readonly hole: Timer;
  readonly info: Cell<ConversationInfo>;
  readonly messages: Cell<readonly ChatMessage[]>;
  readonly history: Cell<History>;
  readonly typing: Cell<readonly string[]>;
  readonly members: Cell<readonly Member[]>;
  readonly #parts: StateParts;
  readonly #members = new Map<string, Member>();
  readonly #pending = new Map<string, Entry>();
  readonly #typing = new Map<string, Timer>();
  /** Views that were made, by the frame of which they were made. */
  readonly #views = new WeakMap<MessageFrame, ChatMessage>();
  /** The last snapshot of what is stored, so that the next one looks only at what is new. */
  #made: { stored: readonly MessageFrame[]; views: readonly ChatMessage[]; ticks: string } = {
    stored: [],
    views: [],
    ticks: "",
  };
  #memberCount = 0;
  #readUpTo = 0;
  #deliveredUpTo = 0;

  constructor(parts: StateParts, id?: string, peer?: string, kind?: ConversationKind) {
    this.#parts = parts;
    this.id = id;
    this.peer = peer;
    this.kind = kind;
    this.hole = new Timer(parts.clock);
    const { batch } = parts;
    this.info = new Cell(batch, () => this.#makeInfo());
    this.messages = new Cell(
      batch,
      () => this.#makeMessages(),
      () => this.#want(),
    );
    this.history = new Cell(batch, () => ({
      hasOlder: this.timeline.isStarted && this.timeline.hasOlder,
      isLoading: this.isLoading,
      ...(this.fault ? { error: this.fault } : {}),
    }));
    this.typing = new Cell<readonly string[]>(batch, () => [...this.#typing.keys()]);
    this.members = new Cell<readonly Member[]>(batch, () => [...this.#members.values()]);
  }

  get memberCount(): number {
    return this.#memberCount;
  }

  /** Applies a conversation as the gateway shows it. */
  apply(frame: ConversationFrame): void {
    this.id = frame.id;
    this.kind = frame.kind;
    // An event to several users has no count of unread messages of one.
    this.unread = frame.unread ?? this.unread;
    this.frame = frame;
    this.isMember = true;
    this.#memberCount = frame.memberCount;
    if (frame.members.length >= frame.memberCount) {
      const ids = new Set(frame.members.map(({ userId }) => userId));
      for (const userId of this.#members.keys()) if (!ids.has(userId)) this.#members.delete(userId);
    }
    for (const member of frame.members) this.#meet(member);
    this.peer ??= otherMember(frame, this.#parts.me());
    if (!this.timeline.isStarted) this.timeline.start(frame.lastSeq, frame.rev);
    if (frame.lastMessage) this.timeline.add(frame.lastMessage);
    this.ticked();
    this.members.touch();
    this.changed();
  }

  addMembers(members: readonly Partial<Member>[]): void {
    for (const member of members) this.#meet(member);
    this.ticked();
    this.members.touch();
  }

  memberJoined(userId: string): void {
    if (!this.#members.has(userId)) this.#memberCount += 1;
    this.addMembers([{ userId }]);
    this.info.touch();
  }

  memberLeft(userId: string): void {
    if (this.#members.delete(userId)) this.#memberCount = Math.max(0, this.#memberCount - 1);
    this.typed(userId, false);
    this.ticked();
    this.members.touch();
    this.info.touch();
  }

  setMemberCount(count: number): void {
    this.#memberCount = count;
    this.info.touch();
  }

  gone(): void {
    this.isMember = false;
    this.unread = 0;
    this.hole.stop();
    this.changed();
  }

  setUnread(unread: number): void {
    if (unread === this.unread) return;
    this.unread = unread;
    this.#told();
  }

  /** A message was told or fetched. */
  add(message: MessageFrame, isLive: boolean): void {
    this.typed(message.senderId, false);
    if (this.timeline.add(message, isLive)) this.changed();
  }

  change(change: Change): void {
    if (this.timeline.change(change)) this.changed();
  }

  /** Messages or what is loaded of them changed. */
  changed(): void {
    this.messages.touch();
    this.history.touch();
    this.#told();
  }

  /** A user has everything up to this message, read or delivered. */
  reached(userId: string, ids: readonly string[], what: "readSeq" | "deliveredSeq"): void {
    const seq = Math.max(0, ...ids.map((id) => this.timeline.byId(id)?.seq ?? 0));
    const member = this.#members.get(userId);
    if (!member || member[what] >= seq) return;
    this.addMembers([{ userId, [what]: seq }]);
  }

  typed(userId: string, isTyping: boolean): void {
    const timer = this.#typing.get(userId);
    if (!isTyping) {
      timer?.stop();
      if (this.#typing.delete(userId)) this.typing.touch();
      return;
    }
    if (userId === this.#parts.me()) return;
    const ends = timer ?? new Timer(this.#parts.clock);
    ends.start(TYPING_MS_MAX, () => this.typed(userId, false));
    if (timer) return;
    this.#typing.set(userId, ends);
    this.typing.touch();
  }

  /** The connection is gone; the end of a typing would not be told. */
  nobodyTypes(): void {
    for (const userId of [...this.#typing.keys()]) this.typed(userId, false);
  }

  /** A message of this conversation waits, has changed, or (`isThere` false) is no longer in the queue. */
  waits(entry: Entry, isThere: boolean): void {
    if (isThere) this.#pending.set(entry.tempId, entry);
    else this.#pending.delete(entry.tempId);
    this.messages.touch();
  }

  isTarget(entry: Entry): boolean {
    return entry.conversationId === undefined ? entry.to === this.peer : entry.conversationId === this.id;
  }

  view(message: MessageFrame): ChatMessage {
    const isMine = message.senderId === this.#parts.me();
    const status = isMine ? this.#status(message.seq) : undefined;
    const before = this.#views.get(message);
    if (before && before.status === status && before.isMine === isMine) return before;
    const { id, seq, senderId, kind, content, createdAt, tempId, replyTo, editedAt, deletedAt } = message;
    const view: ChatMessage = {
      // A name of another user's choice must not meet one of ours.
      key: isMine && tempId ? tempId : id,
      ...{ id, seq, senderId, isMine, kind, content, createdAt, reactions: message.reactions ?? {} },
      ...(tempId ? { tempId } : {}),
      ...(replyTo ? { replyTo } : {}),
      ...(editedAt ? { editedAt } : {}),
      ...(deletedAt ? { deletedAt } : {}),
      ...(status ? { status } : {}),
    };
    this.#views.set(message, view);
    return view;
  }

  /** Computes anew how far the others are. */
  ticked(): void {
    let read = Number.POSITIVE_INFINITY;
    let delivered = Number.POSITIVE_INFINITY;
    let others = 0;
    for (const member of this.#members.values()) {
      if (member.userId === this.#parts.me()) continue;
      others += 1;
      read = Math.min(read, member.readSeq);
      delivered = Math.min(delivered, Math.max(member.deliveredSeq, member.readSeq));
    }
    // Of those whose position isn't known, none can be said to have read.
    const isKnown = others > 0 && this.#members.size >= this.#memberCount;
    this.#readUpTo = isKnown ? read : 0;
    this.#deliveredUpTo = isKnown ? delivered : 0;
    this.messages.touch();
    this.#told();
  }

  #meet(member: Partial<Member>): void {
    const { userId } = member;
    if (userId === undefined) return;
    const before = this.#members.get(userId) ?? { userId, role: "member" as const, readSeq: 0, deliveredSeq: 0 };
    this.#members.set(userId, {
      userId,
      role: member.role ?? before.role,
      readSeq: Math.max(before.readSeq, member.readSeq ?? 0),
      deliveredSeq: Math.max(before.deliveredSeq, member.deliveredSeq ?? 0),
    });
  }

  #told(): void {
    this.info.touch();
    this.#parts.onInfo();
  }

  #want(): void {
    if (this.isWanted) return;
    this.isWanted = true;
    this.#parts.onWanted(this);
  }

  #status(seq: number): MessageStatus {
    return seq <= this.#readUpTo ? "read" : seq <= this.#deliveredUpTo ? "delivered" : "stored";
  }

  #makeInfo(): ConversationInfo {
    const newest = this.timeline.newest;
    const role = this.#members.get(this.#parts.me() ?? "")?.role;
    return {
      ...(this.id === undefined ? {} : { id: this.id }),
      ...(this.kind === undefined ? {} : { kind: this.kind }),
      ...(this.frame?.title ? { title: this.frame.title } : {}),
      ...(this.peer === undefined ? {} : { peer: this.peer }),
      ...(newest ? { lastMessage: this.view(newest) } : {}),
      ...(role ? { role } : {}),
      memberCount: this.#memberCount,
      unread: this.unread,
      isLarge: this.frame?.large === true,
      isMember: this.isMember,
    };
  }

  #makeMessages(): readonly ChatMessage[] {
    const stored = this.timeline.messages;
    const me = this.#parts.me();
    const ticks = `${this.#readUpTo} ${this.#deliveredUpTo} ${me}`;
    const before = this.#made;
    const isSame = ticks === before.ticks;
    const views = stored.map((message, at) => {
      const view = isSame && message === before.stored[at] ? before.views[at] : undefined;
      return view ?? this.view(message);
    });
    this.#made = { stored, views, ticks };
    if (this.#pending.size === 0) return views;
    const known = new Set(stored.filter(({ senderId }) => senderId === me).map(({ tempId }) => tempId));
    const waiting = [...this.#pending.values()].sort((a, b) => a.order - b.order);
    return [...views, ...waiting.filter(({ tempId }) => !known.has(tempId)).map((entry) => this.#waitingView(entry))];
  }

  #waitingView(entry: Entry): ChatMessage {
    return {
      key: entry.tempId,
      tempId: entry.tempId,
      senderId: this.#parts.me() ?? entry.userId ?? "",
      isMine: true,
      kind: entry.kind ?? "text",
      content: entry.content,
      ...(entry.replyTo ? { replyTo: entry.replyTo } : {}),
      createdAt: new Date(entry.order).toISOString(),
      reactions: {},
      ...(entry.error ? { status: "failed", error: new ParleyError(entry.error) } : { status: "sending" }),
    };
  }
}

/** The other user of a direct conversation; nobody as long as it isn't known who the user is. */
export function otherMember(frame: ConversationFrame, me: string | undefined): string | undefined {
  if (frame.kind !== "direct" || me === undefined) return undefined;
  return frame.members.find(({ userId }) => userId !== me)?.userId;
}
