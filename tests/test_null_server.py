"""The null server as a user starts it: whole replies too, and with whatever standard input it is given."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from loadgen import backends
from loadgen.drive.http import parse_endpoint
from loadgen.drive.once import ask_once


@pytest.fixture
def port() -> Iterator[int]:
    argv = [sys.executable, "-m", "loadgen.null_server", "--ttft-ms", "1", "--gap-ms", "1"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def asked(port: int, body: bytes) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: r\r\ncontent-length: %d\r\n\r\n" % len(body)
    backend = backends.load("openai_chat")
    return bytes(ask_once(parse_endpoint(f"http://127.0.0.1:{port}"), head + body, backend, 5.0, 5.0).body)


def test_who_does_not_ask_for_a_stream_gets_all_tokens_in_one_reply(port: int) -> None:
    for _ in range(2):
        chunk = backends.load("openai_chat").whole(json.loads(asked(port, b'{"max_tokens":7}')))
        assert (chunk.text, chunk.usage and chunk.usage.out_tok, chunk.finish) == (" token" * 7, 7, "length")


def test_who_asks_for_a_stream_gets_an_event_a_token(port: int) -> None:
    events = asked(port, b'{"max_tokens":3, "stream": true}').split(b"\n\n")
    assert sum(b'"content":" token"' in event for event in events) == 3
    assert events[-2] == b"data: [DONE]"
