"""What a ready engine says of itself: version, capacity, load time, from its log, its JSON answers or its metrics."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadgen.launch.command import Command
from loadgen.launch.recipe import Fact

if TYPE_CHECKING:
    import httpx

LONGEST_LOG = 8 * 1024 * 1024
"""Only this much of a log is searched: what is looked for is said while loading."""


async def gather(command: Command, client: httpx.AsyncClient, log: Path, start: int) -> dict[str, str | float | None]:
    """The value of every fact that the recipe names, None where the engine does not say. ``start`` is where its log
    begins in the file."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read(LONGEST_LOG).decode(errors="replace")
    return {name: await _find(fact, command, client, text) for name, fact in command.facts.items()}


async def _find(fact: Fact, command: Command, client: httpx.AsyncClient, log: str) -> str | float | None:
    if fact.log is not None:
        found = re.search(fact.log, log)
        return (_number(found[1]) if fact.number else found[1]) if found else None
    import httpx

    path = fact.get if fact.get is not None else command.metrics
    if path is None:
        return None
    try:
        reply = await client.get(path)
        if reply.status_code != 200:
            return None
        return _metric(fact.metric, reply.text) if fact.metric is not None else _field(reply.json(), fact.field)
    except (httpx.HTTPError, ValueError):
        return None


def _field(answer: Any, steps: str | None) -> str | float | None:
    """The value under dotted ``steps`` of a JSON answer (the answer itself without steps), if it is a scalar."""
    for step in steps.split(".") if steps else ():
        answer = answer.get(step) if isinstance(answer, dict) else None
    return answer if isinstance(answer, (str, int, float)) else None


def _metric(name: str, page: str) -> float | None:
    """The sum of a metric over its labels on a Prometheus page, None if it is not there."""
    values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)", page, re.MULTILINE)
    return sum(float(value) for value in values) if values else None


def _number(raw: str) -> float | None:
    """A number as logs print it, ``2,264,597`` too."""
    try:
        return float(raw.replace(",", ""))
    except ValueError:
        return None


def installed_version(words: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The last line that a recipe's version command prints; None if the engine is not there. Takes up to a minute."""
    try:
        done = subprocess.run(
            words,
            env={**environ, "PYTHONSAFEPATH": "1"},  # files in the current folder are no modules
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60.0,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if done.returncode == 0 and lines else None
