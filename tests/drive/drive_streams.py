"""Replies as servers write them, made by hypothesis, with what must be understood of them: `Stream`, the events of one.

Nothing here is taken from loadgen's own parsing: the expected values are those that the stream was made of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st


@dataclass
class Event:
    """One event: its data, and what it means. ``tokens`` None: the server does not say how many."""

    data: str
    text: str = ""
    tokens: int | None = None

    @property
    def counts(self) -> bool:
        return bool(self.text or self.tokens)


@dataclass
class Stream:
    """The events of a reply and what they come to."""

    backend: str
    events: list[Event]
    finish: str | None = None
    usage: tuple[int, int] | None = None
    done: bool = False
    noise: list[bytes] = field(default_factory=list)


TEXTS = st.text(st.sampled_from(list(' aZ0<&/"\\\n\t\r\u2028é你😀\x7f\x1f{}[]:,')), max_size=6)
USUAL = st.sampled_from([" the", "a", " word", "你好", "é", " 7", ".", " or", "\n", '"'])


def chat_event(body: dict[str, Any], dumps: Callable[[Any], str], order: int) -> str:
    """A chunk of chat completions with its keys in one of the orders that servers use."""
    fixed = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return dumps({**fixed, **body} if order == 0 else {**body, **fixed})


@st.composite
def chat_streams(draw: st.DrawFn) -> Stream:
    """A stream of chat completions: vLLM, our own server, SGLang, llama.cpp, TGI and others write like this."""
    dumps = draw(dumpers())
    order = draw(st.integers(0, 1))
    ids = draw(st.sampled_from(["none", "none", "after", "after", "before", "null"]))
    name = draw(st.sampled_from(["content", "content", "content", "reasoning", "reasoning_content"]))
    logprobs = draw(st.booleans())
    events = []

    def add(delta: dict[str, Any], text: str, tokens: int | None, **more: Any) -> None:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
        if logprobs:
            choice["logprobs"] = None
        given = list(range(100, 100 + tokens)) if tokens else []
        if ids == "after":
            choice["token_ids"] = given
        elif ids == "before":
            choice = {"token_ids": given, **choice}
        elif ids == "null":
            choice["token_ids"] = None
        body = {"choices": [{**choice, **more.pop("choice", {})}], **more}
        events.append(Event(chat_event(body, dumps, order), text, tokens if ids in ("after", "before") else None))

    if draw(st.booleans()):
        add({"role": "assistant", "content": ""}, "", None)
    texts = draw(st.lists(st.one_of(USUAL, USUAL, TEXTS), min_size=0, max_size=24))
    most = draw(st.sampled_from([1, 1, 3]))
    for text in texts:
        tokens = draw(st.integers(1, most))
        add({name: text}, text, tokens)
    usage = draw(st.sampled_from([None, "finish", "own"]))
    counts = {"prompt_tokens": 5, "completion_tokens": len(texts), "total_tokens": 5 + len(texts)}
    last: dict[str, Any] = {"choice": {"finish_reason": "stop"}}
    if usage == "finish":
        last["usage"] = counts
    add({}, "", None, **last)
    if usage == "own":
        events.append(Event(chat_event({"choices": [], "usage": counts}, dumps, order)))
    done = draw(st.booleans())
    if done:
        events.append(Event("[DONE]"))
    return Stream("openai_chat", events, "stop", (5, len(texts)) if usage else None, done)


@st.composite
def native_streams(draw: st.DrawFn) -> Stream:
    """A stream in an engine's own protocol."""
    dumps = draw(dumpers())
    kind = draw(
        st.sampled_from(["openai_completions", "tgi_generate", "llamacpp_completion", "ollama", "sglang_generate"])
    )
    texts = draw(st.lists(st.one_of(USUAL, TEXTS.filter(bool)), min_size=1, max_size=8))
    return NATIVE[kind](texts, dumps)


def completions(texts: Sequence[str], dumps: Callable[[Any], str]) -> Stream:
    events = [
        Event(dumps({"id": "c", "choices": [{"index": 0, "text": t, "finish_reason": None}], "model": "m"}), t)
        for t in texts
    ]
    end = {"id": "c", "choices": [{"index": 0, "text": "", "finish_reason": "length"}], "model": "m"}
    return Stream("openai_completions", [*events, Event(dumps(end)), Event("[DONE]")], "length", None, True)


def tgi(texts: Sequence[str], dumps: Callable[[Any], str]) -> Stream:
    events = []
    for number, text in enumerate(texts, 1):
        token = {"id": number, "text": text, "logprob": -0.5, "special": False}
        last = number == len(texts)
        body: dict[str, Any] = {"index": number, "token": token, "generated_text": None, "details": None}
        if last:
            details = {"finish_reason": "length", "generated_tokens": number, "input_length": 5}
            body.update(generated_text="".join(texts), details=details)
        events.append(Event(dumps(body), text, 1))
    return Stream("tgi_generate", events, "length", (5, len(texts)))


def llamacpp(texts: Sequence[str], dumps: Callable[[Any], str]) -> Stream:
    events = [
        Event(dumps({"index": 0, "content": t, "tokens": [number + 7], "stop": False, "id_slot": -1}), t, 1)
        for number, t in enumerate(texts)
    ]
    end = {"content": "", "tokens": [], "stop": True, "stop_type": "limit", "tokens_evaluated": 5}
    events.append(Event(dumps({**end, "tokens_predicted": len(texts)})))
    return Stream("llamacpp_completion", events, "limit", (5, len(texts)), True)


def ollama(texts: Sequence[str], dumps: Callable[[Any], str]) -> Stream:
    events = [
        Event(dumps({"model": "m", "message": {"role": "assistant", "content": t}, "done": False}), t) for t in texts
    ]
    end = {"model": "m", "message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": True}
    events.append(Event(dumps({**end, "prompt_eval_count": 5, "eval_count": len(texts)})))
    return Stream("ollama", events, "stop", (5, len(texts)), True)


def sglang(texts: Sequence[str], dumps: Callable[[Any], str]) -> Stream:
    events = []
    for number, text in enumerate(texts, 1):
        last = number == len(texts)
        meta: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": number, "cached_tokens": 0}
        meta["finish_reason"] = {"type": "length", "length": number} if last else None
        body = {"text": "".join(texts[:number]), "output_ids": list(range(number)), "meta_info": meta}
        events.append(Event(dumps(body), text, 1))
    return Stream("sglang_generate", [*events, Event("[DONE]")], "length", (5, len(texts)), True)


NATIVE = {
    "openai_completions": completions,
    "tgi_generate": tgi,
    "llamacpp_completion": llamacpp,
    "ollama": ollama,
    "sglang_generate": sglang,
}


def dumpers() -> st.SearchStrategy[Callable[[Any], str]]:
    """How a server's JSON library writes: with and without blanks, with and without escapes for what is not ASCII."""

    def make(ascii_only: bool, compact: bool) -> Callable[[Any], str]:
        separators = (",", ":") if compact else (", ", ": ")
        return lambda value: json.dumps(value, ensure_ascii=ascii_only, separators=separators)

    return st.builds(make, st.booleans(), st.booleans())


def streams() -> st.SearchStrategy[Stream]:
    return st.one_of(chat_streams(), chat_streams(), native_streams())
