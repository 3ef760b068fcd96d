// Two users in Chromium use the example application over a running `gateway dev`, in a wide and in a narrow window:
//
//   node test.mjs URL [FOLDER]      FOLDER takes screenshots; CHROMIUM=<binary> if it isn't /usr/bin/chromium
//
// axe looks at each screen, in light and in dark; nothing serious may be found.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { preview } from "vite";

const WAIT_MS = 20_000;
const [url, folder] = process.argv.slice(2);
if (!URL.canParse(url ?? "")) {
  console.error("usage: node test.mjs <URL of a running `gateway dev`> [FOLDER]");
  process.exit(2);
}
process.env.GATEWAY_URL = url;
const root = fileURLToPath(new URL(".", import.meta.url));
const server = await preview({ root, preview: { port: 0, host: "127.0.0.1" }, logLevel: "error" });
const { port } = server.httpServer.address();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const wide = { viewport: { width: 1100, height: 760 }, colorScheme: "light" };
const narrow = { viewport: { width: 390, height: 780 }, colorScheme: "dark", isMobile: true, hasTouch: true };

async function open(user, size, hash = "") {
  const context = await browser.newContext(size);
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on("pageerror", (fault) => assert.fail(`${user}'s page: ${fault}`));
  await page.goto(`http://127.0.0.1:${port}/?user=${user}${hash}`);
  return page;
}

/** axe finds nothing serious. */
async function look(page, name) {
  if (folder) await page.screenshot({ path: `${folder}/${name}.png` });
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  assert.deepEqual(told, [], `axe about ${name}`);
  console.log(`ok      ${name}`);
}

/** Nothing is wider than the window. */
async function fits(page, { viewport }) {
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), viewport.width);
}

const field = (page) => page.getByRole("textbox", { name: "Message" });
const say = async (page, text) => {
  await field(page).fill(text);
  await field(page).press("Enter");
};
const message = (page, text) => page.getByRole("log").getByRole("listitem").filter({ hasText: text }).first();

try {
  const alice = await open("alice", wide, "#u/bob");
  const bob = await open("bob", narrow);
  await look(bob, "narrow, no conversation");
  await say(alice, "Hello, Bob");
  await message(alice, "Hello, Bob").waitFor();
  const row = bob.getByRole("link", { name: /alice/ });
  await row.filter({ hasText: "1 unread" }).waitFor();
  await look(bob, "narrow, list with an unread message");
  await row.click();
  await message(bob, "Hello, Bob").waitFor();
  await message(alice, "Hello, Bob").getByText("Read").waitFor({ state: "attached" });

  await field(bob).pressSequentially("مرحبا");
  await alice.getByText("bob is typing…").waitFor();
  await field(bob).press("Enter");
  await message(alice, "مرحبا").waitFor();
  const direction = await message(alice, "مرحبا")
    .locator("p")
    .evaluate((line) => getComputedStyle(line).direction);
  assert.equal(direction, "rtl");

  // By the keyboard alone: the first message's menu, a reaction, an edit.
  const menu = message(alice, "Hello, Bob").getByLabel("What to do with this message");
  await menu.focus();
  await alice.keyboard.press("Enter");
  await alice.keyboard.press("Tab");
  await alice.keyboard.press("Enter");
  await message(bob, "Hello, Bob").getByRole("button", { name: /👍 1/ }).waitFor();
  await message(alice, "Hello, Bob").getByRole("button", { name: "Edit" }).press("Enter");
  await alice.getByLabel("New text").fill("Hello, dear Bob");
  await alice.getByLabel("New text").press("Enter");
  await message(bob, "Hello, dear Bob").getByText("edited").waitFor();
  await message(bob, "Hello, dear Bob").getByLabel("What to do with this message").click();
  await message(bob, "Hello, dear Bob").getByRole("button", { name: "Answer" }).click();
  await say(bob, "This is an answer");
  await message(alice, "This is an answer")
    .getByRole("blockquote")
    .or(message(alice, "This is an answer").locator("blockquote"))
    .waitFor();

  await say(alice, "To be deleted");
  await message(bob, "To be deleted").waitFor();
  await message(alice, "To be deleted").getByLabel("What to do with this message").click();
  await message(alice, "To be deleted").getByRole("button", { name: "Delete" }).click();
  await message(bob, "Deleted").waitFor();
  for (let at = 1; at <= 30; at += 1) await say(alice, `Line ${at}`);
  await message(bob, "Line 30").waitFor();
  await look(alice, "wide, conversation");
  await look(bob, "narrow, conversation, dark");

  await alice.getByRole("region", { name: "bob" }).locator("header .online").waitFor();
  await fits(alice, wide);
  await fits(bob, narrow);
  await alice.getByRole("searchbox").fill("dear");
  await message(alice, "Hello, dear Bob").waitFor();
  assert.equal(await alice.getByRole("log").locator(".message").count(), 1);
  await alice.getByRole("searchbox").fill("");

  await alice.getByText("New conversation").click();
  await alice.getByLabel("With whom").fill("bob, carol");
  await alice.getByLabel("Title, for a group").fill("The group");
  await alice.getByRole("button", { name: "Begin" }).click();
  await alice.getByText("3 members").waitFor();
  await say(alice, "Welcome");
  await look(alice, "wide, group");
  await bob.getByRole("button", { name: "Back to the conversations" }).click();
  await bob.getByRole("link", { name: /The group/ }).click();
  await message(bob, "Welcome").waitFor();
  await fits(alice, wide);
  await fits(bob, narrow);

  // Offline: the page says so, keeps what is written over a reload, and sends it when it is back.
  await bob.route("**/*", (route) => route.abort());
  await bob.context().setOffline(true);
  await bob.evaluate(() => dispatchEvent(new Event("offline")));
  await bob.getByText("You are offline").waitFor();
  await say(bob, "Written offline");
  await message(bob, "Written offline").getByText("On its way").waitFor({ state: "attached" });
  await look(bob, "narrow, offline");
  await bob.context().setOffline(false);
  await bob.unroute("**/*");
  await bob.reload();
  await message(alice, "Written offline").waitFor();
  await bob.emulateMedia({ colorScheme: "light" });
  await alice.emulateMedia({ colorScheme: "dark" });
  await look(bob, "narrow, light");
  await look(alice, "wide, dark");

  // The picture of the README.
  await alice.setViewportSize({ width: 1100, height: 460 });
  await alice.emulateMedia({ colorScheme: "light" });
  await alice.getByLabel("With whom").fill("bob, grace");
  await alice.getByLabel("Title, for a group").fill("Garden party");
  await alice.getByRole("button", { name: "Begin" }).click();
  await alice.getByRole("region", { name: "Garden party" }).waitFor();
  const talk = [
    [alice, "Saturday at four? I'll bring the lemonade."],
    [bob, "Saturday works. Grace has the long table."],
    [bob, "هل أحضر شيئًا؟"],
    [alice, "Just yourself, and good weather ☀️"],
  ];
  await bob.goto(`http://127.0.0.1:${port}/?user=bob`);
  await bob.getByRole("link", { name: /Garden party/ }).click();
  for (const [page, text] of talk) {
    await say(page, text);
    for (const other of [alice, bob]) await message(other, text).waitFor();
  }
  await message(bob, "lemonade").getByLabel("What to do with this message").click();
  await message(bob, "lemonade").getByRole("button", { name: "React with ❤️" }).click();
  await message(alice, "lemonade").getByRole("button", { name: /❤️ 1/ }).waitFor();
  await alice.getByText("New conversation").click();
  await field(bob).pressSequentially("See you th");
  await alice.getByText("bob is typing…").waitFor();
  await look(alice, "picture");
} finally {
  await browser.close();
  await server.close();
}
