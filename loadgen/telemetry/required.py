"""What a scenario requires of telemetry (``telemetry.require``): refused before anything is started or measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from loadgen.errors import UsageError
from loadgen.launch import load_recipe
from loadgen.nvml import Unavailable, handles, opened
from loadgen.scenario import Cell, Target
from loadgen.telemetry import dcgm, page
from loadgen.telemetry.measured import MIN_ENERGY_S
from loadgen.telemetry.nvml import Owners, read
from loadgen.telemetry.reading import GpuReading


class Required(msgspec.Struct, frozen=True):
    """One ``word`` of ``telemetry.require``, for one target: why it will not be known (``missing``), else ``where`` it
    will be read, as a clause."""

    word: str
    target: str
    where: str = ""
    missing: str | None = None


def required(cells: Sequence[Cell], folder: Path) -> list[Required]:
    """What these cells require, as far as that can be told without asking another machine or a server. ``folder`` is
    the scenario's."""
    return [
        Required(
            word, name, _where(cell, name, target, word, folder), _missing(cell, name, target, word, folder, False)
        )
        for cell, name, target, word in _once(cells)
    ]


def check_required(cells: Sequence[Cell], folder: Path, ask: bool = True) -> None:
    """Raises UsageError for the first thing that is required and will not be known. ``folder`` is the scenario's;
    without ``ask`` no page of another program is asked for."""
    for cell in cells:
        if "energy" in cell.scenario.telemetry.require:
            _long_enough(cell)
    for cell, name, target, word in _once(cells):
        missing = _missing(cell, name, target, word, folder, ask)
        if missing is not None:
            raise UsageError(
                f"telemetry.require: {word} of target {name} will not be known: {missing}. Nothing was started; take "
                "the word out of telemetry.require to measure without it."
            )


def _once(cells: Sequence[Cell]) -> Iterator[tuple[Cell, str, Target, str]]:
    """Each target with each word that is required of it, in the first cell where that is so."""
    known: set[tuple[str, str]] = set()
    for cell in cells:
        for name, target in cell.scenario.targets.items():
            for word in cell.scenario.telemetry.require:
                if (name, word) not in known:
                    known.add((name, word))
                    yield cell, name, target, word


def _missing(cell: Cell, name: str, target: Target, word: str, folder: Path, ask: bool) -> str | None:
    return _engine(target, folder, ask) if word == "engine" else _gpus(cell, name, target, word == "energy", ask)


def _where(cell: Cell, name: str, target: Target, word: str, folder: Path) -> str:
    """Where a word will be read, if it is not missing."""
    if word != "engine":
        url = cell.scenario.telemetry.exporter(name, not target.launched)
        return "the GPUs of this machine say it" if url is None else f"{url} is asked when a run begins"
    recipe = load_recipe(target.engine, folder) if target.engine else None
    path = (recipe.metrics if recipe is not None else None) or ""
    pages = ", ".join(url + path for url in target.urls)
    return f"{pages} is asked when a run begins" if pages else f"its server says it at {path}"


def _long_enough(cell: Cell) -> None:
    window = cell.scenario.load.window_s
    if window is not None and window < MIN_ENERGY_S:
        raise UsageError(
            f"telemetry.require: energy needs windows of {MIN_ENERGY_S:.0f} s, and load.window_s is {window:g} in "
            f"{cell.id}; lengthen it, or take energy out of telemetry.require."
        )


def _engine(target: Target, folder: Path, ask: bool) -> str | None:
    recipe = load_recipe(target.engine, folder) if target.engine else None
    if recipe is None:
        return "an endpoint tells its counters only where its `engine` is named"
    if recipe.metrics is None or not recipe.seen:
        return f"{recipe.place} names no page of metrics"
    if not all(url.startswith("http") for url in target.urls):
        return "its endpoint is a socket, whose page is not read"
    missing = (_page(url + recipe.metrics, target.proxy)[1] for url in target.urls if ask)
    return next((why for why in missing if why is not None), None)


def _gpus(cell: Cell, name: str, target: Target, energy: bool, ask: bool) -> str | None:
    url = cell.scenario.telemetry.exporter(name, not target.launched)
    if url is None and not target.launched:
        return "it is an endpoint, and telemetry.dcgm names no exporter beside it"
    if url is None:
        readings, missing = _local(target)
    elif not ask:
        return None
    else:
        text, missing = _page(url, target.proxy)
        readings = dcgm.read(text, target.devices or ())
    if missing is not None:
        return missing
    if not readings:
        return "there is no such GPU" + (f" on {url}" if url else "")
    silent = [one.uuid for one in readings if energy and one.joules is None]
    return f"{', '.join(silent)} has no energy counter" if silent else None


def _local(target: Target) -> tuple[tuple[GpuReading, ...], str | None]:
    try:
        with opened() as nvml:
            return read(nvml, handles(nvml, target.devices or ()), Owners()), None
    except Unavailable as error:
        return (), str(error)


def _page(url: str, proxy: str | None) -> tuple[str, str | None]:
    """The text of a page, and what is wrong with it."""
    import httpx

    try:
        with page.client(proxy) as client:
            status, text = page.ask(client, "GET", url)
    except httpx.HTTPError as error:
        return "", f"{url} cannot be read: {str(error) or type(error).__name__}"
    return text, None if status == 200 else f"{url} answers {status}"
