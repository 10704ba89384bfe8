"""An examination as text: a line for each finding, and what to do about it. In: findings. Out: text, no escapes."""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.doctor import Finding
from loadgen.reports.text import wrapped

MARGIN = 9
"""The width of the first column: ``problem`` and two spaces."""


def render(findings: Sequence[Finding], width: int) -> str:
    """What ``loadgen doctor`` prints."""
    lines: list[str] = []
    for finding in findings:
        said = wrapped(f"{finding.name}: {finding.text}", width - MARGIN)
        if finding.advice:
            said += wrapped(f"what to do: {finding.advice}", width - MARGIN, "  ")
        margins = [finding.state, *[""] * (len(said) - 1)]
        lines += [f"{margin:<{MARGIN}}{line}" for margin, line in zip(margins, said, strict=True)]
    counts = {state: sum(finding.state == state for finding in findings) for state in ("problem", "warning")}
    lines += ["", f"problems: {counts['problem']}, warnings: {counts['warning']}"]
    return "\n".join(lines) + "\n"
