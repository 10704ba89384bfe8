"""The timed traces of ``vllm bench serve --dataset-name timed_trace``: Mooncake's lines with other units.

Its defaults are ours: seconds (its ``--timed-trace-sec-multiplier 1``) and blocks of 16 tokens (its
``--timed-trace-chunk-hash-size``), as in Alibaba's Bailian traces; ``time_unit``, ``block_tokens`` and ``columns`` say
what its flags say. One thing differs: there a partial block has tokens of its own, here it is the beginning of the
block, so that what shares a partial block shares its tokens, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loadgen.traces import How, Row, lines

BLOCK_TOKENS = 16


def rows(path: Path, how: How) -> Iterator[Row]:
    """The requests of a file. Raises UsageError for the first line that cannot be read."""
    return lines.rows(path, how, how.time_unit or "s", how.block_tokens or BLOCK_TOKENS)
