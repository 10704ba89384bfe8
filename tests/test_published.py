"""The scenarios of the published tables: each loads, launches, plans and has the table's rows; and what one of them
measures on a CPU. The layouts of the tables are in test_layout.py, whole CPU profiles in engines/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cli_runner import loadgen
from hf_running import needs_torch

from loadgen import launch
from loadgen.limits.planned_memory import needs_of_cells
from loadgen.published.tables import Table, table
from loadgen.scenario import Cell, Loaded, MadeModel, Target, expand, load
from loadgen.targets import spec_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "scenarios" / "published"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PROFILES = {
    **dict.fromkeys(NAMES, ("cpu",)),
    "qwen2_transformers": ("last", "shapes", "cpu"),
    "qwen2_vllm": ("shapes", "cpu"),
    "qwen2_moe_vs_dense": ("shapes", "cpu"),
}
WITHOUT = {
    "llama_quantized_4090": [{"tool": "GPTQ-for-LLaMa"}],  # dead without a successor
    "memory_by_size": [{"size": "130B"}, {"size": "340B"}],  # no figure, and no engine here that runs them
}
"""Rows that no target stands for."""

TOO_LARGE = {("yi_batch_memory", "yi-34b", 32), ("yi_batch_memory", "yi-34b", 16)}
"""What does not fit on the GPU that is asked about, with its concurrency: of 32 the table says so too."""

EMPTY_ENV: dict[str, str] = {}


@cache
def loaded(name: str, profile: str | None = None) -> Loaded:
    return load(FOLDER / f"{name}.yaml", profile=profile, env=EMPTY_ENV)


def targets_of(cells: list[Cell]) -> Iterator[tuple[Cell, str, Target]]:
    for cell in cells:
        for name, target in cell.scenario.targets.items():
            yield cell, name, target


def keys_of(cell: Cell, target: Target, found: Table) -> dict[str, str]:
    """The row of the table that a target stands for in a cell, by the keys that tell rows apart."""
    said: Mapping[str, Any] = target.row or {}
    here = {
        "input_tokens": cell.scenario.workload.settings.get("input_tokens"),
        "asked_output_tokens": cell.scenario.workload.output.most,
        "prompts": cell.scenario.load.burst,
        "batch": cell.scenario.load.concurrency,
        "gpus": target.gpus,
    }
    return {name: str(said.get(name, here.get(origin) or "")) for name, origin in found.keys.items()}


def test_every_table_with_rows_of_models_has_its_scenario_of_the_same_name() -> None:
    assert [loaded(name).scenario.published for name in NAMES] == NAMES
    assert len(NAMES) == 10


@cache
def recipe_of(engine: str) -> launch.Recipe:
    return launch.load_recipe(engine, FOLDER)


@pytest.mark.parametrize(("name", "profile"), [(name, one) for name in NAMES for one in (None, *PROFILES[name])])
def test_every_target_of_every_profile_has_a_command_line(name: str, profile: str | None) -> None:
    every = {
        (key, str(target.options)): target for _, key, target in targets_of(expand(loaded(name, profile).scenario))
    }
    assert every
    for (key, _), target in every.items():
        assert target.engine is not None
        spec = spec_of(FOLDER, key, target, "a-model" if isinstance(target.model, MadeModel) else None)
        recipe = recipe_of(target.engine)
        assert launch.render(recipe, spec, port=1, run_id="r", launchers=Path("l"), folder=Path("/srv")).argv
        for config in (target.config, target.model.config if isinstance(target.model, MadeModel) else None):
            assert config is None or (FOLDER / config).is_file()


@pytest.mark.parametrize("name", [name for name in NAMES if table(name).rows])
def test_the_scenario_has_every_row_of_its_table(name: str) -> None:
    found = table(name)
    have = [keys_of(cell, target, found) for cell, _, target in targets_of(expand(loaded(name).scenario))]
    for row in found.rows:
        wanted = {key: row[key] for key in found.keys}
        none = any(said.items() <= wanted.items() for said in WITHOUT.get(name, []))
        assert (wanted in have) is not none, wanted


@pytest.mark.parametrize(("name", "count"), [("qwen2_transformers", 72), ("qwen2_vllm", 87)])
def test_the_rows_of_the_large_tables_stand_once_and_nothing_beside_them(name: str, count: int) -> None:
    found = table(name)
    have = [tuple(keys_of(cell, t, found).values()) for cell, _, t in targets_of(expand(loaded(name).scenario))]
    assert len(have) == len(set(have)) == len(found.rows) == count


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_of_every_row_is_planned_without_a_model_and_fits_the_gpus_that_it_names(name: str) -> None:
    for cell, need in needs_of_cells(expand(loaded(name).scenario), FOLDER, []):
        assert need.plan is not None, need.why
        assert need.memory_bytes is not None, need.target
        fits = need.plan.fits(need.memory_bytes) if need.at_once else need.plan.requests(need.memory_bytes) > 0
        expected = (name, need.target, cell.scenario.load.concurrency) not in TOO_LARGE
        assert fits is expected, (cell.id, need.target, need.plan.at_peak().total)


def test_a_slip_in_the_number_of_gpus_would_not_fit() -> None:
    slips = {("Qwen2-57B-A14B-Instruct", 14336): 1, ("Qwen2-57B-A14B-Instruct", 30720): 2}
    cells = expand(loaded("qwen2_transformers").scenario)
    for cell, need in needs_of_cells(cells, FOLDER, []):
        row = cell.scenario.targets[need.target].row or {}
        published = slips.pop((str(row["model"]), cell.scenario.workload.settings["input_tokens"]), None)
        if published is not None:
            assert need.plan is not None
            assert need.memory_bytes is not None
            assert need.plan.at_peak().total > published * need.memory_bytes
    assert slips == {}


@pytest.mark.parametrize("name", [name for name in NAMES if table(name).rows])
def test_no_scenario_contains_a_measured_number(name: str) -> None:
    found, text = table(name), (FOLDER / f"{name}.yaml").read_text()
    measured = [column for column in found.rows[0] if column not in found.keys]
    figures = {row[column] for row in found.rows for column in measured if re.fullmatch(r"\d+\.\d+", row[column])}
    numbers = set(re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", text))
    assert figures & numbers == set()


@pytest.mark.parametrize("name", NAMES)
def test_exact_lengths_are_token_ids_without_a_template_or_words_where_an_engine_takes_none(name: str) -> None:
    for profile in (None, *PROFILES[name]):
        for cell, key, target in targets_of(expand(loaded(name, profile).scenario)):
            if "input_tokens" in cell.scenario.workload.settings:
                assert cell.scenario.workload.settings["kind"] == "ids"
                assert target.backend == "openai_completions", key


@needs_torch
def test_measured_memory_is_the_servers_and_grows_with_the_prompt_and_is_never_0_where_nobody_knows_it(
    tmp_path: Path,
) -> None:
    path = str(FOLDER / "qwen2_transformers.yaml")
    few = ("--set", "repeats=1", "--set", "workload.output.exact=2", "--set", "load.warmup_s=0")
    cells = ("--cell", "input_tokens=1", "--cell", "input_tokens=3840")
    done = loadgen(tmp_path, "run", path, "--profile", "cpu", "--target", "tiny-float32", *cells, *few)
    assert done.good, done.err
    found = {result.cell: result for result in done.results()}
    small, large = (found[f"input_tokens={tokens}"] for tokens in (1, 3840))
    assert [result.summary.in_tok.mean for result in (small, large)] == [1, 3840]
    assert [result.summary.out_tok.mean for result in (small, large)] == [2, 2]
    taken = [result.telemetry.server_rss_peak_bytes for result in (small, large)]
    assert taken[0] is not None
    assert taken[1] is not None
    logits = 3840 * 4096 * 4  # of every token of the prompt, in float32
    assert taken[1] - taken[0] > logits
    assert [result.telemetry.torch_peak_bytes for result in (small, large)] == [None, None]
    csv = loadgen(tmp_path, "report", "last", "--layout", "published", "--format", "csv").out
    (line,) = (line for line in csv.splitlines() if line.endswith(done.run.name) and ",3840," in line)
    assert "0.0" not in line.split(",")
