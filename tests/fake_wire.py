"""How each dialect words its events: role, token, finish, usage, error, and the reply that is not streamed.

In: a `Script` and what the request asks for (`Ask`). Out: JSON objects as the real servers send them, written from the
engines' documentation; `frame` makes the bytes of an event of them. Pure.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from fake_script import Script

FIRST_ID = 1000
"""The token ids of a reply count up from here."""


class Ask(NamedTuple):
    """What a request asks for: the key under which a reply can be used again."""

    dialect: str
    tokens: int
    in_tok: int
    cached: int
    stream: bool
    usage: bool
    whole_list: bool = False


class Dialect:
    """Words of OpenAI's chat protocol; the other dialects replace what they say differently."""

    content_type = "text/event-stream; charset=utf-8"
    finish_with_last = False

    def __init__(self, script: Script, ask: Ask) -> None:
        self.script = script
        self.ask = ask

    def text(self, index: int) -> str:
        """The text of a token."""
        texts = self.script.texts
        return texts[index % len(texts)] if texts else f"w{index} "

    def texts(self, start: int, size: int) -> str:
        """The text of ``size`` tokens from ``start``."""
        return "".join(self.text(i) for i in range(start, start + size))

    def ids(self, start: int, size: int) -> list[int]:
        """The ids of ``size`` tokens from ``start``."""
        return list(range(FIRST_ID + start, FIRST_ID + start + size))

    def role(self) -> Any:
        """The chunk that names the role and holds no token; None where the dialect has none."""
        return self._chunk({"role": "assistant", "content": ""})

    def token(self, start: int, size: int, last: bool, text: str | None = None) -> Any:
        """The event of ``size`` tokens from ``start``; with ``last`` it carries the finish reason too."""
        name = self.script.reasoning if start < self.script.reasoning_tokens and self.script.reasoning else "content"
        chunk = self._chunk({name: self.texts(start, size) if text is None else text}, "length" if last else None)
        if self.script.token_ids:
            chunk["choices"][0]["token_ids"] = self.ids(start, size)
        if self.script.usage == "continuous" and self.ask.usage:
            chunk["usage"] = self.counts(start + size)
        return chunk

    def finish(self) -> Any:
        """The event that ends the generation and holds no token; None where the dialect has none."""
        chunk = self._chunk({}, "length")
        if self.script.usage == "in_finish":
            chunk["usage"] = self.counts(self.ask.tokens)
        return chunk

    def usage(self) -> Any:
        """The event that holds nothing but the counts; None where the dialect has none or nobody asked."""
        if self.script.usage not in ("own_chunk", "continuous") or not self.ask.usage:
            return None
        chunk = self._chunk({})
        chunk.update(choices=[], usage=self.counts(self.ask.tokens))
        return chunk

    def done(self) -> str | None:
        """The end marker."""
        return "[DONE]"

    def error(self, message: str) -> Any:
        """An error inside a 200."""
        return {"error": {"message": message, "type": "InternalServerError", "code": 500}}

    def whole(self) -> Any:
        """The reply that is not streamed."""
        message = {"role": "assistant", "content": self.texts(0, self.ask.tokens)}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "length"}
        return self._whole("chat.completion", choice)

    def counts(self, out_tok: int) -> dict[str, Any]:
        """A usage object after ``out_tok`` tokens."""
        in_tok = self.ask.in_tok
        counts: dict[str, Any] = {
            "prompt_tokens": in_tok,
            "completion_tokens": out_tok,
            "total_tokens": in_tok + out_tok,
        }
        if self.script.prefix_cache:
            counts["prompt_tokens_details"] = {"cached_tokens": self.ask.cached}
        return counts

    def _whole(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        if self.script.token_ids:
            choice["token_ids"] = self.ids(0, self.ask.tokens)
        reply = {"id": "fake-1", "object": kind, "created": 0, "model": self.script.model, "choices": [choice]}
        if self.script.usage != "none":
            reply["usage"] = self.counts(self.ask.tokens)
        return reply

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        head = {"id": "fake-1", "object": "chat.completion.chunk", "created": 0, "model": self.script.model}
        return {**head, "choices": [choice]}


class Completions(Dialect):
    """OpenAI's completions: text in place of deltas, no role."""

    def role(self) -> Any:
        return None

    def whole(self) -> Any:
        choice: dict[str, Any] = {"index": 0, "text": self.texts(0, self.ask.tokens), "finish_reason": "length"}
        return self._whole("text_completion", choice)

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": "".join(delta.values()), "logprobs": None, "finish_reason": finish}
        head = {"id": "fake-1", "object": "text_completion", "created": 0, "model": self.script.model}
        return {**head, "choices": [choice]}


def frame(script: Script, ask: Ask, data: Any) -> bytes:
    """The bytes of one event: a line of NDJSON, or a server-sent event as the script spells them."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    if ask.dialect.startswith("ollama"):
        return text.encode() + b"\n"
    name = f"event: {script.event_name}{script.newline}" if script.event_name else ""
    space = " " if script.space else ""
    return f"{name}data:{space}{text}{script.newline}{script.newline}".encode()
