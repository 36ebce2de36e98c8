// A server by node's own modules: HTTP/1.1 and HTTP/2, in the clear and over TLS.
//
// node server.mjs IP PORT FOLDER REQUESTS: `cert.pem` and `key.pem` are in the folder. On PORT is http, then https,
// http2 over TLS, http2 in the clear. After so many requests a connection is ended in order; 0: never.

import { readFileSync } from "node:fs";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import http2 from "node:http2";

const [ip, port, folder, most] = process.argv.slice(2);
const limit = Number(most);
const secrets = {
  cert: readFileSync(`${folder}/cert.pem`),
  key: readFileSync(`${folder}/key.pem`),
};

// How many bodies came to an end that was not theirs.
let cuts = 0;

// RFC 1950, section 8.2; the first number is 1.
function adler32(bytes, sum) {
  let [a, b] = [sum & 0xffff, sum >>> 16];
  for (let at = 0; at < bytes.length; ) {
    // As many as do not overflow what is counted exactly.
    const end = Math.min(at + 3800, bytes.length);
    for (; at < end; at++) b += a += bytes[at];
    a %= 65521;
    b %= 65521;
  }
  return ((b << 16) | a) >>> 0;
}

// Waits until there is room for more, or nobody wants more.
const room = (response) =>
  new Promise((go) => {
    const hear = () => {
      response.off("drain", hear).off("close", hear);
      go();
    };
    response.on("drain", hear).on("close", hear);
  });

// `size` bytes; the one at place n is n, from `first`, modulo 251.
async function much(response, size, first, sums) {
  const block = Uint8Array.from({ length: 251 * 64 }, (_, place) => (first + place) % 251);
  let sum = 1;
  for (let left = size; left > 0 && !response.destroyed; ) {
    const piece = block.subarray(0, Math.min(left, block.length));
    left -= piece.length;
    if (sums) sum = adler32(piece, sum);
    if (!response.write(piece)) await room(response);
  }
  if (sums && !response.destroyed) response.addTrailers({ "x-sum": sum.toString() });
  response.end();
}

function answer(request, response) {
  // Clients go away in the middle.
  request.on("error", () => {});
  response.on("error", () => {});
  const url = new URL(request.url, "http://site.test");
  const number = request.headers["x-number"] ?? "";
  const head = (status, fields = {}) =>
    response.writeHead(status, { "x-number": number, ...fields });
  const hello = () => {
    head(200);
    response.end(`hello ${number}`);
  };
  switch (url.pathname) {
    case "/hello":
      return hello();
    case "/slow":
      return setTimeout(hello, 5);
    case "/echo":
      head(200);
      return request.pipe(response);
    case "/sum": {
      let [length, sum] = [0, 1];
      request.on("data", (piece) => {
        length += piece.length;
        sum = adler32(piece, sum);
      });
      return request.on("end", () => {
        if (request.aborted) return;
        if (length !== Number(request.headers["x-length"])) cuts += 1;
        head(200);
        response.end(`${number} ${length} ${sum}`);
      });
    }
    case "/cuts":
      head(200);
      return response.end(cuts.toString());
    case "/much": {
      const size = Number(url.searchParams.get("size"));
      const sums = url.searchParams.has("sums");
      head(200, sums ? { trailer: "x-sum" } : { "content-length": size });
      if (request.method === "HEAD") return response.end();
      return void much(response, size, Number(number) % 251, sums).catch(() => {});
    }
    case "/none":
      head(204);
      return response.end();
    case "/elsewhere":
      head(302, { location: "/hello" });
      return response.end();
    case "/half":
      head(200, { "content-length": 1000 });
      return response.write("half");
    case "/never":
      return request.resume();
    default:
      head(404);
      return response.end();
  }
}

function upgrade(request, socket, head) {
  socket.on("error", () => {});
  socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
  socket.write(head);
  socket.pipe(socket);
}

const servers = [
  http.createServer(answer),
  https.createServer(secrets, answer),
  http2.createSecureServer({ ...secrets, allowHTTP1: true }, answer),
  http2.createServer(answer),
];
for (const [place, server] of servers.entries()) {
  server.on("upgrade", upgrade);
  server.on("clientError", (_, socket) => socket.destroy());
  server.on("sessionError", () => {});
  server.on("session", (session) => {
    let streams = 0;
    session.on("stream", () => {
      if (++streams === limit) session.close();
    });
  });
  server.keepAliveTimeout = 0;
  if (limit > 0) server.maxRequestsPerSocket = limit;
  server.listen(Number(port) + place, ip);
}
await Promise.all(servers.map((server) => once(server, "listening")));
console.log("ready");
