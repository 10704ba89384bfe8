"""The reports that lie beside a run: ``report.json``, ``report.md``, ``report.html``. All of them can be made again."""

from __future__ import annotations

from pathlib import Path

from loadgen.assemble import RunReport
from loadgen.reports import html, json, markdown
from loadgen.store import write_bytes


def write_reports(report: RunReport) -> None:
    """Writes them into the run's folder, what costs least first. Raises StoreError."""
    folder = Path(report.path)
    write_bytes(folder / "report.json", json.render(report).encode())
    write_bytes(folder / "report.md", markdown.render(report).encode())
    write_bytes(folder / "report.html", html.render(report).encode())
