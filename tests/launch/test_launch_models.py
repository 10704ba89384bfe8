"""Models that are made, models that are missing, and GPU memory that is given back or is not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from loadgen.errors import LaunchError
from loadgen.launch import make_model, memory_proof, missing_model_sentence
from loadgen.launch import memory as memory_module

MAKER = """
import argparse, pathlib, sys
flags = argparse.ArgumentParser()
for name in ("config", "prompts", "out", "seed"):
    flags.add_argument("--" + name)
flags = flags.parse_args()
assert pathlib.Path(flags.prompts).name == "natural.jsonl", flags.prompts
if "broken" in pathlib.Path(flags.config).read_text():
    print("this head_dim is too small")
    sys.exit("refused: use 32 or more")
out = pathlib.Path(flags.out)
out.mkdir(exist_ok=True)
(out / "config.json").write_text(flags.seed)
"""


@pytest.fixture
def launchers(tmp_path: Path) -> Path:
    (tmp_path / "launchers").mkdir()
    (tmp_path / "launchers/make_model.py").write_text(MAKER)
    return tmp_path / "launchers"


def test_a_made_model_has_a_folder_of_its_own_for_each_config_and_seed(tmp_path: Path, launchers: Path) -> None:
    config = tmp_path / "tiny_dense.json"
    config.write_text("{}")
    first = make_model(config, tmp_path / "models", sys.executable, 0, launchers)
    assert first.parent == tmp_path / "models"
    assert first.name.startswith("tiny_dense-")
    assert (first / "config.json").read_text() == "0"
    assert make_model(config, tmp_path / "models", sys.executable, 0, launchers) == first
    other_seed = make_model(config, tmp_path / "models", sys.executable, 1, launchers)
    config.write_text('{"layers": 2}')
    other_config = make_model(config, tmp_path / "models", sys.executable, 0, launchers)
    assert len({first, other_seed, other_config}) == 3


def test_a_model_that_cannot_be_made_is_reported_in_the_makers_words(tmp_path: Path, launchers: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text("broken")
    with pytest.raises(LaunchError, match=r"(?s)exit code 1\).*this head_dim is too small.*refused: use 32 or more"):
        make_model(config, tmp_path / "models", sys.executable, 0, launchers)


def test_a_config_or_a_python_that_is_not_there_is_a_sentence(tmp_path: Path, launchers: Path) -> None:
    with pytest.raises(LaunchError, match=r"no model can be made from .*none\.json: No such file"):
        make_model(tmp_path / "none.json", tmp_path, sys.executable, 0, launchers)
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(LaunchError, match="there is no python '/no/python'"):
        make_model(tmp_path / "c.json", tmp_path, "/no/python", 0, launchers)


def test_a_path_that_does_not_exist_is_missing(tmp_path: Path) -> None:
    assert "does not exist" in (missing_model_sentence("./none", {}, folder=tmp_path) or "")
    assert "does not exist" in (missing_model_sentence(f"{tmp_path}/none", {}) or "")


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    assert "has no config.json" in (missing_model_sentence(str(tmp_path), {}) or "")
    (tmp_path / "config.json").write_text("{}")
    assert missing_model_sentence(str(tmp_path), {}) is None


def test_a_file_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert missing_model_sentence(str(tmp_path / "m.gguf"), {}) is None


@pytest.mark.parametrize("where", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_a_hub_id_is_missing_only_offline_and_only_if_the_cache_lacks_it(tmp_path: Path, where: str) -> None:
    cache = tmp_path / {"HF_HUB_CACHE": ".", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}[where]
    assert missing_model_sentence("org/name", {where: str(tmp_path)}) is None
    offline = {where: str(tmp_path), "HF_HUB_OFFLINE": "1"}
    assert "hf download org/name" in (missing_model_sentence("org/name", offline) or "")
    (cache / "models--org--name/snapshots/abc").mkdir(parents=True)
    assert missing_model_sentence("org/name", offline) is None


class FakeNvml(ModuleType):
    """NVML with two GPUs, whose use is what a list says, call by call."""

    def __init__(self, readings: list[tuple[int, int]]) -> None:
        super().__init__("pynvml")
        self.readings = readings
        self.NVMLError = RuntimeError

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(used=self.readings[0][handle] * 10**6)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=4711 + handle)]


def test_without_nvml_there_is_nothing_to_prove(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert memory_module.used() is None
    assert memory_proof(None) is None
    assert memory_proof({0: 1}) is None


def test_memory_that_comes_back_in_time_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([(100, 200)])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert memory_module.used() == {0: 100 * 10**6, 1: 200 * 10**6}
    assert memory_module.used((1,)) == {1: 200 * 10**6}
    nvml.readings = [(90_000, 200)]
    monkeypatch.setattr("loadgen.launch.memory.time.sleep", lambda _: setattr(nvml, "readings", [(550, 200)]))
    proof = memory_proof({0: 100 * 10**6, 1: 200 * 10**6})
    assert proof is not None
    assert proof.ok


def test_memory_that_is_held_names_the_gpu_and_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([(100, 200_200)]))
    proof = memory_proof({0: 100 * 10**6, 1: 200 * 10**6}, timeout_s=0.0)
    assert proof is not None
    assert not proof.ok
    assert proof.held == {1: 200_000 * 10**6}
    assert proof.pids == (4712,)
