"""A published table in a window: as it is where it fits, else with its first key as headings, else as paragraphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadgen.reports import text
from loadgen.reports.table_columns import Drawn


def in_window(wide: Drawn, narrow: Sequence[Drawn], width: int) -> list[str]:
    """The lines of a table. ``narrow`` are other ways to draw it, tried in turn under headings where it is too wide."""
    found = text.as_table(wide.rows, wide.columns[wide.left :], wide.left, width)
    for one in narrow if found is None else ():
        less = one.without_first()
        found = text.as_table(less.rows, less.columns[less.left :], less.left, width)
        if found is not None:
            found = list(_headed(found[0], [str(one.columns[0].text(item)) for item in one.items])), found[1]
            break
    drawn, dropped = found or text.fitted(wide.rows, wide.columns[wide.left :], wide.left, width)
    said = f"left out at this width: {', '.join(dropped)}"
    return [*drawn, *(text.wrapped(said, width) if dropped else [])]


def _headed(drawn: Sequence[str], keys: Sequence[str]) -> Iterator[str]:
    """The lines of a table with the key of its rows above those that begin with another one."""
    head = len(drawn) - len(keys)
    yield from drawn[:head]
    last = ""
    for line, key in zip(drawn[head:], keys, strict=True):
        if key and key != last:
            yield key
            last = key
        yield line
