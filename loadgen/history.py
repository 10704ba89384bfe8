"""What a store knows of its nights: the past of every series, read through the index.

In: a store. Out: series with their entries, pasts for `verdicts.judge`, the runs that must be kept.
"""

from __future__ import annotations

from pathlib import Path

from loadgen.assemble import RunReport
from loadgen.baseline import Entry
from loadgen.events import Event
from loadgen.series import Point, Series
from loadgen.verdicts import Past, SeriesVerdict


class History:
    """The nights of a store as they are known at one moment."""

    def __init__(self, series: dict[str, Series], entries: dict[str, list[Entry]], events: list[Event]) -> None:
        self.series, self.entries, self.events = series, entries, events

    def pasts(self, tonight: list[Point], floors: dict[str, float]) -> dict[str, Past]:
        """By key: what is known of the series of these points before tonight. ``floors`` come from `noise_floors`."""
        raise NotImplementedError

    def kept(self) -> set[str]:
        """The runs whose requests must not be deleted: of a baseline window, of a reference, and pinned ones."""
        raise NotImplementedError


def read_history(root: Path) -> History:
    """The history of a store; its index is brought up to date first. Raises StoreError."""
    raise NotImplementedError


def noise_floors(root: Path, report: RunReport) -> dict[str, float]:
    """By key: the spread of nights that noise alone makes in the series of a run, where a calibration is known. A night
    is a mean over repeats, so that the calibrated coefficient of variation counts by its root."""
    raise NotImplementedError


def news(verdicts: list[SeriesVerdict], at: str) -> list[Event]:
    """Alerts that this night raises, and those that it ends."""
    raise NotImplementedError
