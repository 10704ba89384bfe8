"""What the fake server answers beside generations, and what it counts: health, models, metrics, its own lateness.

In: the head of a request. Out: the writes of a page, or None for a path that generates. `read_ask` reads what a request
for generation asks for, whatever its dialect.
"""

from __future__ import annotations

import json
import time
from array import array
from typing import Any

from fake_plan import Write
from fake_script import Script
from fake_wire import Ask

PATHS = {
    "/v1/chat/completions": "openai_chat",
    "/v1/completions": "openai_completions",
    "/generate_stream": "tgi",
    "/completion": "llamacpp",
    "/api/chat": "ollama",
    "/api/generate": "ollama_generate",
    "/": "tgi",
    "/generate": "sglang",
}
_BLOCK = 16


class Book:
    """Counts of one server: requests by state, tokens, prefix cache, lateness of its own writes in ns."""

    def __init__(self, script: Script, started: int) -> None:
        self.script = script
        self.started = started
        self.requests = 0
        self.running = 0
        self.finished = 0
        self.prompt_tokens = 0
        self.generated = 0
        self.cached = 0
        self.steps = 0
        self.batches = 0
        self.lateness = array("q")
        self._blocks: set[int] = set()

    def arrived(self, ask: Ask) -> int:
        """Counts a request; its number from 0."""
        self.requests += 1
        self.running += 1
        self.prompt_tokens += ask.in_tok
        self.cached += ask.cached
        return self.requests - 1

    def ended(self, record: dict[str, Any]) -> None:
        """Counts a request that has ended."""
        self.running -= 1
        self.finished += 1
        self.generated += record["tokens_sent"]

    def stepped(self, batch: int) -> None:
        """Counts a step (of a machine, or the gap of a paced stream) with this many requests running."""
        self.steps += 1
        self.batches += batch

    def late(self, ns: int) -> None:
        """Keeps how late a write of a token was."""
        self.lateness.append(ns)

    def cached_of(self, units: list[Any]) -> int:
        """Prompt tokens of these that an earlier prompt began with too, in whole blocks."""
        if not self.script.prefix_cache:
            return 0
        cached, whole = 0, True
        for end in range(_BLOCK, len(units) + 1, _BLOCK):
            block = hash(tuple(units[:end]))
            whole = whole and block in self._blocks
            cached += _BLOCK * whole
            self._blocks.add(block)
        return cached

    def stats(self) -> dict[str, Any]:
        """Lateness of token writes in µs (before send, against the schedule), counts, CPU seconds."""
        late = sorted(self.lateness)
        found: dict[str, Any] = {"requests": self.requests, "writes": len(late), "cpu_s": time.process_time()}
        if late:
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
                found[f"late_{name}_us"] = late[min(int(share * len(late)), len(late) - 1)] / 1e3
            found["late_max_us"] = late[-1] / 1e3
        return found

    def metrics(self) -> str:
        """Prometheus text under vLLM's names, and the size of the batches under that of the Hugging Face server."""
        waiting = max(self.running - self.script.batch, 0) if self.script.batch else 0
        rows = (
            ("num_requests_running", "gauge", self.running - waiting),
            ("num_requests_waiting", "gauge", waiting),
            ("kv_cache_usage_perc", "gauge", min(self.running / 256, 1.0)),
            ("prompt_tokens_total", "counter", self.prompt_tokens),
            ("generation_tokens_total", "counter", self.generated),
            ("prefix_cache_queries_total", "counter", self.prompt_tokens),
            ("prefix_cache_hits_total", "counter", self.cached),
            ("num_preemptions_total", "counter", 0),
        )
        labels = f'{{engine="0",model_name="{self.script.model}"}}'
        lines = [f"# TYPE vllm:{n.removesuffix('_total')} {k}\nvllm:{n}{labels} {float(v)}" for n, k, v in rows]
        lines += [f"# TYPE hf:batch_size histogram\nhf:batch_size_sum {self.batches}\nhf:batch_size_count {self.steps}"]
        done = f'{{engine="0",finished_reason="length",model_name="{self.script.model}"}}'
        return "\n".join([*lines, f"vllm:request_success_total{done} {float(self.finished)}", ""])


def answer(book: Book, method: str, path: str, headers: dict[str, str], now: int) -> tuple[Write, ...] | None:
    """The page at a path; None for a POST to a path that generates."""
    path = path.partition("?")[0]
    key = book.script.api_key
    if key and path.startswith("/v1") and headers.get("authorization") != f"Bearer {key}":
        return _page(401, {"error": {"message": "Unauthorized", "code": 401}})
    if method == "POST" and path in PATHS:
        return None
    if path in ("/health", "/"):
        up = now - book.started >= book.script.start_ms * 1e6
        return _page(200 if up else 503, {"status": "ok" if up else "loading"})
    if path == "/v1/models":
        return _page(200, {"object": "list", "data": [{"id": book.script.model, "object": "model"}]})
    if path == "/version":
        return _page(200, {"version": "fake-1"})
    if path == "/metrics":
        return _page(200, book.metrics(), "text/plain; version=0.0.4")
    if path == "/fake/stats":
        return _page(200, book.stats())
    return _page(404, {"error": {"message": f"no {method} {path} here", "code": 404}})


def read_ask(book: Book, path: str, body: bytes) -> tuple[Ask, Any]:
    """What a request asks for, and its body decoded (as text if it is no JSON)."""
    try:
        asked = json.loads(body)
    except ValueError:
        asked = {}
        decoded: Any = body.decode("utf-8", "replace")
    else:
        decoded = asked
    path = path.partition("?")[0]
    script = book.script
    dialect = script.dialect or _dialect(path, asked)
    inner = {**asked, **asked.get("parameters", {}), **asked.get("sampling_params", {}), **asked.get("options", {})}
    names = ("max_completion_tokens", "max_tokens", "max_new_tokens", "n_predict", "num_predict")
    wanted = next((inner[n] for n in names if inner.get(n) is not None), 16)
    units = _prompt_units(asked)
    usage = bool((asked.get("stream_options") or {}).get("include_usage")) or bool(inner.get("details"))
    stream = asked.get("stream", dialect.startswith("ollama") or path == "/generate_stream")
    ask = Ask(
        dialect=dialect,
        tokens=script.tokens if script.tokens is not None else int(wanted),
        in_tok=script.in_tok if script.in_tok is not None else len(units),
        cached=book.cached_of(units),
        stream=bool(stream),
        usage=usage,
        whole_list=path == "/",
    )
    return ask, decoded


def _dialect(path: str, asked: dict[str, Any]) -> str:
    if path == "/generate" and "inputs" in asked:  # TGI and SGLang share this path
        return "tgi"
    return PATHS[path]


def _prompt_units(asked: dict[str, Any]) -> list[Any]:
    if "messages" in asked:
        return [word for m in asked["messages"] for word in str(m.get("content")).split()]
    prompt = next((asked[n] for n in ("prompt", "inputs", "input_ids", "text") if n in asked), "")
    return prompt if isinstance(prompt, list) else str(prompt).split()


def _page(status: int, body: Any, kind: str = "application/json") -> tuple[Write, ...]:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = f"HTTP/1.1 {status} Fake\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n".encode()
    return (Write(0, -1, head + data, 0, "page", 0),)
