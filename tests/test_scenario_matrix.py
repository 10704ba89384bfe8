"""The matrix: which cells it makes, what they are called, and the sentences for those that cannot be."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario_text import SMALLEST, complaints, scenario

from loadgen.errors import ScenarioError
from loadgen.plan import make_plan
from loadgen.scenario import Scenario, expand

Settings = dict[str, Any]


def with_matrix(matrix: Settings, **load: Any) -> Scenario:
    """A scenario of two targets with this matrix."""
    return Scenario.model_validate(
        {
            "targets": {
                "dense": {"engine": "hf", "model": "a", "options": {"dtype": "float32", "batch": 1}},
                "moe": {"engine": "hf", "model": "b", "options": {"dtype": "float32"}},
            },
            "workload": {"prompts": "synthetic", "output": {"exact": 8}},
            "load": {"concurrency": 99, "window_s": 50} | load,
            "matrix": matrix,
        }
    )


def ids(matrix: Settings) -> list[str]:
    return [cell.id for cell in expand(with_matrix(matrix))]


def refusal(matrix: Settings) -> str:
    with pytest.raises(ScenarioError) as caught:
        expand(with_matrix(matrix))
    return str(caught.value)


# The rules of GitHub's documentation, word by word, over plain mappings.


def as_documented(axes: dict[str, list[Any]], include: list[Settings], exclude: list[Settings]) -> list[Settings]:
    original = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())] if axes else []
    original = [c for c in original if not any(all(c[key] == value for key, value in e.items()) for e in exclude)]
    complete = [dict(c) for c in original]
    made = []
    for entry in include:
        added = False
        for before, cell in zip(original, complete, strict=True):
            if all(before.get(key, value) == value for key, value in entry.items()):
                cell.update(entry)
                added = True
        if not added:
            made.append(dict(entry))
    return complete + made


AXES = ("load.concurrency", "load.window_s", "workload.x")
EXTRAS = ("load.drain_s", "workload.y")
values = st.integers(1, 4)
axes_of = st.dictionaries(st.sampled_from(AXES), st.lists(values, min_size=1, max_size=3, unique=True))
entries = st.lists(st.dictionaries(st.sampled_from(AXES + EXTRAS), values, min_size=1, max_size=4), max_size=4)


def settings_of(cell: Scenario) -> Settings:
    return {
        "load.concurrency": cell.load.concurrency,
        "load.window_s": cell.load.window_s,
        "load.drain_s": cell.load.drain_s,
        "workload.x": cell.workload.settings.get("x"),
        "workload.y": cell.workload.settings.get("y"),
    }


@given(axes_of, entries, st.data())
def test_include_and_exclude_do_what_github_documents(
    axes: dict[str, list[int]], include: list[Settings], data: st.DataObject
) -> None:
    choice = st.dictionaries(st.sampled_from(sorted(axes)), values, min_size=1, max_size=3) if axes else st.nothing()
    exclude = data.draw(st.lists(choice, max_size=2)) if axes else []
    matrix: Settings = {**axes, "include": include, "exclude": exclude}
    expected = as_documented(axes, include, exclude)
    if not axes and not include:
        expected = [{}]
    made = expected[-len(include) :] if include else []
    if not expected:
        assert "leaves no cell" in refusal(matrix)
    elif any(made.count(cell) > 1 for cell in made):
        with pytest.raises(ScenarioError, match="twice"):
            expand(with_matrix(matrix))
    else:
        cells = expand(with_matrix(matrix))
        base = settings_of(with_matrix({}))
        assert [settings_of(cell.scenario) for cell in cells] == [base | cell for cell in expected]
        assert len({cell.id for cell in cells}) == len(cells)
        for cell in cells:
            assert re.fullmatch(r"[A-Za-z0-9._=+-]+", cell.id)
            assert cell.scenario.matrix.axes == {}
            assert [again.id for again in expand(cell.scenario)] == ["all"]


@given(axes_of)
def test_a_plain_matrix_is_the_product_of_its_axes_the_last_changing_fastest(axes: dict[str, list[int]]) -> None:
    cells = expand(with_matrix(dict(axes)))
    assert [tuple(cell.axes.values()) for cell in cells] == list(itertools.product(*axes.values()))
    assert all(list(cell.axes) == [axis.split(".")[1] for axis in axes] for cell in cells)


def test_without_a_matrix_there_is_one_cell_called_all() -> None:
    (cell,) = expand(with_matrix({}))
    assert (cell.id, cell.axes) == ("all", {})
    assert cell.scenario.load.concurrency == 99


def test_ids_say_the_values_of_the_axes() -> None:
    assert ids({"load.concurrency": [1, 4]}) == ["concurrency=1", "concurrency=4"]
    assert ids({"concurrency": [1], "window_s": [2.5, 10.0]}) == [
        "concurrency=1-window_s=2.5",
        "concurrency=1-window_s=10",
    ]
    assert ids({"stream": [True, False], "max_rps": [None]}) == [
        "stream=true-max_rps=null",
        "stream=false-max_rps=null",
    ]
    assert ids({"workload.output.exact": [1, 2]}) == ["output.exact=1", "output.exact=2"]


def test_axes_of_the_same_name_are_told_apart() -> None:
    assert ids({"targets.dense.options.dtype": ["a"], "targets.moe.options.dtype": ["b"]}) == [
        "dense.options.dtype=a-moe.options.dtype=b"
    ]


def test_values_that_no_folder_can_be_called_by_get_a_hash() -> None:
    first, second = ids({"targets.dense.model": ["org/m", "org m"]})
    assert re.fullmatch(r"model=org_m-[0-9a-f]{6}", first)
    assert re.fullmatch(r"model=org_m-[0-9a-f]{6}", second)
    assert first != second
    (long,) = ids({"targets.dense.model": ["m" * 300]})
    assert len(long) == 100
    assert ids({"targets.dense.model": ["../../etc"]})[0].startswith("model=.._.._etc-")


def test_an_included_cell_is_called_by_its_axes_and_by_more_only_where_that_is_needed() -> None:
    assert ids({"concurrency": [1], "include": [{"concurrency": 64, "window_s": 10}]}) == [
        "concurrency=1",
        "concurrency=64",
    ]
    matrix = {"concurrency": [1], "include": [{"concurrency": 8, "window_s": 1}, {"concurrency": 8, "window_s": 2}]}
    assert ids(matrix)[1:] == ["concurrency=8-window_s=1", "concurrency=8-window_s=2"]
    cells = expand(with_matrix({"concurrency": [1], "include": [{"rates": [[0, 1]], "concurrency": None}]}))
    assert cells[1].axes == {"concurrency": None}
    assert cells[1].scenario.load.kind == "piecewise"


def test_an_include_may_carry_lists_and_mappings() -> None:
    matrix = {"include": [{"workload.lengths": {"min": 1}}, {"workload.lengths": [1, 2]}]}
    cells = expand(with_matrix(matrix))
    assert [cell.scenario.workload.settings["lengths"] for cell in cells] == [{"min": 1}, [1, 2]]
    assert [cell.axes for cell in cells] == [{"lengths": '{"min": 1}'}, {"lengths": "[1, 2]"}]


def test_an_axis_of_all_targets_sets_it_for_each() -> None:
    (cell, other) = expand(with_matrix({"targets.*.options.dtype": ["bfloat16", "float16"]}))
    assert [target.options["dtype"] for target in cell.scenario.targets.values()] == ["bfloat16", "bfloat16"]
    assert cell.scenario.targets["dense"].options["batch"] == 1
    assert other.axes == {"dtype": "float16"}


def test_a_short_name_may_be_a_free_key_that_the_scenario_uses() -> None:
    (cell,) = expand(
        with_matrix({"batch": [7], "temperature": [0.5]}, concurrency=1).model_copy(
            update={"workload": with_matrix({}).workload.model_copy(update={"sampling": {"temperature": 1}})}
        )
    )
    assert cell.scenario.targets["dense"].options["batch"] == 7
    assert cell.scenario.workload.sampling == {"temperature": 0.5}


def test_true_is_not_one() -> None:
    matrix = {"workload.x": [1, True], "exclude": [{"workload.x": True}]}
    assert ids(matrix) == ["x=1"]


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        ({"concurency": [1]}, "matrix.concurency: names no value of a scenario; did you mean 'concurrency'?"),
        ({"load.concurency": [1]}, "there is no load.concurency; did you mean 'load.concurrency'?"),
        (
            {"dtype": [1]},
            "may mean targets.dense.options.dtype or targets.moe.options.dtype; write the path that is meant",
        ),
        ({"repeats": [1]}, "matrix.repeats: names no value of a scenario"),
        ({"comparison.scope": [1]}, "cannot differ between cells; an axis is in targets, workload, load"),
        ({"targets.mo.model": ["a"]}, "there is no target 'mo'; did you mean 'moe'? There are: dense, moe"),
        ({"concurrency": [1], "load.concurrency": [2]}, "is the same value as concurrency; remove one of the two"),
        ({"targets.*.model": ["a"], "targets.moe.model": ["b"]}, "is the same value as targets.*.model"),
        ({"concurrency": [1, 1]}, "matrix.concurrency: has a value twice"),
        ({"max_rps": [1, 1.0]}, "makes the cell max_rps=1 twice"),
        ({"concurrency": []}, "leaves no cell: an axis is empty, or everything is excluded"),
        ({"concurrency": [1], "exclude": [{"concurrency": 1}]}, "leaves no cell"),
        ({"exclude": [{"concurrency": 1}]}, "is no axis of this matrix, so it excludes nothing"),
        ({"include": [{}]}, "matrix.include[0]: is empty"),
        ({"include": [{"concurency": 1}]}, "matrix.include[0].concurency: names no value"),
        ({"include": [{"concurrency": 1}, {"concurrency": 1}]}, "makes the cell concurrency=1 twice"),
        ({"concurrency": [*range(1, 1002)]}, "makes 1,001 cells, and a run has at most 1,000; shorten an axis"),
        ({f"workload.x{i}": [*range(100)] for i in range(9)}, "makes 1,000,000,000,000,000,000 cells"),
        ({"targets.dense.model.seed": [1]}, "cannot be set: what stands before 'seed' in targets.dense.model.seed"),
        ({"concurrency": [1, 0]}, "matrix.concurrency: must be at least 1, not 0 (in cell concurrency=0)"),
        ({"rate_rps": [1, 2]}, "load: needs exactly one of concurrency, rate_rps, burst, rates, timestamps, and has"),
    ],
)
def test_a_matrix_that_makes_no_good_cells_is_a_sentence(matrix: Settings, reason: str) -> None:
    assert reason in refusal(matrix)


def test_a_thousand_cells_are_allowed() -> None:
    assert len(ids({"concurrency": [*range(1, 1001)]})) == 1000


def test_problems_of_cells_stand_at_the_axis_that_brings_them(tmp_path: Path) -> None:
    text = SMALLEST.replace("concurrency: 2, ", "") + "matrix:\n  concurrency: [1, x, y]\n  include: [{windw_s: 1}]\n"
    assert complaints(tmp_path, text) == [
        "x.yaml:8:14: matrix.include[0].windw_s: names no value of a scenario; did you mean 'window_s'? "
        "(an axis is a path such as load.concurrency, or its last component)",
    ]
    text = text.replace("windw_s: 1", "concurrency: 9, load.window_s: -1")
    assert complaints(tmp_path, text) == [
        "x.yaml:7:3: matrix.concurrency: must be a whole number, not the text 'x' (in cell concurrency=x)",
        "x.yaml:7:3: matrix.concurrency: must be a whole number, not the text 'y' (in cell concurrency=y)",
        "x.yaml:8:30: matrix.include[0].load.window_s: must be more than 0, not -1 (in cell concurrency=9)",
    ]


def test_a_missing_load_is_told_for_the_cells_that_lack_it(tmp_path: Path) -> None:
    text = (
        SMALLEST.replace("concurrency: 2, ", "")
        + "matrix: {concurrency: [1], include: [{rate_rps: 5, concurrency: null}]}\n"
    )
    cells = expand(scenario(tmp_path, text))
    assert [cell.scenario.load.kind for cell in cells] == [None, "poisson"]
    text = text.replace("rate_rps: 5, ", "")
    assert complaints(tmp_path, text) == [
        "x.yaml:5:1: load: needs exactly one of concurrency, rate_rps, burst, rates, timestamps, and has none "
        "(in cell concurrency=null)"
    ]


# A target that is measured in some cells only.


PARTLY = """\
schema: loadgen/v1
targets:
  small: {engine: hf, model: "${env:M}/a", only: {workload.input_tokens: [1, 8]}}
  long: {engine: hf, model: "${env:M}/b", only: {workload.input_tokens: [64], load.concurrency: [1]}}
  own: {engine: hf, model: c, only: {targets.*.model: [c]}}
workload: {prompts: synthetic, kind: ids, vocab_size: 512, output: {exact: 8}}
load: {warmup_s: 0, requests: 1}
matrix: {load.concurrency: [1, 2], workload.input_tokens: [1, 64]}
repeats: 1
"""


def test_a_target_is_measured_only_in_the_cells_that_it_asks_for(tmp_path: Path) -> None:
    found = scenario(tmp_path, PARTLY, env={"M": "x"})
    measured = {cell.id: list(cell.scenario.targets) for cell in expand(found)}
    assert measured == {
        "concurrency=1-input_tokens=1": ["small", "own"],
        "concurrency=1-input_tokens=64": ["long", "own"],
        "concurrency=2-input_tokens=1": ["small", "own"],
        "concurrency=2-input_tokens=64": ["own"],
    }
    plan = make_plan(found, expand(found))
    assert {(step.cell, step.target) for step in plan.steps} == {(c, t) for c, names in measured.items() for t in names}
    assert list(plan.servers) == ["small-1", "own-1", "long-1"]


def test_targets_that_are_compared_may_ask_for_the_same_cells(tmp_path: Path) -> None:
    text = PARTLY.replace("  own: {engine: hf, model: c, only: {targets.*.model: [c]}}\n", "") + "comparison: {}\n"
    text = text.replace("{workload.input_tokens: [64], load.concurrency: [1]}", "{workload.input_tokens: [1, 8]}")
    cells = expand(scenario(tmp_path, text, env={"M": "x"}))
    assert [cell.id for cell in cells] == ["concurrency=1-input_tokens=1", "concurrency=2-input_tokens=1"]
    assert all(list(cell.scenario.targets) == ["small", "long"] for cell in cells)


def test_a_cell_that_no_target_asks_for_is_none(tmp_path: Path) -> None:
    text = PARTLY.replace("  own: {engine: hf, model: c, only: {targets.*.model: [c]}}\n", "")
    found = scenario(tmp_path, text, env={"M": "x"})
    assert "concurrency=2-input_tokens=64" not in [cell.id for cell in expand(found)]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("{targets.*.model: [c]}", "{input_token: [1]}", "x.yaml:5:51: targets.own.only.input_token: names no value"),
        ("repeats: 1", "repeats: 1\ncomparison: {}", "targets.small.only: differs from another's, and a comparison"),
        ("[1, 64]", "[2]", None),
    ],
)
def test_what_cannot_be_asked_for_is_a_sentence(tmp_path: Path, old: str, new: str, sentence: str | None) -> None:
    text = PARTLY.replace(old, new)
    if sentence is not None:
        assert any(sentence in line for line in complaints(tmp_path, text, env={"M": "x"}))
        return
    text = text.replace("  own: {engine: hf, model: c, only: {targets.*.model: [c]}}\n", "")
    assert (
        "matrix: leaves no cell: every target is measured only elsewhere"
        in complaints(tmp_path, text, env={"M": "x"})[0]
    )
