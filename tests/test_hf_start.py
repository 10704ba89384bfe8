"""How the Hugging Face server starts and stops, and what it refuses to start."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
from hf_running import TEXTS, await_ready, made_model, needs_torch, program, running

pytestmark = needs_torch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_model(tmp_path_factory.getbasetemp())


def test_a_start_and_a_stop(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "server.log", "--step-delay-ms", "20", ready=False) as one:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", one.port)).close()
        await_ready(one)  # refused until then, and the first answer is 200
        assert "warmed up in" in one.log.read_text()
        second = program("hf_server.py", "--model", str(model), "--port", str(one.port))
        assert second.returncode == 1
        assert f"127.0.0.1:{one.port} cannot be bound" in second.stderr
        message = {"role": "user", "content": TEXTS[0]}
        body = {"messages": [message], "max_tokens": 400, "ignore_eos": True, "stream": True}
        with one.client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = (line for line in reply.iter_lines() if line)
            assert "token_ids" in next(lines)
            one.process.terminate()
            last = list(lines)[-1]
        assert "stopped before this reply was whole" in json.loads(last.removeprefix("data: "))["error"]["message"]
        assert one.process.wait(60) == 0
        assert one.log.read_text().endswith("stopped\n")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--prefix-caching",), "--batching paged"),
        (("--compile", "default"), "--compile default needs --static-cache"),
        (("--no-kv-cache", "--static-cache"), "exclude one another"),
        (("--batching", "paged", "--tensor-parallel", "2"), "--tensor-parallel: --batching paged is transformers' own"),
        (("--tensor-parallel", "2", "--sharding", "layers"), "two ways to spread a model"),
        (("--tensor-parallel", "2", "--quantization", "bnb-4bit"), "splits plain weights only"),
        (("--tensor-parallel", "2", "--device", "cuda:1"), "rank i runs on cuda:i"),
        (("--quantization", "nf4"), "invalid choice: 'nf4'"),
        (("--model", "/no/such/folder"), "The model folder /no/such/folder does not exist"),
        (("--max-batch-size", "0"), "0 is not 1 or more"),
    ],
)
def test_what_cannot_be_met_is_refused_before_anything_is_loaded(
    model: Path, options: tuple[str, ...], sentence: str
) -> None:
    done = program("hf_server.py", "--model", str(model), *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--device", "cuda:63"), "--device cuda:63: torch"),
        (("--max-model-len", "9999"), "this model has 512 positions"),
        (("--tensor-parallel", "2"), "has 1 num_key_value_heads, and each rank must get the same number"),
        (("--experts", "eager"), "is a dense model and has no experts"),
    ],
)
def test_what_torch_or_the_model_do_not_have_is_a_sentence(
    model: Path, options: tuple[str, ...], sentence: str
) -> None:
    done = program("hf_server.py", "--model", str(model), "--port", "0", *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_named(model: Path) -> None:
    done = program("hf_server.py", "--model", str(model), python=(sys.executable, "-S"))
    assert done.returncode == 2
    assert "cannot import torch, transformers, accelerate, starlette, uvicorn, prometheus-client" in done.stderr


def test_a_folder_without_a_model_is_a_sentence(tmp_path: Path) -> None:
    done = program("hf_server.py", "--model", str(tmp_path), "--port", "0")
    assert done.returncode == 2
    assert f"{tmp_path} cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_with_sliding_windows_is_pointed_to_the_other_batching(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True, "sliding_window": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    done = program("hf_server.py", "--model", str(tmp_path), "--port", "0", "--load-format", "dummy")
    assert done.returncode == 2
    assert "full_attention, sliding_attention, and slots hold full attention only. Take --batching paged" in done.stderr
