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
parley.connection.subscribe(({ status }) => {
  document.body.dataset.status = status;
});
Object.assign(window, { parley, conversation });
