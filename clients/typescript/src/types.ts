// The types of the client, and those of frames and of REST, which are generated from the gateway's documents.

import type { ParleyError } from "./errors.js";
import type {
  Conversation,
  ErrorCode,
  MemberView,
  Message,
  ServerAuthSuccess,
  ServerFrame,
} from "./generated/frames.js";

export type { Clock } from "./clock.js";
export type { ErrorBody } from "./errors.js";
export type * as frames from "./generated/frames.js";
export type { ClientFrame, ServerFrame } from "./generated/frames.js";
export type * as rest from "./generated/rest.js";
export type { Readable } from "./store.js";
export type { ErrorCode };

/** A message as the gateway shows it. */
export type MessageFrame = Message;

/** A conversation as the gateway shows it. Newer gateways say whether it is large. */
export type ConversationFrame = Conversation & { large?: boolean };

export type Role = MemberView["role"];

export type ConversationKind = Conversation["kind"];

type NewInWelcome = "version" | "features";

/** The answer to a good token. Older gateways don't say their version, nor the features that a client may use. */
export type Welcome = Omit<ServerAuthSuccess["payload"], NewInWelcome> &
  Partial<Pick<ServerAuthSuccess["payload"], NewInWelcome>>;

/** How the connection is. */
export interface ConnectionState {
  /**
   * `connecting`: the first try is under way. `online`: messages go both ways. `reconnecting`: the connection was lost, or
   * the first try failed; the next one follows by itself. `offline`: the device has no network. `stopped`: no further try
   * follows until `connect` is called.
   */
  readonly status: "connecting" | "online" | "reconnecting" | "offline" | "stopped";
  /** Why the client stopped, or why the last connection ended. */
  readonly reason?: string;
  /** The close code that ended the last connection. */
  readonly code?: number;
  /** When the next try begins, in milliseconds since 1970. */
  readonly retryAtMs?: number;
}

/**
 * `sending`: on its way, or waiting for a connection. `failed`: refused; `error` says why, and the user can send it again or
 * drop it. Then `stored`, `delivered` and `read`: by all other members whose position is known.
 */
export type MessageStatus = "sending" | "failed" | "stored" | "delivered" | "read";

/** A message as a user interface shows it. */
export interface ChatMessage {
  /** Stays the same from sending to storing, so that a list can be keyed by it. */
  readonly key: string;
  /** The gateway's id; absent until it is stored. */
  readonly id?: string;
  /** Its place in the conversation; absent until it is stored. */
  readonly seq?: number;
  readonly tempId?: string;
  readonly senderId: string;
  readonly isMine: boolean;
  readonly kind: string;
  /** Empty once deleted. */
  readonly content: string;
  /** The id of the message that it answers. */
  readonly replyTo?: string;
  /** RFC 3339; the device's time until it is stored. */
  readonly createdAt: string;
  readonly editedAt?: string;
  readonly deletedAt?: string;
  /** The users who reacted, by emoji. */
  readonly reactions: Readonly<Record<string, readonly string[]>>;
  /** Of one's own messages alone. */
  readonly status?: MessageStatus;
  /** Why it failed. */
  readonly error?: ParleyError;
}

/** What is known about a conversation. */
export interface ConversationInfo {
  /** Absent for a direct conversation in which nobody has written. */
  readonly id?: string;
  readonly kind?: ConversationKind;
  readonly title?: string;
  /** The other user of a direct conversation. */
  readonly peer?: string;
  readonly memberCount: number;
  readonly lastMessage?: ChatMessage;
  readonly unread: number;
  readonly isLarge: boolean;
  /** False once the user left, was removed, or the conversation was deleted. */
  readonly isMember: boolean;
  /** One's own role. */
  readonly role?: Role;
}

/** How much of the history is loaded. */
export interface History {
  readonly hasOlder: boolean;
  readonly isLoading: boolean;
  readonly error?: ParleyError;
}

export interface Member {
  readonly userId: string;
  readonly role: Role;
  /** The `seq` up to which they have read, as far as it is known. */
  readonly readSeq: number;
  /** The `seq` up to which messages reached them, as far as it is known. */
  readonly deliveredSeq: number;
}

/** Whether a user is online; `undefined` until the gateway told. */
export interface Presence {
  readonly online: boolean | undefined;
  /** RFC 3339. */
  readonly lastSeen?: string;
}

/** Where messages wait that are not stored yet. React Native's AsyncStorage fits as it is. */
export interface QueueStorage {
  getItem(key: string): MaybePromise<string | null>;
  setItem(key: string, value: string): MaybePromise<void>;
  removeItem(key: string): MaybePromise<void>;
  getAllKeys(): MaybePromise<readonly string[]>;
}

export type MaybePromise<T> = T | Promise<T>;

/** A token, or a function that gets one; `null` means that nobody is signed in, and stops the client. */
export type TokenSource = string | (() => MaybePromise<string | null>);

/** The part of a WebSocket that is used. */
export interface Socket {
  readonly readyState: number;
  onopen: ((event: never) => unknown) | null;
  onmessage: ((event: never) => unknown) | null;
  onclose: ((event: never) => unknown) | null;
  onerror: ((event: never) => unknown) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export type SocketClass = new (url: string, protocols: string[]) => Socket;

/** The device: whether it has a network, and what happens to the page. */
export interface Device {
  isOnline(): boolean;
  /** Calls back until the answer is called. `wake`: the page is visible again, or came back from the cache. */
  listen(call: (event: "online" | "offline" | "wake") => void): () => void;
}

export interface Options {
  token: TokenSource;
  /** Where messages wait that are not stored yet; in memory unless given. */
  storage?: QueueStorage;
  /** The signed-in user. Messages that wait in the storage are sent only as the user who wrote them. */
  userId?: string;
  /** Whether senders are told that messages reached this device; true unless given. */
  deliveryReceipts?: boolean;
  /** False waits for `connect()`. */
  connect?: boolean;
  WebSocket?: SocketClass;
  fetch?: typeof fetch;
  clock?: import("./clock.js").Clock;
  device?: Device;
}

/** A frame with the fields of newer gateways. */
export type Frame = ServerFrame & { rev?: number };
