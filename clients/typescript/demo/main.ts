// The demo page of `gateway dev`: two users, each in a window. `scripts/demo.mjs` makes one file of it.

import { type Conversation, type ConversationInfo, Parley } from "../src/index.js";
import { indexedDb } from "../src/storage.js";
import { followScrolling, goToEnd, showChat } from "./chat.js";
import { byId, el, isAttentive, notice, paintAvatar, report } from "./dom.js";
import { keyOf, showList, Watch } from "./list.js";

interface DemoUser {
  userId: string;
  token: string;
}

const me = new URLSearchParams(location.search).get("user");

async function demoUsers(): Promise<DemoUser[]> {
  const answer = await fetch("/demo/users");
  if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
  return answer.json();
}

/** A restarted gateway has another secret, so the token is fetched each time. */
async function token(): Promise<string | null> {
  return (await demoUsers()).find(({ userId }) => userId === me)?.token ?? null;
}

function choose(users: DemoUser[]): void {
  byId("welcome").hidden = false;
  if (me) byId("welcome-fault").textContent = `There is no demo user “${me}”. Choose one of these.`;
  for (const { userId } of users) {
    const choice = el("a", "", userId);
    const avatar = el("span", "avatar");
    paintAvatar(avatar, userId);
    avatar.setAttribute("aria-hidden", "true");
    choice.prepend(avatar);
    choice.href = `?user=${encodeURIComponent(userId)}`;
    choice.dataset.testid = `user-${userId}`;
    const item = el("li");
    item.append(choice);
    byId("users").append(item);
  }
}

class Page {
  readonly #parley: Parley;
  readonly #me: string;
  readonly #watch: Watch;
  readonly #text = byId<HTMLTextAreaElement>("text");
  #opened: Conversation | undefined;
  #closes: (() => void)[] = [];
  #isDue = false;

  constructor(user: string) {
    this.#me = user;
    this.#parley = new Parley(location.origin, { token, userId: user, storage: indexedDb(`demo-${user}`) });
    this.#watch = new Watch(this.#parley, () => this.#render());
    this.#parley.connection.subscribe(({ status, reason }) => showConnection(status, reason));
    for (const store of [this.#parley.conversations, this.#parley.unread]) store.subscribe(() => this.#render());
    this.#parley.on("notification", ({ payload }) => {
      const { message, title } = payload as { message?: unknown; title?: unknown };
      notice(String(message ?? title ?? "You have a notification."));
    });
    this.#listen();
  }

  open(conversation: Conversation | undefined): void {
    for (const close of this.#closes.splice(0)) close();
    this.#opened = conversation;
    byId("log").replaceChildren();
    goToEnd();
    if (conversation) {
      for (const store of [conversation.info, conversation.messages, conversation.history, conversation.typing])
        this.#closes.push(store.subscribe(() => this.#render()));
      this.#text.focus();
    }
    this.#render();
  }

  /** One pass over the state, at most once a turn. */
  #render(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      if (this.#opened && isAttentive() && this.#opened.info.get().unread > 0) this.#opened.markRead();
      const unread = this.#parley.unread.get();
      document.title = `${unread ? `(${unread}) ` : ""}${this.#me} · Parley`;
      const openedKey = this.#opened ? keyOf(this.#opened) : "";
      showList(this.#parley, this.#watch, openedKey, (info) => this.open(this.#of(info)));
      showChat(this.#opened, this.#watch);
    });
  }

  #of({ peer, id }: ConversationInfo): Conversation {
    return peer === undefined ? this.#parley.conversation(id ?? "") : this.#parley.direct(peer);
  }

  #submit(): void {
    const content = this.#text.value.trim();
    if (!this.#opened || content === "") return;
    this.#text.value = "";
    this.#grow();
    goToEnd();
    // The message shows what becomes of it.
    void this.#opened.send(content);
  }

  #grow(): void {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight + 2}px`;
  }

  #listen(): void {
    const newUser = byId<HTMLInputElement>("new-user");
    byId("new-chat").addEventListener("submit", (event) => {
      event.preventDefault();
      const userId = newUser.value.trim();
      if (userId === this.#me) return notice("That is you. Write to somebody else.");
      if (userId === "") return;
      newUser.value = "";
      this.open(this.#parley.direct(userId));
    });
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("input", () => {
      this.#grow();
      this.#opened?.notifyTyping(this.#text.value !== "");
    });
    byId("back").addEventListener("click", () => this.open(undefined));
    byId("reconnect").addEventListener("click", () => this.#parley.connect());
    window.addEventListener("focus", () => this.#render());
    document.addEventListener("visibilitychange", () => this.#render());
    followScrolling();
  }
}

const WORDS: Record<string, string> = { stopped: "disconnected" };

function showConnection(status: string, reason: string | undefined): void {
  const pill = byId("connection");
  pill.dataset.state = status;
  pill.textContent = WORDS[status] ?? status;
  byId("banner").hidden = status !== "stopped";
  byId("banner-text").textContent = reason ?? "";
}

function start(users: DemoUser[]): void {
  const user = users.find(({ userId }) => userId === me)?.userId;
  if (user === undefined) return choose(users);
  byId("app").hidden = false;
  byId("my-name").textContent = user;
  paintAvatar(byId("my-avatar"), user);
  for (const { userId } of users) {
    if (userId === user) continue;
    const option = el("option");
    option.value = userId;
    byId("known").append(option);
  }
  new Page(user).open(undefined);
}

demoUsers().then(start, (fault) => {
  byId("welcome").hidden = false;
  report(fault);
});
