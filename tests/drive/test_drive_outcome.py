"""An exchange that has ended becomes a record: the times, tokens and words that its definitions ask for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from drive_driver import make_job
from drive_pieces import Fed

from loadgen.drive.job import Shape
from loadgen.drive.outcome import Exchange, to_record
from loadgen.drive.reply import Reply
from loadgen.drive.schedule import Send
from loadgen.record import STATUSES, Message, Prompt, Record

START = 5_000_000_000
SENT = START + 1_000_000_000
PROMPT = Prompt(source="natural", ask_tok=7, messages=(Message("user", "hi"),), in_tok_client=2)
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chat(**fields: Any) -> dict[str, Any]:
    """An event; ``text`` and ``ids`` go to their places."""
    choice: dict[str, Any] = {"delta": {"content": fields.pop("text", "")}, "finish_reason": fields.pop("finish", None)}
    if (ids := fields.pop("ids", None)) is not None:
        choice["token_ids"] = ids
    return {"choices": [choice], **fields}


def replied(*events: dict[str, Any], after_ms: int = 50, gap_ms: int = 10) -> Reply:
    """A complete reply whose first event arrives 50 ms after the send, and each other 10 ms after the one before."""
    fed = Fed("openai_chat")
    fed.feed([HEAD], closes=False)
    for number, event in enumerate(events):
        data = b"data: " + json.dumps(event).encode() + b"\n\n"
        at = SENT + (after_ms + number * gap_ms) * 1_000_000
        fed.got.feed(b"%x\r\n%b\r\n" % (len(data), data), at)
    fed.got.feed(b"0\r\n\r\n", at + 1_000_000)
    return fed.got


def exchange_of(reply: Reply | None, **fields: Any) -> Exchange:
    exchange = Exchange(Send(START + 900_000_000, 12, 3), PROMPT, "measure")
    exchange.reply = reply
    exchange.t_send, exchange.t_end, exchange.ended = SENT, SENT + 100_000_000, True
    exchange.lag_ns = 7_900
    for name, value in fields.items():
        setattr(exchange, name, value)
    return exchange


def recorded(reply: Reply | None, count_tokens: Any = None, job: dict[str, Any] | None = None, **fields: Any) -> Record:
    found = to_record(exchange_of(reply, **fields), make_job("http://x", Shape(), **(job or {})), START, count_tokens)
    assert found.status in STATUSES
    return found


STOP = chat(finish="stop")


def test_times_count_from_the_send_and_the_end_is_the_last_token_not_the_end_of_the_stream() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}
    record = recorded(replied(chat(text="a"), chat(text="b"), chat(text="c"), STOP, usage), conn_s=0.002)
    assert record.status == "ok"
    assert (record.t_sched, record.t_send, record.t_end) == (0.9, 1.0, 1.1)
    assert (record.t_first, record.t_last) == (1.05, 1.07)
    assert (record.ttft_s, record.e2e_s, record.tpot_s) == (0.05, 0.07, pytest.approx(0.01))
    assert record.chunk_us == [50_000, 60_000, 70_000]
    assert (record.conn_s, record.lag_us_max, record.clock) == (0.002, 7, "kernel")


def test_a_role_chunk_is_no_token_and_a_token_without_text_is_one() -> None:
    record = recorded(replied({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, chat(ids=[5]), STOP))
    assert (record.ttft_s, record.out_tok, record.tok_source) == (0.06, 1, "ids")
    assert record.tpot_s is None  # one token has no gap


@pytest.mark.parametrize(
    ("events", "counted", "tokens"),
    [
        ([chat(text="a", ids=[1]), chat(text="b", ids=[2]), STOP], None, (2, "ids", None)),
        ([chat(text="ab", ids=[1, 2]), chat(text="c", ids=[3]), STOP], None, (3, "ids", [2, 1])),
        ([chat(text="a", ids=[1]), chat(text="b"), STOP], None, (None, None, None)),
        ([chat(text="a"), chat(text="b"), STOP], None, (None, None, None)),
        ([chat(text="a"), chat(text="b"), STOP], len, (2, "tokenizer", None)),
        ([chat(text="a", ids=[1]), chat(finish="stop", usage={"completion_tokens": 9})], len, (9, "usage", None)),
        ([chat(text="a", ids=[1]), chat(finish="stop", usage={"prompt_tokens": 9})], None, (1, "ids", None)),
    ],
    ids=["ids", "several in a chunk", "ids in part", "nothing", "tokenizer", "usage first", "usage without the count"],
)
def test_tokens_come_from_usage_then_ids_then_the_tokenizer_and_never_from_chunks(
    events: list[dict[str, Any]], counted: Any, tokens: tuple[int | None, str | None, list[int] | None]
) -> None:
    record = recorded(replied(*events), count_tokens=counted)
    assert (record.out_tok, record.tok_source, record.chunk_tok) == tokens


def test_what_the_server_counts_and_times_is_kept() -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 16}}
    record = recorded(replied(chat(text="a"), chat(finish="length", usage=usage, timings={"predicted_ms": 5})))
    assert (record.in_tok, record.cached_tok, record.in_tok_client, record.ask_tok) == (30, 16, 2, 7)
    assert (record.finish, record.server_times, record.http) == ("length", {"predicted_ms": 5}, 200)


def test_the_record_says_whose_it_is_and_text_is_kept_only_when_asked_for() -> None:
    record = recorded(replied(chat(text="héé"), STOP), job={"worker": 4, "workers": 9, "driver": "loadgen"})
    assert (record.run, record.cell, record.target, record.rep, record.attempt) == ("run", "cell", "target", 1, 1)
    assert (record.worker, record.seq, record.session, record.turn) == (4, 12, 12, 0)
    assert (record.source, record.phase, record.prompt_sha) == ("natural", "measure", PROMPT.sha())
    assert (record.text, record.out_sha) == (None, hashlib.sha256("héé".encode()).hexdigest()[:16])
    assert recorded(replied(chat(text="héé"), STOP), job={"save_text": True}).text == "héé"


def test_a_failure_keeps_what_was_measured_before_it() -> None:
    record = recorded(replied(chat(text="a"), chat(text="b")), failed="reset", why="the connection was cut")
    assert (record.status, record.err, record.ttft_s) == ("reset", "the connection was cut", 0.05)
    assert record.chunk_us == [50_000, 60_000]


def test_a_request_that_was_never_sent_has_no_times_of_its_own() -> None:
    record = recorded(None, failed="dropped", why="full", t_send=0, t_end=0)
    assert (record.status, record.t_send, record.t_end, record.clock, record.http) == (
        "dropped",
        None,
        None,
        None,
        None,
    )
    assert (record.t_sched, record.lag_us_max) == (0.9, None)


def test_a_stamp_that_is_not_the_kernels_is_said_to_be_the_users() -> None:
    assert recorded(replied(chat(text="a"), STOP), kernel=False).clock == "user"


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[31mred\x1b[0m", "bell\x07", "\u202eright to left", "x" * 5000, "\ud83d"]
)
def test_an_error_text_is_one_line_that_a_terminal_can_be_shown(text: str) -> None:
    record = recorded(replied({"error": {"message": text}}))
    assert record.status == "error_event"
    assert record.err is not None
    assert record.err.isprintable()
    assert len(record.err) <= 300


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [{"delta": {"content": 5}}]},
        {"choices": [{"delta": {"content": ["a"]}}]},
        {"choices": [{"delta": "a"}]},
        {"choices": ["a"]},
        {"choices": 7},
        chat(finish=7),
        chat(finish="\ud83d"),
        chat(text="a", usage={"completion_tokens": "5"}),
        chat(text="a", usage={"completion_tokens": 5.5}),
        chat(text="a", usage={"completion_tokens": -5}),
        chat(text="a", usage={"completion_tokens": True}),
        chat(text="a", usage={"prompt_tokens": 10**30}),
        chat(text="a", usage=[1]),
        chat(text="a", timings="fast"),
        chat(text="a", timings={"x": "\ud83d"}),
        chat(text="a", ids=7),
    ],
    ids=str,
)
def test_values_of_the_wrong_kind_are_malformed_and_never_reach_a_record(event: dict[str, Any]) -> None:
    fed = Fed("openai_chat")
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    fed.feed([HEAD, b"%x\r\n%b\r\n" % (len(data), data)], closes=False)
    assert fed.error is not None
    assert "not what this protocol sends" in fed.error


def test_numbers_that_json_has_not_are_read_as_servers_write_them() -> None:
    event = json.dumps({**chat(text="a"), "logprobs": float("nan")}).encode()
    fed = Fed("openai_chat").feed([HEAD, b"%x\r\ndata: %b\n\n\r\n" % (len(event) + 8, event)], closes=False)
    assert (fed.error, fed.got.said.text()) == (None, "a")
