"""What comparing two targets came to: the `Comparison` that `compare` makes. Structs only, all of them JSON.

A ratio is always candidate / baseline. Whether more is better belongs to the metric, so that "faster" means better for
throughput and for latency alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from loadgen.statistics import Ratio, Verdict
from loadgen.summary import Doubt, Summary

VERSION = 1
"""Version of the comparison's layout; raised when a field changes its meaning."""


class Sides(msgspec.Struct, frozen=True):
    """One thing of both sides by repeat, None where it is not known; empty where nobody asked."""

    baseline: tuple[float | None, ...] = ()
    candidate: tuple[float | None, ...] = ()


class CellPairs(msgspec.Struct, frozen=True, kw_only=True):
    """The two sides of one cell, repeat by repeat: entry i of both belongs to pair i, None where it is missing.

    ``axes`` are the matrix values of the cell by axis name. ``paired`` is False where the sides were not interleaved
    (other days, other runs). ``differences`` are sentences on what else differs than the declared factor, or on a gate
    that failed before timing; one is enough for "not comparable". ``batch_seen`` is the mean size of the batches that
    each server says it ran, by repeat; ``cached`` the share of prompt tokens that came from a prefix cache, likewise;
    ``gpus`` how many GPUs baseline and candidate run on, None where unknown.
    ``doubts`` are those that the caller already has.
    """

    cell: str
    axes: dict[str, int | float | str]
    baseline: str
    candidate: str
    baseline_repeats: Sequence[Summary | None]
    candidate_repeats: Sequence[Summary | None]
    paired: bool = True
    differences: tuple[str, ...] = ()
    batch_seen: Sides = Sides()
    cached: Sides = Sides()
    gpus: tuple[int | None, int | None] = (None, None)
    doubts: tuple[Doubt, ...] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to compare.

    ``primary`` is the measure that verdicts and Holm's family are about; ``secondary`` ones get ratio and interval
    without a verdict. ``margins`` override the defaults of ``metrics.py``, by measure or by metric. ``axis`` is the
    numeric axis along which crossings are looked for, None for no search; cells that differ in other axes are
    searched apart. ``scope`` says what lies between two repeats: a restart of the server, or nothing (one instance
    of it). ``sequential`` is True where repeats were added until the interval was narrow enough.
    """

    primary: str = "output_tok_s"
    secondary: tuple[str, ...] = (
        "output_tok_s",
        "request_rps",
        "total_tok_s",
        "p50 ttft_s",
        "p99 ttft_s",
        "p50 tpot_s",
        "p99 tpot_s",
    )
    margins: dict[str, float] = msgspec.field(default_factory=dict)
    axis: str | None = None
    scope: Literal["restart", "instance"] = "restart"
    sequential: bool = False


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of one cell. ``baseline_values`` and ``candidate_values`` are per repeat, None where blank.

    ``ratio`` is None where no pair has both values; an interval that is missing has its reason in ``ratio.why``.
    ``verdict`` is None for secondary measures, unless the cell is invalid or not comparable; ``why`` gives its reason.
    ``repeats_needed`` is set for an inconclusive one with an interval.
    """

    measure: str
    label: str
    better: Literal["higher", "lower"] | None
    margin: float
    baseline_values: tuple[float | None, ...]
    candidate_values: tuple[float | None, ...]
    ratio: Ratio | None
    verdict: Verdict | None
    repeats_needed: int | None = None
    why: str | None = None
    sentence: str = ""


class ComparedCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell: the primary measure, then the secondary ones by name, and what weakens them.

    ``batch_seen`` and ``gpus`` are those of `CellPairs`; ``user_tok_s`` is the p50 of decode_tok_s by repeat: how fast
    a user's reply comes.
    """

    cell: str
    axes: dict[str, int | float | str]
    baseline: str
    candidate: str
    primary: Compared
    secondary: dict[str, Compared]
    batch_seen: Sides = Sides()
    user_tok_s: Sides = Sides()
    gpus: tuple[int | None, int | None] = (None, None)
    doubts: tuple[Doubt, ...] = ()

    def compared(self, name: str) -> Compared | None:
        """The measure of this name, None where it was not compared."""
        return self.primary if self.primary.measure == name else self.secondary.get(name)


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """A place on the axis where the better target changes, between the measured values ``low`` and ``high``.

    ``direction`` is what the candidate does as the axis grows. ``decided`` is False where an interval beside the place
    still includes equality. ``at`` is interpolated linearly in the logarithm of the axis over the ``pairs`` that cross
    (over the means where none does), ``interval`` its 95 % t interval (within ``low`` and ``high`` if it is decided),
    None where fewer than three pairs cross.
    """

    low: float
    high: float
    direction: Literal["overtakes", "falls behind"]
    decided: bool
    pairs: int
    at: float
    interval: tuple[float, float] | None = None


class Equal(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides at the same ``x``, interpolated between their cells. ``target`` and ``cell`` say whose measured point
    lies there (the other side's is interpolated); both None at an end of the common range that is no cell of either."""

    x: float
    ratio: Ratio
    target: str | None = None
    cell: str | None = None


class Crossings(msgspec.Struct, frozen=True, kw_only=True):
    """Crossings of one measure along ``axis`` from ``first`` to ``last``; ``group`` holds the other axes' values.

    ``axis`` is one of the matrix, or ``batch_seen`` (the size of the batches that each server says it ran), or
    ``interactivity`` (p50 decode_tok_s of a request: tok/s a user). Along those two the sides have no common cells:
    each is a curve through its own, ``first`` to ``last`` is what both curves reach (None, None: nothing), and
    ``equal`` has the ratios there. ``per`` says what output_tok_s was divided by at equal interactivity.
    """

    measure: str
    axis: str
    baseline: str
    candidate: str
    group: dict[str, int | float | str]
    first: float | None
    last: float | None
    crossings: tuple[Crossing, ...]
    sentence: str
    equal: tuple[Equal, ...] = ()
    per: Literal["GPU", "server"] | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Every cell of one comparison, the crossings along its axis, and what holds for all of it."""

    v: int = VERSION
    primary: str
    scope: Literal["restart", "instance"]
    cells: tuple[ComparedCell, ...]
    crossings: tuple[Crossings, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    notes: tuple[str, ...] = ()
