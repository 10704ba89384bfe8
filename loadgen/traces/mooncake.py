"""Mooncake's traces (FAST '25): JSON lines, time in milliseconds, prompts in blocks of 512 tokens.

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48, ...]}

https://github.com/kvcache-ai/Mooncake (FAST25-release/traces). Two requests that begin with the same ids begin with the
same tokens: the trace keeps who shares a prefix with whom, and no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loadgen.traces import How, Row, lines

BLOCK_TOKENS = 512


def rows(path: Path, how: How) -> Iterator[Row]:
    """The requests of a file. Raises UsageError for the first line that cannot be read."""
    return lines.rows(path, how, how.time_unit or "ms", how.block_tokens or BLOCK_TOKENS)
