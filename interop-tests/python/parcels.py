"""A service that gives each message with attachments back, with nothing but the standard library.

Prints one JSON line with its URL once it listens, and ends on SIGTERM. MTOM and SOAP with
Attachments, SOAP 1.1 and 1.2: the child of the Body comes back as keepResponse for keep, with an
attribute that counts the calls. As stacks do, it draws the boundary and the names of the parts by
chance; and it writes the parts in an order drawn by chance.
"""

import email
import json
import os
import random
import signal
import urllib.parse
import uuid
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.etree import ElementTree

CALLS = [0]


def split(content_type, body):
    """The root part and the other parts by their names without brackets."""
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    package = email.message_from_bytes(head + body, policy=HTTP)
    start = package.get_param("start")
    parts = {part["Content-ID"].strip().strip("<>"): part for part in package.iter_parts()}
    root = parts.pop(start.strip("<>"))
    return root, parts


def answer(content_type, body):
    """The package that goes back: its Content-Type and its body."""
    root, parts = split(content_type, body)
    CALLS[0] += 1
    envelope = ElementTree.fromstring(root.get_payload(decode=True))
    ns = envelope.tag[: envelope.tag.index("}") + 1]
    child = envelope.find(f"{ns}Body")[0]
    child.tag += "Response"
    child.set("calls", str(CALLS[0]))
    names = {name: f"{uuid.uuid4()}@parcels.example" for name in parts}
    for element in child.iter():
        name = urllib.parse.unquote(element.get("href", "")).removeprefix("cid:")
        if name in names:
            element.set("href", "cid:" + urllib.parse.quote(names[name], safe=""))
    whole = ElementTree.Element(f"{ns}Envelope")
    ElementTree.SubElement(whole, f"{ns}Body").append(child)

    boundary, start = f"uuid:{uuid.uuid4()}", f"<{uuid.uuid4()}@parcels.example>"
    kind = root.get_content_type()
    pieces = [(str(root["Content-Type"]), start, ElementTree.tostring(whole, encoding="utf-8"))]
    others = [
        (str(part["Content-Type"]), f"<{names[name]}>", part.get_payload(decode=True))
        for name, part in parts.items()
    ]
    random.SystemRandom().shuffle(others)
    out = b""
    for of, name, octets in pieces + others:
        head = f"--{boundary}\r\nContent-Type: {of}\r\nContent-ID: {name}\r\n"
        out += head.encode() + b"Content-Transfer-Encoding: binary\r\n\r\n" + octets + b"\r\n"
    text = f'multipart/related; boundary="{boundary}"; type="{kind}"; start="{start}"'
    if kind == "application/xop+xml":
        info = "text/xml" if "xmlsoap" in ns else "application/soap+xml"
        text += f'; start-info="{info}"'
    return text, out + f"--{boundary}--\r\n".encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        content_type, octets = answer(self.headers["Content-Type"], body)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Connections that clients keep open must not hold up the end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    url = f"http://127.0.0.1:{server.server_address[1]}/parcels"
    print(json.dumps({"event": "ready", "url": url, "pid": os.getpid()}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
