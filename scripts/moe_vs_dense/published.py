"""The published figures beside ours: the burst of 100 and 1000 prompts. The figures are the only ones typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from measured import mean_of, number

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.metrics import Measure
from loadgen.reports.markdown import bullets, tabled
from loadgen.reports.rows import DASH

PUBLISHED = MappingProxyType(
    {("dense", 100): (6.68, 7343.56), ("moe", 100): (4.81, 5291.15), ("dense", 1000): (7.99, 8791.35),
     ("moe", 1000): (5.18, 5698.37)}
)  # fmt: skip
"""Requests/s and tokens/s (prompt and output, 1100 a request) by target and prompts at once."""

DIFFERENCES = (
    "two A100 80 GB with tensor parallelism 2 there; here what the section of the run says",
    "trained weights there, as far as is known; random ones here, which route tokens in a way of their own",
    "vLLM's throughput script there, which calls the engine inside its own process; here requests over HTTP to its "
    "server, which streams the replies",
    "a vLLM of 2024 there: its kernel for experts, its scheduler and its attention have since been replaced",
    "all prompts at once there; here within 0.2 s (100) and 1 s (1000), so that none is sent late",
    "one try there, as far as is known; repeats with an interval here",
)


def published(reports: Sequence[RunReport]) -> list[str]:
    """The section: the published table, with ours where a run has it."""
    asked = [report for report in reports if report.run.get("profile") == "published"]
    cells: dict[object, ReportCell] = {cell.axes["concurrency"]: cell for report in asked for cell in report.cells}
    return [
        "## The published figures",
        "",
        "Qwen1.5-32B-Chat (dense) and Qwen2-57B-A14B-Instruct (MoE), all prompts at once, 1000 tokens in, 100 out, "
        "eager mode. Its caption says that the MoE has the larger throughput at large batches; its figures say 28 and "
        "35 % less.",
        "",
        *tabled(list(_table(cells))),
        *bullets([f"{text}." for text in DIFFERENCES], "What differs between the two:"),
    ]


def _table(cells: dict[object, ReportCell]) -> Iterator[list[str]]:
    yield ["prompts", "target", "published req/s", "ours", "published total tok/s", "ours"]
    for (name, prompts), (rps, tok_s) in PUBLISHED.items():
        target = _target(cells.get(prompts), name)
        ours = [_text(target, Measure("request_rps"), 3), _text(target, Measure("total_tok_s"), 4)]
        yield [str(prompts), name, f"{rps}", ours[0], f"{tok_s:,.0f}", ours[1]]
    for prompts in (100, 1000):
        (_, dense), (_, moe) = PUBLISHED["dense", prompts], PUBLISHED["moe", prompts]
        sides = [mean_of(found, Measure("total_tok_s")) if found else None for found in _sides(cells.get(prompts))]
        ratio = number(sides[1].value / sides[0].value, 3) if sides[0] and sides[1] else DASH
        yield [str(prompts), "MoE / dense", "", "", number(moe / dense, 3), ratio]


def _sides(cell: ReportCell | None) -> tuple[TargetCell | None, TargetCell | None]:
    return _target(cell, "dense"), _target(cell, "moe")


def _target(cell: ReportCell | None, name: str) -> TargetCell | None:
    return None if cell is None else next((one for one in cell.targets if one.target == name), None)


def _text(target: TargetCell | None, what: Measure, digits: int) -> str:
    found = mean_of(target, what) if target else None
    return DASH if found is None else found.text(digits)
