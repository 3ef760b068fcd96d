// What each frame does to the state. One switch, so that a new frame is handled in one place.

import type { PresenceBook } from "./presence.js";
import type { ConversationState } from "./state.js";
import type { ConversationFrame, Frame, MessageFrame } from "./types.js";

export interface ApplyParts {
  /** Each state of the conversation; none if it isn't known. */
  each(id: string, use: (state: ConversationState) => void): void;
  me(): string | undefined;
  /** A message came live. */
  told(state: ConversationState, message: MessageFrame): void;
  settle(message: MessageFrame): void;
  refuse(ref: unknown, fault: Extract<Frame, { type: "error" }>["payload"]): void;
  apply(conversation: ConversationFrame): void;
  moved(id: string, isMember: boolean): void;
  readHeard(state: ConversationState): void;
  presence: PresenceBook;
  block(userId: string, isBlocked: boolean): void;
  fetch(id: string): void;
}

export function applyFrame(frame: Frame, parts: ApplyParts): void {
  switch (frame.type) {
    case "message.sent":
    case "message.new": {
      const { message } = frame.payload;
      parts.each(message.conversationId, (state) => parts.told(state, message));
      if (frame.type === "message.sent") parts.settle(message);
      return;
    }
    case "message.edited": {
      const { message } = frame.payload;
      return parts.each(message.conversationId, (state) => state.add(message, false));
    }
    case "message.deleted": {
      const { conversationId, messageId, deletedAt, rev } = frame.payload;
      return parts.each(conversationId, (state) =>
        state.change({ id: messageId, rev, fields: { content: "", deletedAt } }),
      );
    }
    case "reaction.updated": {
      const { conversationId, messageId, reactions, rev } = frame.payload;
      return parts.each(conversationId, (state) => state.change({ id: messageId, rev, fields: { reactions } }));
    }
    case "notification.unread": {
      const { conversationId, unread } = frame.payload;
      return parts.each(conversationId, (state) => state.setUnread(unread));
    }
    case "message.read_ack":
      return parts.each(frame.payload.conversationId, (state) => parts.readHeard(state));
    case "message.read_update": {
      const { conversationId, readBy, messageIds } = frame.payload;
      return parts.each(conversationId, (state) => state.reached(readBy, messageIds, "readSeq"));
    }
    case "message.delivered_update": {
      const { conversationId, userId, upTo } = frame.payload;
      return parts.each(conversationId, (state) => state.reached(userId, [upTo], "deliveredSeq"));
    }
    case "typing": {
      const { conversationId, userId, isTyping } = frame.payload;
      return parts.each(conversationId, (state) => state.typed(userId, isTyping));
    }
    case "conversation.created":
    case "conversation.joined": {
      const { conversation } = frame.payload;
      parts.moved(conversation.id, true);
      return parts.apply(conversation);
    }
    case "conversation.left":
      return parts.moved(frame.payload.conversationId, false);
    case "member.joined":
    case "member.left": {
      const { conversationId, userId } = frame.payload;
      if (frame.type === "member.joined") return parts.each(conversationId, (state) => state.memberJoined(userId));
      if (userId === parts.me()) return parts.moved(conversationId, false);
      return parts.each(conversationId, (state) => state.memberLeft(userId));
    }
    case "status.bulk":
      for (const [userId, status] of Object.entries(frame.payload.users)) {
        parts.presence.told(userId, status.online, status.lastSeen);
      }
      return;
    case "user.online":
      return parts.presence.told(frame.payload.userId, true);
    case "user.offline":
      return parts.presence.told(frame.payload.userId, false, frame.payload.lastSeen);
    case "block.added":
    case "block.removed":
      return parts.block(frame.payload.userId, frame.type === "block.added");
    case "error":
      return parts.refuse(frame.ref, frame.payload);
    default:
      return applyNewer(frame as unknown as NewerFrame, parts);
  }
}

/** Frames of newer gateways, which the generated types don't hold yet. */
type NewerFrame =
  | { type: "conversation.changed"; payload: { conversation: ConversationFrame } }
  | { type: "conversation.deleted"; payload: { conversationId: string } }
  | { type: "conversation.resync"; payload: { conversationId: string } }
  | { type: "members.changed"; payload: { conversationId: string; memberCount: number } };

// What is named in neither list is for listeners alone, or does nothing to the state.
function applyNewer(frame: NewerFrame, parts: ApplyParts): void {
  switch (frame.type) {
    case "conversation.changed":
      return parts.apply(frame.payload.conversation);
    case "conversation.deleted":
      return parts.moved(frame.payload.conversationId, false);
    case "conversation.resync":
      return parts.fetch(frame.payload.conversationId);
    case "members.changed":
      return parts.each(frame.payload.conversationId, (state) => state.setMemberCount(frame.payload.memberCount));
  }
}
