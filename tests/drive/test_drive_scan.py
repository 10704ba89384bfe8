"""The fast way through a stream: it is taken only where it means the same as JSON and the backend would."""

from __future__ import annotations

import gc
import json
import time
from typing import Any, cast

import msgspec
import pytest
from drive_pieces import Fed, chunked
from drive_streams import Event, chat_event
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadgen import backends
from loadgen.backends import Backend
from loadgen.drive.http import parse_head
from loadgen.drive.reply import Reply
from loadgen.drive.scan import Template
from loadgen.drive.template import escaped, make_template, spelled
from loadgen.record import Chunk

pytestmark = pytest.mark.usefixtures("form")

CHAT = backends.load("openai_chat")
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = {"index": 0, "delta": {"content": " a"}, "finish_reason": None}


def raw(choice: dict[str, Any], ascii_only: bool = False, **more: Any) -> bytes:
    """A chat event with its terminator."""
    text = chat_event({"choices": [choice], **more}, lambda v: json.dumps(v, ensure_ascii=ascii_only), 0)
    return b"data: " + text.encode("utf-8", "surrogatepass") + b"\n\n"


def template_of(event: bytes) -> Template | None:
    return make_template(event, CHAT.chunk(json.loads(event[6:])), 6, CHAT)


SLOTS = st.lists(
    st.sampled_from(
        [b" a", b'"', b"\\", b"\\n", b"\\u", b"00e9", b"\xc3", b"\xa9", b"\n", b"\t", b"{", b"}", b",", b"\x7f"]
    ),
    max_size=6,
).map(b"".join)
IDS = st.sampled_from([b"5", b"77", b"", b"1,2", b"-1", b"a", b" 5"])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(SLOTS, IDS, st.booleans())
@example(b"\\", b"5", True)
@example(b'\\"},"token_ids":[5', b"5", True)
def test_whatever_stands_in_the_slots_the_fast_way_says_what_json_says_or_nothing(
    text: bytes, ids: bytes, with_ids: bool
) -> None:
    template = template_of(raw({**PLAIN, "token_ids": [9]} if with_ids else PLAIN))
    assert template is not None
    event = template.before + text
    event += (template.between or b"") + ids + template.after if with_ids else template.after
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    found, taken = template.slots(event), template.take([chunk])
    assert (found is None) == (taken is None)
    if found is None or taken is None:
        return
    meant = CHAT.chunk(msgspec.json.decode(event[6:]))
    assert [spelled([piece]) for piece in found] == [meant.text]
    assert (meant.tokens or 1) == 1
    assert (spelled(list(taken.texts)), taken.pieces, taken.rest) == (meant.text, 1, 0)
    assert not meant.finish


def test_copies_of_a_new_event_are_learned_once_however_many_come_in_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[bytes] = []
    text_of = Template._text

    def counted(self: Template, slot: bytes) -> bytes | None:
        learned.append(slot)
        return text_of(self, slot)

    monkeypatch.setattr(Template, "_text", counted)
    template = template_of(raw(PLAIN))
    assert template is not None
    event = raw({**PLAIN, "delta": {"content": " new"}})
    taken = template.take([b"%x\r\n%b\r\n" % (len(event), event) * 20_000])
    assert taken is not None
    assert list(taken.texts) == [b" new"] * 20_000
    assert set(learned) == {b" new"}
    assert len(learned) <= 2  # in Python the last is another one: it has no next chunk behind it


@pytest.mark.parametrize("size", [b"+%x", b"0x%x", b"-%x", b"%x_", b"%d ", b"%x;a", b"", b"%x0"])
def test_a_chunk_size_that_is_spelled_otherwise_is_left_to_the_slow_way(size: bytes) -> None:
    template = template_of(raw(PLAIN))
    assert template is not None
    event = raw(PLAIN)
    line = size % len(event) if b"%" in size else size
    assert template.take([line + b"\r\n" + event + b"\r\n"]) is None


@pytest.mark.parametrize(
    "choice",
    [
        {**PLAIN, "finish_reason": "stop"},
        {"index": 0, "delta": {"content": ""}, "finish_reason": None},
        {"index": 0, "delta": {"content": "m"}, "finish_reason": None},  # the model's name is the same text
        {"index": 0, "delta": {"content": "a", "reasoning": "b"}, "finish_reason": None},  # two texts in one event
    ],
    ids=["finish", "no text", "ambiguous", "two texts"],
)
def test_no_template_is_made_of_an_event_whose_slots_are_not_certain(choice: dict[str, Any]) -> None:
    assert template_of(raw(choice)) is None


def test_no_template_is_made_of_an_event_with_usage_or_timings() -> None:
    assert template_of(raw(PLAIN, usage={"completion_tokens": 1})) is None
    assert template_of(raw(PLAIN, timings={"predicted_n": 1})) is None


@pytest.mark.parametrize("text", ["é", "你", "😀", '"', "\\", "\n", "\ud83d"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_template_is_made_of_texts_in_either_spelling(text: str, ascii_only: bool) -> None:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    template = template_of(raw(choice, ascii_only=ascii_only or text == "\ud83d"))
    assert template is not None
    assert template.slots(raw({**choice, "delta": {"content": " b"}})) == [b" b"]


class Counting:
    """The chat backend, and how many events it was shown."""

    FRAMING = CHAT.FRAMING
    NEEDS_DONE = CHAT.NEEDS_DONE

    def __init__(self) -> None:
        self.shown = 0

    def chunk(self, event: dict[str, Any]) -> Chunk:
        self.shown += 1
        return CHAT.chunk(event)


@pytest.mark.parametrize("batch", [1, 64])
def test_of_a_thousand_events_alike_the_backend_sees_the_first_alone(batch: int) -> None:
    events = [raw({**PLAIN, "delta": {"content": f" w{number % 50}"}}) for number in range(1000)]
    body = b"".join(events)
    ends = [sum(map(len, events[: number + 1])) for number in range(len(events))]
    data, _ = chunked(body, ends[:-1], b"", b"", b"%x")
    backend = Counting()
    head = parse_head(HEAD)
    assert head is not None
    reply = Reply(head, cast(Backend, backend), True, 1 << 20, {})
    pieces = data.split(b"\n\n\r\n")
    pieces = [piece + b"\n\n\r\n" for piece in pieces[:-1]] + pieces[-1:]
    for start in range(0, len(pieces), batch):
        some = pieces[start : start + batch]
        reply.feed_many(some, list(range(start, start + len(some))))
    assert len(reply.chunk_ns) == 1000
    assert backend.shown <= 3  # the event itself, the probe that its template was tried with, and the last of all


def test_a_vocabulary_that_never_serves_again_does_not_grow_with_the_requests() -> None:
    vocabularies: dict[object, Any] = {}
    for number in range(200):
        event = json.dumps({"choices": [PLAIN], "id": f"chatcmpl-{number}"}).encode()
        event = b"data: " + event + b"\n\n"
        made = make_template(event, CHAT.chunk(json.loads(event[6:])), 6, CHAT, vocabularies)
        assert made is not None
        assert made.take([b"%x\r\n%b\r\n" % (len(event), event)]) is not None
    assert len(vocabularies) <= 16


def time_of(events: list[bytes], size: int) -> float:
    """CPU seconds, the least of five, for a flood of these events in pieces of this size."""
    data = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    head = parse_head(HEAD)
    assert head is not None
    took = []
    gc.disable()  # as in a worker; the heap of this process is that of all tests
    try:
        for _ in range(5):
            reply = Reply(head, CHAT, True, 1 << 20, {})
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            start = time.thread_time()
            reply.feed_many(pieces, range(len(pieces)))
            took.append(time.thread_time() - start)
            assert len(reply.chunk_ns) == len(events)
    finally:
        gc.enable()
    return min(took)


@pytest.mark.parametrize("strange", ["every event", "every second event"])
def test_the_work_grows_with_the_bytes_of_a_flood_whatever_is_strange_in_it(strange: str) -> None:
    def events(count: int) -> list[bytes]:
        odd = [raw({**PLAIN, "logprobs": number}) for number in range(count)]
        return odd if strange == "every event" else [odd[n] if n % 2 else raw(PLAIN) for n in range(count)]

    # four times the bytes: 4 if each byte is looked at so often, 16 if nothing is done but looking at all that follow
    assert time_of(events(16000), 65536) < 8 * time_of(events(4000), 65536)


@given(st.lists(st.text(max_size=4), max_size=6))
def test_escaping_and_spelling_give_the_text_back(texts: list[str]) -> None:
    assert spelled([escaped(text) for text in texts]) == "".join(texts)


def test_halves_of_a_surrogate_pair_meet_over_two_events_and_a_lone_one_is_replaced() -> None:
    assert spelled([escaped("a\ud83d"), escaped("\ude00b")]) == "a😀b"
    assert spelled([b"x\\ud83d", b"y"]) == "x\ufffdy"
    for cut in (True, False):
        events = [
            Event(json.dumps({"choices": [{"delta": {"content": t}}]}), t) for t in ("a", "\ud83d", "\ude00", "z")
        ]
        body = b"".join(b"data: " + e.data.encode() + b"\n\n" for e in events)
        pieces = [HEAD, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)]
        fed = Fed("openai_chat").feed([bytes([b]) for b in b"".join(pieces)] if cut else pieces)
        assert (fed.error, fed.got.said.text(), len(fed.got.chunk_ns)) == (None, "a😀z", 4)
        assert fed.got.said.text_sha() is not None


@pytest.mark.parametrize("piece", [b"\xff", b"\\q", b"\\u12", b"a\x01", b"\\"])
def test_what_is_no_inside_of_a_json_string_is_no_text(piece: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        spelled([b"a", piece, b"zz"])


@pytest.mark.parametrize("before", [b": a comment that goes on", b'data: {"choices":[]}\n', b"data: "])
def test_a_familiar_event_that_continues_an_open_one_is_no_event_of_its_own(before: bytes) -> None:
    event = raw(PLAIN)
    chunks = [event, event, before, event, event]
    pieces = [HEAD, *(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)]
    many = Fed("openai_chat").feed(pieces, closes=False, batch=100)
    bytewise = Fed("openai_chat").feed([bytes([byte]) for byte in b"".join(pieces)], closes=False)
    assert many.error == bytewise.error
    assert len(many.got.chunk_ns) == len(bytewise.got.chunk_ns) < 4
