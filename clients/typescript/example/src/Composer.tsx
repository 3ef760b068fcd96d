import type { ChatMessage, Conversation } from "parley-client";
import { type KeyboardEvent, useEffect, useRef, useState } from "react";

export function Composer(props: {
  conversation: Conversation;
  answered: ChatMessage | undefined;
  onAnswered: () => void;
}) {
  const { conversation, answered, onAnswered } = props;
  const [text, setText] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    if (answered) field.current?.focus();
  }, [answered]);
  const send = () => {
    const content = text.trim();
    if (content === "") return;
    // The message shows what becomes of it.
    void conversation.send(content, answered?.id === undefined ? {} : { replyTo: answered.id });
    setText("");
    onAnswered();
    field.current?.focus();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Escape") onAnswered();
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  };
  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {answered && (
        <p className="answering">
          <span dir="auto">Answer to: {answered.content}</span>
          <button type="button" onClick={onAnswered}>
            Cancel
          </button>
        </p>
      )}
      <textarea
        ref={field}
        aria-label="Message"
        placeholder="Message"
        rows={1}
        dir="auto"
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          conversation.notifyTyping();
        }}
        onKeyDown={onKeyDown}
      />
      <button type="submit" disabled={text.trim() === ""}>
        Send
      </button>
    </form>
  );
}
