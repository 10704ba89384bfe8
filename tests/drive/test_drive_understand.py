"""What was read is understood when there is time, however late that is."""

from __future__ import annotations

import time
from typing import Any

import pytest
from drive_driver import ONE, drive
from drive_servers import DONE, END, FINISH, STREAM, Peer, RawServer, chunk, event

from loadgen import backends
from loadgen.drive.clock import RealtimeOffset
from loadgen.drive.http import parse_head
from loadgen.drive.outcome import Exchange
from loadgen.drive.reply import Reply
from loadgen.drive.schedule import Send
from loadgen.drive.traffic import Traffic
from loadgen.drive.understand import Backlog
from loadgen.record import Prompt

WORDS = [f" w{number}" for number in range(20)]


def test_a_worker_without_a_moment_to_spare_reads_the_short_way_and_understands_it_all_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, understand = Traffic._read, Backlog.slice
    long_way: list[int] = []
    waiting = [0]

    def in_turn(peer: Peer) -> None:
        """Sends a piece when the one before it was read, or the kernel would merge them."""
        peer.request()
        for piece in (STREAM, *map(event, WORDS), FINISH + DONE + END):
            before, until = waiting[-1], time.monotonic() + 10
            peer.send(piece)
            while waiting[-1] == before and time.monotonic() < until:
                time.sleep(0.001)
        peer.until_gone()

    def counted(self: Traffic, *rest: Any) -> None:
        long_way.append(1)
        read(self, *rest)

    def once_it_is_over(self: Backlog) -> None:
        waiting.append(self.pieces)
        if all(exchange.ended for exchange in self._waiting):
            understand(self)

    monkeypatch.setattr(Traffic, "_read", counted)
    monkeypatch.setattr(Backlog, "slice", once_it_is_over)
    with RawServer(in_turn) as server:
        driven = drive(server.url, dict(ONE))
    assert driven.statuses == {"ok": 1}
    assert len(driven.only.chunk_us) == len(WORDS)
    assert driven.only.chunk_us == sorted(driven.only.chunk_us)
    assert max(waiting) >= len(WORDS)
    assert len(long_way) <= 4  # the head, and pieces until two wait


def test_of_large_pieces_few_are_understood_between_two_looks() -> None:
    """A quarter of a MiB at a time: in a flood the sockets would else wait for all that has piled up."""
    backlog = Backlog(RealtimeOffset(), lambda _: None, lambda *_: None, lambda *_: None)
    exchange = Exchange(Send(0, 0, -1), Prompt(source="x", ask_tok=1), "measure")
    head = parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert head is not None
    exchange.reply = Reply(head, backends.load("openai_chat"), True, 1 << 30)
    for number in range(20):
        backlog.add_piece(exchange, chunk(b": " + b"x" * 65_000 + b"\n\n"), b"", number)
    backlog.slice()
    assert len(exchange.pieces) == 16
    while backlog:
        backlog.slice()
    assert (exchange.pieces, backlog.bytes) == ([], 0)
