"""The rule of ``comparison.until``: repeats are added until every interval is narrow enough.

In: the cells of a ladder and the comparisons of what is stored of them. Out: whether they need more repeats, and how it
stands in words. Pure: it looks at what is stored and at nothing else, so that a run that is resumed finds the rule
where it left it.

Whole ABBA blocks (two pairs) are added, never less: half a block would leave a drift of the machine in the ratio. A
cell that cannot become narrow is not waited for: one that is invalid or not comparable, one without values, one whose
last block brought no pair. What looking after every block costs of the 95 % stands at `statistics.narrow`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from loadgen.comparing.comparison import ComparedCell, Comparison
from loadgen.comparing.sentence import cell_name
from loadgen.plan import PlannedCell
from loadgen.statistics import UNTIL_MOST, narrow
from loadgen.summary import Doubt

BLOCK = 2
"""Pairs of an ABBA block."""


def enough(
    until: float, cells: Sequence[PlannedCell], begun: Mapping[str, int], comparisons: Sequence[Comparison]
) -> bool:
    """True if no cell of a ladder needs another block. All have got their fewest repeats; ``begun`` is the highest
    repeat of each that was begun."""
    least = {cell.id: cell.least for cell in cells}
    return not any(
        _wants_more(until, cell, least[cell.cell], begun[cell.cell])
        for comparison in comparisons
        for cell in comparison.cells
        if cell.cell in least
    )


def last_of_block(begun: int) -> int:
    """The repeat that ends the block which ``begun`` is in."""
    return -(-begun // BLOCK) * BLOCK


def stands(until: float, cells: Sequence[PlannedCell], comparisons: Sequence[Comparison], done: bool) -> str:
    """How wide the widest interval of a ladder is, and what comes of it, for the person who waits."""
    ids = {cell.id for cell in cells}
    compared = [cell for comparison in comparisons for cell in comparison.cells if cell.cell in ids]
    found = [(cell.primary.ratio, cell.cell) for cell in compared if cell.primary.ratio is not None]
    spreads = [(ratio.spread, ratio.n, cell) for ratio, cell in found if ratio.spread is not None]
    if not spreads:
        why = ", ".join(dict.fromkeys(str(cell.primary.verdict) for cell in compared))
        return f"{cells[0].id}: no interval ({why})" + (", and more repeats would bring none" if done else "")
    spread, pairs, cell = max(spreads)
    settled = ": enough" if done else ""
    return f"{cell}: the interval is ±{_percent(spread)} after {pairs} pairs, {_percent(until)} is asked for{settled}"


def too_wide(until: float, comparison: Comparison) -> Comparison:
    """The comparison with a doubt on every cell whose interval is wider than was asked for."""
    cells = [msgspec.structs.replace(cell, doubts=(*cell.doubts, *_too_wide(until, cell))) for cell in comparison.cells]
    return msgspec.structs.replace(comparison, cells=tuple(cells))


def _wants_more(until: float, cell: ComparedCell, least: int, begun: int) -> bool:
    ratio = cell.primary.ratio
    return ratio is not None and _brought_a_pair(cell, begun) and not narrow(ratio, until, least)


def _brought_a_pair(cell: ComparedCell, begun: int) -> bool:
    """False if no pair of the last block has both its values."""
    block = slice(last_of_block(begun) - BLOCK, None)
    sides = zip(cell.primary.baseline_values[block], cell.primary.candidate_values[block], strict=True)
    return any(before and after for before, after in sides)


def _too_wide(until: float, cell: ComparedCell) -> Iterator[Doubt]:
    ratio = cell.primary.ratio
    if ratio is not None and ratio.spread is not None and ratio.spread > until:
        most = f", and no more than {UNTIL_MOST} are made" if ratio.n >= UNTIL_MOST else ""
        yield Doubt(
            "too_wide",
            f"The interval{cell_name(cell.axes)} is ±{_percent(ratio.spread)} after {ratio.n} pairs, wider than the "
            f"{_percent(until)} of comparison.until{most}.",
        )


def _percent(share: float) -> str:
    return f"{share * 100:.2g} %" if share < 1 else f"{share * 100:.0f} %"
