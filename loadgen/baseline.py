"""The nights of a series in order -> epochs, the baseline of tonight, the alert that is open.

In: points of a series, what was said of them, what people decided. Out: a `Past`. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from loadgen.events import Event
from loadgen.series import Point
from loadgen.verdicts import Past, SeriesVerdict


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One night of a series: its point, what was said of it, and the run that began its epoch."""

    point: Point
    verdict: SeriesVerdict | None
    epoch: str


def past_of(
    entries: Sequence[Entry], events: Sequence[Event], tonight: Point | None = None, floor: float | None = None
) -> Past:
    """What is known of a series before ``tonight`` (None: after all of its nights)."""
    raise NotImplementedError


def pinned_runs(entries: Sequence[Entry], events: Sequence[Event]) -> set[str]:
    """The runs of a series that must not be deleted: of the baseline window, of the reference, and pinned ones."""
    raise NotImplementedError
