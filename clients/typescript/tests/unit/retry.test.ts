import assert from "node:assert/strict";
import { test } from "node:test";
import { afterClose, backOffMs, expiresAtMs, refreshLeadMs, retryAfterMs } from "../../src/retry.js";

test("each close code has its next step", () => {
  const step = (code: number) => afterClose(code).step;
  for (let code = 4000; code < 4100; code += 1) assert.equal(step(code), "stop");
  for (const code of [1000, 1001, 1002, 1006, 1007, 1009, 1011, 4100, 4105, 4199, 4400])
    assert.equal(step(code), "backOff");
  for (const code of [4200, 4201, 4202, 4299]) assert.equal(step(code), "soon");
  assert.equal(step(4300), "freshToken");
  assert.equal(step(4301), "forgetPosition");
});

test("the wait is anywhere below a bound that doubles up to 30 s, above what the gateway asks for", () => {
  assert.equal(backOffMs(0, 0), 0);
  assert.equal(backOffMs(0, 0.5), 500);
  assert.equal(backOffMs(3, 0.5), 4_000);
  assert.equal(backOffMs(400, 0.999), 29_970);
  assert.equal(backOffMs(0, 0.5, 2_000), 2_500);
});

test("Retry-After is seconds or a date", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  assert.equal(retryAfterMs("2", now), 2_000);
  assert.equal(retryAfterMs("Thu, 01 Jan 2026 00:00:03 GMT", now), 3_000);
  assert.equal(retryAfterMs("Thu, 01 Jan 2025 00:00:00 GMT", now), 0);
  assert.equal(retryAfterMs("soon", now), undefined);
  assert.equal(retryAfterMs(null, now), undefined);
});

test("a token's end is read from its claims, if it has any", () => {
  const token = (claims: object) => `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.x`;
  assert.equal(expiresAtMs(token({ exp: 5, name: "ÿ~?>" })), 5_000);
  assert.equal(expiresAtMs(token({ sub: "alice" })), undefined);
  assert.equal(expiresAtMs("opaque"), undefined);
  assert.equal(expiresAtMs(""), undefined);
  assert.equal(refreshLeadMs(90_000), 30_000);
  assert.equal(refreshLeadMs(86_400_000), 60_000);
});
