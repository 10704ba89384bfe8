"""The noise floor: how much the repeats of one thing differ on this machine, and so what a comparison here can claim.

In: the repeats of a target that was held against itself (``loadgen calibrate``). Out: the coefficient of variation of
every measure in every cell, kept in the store, and the doubt of a comparison that claims less than that can carry.

There are two figures, since a machine's moods last longer than a repeat: ``cv`` is how much repeats differ, ``pair_cv``
what of it is left between the two repeats of a pair, which follow each other. Where nothing drifts they are the same;
pairs are compared by the second, repeats that were not interleaved and nights by the first.

A floor belongs to a kind of machine (processor, memory, GPUs; not its name, which a container changes at every start),
to a scope (a restart between repeats, or none) and to a load: what is asked, and when. It holds for every target under
that load. Formulas: the specification's section 3.2, points 7 and 10.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from loadgen.comparing.comparison import ComparedCell, Comparison
from loadgen.errors import StoreError
from loadgen.metrics import measure
from loadgen.scenario import Cell, Scenario
from loadgen.statistics import LEVEL, MIN_REPEATS, Ratio, Verdict
from loadgen.store import make_folder, write_json
from loadgen.summary import Doubt

VERSION = 1
"""Version of a stored floor's layout; raised when a field changes its meaning."""

Scope = Literal["restart", "instance"]

UNKNOWN = (
    "The noise floor of this machine is not known for this load: `loadgen calibrate SCENARIO` measures it, and later "
    "comparisons say when they claim less."
)

DIFFERENT = (Verdict.FASTER, Verdict.SLOWER, Verdict.SMALL_DIFFERENCE)
"""Verdicts that claim a difference."""

_GIVES_UP = ("drain_s", "timeout_s", "stall_timeout_s", "connect_timeout_s", "max_event_bytes")
"""Words of a load that only say when to give up."""


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """The noise of one measure under one load. ``cv`` is the standard deviation of the logarithm over repeats, 0.01 for
    about 1 %; ``pair_cv`` that of the difference in a pair, divided by the square root of 2 to be that of one repeat.
    They come from ``n`` repeats of ``target`` in all, in the run ``run``, which ended ``at``."""

    cv: float
    pair_cv: float
    n: int
    target: str
    run: str
    at: str


class FloorCell(msgspec.Struct, frozen=True, kw_only=True):
    """One calibrated cell: its load (see `load_key`), the repeats of both sides, and the noise of each measure
    (``p50 ttft_s``), of repeats and in pairs."""

    cell: str
    axes: dict[str, Any]
    load: str
    n: int
    cv: dict[str, float]
    pair_cv: dict[str, float]


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """What one calibration found. ``machine`` is the fingerprint of the machine, ``key`` its kind; ``run`` is the run
    that it comes from, which ended ``at``."""

    v: int = VERSION
    key: str
    machine: dict[str, Any]
    scope: Scope
    scenario: str
    target: str
    run: str
    at: str
    cells: tuple[FloorCell, ...]


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What a run knew of noise when it began, so that its report stays what it was: the key of each cell's load, and
    the noise of the comparison's primary measure, by cell."""

    loads: dict[str, str] = msgspec.field(default_factory=dict)
    known: dict[str, Noise] = msgspec.field(default_factory=dict)


def pooled_cv(sides: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation of the logarithm of a measure within sides, all of them taken together.

    Each side has its own mean, so that a difference between the sides is no noise. None without two values above zero
    on some side.
    """
    squares, freedom = 0.0, 0
    for side in sides:
        logs = [math.log(value) for value in side if value > 0]
        if len(logs) > 1:
            mean = math.fsum(logs) / len(logs)
            squares += math.fsum((value - mean) ** 2 for value in logs)
            freedom += len(logs) - 1
    return math.sqrt(squares / freedom) if freedom else None


def pair_cv(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The noise that is left between the two repeats of a pair: sd of ln(b_i / a_i) / sqrt(2). None under two pairs."""
    if min(len(a), len(b)) < 2:
        return None
    d = [math.log(after / before) for before, after in zip(a, b, strict=True)]
    mean = math.fsum(d) / len(d)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in d) / (len(d) - 1) / 2)


def half_width(cv: float, repeats: int, paired: bool = True) -> float:
    """Half the 95 % interval of ln(B / A) that so many repeats of each side give where the noise is ``cv``.

    t sqrt(2 / R) cv, with R - 1 degrees of freedom for pairs and 2 (R - 1) for sides that were not interleaved. At a
    cv of 1 % that is 3.5 % for three pairs, 1.5 % for six and 1.0 % for ten.
    """
    from scipy.special import stdtrit

    freedom = repeats - 1 if paired else 2 * (repeats - 1)
    return float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(2 / repeats) * cv


def machine_key(machine: Mapping[str, Any]) -> str:
    """The kind of a machine by its fingerprint: processor, cores, memory and GPUs. '' for one that is not known."""
    if not machine.get("cpu"):
        return ""
    gpus = [gpu.get("name") for gpu in machine.get("gpus", ())]
    words = [machine["cpu"], machine.get("cores"), round(machine.get("memory_gb") or 0), machine.get("os"), gpus]
    return hashlib.sha256(msgspec.json.encode(words)).hexdigest()[:12]


def load_key(cell: Scenario) -> str:
    """Equal for two cells that are asked the same in the same way, whatever their targets are.

    What only says when to give up, the seed and the keeping of texts make no difference.
    """
    workload = cell.workload.model_dump(mode="json", exclude={"save_text", "routing_check"})
    load = cell.load.model_dump(mode="json", exclude=set(_GIVES_UP))
    text = msgspec.json.encode([workload, load], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:12]


def write_floor(root: Path, floor: Floor) -> Path:
    """Keeps a floor in the store and gives its file. A calibration of the same target under the same loads replaces
    the one before. Raises StoreError."""
    same = msgspec.json.encode([floor.scenario, floor.target, floor.scope, [cell.load for cell in floor.cells]])
    name = f"{floor.scenario}-{floor.target}-{hashlib.sha256(same).hexdigest()[:6]}.json"
    path = make_folder(root / "noise" / (floor.key or "unknown")) / name
    write_json(path, floor)
    return path


def floors(root: Path, key: str) -> Iterator[Floor]:
    """Every floor that the store has for a kind of machine. Raises StoreError for a file that is none."""
    for path in sorted((root / "noise" / key).glob("*.json")) if key else ():
        try:
            yield msgspec.json.decode(path.read_bytes(), type=Floor)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise StoreError(f"{path} is no noise floor: {error}; remove it, and calibrate again.") from error


def noise_of(root: Path, machine: Mapping[str, Any], scope: Scope, load: str, what: str) -> Noise | None:
    """The noise of a measure (``p50 ttft_s``) under a load on a kind of machine: that of the noisiest target that was
    calibrated so. None where nobody has. Raises StoreError, and UsageError for a measure that does not exist."""
    name = str(measure(what))
    found = [
        Noise(
            cv=cell.cv[name],
            pair_cv=cell.pair_cv[name],
            n=cell.n,
            target=floor.target,
            run=floor.run,
            at=floor.at,
        )
        for floor in floors(root, machine_key(machine))
        if floor.scope == scope
        for cell in floor.cells
        if cell.load == load and name in cell.cv and name in cell.pair_cv
    ]
    return max(found, key=lambda noise: noise.cv, default=None)


def remember(root: Path, machine: Mapping[str, Any], scenario: Scenario, cells: Mapping[str, Cell]) -> Remembered:
    """What a run that starts now can know of the noise that it will meet. Raises StoreError."""
    loads = {name: load_key(cell.scenario) for name, cell in cells.items()}
    if scenario.comparison is None:
        return Remembered(loads=loads)
    words = scenario.comparison
    found = {cell: noise_of(root, machine, words.scope, load, words.metric) for cell, load in loads.items()}
    return Remembered(loads=loads, known={cell: noise for cell, noise in found.items() if noise is not None})


def remembered(described: Mapping[str, Any]) -> Remembered:
    """What a run.json has of it; nothing in one of a time when nobody asked."""
    return msgspec.convert(described.get("noise") or {}, Remembered)


def doubted(comparison: Comparison, known: Mapping[str, Noise]) -> Comparison:
    """The comparison with a doubt on every cell that claims a smaller difference than the noise can carry.

    ``known`` is the noise of the primary measure by cell. Where none of the cells that have an interval has one, a
    note says so, once.
    """
    cells = tuple(_doubted(cell, known.get(cell.cell)) for cell in comparison.cells)
    inferred = [cell for cell in cells if cell.primary.ratio is not None and cell.primary.ratio.n >= MIN_REPEATS]
    unknown = bool(inferred) and not any(cell.cell in known for cell in inferred)
    notes = (*comparison.notes, UNKNOWN) if unknown else comparison.notes
    return msgspec.structs.replace(comparison, cells=cells, notes=notes)


def _doubted(cell: ComparedCell, noise: Noise | None) -> ComparedCell:
    ratio = cell.primary.ratio
    if noise is None or ratio is None or cell.primary.verdict not in DIFFERENT:
        return cell
    carried = half_width(noise.pair_cv if ratio.paired else noise.cv, ratio.n, ratio.paired)
    if abs(math.log(ratio.value)) >= carried:
        return cell
    doubt = Doubt("noise_floor", _sentence(cell, ratio, noise, carried))
    return msgspec.structs.replace(cell, doubts=(*cell.doubts, doubt))


def _sentence(cell: ComparedCell, ratio: Ratio, noise: Noise, carried: float) -> str:
    claimed = abs(math.expm1(math.log(ratio.value)))
    varies = f"{noise.pair_cv * 100:.2g} % within a pair" if ratio.paired else f"{noise.cv * 100:.2g} % between repeats"
    return (
        f"The difference of {claimed * 100:.2g} % between {cell.candidate} and {cell.baseline} in {cell.cell} is below "
        f"the noise floor: {cell.primary.label} varies by {varies} here (calibrated with {noise.target}, "
        f"{noise.at[:10]}), and {ratio.n} repeats resolve {math.expm1(carried) * 100:.2g} %."
    )
