// The list of conversations.

import type { ConversationInfo, Parley, Presence } from "../src/index.js";
import { byId, child, el, isAttentive, paintAvatar, part, reconcile, setText } from "./dom.js";

export const nameOf = ({ title, peer, id }: ConversationInfo): string => title ?? peer ?? id ?? "";

/** Whether each user is online, for as long as the page lives. */
export class Watch {
  readonly #parley: Parley;
  readonly #onChange: () => void;
  readonly #known = new Map<string, Presence>();

  constructor(parley: Parley, onChange: () => void) {
    this.#parley = parley;
    this.#onChange = onChange;
  }

  of(userId: string): Presence {
    const known = this.#known.get(userId);
    if (known) return known;
    const unknown = { online: undefined };
    this.#known.set(userId, unknown);
    this.#parley.presence(userId).subscribe((presence) => {
      this.#known.set(userId, presence);
      this.#onChange();
    });
    return this.#known.get(userId) ?? unknown;
  }
}

export function showList(
  parley: Parley,
  watch: Watch,
  openedKey: string,
  open: (info: ConversationInfo) => void,
): void {
  const rows = parley.conversations.get();
  byId("list-empty").hidden = rows.length > 0;
  const create = (info: ConversationInfo) => {
    const item = createRow();
    child(item, "row").addEventListener("click", () => open(info));
    return item;
  };
  reconcile(
    byId("list"),
    rows,
    (info) => info.id ?? "",
    create,
    (item, info) => {
      updateRow(item, info, { me: parley.userId.get(), isOpen: keyOf(info) === openedKey, watch });
    },
  );
}

/** A direct conversation is known by its user, also before it has an id. */
export const keyOf = ({ peer, id }: { peer?: string | undefined; id?: string | undefined }): string =>
  peer === undefined ? `c ${id}` : `u ${peer}`;

function createRow(): HTMLElement {
  const item = el("li");
  const row = part(el("button", "row"), "row");
  row.type = "button";
  row.dataset.testid = "conversation";
  const avatar = part(el("span", "avatar"), "avatar");
  const dot = part(el("span", "dot"), "dot");
  dot.dataset.testid = "presence";
  avatar.append(dot);
  const body = el("span", "body");
  body.append(part(el("span", "name"), "name"), part(el("span", "last"), "last"));
  const badge = part(el("span", "badge"), "badge");
  badge.dataset.testid = "unread";
  row.append(avatar, body, badge);
  item.append(row);
  return item;
}

function updateRow(
  item: HTMLElement,
  info: ConversationInfo,
  { me, isOpen, watch }: { me: string | undefined; isOpen: boolean; watch: Watch },
): void {
  const row = child(item, "row");
  const name = nameOf(info);
  const isOnline = info.peer !== undefined && watch.of(info.peer).online === true;
  const unread = isOpen && isAttentive() ? 0 : info.unread;
  row.dataset.conversation = info.id ?? "";
  row.dataset.partner = info.peer ?? "";
  row.setAttribute("aria-current", String(isOpen));
  row.setAttribute("aria-label", `${name}, ${isOnline ? "online" : "offline"}${unread ? `, ${unread} unread` : ""}`);
  paintAvatar(child(item, "avatar"), name);
  child(item, "dot").dataset.online = String(isOnline);
  setText(child(item, "name"), name);
  const last = info.lastMessage;
  const said = last?.deletedAt ? "Message deleted" : (last?.content ?? "");
  setText(child(item, "last"), last && last.senderId === me ? `You: ${said}` : said);
  child(item, "badge").hidden = unread === 0;
  setText(child(item, "badge"), unread > 99 ? "99+" : String(unread));
}
