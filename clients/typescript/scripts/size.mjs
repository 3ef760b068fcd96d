// Shows the size of the whole client, minified and compressed, and fails above the limit. React is not counted.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { PACKAGE } from "./entries.mjs";

const BYTES_MAX = 14 * 1024;

async function size(...names) {
  const { outputFiles } = await build({
    absWorkingDir: PACKAGE,
    stdin: { contents: names.map((name) => `export * from "./src/${name}.ts"`).join("\n"), resolveDir: PACKAGE },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    external: ["react"],
  });
  const { contents } = outputFiles[0];
  return { minified: contents.length, compressed: gzipSync(contents, { level: 9 }).length };
}

const shown = [["index"], ["index", "storage"], ["index", "storage", "react"]];
let largest = 0;
for (const names of shown) {
  const { minified, compressed } = await size(...names);
  largest = Math.max(largest, compressed);
  console.log(`${names.join(" + ").padEnd(24)} ${minified} bytes minified, ${compressed} compressed`);
}
if (largest > BYTES_MAX) {
  console.error(`error: ${largest} bytes are more than ${BYTES_MAX}`);
  process.exit(1);
}
