"""The routing check: which cells it adds, what they come to, and that no comparison counts them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer
from scenario_text import SMALLEST, loaded, scenario

from loadgen.assemble import RunReport, assemble
from loadgen.plan import make_plan
from loadgen.record import Record
from loadgen.repeat import Result
from loadgen.reports import markdown as markdown_report
from loadgen.reports import plan as plan_report
from loadgen.reports import text as text_report
from loadgen.routing import DOMAIN, KINDS, RoutingCheck, Spread, routing_check
from loadgen.scenario import Cell, expand, public_dict
from loadgen.store import create_run, write_json
from loadgen.summarise import summarise
from loadgen.summary import Context, Summary, Window

CHECKED = SMALLEST.replace("prompts: natural,", "prompts: natural, routing_check: true,")
LADDER = "matrix: {load.concurrency: [1, 4, 16, 64, 256]}\n"


def cells(folder: Path, text: str) -> list[Cell]:
    return expand(scenario(folder, text))


def summary(gap_s: float, in_tok: int = 70) -> Summary:
    """A repeat of ten requests of 11 tokens, the first token after 10 ms, the others ``gap_s`` apart."""
    chunks = [10_000 + round(i * gap_s * 1e6) for i in range(11)]
    records = [
        Record(
            seq=seq, session=seq, phase="measure", t_sched=1 + seq, t_send=1 + seq, t_first=1.01 + seq,
            t_last=1 + seq + chunks[-1] / 1e6, t_end=1 + seq + chunks[-1] / 1e6, ttft_s=0.01, tpot_s=gap_s,
            e2e_s=chunks[-1] / 1e6, chunk_us=chunks, ask_tok=11, in_tok=in_tok, out_tok=11, tok_source="usage",
            clock="kernel", lag_us_max=10, status="ok", http=200, finish="length", prompt_sha=str(seq), cached_tok=0,
        )
        for seq in range(10)
    ]  # fmt: skip
    return summarise(records, Window(1, 12), Context(exact_tok=11, concurrency=1, worker_cpu=(0.1,)))


def kinds(*gaps: Sequence[float]) -> dict[str, list[Summary | None]]:
    """Repeats by kind of prompts, in the order of `KINDS`, from the gaps of each repeat in ms."""
    return {kind: [summary(gap / 1e3) for gap in each] for kind, each in zip(KINDS, gaps, strict=False)}


def checked(targets: dict[str, dict[str, list[Summary | None]]]) -> RoutingCheck:
    found = routing_check("concurrency=16", targets, [("dense", "moe")])
    assert found is not None
    return found


def tpot(check: RoutingCheck, target: str) -> Spread:
    return next(spread for spread in check.spreads if (spread.target, spread.measure) == (target, "p50 tpot_s"))


STEADY = kinds((20, 20.1, 20), (20.1, 20, 20), (20, 20, 20.1))
SKEWED = kinds((20, 20.1, 20), (25, 25.2, 25.1), (21, 21.1, 21))


def test_a_target_that_minds_its_prompts_is_told_from_one_that_does_not() -> None:
    found = checked({"dense": STEADY, "moe": SKEWED})
    assert tpot(found, "dense").depends is False
    assert tpot(found, "moe").depends is True
    assert (tpot(found, "moe").low, tpot(found, "moe").high) == ("natural", DOMAIN)
    ratio = tpot(found, "moe").ratio
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < 25.1 / 20.03 < ratio.high


def test_what_the_candidate_changes_by_beyond_the_baseline_is_the_experts() -> None:
    found = checked({"dense": STEADY, "moe": SKEWED})
    excess = next(one for one in found.excesses if one.measure == "p50 tpot_s")
    assert excess.ratio.value == pytest.approx(25.1 / 20.03, rel=0.01)
    assert "the prompts decide how its experts are loaded" in excess.sentence


def test_where_both_change_alike_nothing_is_said_of_experts() -> None:
    # 25 % slower on code, both of them: longer prompts, say
    alike = kinds((40, 40.3, 40), (50, 50.1, 50.3), (41, 41, 41.2))
    excess = next(one for one in checked({"dense": alike, "moe": SKEWED}).excesses if one.measure == "p50 tpot_s")
    assert "routing is not seen to matter here" in excess.sentence


def test_a_difference_that_survives_alone_but_not_among_three_pairs_is_no_dependence() -> None:
    # natural against code: p is about 0.04, which one pair in three reaches by chance often enough
    noisy = kinds((20, 20.3, 20.1), (20.45, 20.6, 20.75), (20.2, 20.5, 20.3))
    spread = tpot(checked({"moe": noisy}), "moe")
    assert spread.ratio.p is not None
    assert 0.05 / 3 < spread.ratio.p < 0.05
    assert spread.depends is False


def test_an_interval_too_wide_to_show_a_difference_does_not_say_that_there_is_none() -> None:
    rough = kinds((20, 26, 23), (24, 21, 27), (22, 25, 20))
    spread = tpot(checked({"moe": rough}), "moe")
    assert spread.depends is False
    assert "too wide to say" in spread.sentence
    assert "no dependence seen" in tpot(checked({"moe": STEADY}), "moe").sentence


def test_under_three_repeats_there_is_a_ratio_and_no_word_on_it() -> None:
    spread = tpot(checked({"moe": kinds((20, 20), (25, 25), (21, 21))}), "moe")
    assert spread.depends is None
    assert spread.ratio.value == pytest.approx(1.25)
    assert "no interval: fewer than 3 repeats" in spread.sentence


def test_the_mean_input_lengths_are_stated() -> None:
    repeats: dict[str, list[Summary | None]] = {"natural": [summary(0.02, 76)], "random": [summary(0.02, 72)]}
    spread = tpot(checked({"moe": repeats}), "moe")
    assert spread.input_tokens == {"natural": 76, "random": 72}
    assert "natural 20 ms (76 tokens in), random 20 ms (72 tokens in)" in spread.sentence


def test_an_invalid_repeat_is_never_taken_in() -> None:
    bad = msgspec.structs.replace(summary(0.5), state="invalid")
    repeats = {"natural": [summary(0.02), bad], "code": [summary(0.02), summary(0.02)]}
    spread = tpot(checked({"moe": repeats}), "moe")
    assert spread.values["natural"] == (pytest.approx(0.02), None)
    assert (spread.ratio.n, spread.ratio.value) == (1, pytest.approx(1.0))


@pytest.mark.parametrize("repeats", [{}, {"natural": [None]}, {"natural": [summary(0.02)], "code": [None]}])
def test_one_kind_alone_has_no_spread(repeats: dict[str, list[Summary | None]]) -> None:
    assert routing_check("all", {"moe": repeats}, []) is None


def test_the_middle_cell_is_repeated_on_each_kind_and_nothing_else_of_it_changes(tmp_path: Path) -> None:
    found = cells(tmp_path, CHECKED + LADDER)
    extra = [cell for cell in found if cell.routing is not None]
    pattern = next(cell for cell in found if cell.id == "concurrency=16")
    assert [cell.id for cell in extra] == [f"concurrency=16-routing={kind}" for kind in KINDS]
    for cell in extra:
        assert (cell.scenario.load, cell.scenario.targets) == (pattern.scenario.load, pattern.scenario.targets)
        assert cell.scenario.workload.output == pattern.scenario.workload.output
        assert not cell.scenario.workload.routing_check
    assert [cell.scenario.workload.settings.get("system") for cell in extra] == [False, False, None]
    told = [(cell.scenario.workload.prompts, cell.scenario.workload.settings.get("tags")) for cell in extra]
    assert told == [("natural", None), ("natural", [DOMAIN]), ("synthetic", None)]


def test_the_middle_is_that_of_every_axis(tmp_path: Path) -> None:
    text = CHECKED + "matrix: {load.concurrency: [1, 4, 16], targets.dense.options.eager: [false, true]}\n"
    extra = [cell for cell in cells(tmp_path, text) if cell.routing]
    assert {(cell.axes["concurrency"], cell.axes["eager"]) for cell in extra} == {(4, True)}


def test_without_the_word_there_is_no_extra_cell(tmp_path: Path) -> None:
    assert not any(cell.routing for cell in cells(tmp_path, SMALLEST + LADDER))


@pytest.mark.parametrize(
    ("workload", "raw"),
    [
        ("prompts: synthetic, input_tokens: 9, vocab_size: 999,", True),
        ("prompts: synthetic, kind: words, words: 9,", False),
        ("prompts: synthetic, kind: words, words: 9, raw: true,", True),
        ("prompts: natural,", False),
    ],
)
def test_prompts_outside_a_chat_template_stay_outside(tmp_path: Path, workload: str, raw: bool) -> None:
    text = CHECKED.replace("prompts: natural,", workload)
    extra = [cell for cell in cells(tmp_path, text) if cell.routing]
    assert [cell.scenario.workload.settings.get("raw", False) for cell in extra] == [raw] * 3


def test_the_plan_says_what_the_check_costs(tmp_path: Path) -> None:
    found = loaded(tmp_path, CHECKED.replace("window_s: 1", "window_s: 9.5, warmup_s: 0") + LADDER + "repeats: 2\n")
    shown = plan_report.render(make_plan(found.scenario, expand(found.scenario)), found)
    assert "routing check: 3 of the cells (natural, code, random prompts), 1 min 0 s of it" in shown


@pytest.fixture
def report(tmp_path: Path) -> RunReport:
    """A stored run of two targets at two concurrencies and the routing check; moe is 25 % slower on code."""
    text = CHECKED.replace("concurrency: 2, ", "").replace("model: a}", "model: a}\n  moe: {engine: hf, model: b}")
    found = loaded(tmp_path, text + "matrix: {load.concurrency: [1, 2]}\nrepeats: 3\ncomparison: {}\n"
                   "objectives: [p50 ttft < 1 ms]\n").scenario  # fmt: skip
    plan = make_plan(found, expand(found))
    run = create_run(tmp_path / "store", "x")
    write_json(run.folder / "plan.json", plan)
    machine = {"cpu": "a processor", "cores": 2, "memory_gb": 1, "gpus": []}
    run.write(
        "run.json",
        {
            "run": run.id, "status": "complete", "started": "a", "ended": "b", "scenario": public_dict(found),
            "seed": 1, "versions": {"loadgen": "0"}, "machine": machine, "profile": None, "profile_reason": "",
            "failures": [],
        },
    )  # fmt: skip
    for step in plan.steps:
        gap_ms = 25 if step.target == "moe" and step.cell.endswith("routing=code") else 20
        _, folder = run.repeat(step.cell, step.target, step.rep).new_attempt()
        result = Result(
            cell=step.cell, target=step.target, rep=step.rep, attempt=1, block=step.block, seed=step.seed, server=None,
            started="a", summary=summary((gap_ms + step.rep / 100) / 1e3), workers=(),
        )  # fmt: skip
        write_json(folder / "summary.json", result)
    return assemble(run)


def test_the_extra_cells_are_in_no_verdict_and_no_objective(report: RunReport) -> None:
    both = ["concurrency=1", "concurrency=2"]
    assert [cell.id for cell in report.cells] == both
    assert [cell.cell for cell in report.comparisons[0].cells] == both
    assert [cell.routing for cell in report.routing_cells] == list(KINDS)
    assert not any(target.judgements for cell in report.routing_cells for target in cell.targets)


def test_the_report_prints_the_spread_of_each_target_and_every_repeat_of_it(report: RunReport) -> None:
    assert report.routing is not None
    assert report.routing.cell == "concurrency=2"
    assert {spread.target: spread.depends for spread in report.routing.spreads if spread.measure == "p50 tpot_s"} == {
        "dense": False,
        "moe": True,
    }
    shown = text_report.render(report, 200)
    assert "Routing check of concurrency=2" in shown
    assert "25.02 ms (70 tokens in)" in shown
    page = markdown_report.render(report)
    assert "## Routing check of concurrency=2" in page
    assert sum("routing=code |" in line for line in page.split("## Every repeat")[1].splitlines()) == 6


def test_a_run_asks_every_kind_of_prompts(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=4) as server:
        text = (
            f"targets: {{moe: {{endpoint: '{server.url}', model: m}}}}\nrepeats: 1\n"
            "workload: {prompts: natural, output: {exact: 9}, routing_check: true}\n"
            "load: {concurrency: 2, warmup_s: 0.1, window_s: 0.4}\n"
        )
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    asked = {attempt.parts[-4]: {record.source for record in done.records(attempt)} for attempt in done.attempts()}
    natural, random = {"natural"}, {"synthetic"}
    assert asked == {"all": natural, "routing=natural": natural, "routing=code": natural, "routing=random": random}
