import type { ConversationInfo, Parley } from "parley-client";
import { useConversations, usePresence, useUnread } from "parley-client/react";
import { type FormEvent, useEffect, useState } from "react";

export const hashOf = ({ id, peer }: { id?: string; peer?: string }) =>
  peer === undefined ? `#c/${encodeURIComponent(id ?? "")}` : `#u/${encodeURIComponent(peer)}`;

export function ConversationList({ parley, openedHash }: { parley: Parley; openedHash: string }) {
  const conversations = useConversations(parley);
  const unread = useUnread(parley);
  useEffect(() => {
    document.title = unread > 0 ? `(${unread}) Parley example` : "Parley example";
  }, [unread]);
  return (
    <nav aria-label="Conversations">
      <h1>Parley</h1>
      <ul>
        {conversations.map((info) => (
          <Row key={info.id} parley={parley} info={info} isOpen={hashOf(info) === openedHash} />
        ))}
      </ul>
      {conversations.length === 0 && <p className="empty">No conversation yet.</p>}
      <NewConversation parley={parley} />
    </nav>
  );
}

function Row({ parley, info, isOpen }: { parley: Parley; info: ConversationInfo; isOpen: boolean }) {
  const { lastMessage, unread } = info;
  return (
    <li>
      <a href={hashOf(info)} aria-current={isOpen ? "page" : undefined}>
        <span className="name" dir="auto">
          {info.title ?? info.peer ?? info.id}
        </span>
        {info.peer !== undefined && <Online parley={parley} userId={info.peer} />}
        {unread > 0 && (
          <span className="unread">
            {unread}
            <span className="only-read"> unread</span>
          </span>
        )}
        <span className="last" dir="auto">
          {lastMessage ? (lastMessage.deletedAt ? "Deleted" : lastMessage.content) : ""}
        </span>
      </a>
    </li>
  );
}

export function Online({ parley, userId }: { parley: Parley; userId: string }) {
  const { online } = usePresence(parley, userId);
  return online ? (
    <span className="online">
      <span className="only-read">online</span>
    </span>
  ) : null;
}

function NewConversation({ parley }: { parley: Parley }) {
  const [fault, setFault] = useState<string>();
  const make = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = event.currentTarget;
    const fields = new FormData(form);
    const title = String(fields.get("title")).trim();
    const members = String(fields.get("members"))
      .split(/[\s,]+/)
      .filter(Boolean);
    setFault(undefined);
    if (title === "" && members.length === 1) {
      location.hash = `u/${encodeURIComponent(members[0] ?? "")}`;
      form.reset();
      return;
    }
    try {
      const group = await parley.create({ kind: "group", title, members });
      location.hash = hashOf({ id: group.id });
      form.reset();
    } catch (error) {
      setFault((error as Error).message);
    }
  };
  return (
    <details>
      <summary>New conversation</summary>
      <form onSubmit={make}>
        <label>
          With whom
          <input name="members" required autoComplete="off" placeholder="bob, carol" />
        </label>
        <label>
          Title, for a group
          <input name="title" autoComplete="off" />
        </label>
        <button type="submit">Begin</button>
        {fault !== undefined && <p role="alert">{fault}</p>}
      </form>
    </details>
  );
}
