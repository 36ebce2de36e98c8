// http and https: an agent that keeps connections, and answers that are read slower than they come.

import assert from "node:assert";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { Transform, Writable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";

const [site, large, certificate] = process.argv.slice(2);
const client = site.startsWith("https") ? https : http;
const ca = certificate && readFileSync(certificate);
const agent = new client.Agent({ keepAlive: true, maxSockets: 1, ca });

function ask(path, options = {}, body = undefined) {
  return new Promise((resolve, reject) => {
    const request = client.request(site + path, { agent, ...options });
    request.on("error", reject);
    request.on("response", (answer) => resolve({ request, answer }));
    if (options.headers?.expect) request.on("continue", () => request.end(body));
    else request.end(body);
  });
}

const sent = Buffer.alloc(1 << 20, "0123456789");
let reused = 0;
for (let count = 0; count < 5; count++) {
  const hello = await ask(`/hello?${count}`);
  assert.equal(hello.answer.statusCode, 200);
  assert.equal((await buffer(hello.answer)).toString(), "hello\n");
  const echo = await ask("/echo", { method: "POST" }, sent);
  assert.ok((await buffer(echo.answer)).equals(sent));
  const expect = { "content-length": sent.length, expect: "100-continue" };
  const asked = await ask("/echo", { method: "POST", headers: expect }, sent);
  assert.ok((await buffer(asked.answer)).equals(sent));
  for (const { request } of [hello, echo, asked]) reused += request.reusedSocket;
}
assert.equal(reused, 14, "all but the first went over a connection that was there");

// The client takes a little at a time; the server has to wait for it.
let size = 0;
const narrow = new Transform({
  highWaterMark: 1024,
  transform: (piece, _, done) => setImmediate(done, null, piece),
});
const count = new Writable({
  highWaterMark: 1024,
  write: (piece, _, done) => ((size += piece.length), setImmediate(done)),
});
await pipeline((await ask("/large")).answer, narrow, count);
assert.equal(size, Number(large));

agent.destroy();
console.log("well");
