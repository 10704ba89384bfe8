"""The report as JSON, for programs: the `RunReport` as it is, versioned by its ``schema`` field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from loadgen.assemble import VERSION, RunReport


def render(report: RunReport) -> str:
    """Indented JSON with a final line end."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"


def render_several(reports: Sequence[RunReport]) -> str:
    """A list of them, in the order in which they were named."""
    return msgspec.json.format(msgspec.json.encode(list(reports)), indent=1).decode() + "\n"


def schema() -> str:
    """The JSON schema of a report: names and types. ``run`` is run.json and may hold more than anybody knows."""
    known = _without_prose(msgspec.json.schema(RunReport))
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"loadgen report, version {VERSION}",
        "description": "What `loadgen report RUN --format json` prints; of several runs it prints a list of these.",
    }
    return msgspec.json.format(msgspec.json.encode({**head, **known}), indent=2).decode() + "\n"


def _without_prose(node: Any) -> Any:
    """The same without our docstrings: what a field means stands in `metrics`, and a word there changes no contract."""
    if isinstance(node, dict):
        kept = {name: inner for name, inner in node.items() if name != "description" or not isinstance(inner, str)}
        return {name: _without_prose(inner) for name, inner in kept.items()}
    return [_without_prose(inner) for inner in node] if isinstance(node, list | tuple) else node
