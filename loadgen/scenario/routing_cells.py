"""The extra cells of ``workload.routing_check``: the middle cell of the matrix once more, on other kinds of prompts.

In: the cells of a matrix. Out: one cell for each kind of ``loadgen.routing``, which no comparison counts. Load, targets
and output are the middle cell's. Prompts that are text outside of a chat template (token ids, raw text) stay so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from loadgen.routing import DOMAIN, KINDS, RANDOM_WORDS
from loadgen.scenario.label import cell_id
from loadgen.scenario.model import Scenario, Workload

if TYPE_CHECKING:
    from loadgen.scenario.matrix import Cell

_KEPT = ("template", "output", "stream", "sampling", "save_text")
"""Words of a workload that are not about where prompts come from."""


def routing_cells(cells: Sequence[Cell]) -> list[Cell]:
    """The extra cells; none where no cell asks for them."""
    asking = [cell for cell in cells if cell.scenario.workload.routing_check]
    return [_on(kind, middle(asking)) for kind in KINDS] if asking else []


def middle(cells: Sequence[Cell]) -> Cell:
    """The cell in the middle of every axis, by the order in which values come; the middle one of the list if there is
    no such cell."""
    axes: dict[str, dict[Any, None]] = {}
    for cell in cells:
        for name, value in cell.axes.items():
            axes.setdefault(name, {})[value] = None
    wanted = {name: list(values)[len(values) // 2] for name, values in axes.items()}
    return next((cell for cell in cells if cell.axes == wanted), cells[len(cells) // 2])


def _on(kind: str, cell: Cell) -> Cell:
    scenario = cell.scenario
    data = scenario.model_dump(by_alias=True, exclude_unset=True)
    kept = {word: value for word, value in data["workload"].items() if word in _KEPT}
    data["workload"] = {**kept, **_prompts(kind, scenario.workload)}
    references = {path: text for path, text in scenario.references.items() if path[0] != "workload"}
    axes = {**cell.axes, "routing": kind}
    return replace(cell, id=cell_id(axes), axes=axes, scenario=Scenario.build(data, references), routing=kind)


def _prompts(kind: str, asked: Workload) -> dict[str, Any]:
    ids = asked.prompts == "trace" or (asked.prompts == "synthetic" and asked.settings.get("kind", "ids") == "ids")
    raw = {"raw": True} if ids or asked.settings.get("raw") else {}
    if kind == "random":
        return {"prompts": "synthetic", "kind": "words", "words": RANDOM_WORDS, **raw}
    tags = {"tags": [DOMAIN]} if kind == DOMAIN else {}
    return {"prompts": "natural", "system": False, **tags, **raw}  # some templates refuse system messages
