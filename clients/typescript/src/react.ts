// React hooks: each is one store of the client, and renders anew when its snapshot changes.

import { useCallback, useMemo, useSyncExternalStore } from "react";
import type { Conversation } from "./conversation.js";
import type { Parley } from "./parley.js";
import type { ChatMessage, ConnectionState, ConversationInfo, History, Member, Presence, Readable } from "./types.js";

function useStore<T>(store: Readable<T>): T {
  const subscribe = useCallback((onChange: () => void) => store.subscribe(onChange), [store]);
  return useSyncExternalStore(
    subscribe,
    () => store.get(),
    () => store.get(),
  );
}

/** How the connection is. */
export function useConnection(parley: Parley): ConnectionState {
  return useStore(parley.connection);
}

/** The user's conversations, newest activity first. */
export function useConversations(parley: Parley): readonly ConversationInfo[] {
  return useStore(parley.conversations);
}

/** A conversation's title, members and counts. */
export function useConversation(
  conversation: Conversation,
): ConversationInfo & { readonly members: readonly Member[] } {
  const info = useStore(conversation.info);
  const members = useStore(conversation.members);
  return useMemo(() => ({ ...info, members }), [info, members]);
}

/** The messages of a conversation, and how to load older ones. */
export function useMessages(
  conversation: Conversation,
): History & { readonly messages: readonly ChatMessage[]; readonly loadOlder: () => Promise<void> } {
  const messages = useStore(conversation.messages);
  const history = useStore(conversation.history);
  const loadOlder = useCallback(() => conversation.loadOlder(), [conversation]);
  return useMemo(() => ({ ...history, messages, loadOlder }), [history, messages, loadOlder]);
}

/** The users who are typing. */
export function useTyping(conversation: Conversation): readonly string[] {
  return useStore(conversation.typing);
}

/** Whether a user is online. */
export function usePresence(parley: Parley, userId: string): Presence {
  return useStore(parley.presence(userId));
}

/** Unread messages of one conversation, or of all together. */
export function useUnread(parley: Parley, conversation?: Conversation): number {
  const all = useStore(parley.unread);
  const one = useStore<ConversationInfo | undefined>(conversation?.info ?? NONE);
  return one?.unread ?? all;
}

const NONE: Readable<undefined> = { get: () => undefined, subscribe: () => () => {} };
