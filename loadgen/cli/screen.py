"""Where output goes: the width of a terminal, lines without control characters, what is shown while a run goes on."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadgen.progress import Progress


def width(stream: Any) -> int:
    """Columns of a terminal; a pipe has room for every column. ``$COLUMNS`` says otherwise, as under watch(1)."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80  # a terminal that nobody gave a size says 0
    except (OSError, ValueError):
        return 160


def put(text: str) -> None:
    """A result to standard output in UTF-8, whatever the locale says: for formats that programs read.

    Control characters that JSON lets stand as they are (DEL and C1, which some terminals obey) are written as JSON
    escapes; every other format has them no more.
    """
    sys.stdout.flush()
    sys.stdout.buffer.write(text.translate({code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}).encode())
    sys.stdout.buffer.flush()


def printable(text: str) -> str:
    """Lines without control characters: an error quotes what a server said, and a terminal obeys escapes."""
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())


def show(text: str) -> None:
    """Text to standard output as a screen can have it: one without the sign of multiplication gets an x, and a model's
    name may hold what a terminal obeys."""
    print(printable(text if speaks_unicode(sys.stdout) else text.replace("×", "x")))


def readable(text: str) -> str:
    """The same in what standard error can show."""
    from loadgen.reports.text import ascii_only

    return printable(text) if speaks_unicode(sys.stderr) else ascii_only(printable(text))


def _say_nothing(_: object) -> None:
    """For --quiet."""


class Screen:
    """Standard error while a run goes on: a live block on a terminal, plain lines elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        from loadgen.progress import Progress

        self._live: Any = None
        if quiet:
            self.progress: Progress = Progress(_say_nothing, live=True)
        elif sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            self.progress = Progress(self._above, live=True)
            self._live = self._make_live()
        else:
            self.progress = Progress(lambda line: print(readable(line), file=sys.stderr, flush=True), live=False)

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _make_live(self) -> Any:
        from loadgen.cli.block import Block

        return Block(self._lines)

    def _above(self, line: str) -> None:
        self._live.console.print(readable(line))

    def _lines(self) -> list[str]:
        return [readable(line) for line in self.progress.lines(width(sys.stderr) - 1)]


def speaks_unicode(stream: Any) -> bool:
    """True if more than ASCII can be written to a stream, and shown by whoever reads it."""
    if not (stream.encoding or "ascii").lower().startswith("utf"):
        return False
    told = os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8") == "1"
    return bool(told) or not _plain_locale()


def _plain_locale() -> bool:
    """True for the locale C. Python writes UTF-8 there all the same; a terminal of that locale may not show it."""
    said = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return next((name for name in said if name), "C") in ("C", "POSIX")


def tell(text: str) -> None:
    """A line for the person who waits, on standard error."""
    print(printable(text), file=sys.stderr, flush=True)
