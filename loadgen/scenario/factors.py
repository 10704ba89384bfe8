"""The factors of a comparison: the words of ``comparison.factor``, and what each of them takes along.

What is meant to differ brings differences with it: another model has another tokenizer, another engine another version
and another protocol. Those are declared with it. What people choose apart is not: ``quantization`` does not declare
``dtype``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from loadgen.scenario.model import Scenario

FACTORS: Mapping[str, str] = MappingProxyType(
    {
        "model": "the model by name, or the config.json that it was made from",
        "revision": "the revision of the model's files",
        "weights": "trained, or random",
        "tokenizer": "the tokenizer that the target names",
        "engine": "the recipe",
        "engine_version": "what the engine says of itself",
        "image": "the container image",
        "python": "the environment that the engine runs in",
        "args": "flags added to the command",
        "env": "variables added to the server's environment",
        "backend": "the wire protocol",
        "template": "who renders the chat template",
        "request": "fields added to requests",
        "exact": "fields that make replies exactly as long as asked",
        "sampling": "sampling parameters",
        "output": "how long replies are",
        "stream": "streamed, or whole replies",
        "prompts": "the source of prompts and its settings",
        "load": "the shape of the load",
        "driver": "the client that sends",
        "loadgen": "loadgen's own version",
        "endpoint": "where the server stands and what lies between",
        "gpu": "the GPUs' names",
        "gpus": "how many GPUs the server has",
        "gpu_driver": "the GPUs' driver",
        "cpus": "how many cores the server is kept to",
        "machine": "processor and cores of the machine",
        "throttled": "whether the GPUs were slowed down by heat or power",
    }
)
"""What a target has whatever its engine. Every word of ``options`` is a factor as well."""

OPTIONS = (
    "dtype",
    "quantization",
    "kv_dtype",
    "tensor_parallel",
    "pipeline_parallel",
    "data_parallel",
    "expert_parallel",
    "max_batch_size",
    "max_model_len",
    "prefix_caching",
    "attention",
    "eager",
    "speculative",
)
"""Options that most engines have: factors even where no target of a scenario sets them."""

COVERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "model": ("revision", "tokenizer"),
        "engine": ("engine_version", "image", "python", "args", "env", "backend", "request", "exact"),
        "engine_version": ("image", "python"),
        "image": ("engine_version", "python"),
        "python": ("engine_version",),
        "backend": ("request", "exact"),
        "tensor_parallel": ("gpus",),
        "pipeline_parallel": ("gpus",),
        "data_parallel": ("gpus",),
        "sharding": ("gpus",),
        "gpu": ("machine",),
        "machine": ("gpu", "gpus", "gpu_driver"),
    }
)
"""What differs by nature where a factor is declared."""


def factors_of(scenario: Scenario) -> list[str]:
    """The words that ``comparison.factor`` of a scenario may hold."""
    used = [word for target in scenario.targets.values() for word in target.options]
    return list(dict.fromkeys((*FACTORS, *OPTIONS, *used)))


def covered(declared: Sequence[str]) -> set[str]:
    """The declared factors and what goes with them by nature."""
    return {*declared, *(word for name in declared for word in COVERS.get(name, ()))}
