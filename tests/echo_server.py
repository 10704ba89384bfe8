"""A server that says back what it should keep to itself: a request's headers in its errors, its environment in its log.

    python tests/echo_server.py PORT [MODE]

Every third request is answered 500 with its headers in the body, every third with an error event that quotes them, the
rest with four tokens. ``MODE`` refuse answers every request for tokens with 401 and its headers; ``escape`` puts
terminal escapes into everything it says. It takes the absolute addresses that a proxy is asked for as well.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

ESCAPES = "\x1b]0;owned\x07\x1b[31m\x9b2J\x08"


class Echo(BaseHTTPRequestHandler):
    """One connection. ``mode`` and ``numbers`` are the server's."""

    protocol_version = "HTTP/1.1"
    mode = ""
    numbers = count()

    def do_GET(self) -> None:
        """Health, and the served models, whatever the path."""
        self._answer(200, "application/json", json.dumps({"data": [{"id": "m"}], "object": "list"}))

    def do_POST(self) -> None:
        """A reply, or an error that quotes the request."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        loud = ("authorization", "proxy-authorization", "x-api-key")  # first, since a client shows the beginning alone
        pairs = sorted(self.headers.items(), key=lambda pair: pair[0] not in loud)
        said = "\n".join(f"{name}: {value}" for name, value in pairs)
        print(f"request with {' '.join(said.split())} {ESCAPES if self.mode == 'escape' else ''}", flush=True)
        turn = next(self.numbers) % 3 if body.get("stream") else 2
        if self.mode == "refuse":
            self._answer(401, "text/plain", f"who is this? {said}")
        elif self.mode == "escape" or turn == 0:
            self._answer(500, "text/plain", f"{ESCAPES if self.mode == 'escape' else ''}cannot: {said}")
        elif turn == 1:
            self._answer(200, "text/event-stream", _event({"error": {"message": f"cannot: {said}"}}))
        elif not body.get("stream"):
            message = {"message": {"content": "one"}, "finish_reason": "stop"}
            self._answer(200, "application/json", json.dumps({"choices": [message], "usage": _usage(1)}))
        else:
            words = [_event({"choices": [{"index": 0, "delta": {"content": f"w{n} "}}]}) for n in range(4)]
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "usage": _usage(4)}
            self._answer(200, "text/event-stream", "".join([*words, _event(end), "data: [DONE]\n\n"]))

    def _answer(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing; `do_POST` says enough."""


def _event(value: object) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}


def main() -> None:
    """Serve until killed; the first line says on which port."""
    Echo.mode = sys.argv[2] if len(sys.argv) > 2 else ""
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo)
    print(server.server_port, flush=True)
    print("my environment is", dict(os.environ), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
