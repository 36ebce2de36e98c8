"""asyncio: raw sockets, requests one behind the other, and one that comes byte by byte."""

import asyncio
import ssl
import sys
from urllib.parse import urlsplit

site = urlsplit(sys.argv[1])
context = ssl.create_default_context(cafile=sys.argv[2]) if site.scheme == "https" else None
CONNECTIONS, REQUESTS = 20, 10


async def read_answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n"), head
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
    return fields, await reader.readexactly(int(fields["content-length"]))


async def pipelined(number):
    reader, writer = await asyncio.open_connection(site.hostname, site.port, ssl=context)
    bodies = [f"{number} {count}\n".encode() * 100 for count in range(REQUESTS)]
    for count, body in enumerate(bodies):
        last = "connection: close\r\n" if count == REQUESTS - 1 else ""
        head = f"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{last}\r\n"
        writer.write(head.encode() + body)
    for count, body in enumerate(bodies):
        fields, echoed = await read_answer(reader)
        assert echoed == body, (number, count)
        assert ("connection" in fields) == (count == REQUESTS - 1), fields
    assert await reader.read() == b"", "nothing comes after the last"
    writer.close()


async def slowly():
    """A request in many pieces."""
    reader, writer = await asyncio.open_connection(site.hostname, site.port, ssl=context)
    for byte in b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await read_answer(reader))[1] == b"hello\n"
    writer.close()


async def main():
    clients = [pipelined(number) for number in range(CONNECTIONS)] + [slowly()]
    await asyncio.wait_for(asyncio.gather(*clients), 100)


asyncio.run(main())
print("well")
