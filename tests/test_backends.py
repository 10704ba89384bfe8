"""One suite over all backends: what they ask, and what they make of the transcripts in ``tests/transcripts/``.

A transcript's first line says which engine and version it comes from and whether it was recorded. Its neighbour
``NAME.expected.json`` names the backend and holds, event by event, the fields of the chunk that are not at their
default; cumulative chunks stand there as what they add. ``.sse`` and ``.ndjson`` are streams, ``.whole`` is not.
"""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_plan import make_plan
from fake_script import read_script
from fake_wire import Ask

from loadgen import backends
from loadgen.backends import Backend
from loadgen.errors import UsageError
from loadgen.record import Chunk

FOLDER = Path(__file__).with_name("transcripts")
TRANSCRIPTS = sorted(p for p in FOLDER.glob("*/*") if p.suffix in (".sse", ".ndjson", ".whole"))


def transcript_events(path: Path) -> list[str]:
    """The data of the events of a stream, by the rules of server-sent events or one a line."""
    data = path.read_bytes().partition(b"\n")[2].decode()
    if path.suffix == ".ndjson":
        return [line for line in data.split("\n") if line]
    found: list[str] = []
    lines: list[str] = []
    for line in data.replace("\r\n", "\n").split("\n"):  # not splitlines(): U+2028 ends no line here
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            found.append("\n".join(lines))
            lines = []
    return found


def chunks(backend: Backend, events: list[str]) -> list[Chunk]:
    """What a reader makes of a stream: the increments, with the protocol's end marker as a chunk that is done."""
    found: list[Chunk] = []
    last = None
    for event in events:
        if event.strip() == "[DONE]":
            found.append(Chunk(done=True))
            continue
        chunk = backend.chunk(json.loads(event))
        found.append(chunk.after(last))
        last = chunk if chunk.cumulative else last
    return found


def as_fields(chunk: Chunk) -> dict[str, Any]:
    """The fields of a chunk that are not at their default."""
    fields = msgspec.to_builtins(chunk)
    if chunk.usage is not None:
        fields["usage"] = {k: v for k, v in fields["usage"].items() if v is not None}
    plain = msgspec.to_builtins(Chunk())
    return {k: v for k, v in fields.items() if v != plain[k]}


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_a_transcript_means_what_stands_beside_it(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expected.json").read_text())
    backend = backends.load(expected["backend"])
    if path.suffix == ".whole":
        found = [backend.whole(json.loads(path.read_text().partition("\n")[2]))]
    else:
        assert path.suffix[1:] == backend.FRAMING
        found = chunks(backend, transcript_events(path))
    assert [as_fields(c) for c in found] == expected["chunks"]


def test_every_transcript_says_where_it_comes_from() -> None:
    heads = [p.read_text().partition("\n")[0] for p in TRANSCRIPTS]
    assert all(h.startswith("# ") and ("not recorded" in h or "recorded" in h) and ";" in h for h in heads)
    assert {p.with_suffix(".expected.json") for p in TRANSCRIPTS} == set(FOLDER.glob("*/*.expected.json"))


def test_every_backend_has_a_stream_and_a_whole_reply_among_the_transcripts() -> None:
    seen = {
        (json.loads(p.with_suffix(".expected.json").read_text())["backend"], p.suffix == ".whole") for p in TRANSCRIPTS
    }
    assert seen == {(name, whole) for name in backends.names() for whole in (False, True)}


@pytest.mark.parametrize("name", backends.names())
def test_every_backend_offers_what_the_protocol_names(name: str) -> None:
    backend = backends.load(name)
    wanted = [*typing.get_type_hints(Backend), "body", "chunk", "whole"]
    assert not [attribute for attribute in wanted if not hasattr(backend, attribute)]
    assert backend.PATH.startswith("/")


def test_an_unknown_backend_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'openai_chat'\?.*tgi_generate"):
        backends.load("openai-chat")


# -- what is understood, beyond the transcripts -----------------------------------------------------------------------


def test_a_role_chunk_is_not_a_token() -> None:
    event = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    assert not backends.load("openai_chat").chunk(event).carries_token


def test_a_token_without_text_is_a_token_when_its_id_came() -> None:
    event = {"choices": [{"index": 0, "delta": {"content": ""}, "token_ids": [7]}]}
    assert backends.load("openai_chat").chunk(event).carries_token


def test_the_last_event_of_a_native_stream_is_no_token_where_it_holds_none() -> None:
    final = {
        "content": "",
        "tokens": [],
        "stop": True,
        "stop_type": "eos",
        "tokens_evaluated": 3,
        "tokens_predicted": 1,
    }
    assert not backends.load("llamacpp_completion").chunk(final).carries_token
    assert not backends.load("ollama").chunk({"message": {"content": ""}, "done": True}).carries_token


def test_the_end_token_of_tgi_counts_and_its_spelling_does_not() -> None:
    event = {"token": {"id": 2, "text": "</s>", "special": True}, "generated_text": "a", "details": None}
    chunk = backends.load("tgi_generate").chunk(event)
    assert (chunk.text, chunk.tokens, chunk.finish) == ("", 1, "unknown")


def test_an_aborted_sglang_request_is_an_error() -> None:
    meta = {"finish_reason": {"type": "abort", "message": "input too long", "status_code": 400}}
    assert backends.load("sglang_generate").chunk({"text": "", "meta_info": meta}).error == "input too long"


@pytest.mark.parametrize("name", backends.names())
def test_a_reply_of_another_kind_is_never_taken_for_an_empty_one(name: str) -> None:
    with pytest.raises((KeyError, IndexError, TypeError, AttributeError)):
        backends.load(name).whole({"hello": "world"})


@pytest.mark.parametrize("name", backends.names())
@pytest.mark.parametrize("error", ["no memory", {"message": "no memory", "code": 500}])
def test_an_error_inside_a_reply_is_an_error_in_every_dialect(name: str, error: Any) -> None:
    backend = backends.load(name)
    assert backend.chunk({"error": error}).error == "no memory"
    assert backend.whole({"error": error}).error == "no memory"


def test_a_cumulative_chunk_adds_what_the_one_before_did_not_have() -> None:
    first = Chunk(text="He", tokens=1, cumulative=True)
    second = Chunk(text="Hello", tokens=3, cumulative=True, finish="stop")
    assert first.after(None) == Chunk(text="He", tokens=1)
    assert second.after(first) == Chunk(text="llo", tokens=2, finish="stop")
    assert not second.after(second).carries_token


def test_a_chunk_that_is_not_cumulative_stays_as_it_is() -> None:
    chunk = Chunk(text="lo", tokens=1)
    assert chunk.after(Chunk(text="Hel", tokens=2, cumulative=True)) is chunk


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("openai_chat", "openai_chat"),
        ("openai_completions", "openai_completions"),
        ("tgi_generate", "tgi"),
        ("llamacpp_completion", "llamacpp"),
        ("ollama", "ollama"),
        ("ollama_generate", "ollama_generate"),
        ("sglang_generate", "sglang"),
    ],
)
def test_the_fake_server_speaks_what_the_backend_understands(name: str, dialect: str) -> None:
    script = read_script({"framing": "close", "token_ids": True, "texts": ["漢", "a\u2028b", "", "c "]})
    plan = make_plan(script, Ask(dialect, 6, 3, 0, True, True), None)
    body = b"".join(w.data for w in plan.writes).partition(b"\r\n\r\n")[2].decode()
    ndjson = backends.load(name).FRAMING == "ndjson"
    events = body.strip().split("\n") if ndjson else [e[6:] for e in body.split("\n\n") if e]
    found = chunks(backends.load(name), events)
    usage = [c.usage for c in found if c.usage][-1]
    assert "".join(c.text for c in found) == "漢a\u2028bc 漢a\u2028b"
    assert (usage.in_tok, usage.out_tok) == (3, 6)
    assert [c.finish for c in found if c.finish] in (["length"], ["limit"])
    if not ndjson:
        assert sum(c.tokens or 0 for c in found) == 6
