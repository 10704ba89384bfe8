"""Starts the Hugging Face server and makes the small model that it serves, for the tests of both."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import quiet_port

LAUNCHERS = Path(__file__).parents[1] / "launchers"
START_S = 300
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "dtype": "float32",
    "hidden_size": 64,
    "initializer_range": 0.06,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": False,
    "vocab_size": 512,
}
TEXTS = (
    "Why is the sea salty, and why does nobody mind?",
    "Write a function that reverses a list without using another one.",
    "请用一句话解释为什么天空是蓝色的。",
    "Naïve café owners count 🎉 and 龘 as one sign each.",
)
needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "starlette", "uvicorn")),
    reason="torch, transformers, starlette and uvicorn are not importable here; scripts/test installs them (extra hf)",
)


def program(name: str, *options: str, python: tuple[str, ...] = (sys.executable,)) -> subprocess.CompletedProcess[str]:
    """Runs a program of launchers/ to its end."""
    command = [*python, str(LAUNCHERS / name), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=START_S)


def write_inputs(folder: Path, **changes: Any) -> tuple[Path, Path]:
    """A config.json, with changes, and a file of prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    config, prompts = folder / "config.json", folder / "prompts.jsonl"
    config.write_text(json.dumps({**CONFIG, **changes}))
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=False) for text in TEXTS]
    prompts.write_text("\n".join(lines * 3) + "\n")
    return config, prompts


def made_model(base: Path, name: str = "small-model", **changes: Any) -> Path:
    """A small model of the session, made at the first call: later ones find it made."""
    out = base / name
    config, prompts = write_inputs(base / f"{name}-inputs", **changes)
    options = ("--config", str(config), "--prompts", str(prompts), "--out", str(out), "--vocab-size", "512")
    done = program("make_model.py", *options)
    assert done.returncode == 0, done.stderr
    return out


class Running:
    """A server that runs. ``client`` speaks to it; ``log`` is what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.client.post(path, json=body)

    def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The events of a stream, decoded; the last is checked to be [DONE] and left out."""
        with self.client.stream("POST", path, json={**body, "stream": True}) as reply:
            assert reply.status_code == 200, reply.read()
            data = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
        assert data[-1] == "[DONE]"
        return [json.loads(event) for event in data[:-1]]

    def metric(self, name: str) -> float:
        """The value of a sample, by its full name with labels."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        raise AssertionError(f"/metrics has no {name}")

    def settle(self, name: str, value: float, within_s: float = 60) -> None:
        """Waits until a metric has a value."""
        end = time.monotonic() + within_s
        while (now := self.metric(name)) != value:
            assert time.monotonic() < end, f"{name} is {now}, not {value}, after {within_s} s"
            time.sleep(0.01)


@contextmanager
def running(model: Path, log: Path, *options: str, ready: bool = True) -> Iterator[Running]:
    """A server of a model, stopped at the end."""
    port = quiet_port()
    command = [sys.executable, str(LAUNCHERS / "hf_server.py"), "--model", str(model), "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--threads", "1", *options], stdout=out, stderr=subprocess.STDOUT)
    server = Running(process, port, log)
    try:
        if ready:
            await_ready(server)
        yield server
    finally:
        server.client.close()
        process.kill()
        process.wait()


def await_ready(server: Running) -> None:
    """Waits for /health."""
    end = time.monotonic() + START_S
    while True:
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < end, server.log.read_text()
        try:
            assert server.client.get("/health").status_code == 200
            return
        except httpx.ConnectError:
            time.sleep(0.05)


def token_ids(events: list[dict[str, Any]]) -> list[int]:
    """The token ids of a stream, in order."""
    return [token for event in events for choice in event["choices"] for token in choice["token_ids"]]
