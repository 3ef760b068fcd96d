// The page of the browser tests: a client and a list of its messages.

import { type ChatMessage, type Conversation, Parley } from "../../src/index.js";
import { indexedDb, localStorage } from "../../src/storage.js";

const query = new URLSearchParams(location.search);
const storage = query.get("storage") === "local" ? localStorage("chat") : indexedDb("chat");
const parley = new Parley(query.get("gateway") ?? "", { token: async () => query.get("token"), storage });
const group = query.get("group");
const conversation: Conversation = group === null ? parley.direct(query.get("peer") ?? "") : parley.group(group);
const list = document.createElement("ol");
document.body.append(list);
const items = new Map<string, { message: ChatMessage; item: HTMLLIElement }>();
let isDue = false;

/** Touches only what changed, as an application does. */
function render(): void {
  isDue = false;
  const messages = conversation.messages.get();
  let place = list.firstElementChild;
  for (const message of messages) {
    const known = items.get(message.key);
    const item = known?.item ?? document.createElement("li");
    if (known?.message !== message) {
      item.textContent = message.content;
      item.dataset.status = message.status ?? "";
      items.set(message.key, { message, item });
    }
    if (item === place) place = place.nextElementSibling;
    else list.insertBefore(item, place);
  }
  while (place) {
    const gone = place;
    place = place.nextElementSibling;
    gone.remove();
  }
}

conversation.messages.subscribe(() => {
  if (!isDue) setTimeout(render, 20);
  isDue = true;
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
    waiting: await Promise.all(keys.slice(0, 20).map(async (key) => `${key} ${await storage.getItem(key)}`)),
    journal: Object.keys(window.localStorage),
    locks: await navigator.locks?.query(),
    shown: conversation.messages.get().map(({ seq, content, status }) => `${seq ?? "-"} ${content} ${status}`),
  };
}

Object.assign(window, { parley, conversation, report });
