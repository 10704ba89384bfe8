"""The report as JSON, for programs: the `RunReport` as it is, versioned by its ``schema`` field."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from loadgen.assemble import VERSION, RunReport


def render(report: RunReport) -> str:
    """Indented JSON with a final line end."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"


def render_several(reports: Sequence[RunReport]) -> str:
    """A list of them, in the order in which they were named."""
    return msgspec.json.format(msgspec.json.encode(list(reports)), indent=1).decode() + "\n"


def schema() -> str:
    """The JSON schema of a report. ``run`` is run.json and may hold more than anybody knows."""
    known = msgspec.json.schema(RunReport)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"loadgen report, version {VERSION}",
        "description": "What `loadgen report RUN --format json` prints; of several runs it prints a list of these.",
    }
    return msgspec.json.format(msgspec.json.encode({**head, **known}), indent=2).decode() + "\n"
