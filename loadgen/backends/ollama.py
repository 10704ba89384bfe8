"""Ollama's own chat protocol (``/api/chat``): messages in, one JSON a line out.

``done: true`` ends the reply; that line has the counts, and its durations are nanoseconds. They are kept as they are in
``server_times``: a ``load_duration`` of more than an instant says that the model was not in memory, and that the
request paid for it. ``prompt_eval_count`` leaves out what came from the cache in some versions and is absent in others.
No token ids, and no way to make a reply go on after its end: N tokens are an upper limit. Prompts as rendered text go
through `ollama_generate`.
"""

from __future__ import annotations

from typing import Any, Literal

from loadgen.backends import RequestOptions, cannot_carry, extended
from loadgen.backends.openai_chat import error_text
from loadgen.record import Chunk, Prompt, Usage

PATH = "/api/chat"
FRAMING: Literal["sse", "ndjson"] = "ndjson"
NEEDS_DONE = True
ACCEPTS: tuple[Literal["messages", "text", "token_ids"], ...] = ("messages",)


def body(prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """The request's JSON; sampling goes into ``options``."""
    if prompt.messages is None:
        instead = "use backend: ollama_generate for rendered text"
        raise cannot_carry(prompt, "ollama", ACCEPTS, instead)
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return extended({"messages": messages, **settings(prompt, options)}, prompt, options)


def settings(prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """What both of Ollama's paths share. Streaming is the default there, so it is refused in words."""
    sampling = {"num_predict": prompt.ask_tok, **options.sampling}
    return {"model": options.model, "stream": options.stream, "options": sampling}


def chunk(event: dict[str, Any]) -> Chunk:
    """One line. Thinking counts as text; the last line seldom has any."""
    message = event.get("message") or {}
    return meaning(event, (message.get("thinking") or "") + (message.get("content") or ""))


def whole(reply: dict[str, Any]) -> Chunk:
    """A reply with ``stream: false``: the last line of a stream, with all the text. Raises KeyError for another."""
    if not reply.get("error"):
        reply["message"]
    return chunk(reply)


def meaning(event: dict[str, Any], text: str) -> Chunk:
    """A line of either path, whose text was found."""
    if error := event.get("error"):
        return Chunk(error=error_text(error))
    if not event.get("done"):
        return Chunk(text=text)
    return Chunk(
        text=text,
        finish=event.get("done_reason") or "stop",
        usage=Usage(event.get("prompt_eval_count"), event.get("eval_count")),
        server_times={k: v for k, v in event.items() if k.endswith("_duration")} or None,
        done=True,
    )
