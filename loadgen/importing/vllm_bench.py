"""Results of ``vllm bench serve``: the JSON of --save-result, with --save-detailed, and the lines of --append-result.

In: the file. Out: a `Measured` for each result in it. The definitions are those of vllm/benchmarks/serve.py and
vllm/benchmarks/lib/endpoint_request_func.py of vLLM 0.32.0; the file does not say which version wrote it.

What differs from ours, and is said with every number: TTFT ends at the first event that has ``choices``, with or
without text (an early role chunk makes it a fiction); latency ends at the last such event; a stream that began counts
as a success however it ended, short of an exception; replies without usage are counted by a tokenizer; and opening the
connection is part of TTFT.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from loadgen.importing.fields import Fields, parse, seconds, tokens
from loadgen.importing.measured import Measured, Origin, distribution, from_figures, of_values, status_of, target_of
from loadgen.metrics import tpot
from loadgen.record import Record
from loadgen.summary import Context, Distribution, Doubt, Window

TOOL = "vllm bench serve"
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

_PER_REQUEST = ("start_times", "ttfts", "itls", "input_lens", "output_lens")
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
    detailed = all(fields.get(name, list[Any]) for name in _PER_REQUEST)
    layout = "--save-detailed" if detailed else "--save-result"
    duration = seconds(fields.need("duration", float), f"{fields.where}: duration") or 0.0
    window = Window(0.0, max(duration, 1e-3))
    axes = _axes(fields)
    records = list(_records(fields)) if detailed else None
    context = Context(concurrency=axes.get("concurrency"), doubts=tuple(_doubts(records)))
    return Measured(
        origin=Origin(tool=TOOL, version=None, layout=layout, definitions=dict(DEFINITIONS)),
        source=fields.where,
        axes=axes,
        target=target_of(fields.need("model_id", str), None, fields.get("backend", str)),
        load={**axes, **_arrival(fields), "requests": fields.get("num_prompts", int)},
        started=_started(fields, duration),
        window=window,
        context=context,
        records=records,
        summary=None if detailed else _summary(fields, window, context),
        worded=frozenset({"unknown_tokens"}),
    )


def _axes(fields: Fields) -> dict[str, Any]:
    """Closed loop: concurrency. Open loop: the rate, and the cap if there was one. Neither: a burst of all prompts."""
    rate, cap = fields.get("request_rate", float | str), fields.get("max_concurrency", int)  # type: ignore[arg-type]
    if isinstance(rate, float | int):
        return {"rate_rps": float(rate)} | ({"max_concurrency": cap} if cap else {})
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


def _records(fields: Fields) -> Iterator[Record]:
    starts, ttfts = fields.need("start_times", list[float]), fields.need("ttfts", list[float])
    itls, in_lens = fields.need("itls", list[list[float]]), fields.need("input_lens", list[int])
    out_lens, count = fields.need("output_lens", list[int]), len(starts)
    ends = fields.get("latencies", list[float]) or [ttft + sum(itl) for ttft, itl in zip(ttfts, itls, strict=False)]
    errors = fields.get("errors", list[str]) or [""] * count
    lists = (ttfts, itls, in_lens, out_lens, ends, errors)
    if any(len(one) != count for one in lists):
        raise fields.wrong(f"its lists have {count} and {', '.join(str(len(one)) for one in lists)} entries")
    first = min(starts)
    for i, (start, *rest) in enumerate(zip(starts, *lists, strict=True)):
        yield _record(i, start - first, rest, f"{fields.where}: request {i}")


def _record(i: int, sent: float, held: list[Any], where: str) -> Record:
    ttft, gaps, in_len, out_len, e2e, error = held
    sent = seconds(sent, f"{where}: start") or 0.0
    stamps = [seconds(at, f"{where}: ttft and itls") or 0.0 for at in itertools.accumulate([ttft, *gaps])]
    failed = bool(error) or not (ttft or e2e)
    common: dict[str, Any] = {
        "driver": TOOL, "seq": i, "session": i, "source": "imported", "phase": "measure", "t_sched": sent,
        "t_send": sent, "in_tok": tokens(in_len, where),
    }  # fmt: skip
    if failed:
        last_line = error.strip().rpartition("\n")[2][:500]
        return Record(**common, t_end=sent + stamps[-1], status=status_of(error), err=last_line or "no reply")
    e2e, out_tok = seconds(e2e, f"{where}: latency") or 0.0, tokens(out_len, where)
    return Record(
        **common,
        t_first=sent + ttft,
        t_last=sent + e2e,
        t_end=sent + e2e,
        ttft_s=ttft,
        tpot_s=tpot(ttft, e2e, out_tok),
        e2e_s=e2e,
        chunk_us=[round(at * 1e6) for at in stamps],
        out_tok=out_tok,
        status="ok",
        http=200,
    )


def _summary(fields: Fields, window: Window, context: Context) -> Any:
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


def _doubts(records: list[Record] | None) -> Iterator[Doubt]:
    yield Doubt(
        "imported",
        f"Measured by {TOOL}, not by loadgen: its client stamps events when it gets to read them, and its file does "
        "not say how late it was, nor which version wrote it.",
    )
    yield Doubt(
        "imported_ttft",
        "TTFT is from before the connection is opened to the first event with choices, with or without text"
        f"{_role_chunks(records)}",
    )
    yield Doubt(
        "imported_tokens",
        "Output tokens are the server's usage or, for replies without it, a tokenizer's count of the text; the file "
        "does not say which.",
    )
    yield Doubt("imported_failures", "A stream that broke off or brought an error after its first event counts as ok.")
    if records is None:
        yield Doubt(
            "imported_figures",
            "The file holds no single requests (--save-detailed): the figures are the tool's own, percentiles are "
            "interpolated, and everything that it does not say is blank.",
        )


def _role_chunks(records: list[Record] | None) -> str:
    """What the number of chunks says of TTFT: with one token a chunk, one more than tokens is the finish chunk; two
    more mean that a chunk without a token came first."""
    ok = [record for record in records or () if record.status == "ok" and record.out_tok]
    early = sum(len(record.chunk_us) >= (record.out_tok or 0) + 2 for record in ok)
    if not early:
        return "."
    return (
        f": {early} of {len(ok)} replies have two chunks more than tokens, so that one may have come before any token."
    )
