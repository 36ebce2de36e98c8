// Server-sent events, read as a browser does.

import assert from "node:assert";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const [site, , certificate] = process.argv.slice(2);
const client = site.startsWith("https") ? https : http;
const ca = certificate && readFileSync(certificate);

// The algorithm of the WHATWG's HTML standard, as far as it is needed.
async function* events(answer) {
  let rest = "";
  let event = { type: "message", data: [] };
  for await (const piece of answer.setEncoding("utf8")) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data.length > 0) yield { ...event, data: event.data.join("\n") };
        event = { type: "message", data: [], id: event.id };
        continue;
      }
      const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
      if (name === "data") event.data.push(value);
      else if (name === "event") event.type = value;
      else if (name === "id") event.id = value;
    }
  }
}

const answer = await new Promise((resolve, reject) =>
  client.get(site + "/events", { ca, agent: false }, resolve).on("error", reject),
);
assert.equal(answer.headers["content-type"], "text/event-stream");
const read = [];
for await (const event of events(answer)) read.push(event);
const expected = [1, 2, 3].map((count) => ({
  type: "count",
  data: `${count}\nof three`,
  id: String(count),
}));
assert.deepEqual(read, expected);
console.log("well");
