"""What the fake server would write: pure tests of the plan of a reply, without a server."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from fake_plan import make_plan, make_reusable
from fake_script import DIALECTS, read_script
from fake_wire import Ask
from fakes import sse_events


def plan(**script: Any) -> bytes:
    """All bytes that a script would write for four tokens of chat."""
    faults = script.get("faults", [None])
    made = make_plan(read_script(script), Ask("openai_chat", 4, 3, 0, True, True), faults[0])
    return b"".join(w.data for w in made.writes)


def test_an_early_role_chunk_comes_before_the_wait_and_one_with_the_first_after_it() -> None:
    asked = Ask("openai_chat", 2, 0, 0, True, False)
    for role, due in (("early", 0), ("with_first", 50_000_000)):
        made = make_plan(read_script({"role_chunk": role}), asked, None)
        assert [w.due for w in made.writes if w.kind == "role"] == [due]


def test_tokens_share_events_and_events_share_writes_as_scripted() -> None:
    script = read_script({"tokens_per_event": [1, 3], "events_per_write": 2, "gap_ms": 10, "ttft_ms": 0})
    made = make_plan(script, Ask("openai_chat", 9, 0, 0, True, False), None)
    tokens = [(w.due // 1_000_000, w.events, w.tokens) for w in made.writes if w.kind == "token"]
    assert tokens == [(0, 2, 4), (10, 2, 4), (20, 1, 1)]


def test_usage_stands_where_the_script_puts_it() -> None:
    in_finish = sse_events(plan(usage="in_finish", framing="close").partition(b"\r\n\r\n")[2])
    assert [bool(e != "[DONE]" and e.get("usage")) for e in in_finish][-2:] == [True, False]
    every = sse_events(plan(usage="continuous", framing="close").partition(b"\r\n\r\n")[2])
    assert [e["usage"]["completion_tokens"] for e in every if e != "[DONE]" and e.get("usage")] == [1, 2, 3, 4, 4]


def test_the_spelling_of_events_follows_the_script() -> None:
    body = plan(framing="close", newline="\r\n", space=False, event_name="tok", comment_every=2)
    assert b"event: tok\r\ndata:{" in body
    assert body.count(b": keep-alive\r\n\r\n") == 2


def test_reasoning_comes_first_and_under_its_name() -> None:
    body = sse_events(
        plan(framing="close", reasoning="reasoning_content", reasoning_tokens=2).partition(b"\r\n\r\n")[2]
    )
    names = [next(iter(e["choices"][0]["delta"])) for e in body[1:5]]
    assert names == ["reasoning_content"] * 2 + ["content"] * 2


def test_a_reply_with_a_length_has_that_length() -> None:
    head, _, body = plan(framing="length").partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head


def test_a_compressed_reply_is_the_same_reply() -> None:
    head, _, body = plan(framing="close", gzip=True).partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert zlib.decompress(body, 31) == plan(framing="close").partition(b"\r\n\r\n")[2]


def test_cutting_writes_changes_no_byte() -> None:
    texts = ["漢", "a\u2028b", "😀", "é"]
    assert plan(split_bytes=1, texts=texts) == plan(texts=texts)
    assert "\u2028".encode() in plan(texts=texts)


def test_comments_fill_the_silence_before_the_first_token() -> None:
    made = make_plan(read_script({"comment_ms": 20, "ttft_ms": 50}), Ask("openai_chat", 1, 0, 0, True, False), None)
    assert [(w.kind, w.due // 1_000_000) for w in made.writes[:4]] == [
        ("head", 0),
        ("comment", 20),
        ("comment", 40),
        ("role", 50),
    ]


def test_a_fraction_of_faults_is_drawn_from_the_seed() -> None:
    faults = [{"kind": "cut", "fraction": 0.3, "seed": 7}]
    hits = [read_script({"faults": faults}).fault_of(i) is not None for i in range(1000)]
    assert hits == [read_script({"faults": faults}).fault_of(i) is not None for i in range(1000)]
    assert 250 < sum(hits) < 350


def test_faults_inside_the_stream_are_what_they_are_called() -> None:
    def with_fault(kind: str, **fields: Any) -> bytes:
        return plan(faults=[{"kind": kind, **fields}])

    assert b'{"error":{"message"' in with_fault("error_event", after=2)
    assert with_fault("half_json", clean=True).endswith(b"0\r\n\r\n")
    assert not with_fault("half_json").endswith(b"0\r\n\r\n")
    assert b"zz\r\n" in with_fault("bad_chunk")
    assert len(with_fault("huge_event", bytes=1 << 20)) > 1 << 20
    assert b"[DONE]" in with_fault("huge_event", bytes=100)
    assert b"w0 " not in with_fault("empty")
    assert b'"finish_reason":"length"' in with_fault("empty")
    assert b"length" not in with_fault("no_finish")
    assert b"[DONE]" not in with_fault("no_finish")
    assert b"\r\n\r\nHTTP/1.1 200" in with_fault("surplus")
    with pytest.raises(UnicodeDecodeError):
        with_fault("bad_utf8").decode()


def test_a_gzip_bomb_is_small_and_grows() -> None:
    _, _, body = plan(faults=[{"kind": "gzip_bomb", "bytes": 1 << 22}]).partition(b"\r\n\r\n")
    assert len(body) < 1 << 14
    assert len(zlib.decompress(body, 31)) > 1 << 22


def test_a_slow_head_comes_byte_by_byte() -> None:
    script = read_script({"faults": [{"kind": "slow_head", "gap_ms": 2}]})
    made = make_plan(script, Ask("openai_chat", 1, 0, 0, True, False), script.faults[0])
    assert {len(w.data) for w in made.writes if w.kind == "head"} == {1}
    assert made.writes[10].due == 20_000_000


def test_a_word_that_no_script_has_is_refused() -> None:
    with pytest.raises(ValueError, match="ttft_mss"):
        read_script({"ttft_mss": 1})
    with pytest.raises(ValueError, match="explode"):
        read_script({"faults": [{"kind": "explode"}]})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_plan_that_is_used_again_says_the_same_with_the_counts_of_each_request(dialect: str) -> None:
    script = read_script({"framing": "close", "usage": "continuous", "prefix_cache": True})
    ask = Ask(dialect, 5, 1234, 17, True, True)
    reusable = make_reusable(script, ask._replace(in_tok=1), None)
    again = b"".join(w.data for w in reusable.with_counts(ask).writes)
    once = b"".join(w.data for w in make_plan(script, ask, None).writes)
    assert again.replace(b" ", b"") == once.replace(b" ", b"")
    assert b"1234" in again
