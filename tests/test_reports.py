"""Reports from records that were made up: what they show, how wide they are, what never gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_runs import made_run, scenario_of
from model_configs import QWEN2_57B, QWEN15_32B

from loadgen.assemble import RunReport, assemble
from loadgen.limits.served import serving
from loadgen.long.intervals import FILE, Interval
from loadgen.plan import make_plan
from loadgen.record import Record
from loadgen.repeat import Result
from loadgen.reports import json as json_report
from loadgen.reports import markdown, objectives, rows, text, yardsticks
from loadgen.scenario import expand, public_dict
from loadgen.scenario import load as load_scenario
from loadgen.scenario.loading import from_public
from loadgen.shown import number
from loadgen.store import Run, append_line, create_run, write_json
from loadgen.summarise import summarise
from loadgen.summary import Context, Doubt, Window

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "<img src=x onerror=alert(1)>|\u001b[31m"
SCENARIO = (
    "schema: loadgen/v1\nname: made_up\n"
    "targets: {dense: {endpoint: 'http://h:1', model: d}, moe: {endpoint: 'http://h:2', model: m}}\n"
    "workload: {prompts: natural, output: {exact: 11}}\nload: {warmup_s: 1, window_s: 30}\n"
    "matrix: {concurrency: [1, 4]}\nrepeats: 3\ncomparison: {baseline: dense, scope: instance}\n"
    "objectives: [p50 ttft < 60 ms, error_rate < 1 %]\n"
)


def record(seq: int, speed: float, more: dict[str, Any]) -> Record:
    """A request that was sent at second ``1 + seq / 10`` and got 11 tokens, the first after 50 ms."""
    sent = 1 + seq / 10
    chunks = [50_000 + round(i * 10_000 / speed) for i in range(11)]
    end = sent + chunks[-1] / 1e6
    fields = {
        "seq": seq, "session": seq, "phase": "measure", "t_sched": sent, "t_send": sent, "t_first": sent + 0.05,
        "t_last": end, "t_end": end, "ttft_s": 0.05, "tpot_s": (chunks[-1] - chunks[0]) / 1e7,
        "e2e_s": chunks[-1] / 1e6,
        "chunk_us": chunks, "ask_tok": 11, "in_tok": 20, "out_tok": 11, "tok_source": "usage", "clock": "kernel",
        "lag_us_max": 10, "status": "ok", "http": 200, "finish": "length", "prompt_sha": str(seq), "cached_tok": 0,
    }  # fmt: skip
    return Record(**(fields | more))


def write_repeat(run: Run, cell: str, target: str, rep: int, speed: float) -> None:
    failing = {"status": "http_error", "err": f"500: {HOSTILE}", "chunk_us": [], "ttft_s": None, "out_tok": None}
    records = [record(seq, speed, {}) for seq in range(290)]
    if target == "moe" and cell == "concurrency=4":
        records += [record(290 + seq, speed, failing) for seq in range(3)]
    context = Context(exact_tok=11, concurrency=int(cell.partition("=")[2]), worker_cpu=(0.1,))
    summary = summarise(records, Window(1, 31), context)
    _, folder = run.repeat(cell, target, rep).new_attempt()
    result = Result(
        cell=cell, target=target, rep=rep, attempt=1, block=(rep + 1) // 2, seed=1, server=None,
        started="2026-11-21T00:00:00Z", summary=summary, workers=(),
    )  # fmt: skip
    write_json(folder / "summary.json", result)


def made(folder: Path, scenario_text: str = SCENARIO) -> RunReport:
    """Two targets at two concurrencies, three repeats; moe decodes 1.5 times as fast, and fails now and then at 4."""
    path = folder / "made_up.yaml"
    path.write_text(scenario_text)
    scenario = load_scenario(path).scenario
    run = create_run(folder / "store", "made_up")
    write_json(run.folder / "plan.json", make_plan(scenario, expand(scenario)))
    machine = {"cpu": "a processor", "cores": 2, "memory_gb": 1, "gpus": []}
    run.write(
        "run.json",
        {
            "run": run.id, "status": "complete", "started": "a", "ended": "b", "scenario": public_dict(scenario),
            "seed": 1, "versions": {"loadgen": "0"}, "machine": machine, "profile": None, "profile_reason": "",
            "served": serving(expand(scenario), folder), "failures": [],
        },
    )  # fmt: skip
    for cell in ("concurrency=1", "concurrency=4"):
        for rep in (1, 2, 3):
            write_repeat(run, cell, "dense", rep, 1.0 + rep / 1000)
            write_repeat(run, cell, "moe", rep, 1.5)
    return assemble(run)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """Two endpoints of which nothing is known."""
    return made(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """The same with their models, GPUs and prices; moe is asked with random words."""
    return made_known(tmp_path_factory.mktemp("known"))


def made_known(folder: Path) -> RunReport:
    """`made` with two published models on GPUs that have a price."""
    (folder / "d.json").write_text(json.dumps(QWEN15_32B))
    (folder / "m.json").write_text(json.dumps(QWEN2_57B))
    text = SCENARIO.replace("model: d", "model: d, config: d.json, gpu: h200, gpus: 2, price_per_hour: 7.5")
    text = text.replace("model: m", "model: m, config: m.json, gpu: h200, gpus: 4, price_per_hour: 15")
    return made(folder, text.replace("prompts: natural", "prompts: synthetic, kind: words, words: 15"))


def test_a_value_is_the_mean_over_the_repeats(report: RunReport) -> None:
    table = rows.rows(report)
    assert table[0][:3] == ["concurrency", "target", "output tok/s"]
    assert [row[:2] for row in table[1:]] == [["1", "dense"], ["1", "moe"], ["4", "dense"], ["4", "moe"]]
    assert float(table[1][table[0].index("TTFT p50 ms")]) == pytest.approx(50, rel=1e-3)
    assert float(table[1][table[0].index("TPOT p50 ms")]) == pytest.approx(10 / 1.002, rel=1e-3)


def test_a_percentile_below_its_floor_is_a_dash(report: RunReport) -> None:
    table = rows.rows(report)
    at = table[0].index("p99")
    assert {row[at] for row in table[1:]} == {"-"}
    assert "p99" in " ".join(rows.warning_lines(report))


def test_a_comparison_whose_error_rates_differ_is_refused_in_words(report: RunReport) -> None:
    lines = rows.comparison_lines(report)
    assert "concurrency 1" in lines[0]
    assert "not comparable" in lines[1]


def test_objectives_are_marked_where_they_are_missed(report: RunReport) -> None:
    lines = objectives.lines(report, objectives.UNICODE)
    assert lines[0].startswith("✓ p50 ttft < 60 ms: met in all 4 places")
    assert any(line.startswith("✗ error_rate < 1 %: concurrency=4, moe: 1.024 %") for line in lines)
    assert report.exit_code == 3


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_of_the_table_is_wider_than_the_terminal(report: RunReport, width: int) -> None:
    lines = text.render(report, width).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("concurrency"))
    table = lines[start : start + 6]
    assert max(len(line) for line in table) <= width
    assert all(("moe" in line) or ("dense" in line) for line in table[2:])


def test_columns_that_gave_way_are_named(report: RunReport) -> None:
    narrow = text.render(report, 60)
    assert "left out at this width:" in narrow
    assert "TTFT p99" in " ".join(narrow.split("left out at this width:")[1].split())
    assert "left out" not in text.render(report, 200)


def test_headings_stand_on_two_lines_before_a_column_gives_way(report: RunReport) -> None:
    lines = text.render(report, 120).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("concurrency"))
    assert "TTFT p50 ms" not in lines[head]
    assert lines[head - 1].split()[:2] == ["output", "TTFT"]
    assert set(lines[head + 1]) == {"-"}
    assert "left out" not in text.render(report, 120)


def test_a_window_that_holds_no_table_has_a_paragraph_a_row_and_loses_nothing(report: RunReport) -> None:
    lines = text.render(report, 40).splitlines()
    start = lines.index("concurrency 4, target moe")
    paragraph = " ".join(lines[start : start + 6])
    for words in ("output tok/s 106.3", "TTFT p95 50.00", "e2e p50 ms 116.7", "failed 9/879", "state ok"):
        assert words in paragraph
    assert max(map(len, lines[:start])) <= 40
    assert "left out" not in text.render(report, 40)


def test_without_unicode_the_report_is_ascii(report: RunReport) -> None:
    assert text.render(report, 100, unicode=False).isascii()
    assert not text.render(report, 100, unicode=True).isascii()


def test_terminal_escapes_and_markup_of_others_do_not_get_through(report: RunReport) -> None:
    hostile = msgspec.structs.replace(report, failures=(HOSTILE,))
    assert "\u001b" not in text.render(hostile, 100)
    page = markdown.render(hostile)
    assert "<img" not in page
    assert "\u001b" not in page


def test_markdown_has_every_repeat_and_the_definitions(report: RunReport) -> None:
    page = markdown.render(report)
    body = page.split("## Every repeat")[1].split("## Definitions")[0]
    assert sum(line.startswith("| concurrency=") for line in body.splitlines()) == 12
    assert "never" not in page.split("## Comparison")[0]
    assert "From the send of a request to the first event" in page


def test_json_is_versioned_and_reads_back(report: RunReport) -> None:
    found = json.loads(json_report.render(report))
    assert found["schema"] == 1
    assert msgspec.convert(found["cells"][0]["targets"][0]["results"][0], Result).summary.ok == 290


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0.000"), (0.00012, "0.0001"), (0.5, "0.500"), (12.345, "12.35"), (123.45, "123.5"),
     (1234.5, "1,234"), (123456.7, "123,457"), (-3.0, "-3.000"), (9.9999, "10.00"), (99.996, "100.0"),
     (999.97, "1,000"), (9999.6, "10,000"), (0.00001, "0.00001")],
)  # fmt: skip
def test_numbers_have_four_digits_or_so(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_a_run_without_repeats_has_a_report_that_says_skipped(tmp_path: Path) -> None:
    path = tmp_path / "made_up.yaml"
    path.write_text(SCENARIO)
    scenario = load_scenario(path).scenario
    run = create_run(tmp_path / "store", "made_up")
    write_json(run.folder / "plan.json", make_plan(scenario, expand(scenario)))
    run.write("run.json", {"scenario": public_dict(scenario), "failures": []})
    empty = assemble(run)
    assert empty.exit_code == 6
    assert text.render(empty).count("SKIPPED") == 4


# -- floors, rates by what they took, mixtures ----------------------------------------------------------------------


def test_what_is_known_of_no_target_is_in_no_table(report: RunReport) -> None:
    shown = text.render(report, 100)
    assert "Against the floor" not in shown
    assert "by their floors" not in shown
    assert "Normalised" not in shown
    page = markdown.render(report)
    assert "dense: no config.json of dense's model is at hand" in page
    assert "## Normalised" not in page


def test_the_terminal_shows_of_the_rates_what_tells_targets_apart(known: RunReport) -> None:
    heads = [column.head for column in yardsticks.normalised_columns(known)]
    assert heads == ["per GPU", "per B active params", "per B params", "per GB of weights", "price per M tok"]
    alike = [
        msgspec.structs.replace(one, gpus=1, parameters=10, active_parameters=10, weight_bytes=20.0)
        for one in known.normalised.cells
    ]
    same = msgspec.structs.replace(known, normalised=msgspec.structs.replace(known.normalised, cells=tuple(alike)))
    assert [column.head for column in yardsticks.normalised_columns(same)] == ["price per M tok"]


def test_markdown_has_every_column_of_floors_and_rates(known: RunReport) -> None:
    page = markdown.render(known)
    for heading, columns in (("Against the floor", "MORE_FLOORS"), ("Normalised", "MORE_NORMALISED")):
        part = page.split(f"## {heading}")[1].split("\n## ")[0]
        head = next(line for line in part.splitlines() if line.startswith("|"))
        assert [word.strip() for word in head.strip("|").split("|")][2:] == [
            column.head for column in getattr(yardsticks, columns)
        ]
        assert sum(line.startswith(("| 1 |", "| 4 |")) for line in part.splitlines()) == 4


def test_a_share_of_the_floor_that_is_not_zero_is_not_written_as_zero(known: RunReport) -> None:
    one = known.floors.cells[0]
    assert one.decode is not None
    column = next(column for column in yardsticks.FLOORS if column.head == "bandwidth")
    for share, said in ((0.004, "0.4 %"), (0.0, "0 %"), (0.516, "52 %")):
        held = msgspec.structs.replace(one, decode=msgspec.structs.replace(one.decode, bandwidth_share=share))
        assert column.text(held) == said


def test_a_batch_that_the_server_did_not_say_has_a_star(known: RunReport) -> None:
    table = yardsticks.floor_rows(known, yardsticks.FLOORS)
    assert [row[table[0].index("batch")] for row in table[1:]] == ["1.000*", "1.000*", "4.000*", "4.000*"]
    assert yardsticks.SILENT in yardsticks.floor_lines(known)


def test_a_verdict_on_a_mixture_carries_the_doubt_of_its_prompts(known: RunReport) -> None:
    lines = rows.warning_lines(known)
    assert any("moe is a mixture of experts" in line and "random words" in line for line in lines)
    assert any(
        line.startswith("moe chooses 8 of 64 experts a token: random words, ")
        for line in yardsticks.mixture_lines(known)
    )


def test_two_mixtures_have_a_doubt_each(known: RunReport) -> None:
    (comparison,) = known.comparisons
    twice = (Doubt("routing", "one is a mixture"), Doubt("routing", "two is a mixture"))
    cells = tuple(msgspec.structs.replace(cell, doubts=twice) for cell in comparison.cells)
    both = msgspec.structs.replace(known, comparisons=(msgspec.structs.replace(comparison, cells=cells),))
    lines = rows.warning_lines(both)
    assert {"one is a mixture (2 cells)", "two is a mixture (2 cells)"} <= set(lines)


def test_a_target_that_is_faster_than_its_floor_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps(QWEN15_32B))
    found = made(tmp_path, SCENARIO.replace("model: d", "model: d, config: d.json, gpu: l40s"))
    warned = [line for line in rows.warning_lines(found) if line.startswith("dense is faster than its floor")]
    assert len(warned) == 1
    assert "1 x L40S: TPOT 9.98 ms, floor 7" in warned[0]
    assert warned[0].endswith("(concurrency=1, dense; the like in 1 other cell)")


def test_json_has_floors_rates_and_mixtures_with_versions(known: RunReport) -> None:
    found = json.loads(json_report.render(known))
    assert (found["floors"]["v"], found["normalised"]["v"]) == (1, 1)
    assert found["floors"]["cells"][0]["decode"]["bound"] == "bandwidth"
    assert found["normalised"]["cells"][0]["energy_j"] is None
    assert [one["target"] for one in found["mixtures"]] == ["moe"]


def test_the_report_ends_with_its_page_or_with_the_folder_of_a_run_that_has_none(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert text.render(found).splitlines()[-1] == f"run: {found.path}"
    page = Path(found.path) / "report.html"
    page.touch()
    assert text.render(found).splitlines()[-1] == f"report: {page}"


def test_targets_and_axes_stand_in_the_order_of_the_scenario_wherever_they_are_shown(tmp_path: Path) -> None:
    axes = "matrix: {workload.input_tokens: [16, 8], load.concurrency: [1]}\nrepeats: 1\n"
    scenario = scenario_of(tmp_path, ("zebra", "ant"), axes, load_words="interval_s: 2")
    run = made_run(tmp_path, scenario, {"zebra": [100.0], "ant": [90.0]})
    for attempt in run.folder.glob("cells/*/*/*/attempt-1"):
        append_line(attempt / FILE, Interval(start_s=0.0, length_s=2.0))
    report = assemble(run)
    head, *lines = rows.rows(report)
    assert head[:3] == ["input_tokens", "concurrency", "target"]
    assert [line[:3] for line in lines] == [[size, "1", name] for size in ("16", "8") for name in ("zebra", "ant")]
    courses = [(one.cell, one.target) for one in report.over_time]
    assert courses == [(cell.id, name) for cell in report.cells for name in ("zebra", "ant")]
    stored = from_public(run.read("run.json")["scenario"])
    assert [cell.id for cell in expand(stored)] == [cell.id for cell in report.cells], "a merge and a rejudge find them"
