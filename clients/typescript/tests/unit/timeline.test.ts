import assert from "node:assert/strict";
import { test } from "node:test";
import { Timeline } from "../../src/timeline.js";
import type { MessageFrame } from "../../src/types.js";

const message = (seq: number, rev = seq, content = `${seq}`): MessageFrame => ({
  id: `m${seq}`,
  conversationId: "c",
  seq,
  rev,
  senderId: "bob",
  kind: "text",
  content,
  createdAt: "2026-01-01T00:00:00.000Z",
});
const shown = (timeline: Timeline) => timeline.messages.map(({ content }) => content).join(" ");

test("messages stand in the order of seq, each once", () => {
  const timeline = new Timeline();
  timeline.start(0, 0);
  for (const seq of [1, 3, 2, 2, 1, 4]) timeline.add(message(seq), true);
  assert.equal(shown(timeline), "1 2 3 4");
  assert.equal(timeline.top, 4);
  assert.equal(timeline.hasHole, false);
  assert.equal(timeline.rev, 4);
});

test("a hole is told until it is filled", () => {
  const timeline = new Timeline();
  timeline.start(5, 5);
  timeline.add(message(6), true);
  timeline.add(message(9), true);
  assert.deepEqual([timeline.top, timeline.hasHole], [6, true]);
  timeline.addAfter(6, [message(7), message(8), message(9)]);
  assert.deepEqual([timeline.top, timeline.hasHole], [9, false]);
});

test("a number that the gateway leaves out is no hole", () => {
  const timeline = new Timeline();
  timeline.start(0, 0);
  timeline.add(message(4), true);
  timeline.addAfter(0, [message(3), message(4)]);
  assert.equal(timeline.hasHole, false);
  timeline.add(message(9), true);
  timeline.closeHoles();
  assert.equal(timeline.top, 9);
});

test("of one message the higher rev stays, whichever comes first", () => {
  const timeline = new Timeline();
  timeline.start(0, 0);
  timeline.add(message(1, 3, "edited"));
  timeline.add(message(1, 1, "first"));
  assert.equal(shown(timeline), "edited");
  assert.equal(timeline.change({ id: "m1", rev: 2, fields: { content: "older" } }), false);
  assert.equal(timeline.change({ id: "m1", rev: 5, fields: { content: "newer" } }), true);
  assert.equal(shown(timeline), "newer");
});

test("a change that comes before its message is applied to it", () => {
  const timeline = new Timeline();
  timeline.start(0, 0);
  timeline.change({ id: "m1", rev: 3, fields: { content: "" } });
  timeline.change({ id: "m1", rev: 2, fields: { content: "older" } });
  timeline.add(message(1));
  assert.deepEqual([timeline.messages[0]?.content, timeline.messages[0]?.rev], ["", 3]);
});

test("the contiguous rev waits for what is between", () => {
  const timeline = new Timeline();
  timeline.start(1, 4);
  timeline.sawRev(6);
  assert.equal(timeline.rev, 4);
  timeline.sawRev(5);
  assert.equal(timeline.rev, 6);
  timeline.sawRev(9);
  timeline.changesFetched(8);
  assert.equal(timeline.rev, 9);
});

test("older pages stand before, down to the first message", () => {
  const timeline = new Timeline();
  timeline.start(10, 10);
  timeline.add(message(11), true);
  timeline.addBefore(11, [message(9), message(10)], true);
  assert.deepEqual([shown(timeline), timeline.hasOlder], ["9 10 11", true]);
  timeline.addBefore(9, [message(7), message(8)], false);
  assert.deepEqual([shown(timeline), timeline.hasOlder], ["7 8 9 10 11", false]);
});

test("a live message below what is loaded has to be reached", () => {
  const timeline = new Timeline();
  timeline.start(10, 10);
  timeline.add(message(5), true);
  assert.equal(timeline.mustReach, 5);
  assert.equal(shown(timeline), "");
  timeline.addBefore(11, [message(8), message(9), message(10)], true);
  assert.equal(timeline.mustReach, 5);
  timeline.addBefore(8, [message(5), message(6), message(7)], true);
  assert.equal(timeline.mustReach, undefined);
  assert.equal(shown(timeline), "5 6 7 8 9 10");
});

test("beginning anew keeps what isn't older", () => {
  const timeline = new Timeline();
  timeline.start(0, 0);
  for (let seq = 1; seq <= 5; seq += 1) timeline.add(message(seq));
  timeline.add(message(9, 12, "live"), true);
  timeline.start(8, 9);
  assert.equal(shown(timeline), "live");
  timeline.add(message(8));
  assert.equal(shown(timeline), "8 live");
  assert.deepEqual([timeline.top, timeline.floor, timeline.hasHole], [9, 7, false]);
});

test("a snapshot is the same object until something changes", () => {
  const timeline = new Timeline();
  timeline.start(0, 0);
  timeline.add(message(1));
  const before = timeline.messages;
  timeline.add(message(1));
  assert.equal(timeline.messages, before);
  timeline.add(message(2));
  assert.notEqual(timeline.messages, before);
  assert.equal(before.length, 1);
});

test("a page that was on its way when its message was edited doesn't undo the edit", () => {
  const timeline = new Timeline();
  timeline.start(10, 10);
  timeline.add(message(8, 11, "edited"));
  timeline.addBefore(11, [message(8), message(9), message(10)], true);
  assert.equal(shown(timeline), "edited 9 10");
});
