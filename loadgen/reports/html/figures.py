"""stub"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loadgen.assemble import RunReport
from loadgen.reports.html.tables import Table


@dataclass(frozen=True)
class Figure:
    id: str
    title: str
    reading: str
    chart: dict[str, Any]
    table: Table
    tall: bool = False


@dataclass(frozen=True)
class Detail:
    id: str
    name: str
    figures: Sequence[Figure]


def figures(report: RunReport) -> Iterator[Figure]:
    yield from ()


def details(report: RunReport) -> tuple[tuple[Detail, ...], str]:
    return (), ""
