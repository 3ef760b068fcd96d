// Generated from /asyncapi.json by scripts/types.mjs.

export type ClientFrame =
  | ClientAuth
  | ClientBlockAdd
  | ClientBlockRemove
  | ClientConversationJoin
  | ClientConversationLeave
  | ClientMessageDelete
  | ClientMessageDelivered
  | ClientMessageEdit
  | ClientMessageRead
  | ClientMessageSend
  | ClientPing
  | ClientPresenceQuery
  | ClientReactionAdd
  | ClientReactionRemove
  | ClientTyping;
export type UserId = string;
export type ConversationId = string;
/**
 * A decimal number of at most 2^53 - 1.
 */
export type MessageId = string;
export type Content = string;
/**
 * The body of `message.send`; one of `conversationId` and `to`.
 */
export type SendBody = {
  content: Content;
  conversationId?: ConversationId | null;
  data?: MessageData | null;
  /**
   * `text`, or a kind that the node's setting MESSAGE_KINDS allows; `system` is for backends.
   */
  kind?: string | null;
  replyTo?: MessageId | null;
  /**
   * At most 128 bytes.
   */
  tempId?: string | null;
  to?: UserId | null;
} & SendBody1;
export type SendBody1 =
  | {
      conversationId: string;
      to?: null;
    }
  | {
      conversationId?: null;
      to: string;
    };
export type ServerFrame =
  | ServerAuthFailed
  | ServerAuthSuccess
  | ServerBlockAdded
  | ServerBlockRemoved
  | ServerBroadcast
  | ServerConversationChanged
  | ServerConversationCreated
  | ServerConversationDeleted
  | ServerConversationJoined
  | ServerConversationLeft
  | ServerConversationPosition
  | ServerConversationResync
  | ServerConversationUpdated
  | ServerError
  | ServerGoaway
  | ServerMemberJoined
  | ServerMemberLeft
  | ServerMembersChanged
  | ServerMessageDeleted
  | ServerMessageDeliveredUpdate
  | ServerMessageEdited
  | ServerMessageNew
  | ServerMessageReadAck
  | ServerMessageReadUpdate
  | ServerMessageSent
  | ServerNotification
  | ServerNotificationRead
  | ServerNotificationUnread
  | ServerPong
  | ServerPosition
  | ServerReactionUpdated
  | ServerResync
  | ServerStatusBulk
  | ServerTyping
  | ServerUserOffline
  | ServerUserOnline;
/**
 * The error codes, on every dialect and over REST.
 */
export type ErrorCode =
  | "INVALID_MESSAGE"
  | "VALIDATION_ERROR"
  | "UNKNOWN_EVENT"
  | "PAYLOAD_TOO_LARGE"
  | "UNAUTHENTICATED"
  | "TOKEN_EXPIRED"
  | "FORBIDDEN"
  | "NOT_MEMBER"
  | "BANNED"
  | "BLOCKED"
  | "REFUSED"
  | "PASSWORD_REQUIRED"
  | "NOT_FOUND"
  | "CONFLICT"
  | "RATE_LIMITED"
  | "LIMIT_EXCEEDED"
  | "INTERNAL_ERROR"
  | "UNAVAILABLE"
  | "TIMEOUT";
/**
 * RFC 3339, UTC, with milliseconds.
 */
export type Timestamp = string;
/**
 * The name under which a log's `seq` counts. Another name is another log.
 */
export type Epoch = string;
/**
 * Why a client has to fetch what it missed.
 */
export type ResyncReason = "epoch" | "trimmed" | "future" | "invalid";
/**
 * A decimal number of at most 2^53 - 1.
 */
export type NotificationId = string;

export interface ChatFrames {
  client?: ClientFrame;
  server?: ServerFrame;
}
export interface ClientAuth {
  payload: {
    resume?: ResumeBody | null;
    token: string;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "auth";
}
/**
 * Where a client was.
 */
export interface ResumeBody {
  /**
   * For each large conversation the last `rev` that was seen, and the highest `message.seq`; 100 at most.
   */
  conversations?: {
    /**
     * @minItems 2
     * @maxItems 2
     *
     * This interface was referenced by `undefined`'s JSON-Schema definition
     * via the `patternProperty` "^[A-Za-z0-9_.:@|+-]+$".
     */
    [k: string]: [number, number];
  } | null;
  /**
   * The epoch of the position.
   */
  epoch: string;
  /**
   * The last `seq` that was seen.
   */
  seq: number;
}
/**
 * By id or by user name.
 */
export interface ClientBlockAdd {
  payload?: {
    userId?: UserId | null;
    username?: string | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "block.add";
}
/**
 * By id or by user name.
 */
export interface ClientBlockRemove {
  payload?: {
    userId?: UserId | null;
    username?: string | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "block.remove";
}
export interface ClientConversationJoin {
  payload: {
    conversationId: ConversationId;
    /**
     * At most 128 bytes.
     */
    password?: string | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "conversation.join";
}
export interface ClientConversationLeave {
  payload: {
    conversationId: ConversationId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "conversation.leave";
}
export interface ClientMessageDelete {
  payload: {
    messageId: MessageId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "message.delete";
}
export interface ClientMessageDelivered {
  payload: {
    conversationId: ConversationId;
    upTo: MessageId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "message.delivered";
}
export interface ClientMessageEdit {
  payload: {
    content: Content;
    messageId: MessageId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "message.edit";
}
export interface ClientMessageRead {
  payload: {
    conversationId: ConversationId;
    upTo?: MessageId | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "message.read";
}
export interface ClientMessageSend {
  payload: SendBody;
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "message.send";
}
/**
 * The application's own, at most 4096 bytes of JSON and 16 levels deep. `mentions` names users.
 */
export interface MessageData {
  /**
   * @maxItems 100
   */
  mentions?: string[];
  [k: string]: unknown;
}
export interface ClientPing {
  payload?: {
    timestamp?: string | number | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "ping";
}
export interface ClientPresenceQuery {
  payload: {
    /**
     * @maxItems 500
     */
    userIds: UserId[];
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "presence.query";
}
export interface ClientReactionAdd {
  payload: {
    /**
     * One grapheme that Unicode calls an emoji, or a name between colons.
     */
    emoji: string;
    messageId: MessageId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "reaction.add";
}
export interface ClientReactionRemove {
  payload: {
    /**
     * One grapheme that Unicode calls an emoji, or a name between colons.
     */
    emoji: string;
    messageId: MessageId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "reaction.remove";
}
export interface ClientTyping {
  payload: {
    conversationId: ConversationId;
    isTyping: boolean;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  type: "typing";
}
export interface ServerAuthFailed {
  payload: {
    code: ErrorCode;
    message: string;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "auth_failed";
}
export interface ServerAuthSuccess {
  payload: {
    connectedAt: Timestamp;
    connectionId: string;
    epoch: Epoch;
    /**
     * Names of what a client may use that not every gateway has.
     */
    features: string[];
    heartbeatSeconds: number;
    resumed: boolean;
    seq: number;
    userId: UserId;
    /**
     * The gateway's.
     */
    version: string;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "auth_success";
}
export interface ServerBlockAdded {
  payload: {
    userId: UserId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "block.added";
}
export interface ServerBlockRemoved {
  payload: {
    userId: UserId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "block.removed";
}
/**
 * An admin's message to every connected user.
 */
export interface ServerBroadcast {
  payload: {
    content: string;
    sentAt?: Timestamp | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "broadcast";
}
/**
 * The conversation without its newest message; members' `readSeq` is 0, because each reader may see others.
 */
export interface ServerConversationChanged {
  payload: {
    /**
     * The user who changed it; absent for a backend.
     */
    changedBy?: UserId | null;
    conversation: Conversation;
    /**
     * The `seq` of its newest message then.
     */
    lastSeq?: number | null;
    /**
     * It became large, or small again: the conversation's change counter from which its events come the other way.
     */
    rev?: number | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "conversation.changed";
}
/**
 * A conversation as one of its members sees it.
 */
export interface Conversation {
  /**
   * When it was made.
   */
  createdAt: string;
  /**
   * Whether joining takes a password.
   */
  hasPassword: boolean;
  /**
   * The application's id, or a generated one.
   */
  id: string;
  /**
   * Direct, group or channel.
   */
  kind: "direct" | "group" | "channel";
  /**
   * Whether it has so many members that its events are published once for all of them.
   */
  large?: boolean;
  /**
   * Its newest message.
   */
  lastMessage?: Message | null;
  /**
   * The `seq` of its newest message; 0 without one.
   */
  lastSeq: number;
  /**
   * How many accepted members it has.
   */
  memberCount: number;
  /**
   * Its first members by id, at most a hundred.
   */
  members: MemberView[];
  /**
   * The conversation's change counter.
   */
  rev: number;
  /**
   * The title, where it has one.
   */
  title?: string | null;
  /**
   * How many messages the calling user has not seen; absent if the caller isn't a user.
   */
  unread?: number | null;
  /**
   * Who may join.
   */
  visibility: "public" | "private";
}
/**
 * A stored message, as frames and REST show it.
 */
export interface Message {
  /**
   * The content; empty once deleted.
   */
  content: string;
  /**
   * The conversation that it stands in.
   */
  conversationId: string;
  /**
   * The store's time of commit.
   */
  createdAt: string;
  /**
   * What the application keeps beside the content; gone once deleted.
   */
  data?: MessageData | null;
  /**
   * When it was deleted.
   */
  deletedAt?: Timestamp | null;
  /**
   * When it was last edited.
   */
  editedAt?: Timestamp | null;
  /**
   * The generated id.
   */
  id: string;
  /**
   * The kind of the content; `text` unless the sender gave another.
   */
  kind: string;
  /**
   * The users who reacted, by emoji, in the order of their reactions.
   */
  reactions?: {
    [k: string]: UserId[];
  };
  /**
   * The message that it answers.
   */
  replyTo?: MessageId | null;
  /**
   * The conversation's change counter when this message last changed.
   */
  rev: number;
  /**
   * The sender.
   */
  senderId: string;
  /**
   * Its place in the conversation: from 1, gapless, in commit order.
   */
  seq: number;
  /**
   * The sender's own name for it, by which a retry is recognised.
   */
  tempId?: string | null;
}
/**
 * A member in a [`Conversation`].
 */
export interface MemberView {
  /**
   * The `seq` up to which they have read; 0 if the one who asks and they share a block.
   */
  readSeq: number;
  /**
   * A member's rights.
   */
  role: "member" | "admin" | "owner";
  /**
   * Who.
   */
  userId: string;
}
export interface ServerConversationCreated {
  payload: {
    conversation: Conversation;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "conversation.created";
}
export interface ServerConversationDeleted {
  payload: {
    conversationId: ConversationId;
    deletedAt: Timestamp;
    /**
     * The user who deleted it; absent for a backend.
     */
    deletedBy?: UserId | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "conversation.deleted";
}
export interface ServerConversationJoined {
  payload: {
    conversation: Conversation;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "conversation.joined";
}
export interface ServerConversationLeft {
  payload: {
    conversationId: ConversationId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "conversation.left";
}
/**
 * Where a connection is in a large conversation: the next event there has the next `rev`.
 */
export interface ServerConversationPosition {
  payload: {
    conversationId: ConversationId;
    lastSeq: number;
    rev: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "conversation.position";
}
/**
 * What a connection missed of a large conversation has to be fetched; its events go on behind this position.
 */
export interface ServerConversationResync {
  payload: {
    conversationId: ConversationId;
    lastSeq: number;
    reason: ResyncReason;
    rev: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "conversation.resync";
}
export interface ServerConversationUpdated {
  payload: {
    conversationId: ConversationId;
    lastMessage?: Message | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "conversation.updated";
}
export interface ServerError {
  payload: ProtocolError;
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "error";
}
/**
 * An error answer: the payload of an `error` frame, and the `error` member of a REST answer.
 */
export interface ProtocolError {
  /**
   * The fault, for programs.
   */
  code:
    | "INVALID_MESSAGE"
    | "VALIDATION_ERROR"
    | "UNKNOWN_EVENT"
    | "PAYLOAD_TOO_LARGE"
    | "UNAUTHENTICATED"
    | "TOKEN_EXPIRED"
    | "FORBIDDEN"
    | "NOT_MEMBER"
    | "BANNED"
    | "BLOCKED"
    | "REFUSED"
    | "PASSWORD_REQUIRED"
    | "NOT_FOUND"
    | "CONFLICT"
    | "RATE_LIMITED"
    | "LIMIT_EXCEEDED"
    | "INTERNAL_ERROR"
    | "UNAVAILABLE"
    | "TIMEOUT";
  /**
   * The field at fault.
   */
  field?: string | null;
  /**
   * The fault, for people. Never holds a token or a message body.
   */
  message: string;
  /**
   * How long to wait before that, in milliseconds.
   */
  retryAfterMs?: number | null;
  /**
   * Whether the same command may be sent again.
   */
  retryable: boolean;
}
export interface ServerGoaway {
  payload: {
    reason: string;
    reconnectWindowMs: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "goaway";
}
export interface ServerMemberJoined {
  payload: {
    conversationId: ConversationId;
    userId: UserId;
    username?: string | null;
    /**
     * The version of the members: of events about one user, the one with the highest version holds.
     */
    version: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "member.joined";
}
export interface ServerMemberLeft {
  payload: {
    conversationId: ConversationId;
    userId: UserId;
    username?: string | null;
    /**
     * As in `member.joined`.
     */
    version: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "member.left";
}
/**
 * In a large conversation more came and went than are told of one by one.
 */
export interface ServerMembersChanged {
  payload: {
    conversationId: ConversationId;
    memberCount: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "members.changed";
}
export interface ServerMessageDeleted {
  payload: {
    conversationId: ConversationId;
    deletedAt: Timestamp;
    messageId: MessageId;
    rev: number;
    /**
     * The message's place in the conversation.
     */
    seq: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "message.deleted";
}
export interface ServerMessageDeliveredUpdate {
  payload: {
    conversationId: ConversationId;
    deliveredAt: Timestamp;
    upTo: MessageId;
    userId: UserId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "message.delivered_update";
}
export interface ServerMessageEdited {
  payload: {
    message: Message;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "message.edited";
}
export interface ServerMessageNew {
  payload: {
    message: Message;
    senderName?: string | null;
    to?: UserId | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "message.new";
}
export interface ServerMessageReadAck {
  payload: {
    conversationId: ConversationId;
    /**
     * The conversation's newest `seq`.
     */
    lastSeq: number;
    markedCount: number;
    readAt: Timestamp;
    /**
     * The reader's position.
     */
    upToSeq: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "message.read_ack";
}
export interface ServerMessageReadUpdate {
  payload: {
    conversationId: ConversationId;
    messageIds: MessageId[];
    readAt: Timestamp;
    readBy: UserId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "message.read_update";
}
export interface ServerMessageSent {
  payload: {
    duplicate?: boolean;
    message: Message;
    /**
     * In other than direct conversations: the sender's name, if one is known.
     */
    senderName?: string | null;
    tempId?: string | null;
    /**
     * In a direct conversation: whom the message is to. In others absent.
     */
    to?: UserId | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "message.sent";
}
export interface ServerNotification {
  payload: {};
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "notification";
}
/**
 * To the devices of the user who marked notifications as read: these, or all.
 */
export interface ServerNotificationRead {
  payload: {
    notificationIds?: NotificationId[] | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "notification.read";
}
export interface ServerNotificationUnread {
  payload: {
    conversationId: ConversationId;
    totalUnread: number;
    unread: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "notification.unread";
}
export interface ServerPong {
  payload: {
    serverTime: Timestamp;
    timestamp: string | number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "pong";
}
export interface ServerPosition {
  payload: {
    epoch: Epoch;
    seq: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "position";
}
export interface ServerReactionUpdated {
  payload: {
    added: boolean;
    conversationId: ConversationId;
    emoji: string;
    messageId: MessageId;
    reactions: {
      [k: string]: UserId[];
    };
    rev: number;
    /**
     * The message's place in the conversation.
     */
    seq: number;
    userId: UserId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "reaction.updated";
}
export interface ServerResync {
  payload: {
    /**
     * Of the messages that it stands for, if all are of one conversation.
     */
    conversationId?: ConversationId | null;
    epoch: Epoch;
    /**
     * The message that it stands for.
     */
    messageId?: MessageId | null;
    /**
     * The messages that it stands for, if they are several.
     */
    messageIds?: MessageId[];
    /**
     * The kept notifications that it stands for.
     */
    notificationIds?: NotificationId[];
    reason: ResyncReason;
    seq: number;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "resync";
}
export interface ServerStatusBulk {
  payload: {
    users: {
      [k: string]: UserStatus;
    };
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "status.bulk";
}
/**
 * Whether a user is online, and since when not.
 *
 * This interface was referenced by `undefined`'s JSON-Schema definition
 * via the `patternProperty` "^[A-Za-z0-9_.:@|+-]+$".
 */
export interface UserStatus {
  /**
   * When their last connection closed, if that is known.
   */
  lastSeen?: Timestamp | null;
  /**
   * Connected to some node now.
   */
  online: boolean;
}
export interface ServerTyping {
  payload: {
    conversationId: ConversationId;
    isTyping: boolean;
    userId: UserId;
    /**
     * In other than direct conversations, if one is known.
     */
    username?: string | null;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "typing";
}
export interface ServerUserOffline {
  payload: {
    lastSeen: Timestamp;
    userId: UserId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "user.offline";
}
export interface ServerUserOnline {
  payload: {
    onlineAt: Timestamp;
    userId: UserId;
  };
  /**
   * Comes back in the answer to this frame.
   */
  ref?: string | number;
  /**
   * Events of large conversations only, in the place of seq.
   */
  rev?: number;
  /**
   * Durable events only: counts one by one.
   */
  seq?: number;
  type: "user.online";
}
