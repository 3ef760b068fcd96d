// The client: it brings connection, state and queue together, and applies each frame.

import { applyFrame } from "./apply.js";
import { type Clock, systemClock } from "./clock.js";
import { Connection } from "./connection.js";
import { Conversation, type ConversationParts } from "./conversation.js";
import { browserDevice } from "./device.js";
import { Directory } from "./directory.js";
import { Feed } from "./feed.js";
import { PresenceBook } from "./presence.js";
import { type Entry, Queue } from "./queue.js";
import { Receipts } from "./receipts.js";
import { Rest } from "./rest.js";
import type { ConversationState } from "./state.js";
import { memory } from "./storage.js";
import { Batch, Cell, type Readable } from "./store.js";
import { streamClass } from "./stream.js";
import { Sync } from "./sync.js";
import type {
  ConnectionState,
  ConversationFrame,
  ConversationInfo,
  ConversationKind,
  Frame,
  MessageFrame,
  Options,
  Presence,
  SocketClass,
  Welcome,
} from "./types.js";

/** A conversation to make. */
export interface NewConversation {
  kind: ConversationKind;
  title?: string;
  members?: string[];
  visibility?: "public" | "private";
  password?: string;
}

type Listener = (frame: Frame) => void;

export class Parley {
  /** How the connection is. */
  readonly connection: Readable<ConnectionState>;
  /** The user's conversations, newest activity first. */
  readonly conversations: Readable<readonly ConversationInfo[]>;
  /** Unread messages of all conversations together. */
  readonly unread: Readable<number>;
  /** Whether everything was fetched since the last start or loss of the position. */
  readonly isSynced: Readable<boolean>;
  /** The signed-in user, from the first answer of the gateway on. */
  readonly userId: Readable<string | undefined>;
  /** The users that the user blocked, as far as the gateway tells. */
  readonly blocks: Readable<readonly string[]>;

  readonly #batch = new Batch();
  readonly #clock: Clock;
  readonly #connection: Connection;
  readonly #feed: Feed;
  readonly #rest: Rest;
  readonly #queue: Queue;
  readonly #sync: Sync;
  readonly #presence: PresenceBook;
  readonly #receipts: Receipts;
  readonly #conversationParts: ConversationParts;
  readonly #options: Options;
  readonly #listeners = new Map<string, Set<Listener>>();

  readonly #connectionCell: Cell<ConnectionState>;
  readonly #listCell: Cell<readonly ConversationInfo[]>;
  readonly #unreadCell: Cell<number>;
  readonly #syncedCell: Cell<boolean>;
  readonly #userCell: Cell<string | undefined>;
  readonly #blocksCell: Cell<readonly string[]>;

  readonly #directory: Directory;
  readonly #handles = new WeakMap<ConversationState, Conversation>();
  #blocked = new Set<string>();
  #welcome: Welcome | undefined;

  /** `url` is where the gateway is: `wss://chat.example.com`. */
  constructor(url: string, options: Options) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    const base = url.replace(/\/+$/, "");
    const fetch_ = options.fetch ?? ((input, init) => fetch(input, init));
    this.#feed = new Feed({
      isKnown: (id) => this.#directory.isKnown(id),
      isOpenedBy: (message) => this.#isOpenedBy(message),
      fetch: (id) => this.#sync.one(id),
      fetchEverything: () => this.#fetchEverything(),
      apply: (frame) => this.#dispatch(frame),
    });
    this.#rest = new Rest(base.replace(/^ws/, "http"), options.token, fetch_, this.#clock);
    this.#connection = new Connection({
      url: `${base.replace(/^http/, "ws")}/chat/ws`,
      token: options.token,
      clock: this.#clock,
      device: options.device ?? browserDevice(),
      WebSocket: options.WebSocket ?? (globalThis.WebSocket as unknown as SocketClass),
      Stream: streamClass(this.#rest, this.#clock),
      hasStreams: () => this.#welcome?.features?.includes("stream") ?? true,
      position: () => this.#feed.position,
      forgetPosition: () => this.#feed.forgetPosition(),
      onState: () => this.#connectionCell.touch(),
      onWelcome: (welcome) => this.#onWelcome(welcome),
      onFrame: (frame) => this.#onFrame(frame),
      onLost: () => this.#onLost(),
    });
    this.#queue = new Queue({
      storage: options.storage ?? memory(),
      clock: this.#clock,
      isOnline: () => this.#connection.isOnline,
      userId: () => this.#me(),
      send: (frame) => this.#connection.send(frame),
      onChange: (entry) => this.#onQueue(entry),
    });
    this.#directory = new Directory({
      batch: this.#batch,
      clock: this.#clock,
      me: () => this.#me(),
      waiting: () => this.#queue.entries,
      onInfo: () => {
        this.#listCell.touch();
        this.#unreadCell.touch();
      },
      onWanted: (state) => {
        if (state.timeline.isStarted) void this.#sync.firstPage(state);
      },
    });
    this.#sync = new Sync({
      rest: this.#rest,
      clock: this.#clock,
      isActive: () => this.#connection.state.status !== "stopped",
      states: (id) => this.#directory.states(id),
      all: () => this.#directory.all(),
      apply: (frame) => this.#apply(frame),
      onMessage: (state, message) => this.#fetched(state, message),
    });
    this.#presence = new PresenceBook(this.#batch, (userIds) => {
      this.#connection.send({ type: "presence.query", payload: { userIds } });
    });
    this.#receipts = new Receipts({
      clock: this.#clock,
      send: (frame) => this.#connection.send(frame),
      tellsDelivery: options.deliveryReceipts !== false,
    });
    this.#conversationParts = this.#partsForConversations();
    this.connection = this.#connectionCell = new Cell(this.#batch, () => this.#connection.state);
    this.conversations = this.#listCell = new Cell(this.#batch, () => this.#directory.list());
    this.unread = this.#unreadCell = new Cell(this.#batch, () => this.#directory.unread());
    this.isSynced = this.#syncedCell = new Cell(this.#batch, () => this.#feed.isSynced);
    this.userId = this.#userCell = new Cell(this.#batch, () => this.#me());
    this.blocks = this.#blocksCell = new Cell<readonly string[]>(this.#batch, () => [...this.#blocked]);
    if (options.connect !== false) this.#connection.start();
  }

  /** Connects, also again after `stopped`. While the client waits for its next try, it tries now. */
  connect(): void {
    // Whatever was being fetched when the client stopped is fetched again.
    if (this.#connection.state.status === "stopped") this.#feed.forgetPosition();
    this.#connection.start();
  }

  /** Ends the connection and all timers. Messages that wait stay in the storage. */
  close(): void {
    this.#connection.stop("closed");
    this.#queue.close();
    this.#receipts.close();
    for (const state of this.#directory.all()) state.hole.stop();
  }

  /** The conversation with one other user. It need not exist yet: the first message opens it. */
  direct(userId: string): Conversation {
    return this.#handle(this.#directory.withUser(userId));
  }

  group(id: string): Conversation {
    return this.#handle(this.#directory.withId(id, "group"));
  }

  channel(id: string): Conversation {
    return this.#handle(this.#directory.withId(id, "channel"));
  }

  conversation(id: string): Conversation {
    return this.#handle(this.#directory.withId(id));
  }

  /** Makes a conversation, of which the user is the owner. */
  async create(what: NewConversation): Promise<Conversation> {
    const frame: ConversationFrame = await this.#rest.request("POST", "/api/v1/conversations", what);
    this.#apply(frame);
    return this.conversation(frame.id);
  }

  presence(userId: string): Readable<Presence> {
    return this.#presence.of(userId);
  }

  async block(userId: string): Promise<void> {
    await this.#rest.request("POST", "/api/v1/blocks", { userId });
    this.#setBlocked(userId, true);
  }

  async unblock(userId: string): Promise<void> {
    await this.#rest.request("DELETE", `/api/v1/blocks/${encodeURIComponent(userId)}`);
    this.#setBlocked(userId, false);
  }

  /** Calls back with each frame of this type, for example `notification`. The answer ends that. */
  on<T extends Frame["type"]>(type: T, call: (frame: Extract<Frame, { type: T }>) => void): () => void {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners);
    const listener: Listener = (frame) => call(frame as Extract<Frame, { type: T }>);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  #me(): string | undefined {
    return this.#welcome?.userId ?? this.#options.userId;
  }

  #onWelcome(welcome: Welcome): void {
    const me = this.#me();
    if (me !== undefined && me !== welcome.userId) {
      // What is shown belongs to somebody else. A new client begins with nothing.
      return this.#connection.stop("the token is another user's");
    }
    this.#welcome = welcome;
    this.#userCell.touch();
    this.#presence.refresh();
    void this.#queue.signedIn(welcome.userId);
    this.#receipts.online();
    if (!this.#feed.begins(welcome)) this.#fetchEverything();
    this.#syncedCell.touch();
  }

  #onFrame(frame: Frame): void {
    if (!this.#feed.take(frame)) return;
    for (const listener of this.#listeners.get(frame.type) ?? []) listener(frame);
  }

  #onLost(): void {
    this.#sync.stop();
    this.#queue.lost();
    for (const state of this.#directory.all()) state.nobodyTypes();
  }

  #fetchEverything(): void {
    this.#feed.lacks();
    this.#syncedCell.touch();
    void this.#fetchBlocks();
    void this.#sync.everything().then((isDone) => {
      if (!isDone) return;
      this.#feed.complete();
      this.#syncedCell.touch();
      for (const state of this.#directory.all()) {
        this.#sync.watchHoles(state);
        if (state.isWanted) void this.#sync.firstPage(state);
        const newest = state.timeline.newest;
        if (newest && state.unread > 0 && newest.senderId !== this.#me()) this.#receipts.arrived(state, newest.id);
      }
    });
  }

  /** The first message to a user opened the conversation, so its id is known now. */
  #isOpenedBy({ tempId, conversationId, seq, rev }: MessageFrame): boolean {
    const to = this.#queue.entries.find((waiting) => waiting.tempId === tempId)?.to;
    const state = to === undefined ? undefined : this.#directory.opened(to, conversationId);
    state?.timeline.start(seq - 1, rev - 1);
    if (state) void this.#sync.one(conversationId);
    return state !== undefined;
  }

  async #fetchBlocks(): Promise<void> {
    const listed = new Set<string>();
    try {
      await this.#rest.pages<{ userId: string }>("/api/v1/blocks?limit=100", "cursor", (items) => {
        for (const { userId } of items) listed.add(userId);
        return undefined;
      });
      this.#blocked = listed;
      this.#blocksCell.touch();
    } catch {
      // An older gateway has no list; then only what is blocked from now on is known.
    }
  }

  #dispatch(frame: Frame): void {
    applyFrame(frame, {
      each: (id, use) => {
        for (const state of this.#directory.states(id)) {
          use(state);
          this.#sync.watchHoles(state);
        }
      },
      me: () => this.#me(),
      told: (state, message) => this.#told(state, message),
      settle: (message) => this.#queue.settle(message),
      refuse: (ref, fault) => this.#refused(ref, fault),
      apply: (conversation) => this.#apply(conversation),
      moved: (id, isMember) => this.#moved(id, isMember),
      readHeard: (state) => this.#receipts.readHeard(state),
      presence: this.#presence,
      block: (userId, isBlocked) => this.#setBlocked(userId, isBlocked),
      fetch: (id) => void this.#sync.one(id),
    });
  }

  /** A message came live. */
  #told(state: ConversationState, message: MessageFrame): void {
    state.add(message, true);
    if (message.senderId === this.#me()) this.#queue.settle(message);
    else this.#receipts.arrived(state, message.id);
  }

  /** A message came by REST. */
  #fetched(state: ConversationState, message: MessageFrame): void {
    state.add(message, false);
    if (message.senderId === this.#me()) this.#queue.settle(message);
  }

  #refused(ref: unknown, fault: Extract<Frame, { type: "error" }>["payload"]): void {
    if (this.#queue.refuse(ref, fault) || typeof ref !== "string" || fault.retryable) return;
    if (ref.startsWith("read "))
      for (const state of this.#directory.states(ref.slice(5))) this.#receipts.readHeard(state);
  }

  #apply(frame: ConversationFrame): void {
    for (const state of this.#directory.statesFor(frame)) {
      const isNew = !state.timeline.isStarted;
      if (!state.frame) this.#presence.met(frame.members.map(({ userId }) => userId));
      state.apply(frame);
      this.#sync.watchHoles(state);
      if (isNew && state.isWanted) void this.#sync.firstPage(state);
    }
    this.#feed.known(frame.id);
  }

  #moved(id: string, isMember: boolean): void {
    this.#sync.moved(id, isMember);
    if (!isMember) for (const state of this.#directory.states(id)) state.gone();
  }

  #setBlocked(userId: string, isBlocked: boolean): void {
    if (isBlocked) this.#blocked.add(userId);
    else this.#blocked.delete(userId);
    this.#blocksCell.touch();
  }

  #onQueue(entry: Entry): void {
    const isThere = this.#queue.entries.some(({ tempId }) => tempId === entry.tempId);
    // What a page before has left may be for somebody of whom nothing is known yet.
    if (entry.to !== undefined) this.#directory.withUser(entry.to);
    else if (entry.conversationId !== undefined) this.#directory.withId(entry.conversationId);
    for (const state of this.#directory.all()) if (state.isTarget(entry)) state.waits(entry, isThere);
  }

  #handle(state: ConversationState): Conversation {
    const handle = this.#handles.get(state) ?? new Conversation(state, this.#conversationParts);
    this.#handles.set(state, handle);
    return handle;
  }

  #partsForConversations(): ConversationParts {
    return {
      rest: this.#rest,
      queue: this.#queue,
      typing: (state, isTyping) => this.#receipts.typing(state, isTyping),
      read: (state, messageId) => this.#receipts.read(state, messageId),
      older: (state) => this.#sync.older(state),
      me: () => this.#me(),
      apply: (frame) => this.#apply(frame),
      left: (id) => this.#moved(id, false),
      onMessage: (state, message) => this.#fetched(state, message),
    };
  }
}
