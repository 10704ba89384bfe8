"""The engines of scenarios/engines_cpu.yaml, where scripts/make-engines puts them. Tests of one that is not there are
skipped."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loadgen.launch import LaunchSpec

CHECKOUT = Path(__file__).parents[2]
ENGINES = Path(os.environ.get("LOADGEN_ENGINES") or CHECKOUT / ".engines")
DENSE, MOE = ENGINES / "models" / "tiny_dense", ENGINES / "models" / "tiny_moe"


@dataclass(frozen=True)
class Engine:
    """How one engine is started: its recipe, its model, its options."""

    recipe: str
    model: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """The python of its environment; our own for the HF server."""
        return Path(sys.executable) if self.recipe == "hf" else ENGINES / self.recipe / "bin" / "python"

    def spec(self, folder: Path, **more: Any) -> LaunchSpec:
        """What is to be launched. Skips the test where something of it is not there."""
        for path in (self.python, self.model):
            if not path.exists():
                pytest.skip(f"there is no {path}; scripts/make-engines {self.recipe} makes it")
        words: dict[str, Any] = {"served_name": None if self.recipe == "transformers-serve" else "tiny"}
        words |= {"name": "t", "engine": self.recipe, "model": str(self.model), "python": str(self.python)}
        return LaunchSpec(**{**words, "options": self.options, "folder": folder, **more})


SERVE = {"dtype": "float32", "device": "cpu", "threads": 1, "hub": "offline"}
SMALL_CACHE = {"continuous_batching": True, "cache_block": 32, "cache_blocks": 64, "max_batched_tokens": 256}
VLLM = {"dtype": "float32", "max_model_len": 1024, "max_batch_size": 16, "eager": True, "cpu_kv_gib": 1}

CPU_ENGINES = {
    "hf": Engine("hf", DENSE, {"dtype": "float32", "threads": 1}),
    "hf-moe": Engine("hf", MOE, {"dtype": "float32", "threads": 1}),
    "transformers-serve": Engine("transformers-serve", DENSE, SERVE),
    "transformers-serve-continuous": Engine("transformers-serve", DENSE, SERVE | SMALL_CACHE),
    "vllm": Engine("vllm", DENSE, VLLM),
    "vllm-moe": Engine("vllm", MOE, VLLM),
    "llamacpp-python": Engine("llamacpp-python", DENSE.with_suffix(".f16.gguf"), {"threads": 1, "max_model_len": 1024}),
    "llamacpp-python-moe": Engine(
        "llamacpp-python", MOE.with_suffix(".f16.gguf"), {"threads": 1, "max_model_len": 1024}
    ),
    "ctranslate2": Engine("ctranslate2", DENSE, {"dtype": "float32", "threads": 1, "max_batch_size": 8}),
    "ctranslate2-int8": Engine("ctranslate2", DENSE, {"dtype": "int8", "threads": 1}),
}
