"""Pages that never end, drip, or unfold from a few bytes: they cost the look at them, and nothing else."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from loadgen.telemetry import page
from loadgen.telemetry.sampler import Sampler

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
LINE = b"vllm:num_requests_running 1\n"


def endless(sock: socket.socket) -> None:
    sock.sendall(HEAD + b"\r\n")
    while True:
        sock.sendall(LINE * 5000)


def dripping(sock: socket.socket) -> None:
    sock.sendall(HEAD + b"\r\n")
    while True:
        sock.sendall(b"#")
        time.sleep(0.02)


def bomb(sock: socket.socket) -> None:
    data = gzip.compress(bytes(page.LONGEST * 4))
    sock.sendall(HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data) + data)


def strange(sock: socket.socket) -> None:
    head = HEAD.replace(b"text/plain", b"text/plain; charset=hex")  # a codec of Python's that gives no text
    sock.sendall(head + b"content-length: %d\r\n\r\n" % (len(LINE) + 2) + b"\xff\n" + LINE)


@contextmanager
def served(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a page that is answered so."""

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                try:
                    while sock.recv(65536):
                        answer(sock)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize(
    ("answer", "why"),
    [(endless, "longer than 1 MiB"), (dripping, "not ended after 1 s"), (bomb, "is compressed")],
)
def test_a_page_that_would_take_memory_or_time_is_given_up_with_its_reason(
    answer: Callable[[socket.socket], None], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "LONGEST", 1 << 20)
    monkeypatch.setattr(page, "TIMEOUT_S", 1.0 if answer is dripping else 60.0)
    with served(answer) as url, page.client() as client, pytest.raises(httpx.HTTPError, match=why):
        page.ask(client, "GET", url)


def test_a_page_is_read_as_utf_8_whatever_it_says_of_itself() -> None:
    with served(strange) as url, page.client() as client:
        assert page.ask(client, "GET", url) == (200, f"\ufffd\n{LINE.decode()}")


def test_a_sampler_beside_an_endless_page_ends_with_its_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LONGEST", 1 << 20)
    with served(endless) as url:
        began = time.monotonic_ns()
        sampler = Sampler([url], {"running": "vllm:num_requests_running"})
        with sampler:
            time.sleep(0.1)
        assert not sampler._thread.is_alive()
        assert sampler.seen(began, time.monotonic_ns()).running_max is None
