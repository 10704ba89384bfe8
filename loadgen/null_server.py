"""A server that does nothing but send tokens on time, and remembers when it did: what a client is measured against.

``python -m loadgen.null_server --ttft-ms 50 --gap-ms 20`` prints its port and serves until its input ends. Every chat
request gets as many tokens as its ``max_tokens`` asks for, on an absolute schedule from the moment at which the request
was read; one that does not ask for a stream gets them in one piece, when the last is due. ``GET /truth`` gives one line
a finished request: id, moment it was read, moment right before the write of the first and of the last token
(CLOCK_MONOTONIC, ns), tokens, and by how much the server itself was late at worst.

Plain Python, one thread: it can write some 50,000 tokens a second on a core, which bounds what it can show.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import selectors
import socket
import sys
import time

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Stream:
    """One connection, and the reply that is being sent on it."""

    __slots__ = (
        "asked",
        "data",
        "due",
        "first",
        "last",
        "late",
        "left",
        "name",
        "order",
        "sock",
        "token",
        "total",
        "whole",
    )

    def __init__(self, sock: socket.socket, order: int) -> None:
        self.sock = sock
        self.order = order
        self.data = b""
        self.name = ""
        self.token = b""
        self.whole = False
        self.asked = self.due = self.first = self.last = self.late = self.left = self.total = 0

    def __lt__(self, other: Stream) -> bool:
        return self.order < other.order


def chunk(payload: bytes) -> bytes:
    """A payload as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(name: str, delta: str, finish: str) -> bytes:
    """One event of OpenAI's chat stream as one HTTP chunk."""
    text = (
        f'data: {{"id":"{name}","object":"chat.completion.chunk","created":1790000000,"model":"null",'
        f'"choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":{finish}}}]}}\n\n'
    )
    return chunk(text.encode())


def whole(name: str, tokens: int) -> bytes:
    """A reply that is not streamed."""
    message = f'{{"role":"assistant","content":"{" token" * tokens}"}}'
    body = (
        f'{{"id":"{name}","object":"chat.completion","created":1790000000,"model":"null",'
        f'"choices":[{{"index":0,"message":{message},"finish_reason":"length"}}],'
        f'"usage":{{"prompt_tokens":1,"completion_tokens":{tokens}}}}}'
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class NullServer:
    """Serves on a port of the loopback interface. ``ttft_ns`` and ``gap_ns`` pace every stream."""

    def __init__(self, ttft_ns: int, gap_ns: int) -> None:
        self.ttft_ns, self.gap_ns = ttft_ns, gap_ns
        self.truth: list[str] = []
        self._due: list[tuple[int, Stream]] = []
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.port: int = self._listener.getsockname()[1]
        self._count = 0

    def run(self) -> None:
        """Serves until standard input ends; if that is a file, which always can be read, until it is killed."""
        with contextlib.suppress(PermissionError):
            self._selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            now = time.monotonic_ns()
            while self._due and self._due[0][0] <= now:
                self._send_token(heapq.heappop(self._due)[1])
                now = time.monotonic_ns()
            wait = max(self._due[0][0] - now, 0) / 1e9 if self._due else 1.0
            for key, _ in self._selector.select(wait if wait > 0.0012 else 0):
                if key.fileobj is sys.stdin:
                    return
                if key.data is None:
                    self._accept()
                else:
                    self._read(key.data)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._count += 1
        self._selector.register(sock, selectors.EVENT_READ, Stream(sock, self._count))

    def _read(self, stream: Stream) -> None:
        try:
            data = stream.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(stream.sock)
            stream.sock.close()
            stream.left = -1
            return
        stream.data += data
        head, end, body = stream.data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if not end or len(body) < int(fields.get(b"content-length", 0)):
            return
        stream.data = b""
        if head.startswith(b"GET"):
            page = "".join(self.truth).encode()
            stream.sock.setblocking(True)
            stream.sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page))
        else:
            self._begin(stream, fields.get(b"x-request-id", b"-").decode(), body)

    def _begin(self, stream: Stream, name: str, body: bytes) -> None:
        stream.name = name
        stream.asked = time.monotonic_ns()
        stream.total = stream.left = int(body.partition(b'"max_tokens":')[2].partition(b",")[0].strip(b" }") or 16)
        stream.token = event(name, '"content":" token"', "null")
        stream.first = stream.last = stream.late = 0
        stream.whole = b'"stream":true' not in body.replace(b" ", b"")
        stream.due = stream.asked + self.ttft_ns + (stream.total - 1) * self.gap_ns * stream.whole
        heapq.heappush(self._due, (stream.due, stream))

    def _send_token(self, stream: Stream) -> None:
        if stream.left <= 0:
            return
        data = stream.token if stream.first else _HEAD + stream.token
        stream.left -= stream.total if stream.whole else 1
        if stream.whole:
            data = whole(stream.name, stream.total)
        elif not stream.left:
            data += self._end(stream)
        now = time.monotonic_ns()
        stream.late = max(stream.late, now - stream.due)
        stream.first = stream.first or now
        stream.last = now
        try:
            stream.sock.sendall(data)
        except OSError:
            return
        if stream.left:
            stream.due += self.gap_ns
            heapq.heappush(self._due, (stream.due, stream))
        else:
            line = f"{stream.name} {stream.asked} {stream.first} {stream.last} {stream.total} {stream.late}\n"
            self.truth.append(line)

    def _end(self, stream: Stream) -> bytes:
        usage = f'data: {{"choices":[],"usage":{{"prompt_tokens":1,"completion_tokens":{stream.total}}}}}\n\n'
        done = event(stream.name, "", '"length"') + chunk(usage.encode()) + chunk(b"data: [DONE]\n\n")
        return done + b"0\r\n\r\n"


def main() -> None:
    """Starts the server and prints its port."""
    parser = argparse.ArgumentParser(description="A paced null server that remembers the truth.")
    parser.add_argument("--ttft-ms", type=float, default=50.0)
    parser.add_argument("--gap-ms", type=float, default=20.0)
    args = parser.parse_args()
    server = NullServer(int(args.ttft_ms * 1e6), int(args.gap_ms * 1e6))
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.run()


if __name__ == "__main__":
    main()
