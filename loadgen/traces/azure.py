"""Azure's traces of LLM inference (2023: Splitwise, ISCA 2024; 2024: DynamoLLM, HPCA 2025).

    TIMESTAMP,ContextTokens,GeneratedTokens
    2023-11-16 18:15:46.6805900,374,44                 2023: fractions of seven digits
    2024-05-10 00:00:00.009930+00:00,2162,5            2024: with a time zone

https://github.com/Azure/AzurePublicDataset. Nothing is known of shared prefixes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loadgen.traces import How, Row, table

BLOCK_TOKENS = 0
OWN = {"time": "TIMESTAMP", "input": "ContextTokens", "output": "GeneratedTokens"}


def rows(path: Path, how: How) -> Iterator[Row]:
    """The requests of a file. Raises UsageError for the first line that cannot be read."""
    return table.rows(path, how, OWN, how.time_unit or "s")
