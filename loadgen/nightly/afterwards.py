"""What is done once a night is judged: the weekly look, retention, the site, and people are told.

In: a `NightReport` whose run has become a night. Out: the same with what the steps found. What goes wrong in one of
them costs that step and no other, and becomes a note.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from loadgen.errors import LoadgenError
from loadgen.nightly.past_runs import before_last
from loadgen.nightly.site import write_site
from loadgen.nightly.telling import digest_due, tell
from loadgen.nights.history import read_history
from loadgen.nights.night import NightReport
from loadgen.nights.verdicts import Drift, drift
from loadgen.retention import collect

Say = Callable[[str], None]

BETWEEN_S = 7 * 86400.0
"""Nights lie no further apart, as far as retention goes; where they do, request lines are kept longer by as much."""


class Asked(msgspec.Struct, frozen=True):
    """What the steps need to know: the store, the variable that holds the webhook's URL (None: nobody is told), the
    scenario's own gates, and how long request lines are kept."""

    store: Path
    webhook: str | None
    gates: Mapping[str, float]
    keep_s: float


def finished(asked: Asked, night: NightReport, say: Say) -> NightReport:
    """Does it all; the night with its drifts and notes."""
    notes, drifts = list(night.notes), list[Drift]()
    if digest_due(asked.store, night.name):
        notes += attempted("the weekly look", lambda: drifts.extend(_drifts(asked, night.name)))
        night = msgspec.structs.replace(night, drifts=tuple(drifts))
    notes += attempted("retention", lambda: clean(asked.store, asked.keep_s, say))
    notes += attempted("the site", lambda: write_site(asked.store, say=say))
    notes += tell(asked.store, asked.webhook, msgspec.structs.replace(night, notes=tuple(notes)))
    return msgspec.structs.replace(night, notes=tuple(notes))


def attempted(what: str, step: Callable[[], object]) -> list[str]:
    """What went wrong in a step, as a sentence; empty where nothing did."""
    try:
        step()
    except LoadgenError as error:
        return [str(error)]
    except Exception as error:  # noqa: BLE001 - a page that cannot be drawn must not keep people from being told
        return [f"{what} failed, which is a bug: {type(error).__name__}: {error}"]
    return []


def clean(store: Path, keep_s: float, say: Say) -> None:
    """Retention: request lines are compressed, old ones deleted, but for those of baselines. They are as old as the run
    before the last one says, which began a while ago: in a night whose clock is years ahead nothing would be left."""
    earlier = before_last(store)
    now = time.time() if earlier is None else min(time.time(), earlier + BETWEEN_S)
    for one in collect(store, read_history(store, say).kept(), keep_s, now):
        if one.failed:
            say(f"{one.run}: {one.failed}")


def _drifts(asked: Asked, name: str) -> list[Drift]:
    """The weekly look at what a window that moves along cannot see."""
    history = read_history(asked.store)
    watched = {key: history.series[key] for key in history.live() if history.series[key].scenario == name}
    watched = {key: one for key, one in watched.items() if history.entries[key][-1].point.primary}
    return drift(watched, history.by_now(list(watched)), dict(asked.gates))
