// Reads an AsyncAPI document from standard input and fails if the parser finds a fault in it:
//
//   curl -s http://127.0.0.1:8086/asyncapi.json | node deploy/asyncapi/check.mjs
//
// Hints and recommendations of the parser are printed and don't fail.

import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const ERROR = 0;
const { document, diagnostics } = await new Parser().parse(readFileSync(0, 'utf8'));
for (const { severity, message, path } of diagnostics) {
  console.log(`${severity === ERROR ? 'error' : 'note'}: ${message} (${path.join('/')})`);
}
if (!document || diagnostics.some(({ severity }) => severity === ERROR)) process.exit(1);
const operations = document.operations().all();
console.log(`${operations.length} operations, ${document.messages().all().length} messages`);
if (document.messages().all().length === 0) process.exit(1);
