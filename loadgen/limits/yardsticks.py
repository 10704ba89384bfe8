"""The yardsticks of a run: what its GPUs allow, what its rates took, what a mixture's hang on.

In: run.json and the repeats of every cell. Out: `Yardsticks`, whose fields are those of the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loadgen.limits.floor import Floors, MeasuredCell, floors
from loadgen.limits.mixture import Mixture, mixtures
from loadgen.limits.normalise import Normalisation, normalised
from loadgen.limits.served import stored


class Yardsticks(msgspec.Struct, frozen=True, kw_only=True):
    """``floors`` are the cells against their rooflines, ``normalised`` their rates by what they took; ``mixtures`` the
    targets that are mixtures of experts."""

    floors: Floors
    normalised: Normalisation
    mixtures: tuple[Mixture, ...]

    def facts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """By cell and target: its GPUs, what weakens its repeats together, what weakens its verdicts."""
        doubts = {one.target: one.doubt for one in self.mixtures}
        return {
            (floor.cell, floor.target): {
                "gpus": rate.gpus,
                "doubts": floor.doubts,
                "routing": doubts.get(floor.target),
            }
            for floor, rate in zip(self.floors.cells, self.normalised.cells, strict=True)
        }


def yardsticks(
    described: Mapping[str, Any], cells: Mapping[str, MeasuredCell], pairs: Sequence[tuple[str, str]]
) -> Yardsticks:
    """``described`` is run.json, ``pairs`` are (baseline, candidate)."""
    serving = stored(described)
    rates = [
        normalised(serving, described, name, target, results)
        for name, cell in cells.items()
        for target, results in cell.targets.items()
    ]
    return Yardsticks(
        floors=floors(serving, described, cells, pairs),
        normalised=Normalisation(cells=tuple(rates)),
        mixtures=tuple(mixtures(serving, described, list(cells))),
    )
