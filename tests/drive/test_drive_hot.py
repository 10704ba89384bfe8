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

from loadgen.drive.clock import ask_for_stamps
from loadgen.drive.fast import receiver
from loadgen.drive.hot import read_on
from loadgen.drive.poll import READ, WRITE
from loadgen.drive.sockets import LARGE_READ
from loadgen.drive.stamps import arrivals_of
from loadgen.drive.understand import MANY

pytestmark = pytest.mark.usefixtures("form")

TOKEN = b'1d\r\ndata: {"text":"a familiar"}\n\n\r\n'


class Stream:
    """A connection with a familiar stream on it, and the server's end."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.here = socket.create_connection(server.getsockname())
            self.there, _ = server.accept()
        ask_for_stamps(self.here)
        self.here.setblocking(False)
        self.exchange = SimpleNamespace(hot=True, room=4096, last_read=0, pieces=[], stamps=[], reads=[])
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
    assert before <= kept.reads[0] == kept.last_read <= time.monotonic_ns()
    assert len(kept.stamps) == 1
    assert kept.room == 4096


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
    ((connection, exchange, data, _, now),) = odd
    assert (connection, exchange, data) == (stream.connection, stream.exchange, end)
    assert exchange.last_read == now
    assert exchange.pieces == exchange.stamps == exchange.reads == []


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
    assert stream.exchange.room == LARGE_READ
    assert stream.read() == ([], [], [stream.exchange], 25_904)


def test_when_many_pieces_wait_they_are_to_be_understood(stream: Stream) -> None:
    for number in range(1, MANY + 1):
        stream.says(TOKEN)
        assert stream.read()[2] == ([stream.exchange] if number == MANY else [])


def test_everything_else_is_left_to_others_in_its_order(stream: Stream) -> None:
    cold, idle, silent = Stream(), Stream(), Stream()
    cold.exchange.hot = False
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


def test_stamps_are_arrivals_on_the_monotonic_clock_with_the_longest_wait() -> None:
    draw = random.Random(4)
    offset, sent = 1_795_000_000_123_456_789, 5_000_000_000
    at = sorted(draw.randrange(sent, sent + 4_000_000_000) for _ in range(300))
    waits = [draw.randrange(0, 3_000_000) for _ in at]
    found = arrivals_of(
        [stamp(one + offset) for one in at], [a + b for a, b in zip(at, waits, strict=True)], offset, sent
    )
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
    assert arrivals_of(stamps, reads, 0, 1_000) is None


def test_the_ends_of_what_can_be_true_are_true() -> None:
    assert arrivals_of([stamp(1_000), stamp(2_000)], [2_000, 2_000], 0, 1_000) == ([1_000, 2_000], 1_000)
