// http2: a stream that is reset while its handler waits; the session is none the worse for it.

import assert from "node:assert";
import http2 from "node:http2";
import { buffer } from "node:stream/consumers";

const session = http2.connect(process.argv[2]);
const waits = session.request({ ":path": "/wait" });
const hello = async () => (await buffer(session.request({ ":path": "/hello" }))).toString();

// Answered behind it: by then it has begun.
assert.equal(await hello(), "hello\n");
const closed = new Promise((resolve) => waits.on("close", resolve));
waits.on("error", () => {});
waits.close(http2.constants.NGHTTP2_CANCEL);
await closed;
assert.equal(await hello(), "hello\n");
await new Promise((resolve) => session.close(resolve));
console.log("well");
