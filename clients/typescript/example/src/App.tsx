import type { Conversation, Parley } from "parley-client";
import { useConnection } from "parley-client/react";
import { useEffect, useMemo, useState } from "react";
import { ConversationList } from "./ConversationList";
import { ConversationView } from "./ConversationView";

/** `u/bob` is the conversation with bob, `c/17` the one with this id. */
function openedBy(parley: Parley, hash: string): Conversation | undefined {
  const [kind, id] = [hash.slice(1, 3), decodeURIComponent(hash.slice(3))];
  if (id === "") return undefined;
  return kind === "u/" ? parley.direct(id) : kind === "c/" ? parley.conversation(id) : undefined;
}

export function App({ parley }: { parley: Parley }) {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const follow = () => setHash(location.hash);
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const opened = useMemo(() => openedBy(parley, hash), [parley, hash]);
  return (
    <div className={opened ? "app is-open" : "app"}>
      <ConnectionBanner parley={parley} />
      <ConversationList parley={parley} openedHash={hash} />
      <main>
        {opened ? (
          <ConversationView key={hash} parley={parley} conversation={opened} />
        ) : (
          <p className="empty">Choose a conversation.</p>
        )}
      </main>
    </div>
  );
}

const WORDS: Record<string, string> = {
  connecting: "Connecting…",
  reconnecting: "The connection was lost. What you write is sent when it is back.",
  offline: "You are offline. What you write is sent when you are back.",
};

function ConnectionBanner({ parley }: { parley: Parley }) {
  const { status, reason } = useConnection(parley);
  return (
    <div className="banner" role="status" hidden={status === "online"}>
      {status === "stopped" ? (
        <>
          Disconnected: {reason}.{" "}
          <button type="button" onClick={() => parley.connect()}>
            Connect again
          </button>
        </>
      ) : (
        WORDS[status]
      )}
    </div>
  );
}
