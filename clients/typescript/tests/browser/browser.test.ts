// The client in Chromium against a real node: offline and back, reloads, several tabs.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import type { Parley } from "../../src/index.js";
import { Network, PlainProxy } from "../support/network.js";
import { mint, type Node, online, open, sleep, startNode, texts, until } from "../support/nodes.js";
import { type Served, servePage } from "../support/pages.js";

let node: Node;
let browser: Browser;
let pages: Served;
let network: Network;
let proxy: PlainProxy;
let run = 0;
const clients: Parley[] = [];
/** The tabs of the test that runs, and what they said. */
const tabs: Page[] = [];
const said: string[] = [];
const THROWN = "thrown in a page:";

before(async () => {
  pages = await servePage();
  node = await startNode("dev", { ALLOWED_ORIGINS: pages.url });
  network = new Network(Number(new URL(node.url).port));
  await network.start();
  proxy = new PlainProxy(network.to);
  await proxy.start();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  });
});

after(async () => {
  await browser?.close();
  network?.stop();
  proxy?.stop();
  pages?.stop();
  await node?.program.stop();
});

// One test that fails must not fail the next.
afterEach(async () => {
  network.cut(false);
  for (const context of browser.contexts()) await context.close();
  for (const client of clients.splice(0)) client.close();
  tabs.length = 0;
  said.length = 0;
});

interface Window {
  context: BrowserContext;
  /** Opens another tab. */
  tab(): Promise<Page>;
}

/** `before` runs in each page before its own script. */
async function windowOf(
  user: string,
  peer: string,
  storage = "indexed",
  before = "",
  gateway = network.url,
): Promise<Window> {
  const context = await browser.newContext();
  if (before) await context.addInitScript(before);
  const query = new URLSearchParams({ gateway, token: mint(user), peer, storage });
  const tab = async () => {
    const page = await context.newPage();
    tabs.push(page);
    page.on("pageerror", (fault) => said.push(`${THROWN} ${fault}`));
    page.on("console", (line) => said.push(`${line.type()} in a page: ${line.text()}`));
    await page.goto(`${pages.url}/?${query}`);
    return page;
  };
  return { context, tab };
}

/** What each page, client and node saw: a failure on another machine has to tell its reason. */
async function told(): Promise<string> {
  const lines = [network.told, ...said.slice(-30)];
  for (const [at, page] of tabs.entries()) {
    if (page.isClosed()) continue;
    const report = await page.evaluate("report()").catch((fault) => String(fault));
    lines.push(`page ${at}: ${JSON.stringify(report, undefined, 1)}`);
  }
  for (const client of clients) {
    const shown = client.conversations.get().map(({ peer, lastMessage }) => `${peer}: ${lastMessage?.content}`);
    lines.push(`the other client: ${JSON.stringify(client.connection.get())} ${shown}`);
  }
  lines.push(`the gateway: ${node.program.said}`);
  return lines.join("\n");
}

const shown = (page: Page) => page.locator("li").allTextContents();
const status = (page: Page) => page.locator("body").getAttribute("data-status");
const send = (page: Page, text: string) => page.evaluate(`void conversation.send(${JSON.stringify(text)})`);

async function shows(read: () => Promise<unknown> | unknown, expected: unknown, withinMs?: number): Promise<void> {
  let last: unknown;
  const isTrue = async () => {
    last = await read();
    return JSON.stringify(last) === JSON.stringify(expected);
  };
  const why = async () => `${JSON.stringify(last)} instead of ${JSON.stringify(expected)}\n${await told()}`;
  await until(isTrue, why, withinMs);
  const faults = said.filter((line) => line.startsWith(THROWN));
  assert.deepEqual(faults, []);
}

async function people(): Promise<{ alice: string; bob: string; b: Parley }> {
  run += 1;
  const [alice, bob] = [`alice${run}`, `bob${run}`];
  const b = open(node.url, bob);
  clients.push(b);
  b.direct(alice).messages.subscribe(() => {});
  await online(b);
  return { alice, bob, b };
}

test("a page sends and receives, from another origin", async () => {
  const { alice, bob, b } = await people();
  const { tab } = await windowOf(alice, bob);
  const page = await tab();
  await shows(() => status(page), "online");
  await send(page, "Hello");
  await shows(() => texts(b.direct(alice)), ["Hello"]);
  await b.direct(alice).send("Hi");
  await shows(() => shown(page), ["Hello", "Hi"]);
});

test("offline and back: what was written goes, what was missed comes, each once", async () => {
  const { alice, bob, b } = await people();
  const { context, tab } = await windowOf(alice, bob);
  const page = await tab();
  await shows(() => status(page), "online");
  await send(page, "one");
  await shows(() => texts(b.direct(alice)), ["one"]);
  network.cut(true);
  await context.setOffline(true);
  await shows(() => status(page), "offline");
  await send(page, "two");
  await send(page, "three");
  await b.direct(alice).send("meanwhile");
  await shows(() => shown(page), ["one", "two", "three"]);
  network.cut(false);
  await context.setOffline(false);
  const all = ["one", "meanwhile", "two", "three"];
  await shows(() => shown(page), all);
  await shows(() => texts(b.direct(alice)), all);
  await shows(() => page.locator("li[data-status=sending]").count(), 0);
});

/** The lock of another page is never given, as if that page never ended. */
const LOCKS_HANG = `
  const { request } = LockManager.prototype;
  let isFirst = true;
  LockManager.prototype.request = function (...words) {
    const isOwn = isFirst;
    isFirst = false;
    return isOwn ? request.apply(this, words) : new Promise(() => {});
  };`;
const NO_LOCKS = 'Object.defineProperty(Navigator.prototype, "locks", { get: () => undefined });';
/** As in a machine that has no network but that to itself. */
const SAYS_OFFLINE = 'Object.defineProperty(Navigator.prototype, "onLine", { get: () => false });';
/** As on a slow disk. */
const OPENS_LATE = `
  const { open } = IDBFactory.prototype;
  IDBFactory.prototype.open = function (...words) {
    const request = open.apply(this, words);
    Object.defineProperty(request, "onsuccess", {
      set: (call) => request.addEventListener("success", (event) => setTimeout(() => call(event), 500)),
    });
    return request;
  };`;

for (const [storage, how, before] of [
  ["indexed", "", ""],
  ["local", "", ""],
  ["indexed", ", on a device that says it has no network", SAYS_OFFLINE],
  ["indexed", ", with locks that hang", LOCKS_HANG],
  ["indexed", ", without locks", NO_LOCKS],
  ["indexed", ", with a database that opens late", OPENS_LATE],
] as const) {
  test(`a reload with messages that wait and messages on their way loses none (${storage}${how})`, async () => {
    const { alice, bob, b } = await people();
    const { tab } = await windowOf(alice, bob, storage, before);
    const page = await tab();
    await shows(() => status(page), "online");
    network.cut(true);
    const written = ["one", "two", "three"];
    for (const text of written) await send(page, text);
    await page.reload();
    await shows(() => shown(page), written);
    network.cut(false);
    await shows(() => texts(b.direct(alice)), written);
    await shows(() => shown(page), written);
    for (let at = 0; at < 5; at += 1) {
      written.push(`on its way ${at}`);
      await send(page, `on its way ${at}`);
      await sleep(at * 3);
      await page.reload();
    }
    await shows(() => texts(b.direct(alice)), written);
    await shows(() => shown(page), written);
  });

  test(`a page that goes in the very moment of writing loses nothing (${storage}${how})`, async () => {
    const { alice, bob, b } = await people();
    const { tab } = await windowOf(alice, bob, storage, before);
    const page = await tab();
    const written = Array.from({ length: 5 }, (_, at) => `${at}`);
    for (const text of written) {
      const loaded = page.waitForEvent("load");
      await page.evaluate(`void conversation.send(${JSON.stringify(text)}); location.reload()`);
      await loaded;
    }
    await shows(() => shown(page), written);
    await shows(() => texts(b.direct(alice)), written);
  });
}

test("what a closed tab left behind is sent by another tab, once", async () => {
  const { alice, bob, b } = await people();
  const { tab } = await windowOf(alice, bob);
  const [first, second] = [await tab(), await tab()];
  await shows(() => Promise.all([status(first), status(second)]), ["online", "online"]);
  network.cut(true);
  await send(first, "from the first");
  await send(second, "from the second");
  await shows(() => shown(first), ["from the first"]);
  await first.close();
  network.cut(false);
  await shows(async () => (await shown(second)).sort(), ["from the first", "from the second"]);
  await shows(() => texts(b.direct(alice)).sort(), ["from the first", "from the second"]);
});

test("behind a proxy that breaks WebSockets a page does the same over a stream", async () => {
  const { alice, bob, b } = await people();
  const { tab } = await windowOf(alice, bob, "indexed", "", proxy.url);
  const page = await tab();
  await shows(() => status(page), "online");
  assert.ok(proxy.upgrades >= 2 && proxy.streams === 1, `${proxy.upgrades} upgrades, ${proxy.streams} streams`);
  const written: string[] = [];
  for (let at = 0; at < 10; at += 1) {
    written.push(`mine ${at}`, `yours ${at}`);
    await send(page, `mine ${at}`);
    await shows(() => texts(b.direct(alice)), written.slice(0, -1));
    await b.direct(alice).send(`yours ${at}`);
    if (at % 4 === 0) proxy.cutAll();
  }
  await shows(() => shown(page), written);
  await shows(() => texts(b.direct(alice)), written);
  await send(page, "the last");
  await page.reload();
  await shows(() => texts(b.direct(alice)), [...written, "the last"]);
  await shows(() => shown(page), [...written, "the last"]);
});
