"""Requests as a trace has them: its lengths, its shared prefixes and, with ``load: {arrival: trace}``, its times.

    prompts: trace
    path: conversation_trace.jsonl
    format: mooncake                       a file in loadgen/traces: mooncake, timed, azure, burstgpt, csv
    scale: 2                               time runs twice as fast: twice the rate
    from_s: 600                            the part of the trace from here
    to_s: 1200                             to here; first: 500 takes so many of it
    failures: drop                         rows without a reply; keep asks them for one token
    max_model_len: 8192                    prompt and reply together; too_long: refuse, clip or drop what has more
    output: {exact: trace}                 every reply as long as it was (or {max: trace}, or a number)

A trace has no text: its prompts are random token ids of its lengths (see ``ids``). Blocks with the same hash id are the
same ids, and a partial block is the beginning of the whole one; the rest of a prompt is its own. The ids depend on the
seed, so that a repeat finds nothing of the one before in a server's cache. ``columns``, ``time_unit``, ``block_tokens``
and ``where`` say how the file is read (see ``loadgen/traces``).

Session i is row i in the order of time. Where a load asks for more sessions than there are rows it begins again, with
other ids: who shares with whom is the same, and nothing is shared with the pass before.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from loadgen import traces
from loadgen.errors import UsageError
from loadgen.lengths import Count
from loadgen.record import Prompt
from loadgen.summary import Doubt
from loadgen.traces.cut import OUTSIDE, TOO_LONG, Cut, Trace, cut
from loadgen.workloads import Context, data_file, parse
from loadgen.workloads.ids import allowed_ids, described, draw
from loadgen.workloads.outline import Outline
from loadgen.workloads.template import Shaper

_REASONS = MappingProxyType({TOO_LONG: "as too long"})


class Settings(Cut, frozen=True, kw_only=True):
    """See the head of the file; None where a setting was not given."""

    path: str
    format: str
    columns: dict[str, str] = msgspec.field(default_factory=dict)
    time_unit: traces.TimeUnit | None = None
    block_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    where: dict[str, str | int | float | bool] = msgspec.field(default_factory=dict)
    vocab_size: Count | None = None
    first_id: Annotated[int, msgspec.Meta(ge=0)] | None = None

    @property
    def how(self) -> traces.How:
        """How the file is read."""
        return traces.How(
            columns=self.columns,
            time_unit=self.time_unit,
            block_tokens=self.block_tokens,
            where={name: str(value) for name, value in self.where.items()},
        )


class TraceSource:
    """The requests of a trace."""

    name = "trace"

    def __init__(self, settings: Settings, file: Path, context: Context) -> None:
        self._trace = _replayed(settings, file)
        self.size: int | None = len(self._trace)
        self._settings = settings
        self._file = file
        self._context = context
        self._block = settings.block_tokens or traces.load(settings.format).BLOCK_TOKENS
        self._allowed = allowed_ids(settings.vocab_size, settings.first_id, context)
        self._shaper = Shaper(self.name, context, templated=False)

    def session(self, index: int) -> tuple[Prompt, ...]:
        """One prompt: its blocks, then what is its own."""
        lap, row = divmod(index, len(self._trace))
        seed, length = self._context.seed, self._trace.in_tok[row]
        ids: list[int] = []
        for block, tokens in self._blocks(row):
            ids += draw(self._allowed, self._block, f"{seed}:block:{lap}:{block}")[:tokens]
        ids += draw(self._allowed, length - len(ids), f"{seed}:ids:{index}")
        return (self._shaper.as_ids(ids, self._ask_tok(row)),)

    def outline(self, index: int) -> Outline:
        """The lengths of a prompt and its reply, and its blocks."""
        lap, row = divmod(index, len(self._trace))
        blocks = tuple((block + (lap << 64), tokens) for block, tokens in self._blocks(row))
        return Outline(self.name, self._trace.in_tok[row], self._ask_tok(row), blocks)

    def _blocks(self, row: int) -> list[tuple[int, int]]:
        """The blocks of a prompt, the last perhaps in part; one that was clipped has fewer than the trace."""
        length = self._trace.in_tok[row]
        return [
            (block, min(self._block, length - at * self._block))
            for at, block in enumerate(self._trace.hash_ids(row))
            if at * self._block < length
        ]

    def _ask_tok(self, row: int) -> int:
        return self._context.ask_tok or (0 if self._context.output else self._trace.out_tok[row])

    def doubts(self) -> list[Doubt]:
        """What was not sent as it stands in the trace, beyond the part that was asked for."""
        trace = self._trace
        said = [
            f"{count} left out {_REASONS.get(reason, reason)}"
            for reason, count in trace.dropped.items()
            if reason != OUTSIDE and count
        ]
        if trace.clipped:
            said.append(f"{trace.clipped} cut to length")
        what = f"Of {trace.total} requests that were read from the trace, {' and '.join(said)}"
        text = f"{what}: what was sent is not all of its traffic."
        return [Doubt("trace_cut", text)] if said else []

    def describe(self) -> dict[str, Any]:
        """The file and its SHA-256, what of it is replayed, what was left out for which reason."""
        settings = msgspec.to_builtins(self._settings)
        return {
            "kind": self.name,
            "size": self.size,
            **{word: settings[word] for word in ("path", "format", *Cut.__struct_fields__, "where")},
            "block_tokens": self._block,
            "read": self._trace.total,
            "dropped": dict(self._trace.dropped),
            "clipped": self._trace.clipped,
            "ids": described(self._allowed),
            "sha256": _sha256(self._file),
        }


def open(settings: dict[str, Any], context: Context) -> TraceSource:
    """The requests of a trace. Raises UsageError for settings, a file or the first line that cannot be used."""
    chosen = parse("trace", settings, Settings)
    return TraceSource(chosen, data_file(chosen.path, context), context)


def offsets(settings: dict[str, Any], context: Context) -> list[float]:
    """When the requests of a trace are sent, in seconds from the start. Raises UsageError."""
    chosen = parse("trace", settings, Settings)
    return _replayed(chosen, data_file(chosen.path, context)).offsets()


def lengths(settings: dict[str, Any], context: Context) -> list[tuple[int, int]]:
    """The tokens of each request's prompt and of its reply, as the trace has them. Raises UsageError."""
    chosen = parse("trace", settings, Settings)
    trace = _replayed(chosen, data_file(chosen.path, context))
    return list(zip(trace.in_tok, trace.out_tok, strict=True))


def _replayed(settings: Settings, file: Path) -> Trace:
    return cut(traces.load(settings.format).rows(file, settings.how), settings, str(file))


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"workload.path: {file} cannot be read: {error.strerror or error}.") from error
