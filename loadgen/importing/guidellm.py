"""Reports of GuideLLM: ``benchmarks.json`` or ``benchmarks.yaml``, with one or several benchmarks.

In: the fields of the file. Out: a `Measured` for each benchmark. The definitions are those of
guidellm/schemas/base/request_stats.py, guidellm/backends/openai/http.py and guidellm/benchmark/schemas/metrics.py of
GuideLLM 0.8.1 (report version 2).

What differs from ours: the times of single chunks are not kept, only the first and the last; its TPOT holds the time
to the first token, and what it calls ITL is our TPOT; its request latency ends with the stream, ours at the last token;
and where the server gives no usage it counts chunks as tokens, which are left out here. Its TTFT ends at the first
event with text, reasoning or a tool call and leaves the opening of the connection out, as ours does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from loadgen.importing.fields import Fields, positive, seconds, tokens
from loadgen.importing.measured import Measured, Origin, distribution, from_figures, load_of, status_of, target_of
from loadgen.metrics import tpot
from loadgen.record import Record
from loadgen.summary import Context, Distribution, Doubt, Summary, Window

TOOL = "GuideLLM"
MARKS = ("benchmarks", "metadata")

DEFINITIONS: Mapping[str, str] = MappingProxyType(
    {
        "ttft_s": "From the write of the request's head to the first event with text, reasoning or a tool call.",
        "e2e_s": "Here to the last token; its own request latency ends with the stream.",
        "tpot_s": "ITL: (last token - first token) / (output tokens - 1). Its own TPOT holds the first token's time.",
        "request_rps": "Successful requests that ended in the measured span / its length.",
        "output_tok_s": "Output tokens of successful requests in the measured span / its length, spread evenly.",
        "total_tok_s": "Prompt and output tokens of successful requests in the measured span / its length.",
    }
)
"""The tool's own, by our names."""

OPEN = ("constant", "poisson", "async", "trace", "replay")
"""Strategies that send by a schedule, so that ``targeted_start`` is one."""

_DISTRIBUTIONS = {
    "ttft_s": ("time_to_first_token_ms", 1e-3),
    "tpot_s": ("inter_token_latency_ms", 1e-3),
    "e2e_s": ("request_latency", 1.0),
    "in_tok": ("prompt_token_count", 1.0),
    "out_tok": ("output_token_count", 1.0),
}
_PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}
_GROUPS = {"successful": "ok", "errored": "http_error", "incomplete": "cancelled"}


def is_result(fields: Fields) -> bool:
    """Whether the object looks like a report of this tool, whatever its version."""
    return all(name in fields for name in MARKS)


def read(fields: Fields) -> list[Measured]:
    """Every benchmark of a report. Raises UsageError where it holds none."""
    metadata = fields.object("metadata")
    origin = Origin(
        tool=TOOL,
        version=metadata.get("guidellm_version", str),
        layout=f"report version {metadata.get('version', int) or 'unknown'}",
        read_in="0.8.1",
        definitions=dict(DEFINITIONS),
    )
    benchmarks = fields.objects("benchmarks")
    if not benchmarks:
        raise fields.wrong("it holds no benchmark")
    return [_measured(one, origin) for one in benchmarks]


def _measured(fields: Fields, origin: Origin) -> Measured:
    config, times = fields.object("config"), fields.object("scheduler_metrics")
    strategy, backend = config.object("strategy"), config.object("backend")
    zero, window = _window(fields, times)
    totals = fields.object("metrics").object("request_totals")
    counts = {group: totals.get(group, int) or 0 for group in _GROUPS}
    requests = {group: fields.object("requests").objects(group) for group in _GROUPS}
    if not any(counts.values()) and not any(requests.values()):
        raise fields.wrong("it has neither requests nor figures")
    whole = any(requests.values()) and all(len(requests[group]) >= counts[group] for group in _GROUPS)
    open_loop = strategy.get("type_", str) in OPEN
    axes = _axes(strategy)
    context = Context(
        concurrency=axes.get("concurrency"),
        stream=backend.get("stream", bool) is not False,
        doubts=tuple(_doubts(origin, whole, requests, counts)),
    )
    return Measured(
        origin=origin,
        source=fields.where,
        axes=axes,
        target=target_of(*(backend.get(name, str) for name in ("model", "target", "request_format"))),
        load=load_of(axes, strategy.get("type_", str)),
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(zero, 0.0), 2.0**40))),
        window=window,
        context=context,
        records=_records(requests, zero, window, open_loop) if whole else None,
        summary=None if whole else _summary(fields, window, context, counts),
        schedule=open_loop,
    )


def _window(fields: Fields, times: Fields) -> tuple[float, Window]:
    """The moment of the first send (Unix time) and the measured span, in seconds from it."""
    begin = times.need("measure_start_time", float)
    zero = min(times.get("request_start_time", float) or begin, begin)
    end = times.need("measure_end_time", float)
    w0 = seconds(begin - zero, f"{fields.where}: warm-up") or 0.0
    return zero, Window(w0, w0 + max(seconds(end - begin, f"{fields.where}: measured span") or 0.0, 1e-3))


def _axes(strategy: Fields) -> dict[str, Any]:
    kind = strategy.get("type_", str)
    rate = positive(strategy.get("rate", float), f"{strategy.where}: rate")
    streams = positive(strategy.get("streams", int), f"{strategy.where}: streams")
    if rate:
        return {"rate_rps": rate}
    if streams or kind == "synchronous":
        return {"concurrency": streams or 1}
    cap = positive(strategy.get("max_concurrency", int), f"{strategy.where}: max_concurrency")
    return {"concurrency": cap} if cap else {"strategy": kind or "unknown"}


def _records(requests: Mapping[str, list[Fields]], zero: float, window: Window, open_loop: bool) -> Iterator[Record]:
    seq = 0
    for group, found in requests.items():
        for one in found:
            record = _record(seq, one, zero, open_loop, group)
            record.phase = "warmup" if record.t_send is not None and record.t_send < window.w0 else "measure"
            yield record
            seq += 1


def _record(seq: int, fields: Fields, zero: float, open_loop: bool, group: str) -> Record:
    info = fields.object("info")
    times, where = info.object("timings"), fields.where
    start, end = times.get("request_start", float), times.get("request_end", float)
    due = times.get("targeted_start", float) if open_loop else None
    over = end if end is not None else times.get("resolve_end", float)
    sent, planned, ended = (None if at is None else at - zero for at in (start, due, over))
    for offset in (sent, planned, ended):
        seconds(None if offset is None else abs(offset), f"{where}: timings")
    error = info.get("error", str) or ""
    common: dict[str, Any] = {
        "driver": TOOL,
        "seq": seq,
        "session": seq,
        "turn": info.get("turn_index", int) or 0,
        "source": "imported",
        "phase": "measure",
        "t_sched": planned if planned is not None else sent or 0.0,
        "t_send": sent,
        "t_end": None if ended is None else max(ended, sent or 0.0),
        "in_tok": tokens(fields.object("input_metrics").get("total_tokens", float), where),
        "cached_tok": tokens(fields.object("input_metrics").get("cached_tokens", float), where),
    }
    if group != "successful" or start is None:
        status = "cancelled" if group == "incomplete" else status_of(error)
        return Record(**common, status=status, err=error[:500] or None)
    return Record(**common, **_reply(fields, times, start, zero))


def _reply(fields: Fields, times: Fields, start: float, zero: float) -> dict[str, Any]:
    """What an ok request came to. The times of its chunks are not known: its tokens count where it ends."""
    where = fields.where
    first, last = times.get("first_token_iteration", float), times.get("last_token_iteration", float)
    ttft = None if first is None else seconds(first - start, f"{where}: TTFT")
    e2e = None if last is None else seconds(last - start, f"{where}: last token")
    out_tok = tokens(fields.object("output_metrics").get("total_tokens", float), where)
    return {
        "t_first": None if first is None else first - zero,
        "t_last": None if last is None else last - zero,
        "ttft_s": ttft,
        "tpot_s": tpot(ttft, e2e, out_tok),
        "e2e_s": e2e,
        "out_tok": out_tok,
        "tok_source": None if out_tok is None else "usage",
        "status": "ok",
        "http": 200,
    }


def _summary(fields: Fields, window: Window, context: Context, counts: Mapping[str, int]) -> Summary:
    """The summary of a benchmark whose requests were not kept, or only a sample of them."""
    metrics, ok = fields.object("metrics"), counts["successful"]

    def rate(name: str) -> float | None:
        return metrics.object(name).object("successful").get("mean", float)

    figures = {
        "request_rps": rate("requests_per_second"),
        "output_tok_s": rate("output_tokens_per_second"),
        "total_tok_s": rate("tokens_per_second"),
        "in_flight": rate("request_concurrency"),
    }
    found: dict[str, Distribution] = {}
    for ours, (theirs, scale) in _DISTRIBUTIONS.items():
        held = metrics.object(theirs).object("successful")
        percentiles = held.object("percentiles")
        values = {name: held.get(name, float) for name in ("mean", "min", "max")}
        values["population_sd"] = held.get("std_dev", float)
        values |= {name: percentiles.get(word, float) for word, name in _PERCENTILES.items()}
        if values["mean"] is not None:
            found[ours] = distribution(ok, values, scale)
    status = {status: counts[group] for group, status in _GROUPS.items()}
    return from_figures(window, context, status, figures if ok else {}, found)


def _doubts(
    origin: Origin, whole: bool, requests: Mapping[str, list[Fields]], counts: Mapping[str, int]
) -> Iterator[Doubt]:
    yield Doubt(
        "imported",
        f"Measured by {origin.name}, not by loadgen: its client stamps events by the wall clock when it gets to read "
        "them, and keeps the first and the last of a reply alone, so that chunk gaps and stalls are blank.",
    )
    yield from origin.doubts()
    yield Doubt(
        "imported_tpot",
        "TPOT is what GuideLLM calls ITL; what it calls TPOT holds the time to the first token as well.",
    )
    yield Doubt("imported_failures", "A stream that ended early without an error counts as ok.")
    if not whole:
        kept = len(requests["successful"])
        yield Doubt(
            "imported_figures",
            f"The report keeps {kept} of {counts['successful']} requests: the figures are the tool's own, e2e ends "
            "with the stream, TPOT is weighted by tokens, and everything that it does not say is blank.",
        )
