"""The live block of a run on a terminal: rich's, which also finds its place again when the window is made narrower.

In: the lines of the block, as often as it is drawn. rich goes up by as many rows as it has drawn lines. Most terminals
break the lines that stand in them when they get narrower, so that the block takes more rows than that, and the upper
ones would stay for ever. How many more follows from the lengths of the lines that were drawn and from the width. What a
terminal pushes out of its top in doing so is out of reach: a block that stood there leaves its upper lines in the
scrollback.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleRenderable
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text


class Block(Live):
    """``lines`` are those of this moment, made for the width of the terminal. Nothing of them is left at the end. The
    terminal is that of standard error unless there is a ``console``."""

    def __init__(self, lines: Callable[[], list[str]], console: Console | None = None) -> None:
        self._lines_of = lines
        self._reflows = reflows(os.environ)
        self._made: list[str] = []
        self._drawn: list[int] = []
        if console is None:
            console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")), markup=False, highlight=False)
        super().__init__(console=console, transient=True, refresh_per_second=1, get_renderable=self._text)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is to be written: the old block away, all of its rows, and the new one below what is printed."""
        with self._lock:
            columns = self.console.width
            more = rows_more(self._drawn, columns) if self._reflows else 0
            self._drawn = [min(cell_len(line), columns) for line in self._made]
            up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            return [Control(*up * more), *super().process_renderables(renderables)]

    def _text(self) -> Text:
        self._made = self._lines_of()
        return Text("\n".join(self._made), no_wrap=True, overflow="crop")


def rows_more(lengths: Sequence[int], columns: int) -> int:
    """How many rows lines of these lengths take in a terminal of so many columns, beyond one each."""
    return sum(max(length - 1, 0) // max(columns, 1) for length in lengths)


def reflows(environ: Mapping[str, str]) -> bool:
    """Whether the terminal breaks lines anew when its width changes. xterm and GNU screen cut them off, and say who
    they are; tmux does it wherever it runs itself."""
    return "TMUX" in environ or not {"XTERM_VERSION", "STY"} & environ.keys()
