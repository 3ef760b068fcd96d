// A conversation as applications use it.

import type { Queue } from "./queue.js";
import type { Rest } from "./rest.js";
import type { ConversationState } from "./state.js";
import type { Readable } from "./store.js";
import type { ChatMessage, ConversationFrame, ConversationInfo, History, Member, MessageFrame, Role } from "./types.js";

/** What a conversation needs of its client. */
export interface ConversationParts {
  rest: Rest;
  queue: Queue;
  /** Shows others that the user types, or no longer. */
  typing(state: ConversationState, isTyping: boolean): void;
  read(state: ConversationState, messageId: string): void;
  older(state: ConversationState): Promise<void>;
  me(): string | undefined;
  apply(frame: ConversationFrame): void;
  left(id: string): void;
  onMessage(state: ConversationState, message: MessageFrame): void;
}

export interface SendOptions {
  /** `text` unless given. */
  kind?: string;
  /** The id of the message that it answers. */
  replyTo?: string;
}

export class Conversation {
  /** What is known about it: title, members' number, last message, unread messages. */
  readonly info: Readable<ConversationInfo>;
  /** Ascending, each message once, those on their way at the end. Subscribing loads the newest page. */
  readonly messages: Readable<readonly ChatMessage[]>;
  /** Whether there are older messages than those loaded. */
  readonly history: Readable<History>;
  /** The users who are typing. */
  readonly typing: Readable<readonly string[]>;
  /** The members that are known: the first hundred, and those met since. `loadMembers` fetches all. */
  readonly members: Readable<readonly Member[]>;
  readonly #state: ConversationState;
  readonly #parts: ConversationParts;

  /** @internal */
  constructor(state: ConversationState, parts: ConversationParts) {
    this.#state = state;
    this.#parts = parts;
    this.info = state.info;
    this.messages = state.messages;
    this.history = state.history;
    this.typing = state.typing;
    this.members = state.members;
  }

  /** Absent as long as nobody has written in a direct conversation. */
  get id(): string | undefined {
    return this.#state.id;
  }

  /** The other user of a direct conversation. */
  get peer(): string | undefined {
    return this.#state.peer;
  }

  /**
   * Sends a message. It shows at once, waits while there is no connection, over reloads too if the client has a storage, and
   * resolves when the gateway has stored it. It rejects if the gateway refuses it; then the message shows the error.
   */
  send(content: string, options: SendOptions = {}): Promise<ChatMessage> {
    const { id, peer } = this.#state;
    // A direct conversation is named by its user, whether or not it was opened before, so that its order is kept.
    const target = peer === undefined ? { conversationId: id } : { to: peer };
    this.#parts.typing(this.#state, false);
    return this.#shown(this.#parts.queue.add({ ...target, content, ...options }));
  }

  /** Sends a message that failed again. */
  sendAgain(tempId: string): Promise<ChatMessage> {
    return this.#shown(this.#parts.queue.again(tempId));
  }

  /** Drops a message that failed. */
  drop(tempId: string): void {
    this.#parts.queue.drop(tempId);
  }

  /** Replaces the content of one's own message. */
  edit(messageId: string, content: string): Promise<void> {
    return this.#change("PATCH", messageId, "", { content });
  }

  delete(messageId: string): Promise<void> {
    return this.#change("DELETE", messageId);
  }

  react(messageId: string, emoji: string): Promise<void> {
    return this.#change("POST", messageId, "/reactions", { emoji });
  }

  unreact(messageId: string, emoji: string): Promise<void> {
    return this.#change("DELETE", messageId, `/reactions/${encodeURIComponent(emoji)}`);
  }

  /** Marks messages as read, up to this one or all. It is repeated until the gateway has heard it. */
  markRead(upTo?: string): void {
    const id = upTo ?? this.#state.timeline.newest?.id;
    if (id !== undefined) this.#parts.read(this.#state, id);
  }

  /** To be called with each key: shows that the user types. It ends by itself, and when a message is sent. */
  notifyTyping(isTyping = true): void {
    this.#parts.typing(this.#state, isTyping);
  }

  /** Loads the page before the loaded ones. */
  loadOlder(): Promise<void> {
    return this.#parts.older(this.#state);
  }

  /** The loaded messages that hold this text, in upper or lower case. */
  search(text: string): readonly ChatMessage[] {
    const sought = text.toLocaleLowerCase();
    return sought === ""
      ? []
      : this.messages.get().filter(({ content }) => content.toLocaleLowerCase().includes(sought));
  }

  /** Joins a channel, or accepts an invitation. */
  async join(password?: string): Promise<void> {
    const body = password === undefined ? {} : { password };
    this.#parts.apply(await this.#request("POST", "/join", body));
  }

  /** Leaves, or declines an invitation. */
  async leave(): Promise<void> {
    await this.#request("POST", "/leave", {});
    if (this.id !== undefined) this.#parts.left(this.id);
  }

  async addMember(userId: string, role?: Role): Promise<void> {
    this.#parts.apply(await this.#request("POST", "/members", role ? { userId, role } : { userId }));
  }

  /** Adds many. Answers who was left out, because of a ban or of a block. */
  async addMembers(userIds: string[]): Promise<{ added: string[]; banned: string[]; blocked: string[] }> {
    return await this.#request("POST", "/members", { userIds });
  }

  async setRole(userId: string, role: Role): Promise<void> {
    this.#parts.apply(await this.#request("PATCH", `/members/${encodeURIComponent(userId)}`, { role }));
  }

  async removeMember(userId: string): Promise<void> {
    await this.#request("DELETE", `/members/${encodeURIComponent(userId)}`);
  }

  async ban(userId: string): Promise<void> {
    await this.#request("POST", "/bans", { userId });
  }

  async unban(userId: string): Promise<void> {
    await this.#request("DELETE", `/bans/${encodeURIComponent(userId)}`);
  }

  async invite(userId: string): Promise<void> {
    await this.#request("POST", "/invites", { userId });
  }

  /** Changes title, visibility or password; `null` clears. Needs a gateway that has `PATCH` for conversations. */
  async change(what: {
    title?: string | null;
    visibility?: "public" | "private";
    password?: string | null;
  }): Promise<void> {
    this.#parts.apply(await this.#request("PATCH", "", what));
  }

  /** Fetches all members. Needs a gateway that lists members. */
  async loadMembers(): Promise<void> {
    await this.#parts.rest.pages<Partial<Member>>(`${this.#path()}/members?limit=100`, "cursor", (items) => {
      this.#state.addMembers(items);
      return undefined;
    });
  }

  async #change(method: string, messageId: string, what = "", body?: object): Promise<void> {
    const path = `/api/v1/messages/${encodeURIComponent(messageId)}${what}`;
    const changed = await this.#parts.rest.request<MessageFrame | undefined>(method, path, body);
    if (changed) this.#parts.onMessage(this.#state, changed);
  }

  #path(): string {
    return `/api/v1/conversations/${encodeURIComponent(this.id ?? "")}`;
  }

  #request<T>(method: string, path: string, body?: object): Promise<T> {
    return this.#parts.rest.request<T>(method, this.#path() + path, body);
  }

  #shown(stored: Promise<MessageFrame>): Promise<ChatMessage> {
    const shown = stored.then((message) => this.#state.view(message));
    // The message shows its error; an application that doesn't wait for the answer misses nothing.
    shown.catch(() => {});
    return shown;
  }
}
