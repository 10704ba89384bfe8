"""What people are told of a night, and when: a change of state at once, and every week a digest, even when all is well.

In: a `NightReport`. Out: a message by `notify`, and in the store what was told (``nightly/<name>.json``), so that what
could not be sent tonight is sent tomorrow, and nothing is told twice. What goes wrong comes back as sentences.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import msgspec

from loadgen.assemble import RunReport
from loadgen.cells import MISSING, OUT_OF_TIME
from loadgen.errors import LoadgenError
from loadgen.nightly.notify import message, send
from loadgen.nights.night import NightReport, head, lines, news, standing
from loadgen.reports import objectives, rows
from loadgen.store import make_folder, read_json, write_json

VERSION = 1
WEEK_S = 7 * 86400.0 - 7200.0
"""A night may begin a little earlier than the one a week ago."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What people were told last: by series' key how it stood, why a night could not be run (None: it was), and when
    there was a digest (seconds since 1970)."""

    schema: int = VERSION
    standing: dict[str, str] = {}
    problem: str | None = None
    digest: float = 0.0


def tell(store: Path, variable: str | None, night: NightReport) -> list[str]:
    """Tells of a night by the webhook whose URL is in an environment variable (None: nobody wants to be told)."""
    if variable is None:
        return []
    told = _told(store, night.name)
    weekly = digest_due(store, night.name)
    said = [*(["RUNS AGAIN"] if told.problem is not None else []), *news(told.standing, night)]
    if weekly:
        said = list(dict.fromkeys([*said, *lines(night)]))
    if not said and not weekly:
        return []
    foot = f"run {night.path}" + (f", measured again {night.confirmed_by}" if night.confirmed_by else "")
    title = f"{_title(night.name)}{' (weekly)' if weekly else ''}: {head(night)}"
    problem = send(variable, message(title, said, foot))
    if problem is not None:
        return [problem]
    known = {**told.standing, **standing(night.verdicts)}
    return _keep(store, night.name, Told(standing=known, digest=time.time() if weekly else told.digest))


def tell_not_run(store: Path, name: str, variable: str | None, why: str, measured: str | None = None) -> list[str]:
    """A night that could not be run is told once, until one can be run again; ``measured`` is the folder of its run
    where only what comes after that failed."""
    told = _told(store, name)
    if variable is None or told.problem is not None:
        return []
    head, word = ("nothing was measured", "NOT RUN") if measured is None else ("nothing was judged", "NOT JUDGED")
    foot = f"store {store.absolute()}" if measured is None else f"run {measured}; --resume judges it"
    text = message(f"{_title(name)}: {head}", [f"{word}: {why}"], foot)
    problem = send(variable, text)
    return [problem] if problem else _keep(store, name, msgspec.structs.replace(told, problem=why))


def wrongs(report: RunReport | None, which: str = "") -> list[str]:
    """What makes a run less than good, in sentences: failures, repeats that are missing, invalid cells,
    objectives that were missed."""
    if report is None:
        return []
    missed = [line for line in objectives.lines(report, objectives.ASCII) if line.startswith(objectives.ASCII.missed)]
    invalid = [line for line in rows.warning_lines(report) if line.startswith("INVALID: ")]
    failed = [f"FAILED: {line}" for line in rows.failure_lines(report)]
    why = {OUT_OF_TIME: "The budget was used up before its end", MISSING: "It was not measured whole"}
    late = [
        f"{why[one.code]}: {len(one.where)} repeats are missing, the first {one.where[0]}."
        for one in report.warnings
        if one.code in why
    ]
    return [f"{which}{line}" for line in (*failed, *late, *invalid, *missed)]


def digest_due(store: Path, name: str) -> bool:
    """True if a week has passed since the last digest, or there was none."""
    return not 0 <= time.time() - _told(store, name).digest < WEEK_S


def _title(name: str) -> str:
    return f"loadgen nightly {name} on {socket.gethostname()}"


def _told(store: Path, name: str) -> Told:
    """What was told of a nightly; nothing, where nobody was told anything or the file is damaged."""
    try:
        return msgspec.convert(read_json(_path(store, name)), Told)
    except (LoadgenError, msgspec.ValidationError):
        return Told()


def _keep(store: Path, name: str, told: Told) -> list[str]:
    try:
        make_folder(_path(store, name).parent)
        write_json(_path(store, name), told)
    except LoadgenError as error:
        return [f"People were told, and will be told again, since that cannot be kept: {error}"]
    return []


def _path(store: Path, name: str) -> Path:
    return store / "nightly" / f"{name}.json"
