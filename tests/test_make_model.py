"""Models made from a config: the same inputs give the same bytes, and a folder is whole or not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hf_running import LAUNCHERS, TEXTS, made_model, needs_torch, program, write_inputs

MODELS = LAUNCHERS.parent / "scenarios" / "models"
COMPARE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import make_model
folder = Path(sys.argv[2])
for name in ("dense", "moe"):
    inputs = folder / name
    make_model.make(inputs / "config.json", inputs / "prompts.jsonl", folder / f"{name}-out", vocab_size=512)
from transformers import AutoTokenizer
from tokenizers import Tokenizer
texts = json.loads(sys.argv[3])
found = [AutoTokenizer.from_pretrained(folder / f"{name}-out") for name in ("dense", "moe")]
plain = Tokenizer.from_file(str(folder / "dense-out" / "tokenizer.json"))
chat = [{"role": "user", "content": texts[0]}]
print(json.dumps({
    "ids": [[each.encode(text, add_special_tokens=False) for text in texts] for each in found]
        + [[plain.encode(text, add_special_tokens=False).ids for text in texts]],
    "back": [found[0].decode(found[0].encode(text, add_special_tokens=False)) for text in texts],
    "chat": found[0].apply_chat_template(chat, add_generation_prompt=True, tokenize=False),
    "end": found[0].eos_token,
}))
"""
MOE = {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}


def options(config: Path, prompts: Path, out: Path) -> tuple[str, ...]:
    return ("--config", str(config), "--prompts", str(prompts), "--out", str(out), "--vocab-size", "512")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dense model, made by the program."""
    return made_model(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[list[list[int]]]]]:
    """The same dense model and a MoE, made in another process; and what their tokenizers make of the texts."""
    folder = tmp_path_factory.mktemp("again")
    write_inputs(folder / "dense")
    write_inputs(folder / "moe", **MOE)
    command = [sys.executable, "-c", COMPARE, str(LAUNCHERS), str(folder), json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


@needs_torch
def test_the_same_inputs_give_the_same_bytes_in_another_process(first: Path, second: tuple[Path, object]) -> None:
    again = second[0] / "dense-out"
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert [name for name in names if (first / name).read_bytes() != (again / name).read_bytes()] == []


@needs_torch
def test_the_folder_says_that_its_weights_are_random_and_from_what(first: Path) -> None:
    record = json.loads((first / "loadgen_made.json").read_text())
    assert record["weights"] == "random"
    assert record["seed"] == 0
    assert record["architecture"] == "Qwen2ForCausalLM"
    assert record["dtype"] == "float32"
    assert set(record["versions"]) == {"torch", "transformers", "tokenizers"}
    assert len(record["inputs"]["config_sha256"]) == 64
    assert record["files"]["model.safetensors"]["bytes"] == (first / "model.safetensors").stat().st_size


@needs_torch
def test_the_vocabulary_follows_the_tokenizer_in_steps_of_64(first: Path) -> None:
    config = json.loads((first / "config.json").read_text())
    record = json.loads((first / "loadgen_made.json").read_text())
    assert config["vocab_size"] == record["vocab_size"]
    assert config["vocab_size"] % 64 == 0
    assert 0 <= config["vocab_size"] - record["tokenizer_tokens"] < 64
    assert config["eos_token_id"] == json.loads((first / "generation_config.json").read_text())["eos_token_id"] == 2


@needs_torch
def test_dense_and_moe_tokenizers_cut_every_text_alike(second: tuple[Path, dict[str, list[list[list[int]]]]]) -> None:
    dense, moe, plain = second[1]["ids"]
    assert dense == moe == plain
    assert second[1]["back"] == list(TEXTS)


@needs_torch
def test_the_chat_template_is_chatml_and_its_end_is_the_end_of_text(second: tuple[Path, dict[str, object]]) -> None:
    assert second[1]["chat"] == f"<|im_start|>user\n{TEXTS[0]}<|im_end|>\n<|im_start|>assistant\n"
    assert second[1]["end"] == "<|im_end|>"


@needs_torch
def test_a_folder_made_from_the_same_inputs_is_kept_without_importing_torch(first: Path, tmp_path: Path) -> None:
    config, prompts = write_inputs(tmp_path)
    before = (first / "model.safetensors").stat().st_mtime_ns
    # without site-packages there is no torch to import
    done = program("make_model.py", *options(config, prompts, first), python=(sys.executable, "-S"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "kept" in done.stdout
    assert (first / "model.safetensors").stat().st_mtime_ns == before


@needs_torch
def test_a_cut_file_is_made_again(second: tuple[Path, object], tmp_path: Path) -> None:
    out = second[0] / "moe-out"
    whole = (out / "tokenizer.json").read_bytes()
    (out / "tokenizer.json").write_bytes(whole[:100])
    config, prompts = second[0] / "moe" / "config.json", second[0] / "moe" / "prompts.jsonl"
    done = program("make_model.py", *options(config, prompts, out))
    assert done.returncode == 0, done.stderr
    assert "made" in done.stdout
    assert (out / "tokenizer.json").read_bytes() == whole
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_a_head_dim_below_32_is_refused_with_the_reason(tmp_path: Path) -> None:
    config, prompts = write_inputs(tmp_path, num_attention_heads=4)
    done = program("make_model.py", *options(config, prompts, tmp_path / "out"))
    assert done.returncode == 2
    assert "head_dim is 16" in done.stderr
    assert "32 or more: vLLM's CPU backend" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    config, prompts = write_inputs(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    done = program("make_model.py", *options(config, prompts, out))
    assert done.returncode == 2
    assert "was not made by this program" in done.stderr
    assert (out / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.json", None, "does not exist"),
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", "{}", "has no model_type"),
        ("config.json", '{"model_type": "qwen2", "hidden_size": 100, "num_attention_heads": 3}', "does not divide"),
        ("prompts.jsonl", None, "cannot be read: No such file"),
    ],
)
def test_unusable_inputs_are_sentences(tmp_path: Path, name: str, content: str | None, sentence: str) -> None:
    config, prompts = write_inputs(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    done = program("make_model.py", *options(config, prompts, tmp_path / "out"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@needs_torch
@pytest.mark.parametrize(
    ("line", "sentence"), [("", "holds no prompts"), ('{"prompt": "no messages"}', "prompts.jsonl:1: no messages")]
)
def test_prompts_without_messages_are_refused_and_leave_nothing(tmp_path: Path, line: str, sentence: str) -> None:
    config, prompts = write_inputs(tmp_path)
    prompts.write_text(line + "\n")
    done = program("make_model.py", *options(config, prompts, tmp_path / "out"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "prompts.jsonl"]


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    config, prompts = write_inputs(tmp_path)
    done = program("make_model.py", *options(config, prompts, tmp_path / "out"), python=(sys.executable, "-S"))
    assert done.returncode == 2
    assert "cannot import torch, transformers, tokenizers" in done.stderr


def test_the_shipped_models_differ_in_their_mlp_alone_and_suit_vllm() -> None:
    dense, moe = (json.loads((MODELS / f"tiny_{name}.json").read_text()) for name in ("dense", "moe"))
    same = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size", "dtype")
    assert {name: dense[name] for name in same} == {name: moe[name] for name in same}
    assert dense["hidden_size"] // dense["num_attention_heads"] >= 32
    used = moe["num_experts_per_tok"] * moe["moe_intermediate_size"] + moe["shared_expert_intermediate_size"]
    held = moe["num_experts"] * moe["moe_intermediate_size"] + moe["shared_expert_intermediate_size"]
    assert used < dense["intermediate_size"] < held
