"""What exists twice, in C and in Python, does the same; and an installation without the C lacks nothing."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import accumulate

import pytest
from drive_driver import ask, once
from drive_pieces import chunked
from drive_servers import arrived, until_stamped

from loadgen.drive import fast
from loadgen.drive.clock import RealtimeOffset, ask_for_stamps, realtime_ns_of

pytestmark = pytest.mark.usefixtures("form")

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A non-blocking TCP socket that was asked for stamps, and its peer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    with here, there:
        ask_for_stamps(here)
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until_stamped(here, there)
        here.setblocking(False)
        yield here, there


def test_a_read_gives_the_bytes_with_the_kernels_stamp_and_the_time_of_the_read(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    receive = fast.receiver(here)
    before = time.monotonic_ns()
    there.send(b"0123456789")
    arrived(here)
    data, stamp, now = receive(4)
    assert data == b"0123"
    if sys.platform.startswith("linux"):
        assert before - 1_000_000 <= realtime_ns_of(stamp) - RealtimeOffset().ns <= now + 1_000_000  # of the offset
    assert before < now <= time.monotonic_ns()
    assert receive(65536)[0] == b"456789"


def test_a_socket_with_nothing_to_read_says_so_and_one_that_was_closed_gives_nothing(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    receive = fast.receiver(here)
    with pytest.raises(BlockingIOError):
        receive(100)
    there.close()
    arrived(here)
    assert receive(100)[0] == b""


def test_a_connection_that_was_cut_is_an_error_of_its_kind(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    there.close()
    arrived(here)
    with pytest.raises(ConnectionResetError):
        fast.receiver(here)(100)


def test_a_socket_without_stamps_is_read_all_the_same() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.send(b"abc")
        assert fast.receiver(here)(100)[:2] == (b"abc", b"")


@pytest.mark.parametrize("per_chunk", [1, 3])
def test_a_stream_gives_the_same_record_in_both_forms(per_chunk: int) -> None:
    texts = [f" t{number}" for number in range(90)]
    ends = list(accumulate(len(EVENT % text.encode()) for text in texts))
    body = b"".join(EVENT % text.encode() for text in texts)
    framed, _ = chunked(body + END, [*ends[per_chunk - 1 :: per_chunk], len(body + END)], b"", b"", b"%x")
    record = ask(once(HEAD, *(framed[at : at + 500] for at in range(0, len(framed), 500)))).only
    assert (record.status, record.finish, len(record.chunk_us)) == ("ok", "stop", 90)
    assert record.out_sha == hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def test_what_is_no_descriptor_or_no_size_is_refused_in_c(form: str) -> None:
    if form != "in C" or not hasattr(fast.native, "receive"):
        pytest.skip("only C could do harm with it")
    for wrong in ((0, 0), (0, 1 << 20), (0,), (0, "a"), (1 << 80, 5)):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            fast.native.receive(*wrong)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fast.native.receive(-1, 10)
    for wrong in ((b"", 0, 0), (bytearray(15), 0, 0), (bytearray(16),), (None, 0, 0)):
        with pytest.raises((ValueError, TypeError)):
            fast.native.arrivals(*wrong)
    with pytest.raises((TypeError, IndexError)):
        fast.native.take([], b"3\r\nabc\r\n", b"a", b"c", {b"b": b"x"}, len)


def test_an_error_while_a_text_is_learned_is_raised_and_not_lost(form: str) -> None:
    if form != "in C":
        pytest.skip("Python raises by itself")

    def learn(slot: bytes) -> bytes:
        raise MemoryError(slot)

    with pytest.raises(MemoryError):
        fast.native.take([b"3\r\nabc\r\n"], b"3\r\nabc\r\n", b"a", b"c", {}, learn)


def test_the_environment_can_leave_the_c_aside() -> None:
    say = "from loadgen.drive import fast; print(fast.native)"
    environ = {**os.environ, "LOADGEN_PURE": "1"}
    found = subprocess.run([sys.executable, "-c", say], env=environ, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "None"
