"""The report as JSON, for programs: the `RunReport` as it is, versioned by its ``schema`` field."""

from __future__ import annotations

import msgspec

from loadgen.assemble import RunReport


def render(report: RunReport) -> str:
    """Indented JSON with a final line end."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"
