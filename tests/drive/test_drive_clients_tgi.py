"""TGI's own client against replies that go wrong. Its package cannot be installed beside transformers 5: where it is
missing, as in most places, these tests are left out."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drive_clients import ask_by
from drive_driver import once
from drive_servers import END, STREAM, Script, answering, chunk, nobody, page

from loadgen.backends import RequestOptions
from loadgen.record import Record

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("text_generation") is None, reason="the package text-generation is not installed"
    ),
    pytest.mark.filterwarnings("ignore:The `dict` method is deprecated"),  # the package's own affair
]


@pytest.fixture
def tgi(tmp_path: Path) -> Callable[..., Record]:
    """Asks once, with a prompt of plain text."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "hello"}\n')
    job = {"workload": "jsonl", "settings": {"path": str(prompts), "raw": True}, "backend": "tgi_generate"}

    def ask(script: Script, shape: dict[str, Any] | None = None, **fields: Any) -> Record:
        (record,) = ask_by("tgi", script, shape, **job, **fields)
        return record

    return ask


def token(text: str, **more: Any) -> bytes:
    """An event of TGI's native stream."""
    told = {
        "token": {"id": 5, "text": text, "logprob": -0.5, "special": False},
        "generated_text": None,
        "details": None,
    }
    return chunk(b"data:" + json.dumps(told | more).encode() + b"\n\n")


TWO = STREAM + token(" a") + token(" b")
DETAILS = {"finish_reason": "length", "generated_tokens": 3, "seed": None}
FINISH = token(" c", generated_text=" a b c", details=DETAILS)
ERROR = {"content_type": "application/json"}
ENDINGS: dict[str, tuple[Script, str, str, int]] = {
    # name: script, status, words of the error, token-bearing chunks that were measured
    "good": (answering(TWO + FINISH + END), "ok", "", 3),
    "cut": (once(TWO, then="close"), "truncated", "closed before the reply was complete", 2),
    "reset": (once(TWO, then="reset"), "reset", "the connection was cut", 2),
    "hangup": (once(then="close"), "reset", "without a reply", 0),
    "no finish": (answering(TWO + END), "truncated", "without a finish reason", 2),
    "error event": (
        once(TWO + chunk(b'data:{"error":"out of memory","error_type":"generation"}\n\n')),
        "error_event",
        "out of memory",
        2,
    ),
    "stall": (once(TWO), "stalled", "stall_timeout_s", 2),
    "half json": (once(TWO + chunk(b'data:{"token":\n\n')), "malformed", "", 2),
    "overloaded": (
        answering(page("429 No", b'{"error":"busy","error_type":"overloaded"}', **ERROR)),
        "rate_limited",
        "busy",
        0,
    ),
    "429": (answering(page("429 No", b'{"error":"slow"}', **ERROR)), "rate_limited", "429: slow", 0),
    "404": (answering(page("404 No", b'{"error":"who"}', **ERROR)), "http_error", "404: who", 0),
    "500 in HTML": (answering(page("500 No", b"<html>", content_type="text/html")), "http_error", "500", 0),
    "an endless event": (once(TWO + chunk(b"data:" + b"x" * (1 << 20))), "malformed", "", 2),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_reply_that_goes_wrong_ends_in_its_status_with_tgis_client(name: str, tgi: Callable[..., Record]) -> None:
    script, status, words, measured = ENDINGS[name]
    record = tgi(script, {"stall_timeout_s": 0.7})
    assert (record.status, len(record.chunk_us)) == (status, measured), record.err
    assert words in (record.err or "")


def test_a_request_that_takes_too_long_is_a_timeout_of_ours(tgi: Callable[..., Record]) -> None:
    record = tgi(once(TWO), {"timeout_s": 1.0})
    assert record.status == "timeout", record.err


def test_nobody_there_is_a_connect_error(tgi: Callable[..., Record]) -> None:
    with nobody() as url:
        record = tgi(once(), endpoint=url)
    assert record.status == "connect_error", record.err


def test_a_whole_reply_is_taken(tgi: Callable[..., Record]) -> None:
    body = json.dumps([{"generated_text": "a b", "details": DETAILS | {"prefill": [], "tokens": []}}]).encode()
    options = RequestOptions(model="null", stream=False)
    script = answering(page("200 OK", body, content_type="application/json"))
    record = tgi(script, options=options)
    assert (record.status, record.out_tok) == ("ok", 3), record.err
