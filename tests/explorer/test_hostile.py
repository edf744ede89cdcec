"""Whatever is sent, the visitor gets a sentence and the server lives on."""

import http.client
import io
import json
import re
import socket
import struct
import threading
import time
import zlib

import pytest
from PIL import Image

from skimba.explorer import Explorer, ExplorerServer, named_offer
from skimba.explorer.pictures import LARGEST_UPLOAD, Pictures
from skimba.explorer.server import page_files
from skimba.explorer.worker import Worker
from tests.explorer.conftest import send, upload

JSON = {"Content-Type": "application/json"}
DENSE = {"method": "dense"}


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def claims(width, height):
    """A PNG whose head claims that size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def animated():
    frames = [Image.new("P", (20, 20), color) for color in (1, 2, 3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


REFUSED = {
    "text": (b"this is no photo\n" * 100, "neither JPEG"),
    "nothing": (b"", "empty"),
    "giant": (claims(30_000, 30_000), "900000000|more than 89478485"),
    "strip": (claims(30_000, 1), "100 times"),
    "cut off": (encoded(Image.new("RGB", (400, 400), "red"), "JPEG")[:300], "cannot be read"),
    "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "neither JPEG"),
}
TAKEN = {
    "one pixel": encoded(Image.new("RGB", (1, 1), "red")),
    "grey": encoded(Image.new("L", (50, 40), 90)),
    "sixteen bits": encoded(Image.new("I;16", (50, 40), 900)),
    "animated": animated(),
    "transparent": encoded(Image.new("RGBA", (50, 40), (255, 0, 0, 0))),
    "palette with transparency": encoded(Image.new("P", (50, 40)), transparency=0),
}


@pytest.fixture(autouse=True)
def lives_on(ask):
    yield
    assert ask("answer", model="vim_micro", picture="example:1", side=DENSE)[0] == 200


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_picture_gets_a_sentence(server, kind):
    content, reason = REFUSED[kind]
    _, found = upload(server, content)
    assert re.search(reason, found["error"])
    assert not re.search(r"Traceback|File \"|\n", found["error"])


@pytest.mark.parametrize("kind", TAKEN)
@pytest.mark.parametrize("model", ["vim_micro"])
def test_unusual_pictures_are_answered(server, ask, kind, model):
    status, found = upload(server, TAKEN[kind])
    assert status == 200, found
    status, answer = ask("answer", model=model, picture=found["picture"], side=DENSE)
    assert status == 200, answer
    status, seen = send(server, "GET", f"/api/seen?model={model}&picture={found['picture']}")
    assert status == 200
    with Image.open(io.BytesIO(seen)) as image:
        assert image.size == (28, 28)


def test_transparency_is_white(server):
    picture = upload(server, TAKEN["transparent"])[1]["picture"]
    _, seen = send(server, "GET", f"/api/seen?model=vim_micro&picture={picture}")
    with Image.open(io.BytesIO(seen)) as image:
        assert image.getextrema() == (255, 255)


QUESTIONS = [
    ("answer", {"model": "vim_micro", "picture": "example:0", "side": {"method": "best"}}, "unknown method 'best'"),
    ("answer", {"model": "vim_micro", "picture": "example:0", "side": {"method": "hold"}}, "one of the two"),
    (
        "answer",
        {"model": "vim_micro", "picture": "example:0", "side": {"method": "hold", "share": 0}},
        "0.05 … 1, got 0",
    ),
    (
        "answer",
        {"model": "vim_micro", "picture": "example:0", "side": {"method": "hold", "share": float("nan")}},
        "got nan",
    ),
    ("answer", {"model": "vim_micro", "picture": "example:0", "side": {"method": "hold", "share": "x"}}, "is a number"),
    (
        "answer",
        {"model": "vim_micro", "picture": "example:0", "side": {"method": "hold", "share": True}},
        "is a number",
    ),
    ("answer", {"model": "vim_micro", "picture": "example:0", "side": {"method": ["hold"]}}, "unknown method"),
    ("answer", {"model": "vim_micro", "picture": "example:0", "side": {"method": "hold", "align": {}}}, "alignment"),
    ("answer", {"model": "vim_micro", "picture": "example:0", "side": {"method": "dyvm", "share": 0.5}}, "trained"),
    ("answer", {"model": "vim_micro", "picture": "example:0", "side": {"depth": 3}}, "a side is a table of method"),
    ("answer", {"model": "vim_micro", "picture": "example:0", "side": None}, "a side is a table"),
    (
        "answer",
        {"model": "vim_micro", "picture": "example:0", "side": {"method": "evit", "align": "hold", "share": 0.7}},
        "nothing can be aligned",
    ),
    ("answer", {"model": "../../etc/passwd", "picture": "example:0", "side": DENSE}, "unknown model"),
    ("answer", {"model": "vim_micro", "picture": "example:99", "side": DENSE}, r"examples are 0 … 9, got '99'"),
    ("answer", {"model": "vim_micro", "picture": "example:-1", "side": DENSE}, "examples are"),
    ("answer", {"model": "vim_micro", "picture": "ab" * 16, "side": DENSE}, "choose it again"),
    ("answer", {"model": 3, "picture": "example:0", "side": DENSE}, "names its model"),
    ("patch", {"model": "vim_micro", "picture": "example:0", "side": DENSE, "block": 9, "patch": 0}, r"1 … 8, got 9"),
    (
        "patch",
        {"model": "vim_micro", "picture": "example:0", "side": DENSE, "block": 1, "patch": 196},
        r"0 … 195, got 196",
    ),
    ("patch", {"model": "vim_micro", "picture": "example:0", "side": DENSE, "block": 1.5, "patch": 0}, "whole number"),
    ("line", {"model": "vim_micro", "picture": "example:0", "side": DENSE, "block": 0}, r"1 … 8, got 0"),
    ("times", {"model": "vim_micro", "picture": "example:0", "sides": [DENSE] * 4}, "1 … 3 sides"),
    ("start-curve", {"model": "vim_micro", "sides": [DENSE]}, "choose a pruning"),
    (
        "start-curve",
        {"model": "vim_micro", "sides": [{"method": "hold", "share": 0.5}], "images": 0},
        "1 … 1000 images",
    ),
    ("curve", {"curve": 999}, "no measurement 999"),
]


@pytest.mark.parametrize(("name", "question", "reason"), QUESTIONS)
def test_a_wrong_question_says_what_is_wrong(ask, name, question, reason):
    _, found = ask(name, question)
    assert re.search(reason, found["error"]), found


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 9000])
def test_what_is_no_question_is_refused(server, body):
    status, found = send(server, "POST", "/api/answer", body, JSON)
    assert status == 400
    assert "question" in json.loads(found)["error"]


def test_a_picture_that_is_not_here_is_not_shown(server):
    for query in ("", "?model=vim_micro", "?model=vim_micro&picture=example:10", "?model=x&picture=example:1"):
        assert send(server, "GET", f"/api/seen{query}")[0] == 400


@pytest.mark.parametrize(
    "path",
    ["/../server.py", "/%2e%2e/server.py", "/page/index.html", "/api", "/api/ask", "//etc/passwd", "/style.css/"],
)
def test_nothing_else_is_served(server, path):
    for verb in ("GET", "POST"):
        status, found = send(server, verb, path, b"{}" if verb == "POST" else None, JSON)
        assert status == 404
        assert "there is nothing here" in json.loads(found)["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_from_elsewhere_are_refused(server, headers):
    for verb, path in (("GET", "/"), ("GET", "/api/seen?model=vim_micro&picture=example:0"), ("POST", "/api/about")):
        status, found = send(server, verb, path, b"{}" if verb == "POST" else None, {**JSON, **headers})
        assert status == 403
        assert "this server" in json.loads(found)["error"]


def test_forms_of_foreign_pages_cannot_ask(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert send(server, "POST", "/api/about", b"{}", {"Content-Type": kind})[0] == 415


def test_too_much_is_refused_before_it_is_kept(server):
    headers = {"Content-Type": "application/octet-stream"}
    status, found = send(server, "POST", "/api/upload", b"\0" * (LARGEST_UPLOAD + 1), headers)
    assert status == 413
    assert "at most 33554432 bytes" in json.loads(found)["error"]
    assert send(server, "POST", "/api/about", b" " * 70_000, JSON)[0] == 413


def test_other_verbs_and_broken_requests_get_a_sentence(server):
    status, found = send(server, "PUT", "/api/about", b"{}", JSON)
    assert (status, "error" in json.loads(found)) == (501, True)
    for raw in (b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"POST /api/about HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw_socket:
            raw_socket.sendall(raw)
            raw_socket.shutdown(socket.SHUT_WR)
            answer = raw_socket.makefile("rb").read()
        assert b"Traceback" not in answer


def test_a_body_of_unknown_length_is_refused(server):
    chunked = {"Transfer-Encoding": "chunked", **JSON}
    assert send(server, "POST", "/api/about", None, {**chunked, "Content-Length": ""})[0] == 411
    assert send(server, "POST", "/api/about", b"{}", {**JSON, "Content-Length": "-1"})[0] == 411


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_every_answer_forbids_what_the_page_does_not_need(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    connection.close()
    policy = answer.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"


def test_the_page_names_no_other_host():
    for name, (_, content) in page_files().items():
        found = set(re.findall(rb"(?:https?:)?//[\w.-]+\.\w+", content)) - {b"http://www.w3.org"}  # a namespace
        assert not found, (name, found)


def test_an_unexpected_fault_is_reported_and_said_in_a_sentence():
    class Broken(Explorer):
        def ask(self, name, question):
            raise KeyError("secret path /home/me")

    faults = []
    with ExplorerServer(Broken({"vim_micro": named_offer("vim_micro")}), on_fault=faults.append) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        status, found = send(broken, "POST", "/api/about", b"{}", JSON)
        broken.shutdown()
    assert status == 500
    assert json.loads(found)["error"] == "the server failed at this: KeyError"
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("GET", "/api/seen?model=vim_micro&picture=example:0", None),
        ("POST", "/api/model", b'{"model": "vim_micro"}'),
        ("POST", "/api/upload", encoded(Image.new("L", (30, 30)))),
    ],
    ids=["picture", "question", "upload"],
)
def test_a_busy_server_says_so_and_when_to_ask_again(verb, path, body):
    gate, explorer = threading.Event(), Explorer({"vim_micro": named_offer("vim_micro")}, Worker(most_waiting=1))
    kind = "application/octet-stream" if path.endswith("upload") else "application/json"
    with ExplorerServer(explorer) as busy:
        threading.Thread(target=busy.serve_forever, daemon=True).start()
        occupied = threading.Thread(target=explorer.worker.ask, args=(gate.wait,))
        occupied.start()
        while not explorer.worker.waiting:
            time.sleep(0.001)
        connection = http.client.HTTPConnection("127.0.0.1", busy.server_port, timeout=10)
        connection.request(verb, path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        gate.set()
        occupied.join()
        assert send(busy, verb, path, body, {"Content-Type": kind})[0] == 200
        busy.shutdown()
    assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
    assert found == {"busy": "1 questions wait already; try again in a moment"}


def test_pictures_not_looked_at_for_longest_go():
    files = [encoded(Image.new("L", (30, 30), shade)) for shade in (1, 2, 3)]
    pictures = Pictures(most_kept=2 * max(map(len, files)))
    names = [pictures.add(file) for file in files]
    assert list(pictures._files) == names[1:]
    assert pictures.add(files[1]) == names[1]
    assert list(pictures._files) == [names[2], names[1]]
