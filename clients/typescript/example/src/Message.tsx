import type { ChatMessage, Conversation } from "parley-client";
import { type FormEvent, memo, useState } from "react";

const EMOJIS = ["👍", "❤️", "😂"];
const TICKS = { sending: "On its way", failed: "Not sent", stored: "Sent", delivered: "Delivered", read: "Read" };
const SIGNS = { sending: "◷", failed: "!", stored: "✓", delivered: "✓✓", read: "✓✓" };

interface Props {
  conversation: Conversation;
  message: ChatMessage;
  /** The content of the message that it answers, if that is loaded. */
  answered: string | undefined;
  onAnswer: (message: ChatMessage) => void;
}

export const Message = memo(function Message({ conversation, message, answered, onAnswer }: Props) {
  const [isEditing, setEditing] = useState(false);
  const { id, senderId, isMine, content, deletedAt, editedAt, replyTo, createdAt } = message;
  const time = new Date(createdAt);
  return (
    <li className={isMine ? "message mine" : "message"}>
      {!isMine && conversation.peer === undefined && <span className="sender">{senderId}</span>}
      {replyTo !== undefined && <blockquote dir="auto">{answered ?? "An older message"}</blockquote>}
      {isEditing && id !== undefined ? (
        <Editor conversation={conversation} id={id} content={content} onDone={() => setEditing(false)} />
      ) : (
        <p dir="auto">{deletedAt === undefined ? content : <em>Deleted</em>}</p>
      )}
      <Reactions conversation={conversation} message={message} />
      {message.status === "failed" && <Failed conversation={conversation} message={message} />}
      <span className="meta">
        {editedAt !== undefined && deletedAt === undefined && "edited "}
        <time dateTime={createdAt}>{time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}</time>
        {message.status !== undefined && (
          <span className={`tick ${message.status}`}>
            <span aria-hidden="true"> {SIGNS[message.status]}</span>
            <span className="only-read"> {TICKS[message.status]}</span>
          </span>
        )}
      </span>
      {id !== undefined && deletedAt === undefined && !isEditing && (
        <Actions conversation={conversation} message={message} onEdit={() => setEditing(true)} onAnswer={onAnswer} />
      )}
    </li>
  );
});

function Failed({
  conversation,
  message: { tempId = "", error },
}: {
  conversation: Conversation;
  message: ChatMessage;
}) {
  return (
    <div className="failed" role="alert">
      {error?.message}
      <button type="button" onClick={() => conversation.sendAgain(tempId)}>
        Send again
      </button>
      <button type="button" onClick={() => conversation.drop(tempId)}>
        Drop
      </button>
    </div>
  );
}

function Reactions({ conversation, message }: { conversation: Conversation; message: ChatMessage }) {
  const reactions = Object.entries(message.reactions);
  if (reactions.length === 0) return null;
  return (
    <ul className="reactions" aria-label="Reactions">
      {reactions.map(([emoji, users]) => (
        <li key={emoji}>
          <button
            type="button"
            title={users.join(", ")}
            onClick={() => conversation.unreact(message.id ?? "", emoji).catch(() => {})}
          >
            {emoji} {users.length}
          </button>
        </li>
      ))}
    </ul>
  );
}

function Actions(props: {
  conversation: Conversation;
  message: ChatMessage;
  onEdit: () => void;
  onAnswer: (message: ChatMessage) => void;
}) {
  const { conversation, message, onEdit, onAnswer } = props;
  const id = message.id ?? "";
  return (
    <details className="actions">
      <summary aria-label="What to do with this message">⋯</summary>
      <div>
        {EMOJIS.map((emoji) => (
          <button
            key={emoji}
            type="button"
            aria-label={`React with ${emoji}`}
            onClick={() => conversation.react(id, emoji).catch(() => {})}
          >
            {emoji}
          </button>
        ))}
        <button type="button" onClick={() => onAnswer(message)}>
          Answer
        </button>
        {message.isMine && (
          <>
            <button type="button" onClick={onEdit}>
              Edit
            </button>
            <button type="button" onClick={() => conversation.delete(id).catch(() => {})}>
              Delete
            </button>
          </>
        )}
      </div>
    </details>
  );
}

function Editor(props: { conversation: Conversation; id: string; content: string; onDone: () => void }) {
  const { conversation, id, content, onDone } = props;
  const [fault, setFault] = useState<string>();
  const save = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const text = String(new FormData(event.currentTarget).get("text"));
    try {
      await conversation.edit(id, text);
      onDone();
    } catch (error) {
      setFault((error as Error).message);
    }
  };
  return (
    <form className="editor" onSubmit={save}>
      <input name="text" aria-label="New text" defaultValue={content} dir="auto" required />
      <button type="submit">Save</button>
      <button type="button" onClick={onDone}>
        Cancel
      </button>
      {fault !== undefined && <p role="alert">{fault}</p>}
    </form>
  );
}
