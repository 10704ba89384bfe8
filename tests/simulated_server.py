"""An LLM server with a known capacity, over real HTTP: a batch of fixed size, and a step of fixed length.

    python tests/simulated_server.py --slots 8 --step-ms 20

prints its port as its first line. At each step every request that holds a slot gets one token; then free slots are
given to those that wait, first come first served. With replies of N tokens it can serve slots / (step N) requests a
second. It says so to nobody: more than that only makes the wait for a slot longer. It speaks the streams of
``/v1/chat/completions``, and ends what a client leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(event: object) -> bytes:
    data = b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


_TOKEN = _chunk({"choices": [{"index": 0, "delta": {"content": "a "}}]})


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}


def _whole(tokens: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "a " * tokens}, "finish_reason": "length"}
    data = json.dumps({"choices": [choice], "usage": _usage(tokens)}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)


@dataclass
class Asked:
    """A request: how many tokens it still gets, and who waits for them."""

    tokens: int
    writer: asyncio.StreamWriter
    left: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def token(self) -> bool:
        """Sends one more; True after the last, or when nobody listens."""
        if self.writer.is_closing():
            return True
        self.left -= 1
        self.writer.write(_TOKEN)
        if self.left:
            return False
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
        end = [last, {"choices": [], "usage": _usage(self.tokens)}]
        self.writer.write(b"".join(map(_chunk, [*end, b"[DONE]"])) + b"0\r\n\r\n")
        return True


class Server:
    """``slots`` requests at a time, one token each every ``step_s``."""

    def __init__(self, slots: int, step_s: float) -> None:
        self._slots, self._step_s = slots, step_s
        self._waiting: deque[Asked] = deque()
        self._running: list[Asked] = []

    async def steps(self) -> None:
        """Steps for ever, each at its own time: a late one makes none of the next late, so that the capacity stays."""
        due = time.monotonic()
        while True:
            due = max(due + self._step_s, time.monotonic() - 1.0)
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            for asked in [one for one in self._running if one.token()]:
                self._running.remove(asked)
                asked.done.set()
            while self._waiting and len(self._running) < self._slots:
                self._running.append(self._waiting.popleft())

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request after the other."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
                length = next((int(value) for name, _, value in lines if name == b"content-length"), 0)
                body = json.loads(await reader.readexactly(length) or b"{}")
                tokens = body.get("max_completion_tokens") or body.get("max_tokens") or 1
                if not body.get("stream"):  # the one that asks whether anybody answers
                    writer.write(_whole(tokens))
                    continue
                asked = Asked(tokens, writer, tokens)
                writer.write(_HEAD)
                self._waiting.append(asked)
                await asked.done.wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class SimulatedServer:
    """A running one, for tests: ``with SimulatedServer(slots=8, step_ms=20) as server: ... server.url``."""

    def __init__(self, slots: int, step_ms: float) -> None:
        argv = [sys.executable, "-S", str(Path(__file__)), "--slots", str(slots), "--step-ms", str(step_ms)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def __enter__(self) -> SimulatedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate()


async def serve(slots: int, step_s: float) -> None:
    """Prints the port, and serves until it is ended."""
    simulated = Server(slots, step_s)
    server = await asyncio.start_server(simulated.connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await simulated.steps()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a server with a known capacity")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--step-ms", type=float, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.slots, options.step_ms / 1e3))
