"""The published figures beside ours: the burst of 100 and 1000 prompts. The figures are the only ones typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from measured import mean_of, number, ratio_text

from loadgen.assemble import RunReport, TargetCell
from loadgen.metrics import Measure
from loadgen.reports.markdown import bullets, tabled
from loadgen.reports.rows import DASH
from loadgen.statistics import Ratio

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
    "one try there, as far as is known; repeats with an interval here",
)
BURST = ("all prompts at once there; here within 0.2 s (100) and 1 s (1000), so that none is sent late",)
HELD = ("all prompts at once there, at most 256 of them served at a time; here a new request for each that ends",)


def published(reports: Sequence[RunReport]) -> list[str]:
    """The section: the published table with ours beside it where a run has it, else with what comes nearest."""
    burst = next((report for report in reports if report.run.get("profile") == "published"), None)
    nearest = [] if burst else list(_nearest(reports))
    return [
        "## The published figures",
        "",
        "Qwen1.5-32B-Chat (dense) and Qwen2-57B-A14B-Instruct (MoE), all prompts at once, 1000 tokens in, 100 out, "
        "eager mode. Its caption says that the MoE has the larger throughput at large batches; its figures say 28 and "
        "35 % less.",
        "",
        *tabled(list(_table(burst))),
        *bullets(nearest),
        *bullets([f"{text}." for text in (*DIFFERENCES, *(BURST if burst else HELD))], "What differs between the two:"),
    ]


def _nearest(reports: Sequence[RunReport]) -> Iterator[str]:
    """What the eager run says of batches as large as the published."""
    yield "A burst of prompts has not been measured here; `--profile published` of the scenario does it."
    for report in (one for one in reports if one.run.get("profile") == "eager"):
        told = [f"{ratio_text(ratio)} at {held}" for held in (64, 256) if (ratio := _ratio(report, held))]
        if told:
            yield f"Nearest is the eager run above, whose concurrency is held: MoE / dense {'; '.join(told)}."


def _table(burst: RunReport | None) -> Iterator[list[str]]:
    yield [
        "prompts",
        "target",
        "published req/s",
        "published total tok/s",
        *(["our req/s", "our total tok/s"] if burst else []),
    ]
    for (name, prompts), (rps, tok_s) in PUBLISHED.items():
        yield [str(prompts), name, f"{rps}", f"{tok_s:,.0f}", *_ours(burst, prompts, name)]
    for prompts in (100, 1000):
        (_, dense), (_, moe) = PUBLISHED["dense", prompts], PUBLISHED["moe", prompts]
        ours = ["", ratio_text(_ratio(burst, prompts))] if burst else []
        yield [str(prompts), "MoE / dense", "", number(moe / dense, 3), *ours]


def _ours(burst: RunReport | None, prompts: int, name: str) -> list[str]:
    if burst is None:
        return []
    cells = (cell for cell in burst.cells if cell.axes.get("concurrency") == prompts)
    target = next((one for cell in cells for one in cell.targets if one.target == name), None)
    return [_text(target, Measure("request_rps"), 3), _text(target, Measure("total_tok_s"), 4)]


def _ratio(report: RunReport, concurrency: int) -> Ratio | None:
    """Of the primary measure, as the run compared it; None where it did not: invalid, or not comparable."""
    cells = (cell for one in report.comparisons for cell in one.cells if cell.axes.get("concurrency") == concurrency)
    return next((cell.primary.ratio for cell in cells), None)


def _text(target: TargetCell | None, what: Measure, digits: int) -> str:
    found = mean_of(target, what) if target else None
    return DASH if found is None else found.text(digits)
