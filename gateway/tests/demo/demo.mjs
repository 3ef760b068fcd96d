// Two users in real browser windows chat over a running `gateway dev`.
//
//   node demo.mjs http://127.0.0.1:8086      CHROMIUM=<binary> if it isn't /usr/bin/chromium
//
// Prints a line per check and ends with "N passed, M failed"; exits with 1 if one failed.

import { check, finish, launch } from "./checks.mjs";

const WAIT_MS = 10_000;
// The server lets 5 s pass before it tells that somebody is gone; a debug build on a busy machine needs some more.
const OFFLINE_WAIT_MS = 25_000;

const url = process.argv[2];
if (!URL.canParse(url ?? "")) {
  console.error("usage: node demo.mjs <URL of a running `gateway dev`>, for example http://127.0.0.1:8086");
  process.exit(2);
}

const run = Date.now().toString(36);
const faults = [];

const browser = await launch();

// A page's network, in the test's hands: `drop()` ends its connections, `isDown` lets none begin, `dropAfterSend` loses an
// answer, `epoch` is the one that the page's next `auth` frame names.
const NETWORK = `
  const Real = WebSocket;
  const { send } = Real.prototype;
  const sockets = new Set();
  const { fetch: realFetch } = window;
  window.network = { isDown: false, dropAfterSend: false, drop() { for (const socket of sockets) socket.close(); } };
  window.fetch = (url, init) =>
    network.isDown && String(url).includes("/api/") ? Promise.reject(new TypeError("down")) : realFetch(url, init);
  window.WebSocket = function (url, protocols) {
    if (network.isDown) {
      const none = { readyState: 3, send() {}, close() {} };
      setTimeout(() => none.onclose?.({ code: 1006, reason: "" }));
      return none;
    }
    const socket = new Real(url, protocols);
    socket.send = (text) => {
      const isSend = JSON.parse(text).type === "message.send";
      send.call(socket, network.epoch ? text.replace(/"epoch":"[^"]*"/, '"epoch":"' + network.epoch + '"') : text);
      network.epoch = undefined;
      if (isSend && network.dropAfterSend) network.drop();
      if (isSend) network.dropAfterSend = false;
    };
    socket.addEventListener("close", () => sockets.delete(socket));
    sockets.add(socket);
    return socket;
  };`;

// A window of its own, with its own storage; whatever goes wrong in it, or leaves for another host, is a fault.
async function window(path, size = { width: 1100, height: 760 }) {
  const context = await browser.newContext({ viewport: size });
  await context.addInitScript(NETWORK);
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.authSuccesses = [];
  page.on("pageerror", (error) => faults.push(`script error: ${error.message}`));
  page.on("console", (line) => { if (line.type() === "error") faults.push(`console: ${line.text()}`); });
  page.on("request", (request) => { if (new URL(request.url()).protocol !== "data:" && !request.url().startsWith(new URL("/", url).href)) faults.push(`request to ${request.url()}`); });
  page.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => {
    const frame = JSON.parse(payload);
    if (frame.type === "auth_success") page.authSuccesses.push(frame.payload);
  }));
  await page.goto(new URL(path, url).href);
  return page;
}

const by = (page, id) => page.getByTestId(id);
const row = (page, partner) => page.locator(`[data-testid="conversation"][data-partner="${partner}"]`);
const bubble = (page, text) => by(page, "message").filter({ hasText: text });
const online = (page) => page.locator('[data-testid="connection"][data-state="online"]').waitFor();
const state = (page, text, wanted) =>
  page.locator(`[data-testid="message"][data-state="${wanted}"]`).filter({ hasText: text }).waitFor();
const dot = (page, partner, isOnline, timeout = WAIT_MS) =>
  row(page, partner).locator(`[data-testid="presence"][data-online="${isOnline}"]`).waitFor({ timeout });

async function send(page, text) {
  await by(page, "composer").fill(text);
  await by(page, "composer").press("Enter");
}

async function openChat(page, partner) {
  await by(page, "new-chat-input").fill(partner);
  await by(page, "new-chat-open").click();
  await page.waitForFunction((name) => document.querySelector('[data-testid="chat-title"]').textContent === name, partner);
}

function equal(actual, wanted) {
  if (JSON.stringify(actual) !== JSON.stringify(wanted)) throw new Error(`${JSON.stringify(actual)} is not ${JSON.stringify(wanted)}`);
}

let alice;
let bob;

await check("the start page lets one choose a user", async () => {
  alice = await window("/");
  await by(alice, "user-bob").waitFor();
  await by(alice, "user-alice").click();
  await online(alice);
  equal(await by(alice, "me").textContent(), "alice");
});

await check("a second window connects as another user", async () => {
  bob = await window("/?user=bob");
  await online(bob);
});

await check("anybody can be addressed by their user id", async () => {
  await openChat(alice, "bob");
  await send(alice, `hello ${run}`);
  await bubble(alice, `hello ${run}`).waitFor();
});

await check("the message raises the unread badge of the other user", async () => {
  await row(bob, "alice").getByTestId("unread").waitFor();
  equal(await row(bob, "alice").getByTestId("unread").textContent(), "1");
});

await check("the tick turns to delivered while the message is unread", () => state(alice, `hello ${run}`, "delivered"));

await check("presence dots show both online", async () => {
  await dot(alice, "bob", true);
  await dot(bob, "alice", true);
});

await check("the message shows when the conversation is opened", async () => {
  await row(bob, "alice").click();
  await bubble(bob, `hello ${run}`).waitFor();
});

await check("the unread badge clears", () => row(bob, "alice").getByTestId("unread").waitFor({ state: "hidden" }));

await check("the server counts it as read too", async () => {
  await bob.waitForFunction(() => !document.title.startsWith("("));
});

await check("the tick turns to read", () => state(alice, `hello ${run}`, "read"));

await check("typing shows, and ends after a pause", async () => {
  await by(bob, "composer").pressSequentially("a draft", { delay: 40 });
  await by(alice, "typing").filter({ hasText: "bob is typing" }).waitFor();
  await alice.waitForFunction(() => document.querySelector('[data-testid="typing"]').textContent === "");
});

await check("an answer arrives live and is read at once", async () => {
  await send(bob, `answer ${run}`);
  await bubble(alice, `answer ${run}`).waitFor();
  await state(bob, `answer ${run}`, "read");
});

await check("markup in a message stays text", async () => {
  const markup = `<img src="/none" onerror="document.title='broken'"><b>${run}</b>`;
  await send(alice, markup);
  await bubble(bob, markup).waitFor();
  equal(await bob.locator('[data-testid="message"] :is(img, b)').count(), 0);
});

await check("messages in a row arrive once each and in order", async () => {
  const texts = Array.from({ length: 8 }, (_, at) => `row ${at} ${run}`);
  for (const text of texts) await send(alice, text);
  await bubble(bob, texts.at(-1)).waitFor();
  const shown = await by(bob, "message").locator('[data-part="content"]').allTextContents();
  equal(shown.filter((text) => text.startsWith("row ") && text.endsWith(run)), texts);
});

await check("a message written while disconnected waits, and goes out once after the reconnect", async () => {
  await alice.evaluate(() => network.drop());
  await send(alice, `offline ${run}`);
  await bubble(bob, `offline ${run}`).waitFor();
  await state(alice, `offline ${run}`, "read");
  equal(await bubble(alice, `offline ${run}`).count(), 1);
  equal(await bubble(bob, `offline ${run}`).count(), 1);
});

await check("a lost acknowledgement is asked for again under the same tempId", async () => {
  await online(alice);
  await alice.evaluate(() => { network.dropAfterSend = true; });
  await send(alice, `unacknowledged ${run}`);
  await state(alice, `unacknowledged ${run}`, "read");
  equal(await bubble(alice, `unacknowledged ${run}`).count(), 1);
  equal(await bubble(bob, `unacknowledged ${run}`).count(), 1);
});

await check("a resume brings what was missed", async () => {
  await bob.evaluate(() => { network.isDown = true; network.drop(); });
  await send(alice, `missed ${run}`);
  await state(alice, `missed ${run}`, "sent");
  await bob.evaluate(() => { network.isDown = false; });
  await bubble(bob, `missed ${run}`).waitFor();
  equal(bob.authSuccesses.at(-1).resumed, true);
});

await check("a position from another epoch is answered by a resync, and the page catches up", async () => {
  await online(bob);
  await bob.evaluate(() => { network.isDown = true; network.epoch = "unknown.epoch"; network.drop(); });
  await send(alice, `resync ${run}`);
  await state(alice, `resync ${run}`, "sent");
  await bob.evaluate(() => { network.isDown = false; });
  await bubble(bob, `resync ${run}`).waitFor();
  equal(bob.authSuccesses.at(-1).resumed, false);
  // From there on it resumes again.
  await bob.evaluate(() => network.drop());
  await send(alice, `after it ${run}`);
  await bubble(bob, `after it ${run}`).waitFor();
  equal(bob.authSuccesses.at(-1).resumed, true);
});

await check("the history is there after a reload", async () => {
  await bob.reload();
  await online(bob);
  await row(bob, "alice").click();
  await bubble(bob, `hello ${run}`).waitFor();
  equal(await bubble(bob, `missed ${run}`).count(), 1);
});

await check("a narrow window shows the list or the chat", async () => {
  const narrow = await window("/?user=bob", { width: 390, height: 780 });
  await online(narrow);
  await row(narrow, "alice").click();
  await by(narrow, "composer").waitFor();
  equal(await by(narrow, "conversations").isVisible(), false);
  await by(narrow, "back").click();
  await row(narrow, "alice").waitFor();
  equal(await by(narrow, "composer").isVisible(), false);
  equal(await narrow.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);
  await narrow.context().close();
});

await check("the presence dot changes when the other window closes", async () => {
  await dot(bob, "alice", true);
  await alice.context().close();
  await dot(bob, "alice", false, OFFLINE_WAIT_MS);
});

await check("and when it opens again", async () => {
  alice = await window("/?user=alice");
  await dot(bob, "alice", true);
});

await check("no script error, no request to another host", async () => equal(faults, []));

await finish(browser);
