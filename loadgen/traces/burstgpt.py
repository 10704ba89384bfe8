"""BurstGPT: what a university's users asked of hosted models (Wang et al. 2024, arXiv 2401.17644).

    Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
    5,ChatGPT,472,18,490,Conversation log

Time is in seconds. Newer files add the columns ``Session ID`` and ``Elapsed time``; columns are found by their
headings, so both forms are read. In files "with fails" a failure is a line of 0 response tokens (see
``workload.failures``). ``where: {Model: GPT-4}`` takes one of its models alone. https://github.com/HPMLL/BurstGPT
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loadgen.traces import How, Row, table

BLOCK_TOKENS = 0
OWN = {"time": "Timestamp", "input": "Request tokens", "output": "Response tokens"}


def rows(path: Path, how: How) -> Iterator[Row]:
    """The requests of a file. Raises UsageError for the first line that cannot be read."""
    return table.rows(path, how, OWN, how.time_unit or "s")
