"""The Python peers against each other, with nothing of ours between: what passes here and fails
through the gateway is the gateway's fault. Exit code 0 if all is as expected."""

import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def start(*args):
    process = subprocess.Popen(
        [sys.executable, HERE / "spyne_service.py", *args], stdout=subprocess.PIPE, text=True
    )
    return process, json.loads(process.stdout.readline())["url"]


def run(script, *args):
    done = subprocess.run(
        [sys.executable, HERE / script, *map(str, args)], stdout=subprocess.PIPE, text=True
    )
    return done.returncode, json.loads(done.stdout)


def calculator(url):
    for soap, wsdl in [("1.1", "wsdl"), ("1.2", "wsdl=1.2"), ("1.1", "wsdl=both"),
                       ("1.2", "wsdl=both")]:
        wsdl = f"{url}?{wsdl}"
        code, answer = run("zeep_call.py", wsdl, "add", 20, 22, "--soap", soap)
        assert (code, answer["result"]) == (0, 42), answer
        text = "Grüße & <tags>"
        code, answer = run("zeep_call.py", wsdl, "echo", text, "--soap", soap)
        assert (code, answer["result"]) == (0, text), answer
        code, answer = run("zeep_call.py", wsdl, "divide", 1, 0, "--soap", soap)
        assert code == 1 and "divided by zero" in answer["fault"]["message"], answer


def counter(url):
    code, answer = run("zeep_increments.py", f"{url}?wsdl=both", "--calls", 200)
    assert code == 0 and answer["right"], answer
    code, answer = run("zeep_call.py", f"{url}?wsdl=both", "get")
    assert (code, answer["result"]) == (0, 200), answer


def main():
    for name, test in [("calculator", calculator), ("counter", counter)]:
        process, url = start(name)
        try:
            test(url)
        finally:
            process.terminate()
            code = process.wait(timeout=10)
        assert code == 0, f"the {name} ended with {code} on SIGTERM"
        print(f"{name}: zeep and spyne understand each other over SOAP 1.1 and 1.2")


if __name__ == "__main__":
    main()
