"""The static site of a store's nights: files that any web server can serve, and that open from a disk as well.

In: a store. Out: a folder, the store's ``site`` unless another is named::

    index.html               how every series stands, the last night of every scenario, the latest runs
    series/<key>.html        every night of one series: plot, band, epochs, what changed
    runs/<run_id>.html       the report of a run, as it lies beside it

All of it can be made again at any time. In the store it is for the owner alone like everything there; a folder that
was named is meant to be served, and its files can be read by everyone.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from loadgen.assemble import assemble
from loadgen.errors import LoadgenError, StoreError
from loadgen.nights.history import History, read_history
from loadgen.reports import html
from loadgen.reports import site as pages
from loadgen.reports.site.words import Ran, index, sheet, shown_runs
from loadgen.store import Run, read_json, write_bytes

NAME = "site"

LATEST = 30
"""Runs that the first page lists."""

_REPORT = re.compile(r"\d{8}T\d{6}Z-.+-[0-9a-f]{6}\.html")


class _Place(msgspec.Struct, frozen=True):
    """Where the site goes. ``served`` folders and files can be read by everyone."""

    folder: Path
    served: bool

    def make(self, *names: str) -> Path:
        """A folder of the site. Raises StoreError."""
        path = self.folder.joinpath(*names)
        try:
            if not path.is_dir():
                path.mkdir(parents=True, mode=0o700)
                if self.served:
                    path.chmod(0o755)  # whatever the umask of a service is
        except OSError as error:
            raise StoreError(f"cannot make the folder {path}: {error.strerror}; choose another with -o.") from error
        return path

    def write(self, path: Path, data: bytes) -> None:
        """A file of the site, whole or not at all. Raises StoreError."""
        write_bytes(path, data)
        if self.served:
            path.chmod(0o644)


def write_site(root: Path, out: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """Writes the site of a store; its first page. ``out`` is its folder (None: the store's own). ``say`` is told what
    could not be shown. Raises StoreError, UsageError where there is no such store."""
    history = read_history(root, say)
    place = _Place(out or root / NAME, served=out is not None)
    _, series_folder, runs_folder = place.make(), place.make("series"), place.make("runs")
    stored = history.folders()
    latest = sorted(stored, reverse=True)[:LATEST]
    wanted = [run for run in dict.fromkeys((*shown_runs(history), *latest)) if run in stored]
    written = {run for run in wanted if _report(place, runs_folder / f"{run}.html", stored[run], say)}
    _forget(runs_folder, written)
    links = {run: f"runs/{run}.html" if run in written else "" for run in (*wanted, *shown_runs(history))}
    for key in history.entries:
        page = sheet(history, key, {run: link and f"../{link}" for run, link in links.items()})
        place.write(series_folder / f"{key}.html", pages.render_series(page).encode())
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    first = index(history, list(_ran(history, {run: stored[run] for run in latest})), links, now)
    place.write(place.folder / "index.html", pages.render_index(first).encode())
    return place.folder / "index.html"


def _report(place: _Place, out: Path, source: Path, say: Callable[[str], None]) -> bool:
    """Puts the report of a run into the site, unless it is there; False if there is none and none can be made."""
    made = source / "report.html"
    try:
        newest = max(path.stat().st_mtime for path in (made, source / "run.json") if path.exists())
        if not out.exists() or out.stat().st_mtime < newest:
            text = made.read_bytes() if made.exists() else html.render(assemble(Run(source)), charts=False).encode()
            place.write(out, text)
        return True
    except OSError as error:
        raise StoreError(f"cannot read {made}: {error.strerror}") from error
    except Exception as error:  # noqa: BLE001 - a run that is broken in whatever way must not cost the page of the others
        say(f"{source.name} has no page: {str(error) or type(error).__name__}")
        return False


def _forget(folder: Path, kept: set[str]) -> None:
    """Reports that no page leads to any more go, so that the site does not grow without end."""
    for path in folder.glob("*.html"):
        if _REPORT.fullmatch(path.name) and path.stem not in kept:
            path.unlink(missing_ok=True)


def _ran(history: History, folders: Mapping[str, Path]) -> Iterable[Ran]:
    nights = {night.run: night for night in history.nights}
    again = {run: night.run for night in history.nights for run in night.confirms}
    for run, folder in folders.items():
        try:
            described = read_json(folder / "run.json")
        except LoadgenError:
            described = {"status": "unreadable"}
        night = nights.get(run)
        what = f"night, exit code {night.exit_code}" if night is not None else ""
        yield Ran(
            id=run,
            scenario=str((described.get("scenario") or {}).get("name") or ""),
            status=str(described.get("status") or ""),
            began=str(described.get("started") or "").replace("T", " ")[:16],
            took=_took(described),
            what=what or (f"measured {again[run]} again" if run in again else ""),
        )


def _took(described: dict[str, Any]) -> str:
    began, ended = described.get("started"), described.get("ended")
    if not began or not ended:
        return ""
    try:
        seconds = _seconds(str(ended)) - _seconds(str(began))
    except ValueError:
        return ""
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _seconds(at: str) -> int:
    """Seconds since 1970 of a time as runs keep it. Raises ValueError."""
    return calendar.timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ"))
