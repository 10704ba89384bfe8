"""llama.cpp's own protocol (``/completion`` of llama-server): text or token ids in, server-sent events out.

Every event has the ids of its tokens; several with speculative decoding, and text may lag behind them while a
character is incomplete. The last event has ``stop: true``, the counts and the ``timings``, and there is no ``[DONE]``,
not after an error either. ``tokens_evaluated`` is the whole prompt; the part of it that came from the cache is
``timings.cache_n``. Exactly N tokens are had by ``ignore_eos``, which this backend sends by itself.
"""

from __future__ import annotations

from typing import Any, Literal

from loadgen.backends import RequestOptions, cannot_carry, extended
from loadgen.backends.openai_chat import error_text, times_of
from loadgen.record import Chunk, Prompt, Usage

PATH = "/completion"
FRAMING: Literal["sse", "ndjson"] = "sse"
NEEDS_DONE = False
ACCEPTS: tuple[Literal["messages", "text", "token_ids"], ...] = ("text", "token_ids")


def body(prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """The request's JSON. ``return_tokens`` asks for the ids, without which a token without text would not be seen."""
    if prompt.messages is not None:
        instead = "use backend: openai_chat, or template: client to have the messages rendered here"
        raise cannot_carry(prompt, "llamacpp_completion", ACCEPTS, instead)
    fields: dict[str, Any] = {
        "model": options.model,
        "prompt": prompt.text if prompt.text is not None else list(prompt.token_ids or ()),
        "n_predict": prompt.ask_tok,
        "stream": options.stream,
        "return_tokens": True,
        **options.sampling,
    }
    if prompt.exact:
        fields["ignore_eos"] = True
    return extended(fields, prompt, options)


def chunk(event: dict[str, Any]) -> Chunk:
    """One streamed event. Progress reports on the prompt (``prompt_progress``) hold no token."""
    if error := event.get("error"):
        return Chunk(error=error_text(error))
    ids = event.get("tokens")
    stopped = bool(event.get("stop"))
    return Chunk(
        text=event.get("content") or "",
        tokens=len(ids) if ids else None,
        finish=event.get("stop_type") or "stop" if stopped else None,
        usage=_usage(event) if stopped else None,
        server_times=times_of(event),
        done=stopped,
    )


def whole(reply: dict[str, Any]) -> Chunk:
    """A reply with ``stream: false``: the last event of a stream, with all the text. Raises KeyError for another."""
    if not reply.get("error"):
        reply["content"]
    return chunk(reply)


def _usage(event: dict[str, Any]) -> Usage:
    cached = (event.get("timings") or {}).get("cache_n")
    return Usage(event.get("tokens_evaluated"), event.get("tokens_predicted"), cached)
