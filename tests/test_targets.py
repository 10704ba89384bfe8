"""A target as it is launched and asked: what weakens its numbers from the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadgen.scenario.target import Target
from loadgen.targets import doubts_of


def target(**words: Any) -> Target:
    return Target.model_validate({"engine": "vllm", "model": "org/name", **words})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"model": {"config": "models/tiny.json"}}, "made here from tiny.json"),
        ({"options": {"load_format": "dummy"}}, "load_format: dummy"),
    ],
)
def test_random_weights_are_a_doubt_however_they_came_about(words: dict[str, Any], said: str) -> None:
    (doubt,) = doubts_of("moe", target(**words), None)
    assert doubt.code == "random_weights"
    assert said in doubt.text
    assert "moe" in doubt.text


def test_a_folder_that_loadgen_made_is_known_again(tmp_path: Path) -> None:
    assert doubts_of("a", target(), str(tmp_path)) == []
    (tmp_path / "loadgen_made.json").write_text("{}")
    (doubt,) = doubts_of("a", target(), str(tmp_path))
    assert "made by loadgen" in doubt.text


def test_a_models_own_weights_are_no_doubt() -> None:
    assert doubts_of("a", target(options={"load_format": "auto"}), None) == []
