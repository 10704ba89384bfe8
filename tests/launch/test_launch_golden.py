"""Commands of the shipped recipes: the expected lines stand here as a person would type them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from loadgen.launch import Command, LaunchSpec, load_recipe, render

LAUNCHERS = Path("/opt/launchers")


def spec(engine: str, **more: Any) -> LaunchSpec:
    given: dict[str, Any] = {"name": "t", "engine": engine, "model": "Qwen/Qwen2-7B-Instruct"}
    return LaunchSpec(**(given | more))


def command(wanted: LaunchSpec, folder: Path = Path()) -> Command:
    recipe = load_recipe(wanted.engine, folder)
    return render(recipe, wanted, port=8123, run_id="run-1", launchers=LAUNCHERS, folder=Path("/srv/s"))


GOLDEN = {
    "hf, bare": (
        spec("hf", python="/envs/hf/bin/python"),
        "/envs/hf/bin/python /opt/launchers/hf_server.py --model Qwen/Qwen2-7B-Instruct --port 8123 --host 127.0.0.1 "
        "--served-name Qwen/Qwen2-7B-Instruct",
    ),
    "hf, everything": (
        spec(
            "hf",
            python="/envs/hf/bin/python",
            model="/models/tiny_dense-0a1b",
            options={
                "dtype": "bfloat16",
                "quantization": "bnb-8bit",
                "tensor_parallel": 2,
                "sharding": "layers",
                "attention": "sdpa",
                "max_batch_size": 16,
                "max_model_len": 1024,
                "batching": "continuous",
                "load_format": "dummy",
                "threads": 1,
                "device": "cpu",
                "step_delay_ms": 2.5,
                "seed": 7,
                "trust_remote_code": True,
                "prefix_caching": False,
            },
            args=("--log-level", "debug"),
        ),
        "/envs/hf/bin/python /opt/launchers/hf_server.py --model /models/tiny_dense-0a1b --port 8123 --host 127.0.0.1 "
        "--served-name tiny_dense-0a1b --dtype bfloat16 --quantization bnb-8bit --tensor-parallel 2 --sharding layers "
        "--attn sdpa --max-batch-size 16 --max-model-len 1024 --batching continuous --load-format dummy --threads 1 "
        "--device cpu --step-delay-ms 2.5 --seed 7 --trust-remote-code --log-level debug",
    ),
    "vllm, bare": (
        spec("vllm"),
        "vllm serve Qwen/Qwen2-7B-Instruct --host 127.0.0.1 --port 8123 --served-model-name Qwen/Qwen2-7B-Instruct "
        "--generation-config vllm --enable-prompt-tokens-details --disable-uvicorn-access-log",
    ),
    "vllm, the published eight-GPU command, our defaults taken away": (
        spec(
            "vllm",
            model="Qwen/Qwen1.5-72B-Chat",
            devices=tuple(range(8)),
            options={
                "host": None,
                "port": None,
                "served_name": None,
                "generation_config": None,
                "cache_report": None,
                "access_log": None,
                "memory_fraction": 0.8,
                "max_model_len": 888,
                "dtype": "auto",
                "trust_remote_code": True,
                "tensor_parallel": 8,
            },
        ),
        "vllm serve Qwen/Qwen1.5-72B-Chat --gpu-memory-utilization 0.8 --max-model-len 888 --dtype auto "
        "--trust-remote-code --tensor-parallel-size 8",
    ),
    "vllm, by a python of its own, with the words that need more than a flag": (
        spec(
            "vllm",
            python="/envs/vllm/bin/python",
            tokenizer="Qwen/Qwen2-0.5B",
            served_name="dense",
            options={
                "quantization": "awq_marlin",
                "expert_parallel": True,
                "chunked_prefill": False,
                "prefix_caching": True,
                "eager": True,
                "speculative": {"method": "ngram", "num_speculative_tokens": 3},
                "max_batched_tokens": 8192,
                "max_batch_size": 256,
                "kv_dtype": "fp8",
            },
        ),
        "/envs/vllm/bin/python -m vllm.entrypoints.cli.main serve Qwen/Qwen2-7B-Instruct --host 127.0.0.1 --port 8123 "
        "--served-model-name dense --generation-config vllm --enable-prompt-tokens-details "
        "--disable-uvicorn-access-log --quantization awq_marlin --enable-expert-parallel --no-enable-chunked-prefill "
        "--enable-prefix-caching --enforce-eager --speculative-config "
        """'{"method":"ngram","num_speculative_tokens":3}' --max-num-batched-tokens 8192 --max-num-seqs 256 """
        "--kv-cache-dtype fp8 --tokenizer Qwen/Qwen2-0.5B",
    ),
    "vllm, in a container, a local model, two devices": (
        spec(
            "vllm",
            image="vllm/vllm-openai:v0.33.0",
            model="/models/q",
            devices=(0, 3),
            cpus=(4, 5),
            env={"VLLM_LOGGING_LEVEL": "DEBUG"},
            options={"volumes": ["/data:/data", "/cache:/data/cache"]},
        ),
        "docker run --rm --init --name loadgen-run-1-t-8123 --label loadgen.run=run-1 "
        "--label loadgen.server=loadgen-run-1-t-8123 -p 127.0.0.1:8123:8000 --shm-size 16g -v /data:/data "
        """-v /cache:/data/cache --gpus '"device=0,3"' --cpuset-cpus 4,5 -e HF_ENDPOINT -e HF_HUB_OFFLINE """
        "-e HF_TOKEN -e PYTHONUNBUFFERED -e VLLM_LOGGING_LEVEL -e VLLM_NO_USAGE_STATS -v /models/q:/models/q:ro "
        "vllm/vllm-openai:v0.33.0 /models/q --host 0.0.0.0 --port 8000 --served-model-name q --generation-config vllm "
        "--enable-prompt-tokens-details --disable-uvicorn-access-log",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_recipe_makes_the_command_that_a_person_would_type(name: str) -> None:
    wanted, line = GOLDEN[name]
    assert list(command(wanted).argv) == shlex.split(line)
