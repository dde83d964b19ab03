"""Two services on stock spyne, to be wrapped like any foreign service: a calculator without state
and a counter with state.

Prints one JSON line with its URL once it listens, and ends on SIGTERM. One URL serves SOAP 1.1
and SOAP 1.2, told apart by the Content-Type; spyne itself has one version per application, so
there are two applications here over one state. The WSDL of each version is spyne's own:
`?wsdl` for 1.1, `?wsdl=1.2` for 1.2 (`--soap 1.2` swaps them); `?wsdl=both` joins the two.
"""

import argparse
import io
import json
import logging
import os
import signal
import threading

from cheroot import wsgi
from lxml import etree
from spyne import Application, Fault, Integer, ServiceBase, Unicode, rpc
from spyne.protocol.soap import Soap11, Soap12
from spyne.server.wsgi import WsgiApplication

WSDL = "{http://schemas.xmlsoap.org/wsdl/}"


class Calculator(ServiceBase):
    @rpc(Integer, Integer, _returns=Integer)
    def add(ctx, a, b):
        return a + b

    @rpc(Integer, Integer, _returns=Integer)
    def subtract(ctx, a, b):
        return a - b

    @rpc(Integer, Integer, _returns=Integer)
    def multiply(ctx, a, b):
        return a * b

    @rpc(Integer, Integer, _returns=Integer)
    def divide(ctx, a, b):
        if b == 0:
            raise Fault("Client.DivisionByZero", f"{a} cannot be divided by zero")
        return a // b

    @rpc(Unicode, _returns=Unicode)
    def echo(ctx, text):
        return text


def counter():
    """A new counter; its state is shared by the applications that serve it."""
    lock = threading.Lock()
    value = 0

    class Counter(ServiceBase):
        @rpc(_returns=Integer)
        def increment(ctx):
            return advance(1)

        @rpc(Integer, _returns=Integer)
        def add(ctx, n):
            return advance(n)

        @rpc(_returns=Integer)
        def get(ctx):
            return advance(0)

    def advance(by):
        nonlocal value
        with lock:
            value += by
            return value

    return Counter


class OneUrl:
    """WSGI: hands each request to the application of its SOAP version."""

    def __init__(self, service, namespace, first):
        versions = {"1.1": Soap11, "1.2": Soap12}
        self.first = first
        self.by_version = {
            version: WsgiApplication(
                Application(
                    [service],
                    tns=namespace,
                    name=service.__name__,
                    in_protocol=protocol(validator="lxml"),
                    out_protocol=protocol(),
                )
            )
            for version, protocol in versions.items()
        }

    def __call__(self, environ, start_response):
        query = environ.get("QUERY_STRING", "")
        if environ["REQUEST_METHOD"] == "GET" and query.lower().startswith("wsdl"):
            application = self.by_version.get(query[len("wsdl=") :] or self.first, self.joined)
            return application(environ, start_response)
        is_12 = "application/soap+xml" in environ.get("CONTENT_TYPE", "")
        return self.by_version["1.2" if is_12 else "1.1"](environ, start_response)

    def joined(self, environ, start_response):
        """The WSDL of SOAP 1.1 with the binding and the port of SOAP 1.2 put beside."""
        trees = {}
        for version, app in self.by_version.items():
            body = app({**environ, "QUERY_STRING": "wsdl"}, lambda *_: None)
            trees[version] = etree.parse(io.BytesIO(b"".join(body))).getroot()
        whole, other = trees["1.1"], trees["1.2"]
        binding, port = other.find(WSDL + "binding"), other.find(f"{WSDL}service/{WSDL}port")
        for element in (binding, port):
            element.set("name", element.get("name") + "12")
        port.set("binding", port.get("binding") + "12")
        service = whole.find(WSDL + "service")
        service.addprevious(binding)
        service.append(port)
        octets = etree.tostring(whole, xml_declaration=True, encoding="UTF-8")
        start_response("200 OK", [("Content-Type", "text/xml; charset=utf-8")])
        return [octets]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("service", choices=["calculator", "counter"])
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--soap", choices=["1.1", "1.2", "both"], default="both", help="of ?wsdl")
    parser.add_argument("--threads", type=int, default=8)
    args = parser.parse_args()
    # Faults are answers, not errors of this program.
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("spyne.application").setLevel(logging.CRITICAL)

    service = Calculator if args.service == "calculator" else counter()
    application = OneUrl(service, f"urn:example:{args.service}", args.soap)
    server = wsgi.Server((args.host, args.port), application, numthreads=args.threads)
    server.prepare()
    # Connections that clients keep open must not hold up the end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))

    url = f"http://{args.host}:{server.bind_addr[1]}/{args.service}"
    print(json.dumps({"event": "ready", "url": url, "pid": os.getpid()}), flush=True)
    server.serve()


if __name__ == "__main__":
    main()
