"""A table of your own: ``columns: {time: ..., input: ..., output: ...}`` names its columns by their headings.

Times are numbers of ``time_unit`` (seconds unless it is said), or dates with times of day.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loadgen.errors import UsageError
from loadgen.traces import How, Row, table

BLOCK_TOKENS = 0


def rows(path: Path, how: How) -> Iterator[Row]:
    """The requests of a file. Raises UsageError for the first line that cannot be read."""
    missing = [word for word in ("time", "input", "output") if word not in how.columns]
    if missing:
        raise UsageError(
            f"workload.columns: format: csv needs the heading of {' and '.join(missing)}, as in columns: {{time: when, "
            "input: prompt_tokens, output: reply_tokens}."
        )
    return table.rows(path, how, {}, how.time_unit or "s")
