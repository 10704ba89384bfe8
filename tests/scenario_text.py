"""Scenario files for tests: a smallest one that is good, and what loading a text says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadgen.errors import ScenarioError
from loadgen.scenario import Loaded, Scenario, load

SMALLEST = """\
schema: loadgen/v1
targets:
  dense: {engine: hf, model: a}
workload: {prompts: natural, output: {exact: 8}}
load: {concurrency: 2, window_s: 1}
"""

ENDPOINT = SMALLEST.replace("engine: hf", "endpoint: http://127.0.0.1:9")
"""The same of a server that exists, though nobody listens there."""

REFUSED = (
    (SMALLEST.replace("hf", "vlmm"), "engine 'vlmm' does not exist; did you mean 'vllm'?"),
    (SMALLEST.replace("model: a", "model: ./a"), "targets.dense.model: the model ./a does not exist"),
    (ENDPOINT.replace("natural", "naturel"), "workload.prompts: 'naturel' does not exist; did you mean 'natural'?"),
    (ENDPOINT.replace("natural", "jsonl, path: no.jsonl"), "no.jsonl does not exist"),
)
"""Scenarios that can be read and not be run, and what is said of them."""


def put(folder: Path, text: str, name: str = "x.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str, **flags: Any) -> Loaded:
    return load(put(folder, text), **{"env": {}, **flags})


def scenario(folder: Path, text: str, **flags: Any) -> Scenario:
    return loaded(folder, text, **flags).scenario


def complaints(folder: Path, text: str | Path, **flags: Any) -> list[str]:
    """The lines of the error that loading gives, with the folder's name taken out."""
    path = text if isinstance(text, Path) else put(folder, text)
    with pytest.raises(ScenarioError) as caught:
        load(path, **{"env": {}, **flags})
    return str(caught.value).replace(f"{folder}/", "").splitlines()
