// The page of the browser tests, bundled and served.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { build } from "esbuild";
import { PACKAGE } from "./nodes.js";

export interface Served {
  url: string;
  stop(): void;
}

/** On this port of this machine; 0 takes a free one. */
export async function servePage(port = 0): Promise<Served> {
  const { outputFiles } = await build({
    absWorkingDir: PACKAGE,
    entryPoints: ["tests/support/page.ts"],
    bundle: true,
    write: false,
    format: "iife",
    target: "es2022",
  });
  const script = outputFiles[0]?.text ?? "";
  const server = createServer((_, answer) => {
    answer.setHeader("content-type", "text/html; charset=utf-8");
    answer.end(`<!doctype html><title>Chat</title><body><script>${script}</script>`);
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, stop: () => server.close() };
}
