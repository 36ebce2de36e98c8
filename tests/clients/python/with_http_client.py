"""http.client: one connection for many requests, and bodies that are read in part."""

import http.client
import ssl
import sys
from urllib.parse import urlsplit

site = urlsplit(sys.argv[1])
if site.scheme == "https":
    context = ssl.create_default_context(cafile=sys.argv[2])
    connection = http.client.HTTPSConnection(site.netloc, context=context, timeout=60)
else:
    connection = http.client.HTTPConnection(site.netloc, timeout=60)

connection.connect()
socket = connection.sock
sent = bytes(range(256)) * 4096
for count in range(5):
    connection.request("GET", f"/hello?{count}")
    assert connection.getresponse().read() == b"hello\n"
    connection.request("HEAD", "/hello")
    answer = connection.getresponse()
    assert (answer.getheader("content-length"), answer.read()) == ("6", b"")
    connection.request("POST", "/echo", body=sent)
    assert connection.getresponse().read() == sent
    chunks = (sent[at : at + 50_000] for at in range(0, len(sent), 50_000))
    connection.request("POST", "/echo", body=chunks, encode_chunked=True)
    assert connection.getresponse().read() == sent
    connection.request("GET", "/missing")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (404, b"there is nothing\n")
assert connection.sock is socket, "one connection was enough"

# Made while it is sent: in chunks, which the client undoes.
connection.request("GET", "/large")
answer = connection.getresponse()
assert answer.getheader("transfer-encoding") == "chunked", answer.headers
size = 0
for place in range(512):
    piece = answer.read(65536)
    assert piece == bytes([place % 256]) * 65536, place
assert answer.read() == b""
assert connection.sock is socket, "one connection was enough"

# One that goes away in the middle.
connection.request("GET", "/large")
assert len(connection.getresponse().read(100_000)) == 100_000
connection.close()

print("well")
