"""Results of NVIDIA AIPerf: its output folder, with ``profile_export_aiperf.json`` and ``profile_export.jsonl``.

In: the folder or one of the two files. Out: one `Measured`; the lines are never held. The definitions are those of
aiperf/metrics/types/, aiperf/transports/aiohttp_client.py and aiperf/records/inference_result_parser.py of AIPerf
0.13.0.

What differs from ours: AIPerf counts tokens with a tokenizer of its own unless --use-server-token-count was given,
while here the server's usage, which it keeps beside, comes first; opening the connection is part of TTFT; and a stream
that brought an error or broke off after its first token, but not with an exception, counts as a success. Its TTFT ends
at the first event with text, reasoning or a tool call, as ours does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loadgen.errors import UsageError
from loadgen.importing.aiperf_requests import TOOL, has_schedule, records_of, window_of
from loadgen.importing.fields import Fields, parse, positive, read_bytes, seconds, tokens
from loadgen.importing.measured import Measured, Origin, distribution, from_figures, load_of, target_of
from loadgen.summary import Context, Distribution, Doubt, Summary, Window

AGGREGATE, REQUESTS = "_aiperf.json", ".jsonl"
"""How the names of its two files end; both begin with the prefix ``profile_export``, or the one that was asked for."""

DEFINITIONS: Mapping[str, str] = MappingProxyType(
    {
        "ttft_s": "From before the connection is opened to the first event with text, reasoning or a tool call.",
        "e2e_s": "Request latency: from before the connection is opened to the last event with content.",
        "tpot_s": "ITL: (request latency - TTFT) / (output tokens - 1), or less what the first chunk held.",
        "chunk_gap_s": "ICL: time between two events with content.",
        "request_rps": "Valid requests / length of the phase, from before the first send to after the last reply.",
        "output_tok_s": "Output tokens of valid requests / that length; by its tokenizer, unless told otherwise.",
        "total_tok_s": "Prompt and output tokens of valid requests / that length.",
    }
)
"""The tool's own, by our names."""

_DISTRIBUTIONS = {
    "ttft_s": ("time_to_first_token", 1e-3),
    "tpot_s": ("inter_token_latency", 1e-3),
    "e2e_s": ("request_latency", 1e-3),
    "request_tok_s": ("e2e_output_token_throughput", 1.0),
    "decode_tok_s": ("output_token_throughput_per_user", 1.0),
    "in_tok": ("input_sequence_length", 1.0),
    "out_tok": ("output_sequence_length", 1.0),
}
_STATISTICS = {"avg": "mean", "std": "population_sd"} | {
    name: name for name in ("min", "max", "p50", "p90", "p95", "p99")
}


def files_of(path: Path) -> tuple[Path, Path] | None:
    """The aggregate and the request lines that a path means, None where it means neither. The lines may be absent."""
    if path.is_dir():
        found = sorted(path.glob("*" + AGGREGATE))
        if len(found) > 1:
            names = ", ".join(one.name for one in found[:5])
            raise UsageError(f"{path} holds {len(found)} results of AIPerf ({names}); name one of the files.")
        path = found[0] if found else path
    if path.name.endswith(AGGREGATE):
        return path, path.with_name(path.name.removesuffix(AGGREGATE) + REQUESTS)
    if path.name.endswith(REQUESTS):
        aggregate = path.with_name(path.name.removesuffix(REQUESTS) + AGGREGATE)
        return (aggregate, path) if aggregate.exists() else None
    return None


def read(aggregate: Path, lines: Path) -> Measured:
    """The result of a folder. Raises UsageError for files that cannot be read or are none of this tool."""
    fields = parse(read_bytes(aggregate), str(aggregate))
    version, schema = fields.get("aiperf_version", str), fields.get("schema_version", str)
    axes, load, target = _configured(fields.object("input_config"))
    detailed = lines.exists() and lines.stat().st_size > 0
    layout = f"schema {schema or 'unknown'}"
    origin = Origin(tool=TOOL, version=version, layout=layout, read_in="0.13.0", definitions=dict(DEFINITIONS))
    length = _length(fields)
    window = window_of(lines, length) if detailed else Window(0.0, max(length, 1e-3))
    context = Context(
        concurrency=axes.get("concurrency"),
        stream=target.pop("stream", True),
        doubts=tuple(_doubts(fields, origin, detailed)),
    )
    return Measured(
        origin=origin,
        source=str(aggregate),
        axes=axes,
        target=target,
        load=load,
        started=fields.get("start_time", str) or "",
        window=window,
        context=context,
        records=records_of(lines, _counts_by_server(fields)) if detailed else None,
        summary=None if detailed else _summary(fields, window, context),
        schedule=detailed and has_schedule(lines),
    )


def _configured(config: Fields) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Axes, load and target, as far as the configuration that is kept in the file says them: today's has ``phases``
    and ``models``, that of 0.3 had ``loadgen`` and its models with the endpoint."""
    phases = [one for one in config.objects("phases") if one.get("kind", str) != "warmup"]
    phase = phases[-1] if phases else config.object("loadgen")
    rate = phase.get("rate", float) or phase.get("request_rate", float)
    in_flight = positive(phase.get("concurrency", int), f"{phase.where}: concurrency")
    axes: dict[str, Any] = {"concurrency": in_flight} if in_flight else {}
    if rate is not None:
        axes = {"rate_rps": positive(rate, f"{phase.where}: rate")}
    kind = phase.get("type", str) or phase.get("request_rate_mode", str)
    load = {**load_of(axes, kind), "requests": phase.get("requests", int) or phase.get("request_count", int)}
    return axes, load, _target(config, config.object("endpoint"))


def _target(config: Fields, endpoint: Fields) -> dict[str, Any]:
    models = [one.get("name", str) for one in config.object("models").objects("items")]
    models += endpoint.get("model_names", list[str]) or []
    urls = [*(endpoint.get("urls", list[str]) or ()), endpoint.get("url", str)]
    target = target_of(next(filter(None, models), None), next(filter(None, urls), None), endpoint.get("type", str))
    return {**target, "stream": endpoint.get("streaming", bool) is True}


def _counts_by_server(fields: Fields) -> bool:
    return bool(fields.object("input_config").object("endpoint").get("use_server_token_count", bool))


def _length(fields: Fields) -> float:
    """What AIPerf divides by, in seconds: the phase, which lasts from before the first send to after the last reply."""
    count, rate = _average(fields, "request_count"), _average(fields, "request_throughput")
    length = count / rate if count and rate else _average(fields, "benchmark_duration")
    return seconds(length, f"{fields.where}: benchmark_duration") or 0.0


def _average(fields: Fields, name: str) -> float | None:
    return fields.object(name).get("avg", float) if name in fields else None


def _summary(fields: Fields, window: Window, context: Context) -> Summary:
    """The summary of a result whose requests were not exported."""
    ok, failed = int(_average(fields, "request_count") or 0), int(_average(fields, "error_request_count") or 0)
    figures = {
        "request_rps": _average(fields, "request_throughput"),
        "output_tok_s": _average(fields, "output_token_throughput"),
        "total_tok_s": _average(fields, "total_token_throughput"),
        "goodput_rps": _average(fields, "goodput"),
        "in_tok_sum": tokens(_average(fields, "total_isl"), fields.where),
        "out_tok_sum": tokens(_average(fields, "total_osl"), fields.where),
    }
    found: dict[str, Distribution] = {}
    for ours, (theirs, scale) in _DISTRIBUTIONS.items():
        if theirs in fields:
            held = fields.object(theirs)
            found[ours] = distribution(ok, {name: held.get(word, float) for word, name in _STATISTICS.items()}, scale)
    return from_figures(window, context, {"ok": ok, "http_error": failed}, figures if ok else {}, found)


def _doubts(fields: Fields, origin: Origin, detailed: bool) -> Iterator[Doubt]:
    longest = fields.object("http_req_connecting").get("max", float)
    connecting = f" (up to {longest:.3g} ms here)" if longest else ""
    yield Doubt(
        "imported",
        f"Measured by {origin.name}, not by loadgen: its client stamps events when it gets "
        f"to read them, and opening the connection is part of its TTFT{connecting}.",
    )
    yield from origin.doubts()
    usage, counted = _average(fields, "total_usage_completion_tokens"), _average(fields, "total_osl")
    by = "the server's usage where a reply had it, else AIPerf's tokenizer" if detailed else "AIPerf's own count"
    if _counts_by_server(fields):
        by = "the server's usage"
    apart = ""
    if usage and counted and usage != counted:
        apart = f"; of the same replies AIPerf counted {counted:.0f}, the server {usage:.0f}"
    yield Doubt("imported_tokens", f"Output tokens are {by}{apart}.")
    yield Doubt(
        "imported_failures",
        "A stream that ended early or brought an error after its first token counts as ok, unless its connection "
        "broke.",
    )
    if not detailed:
        yield Doubt(
            "imported_figures",
            "There are no single requests (profile_export.jsonl): the figures are the tool's own, percentiles are "
            "interpolated, and everything that it does not say is blank.",
        )
