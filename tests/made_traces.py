"""Traces that were made up: the shape of Mooncake's, small enough for tests."""

from __future__ import annotations

import json
import random
from pathlib import Path


def conversations(count: int, seed: int = 3, block: int = 512, gap_ms: float = 40.0) -> list[dict]:
    """Requests as Mooncake's: three system prompts, and talks that go on from the whole blocks said before."""
    rng, at, fresh = random.Random(seed), 0.0, 1000
    said: list[list[int]] = [[1], [2], [3]]
    rows = []
    for _ in range(count):
        before = rng.choice(said)
        length = block * len(before) + rng.randrange(10, 2 * block)
        ids = [*before, *range(fresh, fresh - (-length // block) - len(before))]
        fresh += len(ids)
        rows.append({"timestamp": round(at), "input_length": length, "output_length": 2, "hash_ids": ids})
        said = [*said, ids[: length // block]][-12:]
        at += rng.expovariate(1 / gap_ms)
    return rows


def put(folder: Path, rows: list[dict]) -> None:
    """Writes them as ``t.jsonl``."""
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
