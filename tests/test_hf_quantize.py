"""Which quantization fits which checkpoint, and that those whose packages are here run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from hf_running import LAUNCHERS, TEXTS, made_model, needs_torch, program, running

pytestmark = needs_torch
sys.path.insert(0, str(LAUNCHERS))


def refusal(word: str | None, stored: str | None) -> str:
    """What is said to a word for a checkpoint; empty where they fit."""
    from hf_quantize import Disagreement, check

    try:
        check(word, stored, "the-model")
    except Disagreement as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("word", "stored"),
    [(None, None), ("none", None), (None, "gptq"), ("gptq", "gptq"), ("awq", "awq"), ("bnb-4bit", None), ("fp8", None)],
)
def test_a_word_that_fits_the_checkpoint_is_taken(word: str | None, stored: str | None) -> None:
    assert refusal(word, stored) == ""


@pytest.mark.parametrize(
    ("word", "stored", "sentence"),
    [
        ("none", "gptq", "the weights of the-model are stored in gptq"),
        ("awq", "gptq", "says that its weights are gptq"),
        ("bnb-8bit", "gptq", "says that its weights are gptq"),
        ("bnb-8bit", "bitsandbytes", "are stored in bitsandbytes already"),
        ("gptq", None, "needs a checkpoint that was quantized before"),
    ],
)
def test_a_word_that_does_not_fit_is_a_sentence(word: str, stored: str | None, sentence: str) -> None:
    assert sentence in refusal(word, stored)


@pytest.mark.parametrize("word", ["fp8", "torchao-fp8", "torchao-int4"])
def test_what_only_a_gpu_can_do_is_refused_on_a_cpu(word: str) -> None:
    from hf_quantize import Disagreement, check_device

    with pytest.raises(Disagreement, match="needs a GPU of compute capability 8"):
        check_device(word, "cpu")


def test_the_method_of_a_checkpoint_is_what_its_config_says() -> None:
    from types import SimpleNamespace

    from hf_quantize import stored_method

    assert stored_method(SimpleNamespace()) is None
    assert stored_method(SimpleNamespace(quantization_config={"quant_method": "awq", "bits": 4})) == "awq"


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    if importlib.util.find_spec("gptqmodel") is not None:
        pytest.skip("gptqmodel is installed here, so nothing is missing")
    done = program("hf_server.py", "--model", str(tmp_path), "--quantization", "awq")
    assert done.returncode == 2
    assert "--quantization awq needs gptqmodel" in done.stderr
    assert "-m pip install gptqmodel" in done.stderr


@pytest.mark.parametrize(
    ("word", "package", "smaller"),
    [
        ("bnb-8bit", "bitsandbytes", 0.7),
        ("bnb-4bit", "bitsandbytes", 0.5),
        ("bnb-4bit-fp4", "bitsandbytes", 0.5),
        ("torchao-int8", "torchao", 0.7),
        ("torchao-int8-dynamic", "torchao", 0.7),
    ],
)
@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_quantizing_while_loading_makes_the_weights_smaller(
    tmp_path_factory: pytest.TempPathFactory, word: str, package: str, smaller: float, load_format: str
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not importable here; install it to run this test")
    folder = tmp_path_factory.mktemp(word)
    model = made_model(tmp_path_factory.getbasetemp(), "wide", hidden_size=256, intermediate_size=1024)
    plain = json.loads((model / "loadgen_made.json").read_text())["parameters"] * 2
    options = ("--quantization", word, "--dtype", "bfloat16", "--load-format", load_format)
    with running(model, folder / "server.log", *options) as server:
        about = server.client.get("/version").json()
        assert about["quantization"] == word
        assert about["weights_bytes"] < smaller * plain
        message = {"role": "user", "content": TEXTS[0]}
        reply = server.post("/v1/chat/completions", {"messages": [message], "max_tokens": 5, "ignore_eos": True})
        assert len(reply.json()["choices"][0]["token_ids"]) == 5
