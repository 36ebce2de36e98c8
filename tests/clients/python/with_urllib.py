"""urllib: requests that each have a connection of their own."""

import ssl
import sys
import urllib.error
import urllib.request

site = sys.argv[1]
context = ssl.create_default_context(cafile=sys.argv[2]) if len(sys.argv) > 2 else None
no_proxy = urllib.request.ProxyHandler({})
opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=context))

with opener.open(site + "/hello", timeout=60) as answer:
    assert answer.status == 200, answer.status
    assert answer.headers["content-length"] == "6", answer.headers
    assert answer.read() == b"hello\n"

sent = bytes(range(256)) * 4096
with opener.open(site + "/echo", data=sent, timeout=60) as answer:
    assert answer.read() == sent

# Of unknown length, thus in chunks.
pieces = (sent[at : at + 10_000] for at in range(0, len(sent), 10_000))
request = urllib.request.Request(site + "/echo", data=pieces, method="PUT")
with opener.open(request, timeout=60) as answer:
    assert answer.read() == sent

with opener.open(urllib.request.Request(site + "/hello", method="HEAD"), timeout=60) as answer:
    assert answer.headers["content-length"] == "6", answer.headers
    assert answer.read() == b""

try:
    opener.open(site + "/missing", timeout=60)
    raise AssertionError("it is not there")
except urllib.error.HTTPError as error:
    assert error.code == 404, error
    assert error.read() == b"there is nothing\n"

print("well")
