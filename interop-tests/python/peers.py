"""What the zeep clients share: a service proxy bound to the port of one SOAP version."""

import requests
from zeep import Client, Settings
from zeep.transports import Transport
from zeep.wsdl.bindings import Soap11Binding, Soap12Binding

BINDINGS = {"1.1": Soap11Binding, "1.2": Soap12Binding}


def connect(wsdl, soap, timeout):
    """The operations of the first port of that SOAP version; `timeout` in seconds."""
    session = requests.Session()
    session.trust_env = False
    transport = Transport(session=session, timeout=timeout, operation_timeout=timeout)
    client = Client(wsdl, transport=transport, settings=Settings(strict=True))
    for service in client.wsdl.services.values():
        for port in service.ports.values():
            # Soap12Binding is no subclass of Soap11Binding, nor the other way round.
            if isinstance(port.binding, BINDINGS[soap]):
                return client.bind(service.name, port.name)
    raise SystemExit(f"{wsdl} has no port for SOAP {soap}")
