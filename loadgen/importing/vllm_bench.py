"""Results of ``vllm bench serve``: the JSON of --save-result, with --save-detailed, and the lines of --append-result.

In: the file. Out: a `Measured` for each result in it. The definitions are those of vllm/benchmarks/serve.py and
vllm/benchmarks/lib/endpoint_request_func.py of vLLM 0.32.0; the file does not say which version wrote it.

What differs from ours, and is said with every number: TTFT ends at the first event that has ``choices``, with or
without text (an early role chunk makes it a fiction); latency ends at the last such event; a stream that began counts
as a success however it ended, short of an exception; replies without usage are counted by a tokenizer; and opening the
connection is part of TTFT.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from loadgen.importing.fields import Fields, parse, positive, seconds, tokens
from loadgen.importing.measured import Measured, Origin, distribution, from_figures, of_values, target_of
from loadgen.importing.vllm_requests import TOOL, Requests, requests_of
from loadgen.summary import Context, Distribution, Doubt, Summary, Window

MARKS = ("model_id", "num_prompts", "completed", "duration", "request_throughput")
"""Fields that together no other tool's file has."""

DEFINITIONS: Mapping[str, str] = MappingProxyType(
    {
        "ttft_s": "From before the connection is opened to the first event with choices, also one without any text.",
        "e2e_s": "From before the connection is opened to the last event with choices, the finish event included.",
        "tpot_s": "(latency - TTFT) / (output tokens - 1).",
        "chunk_gap_s": "ITL: time between two events with choices, the finish event included.",
        "request_rps": "Successful requests / duration, from before the first send to after the last reply.",
        "output_tok_s": "Output tokens of successful requests / duration.",
        "total_tok_s": "Prompt and output tokens of successful requests / duration.",
    }
)
"""The tool's own, by our names."""

_STATISTICS = {"mean": "mean", "median": "p50", "std": "population_sd"} | {p: p for p in ("p50", "p90", "p95", "p99")}
_METRICS = {"ttft_s": "ttft", "tpot_s": "tpot", "e2e_s": "e2el"}


def is_result(fields: Fields) -> bool:
    """Whether the object looks like a result of this tool, whatever its version."""
    return all(name in fields for name in MARKS)


def read(data: bytes, where: str) -> list[Measured]:
    """Every result of a file: one, or one a line where they were appended. Raises UsageError."""
    texts = [line for line in data.splitlines() if line.strip()]
    if len(texts) == 1 or not all(line.startswith(b"{") for line in texts):
        return [_measured(parse(data, where))]
    return [_measured(parse(line, f"{where}:{number}")) for number, line in enumerate(texts, 1)]


def _measured(fields: Fields) -> Measured:
    duration = seconds(fields.need("duration", float), f"{fields.where}: duration")
    if not duration:
        raise fields.wrong("it lasted no time (duration)")
    axes, requests = _axes(fields), requests_of(fields)
    last = 0.0 if requests is None else seconds(requests.last_s, f"{fields.where}: start_times and latencies")
    window = Window(0.0, max(duration, last or 0.0))
    layout = "--save-result" if requests is None else "--save-detailed"
    origin = Origin(tool=TOOL, version=None, layout=layout, read_in="0.32.0", definitions=dict(DEFINITIONS))
    context = Context(concurrency=axes.get("concurrency"), doubts=tuple(_doubts(origin, requests)))
    return Measured(
        origin=origin,
        source=fields.where,
        axes=axes,
        target=target_of(fields.need("model_id", str), None, fields.get("backend", str)),
        load={**axes, **_arrival(fields), "requests": fields.get("num_prompts", int)},
        started=_started(fields, duration),
        window=window,
        context=context,
        records=None if requests is None else requests.records(),
        summary=_summary(fields, window, context) if requests is None else None,
        worded=frozenset({"unknown_tokens"}),
    )


def _axes(fields: Fields) -> dict[str, Any]:
    """Closed loop: concurrency. Open loop: the rate, and the cap if there was one. Neither: a burst of all prompts."""
    cap = positive(fields.get("max_concurrency", int), f"{fields.where}: max_concurrency")
    rate = fields.get("request_rate", Any)
    if isinstance(rate, float | int):  # "inf" for all at once
        return {"rate_rps": positive(float(rate), f"{fields.where}: request_rate")} | (
            {"max_concurrency": cap} if cap else {}
        )
    return {"concurrency": cap} if cap else {"burst": fields.get("num_prompts", int)}


def _arrival(fields: Fields) -> dict[str, Any]:
    """Gamma arrivals in our words: its burstiness is the shape of the distribution, ours the coefficient of variation.
    A shape of 1, its default, is Poisson's process."""
    shape = fields.get("burstiness", float)
    return {} if shape is None or shape <= 0 or shape == 1 else {"arrival": "gamma", "burstiness": shape**-0.5}


def _started(fields: Fields, duration: float) -> str:
    """UTC, taking the writer's clock for one in our time zone: the file has local time, of its end."""
    try:
        end = time.mktime(time.strptime(fields.get("date", str) or "", "%Y%m%d-%H%M%S"))
    except (ValueError, OverflowError):
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end - duration))


def _summary(fields: Fields, window: Window, context: Context) -> Summary:
    """The summary of a result without single requests."""
    ok = tokens(fields.need("completed", int), f"{fields.where}: completed") or 0
    failed = fields.get("failed", int)
    if failed is None:
        failed = max((fields.get("num_prompts", int) or 0) - ok, 0)
    figures = {
        "request_rps": fields.get("request_throughput", float),
        "output_tok_s": fields.get("output_throughput", float),
        "total_tok_s": fields.get("total_token_throughput", float),
        "goodput_rps": fields.get("request_goodput", float),
        "in_tok_sum": fields.get("total_input_tokens", int),
        "out_tok_sum": fields.get("total_output_tokens", int),
    }
    counts = {"ok": ok, "http_error": failed}
    return from_figures(window, context, counts, figures if ok else {}, _distributions(fields, ok))


def _distributions(fields: Fields, ok: int) -> dict[str, Distribution]:
    found = {}
    for ours, theirs in _METRICS.items():
        said = {word: fields.get(f"{word}_{theirs}_ms", float) for word in _STATISTICS}
        values = {_STATISTICS[word]: value for word, value in said.items() if value is not None}
        if "mean" in values:
            found[ours] = distribution(ok, values, 1e-3)
    latencies = [value for value in fields.get("latencies", list[float]) or [] if value > 0]
    if "e2e_s" not in found and len(latencies) == ok > 0:  # without --save-detailed they are left in, of failures as 0
        found["e2e_s"] = of_values([seconds(value, f"{fields.where}: latencies") or 0.0 for value in latencies])
    totals = {"in_tok": fields.get("total_input_tokens", int), "out_tok": fields.get("total_output_tokens", int)}
    for name, total in totals.items():
        if total is not None and ok:
            found[name] = distribution(ok, {"mean": total / ok})
    return found


def _doubts(origin: Origin, requests: Requests | None) -> Iterator[Doubt]:
    yield Doubt(
        "imported",
        f"Measured by {TOOL}, not by loadgen: its client stamps events when it gets to read them, and its file does "
        "not say how late it was.",
    )
    yield from origin.doubts()
    yield Doubt(
        "imported_ttft",
        "TTFT is from before the connection is opened to the first event with choices, with or without text"
        f"{_role_chunks(requests)}",
    )
    yield Doubt(
        "imported_tokens",
        "Output tokens are the server's usage or, for replies without it, a tokenizer's count of the text; the file "
        "does not say which.",
    )
    yield Doubt("imported_failures", "A stream that broke off or brought an error after its first event counts as ok.")
    if requests is None:
        yield Doubt(
            "imported_figures",
            "The file holds no single requests (--save-detailed): the figures are the tool's own, percentiles are "
            "interpolated, and everything that it does not say is blank.",
        )


def _role_chunks(requests: Requests | None) -> str:
    """What the number of chunks says of TTFT."""
    early, replies = (0, 0) if requests is None else requests.early_chunks()
    if not early:
        return "."
    return f": {early} of {replies} replies have two chunks more than tokens, so that one may have come before any."
