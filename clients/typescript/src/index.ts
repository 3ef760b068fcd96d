// The client of a Parley chat gateway.

export { Conversation, type SendOptions } from "./conversation.js";
export { ParleyError } from "./errors.js";
export { type NewConversation, Parley } from "./parley.js";
export type {
  ChatMessage,
  ConnectionState,
  ConversationInfo,
  Device,
  Frame,
  History,
  Member,
  MessageStatus,
  Options,
  Presence,
  QueueStorage,
  Readable,
  Role,
  TokenSource,
} from "./types.js";
