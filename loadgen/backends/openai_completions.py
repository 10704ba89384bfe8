"""OpenAI's completions protocol: text or token ids in, server-sent events out (``/v1/completions``).

The same servers as `openai_chat`, without a chat template between the prompt and the model. Token ids are taken by
vLLM, SGLang, TensorRT-LLM and our own HF server; the others take text alone. Where they differ: TGI sends an empty
``finish_reason`` until the end and its counts in the last event; llama.cpp always sends the counts; DeepSpeed-MII
begins with an empty text, which is no token.
"""

from __future__ import annotations

from typing import Any, Literal

from loadgen.backends import RequestOptions, cannot_carry
from loadgen.backends.openai_chat import common, error_text, times_of, usage_of
from loadgen.record import Chunk, Prompt

PATH = "/v1/completions"
FRAMING: Literal["sse", "ndjson"] = "sse"
NEEDS_DONE = False
ACCEPTS: tuple[Literal["messages", "text", "token_ids"], ...] = ("text", "token_ids")


def body(prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """The request's JSON. Token ids go as they are, so that no server adds special tokens to them."""
    if prompt.messages is not None:
        instead = "use backend: openai_chat, or template: client to have the messages rendered here"
        raise cannot_carry(prompt, "openai_completions", ACCEPTS, instead)
    content: str | list[int] = prompt.text if prompt.text is not None else list(prompt.token_ids or ())
    return {"model": options.model, "prompt": content, "max_tokens": prompt.ask_tok, **common(prompt, options)}


def chunk(event: dict[str, Any]) -> Chunk:
    """One streamed event. Token ids (``token_ids``, by vLLM and our server) count; empty text without them does not."""
    return _meaning(event, done=False)


def whole(reply: dict[str, Any]) -> Chunk:
    """A reply with ``stream: false``. Raises KeyError or IndexError for one without choices."""
    if not reply.get("error"):
        reply["choices"][0]
    return _meaning(reply, done=True)


def _meaning(event: dict[str, Any], done: bool) -> Chunk:
    if error := event.get("error"):
        return Chunk(error=error_text(error))
    usage, times = usage_of(event.get("usage")), times_of(event)
    choices = event.get("choices")
    if not choices:
        return Chunk(usage=usage, server_times=times)
    choice = choices[0]
    ids = choice.get("token_ids")
    return Chunk(
        text=choice.get("text") or "",
        tokens=len(ids) if ids else None,
        finish=choice.get("finish_reason") or None,
        usage=usage,
        server_times=times,
        done=done,
    )
