"""The results in tests/imports, unpacked, and what their own fields say."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

from loadgen.assemble import RunReport
from loadgen.importing.keep import import_files
from loadgen.repeat import Result
from loadgen.summary import Summary

IMPORTS = Path(__file__).with_name("imports")


def unpack(folder: Path) -> Path:
    """Every file of tests/imports in ``folder``, under its own name."""
    for packed in IMPORTS.rglob("*.xz"):
        path = folder / packed.relative_to(IMPORTS).with_suffix("")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.decompress(packed.read_bytes()))
    return folder


def imported(store: Path, *paths: Path, name: str | None = None, target: str | None = None) -> RunReport:
    return import_files(paths, store, name, target)


def results(report: RunReport) -> list[Result]:
    return [result for cell in report.cells for target in cell.targets for result in target.results if result]


def summary(report: RunReport) -> Summary:
    """The summary of a run with one repeat."""
    (result,) = results(report)
    return result.summary


def said(path: Path) -> dict[str, Any]:
    """What the tool's file says."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def doubts(found: Summary) -> dict[str, str]:
    return {doubt.code: doubt.text for doubt in found.doubts}
