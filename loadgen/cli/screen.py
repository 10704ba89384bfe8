"""Where output goes: the width of a terminal, lines without control characters, what is shown while a run goes on."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadgen.progress import Progress


def width(stream: Any) -> int:
    """Columns of a terminal; a pipe has room for every column."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 160


def printable(text: str) -> str:
    """Lines without control characters: an error quotes what a server said, and a terminal obeys escapes."""
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())


def _say_nothing(_: object) -> None:
    """For --quiet."""


class Screen:
    """Standard error while a run goes on: a live block on a terminal, plain lines elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        from loadgen.progress import Progress

        self._live: Any = None
        if quiet:
            self.progress: Progress = Progress(_say_nothing, _say_nothing)
        elif sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            self._live = self._make_live()
            self.progress = Progress(self._above, self._show)
        else:
            self.progress = Progress(lambda line: print(printable(line), file=sys.stderr, flush=True), None)

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @staticmethod
    def _make_live() -> Any:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")), markup=False, highlight=False)
        return Live(console=console, transient=True, auto_refresh=False)

    def _above(self, line: str) -> None:
        self._live.console.print(printable(line))

    def _show(self, lines: list[str]) -> None:
        from rich.text import Text

        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)


def speaks_unicode(stream: Any) -> bool:
    """True if more than ASCII can be written to a stream."""
    return (stream.encoding or "ascii").lower().startswith("utf")


def tell(text: str) -> None:
    """A line for the person who waits, on standard error."""
    print(printable(text), file=sys.stderr, flush=True)
