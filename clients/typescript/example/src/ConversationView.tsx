import type { ChatMessage, Conversation, Parley } from "parley-client";
import { useConversation, useMessages, useTyping, useUnread } from "parley-client/react";
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { Composer } from "./Composer";
import { Online } from "./ConversationList";
import { Message } from "./Message";

/** As near to the end as this, the list follows new messages. */
const NEAR_PX = 80;

export function ConversationView({ parley, conversation }: { parley: Parley; conversation: Conversation }) {
  const info = useConversation(conversation);
  const [answered, setAnswered] = useState<ChatMessage>();
  const [sought, setSought] = useState("");
  useReading(parley, conversation);
  return (
    <section className="conversation" aria-label={info.title ?? info.peer ?? "Conversation"}>
      <header>
        <button
          type="button"
          className="back"
          aria-label="Back to the conversations"
          onClick={() => {
            location.hash = "";
          }}
        >
          ‹
        </button>
        <h2 dir="auto">{info.title ?? info.peer ?? info.id}</h2>
        {info.peer !== undefined && <Online parley={parley} userId={info.peer} />}
        {info.kind !== "direct" && info.isMember && <span className="count">{info.memberCount} members</span>}
        <input
          type="search"
          aria-label="Search in the loaded messages"
          placeholder="Search"
          value={sought}
          onChange={(event) => setSought(event.target.value)}
        />
      </header>
      <Messages conversation={conversation} sought={sought} onAnswer={setAnswered} />
      <Typing conversation={conversation} />
      <Composer conversation={conversation} answered={answered} onAnswered={() => setAnswered(undefined)} />
    </section>
  );
}

/** What is shown in a visible window counts as read. */
function useReading(parley: Parley, conversation: Conversation) {
  const unread = useUnread(parley, conversation);
  useEffect(() => {
    const read = () => {
      if (unread > 0 && document.visibilityState === "visible") conversation.markRead();
    };
    read();
    document.addEventListener("visibilitychange", read);
    return () => document.removeEventListener("visibilitychange", read);
  }, [conversation, unread]);
}

function Messages(props: { conversation: Conversation; sought: string; onAnswer: (message: ChatMessage) => void }) {
  const { conversation, sought, onAnswer } = props;
  const { messages, hasOlder, isLoading, loadOlder } = useMessages(conversation);
  const list = useRef<HTMLDivElement>(null);
  const isNearEnd = useRef(true);
  const heightBefore = useRef(0);
  const first = messages[0]?.key;
  useLayoutEffect(() => {
    if (messages.length > 0 && list.current && isNearEnd.current) list.current.scrollTop = list.current.scrollHeight;
  }, [messages]);
  useLayoutEffect(() => {
    const { current } = list;
    if (!current || first === undefined) return;
    if (!isNearEnd.current) current.scrollTop += current.scrollHeight - heightBefore.current;
    heightBefore.current = current.scrollHeight;
  }, [first]);
  const shown = sought === "" ? messages : conversation.search(sought);
  const contents = new Map(messages.map(({ id, content }) => [id, content]));
  return (
    <div
      ref={list}
      className="messages"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard must reach it
      tabIndex={0}
      role="log"
      aria-label="Messages"
      onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
        isNearEnd.current = scrollHeight - scrollTop - clientHeight < NEAR_PX;
        heightBefore.current = scrollHeight;
      }}
    >
      <ol>
        {hasOlder && sought === "" && (
          <li className="older">
            <button type="button" disabled={isLoading} onClick={() => loadOlder().catch(() => {})}>
              {isLoading ? "Loading…" : "Older messages"}
            </button>
          </li>
        )}
        {shown.map((message) => (
          <Message
            key={message.key}
            conversation={conversation}
            message={message}
            answered={message.replyTo === undefined ? undefined : contents.get(message.replyTo)}
            onAnswer={onAnswer}
          />
        ))}
      </ol>
    </div>
  );
}

function Typing({ conversation }: { conversation: Conversation }) {
  const users = useTyping(conversation);
  return (
    <p className="typing" aria-live="polite">
      {users.length > 0 && `${users.join(", ")} ${users.length === 1 ? "is" : "are"} typing…`}
    </p>
  );
}
