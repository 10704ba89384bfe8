"""The request lines of AIPerf (``profile_export.jsonl``) as records, one at a time: a file may hold millions.

In: the path. Out: the window, and an iterator of `Record`. Times are nanoseconds of the wall clock in the metadata and
milliseconds in the metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import msgspec

from loadgen.errors import UsageError
from loadgen.importing.fields import seconds, tokens
from loadgen.importing.measured import status_of
from loadgen.metrics import tpot
from loadgen.record import Record
from loadgen.summary import Window

TOOL = "AIPerf"


class Value(msgspec.Struct, frozen=True):
    """A metric of one request. Its unit is the one that the exporter shows: milliseconds, tokens."""

    value: float | list[float] | None = None


Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Metadata(msgspec.Struct, frozen=True):
    """Who, when and in which phase; times are nanoseconds of the wall clock."""

    request_start_ns: Nanoseconds
    request_end_ns: Nanoseconds
    credit_issued_ns: Nanoseconds | None = None
    session_num: int = 0
    turn_index: int | None = None
    benchmark_phase: str = "profiling"
    was_cancelled: bool = False


class Line(msgspec.Struct, frozen=True):
    """One line of profile_export.jsonl."""

    metadata: Metadata
    metrics: dict[str, Value] = {}
    error: dict[str, Any] | None = None

    def one(self, name: str) -> float | None:
        """A metric that is a number, None where it is absent."""
        held = self.metrics.get(name)
        return held.value if held is not None and not isinstance(held.value, list) else None

    def many(self, name: str) -> list[float]:
        """A metric that is a list, empty where it is absent."""
        held = self.metrics.get(name)
        return held.value if held is not None and isinstance(held.value, list) else []


def _lines(path: Path) -> Iterator[tuple[Line, str]]:
    """Every line with its place. A last line without its end was cut off with the process, and is passed over."""
    decoder = msgspec.json.Decoder(Line)
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if text.endswith(b"\n") and text.strip():
                try:
                    yield decoder.decode(text), f"{path}:{number}"
                except (msgspec.MsgspecError, RecursionError) as error:
                    raise UsageError(f"{path}:{number} is no request of AIPerf: {error}") from error


def window_of(lines: Path, length: float) -> Window:
    """From the first send of a measured request, in seconds from the first send of all: as long as AIPerf says, and
    to the end of the last request at least."""
    first = min((line.metadata.request_start_ns for line, _ in _lines(lines)), default=0)
    begin, end = None, first
    for line, _ in _lines(lines):
        if line.metadata.benchmark_phase != "warmup":
            begin = min(begin or line.metadata.request_start_ns, line.metadata.request_start_ns)
            end = max(end, line.metadata.request_end_ns)
    w0 = ((begin or first) - first) / 1e9
    return Window(w0, max((end - first) / 1e9, w0 + length, w0 + 1e-3))


def has_schedule(lines: Path) -> bool:
    """Whether AIPerf kept when it meant to send; older versions did not."""
    first = next(_lines(lines), None)
    return first is not None and first[0].metadata.credit_issued_ns is not None


def records_of(lines: Path, by_server: bool) -> Iterator[Record]:
    """The records, in the order of the file. ``by_server``: AIPerf took its token counts from the server's usage."""
    first = min((line.metadata.request_start_ns for line, _ in _lines(lines)), default=0)
    for seq, (line, where) in enumerate(_lines(lines)):
        yield _record(seq, line, first, by_server, where)


def _record(seq: int, line: Line, first: int, by_server: bool, where: str) -> Record:
    meta = line.metadata
    sent, end = (meta.request_start_ns - first) / 1e9, (meta.request_end_ns - first) / 1e9
    issued = meta.credit_issued_ns
    fresh = line.one("http_req_connection_reused") == 0
    common: dict[str, Any] = {
        "driver": TOOL,
        "seq": seq,
        "session": meta.session_num,
        "turn": meta.turn_index or 0,
        "source": "imported",
        "phase": "warmup" if meta.benchmark_phase == "warmup" else "measure",
        "t_sched": sent if issued is None else (issued - first) / 1e9,
        "t_send": seconds(sent, where),
        "t_end": seconds(max(end, sent), where),
        "conn_s": seconds(line.one("http_req_connecting"), where, 1e-3) if fresh else None,
        "in_tok": tokens(line.one("usage_prompt_tokens"), where),
        "in_tok_client": tokens(line.one("input_sequence_length"), where),
        "cached_tok": tokens(line.one("usage_prompt_cache_read_tokens"), where),
    }
    if common["in_tok"] is None and by_server:
        common["in_tok"] = common["in_tok_client"]
    if line.error is not None or meta.was_cancelled:
        code, text = (
            (line.error or {}).get("code"),
            f"{(line.error or {}).get('type')}: {(line.error or {}).get('message')}",
        )
        status = "cancelled" if meta.was_cancelled else status_of(text, code if isinstance(code, int) else None)
        return Record(**common, status=status, http=code if isinstance(code, int) else None, err=text[:500])
    return Record(**common, **_reply(line, sent, by_server, where))


def _reply(line: Line, sent: float, by_server: bool, where: str) -> dict[str, Any]:
    """What an ok request came to."""
    ttft = seconds(line.one("time_to_first_token"), f"{where}: time_to_first_token", 1e-3)
    e2e = seconds(line.one("request_latency"), f"{where}: request_latency", 1e-3)
    usage, counted = line.one("usage_completion_tokens"), line.one("output_sequence_length")
    out_tok = tokens(counted if usage is None else usage, f"{where}: output tokens")
    source = None if out_tok is None else "usage" if usage is not None or by_server else "tokenizer"
    gaps = [seconds(gap, f"{where}: inter_chunk_latency", 1e-3) or 0.0 for gap in line.many("inter_chunk_latency")]
    return {
        "t_first": None if ttft is None else sent + ttft,
        "t_last": None if e2e is None else sent + e2e,
        "ttft_s": ttft,
        "tpot_s": tpot(ttft, e2e, out_tok),
        "e2e_s": e2e,
        "chunk_us": [] if ttft is None else [round(at * 1e6) for at in accumulate([ttft, *gaps])],
        "out_tok": out_tok,
        "tok_source": source,
        "status": "ok",
        "http": 200,
    }
