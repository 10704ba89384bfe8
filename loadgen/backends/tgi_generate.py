"""TGI's own protocol: text in, one event a token out.

The request goes to ``/``, where ``stream`` says which of ``/generate_stream`` and ``/generate`` answers, as TGI's own
client does. Each event is one token, even when speculation made several at once. The last one carries the whole text
and, because they are asked for, the details with the counts (the prompt's count only in newer versions). There is no
``[DONE]``. The end-of-text token has an event of its own with ``special``: the server counts it as generated, so it
counts here, but its spelling is no text of the reply. TGI cannot be made to go on after it: there is no way to exactly
N tokens, and the true length is what gets recorded.
"""

from __future__ import annotations

from typing import Any, Literal

from loadgen.backends import RequestOptions, cannot_carry, extended
from loadgen.backends.openai_chat import error_text
from loadgen.record import Chunk, Prompt, Usage

PATH = "/"
FRAMING: Literal["sse", "ndjson"] = "sse"
NEEDS_DONE = False
ACCEPTS: tuple[Literal["messages", "text", "token_ids"], ...] = ("text",)


def body(prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """The request's JSON; sampling goes into ``parameters``."""
    if prompt.text is None:
        instead = "use backend: openai_chat for messages, or template: client to have them rendered here"
        raise cannot_carry(prompt, "tgi_generate", ACCEPTS, instead)
    parameters = {"max_new_tokens": prompt.ask_tok, "details": True, **_parameters(options.sampling)}
    return extended({"inputs": prompt.text, "parameters": parameters, "stream": options.stream}, prompt, options)


def _parameters(sampling: dict[str, Any]) -> dict[str, Any]:
    """Sampling in TGI's words. It refuses the neutral values (temperature 0, top_p 1, top_k 0): they mean absence."""
    neutral = {"temperature": lambda v: v <= 0, "top_p": lambda v: v >= 1, "top_k": lambda v: v <= 0}
    kept = {k: v for k, v in sampling.items() if v is not None and not (k in neutral and neutral[k](v))}
    if sampling.get("temperature") is not None:
        kept.setdefault("do_sample", sampling["temperature"] > 0)
    return kept


def chunk(event: dict[str, Any]) -> Chunk:
    """One streamed event: one token, and the end of the reply if it holds the whole text."""
    if error := event.get("error"):
        return Chunk(error=error_text(error))
    token = event["token"]
    details = event.get("details") or {}
    ended = event.get("generated_text") is not None
    return Chunk(
        text="" if token.get("special") else token.get("text") or "",
        tokens=1,
        finish=details.get("finish_reason", "unknown") if ended else None,
        usage=_usage(details),
    )


def whole(reply: Any) -> Chunk:
    """A reply with ``stream: false``: an object, which ``/`` wraps into a list of one."""
    found: dict[str, Any] = reply[0] if isinstance(reply, list) else reply
    if error := found.get("error"):
        return Chunk(error=error_text(error))
    details = found.get("details") or {}
    tokens = details.get("tokens")
    return Chunk(
        text=found["generated_text"],
        tokens=len(tokens) if tokens else None,
        finish=details.get("finish_reason"),
        usage=_usage(details, len(details.get("prefill") or ()) or None),
        done=True,
    )


def _usage(details: dict[str, Any], in_tok: int | None = None) -> Usage | None:
    return Usage(details.get("input_length", in_tok), details.get("generated_tokens")) if details else None
