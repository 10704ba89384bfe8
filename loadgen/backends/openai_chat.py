"""OpenAI's chat protocol: messages in, server-sent events out (``/v1/chat/completions``).

Spoken by vLLM, TGI, SGLang, llama.cpp, ``transformers serve``, LMDeploy, TensorRT-LLM, TabbyAPI, Ollama and our own
HF server. Where they differ: a first chunk with a role and no content (not a token), reasoning as ``reasoning`` or
``reasoning_content``, usage in the finish chunk, in a chunk of its own with empty ``choices``, or never, and a stream
that ends without ``[DONE]``. So a finish reason is what makes a stream complete, and ``[DONE]`` is not asked for.
"""

from __future__ import annotations

from typing import Any, Literal

from loadgen.backends import RequestOptions, exact_fields
from loadgen.errors import UsageError
from loadgen.record import Chunk, Prompt, Usage

PATH = "/v1/chat/completions"
FRAMING: Literal["sse", "ndjson"] = "sse"
NEEDS_DONE = False
ACCEPTS: tuple[Literal["messages", "text", "token_ids"], ...] = ("messages",)


def body(prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """The request's JSON: only the fields that every server of this protocol takes, and the recipe's own."""
    if prompt.messages is None:
        raise UsageError(
            f"workload {prompt.source!r} makes no chat messages, and backend openai_chat sends nothing else; "
            "use backend: openai_completions for token ids or rendered text."
        )
    fields: dict[str, Any] = {
        "model": options.model,
        "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "max_tokens": prompt.ask_tok,
        **common(prompt, options),
    }
    return fields


def common(prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """What chat and completions share: streaming with usage, sampling, the recipe's and the user's fields."""
    fields: dict[str, Any] = dict(options.sampling)
    if options.stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True}
    fields.update(options.fields)
    if prompt.exact:
        fields.update(exact_fields(options, prompt.ask_tok))
    return fields


def chunk(event: dict[str, Any]) -> Chunk:
    """One streamed event. Token ids (``token_ids``, by vLLM and our server) count; a role or empty delta does not."""
    if error := event.get("error"):
        return Chunk(error=error_text(error))
    usage = usage_of(event.get("usage"))
    choices = event.get("choices")
    if not choices:
        return Chunk(usage=usage, server_times=times_of(event))
    choice = choices[0]
    ids = choice.get("token_ids")
    return Chunk(
        text=delta_text(choice.get("delta") or {}),
        tokens=len(ids) if ids else None,
        finish=choice.get("finish_reason"),
        usage=usage,
        server_times=times_of(event),
    )


def whole(reply: dict[str, Any]) -> Chunk:
    """A reply with ``stream: false``."""
    if error := reply.get("error"):
        return Chunk(error=error_text(error))
    choice = reply["choices"][0]
    ids = choice.get("token_ids")
    return Chunk(
        text=delta_text(choice.get("message") or {}),
        tokens=len(ids) if ids else None,
        finish=choice.get("finish_reason"),
        usage=usage_of(reply.get("usage")),
        server_times=times_of(reply),
        done=True,
    )


def delta_text(delta: dict[str, Any]) -> str:
    """Everything generated in a delta or a message: reasoning under either name, content, tool-call arguments."""
    text = (delta.get("reasoning") or delta.get("reasoning_content") or "") + (delta.get("content") or "")
    for call in delta.get("tool_calls") or ():
        function = call.get("function") or {}
        text += (function.get("name") or "") + (function.get("arguments") or "")
    return text


def usage_of(usage: dict[str, Any] | None) -> Usage | None:
    """The usage object, or None where the event has none."""
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    return Usage(usage.get("prompt_tokens"), usage.get("completion_tokens"), details.get("cached_tokens"))


def times_of(event: dict[str, Any]) -> dict[str, Any] | None:
    """What the engine says of its own timing: llama.cpp's ``timings``, vLLM's ``metrics``; None where it is silent."""
    times: dict[str, Any] | None = event.get("timings") or event.get("metrics")
    return times


def error_text(error: Any) -> str:
    """The sentence in an error object; servers send an object, a string, or an object in an object."""
    if isinstance(error, dict):
        return str(error.get("message") or error)
    return str(error)
