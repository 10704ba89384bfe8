"""A hub of models in this process: what Hugging Face and ModelScope answer of a model, as far as anybody here asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PRIVATE, BUSY = "org/private", "org/busy"


class _Hub(BaseHTTPRequestHandler):
    """``server.models`` are folders by id; ``server.asked`` keeps each path with the authorization beside it."""

    protocol_version = "HTTP/1.1"
    server: TinyHub

    def do_HEAD(self) -> None:
        self._file()

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("authorization")))
        for prefix in ("/api/v1/models/", "/api/models/"):
            if self.path.startswith(prefix):
                self._model(self.path.removeprefix(prefix).partition("/revision/")[0])
                return
        self._file()

    def _model(self, name: str) -> None:
        if name == BUSY:
            self._answer(503, b"later")
        elif name == PRIVATE and not self.headers.get("authorization"):
            self._answer(401, b"who is this?")
        elif name in self.server.models or name == PRIVATE:
            files = [{"rfilename": path.name} for path in self.server.models.get(name, Path()).glob("*")]
            self._answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": files}).encode())
        else:
            self._answer(404, b"{}")

    def _file(self) -> None:
        model, _, rest = self.path.strip("/").partition("/resolve/")
        path = self.server.models.get(model, Path("/nowhere")) / rest.partition("/")[2]
        if not path.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        body = path.read_bytes()
        self._answer(200, body, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


class TinyHub(ThreadingHTTPServer):
    """A hub on a port of its own."""

    daemon_threads = True

    def __init__(self, models: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Hub)
        self.models = models
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub_with(**models: Path) -> Iterator[TinyHub]:
    """A hub that has these models as ``org/NAME``."""
    with TinyHub({f"org/{name}": folder for name, folder in models.items()}) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
