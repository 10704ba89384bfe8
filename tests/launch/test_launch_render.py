"""What a recipe and its options come to: environment, files, request fields, refusals, and the dry run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadgen.launch import Command, LaunchSpec, OptionError, dry_run_text, load_recipe, render

LAUNCHERS = Path("/opt/launchers")


def spec(engine: str, **more: Any) -> LaunchSpec:
    given: dict[str, Any] = {"name": "t", "engine": engine, "model": "Qwen/Qwen2-7B-Instruct"}
    return LaunchSpec(**(given | more))


def command(wanted: LaunchSpec, folder: Path = Path()) -> Command:
    recipe = load_recipe(wanted.engine, folder)
    return render(recipe, wanted, port=8123, run_id="run-1", launchers=LAUNCHERS, folder=Path("/srv/s"))


def mine(tmp_path: Path, text: str, **more: Any) -> Command:
    (tmp_path / "mine.yaml").write_text(text)
    return command(spec("./mine.yaml", **more), tmp_path)


def test_devices_are_environment_for_a_process_and_a_flag_for_a_container() -> None:
    native = command(spec("vllm", devices=(0, 1)))
    assert native.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert native.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # else the indexes of NVML and of CUDA may differ
    contained = command(spec("vllm", devices=(0, 1), image="i"))
    assert "CUDA_VISIBLE_DEVICES" not in contained.env


def test_a_process_is_pinned_by_us_and_a_container_by_its_engine() -> None:
    assert command(spec("vllm", cpus=(1,))).cpus == (1,)
    assert command(spec("vllm", cpus=(1,), image="i")).cpus == ()


def test_what_a_run_must_know_of_an_engine_comes_with_the_command() -> None:
    made = command(spec("hf", python="/p"))
    assert made.exact == {"ignore_eos": True, "min_tokens": "{n}"}
    assert made.request == {}  # our own server answers unknown fields with 400
    assert made.backend == "openai_chat"
    assert made.base_url == "http://127.0.0.1:8123"
    assert made.metrics == "/metrics"
    assert made.grace_s == 10
    assert made.ready.path == "/health"
    assert made.ready.name == "Qwen/Qwen2-7B-Instruct"


def test_vllm_is_asked_for_token_ids_and_not_to_report_usage() -> None:
    made = command(spec("vllm"))
    assert made.request == {"return_token_ids": True}
    assert made.env["VLLM_NO_USAGE_STATS"] == "1"


def test_a_note_of_an_option_is_kept_when_the_option_is_used() -> None:
    assert command(spec("vllm")).notes == ()
    (note,) = command(spec("vllm", options={"memory_fraction": 0.9})).notes
    assert note.startswith("vllm: memory_fraction: a share of the GPU's total memory")


def test_an_unknown_option_is_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(OptionError, match=r"targets\.t\.options\.max_len: vllm has no 'max_len'") as caught:
        command(spec("vllm", options={"max_len": 1}))
    assert caught.value.path == "targets.t.options.max_len"
    assert "launchers/vllm.yaml knows host, port" in caught.value.reason


@pytest.mark.parametrize(
    ("engine", "theirs", "ours"),
    [
        ("vllm", "gpu_memory_utilization", "memory_fraction"),
        ("vllm", "max-num-seqs", "max_batch_size"),
        ("tgi", "num_shard", "tensor_parallel"),
        ("sglang", "--mem-fraction-static", "memory_fraction"),
        ("llamacpp", "ctx_size", "max_model_len"),
    ],
)
def test_a_word_of_the_engines_own_is_answered_with_ours(engine: str, theirs: str, ours: str) -> None:
    with pytest.raises(OptionError, match=f"has no '{theirs}'; did you mean '{ours}'"):
        command(spec(engine, options={theirs: 1}))


def test_an_unknown_word_of_an_option_is_refused_with_those_it_has() -> None:
    with pytest.raises(
        OptionError, match=r"options\.quantization: vllm has no 'zzz'; launchers/vllm.yaml knows none, awq"
    ):
        command(spec("vllm", options={"quantization": "zzz"}))


def test_a_switch_takes_true_or_false_and_nothing_else() -> None:
    assert "--enforce-eager" not in command(spec("vllm", options={"eager": False})).argv
    with pytest.raises(OptionError, match="write true or false, not 1"):
        command(spec("vllm", options={"eager": 1}))


@pytest.mark.parametrize("word", ["devices", "tokenizer", "served_name"])
def test_a_word_that_stands_beside_options_is_not_taken_in_them(word: str) -> None:
    with pytest.raises(OptionError, match="stands beside `options`"):
        command(spec("vllm", options={word: "x"}))


def test_the_port_is_loadgens_choice() -> None:
    with pytest.raises(OptionError, match=r"options\.port: loadgen chooses a free port itself"):
        command(spec("vllm", options={"port": 80}))


def test_a_tokenizer_that_the_engine_cannot_take_is_the_clients_alone() -> None:
    made = command(spec("hf", python="/p", tokenizer="a/b"))
    assert "a/b" not in made.argv
    assert made.notes == ("hf takes no tokenizer of its own: a/b is used by the client alone.",)


def test_paths_that_start_with_a_dot_are_the_scenarios(tmp_path: Path) -> None:
    made = command(spec("hf", model="./m", python="./env/bin/python", folder=tmp_path))
    assert made.argv[0] == str(tmp_path / "env/bin/python")
    assert str(tmp_path / "m") in made.argv
    assert made.served_name == "m"


def test_an_image_for_an_engine_without_containers_is_refused() -> None:
    with pytest.raises(OptionError, match=r"targets\.t\.image: launchers/hf\.yaml knows no way to run in a container"):
        command(spec("hf", image="i"))


def test_a_python_for_an_engine_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not start its engine by a python"):
        mine(tmp_path, "command: [e]\n", python="/p")


def test_a_key_goes_by_the_engines_own_variable_and_never_into_the_command() -> None:
    made = command(spec("vllm", api_key_env="MY_KEY"))
    assert made.secret_env == {"VLLM_API_KEY": "MY_KEY"}
    assert "MY_KEY" not in " ".join(made.argv)
    with pytest.raises(OptionError, match="no variable by which hf takes a key"):
        command(spec("hf", python="/p", api_key_env="MY_KEY"))


def test_an_option_may_set_environment_request_fields_files_and_calls(tmp_path: Path) -> None:
    made = mine(
        tmp_path,
        """
command: [trt, --config, conf.yaml]
files: {conf.yaml: {kv: {reuse: false}, port: "{port}"}}
options:
  kv_dtype: {file: {conf.yaml: {kv: {dtype: "{value}"}}}}
  graphs: {file: {conf.yaml: {graphs: "{value}"}}}
  parallel: {env: {NUM_PARALLEL: "{value}"}}
  context: {request: {options: {num_ctx: "{value}"}}, preload: [{path: /load, body: {name: "{model}", n: "{value}"}}]}
  hub: {modelscope: {env: {USE_MODELSCOPE: "1"}}, huggingface: []}
""",
        options={"kv_dtype": "fp8", "graphs": None, "parallel": 4, "context": 4096, "hub": "modelscope"},
    )
    assert made.argv == ("trt", "--config", "conf.yaml")
    assert made.files == {
        "conf.yaml": '{\n  "kv": {\n    "reuse": false,\n    "dtype": "fp8"\n  },\n  "port": "8123"\n}\n'
    }
    assert made.env == {"NUM_PARALLEL": "4", "USE_MODELSCOPE": "1"}
    assert made.request == {"options": {"num_ctx": 4096}}  # a number stays a number
    (call,) = made.preload
    assert (call.path, call.body) == ("/load", {"name": "Qwen/Qwen2-7B-Instruct", "n": 4096})


def test_the_targets_own_environment_wins(tmp_path: Path) -> None:
    assert mine(tmp_path, "command: [e]\nenv: {A: x, B: '{port}'}\n", env={"A": "y"}).env == {"A": "y", "B": "8123"}


def test_options_go_where_the_recipe_wants_them(tmp_path: Path) -> None:
    text = "command: [e, '{options}', --, '{model}']\noptions: {a: [-a, '{value}']}\n"
    made = mine(tmp_path, text, options={"a": [1, 2]}, args=("-z",))
    assert made.argv == ("e", "-a", "1,2", "--", "Qwen/Qwen2-7B-Instruct", "-z")


def test_a_name_that_the_engine_dictates_is_used_and_no_other(tmp_path: Path) -> None:
    text = "command: [e]\nserved_name: '{model}@main'\n"
    assert mine(tmp_path, text).served_name == "Qwen/Qwen2-7B-Instruct@main"
    with pytest.raises(OptionError, match="knows no other name"):
        mine(tmp_path, text, served_name="x")


def test_braces_in_a_value_of_the_user_are_left_alone(tmp_path: Path) -> None:
    text = "command: [e]\noptions: {a: [-a, '{value}']}\n"
    assert mine(tmp_path, text, options={"a": "{port}"}).argv == ("e", "-a", "{port}")


def test_a_target_is_asked_with_the_fields_of_its_own_protocol() -> None:
    assert command(spec("sglang")).exact == {"ignore_eos": True, "min_tokens": "{n}"}
    native = command(spec("sglang", backend="sglang_generate"))
    assert native.backend == "sglang_generate"
    assert native.exact == {"sampling_params": {"ignore_eos": True, "min_new_tokens": "{n}"}}
    assert command(spec("vllm", backend="openai_completions")).request == {"return_token_ids": True}


def test_a_protocol_that_the_recipe_does_not_know_is_refused() -> None:
    with pytest.raises(OptionError, match=r"targets\.t\.backend: vllm has no 'tgi_generate'") as caught:
        command(spec("vllm", backend="tgi_generate"))
    assert "launchers/vllm.yaml knows openai_chat, openai_completions" in caught.value.reason


def test_an_option_takes_the_place_of_the_defaults_that_it_replaces(tmp_path: Path) -> None:
    text = """
command: [e]
defaults: {all: true}
options: {all: [--all], some: {args: [--some, '{value}'], replaces: [all]}}
"""
    assert mine(tmp_path, text).argv == ("e", "--all")
    assert mine(tmp_path, text, options={"some": 2}).argv == ("e", "--some", "2")
    assert mine(tmp_path, text, options={"some": 2, "all": True}).argv == ("e", "--some", "2", "--all")


def test_what_the_scenario_sets_stands_where_it_wrote_it(tmp_path: Path) -> None:
    text = (
        "command: [e]\ndefaults: {a: 1, b: 2}\noptions: {a: [-a, '{value}'], b: [-b, '{value}'], c: [-c, '{value}']}\n"
    )
    assert mine(tmp_path, text, options={"c": 3, "a": 4}).argv == ("e", "-b", "2", "-c", "3", "-a", "4")


def test_a_model_below_a_mounted_folder_is_the_containers(tmp_path: Path) -> None:
    text = "docker: {image: i, command: ['{model}']}\n"
    assert "/models/q:/models/q:ro" in mine(tmp_path, text, model="/models/q").argv
    inside = mine(tmp_path, text, model="/models/q", options={"volumes": ["/srv/models:/models"]}).argv
    assert [word for word in inside if "models" in word] == ["/srv/models:/models", "/models/q"]
    beside = mine(tmp_path, text, model="/models/q", options={"volumes": ["cache:/models"]}).argv
    assert "/models/q:/models/q:ro" in beside  # a named volume does not bring a folder of this machine along


def test_a_recipe_with_a_container_only_uses_it_without_being_told(tmp_path: Path) -> None:
    text = "docker: {image: tgi:3, run: [docker, run, '{flags}', '{image}'], command: [--model-id, '{model}']}\n"
    made = mine(tmp_path, text)
    assert made.argv == ("docker", "run", "tgi:3", "--model-id", "Qwen/Qwen2-7B-Instruct")
    assert made.container is not None
    assert made.container.label == "loadgen.server=loadgen-run-1-t-8123"


def test_the_dry_run_is_a_line_that_a_shell_runs_to_the_same_argv_and_environment(tmp_path: Path) -> None:
    show = "import os, sys, json; print(json.dumps([sys.argv[1:], dict(os.environ), open('c.json').read()]))"
    (tmp_path / "show.py").write_text(show)
    made = mine(
        tmp_path,
        f"command: ['{sys.executable}', '{tmp_path}/show.py', \"it's\", '$HOME']\nfiles: {{c.json: {{a: 1}}}}\n",
        env={"WITH_SPACE": "a b", "MY_TOKEN": "hunter2hunter2"},
    )
    ours = {"PATH": "/usr/bin:/bin", "HF_TOKEN": "hf_secret", "EDITOR": "vi", "MY_TOKEN": "from outside"}
    line = dry_run_text(made, ours)
    assert "\n" not in line.replace('{\n  "a": 1\n}\n', "")
    assert "hunter2" not in line
    assert "hf_secret" not in line
    done = subprocess.run(["/bin/sh", "-c", line], env=ours, cwd=tmp_path, capture_output=True, text=True, check=True)
    argv, env, file = json.loads(done.stdout)
    assert argv == ["it's", "$HOME"]
    assert file == '{\n  "a": 1\n}\n'
    env.pop("LC_CTYPE", None)  # python's own
    assert env == {"PATH": "/usr/bin:/bin", "HF_TOKEN": "hf_secret", "WITH_SPACE": "a b", "MY_TOKEN": "from outside"}


def test_the_dry_run_shows_the_pinning() -> None:
    made = msgspec.structs.replace(command(spec("hf", python="/p")), cpus=(0, 2))
    assert " taskset -c 0,2 /p /opt/launchers/hf_server.py " in dry_run_text(made, {})
