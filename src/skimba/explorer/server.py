"""The server before the page: the standard library's, on this machine only.

The standard library's suffices: a handful of visitors, whose questions wait for one another anyway, and a page of a few files.
A framework would be one more dependency to keep, for routing that is a table of a dozen lines here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from skimba.explorer.pictures import LARGEST_UPLOAD
from skimba.explorer.service import QUESTIONS, Explorer
from skimba.explorer.worker import BusyError
from skimba.runtime.messages import plain

ADDRESS = "127.0.0.1"
LARGEST_QUESTION = 64 << 10  # bytes
PATIENCE_S = 30  # for a client that sends slowly
MOST_CONNECTIONS = 64
RETRY_S = 1  # after which a page asks a busy server again
LONGEST_REASON = 400
HEADERS = {
    # The page comes from here, whole; nothing else may frame it, and it may load from nowhere else.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
SENTENCES = (ValueError, TypeError, ImportError, FileNotFoundError, ConnectionError)  # written for users to read
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class RefusedError(Exception):
    """A request that is not answered: its status and the reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def page_files() -> dict[str, tuple[str, bytes]]:
    """Type and content of each file of the page, by its path. Only these are served: nothing on the disk is looked up."""
    files = {}
    for file in (resources.files("skimba.explorer") / "page").iterdir():
        suffix = f".{file.name.rpartition('.')[2]}"
        if suffix in TYPES:
            files[f"/{file.name}"] = (f"{TYPES[suffix]}; charset=utf-8", file.read_bytes())
    return {"/": files["/index.html"], **files}


class ExplorerServer(ThreadingHTTPServer):
    """Serves one explorer on 127.0.0.1.

    Args:
        explorer: what answers.
        port: 0: any that is free.
        on_fault: called with what nobody expected; the visitor gets a sentence.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, explorer: Explorer, port: int = 0, on_fault: Callable[[Exception], None] | None = None) -> None:
        self.explorer, self.on_fault = explorer, on_fault
        self.files = page_files()
        self._free = threading.Semaphore(MOST_CONNECTIONS)
        super().__init__((ADDRESS, port), Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """As many threads as MOST_CONNECTIONS; a connection beyond is closed."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault, and nothing is printed."""

    def server_close(self) -> None:
        """Also end what runs in the background."""
        super().server_close()
        self.explorer.close()


class Handler(BaseHTTPRequestHandler):
    """One request. HTTP/1.0: each has its connection, so that nothing unread is taken for the next one."""

    server: ExplorerServer
    timeout = PATIENCE_S
    server_version, sys_version = "skimba", ""

    def do_GET(self) -> None:
        """The page, and pictures."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Questions, and uploads."""
        self._answer(self._post)

    def _answer(self, respond: Callable[[], tuple[str, bytes]]) -> None:
        try:
            self._check_sender()
            self._send(HTTPStatus.OK, *respond())
        except RefusedError as refused:
            self._say(refused.status, refused)
        except BusyError as busy:
            sentence = plain(busy, LONGEST_REASON)
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, *_json({"busy": sentence}), {"Retry-After": str(RETRY_S)})
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as fault:  # whatever it is, the visitor gets a sentence and the server lives on
            if self.server.on_fault is not None:
                self.server.on_fault(fault)
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, f"the server failed at this: {type(fault).__name__}")

    def _check_sender(self) -> None:
        """Only pages that came from here may ask: a foreign page must not, whatever name it gave this machine."""
        own = {f"{name}:{self.server.server_port}" for name in (ADDRESS, "localhost")}
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host.lower() not in own:
            raise RefusedError(HTTPStatus.FORBIDDEN, f"this server answers to {self.server.url} only")
        if origin is not None and origin.lower() not in {f"http://{name}" for name in own}:
            raise RefusedError(HTTPStatus.FORBIDDEN, "pages from elsewhere may not ask this server")
        if self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "pages from elsewhere may not ask this server")

    def _get(self) -> tuple[str, bytes]:
        parts = urlsplit(self.path)
        if parts.path in self.server.files:
            return self.server.files[parts.path]
        if parts.path in PICTURES:
            try:
                return "image/png", PICTURES[parts.path](self.server.explorer, dict(parse_qsl(parts.query)))
            except SENTENCES as error:
                raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self) -> tuple[str, bytes]:
        path = urlsplit(self.path).path
        if path == "/api/upload":
            body = self._body("application/octet-stream", LARGEST_UPLOAD)
            return _in_words(lambda: self.server.explorer.add(body))
        name = path.removeprefix("/api/")
        if path == name or name not in QUESTIONS:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")
        try:
            question = json.loads(self._body("application/json", LARGEST_QUESTION))
        except (ValueError, RecursionError) as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the question is not JSON") from error
        if not isinstance(question, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"a question is a table, got {type(question).__name__}")
        return _in_words(lambda: self.server.explorer.ask(name, question))

    def _body(self, kind: str, most: int) -> bytes:
        """What was sent. The types are such as a foreign page's form cannot send."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "the request needs a Content-Length")
        if int(length) > most:
            self._skip(most)
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {most} bytes can be sent here, got {length[:20]}"
            )
        if self.headers.get_content_type() != kind:
            self._skip(int(length))
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the request must be {kind}")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError("the request ended early")
        return body

    def _skip(self, most: int) -> None:
        """Read and forget: a connection closed on unread bytes would take the answer with it."""
        while most > 0 and (part := self.rfile.read1(min(most, 1 << 16))):
            most -= len(part)

    def _say(self, status: HTTPStatus, reason: object) -> None:
        self._send(status, *_json({"error": plain(reason, LONGEST_REASON)}))

    def _send(self, status: HTTPStatus, kind: str, body: bytes, more: Mapping[str, str] = MappingProxyType({})) -> None:
        headers = {**HEADERS, **more, "Content-Type": kind, "Content-Length": str(len(body))}
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client went away

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The library's own refusals (an unknown verb, a broken request), as every other."""
        self._say(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


def _in_words(compute: Callable[[], Any]) -> tuple[str, bytes]:
    """The answer to a proper request, be it ``{"error": sentence}``. Its status is 200 then too: a photo that cannot be read is
    no failure of the page, which browsers would note as an error of it."""
    try:
        return _json(compute())
    except SENTENCES as error:
        return _json({"error": plain(error, LONGEST_REASON)})


def _json(content: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


Query = Mapping[str, Any]
PICTURES: dict[str, Callable[[Explorer, Query], bytes]] = {
    "/api/seen": Explorer.seen,
    "/api/drawn": Explorer.drawn,
    "/api/thumbnail": Explorer.thumbnail,
}
