"""SGLang's own protocol (``/generate``): text or token ids in, server-sent events out that repeat the reply so far.

Each event holds the whole ``text`` and all ``output_ids``, so its chunk is cumulative (`loadgen.record.Chunk`). A
server started with ``--incremental-streaming-output`` sends increments instead, and so does LMDeploy on its path of
the same name. The two are told apart by the event itself: ``meta_info.completion_tokens`` always counts from the
start, so fewer ids than that are an increment. Exactly N tokens are had by ``ignore_eos``, which this backend sends.
"""

from __future__ import annotations

from typing import Any, Literal

from loadgen.backends import RequestOptions, cannot_carry, extended
from loadgen.backends.openai_chat import error_text
from loadgen.record import Chunk, Prompt, Usage

PATH = "/generate"
FRAMING: Literal["sse", "ndjson"] = "sse"
NEEDS_DONE = False
ACCEPTS: tuple[Literal["messages", "text", "token_ids"], ...] = ("text", "token_ids")


def body(prompt: Prompt, options: RequestOptions) -> dict[str, Any]:
    """The request's JSON; sampling goes into ``sampling_params``."""
    if prompt.messages is not None:
        instead = "use backend: openai_chat, or template: client to have the messages rendered here"
        raise cannot_carry(prompt, "sglang_generate", ACCEPTS, instead)
    content = {"text": prompt.text} if prompt.text is not None else {"input_ids": list(prompt.token_ids or ())}
    sampling: dict[str, Any] = {"max_new_tokens": prompt.ask_tok, **options.sampling}
    if prompt.exact:
        sampling["ignore_eos"] = True
    return extended({**content, "sampling_params": sampling, "stream": options.stream}, prompt, options)


def chunk(event: dict[str, Any]) -> Chunk:
    """One streamed event. Raises KeyError for one without ``meta_info``."""
    if error := event.get("error"):
        return Chunk(error=error_text(error))
    meta = event["meta_info"]
    reason = meta.get("finish_reason") or {}
    if reason.get("type") == "abort":
        return Chunk(error=str(reason.get("message") or "the server aborted the request"))
    total = meta.get("completion_tokens")
    ids = event.get("output_ids")
    return Chunk(
        text=event.get("text") or "",
        tokens=total if ids is None else len(ids),
        cumulative=ids is None or total is None or len(ids) >= total,
        finish=reason.get("type"),
        usage=Usage(meta.get("prompt_tokens"), total, meta.get("cached_tokens")),
        server_times={"e2e_latency": meta["e2e_latency"]} if reason and "e2e_latency" in meta else None,
    )


def whole(reply: dict[str, Any]) -> Chunk:
    """A reply with ``stream: false``."""
    found = chunk(reply)
    return Chunk(
        text=found.text,
        tokens=found.tokens,
        finish=found.finish,
        usage=found.usage,
        error=found.error,
        server_times=found.server_times,
        done=True,
    )
