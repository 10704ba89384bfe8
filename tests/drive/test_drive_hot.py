"""Familiar streams are read many at a time, in C and in Python alike: what is kept, what is odd, what is left."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from drive_servers import arrived

from loadgen.drive import fast
from loadgen.drive.clock import ask_for_stamps, realtime_ns_of
from loadgen.drive.fast import receiver
from loadgen.drive.hot import read_on
from loadgen.drive.poll import READ, WRITE
from loadgen.drive.sockets import LARGE_READ
from loadgen.drive.stamps import MARK, arrivals_of, last_read_of, mark_of, pairs_of
from loadgen.drive.understand import MANY

pytestmark = pytest.mark.usefixtures("form")

TOKEN = b'1d\r\ndata: {"text":"a familiar"}\n\n\r\n'


class Stream:
    """A connection with a familiar stream on it, and the server's end."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.here = socket.create_connection(server.getsockname())
            self.there, _ = server.accept()
        self.stamped = ask_for_stamps(self.here)
        self.here.setblocking(False)
        self.exchange = SimpleNamespace(hot=4096, room=4096, pieces=[], marks=bytearray())
        self.connection = SimpleNamespace(exchange=self.exchange, receive=receiver(self.here))
        self.fd = self.here.fileno()

    def says(self, data: bytes) -> None:
        self.there.sendall(data)
        arrived(self.here)

    def read(self, event: int = READ) -> Any:
        return read_on([(self.fd, event)], {self.fd: self.connection})

    def close(self) -> None:
        self.here.close()
        self.there.close()


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.close()


def test_a_piece_is_kept_with_its_stamp_and_the_time_of_its_read(stream: Stream) -> None:
    stream.says(TOKEN)
    before = time.monotonic_ns()
    assert stream.read() == ([], [], [], len(TOKEN))
    kept = stream.exchange
    assert kept.pieces == [TOKEN]
    ((stamped, read_at),) = pairs_of(kept.marks)
    assert before <= read_at == last_read_of(kept.marks) <= time.monotonic_ns()
    assert abs(stamped - time.time_ns()) < 60e9 or not stream.stamped
    assert kept.hot == kept.room == 4096


def test_many_streams_are_read_once_each(stream: Stream) -> None:
    others = [Stream() for _ in range(20)]
    for number, one in enumerate(others):
        one.says(TOKEN * (number + 1))
    ready = [(one.fd, READ) for one in others]
    assert read_on(ready, {one.fd: one.connection for one in others}) == ([], [], [], 210 * len(TOKEN))
    assert [one.exchange.pieces for one in others] == [[TOKEN * (number + 1)] for number in range(20)]
    for one in others:
        one.close()


@pytest.mark.parametrize("end", [b"0\r\n\r\n", TOKEN + b"0\r\n\r\n", b"\n\r\n", b"1234\r\n0\r\n\r\n"])
def test_what_may_be_the_end_is_handed_on_and_not_kept(stream: Stream, end: bytes) -> None:
    stream.says(end)
    rest, odd, full, kept = stream.read()
    assert (rest, full, kept) == ([], [], 0)
    ((connection, exchange, data, given, now),) = odd
    assert (connection, exchange, data) == (stream.connection, stream.exchange, end)
    assert 0 < now <= time.monotonic_ns()
    assert abs(realtime_ns_of(given) - time.time_ns()) < 60e9 or not stream.stamped
    assert exchange.pieces == []
    assert not exchange.marks


@pytest.mark.parametrize("tail", [b"\r\n\r\n\r\n", b"\r\r\n", b" \r\n"])
def test_blank_lines_inside_a_chunk_are_no_end(stream: Stream, tail: bytes) -> None:
    stream.says(b"12345678" + tail)
    assert stream.read() == ([], [], [], 8 + len(tail))


def test_a_server_that_closed_is_handed_on_with_nothing(stream: Stream) -> None:
    stream.there.close()
    assert select.select([stream.here], [], [], 5)[0]
    _, odd, _, _ = stream.read()
    assert [data for _, _, data, _, _ in odd] == [b""]


def test_a_read_that_fills_its_room_makes_room_and_a_large_one_waits_no_longer(stream: Stream) -> None:
    stream.says(b"x" * 30_000)
    assert stream.read() == ([], [], [], 4096)
    assert stream.exchange.hot == stream.exchange.room == LARGE_READ
    assert stream.read() == ([], [], [stream.exchange], 25_904)


@pytest.mark.parametrize(
    ("word", "value"), [("hot", 1 << 20), ("hot", -1), ("hot", None), ("marks", b""), ("pieces", None), ("pieces", ())]
)
def test_what_is_no_exchange_is_an_error_and_no_crash_in_c(stream: Stream, word: str, value: object) -> None:
    if not hasattr(fast.native, "read_on"):
        pytest.skip("only C could do harm with it")
    setattr(stream.exchange, word, value)
    stream.says(TOKEN)
    with pytest.raises((ValueError, TypeError, SystemError)):
        stream.read()


def test_when_many_pieces_wait_they_are_to_be_understood(stream: Stream) -> None:
    for number in range(1, MANY + 1):
        stream.says(TOKEN)
        assert stream.read()[2] == ([stream.exchange] if number == MANY else [])


def test_everything_else_is_left_to_others_in_its_order(stream: Stream) -> None:
    cold, idle, silent = Stream(), Stream(), Stream()
    cold.exchange.hot = 0
    idle.connection.exchange = None
    for one in (stream, cold, idle):
        one.says(TOKEN)
    ready = [(cold.fd, READ), (idle.fd, READ), (stream.fd, READ | WRITE), (silent.fd, READ), (987654, READ)]
    known = {one.fd: one.connection for one in (stream, cold, idle, silent)}
    assert read_on(ready, known) == (ready, [], [], 0)
    assert stream.exchange.pieces == cold.exchange.pieces == []
    for one in (cold, idle, silent):
        assert one is silent or one.here.recv(100) == TOKEN  # nobody took it
        one.close()


def stamp(realtime_ns: int) -> bytes:
    return struct.pack("@2q", *divmod(realtime_ns, 1_000_000_000))


def marks(stamps: list[bytes], reads: list[int]) -> bytearray:
    return bytearray(b"".join(map(mark_of, stamps, reads)))


def test_a_mark_is_what_it_was_made_of() -> None:
    made = marks([stamp(1_795_000_000_123_456_789), b""], [5, 7])
    assert len(made) == 2 * MARK
    assert pairs_of(made) == [(1_795_000_000_123_456_789, 5), (0, 7)]
    assert last_read_of(made) == 7
    assert last_read_of(bytearray()) == 0


def test_stamps_are_arrivals_on_the_monotonic_clock_with_the_longest_wait() -> None:
    draw = random.Random(4)
    offset, sent = 1_795_000_000_123_456_789, 5_000_000_000
    at = sorted(draw.randrange(sent, sent + 4_000_000_000) for _ in range(300))
    waits = [draw.randrange(0, 3_000_000) for _ in at]
    reads = [a + b for a, b in zip(at, waits, strict=True)]
    found = arrivals_of(marks([stamp(one + offset) for one in at], reads), offset, sent)
    assert found == (at, max(waits))


@pytest.mark.parametrize(
    ("stamps", "reads"),
    [
        ([], []),
        ([stamp(1_500), b""], [2_000, 2_000]),
        ([stamp(1_500), b"123"], [2_000, 2_000]),
        ([stamp(1_500), stamp(2_001)], [2_000, 2_000]),
        ([stamp(999), stamp(1_500)], [2_000, 2_000]),
    ],
    ids=["none", "one missing", "one broken", "later than its read", "before the request"],
)
def test_stamps_that_cannot_be_true_are_looked_at_one_by_one(stamps: list[bytes], reads: list[int]) -> None:
    assert arrivals_of(marks(stamps, reads), 0, 1_000) is None


def test_the_ends_of_what_can_be_true_are_true() -> None:
    assert arrivals_of(marks([stamp(1_000), stamp(2_000)], [2_000, 2_000]), 0, 1_000) == ([1_000, 2_000], 1_000)
