// http2: many streams on one connection, in both directions at once, and one that is read slowly.

import assert from "node:assert";
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import { Readable, Writable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";

const [site, large, certificate] = process.argv.slice(2);
const session = http2.connect(site, { ca: certificate && readFileSync(certificate) });

function status(stream) {
  return new Promise((resolve, reject) => {
    stream.on("error", reject);
    stream.on("response", (fields) => resolve(fields[":status"]));
  });
}

async function hello(count) {
  const stream = session.request({ ":path": `/hello?${count}` });
  assert.equal(await status(stream), 200);
  assert.equal((await buffer(stream)).toString(), "hello\n");
}

// What is sent comes back while it is sent.
async function mirror(count) {
  const piece = Buffer.alloc(20_000, String(count));
  const stream = session.request({ ":path": "/mirror", ":method": "POST" });
  const pieces = Readable.from(Array(20).fill(piece));
  const [, , whole] = await Promise.all([status(stream), pipeline(pieces, stream, { end: true }).catch(() => {}), buffer(stream)]);
  assert.ok(whole.equals(Buffer.concat(Array(20).fill(piece))), `stream ${count}`);
}

// Read slowly, while the others go on.
async function slowly() {
  const stream = session.request({ ":path": "/large" });
  let size = 0;
  const count = new Writable({
    highWaterMark: 1024,
    write: (piece, _, done) => ((size += piece.length), setImmediate(done)),
  });
  await pipeline(stream, count);
  assert.equal(size, Number(large));
}

const all = [slowly()];
for (let count = 0; count < 30; count++) all.push(hello(count), mirror(count));
await Promise.all(all);

const head = session.request({ ":path": "/hello", ":method": "HEAD" });
assert.equal(await status(head), 200);
assert.equal((await buffer(head)).length, 0);

await new Promise((resolve) => session.close(resolve));
console.log("well");
