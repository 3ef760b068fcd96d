// The page of the browser tests: a client and a list of its messages.

import { type Conversation, Parley } from "../../src/index.js";
import { indexedDb, localStorage } from "../../src/storage.js";

const query = new URLSearchParams(location.search);
const storage = query.get("storage") === "local" ? localStorage("chat") : indexedDb("chat");
const parley = new Parley(query.get("gateway") ?? "", { token: async () => query.get("token"), storage });
const conversation: Conversation = parley.direct(query.get("peer") ?? "");
const list = document.createElement("ol");
document.body.append(list);
conversation.messages.subscribe((messages) => {
  list.replaceChildren(
    ...messages.map(({ content, status }) => {
      const item = document.createElement("li");
      item.textContent = content;
      item.dataset.status = status ?? "";
      return item;
    }),
  );
});
const seen: string[] = [];
parley.connection.subscribe((state) => {
  document.body.dataset.status = state.status;
  seen.push(`${Math.round(performance.now())} ${JSON.stringify(state)}`);
});

/** Everything that tells why a test fails. */
async function report(): Promise<object> {
  const keys = await storage.getAllKeys();
  return {
    now: Math.round(performance.now()),
    isOnLine: navigator.onLine,
    seen: seen.slice(-30),
    shown: conversation.messages.get().map(({ seq, content, status }) => `${seq ?? "-"} ${content} ${status}`),
    waiting: await Promise.all(keys.map(async (key) => `${key} ${await storage.getItem(key)}`)),
    journal: Object.keys(window.localStorage),
    locks: await navigator.locks?.query(),
  };
}

Object.assign(window, { parley, conversation, report });
