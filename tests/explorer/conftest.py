import http.client
import json
import threading

import pytest

from skimba.explorer import Explorer, ExplorerServer, named_offer

DENSE = ("mask_rcnn:plain_mamba_micro", "upernet:plain_mamba_micro")
MODELS = ("vim_micro", "plain_mamba_micro", *DENSE, "videomamba_micro")


@pytest.fixture(scope="session")
def server():
    """A server of embedded models, in threads of this process."""
    faults = []
    explorer = Explorer({name: named_offer(name) for name in MODELS})
    with ExplorerServer(explorer, on_fault=faults.append) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()
    assert not faults


@pytest.fixture(scope="session")
def ask(server):
    """Asks a question; gives the status and what came back."""

    def ask(name, question=None, **fields):
        content = json.dumps(fields if question is None else question).encode()
        status, body = send(server, "POST", f"/api/{name}", content, {"Content-Type": "application/json"})
        return status, json.loads(body)

    return ask


def send(server, verb, path, body=None, headers=()):
    """One request as it is; status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.request(verb, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def upload(server, content):
    status, body = send(server, "POST", "/api/upload", content, {"Content-Type": "application/octet-stream"})
    return status, json.loads(body)
