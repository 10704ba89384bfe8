"""A reply means the same however its bytes were cut, and whichever way through the parser they took."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from drive_pieces import Fed, Wire, chunked, cuts_of, piece_of, wires
from drive_streams import USUAL, Stream, chat_event, streams
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("form")

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@st.composite
def replies(draw: st.DrawFn) -> tuple[Stream, Wire, int]:
    stream = draw(streams())
    return stream, draw(wires(stream)), draw(st.sampled_from([0, 1, 3, 100]))


@QUICK
@given(replies())
def test_every_cutting_gives_the_events_that_the_server_wrote_each_with_the_arrival_of_its_last_byte(
    case: tuple[Stream, Wire, int],
) -> None:
    stream, wire, batch = case
    fed = Fed(stream.backend).feed(wire.pieces, closes=wire.closes, batch=batch)
    assert fed.error is None
    reply = fed.got
    counting = [event for event in stream.events if event.counts]
    assert reply.chunk_ns == wire.arrivals
    assert reply.chunk_tok == [event.tokens or 0 for event in counting]
    assert reply.said.text() == "".join(event.text for event in stream.events)
    assert (reply.said.finish, reply.said.done, reply.said.error) == (stream.finish, stream.done, None)
    if stream.usage is not None:
        assert reply.said.usage is not None
        assert (reply.said.usage.in_tok, reply.said.usage.out_tok) == stream.usage
    else:
        assert reply.said.usage is None
    assert (reply.complete, reply.surplus) == (True, False)
    assert fed.judged()[0] == ("ok" if counting else "empty")


def chat(text: str, ids: list[int] | None = None, dumps: Callable[[Any], str] = json.dumps) -> bytes:
    """One event of a chat stream, as bytes."""
    choice: dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    if ids is not None:
        choice["token_ids"] = ids
    return b"data: " + chat_event({"choices": [choice]}, dumps, 0).encode() + b"\n\n"


END_EVENTS = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@st.composite
def familiar(draw: st.DrawFn) -> tuple[list[str], list[int] | None, list[bytes], list[tuple[int, int]]]:
    """(texts, ids or None, pieces, (arrival, HTTP chunk) of each event) of a long stream of events like each other,
    with some that are not."""
    with_ids = draw(st.booleans())
    odd = st.sampled_from(['"', "\\", "\n", "\\u0041", "data: ", "😀", '","finish_reason":null}'])
    texts = draw(st.lists(st.one_of(*[USUAL] * 9, odd), min_size=8, max_size=60))
    events = [chat(text, [number] if with_ids else None) for number, text in enumerate(texts)]
    events.append(END_EVENTS)
    body = b"".join(events)
    ends = [sum(map(len, events[: number + 1])) for number in range(len(events))]
    in_chunk = draw(st.sampled_from([1, 1, 1, 2, 3]))  # events that share an HTTP chunk
    data, where = chunked(body, ends[:-1:in_chunk], b"", b"", b"%x")
    after_chunks = [w + 2 for w, following in itertools.pairwise(where) if following - w > 1]
    cuts = draw(cuts_of(len(data), after_chunks))
    pieces = [HEAD, *(data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True))]
    arrivals = [piece_of(pieces, len(HEAD) + where[end - 1]) for end in ends[:-1]]
    chunks = [max(number + in_chunk - 1, 0) // in_chunk for number in range(len(texts))]  # the first is cut off alone
    return texts, list(range(len(texts))) if with_ids else None, pieces, list(zip(arrivals, chunks, strict=True))


@QUICK
@given(familiar(), st.sampled_from([0, 1, 4, 64]))
def test_familiar_streams_taken_many_at_a_time_mean_what_they_mean_one_by_one(
    case: tuple[list[str], list[int] | None, list[bytes], list[tuple[int, int]]], batch: int
) -> None:
    texts, ids, pieces, placed = case
    reply = Fed("openai_chat").feed(pieces, closes=False, batch=batch).got
    assert reply.chunk_ns == [arrival for arrival, _ in placed]
    chunks_in_piece = Counter(arrival for arrival, _ in set(placed))
    assert reply.coalesced == sum(count > 1 for count in chunks_in_piece.values())
    assert reply.said.text() == "".join(texts)
    assert reply.chunk_tok == [1 if ids else 0] * len(texts)
    assert (reply.complete, reply.surplus) == (True, False)


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[str, bytes, list[int]]:
    """(backend, bytes of a reply that were tampered with, where its pieces end)."""
    stream = draw(streams())
    wire = draw(wires(stream))
    data = bytearray(b"".join(wire.pieces))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 3))
        junk = st.sampled_from(
            [b"", b"\n", b"\r", b"\r\n", b'"', b"{", b"\xff", b"0", b"\\", b"data:", b"\n\n", b"5\r\n"]
        )
        data[at : at + length] = draw(junk)
    ends = [sum(map(len, wire.pieces[: number + 1])) for number in range(len(wire.pieces))]
    return stream.backend, bytes(data), ends


def fate(backend: str, data: bytes, cuts: list[int], batch: int) -> tuple[Any, ...]:
    """What becomes of a reply: its status, and what was measured of it."""
    inside = [cut for cut in cuts if 0 < cut < len(data)]
    pieces = [data[a:b] for a, b in zip([0, *inside], [*inside, len(data)], strict=True)]
    fed = Fed(backend).feed(pieces, batch=batch)
    status, _ = fed.judged()
    if fed.reply is None or b"gzip" in data:
        return (status,)
    reply = fed.reply
    surplus = reply.surplus and fed.error is None  # nothing is fed to a reply that was found to be none
    return status, len(reply.chunk_ns), reply.chunk_tok, reply.said.text(), reply.said.finish, reply.said.usage, surplus


@settings(QUICK, max_examples=40)
@given(spoiled(), st.data())
def test_spoiled_replies_end_alike_however_they_were_cut_and_never_raise(
    case: tuple[str, bytes, list[int]], data: st.DataObject
) -> None:
    backend, sent, ends = case
    whole = fate(backend, sent, [], 0)
    assert fate(backend, sent, ends, data.draw(st.sampled_from([0, 5, 64]))) == whole
    assert fate(backend, sent, list(range(1, len(sent))), 0) == whole
