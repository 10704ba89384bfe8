"""Points of series: what makes nights comparable, what is watched, and which facts stand beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from made_nights import GPU, described, launched, made_scenario
from made_runs import MACHINE, made_run

from loadgen.assemble import assemble
from loadgen.nights.series import Point, points_of, policy_of, primaries
from loadgen.scenario import Scenario, expand


def points(
    folder: Path, scenario: Scenario, fields: dict[str, Any] | None = None, values: Any = (100.0,)
) -> list[Point]:
    run = made_run(folder / "store", scenario, dict.fromkeys(scenario.targets, values), fields or described())
    return points_of(assemble(run))


def key(folder: Path, scenario: Scenario, fields: dict[str, Any] | None = None) -> str:
    return points(folder, scenario, fields)[0].series.key


def test_what_is_watched_is_no_part_of_the_key_and_what_makes_nights_comparable_is(tmp_path: Path) -> None:
    first = key(tmp_path, launched(tmp_path))
    same = [
        key(tmp_path, launched(tmp_path), described({"version": "0.10"})),
        key(tmp_path, launched(tmp_path), described(driver="580")),
        key(tmp_path, launched(tmp_path), described({"revision": "r2"}, versions={"loadgen": "2"})),
        key(
            tmp_path, launched(tmp_path), described(machine={**MACHINE, "gpus": [GPU], "host": "h2", "memory_gb": 63.2})
        ),
        key(tmp_path, launched(tmp_path, ", options: {revision: abc}")),
        key(tmp_path, launched(tmp_path, more="repeats: 1\ndescription: other\nobjectives: [p50 ttft < 1 s]\n")),
        key(tmp_path, launched(tmp_path, load_words="concurrency: 4, drain_s: 5")),
        key(tmp_path, launched(tmp_path, more="repeats: 1\nnightly: {gate: {output_tok_s: 5%}}\n")),
    ]
    assert set(same) == {first}
    other_gpu = {"machine": {**MACHINE, "gpus": [{**GPU, "name": "H100"}]}}
    others = [
        key(tmp_path, launched(tmp_path, load_words="concurrency: 8")),
        key(tmp_path, launched(tmp_path, ", options: {dtype: float16}")),
        key(tmp_path, launched(tmp_path), described(**other_gpu)),
        key(tmp_path, launched(tmp_path), described(machine={**MACHINE, "gpus": [GPU], "cores": 16})),
    ]
    assert len({first, *others}) == 5


def test_an_image_counts_by_its_name_and_how_it_is_pinned_begins_an_epoch(tmp_path: Path) -> None:
    floating, tagged, pinned = (
        points(tmp_path, launched(tmp_path, f", image: 'hub.example:5000/vllm{end}'"))[0]
        for end in ("", ":v0.9", "@sha256:abc")
    )
    assert len({one.series.key for one in (floating, tagged, pinned)}) == 1
    assert [one.facts["image_policy"] for one in (floating, tagged, pinned)] == ["floating", "tag", "digest"]
    assert policy_of("vllm/vllm-openai:nightly") == "floating"
    assert policy_of(None) is None


def test_words_from_the_environment_count_by_their_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for value in ("1", "2"):
        monkeypatch.setenv("SPEED", value)
        found.add(key(tmp_path, launched(tmp_path, ", env: {SPEED: '${env:SPEED}'}")))
    assert len(found) == 1


def test_a_point_is_the_mean_of_the_logarithms_of_the_good_repeats(tmp_path: Path) -> None:
    scenario = launched(tmp_path, more="repeats: 3\n")
    whole, part, none = (points(tmp_path, scenario, values=v) for v in ((90, 100, 110), (90, None, 110), [None] * 3))
    assert (whole[0].state, whole[0].reps) == ("ok", 3)
    assert whole[0].y == pytest.approx(math.log(90 * 100 * 110) / 3)
    assert (part[0].state, part[0].reps, part[0].value) == ("degraded", 2, pytest.approx(math.sqrt(90 * 110)))
    assert [(one.state, one.value) for one in none] == [("invalid", None)] * 2  # the primary ones: others are left out


def test_an_invalid_repeat_is_no_part_of_a_point(tmp_path: Path) -> None:
    run = made_run(tmp_path / "store", launched(tmp_path), {"a": [100]}, described(), state="invalid")
    assert {one.state for one in points_of(assemble(run))} == {"invalid"}


def test_the_scenario_names_what_raises_alarms_and_replies_that_come_whole_have_no_ttft(tmp_path: Path) -> None:
    named = launched(tmp_path, more="repeats: 1\nnightly: {primary: [p95 ttft]}\n")
    found = points(tmp_path, named)
    assert [one.series.measure for one in found if one.primary] == ["p95 ttft_s"]
    assert primaries({}) == ("output_tok_s", "p50 ttft_s")
    assert primaries({"workload": {"stream": False}}) == ("output_tok_s",)


def test_the_cells_of_a_routing_check_are_no_series(tmp_path: Path) -> None:
    scenario = made_scenario(tmp_path, "repeats: 1\n")
    asked = scenario.model_copy(update={"workload": scenario.workload.model_copy(update={"routing_check": True})})
    assert len(expand(asked)) > 1
    assert {one.series.cell for one in points(tmp_path, asked, {"machine": MACHINE})} == {"all"}
