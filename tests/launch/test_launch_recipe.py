"""Recipes as files: what is found by which name, which short forms mean what, and how mistakes are reported."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from loadgen import backends
from loadgen.errors import UsageError
from loadgen.launch import launchers_folder, load_recipe, recipes
from loadgen.launch.recipe import Recipe, SeenWord
from loadgen.telemetry.prometheus import COUNTERS, GAUGES, HISTOGRAMS, PEAKS


def written(folder: Path, text: str) -> Recipe:
    (folder / "mine.yaml").write_text(text)
    return load_recipe("./mine.yaml", folder)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        written(folder, text)
    return str(caught.value)


def test_every_shipped_recipe_loads_and_speaks_a_backend_that_exists() -> None:
    assert {"hf", "vllm", "tgi", "sglang", "tensorrt-llm", "lmdeploy", "llamacpp", "tabbyapi", "ollama"} <= set(
        recipes()
    )
    assert {"text-generation-webui", "deepspeed-mii"} <= set(recipes())
    for name in recipes():
        recipe = load_recipe(name, Path())
        assert recipe.name == name
        assert recipe.about
        assert recipe.install
        assert set(recipe.wires) <= set(backends.names())


def test_every_default_of_a_shipped_recipe_is_an_option_that_it_has() -> None:
    for name in recipes():
        recipe = load_recipe(name, Path())
        assert set(recipe.defaults) <= set(recipe.options)
        if recipe.docker:
            assert set(recipe.docker.defaults) <= {*recipe.options, *recipe.docker.options}


def test_an_engine_listens_on_loopback_unless_a_scenario_says_otherwise() -> None:
    for name in recipes():
        recipe = load_recipe(name, Path())
        if recipe.docker:
            assert str(recipe.docker.defaults["publish"]).startswith("127.0.0.1:{port}:")
        if recipe.command and "host" in recipe.options:
            assert recipe.defaults["host"] == "127.0.0.1"


def test_no_recipe_asks_for_more_rights_than_a_container_has() -> None:
    for name in recipes():
        text = (launchers_folder() / f"{name}.yaml").read_text()
        assert "--privileged" not in text
        assert "--api-key" not in text  # keys go by the engine's variable


def test_an_engine_without_a_way_to_exactly_n_tokens_says_so_in_every_report() -> None:
    for name in recipes():
        recipe = load_recipe(name, Path())
        if not any(wire.exact for wire in recipe.wires.values()):
            assert any("no way to exactly N tokens" in note for note in recipe.notes), name


def test_engines_whose_memory_fractions_differ_say_of_what_theirs_is_one() -> None:
    for name in recipes():
        option = load_recipe(name, Path()).options.get("memory_fraction")
        assert option is None or "share of" in option.note, name


def test_each_protocol_has_fields_of_its_own(tmp_path: Path) -> None:
    text = """
command: [engine]
backend: openai_chat
exact: {ignore_eos: true}
backends: {sglang_generate: {exact: {sampling_params: {min_new_tokens: "{n}"}}}, openai_completions: {}}
"""
    wires = written(tmp_path, text).wires
    assert list(wires) == ["openai_chat", "sglang_generate", "openai_completions"]
    assert wires["openai_chat"].exact == {"ignore_eos": True}
    assert wires["sglang_generate"].exact == {"sampling_params": {"min_new_tokens": "{n}"}}
    assert wires["openai_completions"].exact == {}


def test_the_default_protocol_is_not_described_twice(tmp_path: Path) -> None:
    sentence = refused(tmp_path, "command: [e]\nbackends: {openai_chat: {}}\n")
    assert "openai_chat is the recipe's `backend`: its fields stand in `request` and `exact`" in sentence


def test_exact_fields_know_n_and_nothing_else(tmp_path: Path) -> None:
    text = "command: [e]\nbackends:\n  ollama: {exact: {a: '{port}'}}\n"
    assert "mine.yaml:3: {port} is no placeholder here; there are {n}" in refused(tmp_path, text)


def test_a_container_has_dockers_own_words_and_the_recipe_may_change_them(tmp_path: Path) -> None:
    docker = written(
        tmp_path, "docker: {options: {cpus: {run: [--cpus, '{value}']}, ipc: {run: [--ipc, '{value}']}}}\n"
    ).docker
    assert docker is not None
    assert list(docker.options) == ["gpus", "devices", "cpus", "publish", "shm_size", "hub_volume", "volumes", "ipc"]
    assert docker.options["cpus"].run == ["--cpus", "{value}"]
    assert docker.run[:4] == ["docker", "run", "--rm", "--init"]


def test_what_recipes_may_name_is_what_telemetry_reads(tmp_path: Path) -> None:
    words = (*GAUGES, *COUNTERS, *HISTOGRAMS, *PEAKS)
    assert set(get_args(SeenWord)) == set(words)
    for name in ("hf", "vllm"):
        assert {"running", "waiting", "generation_tokens"} <= set(load_recipe(name, Path()).seen)
    assert "mine.yaml:2: seen" in refused(tmp_path, "command: [e]\nseen: {runing: x}\n")


def test_an_unknown_engine_is_answered_with_the_nearest_name_and_all_others() -> None:
    with pytest.raises(UsageError, match=r"engine 'vlm' does not exist; did you mean 'vllm'\? There are: vllm, .*hf"):
        load_recipe("vlm", Path())


def test_a_recipe_of_ones_own_is_found_beside_the_scenario(tmp_path: Path) -> None:
    recipe = written(tmp_path, "command: [engine, '{model}']\n")
    assert recipe.name == "mine"
    assert recipe.command == ["engine", "{model}"]
    assert recipe.place == f"{tmp_path.name}/mine.yaml"


def test_a_recipe_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: there is no such recipe file"):
        load_recipe("./nowhere.yaml", tmp_path)


def test_a_bare_list_is_args_and_a_mapping_of_other_words_is_a_map_of_words(tmp_path: Path) -> None:
    options = written(
        tmp_path,
        """
command: [engine]
options:
  level: [--level, "{value}"]
  fast: [--fast]
  quantization: {awq: [-q, awq], none: null, fp8: {env: {FP8: 1}}}
  chunked: {true: [--chunk], false: [--no-chunk]}
  memory: {args: [-m, "{value}"], note: a share of what is free}
""",
    ).options
    assert options["level"].args == ["--level", "{value}"]
    assert options["level"].takes_value
    assert not options["fast"].takes_value
    assert options["quantization"].words["awq"].args == ["-q", "awq"]
    assert options["quantization"].words["none"].args == []
    assert options["quantization"].words["fp8"].env == {"FP8": "1"}
    assert set(options["chunked"].words) == {"true", "false"}
    assert options["memory"].note == "a share of what is free"


def test_stop_as_a_list_is_one_command_and_an_empty_list_is_none(tmp_path: Path) -> None:
    one = written(tmp_path, "command: [e]\nstop: [docker, rm, -f, '{container}']\n").stop
    assert one.commands == [["docker", "rm", "-f", "{container}"]]
    assert written(tmp_path, "command: [e]\nstop: []\n").stop.commands == []
    many = written(tmp_path, "command: [e]\nstop: {grace_s: 90, commands: [[a], [b]]}\n").stop
    assert (many.grace_s, many.commands) == (90.0, [["a"], ["b"]])


def test_an_unknown_key_is_named_with_its_line_and_a_guess(tmp_path: Path) -> None:
    sentence = refused(tmp_path, "command: [e]\nabout: x\noption: {}\n")
    assert "mine.yaml:3: option: a recipe has no such key; did you mean 'options'?" in sentence


def test_every_mistake_of_a_recipe_is_reported_at_once(tmp_path: Path) -> None:
    sentence = refused(tmp_path, "command: [e]\nready:\n  timeout_s: -1\nstop:\n  grace: 3\n")
    assert "mine.yaml:3: ready.timeout_s" in sentence
    assert "mine.yaml:5: stop.grace" in sentence


def test_an_unknown_placeholder_is_refused_at_its_line(tmp_path: Path) -> None:
    sentence = refused(tmp_path, "command:\n  - e\n  - '{modle}'\n")
    assert "mine.yaml:3: {modle} is no placeholder here" in sentence
    assert "{model}" in sentence


def test_value_belongs_into_options_only(tmp_path: Path) -> None:
    assert "{value} is no placeholder here" in refused(tmp_path, "command: [e, '{value}']\n")


def test_json_in_a_command_line_is_not_taken_for_placeholders(tmp_path: Path) -> None:
    assert written(tmp_path, """command: [e, '{"method": "ngram"}']\n""").command[1] == '{"method": "ngram"}'


def test_a_splice_must_be_a_word_of_its_own(tmp_path: Path) -> None:
    assert "must be a word of its own" in refused(tmp_path, "command: [e, 'x{options}']\n")


def test_a_container_command_without_its_image_is_refused(tmp_path: Path) -> None:
    assert "must name the image" in refused(tmp_path, "docker: {run: [docker, run]}\n")


def test_a_recipe_with_no_way_to_start_is_refused(tmp_path: Path) -> None:
    assert "a recipe has a `command` or a `docker` section" in refused(tmp_path, "about: nothing\n")


def test_an_option_that_writes_into_an_undeclared_file_is_refused(tmp_path: Path) -> None:
    text = "command: [e]\noptions:\n  kv: {file: {conf.yaml: {kv: '{value}'}}}\n"
    assert "option kv writes into 'conf.yaml', which `files` does not have" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("command: [e\n", r"mine\.yaml:\d+: this is not YAML"),
        ("command: [e]\ncommand: [f]\n", r"mine\.yaml:2: this is not YAML: .*duplicate key"),
        ("- command\n", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("name: x\ncommand: [e]\n", r"mine\.yaml:1: name: a recipe's name is its file's"),
        ("command: [e]\nfacts: {v: {log: 'no group'}}\n", "exactly one group"),
        ("command: [e]\nfacts: {v: {get: /a, metric: b}}\n", "exactly one of log, get and metric"),
        ("command: [e]\noptions: {a: {words: {x: []}, args: [b]}}\n", "both `words` and `args`"),
    ],
)
def test_a_broken_recipe_is_a_sentence(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        written(tmp_path, text)


def test_the_launchers_folder_holds_the_recipes_wherever_loadgen_is_installed() -> None:
    assert (launchers_folder() / "hf.yaml").is_file()
