"""One call of stock zeep: takes the WSDL from a URL, calls one operation, prints its answer as one
JSON object. A SOAP fault is an answer too (exit code 1); so is no answer at all (exit code 3).

    zeep_call.py http://127.0.0.1:8080/?wsdl add 2 3 --soap 1.2
"""

import argparse
import json
import sys

import requests
from lxml import etree
from peers import connect
from zeep.exceptions import Error, Fault
from zeep.helpers import serialize_object


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("wsdl")
    parser.add_argument("operation")
    parser.add_argument("argument", nargs="*", help="whole numbers are sent as numbers")
    parser.add_argument("--soap", choices=["1.1", "1.2"], default="1.1")
    parser.add_argument("--repeat", type=int, default=1, help="as often; the last answer counts")
    parser.add_argument("--timeout", type=float, default=60, help="seconds")
    args = parser.parse_args()

    answer = {"operation": args.operation, "soap": args.soap}
    code = 0
    try:
        service = connect(args.wsdl, args.soap, args.timeout)
        for _ in range(args.repeat):
            result = service[args.operation](*map(number, args.argument))
            answer["result"] = serialize_object(result, dict)
    except Fault as fault:
        code = 1
        answer["fault"] = {
            "code": fault.code,
            "subcodes": [str(subcode) for subcode in fault.subcodes or []],
            "message": fault.message,
            "detail": etree.tostring(fault.detail).decode() if fault.detail is not None else None,
        }
    except (Error, requests.RequestException, etree.XMLSyntaxError) as error:
        code = 3
        answer["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(answer, default=str))
    sys.exit(code)


def number(text):
    try:
        return int(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
