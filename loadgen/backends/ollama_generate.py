"""Ollama's own completion protocol (``/api/generate``): rendered text in, one JSON a line out.

``raw`` keeps Ollama from putting its template around a prompt that has one already. All else is as in `ollama`.
"""

from __future__ import annotations

from typing import Any, Literal

from loadgen.backends import RequestOptions, cannot_carry, extended
from loadgen.backends.ollama import meaning, settings
from loadgen.record import Chunk, Prompt

PATH = "/api/generate"
FRAMING: Literal["sse", "ndjson"] = "ndjson"
NEEDS_DONE = True
ACCEPTS: tuple[Literal["messages", "text", "token_ids"], ...] = ("text",)


def body(prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """The request's JSON; sampling goes into ``options``."""
    if prompt.text is None:
        instead = "use backend: ollama for messages, or template: client to have them rendered here"
        raise cannot_carry(prompt, "ollama_generate", ACCEPTS, instead)
    return extended({"prompt": prompt.text, "raw": True, **settings(prompt, options)}, prompt, options)


def chunk(event: dict[str, Any]) -> Chunk:
    """One line. Thinking counts as text."""
    return meaning(event, (event.get("thinking") or "") + (event.get("response") or ""))


def whole(reply: dict[str, Any]) -> Chunk:
    """A reply with ``stream: false``: the last line of a stream, with all the text. Raises KeyError for another."""
    if not reply.get("error"):
        reply["response"]
    return chunk(reply)
