"""A published table before anything is measured: ``loadgen plan SCENARIO --layout published``.

In: a scenario's cells with their planned memory. Out: text: the table's own columns and rows, what each row that the
scenario measures would take in memory, and whether the published number of GPUs can hold that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from loadgen.errors import UsageError
from loadgen.limits.planned_memory import Need
from loadgen.published.join import ONLY, Found, Laid, Line, lay
from loadgen.published.tables import Column as Described
from loadgen.published.tables import Table, table
from loadgen.reports import memory, text
from loadgen.reports.table_cells import GIB, keys_of
from loadgen.reports.table_columns import Column, Drawn, places
from loadgen.reports.table_text import in_window
from loadgen.scenario import Cell, Loaded, public_dict
from loadgen.shapes.memory_plan import CARDS, MemoryPlan, gpu_bytes
from loadgen.shown import DASH

_NOTE = (
    "planned: GiB at the peak, from sizes alone, without CUDA's own 0.5 GB a GPU, which torch does not count either; "
    "of an engine that lets requests wait, with one of them. "
    "docs/memory.md holds it against the published figures."
)

NOT_HERE = "not in this scenario"

Needs = Mapping[tuple[str, str], Need]
"""By cell and target: what is needed there."""


def render(loaded: Loaded, needs: Iterable[tuple[Cell, Need]], width: int) -> str:
    """The table of a scenario. Raises UsageError for a scenario that measures no published one."""
    name = loaded.scenario.published
    if name is None:
        raise UsageError(f"--layout published: {loaded.path} measures no published table; it has no `published`.")
    chosen, known = table(name), list(needs)
    laid = lay(chosen, (_planned(chosen, cell, need) for cell, need in known), quotients=False)
    by_place = {(cell.id, need.target): need for cell, need in known}
    lines = [*text.wrapped(chosen.title, width), *text.wrapped(f"published: {chosen.hardware}", width, "  "), ""]
    one = _long(laid, by_place) if chosen.across is None else _tall(laid, by_place)
    lines += [*in_window(one, [one], width), ""]
    for slip in chosen.slips:
        said = f"a slip of the table: {', '.join(slip.row.values())}: {slip.column}: {slip.why}"
        lines += text.wrapped(said, width)
    unknown = dict.fromkeys(f"{need.target}: memory not known: {need.why}" for _, need in known if need.plan is None)
    lines += [part for line in unknown for part in text.wrapped(line, width)]
    return "\n".join([*lines, *text.wrapped(_NOTE, width)]) + "\n"


def _planned(of: Table, cell: Cell, need: Need) -> Found:
    """A target in a cell as a measurement that is still to be made."""
    target = cell.scenario.targets[need.target]
    row = target.row or {of.said[0]: need.target} if of.said else {}
    gpus = target.gpus or (need.plan.gpus if need.plan else None)
    return Found(
        keys=keys_of(of, public_dict(cell.scenario), row, gpus),
        figures={},
        state="ok",
        target=need.target,
        run="",
        where=cell.id,
    )


# The columns ----------------------------------------------------------------------------------------------------------


def _long(laid: Laid, needs: Needs) -> Drawn:
    columns = [Column(name, _published(name), _yields(one)) for name, one in laid.table.columns.items()]
    left = next((i for i, one in enumerate(laid.table.columns.values()) if one.origin is None), len(columns))
    columns += [
        Column("planned GiB", lambda line: _gib(_need(line, ONLY, needs))),
        Column(_question(laid.table), lambda line: _answer(laid.table, line.row, _need(line, ONLY, needs))),
        Column("target", lambda line: line.target or NOT_HERE, 2),
    ]
    return Drawn(columns, left, laid.lines)


def _yields(column: Described) -> int:
    """How soon a published column gives way: its memory last, since that is what is planned."""
    if column.origin is not None:
        return 0
    return {"torch_gib": 1, "gpus": 3, None: 5}.get(column.measure, 4)


def _tall(laid: Laid, needs: Needs) -> Drawn:
    """A row for what was published, one for what each target that stands for it would take, one for where it fits."""
    columns = [Column(name, _first(name)) for name in laid.table.keys]
    columns.append(Column("", lambda item: str(item[1])))
    columns += [Column(place, _at(laid.table, place, needs)) for place in places(laid)]
    items = [(line, which) for line in laid.lines for which in _which(laid.table, line)]
    return Drawn(columns, len(laid.table.keys) + 1, items)


def _which(of: Table, line: Line) -> list[str]:
    mine = [f"{line.target}: GiB", _question(of)] if line.found else [NOT_HERE]
    return [*(["published"] if line.published else []), *mine]


def _first(name: str) -> Callable[[tuple[Line, str]], str]:
    return lambda item: item[0].row.get(name, "") if item[1] == "published" or not item[0].published else ""


def _at(of: Table, place: str, needs: Needs) -> Callable[[tuple[Line, str]], str]:
    def cell(item: tuple[Line, str]) -> str:
        line, which = item
        if which == "published":
            return line.row.get(place, "") or DASH
        if which == NOT_HERE:
            return ""
        need = _need(line, place, needs)
        return _answer(of, line.row, need) if which == _question(of) else _gib(need)

    return cell


def _published(name: str) -> Callable[[Line], str]:
    return lambda line: line.row.get(name, "") or DASH


def _need(line: Line, place: str, needs: Needs) -> Need | None:
    found = line.found.get(place)
    return None if found is None else needs[found.where, found.target]


def _held(need: Need, plan: MemoryPlan) -> MemoryPlan:
    """What must be held at once: an engine with a paged cache lets requests wait, ours holds the whole batch."""
    return plan if need.at_once else msgspec.structs.replace(plan, batch=1)


def _gib(need: Need | None) -> str:
    return DASH if need is None or need.plan is None else f"{_held(need, need.plan).at_peak().total / GIB:.2f}"


def _question(of: Table) -> str:
    """What the answer column answers: whether the published GPUs do, or, where none are stated, which GPU does."""
    return "fits there" if of.gpu else "smallest GPU"


def _answer(of: Table, row: Mapping[str, str], need: Need | None) -> str:
    """``1: yes``, ``1: no, 2 do``, ``2 do`` where no number is stated; or the smallest GPU that holds it alone."""
    if need is None or need.plan is None:
        return DASH
    plan = _held(need, need.plan)
    if of.gpu is None:
        return _smallest(plan)
    stated, size = row.get("gpus") or (str(of.gpus) if of.gpus else ""), gpu_bytes(of.gpu)
    fewest = memory.fewest(plan, size)
    do = DASH if fewest is None else f"{fewest} do"
    if not stated.isdecimal():
        return do
    return f"{stated}: yes" if msgspec.structs.replace(plan, gpus=int(stated)).fits(size) else f"{stated}: no, {do}"


def _smallest(plan: MemoryPlan) -> str:
    alone = msgspec.structs.replace(plan, gpus=1)
    for name, gb in sorted(CARDS.items(), key=lambda item: item[1]):
        if alone.fits(gb * 1e9):
            return f"{name} ({gb} GB)"
    fewest = memory.fewest(alone, CARDS["h200"] * 1e9)
    return f"{fewest} x h200" if fewest else DASH
