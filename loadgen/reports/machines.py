"""Memory, energy, the server's own TTFT and prefix cache as rows: what machines say beside what the client measured.

In: a `RunReport`. Out: tables of text for the terminal, Markdown and HTML. A value is the mean over the valid repeats
that have it; columns that nobody has are left out, and so is a table without any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.fair.facts import starts_of
from loadgen.repeat import Result
from loadgen.reports.rows import axis_names, labels
from loadgen.reports.yardsticks import Column
from loadgen.shown import DASH, number
from loadgen.telemetry.measured import GpuUse, Telemetry

MEMORY = "Memory, energy, cores"
TTFT = "TTFT by the server's clock and by the client's"
PREFIX = "Prefix cache: what the workload implies, and what the server says"
GIB = 2.0**30


class Held(NamedTuple):
    """A target in a cell. ``given`` are bytes and tokens that the engine says it set aside, by our word; ``idle`` is
    the power of its GPUs before the run, None where nobody knows."""

    cell: ReportCell
    target: str
    results: Sequence[Result]
    given: Mapping[str, float]
    idle: float | None


class Table(NamedTuple):
    """A table with a heading, its columns (the most telling first), how its rows are built, and what must be said."""

    heading: str
    columns: Sequence[Column]
    rows: Callable[[Sequence[Column]], list[list[str]]]
    notes: list[str]


def _of(what: Callable[[Telemetry], float | None], scale: float = 1.0) -> Callable[[Held], str]:
    return lambda held: number(_mean([what(result.telemetry) for result in held.results]), scale)


def _given(word: str, scale: float = 1.0) -> Callable[[Held], str]:
    return lambda held: number(held.given.get(word), scale)


def _gpu(what: Callable[[GpuUse], float | None], scale: float = 1.0) -> Callable[[Held], str]:
    def text(held: Held) -> str:
        gpus = [gpu for result in held.results for gpu in result.telemetry.gpus if gpu.ours]
        return number(_mean([what(gpu) for gpu in gpus]), scale)

    return text


def _result(what: Callable[[Result], float | None], scale: float = 1.0) -> Callable[[Held], str]:
    return lambda held: number(_mean([what(result) for result in held.results]), scale)


def _implied(held: Held) -> str:
    """The bounds of what a prefix cache could give; one number where they print alike."""
    found = [result.implied for result in held.results if result.implied is not None]
    low, high = number(_mean([one.low for one in found]), 100), number(_mean([one.high for one in found]), 100)
    return low if low == high else f"{low} to {high}"


def _block(held: Held) -> str:
    """The tokens of a block of the cache, as far as the scenario says."""
    sizes = {result.implied.cache_block for result in held.results if result.implied is not None}
    return ", ".join(map(str, sorted(sizes))) if sizes - {1} else DASH


def _between(held: Held) -> float | None:
    server, client = _server_ttft(held), _client_ttft(held)
    return None if server is None or client is None else client - server


def _server_ttft(held: Held) -> float | None:
    return _mean([result.seen.ttft_s for result in _with_both(held)])


def _client_ttft(held: Held) -> float | None:
    return _mean([result.telemetry.client_ttft_s for result in _with_both(held)])


def _with_both(held: Held) -> Sequence[Result]:
    """The repeats of which both sides' TTFT is known: means of different repeats have no difference that says anything.
    Those of which the server's is where the client's never is."""
    both = [one for one in held.results if one.seen.ttft_s is not None and one.telemetry.client_ttft_s is not None]
    return both or held.results


COLUMNS = (
    Column("GPU GB", _of(lambda one: one.gpu_peak_bytes, 1e-9)),
    Column("torch GB", _of(lambda one: one.torch_peak_bytes, 1e-9)),
    Column("weights GB", _given("weights", 1e-9), 4),
    Column("KV GB", _given("kv", 1e-9), 5),
    Column("KV tok", _given("kv_tokens"), 6),
    Column("server GB", _of(lambda one: one.server_rss_peak_bytes, 1e-9), 3),
    Column("server cores", _of(lambda one: one.server_cores), 7),
    Column("client cores", _of(lambda one: one.client_cores), 8),
    Column("GPU %", _gpu(lambda one: one.utilisation, 100), 2),
    Column("W", _of(lambda one: one.watts)),
    Column("idle W", lambda held: number(held.idle), 1),
    Column("J", _of(lambda one: one.energy_j)),
)

MORE = (
    COLUMNS[0],
    Column("GPU GB steady", _of(lambda one: one.gpu_steady_bytes, 1e-9)),
    COLUMNS[1],
    Column("torch GB reserved", _of(lambda one: one.torch_reserved_bytes, 1e-9)),
    *COLUMNS[2:8],
    Column("client GB", _of(lambda one: one.client_rss_peak_bytes, 1e-9)),
    Column("host GB", _of(lambda one: one.host_peak_bytes, 1e-9)),
    COLUMNS[8],
    Column("SM MHz", _gpu(lambda one: one.sm_mhz)),
    Column("hottest C", _gpu(lambda one: one.celsius_max)),
    Column("power cap %", _gpu(lambda one: one.power_cap, 100)),
    *COLUMNS[9:],
)

TTFT_COLUMNS = (
    Column("server ms", lambda held: number(_server_ttft(held), 1e3)),
    Column("client ms", lambda held: number(_client_ttft(held), 1e3)),
    Column("between ms", lambda held: number(_between(held), 1e3)),
    Column("queue ms", lambda held: number(_mean([one.seen.queue_s for one in held.results]), 1e3), 1),
)

PREFIX_COLUMNS = (
    Column("implied %", _implied),
    Column("by the replies %", _result(lambda one: one.summary.cached_share, 100)),
    Column("by its counters %", _result(lambda one: one.seen.cached_share, 100)),
    Column("block", _block, 1),
)

ASKED = (
    "Shares of prompt tokens. Implied: of prompts that begin like earlier ones, in whole blocks, for a cache that "
    "forgets nothing; from what had been read when each was sent, to all that had been asked. The counters are read at "
    "the edges of the window, whatever was in flight there."
)

BETWEEN = (
    "Means over the same requests: those that got their first token between the same two looks at the server, warm-up "
    "and failures among them. Between the two lie the network and the server's front end (HTTP, template, tokenizer). "
    "The queue is part of the server's."
)


def tables(report: RunReport, more: bool = False) -> list[Table]:
    """Those that have anything to show; with ``more`` every column."""
    held = list(_held(report))
    found = []
    for heading, columns in ((MEMORY, MORE if more else COLUMNS), (TTFT, TTFT_COLUMNS)):
        known = [column for column in columns if any(column.text(one) != DASH for one in held)]
        shown = [one for one in held if any(column.text(one) != DASH for column in known)]
        if known and (heading == MEMORY or any(_server_ttft(one) is not None for one in held)):
            notes = list(_memory_notes(shown)) if heading == MEMORY else [BETWEEN]
            found.append(Table(heading, known, _rows(report, shown), notes))
    sharing = [one for one in held if any(result.implied is not None for result in one.results)]
    known = [column for column in PREFIX_COLUMNS if any(column.text(one) != DASH for one in sharing)]
    return [*found, Table(PREFIX, known, _rows(report, sharing), [ASKED])] if sharing else found


def _rows(report: RunReport, shown: Sequence[Held]) -> Callable[[Sequence[Column]], list[list[str]]]:
    head = [*(axis_names(report) or ["cell"]), "target"]
    return lambda columns: [
        [*head, *(column.head for column in columns)],
        *([*labels(report, one.cell), one.target, *(column.text(one) for column in columns)] for one in shown),
    ]


def _memory_notes(shown: Sequence[Held]) -> Iterator[str]:
    found = [result.telemetry for one in shown for result in one.results]
    how = {one.gpu_memory for one in found}
    if "process" in how:
        yield "GPU GB: peak of what the server's processes held, over its GPUs."
    if "gpu" in how:
        yield "GPU GB: peak of all that was in use on its GPUs: whose it was could not be told."
    if any(one.torch_peak_bytes is not None for one in found):
        yield "torch GB: peak of live tensors over GPUs (torch.cuda.max_memory_allocated), of each repeat anew."
    if any(one.server_rss_peak_bytes is not None for one in found):
        yield "server GB: peak resident memory of the server's processes; pages that they share count in each."
    if any(one.watts is not None and one.energy_j is None for one in found):
        yield "No joules: energy is told for windows of 30 s and more alone, by counters that move every second."


def _held(report: RunReport) -> Iterator[Held]:
    for cell in report.cells:
        for target in cell.targets:
            results = target.good
            yield Held(cell, target.target, results, _set_aside(report, cell.id, target), _idle(report, results))


def _set_aside(report: RunReport, cell: str, target: TargetCell) -> dict[str, float]:
    """What the engine says that it gave to weights and to the KV cache, over all GPUs, as the last of its servers has
    it. What vLLM's log says in GiB is said by each rank of its own GPU; the tokens are the engine's."""
    servers: Mapping[str, Mapping[str, Any]] = report.run.get("servers") or {}
    facts: dict[str, Any] = {}
    for name in starts_of(report.plan, cell, target.target, servers):
        facts |= {word: value for word, value in (servers[name].get("facts") or {}).items() if value is not None}
    every = GIB * (target.gpus or 1)
    scales = {
        "weights_bytes": ("weights", 1.0),
        "weights_gib": ("weights", every),
        "kv_gib": ("kv", every),
        "kv_tokens": ("kv_tokens", 1.0),
    }
    return {
        word: facts[fact] * scale
        for fact, (word, scale) in scales.items()
        if isinstance(facts.get(fact), int | float) and not isinstance(facts[fact], bool)
    }


def _idle(report: RunReport, results: Sequence[Result]) -> float | None:
    idle: Mapping[str, float] = report.run.get("idle_watts") or {}
    uuids = {gpu.uuid for result in results for gpu in result.telemetry.gpus if gpu.ours}
    return sum(idle[uuid] for uuid in uuids) if uuids and uuids <= idle.keys() else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
