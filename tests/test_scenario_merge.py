"""What later sources change: extended files, profiles, --set, --endpoint and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario_text import SMALLEST, complaints, loaded, put, scenario

from loadgen.scenario import Machine, MadeModel, contrasts, expand, from_public, load, public_dict

TWO = """\
schema: loadgen/v1
targets:
  qwen2.5: {engine: hf, model: a, options: {dtype: float32}}
  moe: {engine: vllm, model: {config: moe.json}, args: [-x], backend: openai_chat}
workload: {prompts: natural, output: {exact: 8}}
load: {window_s: 1}
matrix: {load.concurrency: [1, 2]}
comparison: {}
objectives: [p99 ttft < 1 s]
"""

PROFILES = (
    SMALLEST
    + """\
profiles:
  cpu: {when: {}, repeats: 3}
  big: {when: {gpus: 2, gpu_memory_gb: 80}, repeats: 12}
  gpu: {when: {gpus: 1, gpu_memory_gb: 40}, targets: {dense: {engine: vllm}, moe: {engine: vllm, model: b}}}
  slow: {load: {window_s: 60}}
"""
)


# extends


def test_an_extended_file_is_merged_beneath_and_null_deletes(tmp_path: Path) -> None:
    put(tmp_path, TWO.replace("schema: loadgen/v1", "schema: loadgen/v1\nname: base\ndescription: base"), "base.yaml")
    text = """\
schema: loadgen/v1
extends: base.yaml
targets: {moe: null, qwen2.5: {options: {seed: 3}}}
matrix: null
load: {concurrency: 4}
comparison: null
objectives: []
"""
    merged = scenario(tmp_path, text)
    assert (merged.name, merged.description) == ("x", "")
    assert list(merged.targets) == ["qwen2.5"]
    assert merged.targets["qwen2.5"].options == {"dtype": "float32", "seed": 3}
    assert (merged.load.concurrency, merged.load.window_s) == (4, 1.0)
    assert merged.comparison is None
    assert merged.objectives == ()
    assert [cell.id for cell in expand(merged)] == ["all"]


def test_a_star_among_targets_is_said_of_every_target_beneath(tmp_path: Path) -> None:
    put(tmp_path, TWO, "base.yaml")
    head = "schema: loadgen/v1\nextends: base.yaml\nmatrix: {load.concurrency: [1]}\n"
    both = scenario(
        tmp_path, head + 'targets: {"*": {options: {dtype: bfloat16, seed: 3}}, moe: {options: {seed: 4}}}\n'
    )
    assert [target.options["dtype"] for target in both.targets.values()] == ["bfloat16", "bfloat16"]
    assert [target.options["seed"] for target in both.targets.values()] == [3, 4]
    assert both.targets["qwen2.5"].engine == "hf"
    none = head + 'targets: {"*": null, moe: {engine: hf, model: b}}\ncomparison: null\n'
    alone = scenario(tmp_path, none)
    assert list(alone.targets) == ["moe"]
    assert alone.targets["moe"].args == ()  # nothing is left of the one that was called so


def test_a_profile_may_have_targets_of_its_own_alone(tmp_path: Path) -> None:
    text = SMALLEST + 'profiles: {cpu: {targets: {"*": null, tiny: {engine: hf, model: b}}}}\n'
    assert list(scenario(tmp_path, text).targets) == ["dense"]
    assert list(scenario(tmp_path, text, profile="cpu").targets) == ["tiny"]


def test_a_star_over_nothing_is_no_target(tmp_path: Path) -> None:
    assert "targets.*" in complaints(tmp_path, SMALLEST.replace("dense:", '"*":'))[0]


def test_a_problem_in_an_extended_file_names_that_file(tmp_path: Path) -> None:
    put(tmp_path, SMALLEST.replace("window_s: 1", "windw_s: 1, window_s: 1"), "base.yaml")
    text = "schema: loadgen/v1\nextends: base.yaml\nrepeats: x\n"
    assert complaints(tmp_path, text) == [
        "base.yaml:5:24: load.windw_s: unknown key; did you mean 'window_s'?",
        "x.yaml:3:10: repeats: must be a whole number, not the text 'x'",
    ]


@pytest.mark.parametrize(
    ("extends", "reason"),
    [
        ("nowhere.yaml", "x.yaml:2:10: extends: nowhere.yaml: does not exist"),
        ("x.yaml", "goes in a circle, or is over 8 files long: x.yaml -> x.yaml"),
        ("[a]", "x.yaml:2:10: extends: must be the name of a file"),
        ("broken.yaml", "x.yaml:2:10: extends: broken.yaml:1:4: is not YAML: found undefined alias 'x'"),
    ],
)
def test_a_file_that_cannot_be_extended_is_a_sentence(tmp_path: Path, extends: str, reason: str) -> None:
    put(tmp_path, "a: *x\n", "broken.yaml")
    assert reason in complaints(tmp_path, f"schema: loadgen/v1\nextends: {extends}\n")[0]


def test_paths_in_an_extended_file_of_another_folder_still_mean_the_same_file(tmp_path: Path) -> None:
    base = SMALLEST.replace(
        "engine: hf, model: a", "engine: ./mine.yaml, model: {config: models/t.json}, tokenizer: ../t"
    )
    base = base.replace("natural", "jsonl, path: p.jsonl").replace("concurrency: 2", "timestamps: /abs/t.txt")
    put(tmp_path, base + "description: ./not a path\n", "base/base.yaml")
    read = scenario(
        tmp_path, "schema: loadgen/v1\nextends: base/base.yaml\ntargets: {far: {engine: hf, model: org/m}}\n"
    )
    dense = read.targets["dense"]
    assert (dense.engine, dense.tokenizer) == ("./base/mine.yaml", "./t")
    assert dense.model == MadeModel(config="./base/models/t.json")
    assert read.targets["far"].model == "org/m"
    assert read.workload.settings == {"path": "./base/p.jsonl"}
    assert read.load.timestamps == "/abs/t.txt"


# profiles


@pytest.mark.parametrize(
    ("machine", "name", "words"),
    [
        (None, "cpu", "this machine has no GPU, and it asks for nothing; 'big' asks for 2 GPUs with 80 GB"),
        (Machine(1, 80.0, "NVIDIA H200"), "gpu", "this machine has 1 GPU with 80 GB (NVIDIA H200)"),
        (Machine(4, 24.0, None), "cpu", "this machine has 4 GPUs with 24 GB"),
        (Machine(2, 141.0, None), "big", "and it asks for 2 GPUs with 80 GB"),
    ],
)
def test_the_most_demanding_profile_that_fits_is_chosen_and_says_why(
    tmp_path: Path, machine: Machine | None, name: str, words: str
) -> None:
    read = loaded(tmp_path, PROFILES, machine=machine)
    assert read.profile == name
    assert read.profile_reason.startswith(f"profile {name!r}: ")
    assert words in read.profile_reason


def test_a_profile_is_merged_over_the_scenario(tmp_path: Path) -> None:
    assert scenario(tmp_path, PROFILES).repeats == 3
    gpu = scenario(tmp_path, PROFILES, profile="gpu")
    assert gpu.repeats == 6
    assert [(name, target.engine) for name, target in gpu.targets.items()] == [("dense", "vllm"), ("moe", "vllm")]


def test_a_profile_without_when_is_chosen_by_name_alone(tmp_path: Path) -> None:
    read = loaded(tmp_path, PROFILES, profile="slow", machine=Machine(8, 80.0, "A100"))
    assert read.scenario.load.window_s == 60
    assert read.profile_reason == "profile 'slow': asked for by --profile"


def test_a_machine_that_fits_no_profile_gets_the_scenario_as_it_stands(tmp_path: Path) -> None:
    read = loaded(tmp_path, SMALLEST + "profiles: {a100: {when: {gpus: 1, gpu_name: a100}, repeats: 2}}\n")
    assert read.profile is None
    assert read.scenario.repeats == 6
    assert read.profile_reason == (
        "no profile fits a machine with no GPU; 'a100' asks for 1 GPU (a100): the scenario is used as it stands"
    )
    named = loaded(tmp_path, (tmp_path / "x.yaml").read_text(), machine=Machine(1, 80.0, "NVIDIA A100-SXM4-80GB"))
    assert named.profile == "a100"


def test_a_profile_that_does_not_exist_is_a_sentence(tmp_path: Path) -> None:
    assert complaints(tmp_path, PROFILES, profile="gpuu") == [
        "--profile gpuu: there is no profile 'gpuu'; did you mean 'gpu'? There are: cpu, big, gpu, slow"
    ]
    assert complaints(tmp_path, SMALLEST, profile="gpu") == ["--profile gpu: this scenario has no profiles"]
    assert complaints(tmp_path, SMALLEST + "profiles: [a]\n") == [
        "x.yaml:6:11: profiles: must be a mapping of names to profiles"
    ]


def test_profiles_that_are_not_used_are_checked_as_well(tmp_path: Path) -> None:
    text = SMALLEST + "profiles:\n  cpu: {when: {}}\n  gpu: {when: {gpuss: 1}, repets: 3}\n  bad: 3\n"
    assert complaints(tmp_path, text) == [
        "x.yaml:8:16: profiles.gpu.when.gpuss: unknown key; did you mean 'gpus'?",
        "x.yaml:8:27: repets: unknown key; did you mean 'repeats'?",
        "x.yaml:9:8: profiles.bad: must be a mapping",
    ]


def test_a_profile_that_is_not_used_may_refer_to_variables_that_are_not_set(tmp_path: Path) -> None:
    text = SMALLEST + "profiles: {far: {targets: {dense: {endpoint: '${env:URL}'}}}}\n"
    assert scenario(tmp_path, text).targets["dense"].endpoint is None
    assert scenario(tmp_path, text, profile="far", env={"URL": "http://h"}).targets["dense"].endpoint == "http://h"


# --set


def test_settings_are_yaml_values_at_dotted_paths(tmp_path: Path) -> None:
    sets = [
        "repeats=3",
        "targets.qwen2.5.model=b",
        "targets.*.options.dtype=bfloat16",
        "targets.moe.args[0]=--fast",
        "targets.moe.env={A: 1, B: two}",
        "targets.new={engine: hf, model: c}",
        "workload.sampling.top_p=0.9",
        "matrix.concurrency=[8]",
        "objectives=[error_rate < 1 %]",
        "load.drain_s=",
        "comparison=null",
    ]
    changed = scenario(tmp_path, TWO.replace("window_s: 1", "window_s: 1, drain_s: 2"), sets=sets)
    assert changed.repeats == 3
    assert changed.targets["qwen2.5"].model == "b"
    assert [target.options.get("dtype") for target in changed.targets.values()] == ["bfloat16", "bfloat16", None]
    assert changed.targets["moe"].args == ("--fast",)
    assert changed.targets["moe"].env == {"A": "1", "B": "two"}
    assert changed.workload.sampling == {"top_p": 0.9}
    assert changed.matrix.axes == {"load.concurrency": (8,)}
    assert changed.objectives == ("error_rate < 1 %",)
    assert changed.load.drain_s == 30
    assert changed.comparison is None


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("load.x", "--set load.x: is no setting; write --set load.concurrency=8"),
        ("=3", "--set =3: is no setting; write --set load.concurrency=8"),
        ("load.windw_s=3", "--set load.windw_s=3: load.windw_s: unknown key; did you mean 'window_s'?"),
        ("load.window_s=a", "--set load.window_s=a: load.window_s: must be a number, not the text 'a'"),
        ("repeats=[1", "--set repeats=[1: repeats: is not YAML: "),
        ("objectives[9]=x", "--set objectives[9]=x: objectives[9]: nothing can be set at '[9]'"),
        ("repeats.x=1", "--set repeats.x=1: repeats: must be a whole number, not a mapping"),
        ("targets.mo.model=x", "there is no target 'mo'; did you mean 'moe'? There are: qwen2.5, moe"),
        ("profiles.cpu.repeats=3", "is read before --set; set what it changes instead (the path without 'profiles')"),
        (
            "load.concurrency=3",
            "the matrix varies it, so this would change nothing; write --set 'matrix.load.concurrency",
        ),
    ],
)
def test_a_setting_that_cannot_be_made_names_itself(tmp_path: Path, setting: str, line: str) -> None:
    assert line in "\n".join(complaints(tmp_path, TWO, sets=[setting]))


def test_a_setting_below_a_scalar_says_so(tmp_path: Path) -> None:
    text = SMALLEST + "repeats: 3\n"
    assert "nothing can be set at 'x'" in complaints(tmp_path, text, sets=["repeats.x=1"])[0]


# --endpoint


def test_an_endpoint_replaces_all_targets_by_one_and_nothing_is_compared(tmp_path: Path) -> None:
    read = scenario(tmp_path, TWO, endpoint="http://h:1/v1", model="m")
    assert list(read.targets) == ["endpoint"]
    assert (read.targets["endpoint"].endpoint, read.targets["endpoint"].model) == ("http://h:1", "m")
    assert read.comparison is None
    assert contrasts(public_dict(read)) == []
    assert [cell.id for cell in expand(read)] == ["concurrency=1", "concurrency=2"]


def test_an_only_target_keeps_its_name_and_its_way_of_talking(tmp_path: Path) -> None:
    text = SMALLEST.replace("model: a", "model: a, exact: {n: 1}, args: [-x], devices: [0], options: {dtype: x}")
    target = scenario(tmp_path, text, endpoint="http://h").targets["dense"]
    assert (target.engine, target.model, target.exact) == ("hf", "a", {"n": 1})
    assert (target.args, target.devices, target.options) == ((), None, {})


def test_an_endpoint_needs_a_model_where_the_scenario_has_no_single_one(tmp_path: Path) -> None:
    lines = complaints(tmp_path, TWO, endpoint="http://me:hunter2@h")
    assert lines[0].startswith("--endpoint http://***@h: needs --model NAME beside it")
    made = SMALLEST.replace("model: a", "model: {config: c}")
    assert "needs --model NAME" in complaints(tmp_path, made, endpoint="http://h")[0]
    assert complaints(tmp_path, SMALLEST, model="m") == [
        "--model m: needs --endpoint URL; a launched model is set by its target"
    ]
    assert complaints(tmp_path, SMALLEST, endpoint="h:80") == [
        "--endpoint h:80: targets.dense.endpoint: the text 'h:80' is no address; write it like http://127.0.0.1:8000"
    ]


def test_an_axis_over_how_a_server_is_launched_does_not_go_with_an_endpoint(tmp_path: Path) -> None:
    text = TWO.replace("load.concurrency: [1, 2]", "load.concurrency: [1], targets.qwen2.5.options.dtype: [a, b]")
    assert "there is no target 'qwen2'" in complaints(tmp_path, text, endpoint="http://h", model="m")[0]
    text = TWO.replace("load.concurrency: [1, 2]", "load.concurrency: [1], targets.*.options.dtype: [a, b]")
    (line,) = complaints(tmp_path, text, endpoint="http://h", model="m")
    assert line.startswith("x.yaml:7:33: matrix.targets.*.options.dtype: means nothing beside endpoint")


# environment


def test_references_to_the_environment_are_replaced_in_text_and_stored_by_name(tmp_path: Path) -> None:
    text = SMALLEST.replace(
        "engine: hf, model: a",
        'endpoint: "http://${env:HOST}:${env:PORT:-80}/v1", model: "${env:MODEL:-tiny}", headers: {x-a: "${env:A}"}',
    )
    env = {"HOST": "h", "A": "canary"}
    read = scenario(tmp_path, text, env=env)
    target = read.targets["dense"]
    assert (target.endpoint, target.model, target.headers) == ("http://h:80", "tiny", {"x-a": "canary"})
    stored = public_dict(read)
    assert "canary" not in str(stored)
    assert stored["targets"]["dense"]["endpoint"] == "http://${env:HOST}:${env:PORT:-80}/v1"
    assert stored["targets"]["dense"]["headers"] == {"x-a": "${env:A}"}
    assert from_public(stored, env=env) == read
    (cell,) = expand(read)
    assert cell.scenario.targets["dense"].headers == {"x-a": "canary"}
    assert "canary" not in str(public_dict(cell.scenario))


def test_a_reference_that_the_matrix_overrides_is_not_stored_for_the_cell(tmp_path: Path) -> None:
    text = SMALLEST.replace("model: a", "model: '${env:M}'") + "matrix: {targets.dense.model: [a, b]}\n"
    cells = expand(scenario(tmp_path, text, env={"M": "m"}))
    assert [public_dict(cell.scenario)["targets"]["dense"]["model"] for cell in cells] == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("${env:GONE}", "the environment has no GONE; set it, or write ${env:GONE:-default}"),
        ("${env:two words}", "'two words' is no name of an environment variable"),
        ("${env:GONE", "has a reference without its end; write ${env:NAME}"),
    ],
)
def test_a_reference_that_cannot_be_followed_is_a_sentence(tmp_path: Path, value: str, reason: str) -> None:
    text = SMALLEST.replace("engine: hf", f'endpoint: "{value}"')
    assert complaints(tmp_path, text) == [f"x.yaml:3:21: targets.dense.endpoint: {reason}"]


def test_values_from_the_environment_are_text_and_shown_by_name(tmp_path: Path) -> None:
    text = SMALLEST.replace("window_s: 1", 'window_s: "${env:W}"')
    assert complaints(tmp_path, text, env={"W": "canary"}) == [
        "x.yaml:5:34: load.window_s: must be a number, not the text '${env:W}' "
        "(what comes from the environment is text)"
    ]


def test_what_is_to_be_a_list_is_shown_as_one_and_the_environment_by_name(tmp_path: Path) -> None:
    text = SMALLEST.replace("engine: hf", 'engine: hf, devices: "${env:W}"')
    assert complaints(tmp_path, text, env={"W": "canary"}) == [
        "x.yaml:3:32: targets.dense.devices: must be a list, not the text '${env:W}' "
        "(what comes from the environment is text); write [${env:W}]"
    ]


def test_a_matrix_takes_no_references(tmp_path: Path) -> None:
    text = SMALLEST + 'matrix: {targets.dense.model: ["${env:M}"]}\n'
    assert complaints(tmp_path, text, env={"M": "m"}) == [
        "x.yaml:6:32: matrix.targets.dense.model[0]: a matrix holds values, not references to the environment"
    ]


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADGEN_TEST_MODEL", "m")
    path = put(tmp_path, SMALLEST.replace("model: a", 'model: "${env:LOADGEN_TEST_MODEL}"'))
    assert load(path).scenario.targets["dense"].model == "m"


# --target


def test_only_the_targets_that_are_asked_for_are_left(tmp_path: Path) -> None:
    both = TWO.replace("matrix: {load.concurrency: [1, 2]}\n", "matrix: {load.concurrency: [1]}\n")
    assert list(scenario(tmp_path, both, targets=["q*", "moe"]).targets) == ["qwen2.5", "moe"]
    one = scenario(tmp_path, both, targets=["q?en*"])
    assert list(one.targets) == ["qwen2.5"]
    assert one.comparison is None  # nothing is left to compare it with


def test_a_target_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    assert complaints(tmp_path, TWO, targets=["mo"])[0] == (
        "--target mo: there is no target 'mo'; did you mean 'moe'? There are: qwen2.5, moe"
    )
