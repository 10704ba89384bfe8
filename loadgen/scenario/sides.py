"""Which targets are held against which, and where they stand. In: a scenario as plain data, as run.json keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def urls_of(target: Mapping[str, Any]) -> tuple[str, ...]:
    """The endpoints of a target; none where an engine is launched."""
    return tuple(target.get("endpoints") or filter(None, [target.get("endpoint")]))


def contrasts(scenario: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of (baseline, candidate) that are compared; empty without a comparison.

    The baseline is the first target, and the candidates are all others, unless the scenario names them.
    """
    words, targets = scenario.get("comparison"), list(scenario["targets"])
    if words is None:
        return []
    baseline = words.get("baseline") or targets[0]
    return [(baseline, name) for name in words.get("candidates") or [name for name in targets if name != baseline]]
