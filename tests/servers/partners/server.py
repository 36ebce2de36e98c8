"""A server by hypercorn: HTTP/1.1 and HTTP/2, in the clear and over TLS.

server.py IP PORT FOLDER REQUESTS: `cert.pem` and `key.pem` are in the folder. On PORT it is in the clear, on the
next one over TLS. After so many requests a connection of HTTP/1.1 is ended in order; 0: never.
"""

import asyncio
import logging
import socket
import sys
import zlib
from urllib.parse import parse_qs

from hypercorn.asyncio import serve
from hypercorn.config import Config


class Gone(Exception):
    """The client has gone in the middle."""


# How many bodies came to an end that was not theirs.
cuts = 0


async def pieces(receive):
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def answer(scope, receive, send):
    fields = dict(scope["headers"])
    number = fields.get(b"x-number", b"")
    query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)

    async def head(status, *more, trailers=False):
        fields = [(b"x-number", number), *more]
        start = {"type": "http.response.start", "status": status, "headers": fields}
        await send({**start, "trailers": trailers})

    async def body(piece, more=False):
        await send({"type": "http.response.body", "body": piece, "more_body": more})

    path = scope["path"]
    if path in ("/hello", "/slow"):
        if path == "/slow":
            await asyncio.sleep(0.005)
        await head(200)
        await body(b"hello " + number)
    elif path == "/echo":
        await head(200)
        async for piece in pieces(receive):
            await body(piece, more=True)
        await body(b"")
    elif path == "/sum":
        length, total = 0, 1
        async for piece in pieces(receive):
            length += len(piece)
            total = zlib.adler32(piece, total)
        if length != int(fields[b"x-length"]):
            global cuts
            cuts += 1
        await head(200)
        await body(b"%s %d %d" % (number, length, total))
    elif path == "/cuts":
        await head(200)
        await body(b"%d" % cuts)
    elif path == "/much":
        size = int(query["size"][0])
        first = int(number) % 251
        # The byte at place n is n, from `first`, modulo 251.
        block = bytes((first + place) % 251 for place in range(251)) * 64
        has_sum = "sums" in query and "http.response.trailers" in scope["extensions"]
        length = [] if "sums" in query else [(b"content-length", b"%d" % size)]
        await head(200, *length, trailers=has_sum)
        if scope["method"] == "HEAD":
            return await body(b"")
        total = 1
        while size > 0:
            piece = block[:size]
            size -= len(piece)
            total = zlib.adler32(piece, total)
            await body(piece, more=True)
        await body(b"")
        if has_sum:
            trailers = [(b"x-sum", b"%d" % total)]
            await send({"type": "http.response.trailers", "headers": trailers})
    elif path == "/none":
        await head(204)
        await body(b"")
    elif path == "/elsewhere":
        await head(302, (b"location", b"/hello"))
        await body(b"")
    elif path == "/half":
        await head(200, (b"content-length", b"1000"))
        await body(b"half", more=True)
        await asyncio.Event().wait()
    elif path == "/never":
        async for _ in pieces(receive):
            pass
        await asyncio.Event().wait()
    else:
        await head(404)
        await body(b"")


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    try:
        await answer(scope, receive, send)
    except Gone:
        pass


def listening(ip, port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ip, port))
    listener.listen(100)
    return f"fd://{listener.detach()}"


def main():
    ip, port, folder, most = sys.argv[1:]
    config = Config()
    config.insecure_bind = [listening(ip, int(port))]
    config.bind = [listening(ip, int(port) + 1)]
    config.certfile = f"{folder}/cert.pem"
    config.keyfile = f"{folder}/key.pem"
    config.keep_alive_max_requests = int(most) or 1_000_000
    config.keep_alive_timeout = 600
    config.errorlog = None
    # Of clients that go away in the middle.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    print("ready", flush=True)
    asyncio.run(serve(app, config))


main()
