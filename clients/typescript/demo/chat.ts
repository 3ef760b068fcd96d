// The open conversation: its head, its messages, who types.

import type { ChatMessage, Conversation } from "../src/index.js";
import { byId, child, el, paintAvatar, part, reconcile, report, setText } from "./dom.js";
import { nameOf, type Watch } from "./list.js";

const TICKS = { pending: "Waiting", sent: "Sent", delivered: "Delivered", read: "Read", failed: "Not sent" };
type Tick = keyof typeof TICKS;
const STATES: Record<NonNullable<ChatMessage["status"]>, Tick> = {
  sending: "pending",
  failed: "failed",
  stored: "sent",
  delivered: "delivered",
  read: "read",
};
/** As near to the end as this, the messages follow the newest one. */
const NEAR_PX = 60;

let isAtEnd = true;

export function followScrolling(): void {
  const log = byId("log");
  log.addEventListener("scroll", () => {
    isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
  });
}

/** Shows the newest message from now on. */
export function goToEnd(): void {
  isAtEnd = true;
}

export function showChat(conversation: Conversation | undefined, watch: Watch): void {
  for (const id of ["chat-bar", "log", "composer"]) byId(id).hidden = !conversation;
  byId("nothing-open").hidden = conversation !== undefined;
  byId("app").dataset.open = String(conversation !== undefined);
  setText(byId("typing"), conversation ? typingText(conversation.typing.get()) : "");
  if (!conversation) return;
  const info = conversation.info.get();
  setText(byId("chat-title"), nameOf(info));
  paintAvatar(byId("chat-avatar"), nameOf(info));
  setText(byId("chat-status"), info.peer === undefined ? `${info.memberCount} members` : seenText(watch, info.peer));
  showMessages(conversation);
}

function typingText(users: readonly string[]): string {
  if (users.length === 0) return "";
  return users.length === 1 ? `${users[0]} is typing…` : `${users.slice(0, 3).join(", ")} are typing…`;
}

function seenText(watch: Watch, userId: string): string {
  const { online, lastSeen } = watch.of(userId);
  if (online) return "online";
  return lastSeen ? `last seen ${new Date(lastSeen).toLocaleString()}` : "offline";
}

function showMessages(conversation: Conversation): void {
  const log = byId("log");
  const messages: (ChatMessage | undefined)[] = [...conversation.messages.get()];
  // The first row asks for older ones.
  if (conversation.history.get().hasOlder) messages.unshift(undefined);
  reconcile(
    log,
    messages,
    (message) => message?.key ?? "earlier",
    (message) => (message ? createMessage(conversation, message) : createEarlier(conversation)),
    (node, message) => {
      if (message) updateMessage(node, message, conversation.peer === undefined);
    },
  );
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function createEarlier(conversation: Conversation): HTMLElement {
  const button = el("button", "plain", "Earlier messages");
  button.dataset.testid = "earlier";
  button.addEventListener("click", () => void conversation.loadOlder().catch(report));
  return button;
}

function createMessage(conversation: Conversation, { isMine, tempId = "" }: ChatMessage): HTMLElement {
  const node = el("article", isMine ? "message mine" : "message");
  node.dataset.testid = "message";
  for (const name of ["who", "content", "reactions"]) node.append(part(el("div", name), name));
  const meta = el("div", "meta");
  meta.append(part(el("span"), "edited"), part(el("time"), "time"));
  node.append(meta);
  if (!isMine) return node;
  meta.append(createTick());
  const fault = part(el("div", "fault"), "fault");
  const again = el("button", "plain", "Try again");
  again.addEventListener("click", () => void conversation.sendAgain(tempId));
  fault.append(part(el("span"), "fault-text"), again);
  node.append(fault);
  return node;
}

function createTick(): SVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "tick");
  svg.setAttribute("role", "img");
  svg.dataset.testid = "tick";
  svg.append(document.createElementNS("http://www.w3.org/2000/svg", "use"));
  return part(svg, "tick");
}

function updateMessage(node: HTMLElement, message: ChatMessage, isGroup: boolean): void {
  const { isMine, status, deletedAt, editedAt, createdAt } = message;
  const state = status ? STATES[status] : undefined;
  node.dataset.state = state ?? "received";
  node.classList.toggle("deleted", deletedAt !== undefined);
  child(node, "who").hidden = isMine || !isGroup;
  setText(child(node, "who"), message.senderId);
  setText(child(node, "content"), deletedAt ? "Message deleted" : message.content);
  setText(child(node, "edited"), editedAt && !deletedAt ? "edited" : "");
  const reactions = Object.entries(message.reactions).map(([emoji, users]) => `${emoji} ${users.length}`);
  setText(child(node, "reactions"), reactions.join("  "));
  const at = new Date(createdAt);
  const time = child<HTMLTimeElement>(node, "time");
  time.dateTime = createdAt;
  time.title = at.toLocaleString();
  setText(time, at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  if (!state) return;
  const tick = child<SVGElement>(node, "tick");
  tick.setAttribute("aria-label", TICKS[state]);
  tick.firstElementChild?.setAttribute("href", `#tick-${state === "read" ? "delivered" : state}`);
  child(node, "fault").hidden = state !== "failed";
  setText(child(node, "fault-text"), message.error ? `Not sent: ${message.error.message}` : "");
}
