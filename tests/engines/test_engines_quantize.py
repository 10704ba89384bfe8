"""scripts/quantize on the tiny models, and the engines that load what it makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cpu_engines import CHECKOUT, CPU_ENGINES, DENSE, ENGINES, Engine
from test_engines_cpu import started, whole

pytestmark = pytest.mark.engines


def quantize(model: Path, out: Path, to: str) -> subprocess.CompletedProcess[str]:
    python = ENGINES / ("gguf" if to.startswith("gguf") else "quantize") / "bin" / "python"
    if not python.exists() or not model.exists():
        pytest.skip(f"there is no {python} or no {model}; scripts/make-engines makes them")
    words = [
        "env",
        "CUDA_VISIBLE_DEVICES=",
        str(python),
        str(CHECKOUT / "scripts/quantize_model.py"),
        str(model),
        str(out),
        "--to",
        to,
    ]
    return subprocess.run(words, cwd=out.parent, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(("kind", "bits"), [("f16", 16), ("q8_0", 8.5), ("q4_0", 4.5)])
def test_a_gguf_has_the_size_of_its_type_and_is_served(tmp_path: Path, kind: str, bits: float) -> None:
    file = tmp_path / f"m.{kind}.gguf"
    done = quantize(DENSE, file, f"gguf-{kind}")
    assert done.returncode == 0, done.stderr
    weights = (DENSE / "model.safetensors").stat().st_size / 4
    assert file.stat().st_size == pytest.approx(weights * bits / 8, rel=0.03)
    spec = Engine("llamacpp-python", file, {"threads": 1, "max_model_len": 256}).spec(tmp_path)
    with started(spec, tmp_path) as server:
        reply = whole(spec, server, 7)
    assert reply.usage is not None
    assert reply.usage.out_tok == 7


def test_a_mixture_of_experts_says_in_llamacpp_what_it_says_in_transformers(tmp_path: Path) -> None:
    said = {}
    for name in ("hf-moe", "llamacpp-python-moe"):
        spec = CPU_ENGINES[name].spec(tmp_path / name)
        (tmp_path / name).mkdir()
        with started(spec, tmp_path / name) as server:
            said[name] = whole(spec, server, 4).text.strip()
    assert len(set(said.values())) == 1, said


def test_gptq_is_made_on_a_cpu_and_smaller_than_bfloat16(tmp_path: Path) -> None:
    done = quantize(DENSE, tmp_path / "q", "gptq")
    assert done.returncode == 0, done.stderr
    assert '"quant_method": "gptq"' in (tmp_path / "q" / "config.json").read_text()
    plain = (DENSE / "model.safetensors").stat().st_size / 2
    assert sum(file.stat().st_size for file in (tmp_path / "q").glob("*.safetensors")) < plain


def test_awq_needs_a_gpu_and_says_so(tmp_path: Path) -> None:
    done = quantize(DENSE, tmp_path / "q", "awq")
    assert done.returncode == 2
    assert "GPTQModel cannot make awq of" in done.stderr
    assert "CUDA is not available" in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "logs"]  # GPTQModel's own, in the working folder


def test_what_cannot_be_quantized_is_refused_in_a_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "mamba"}')
    done = quantize(tmp_path / "m", tmp_path / "out.gguf", "gguf-f16")
    assert done.returncode == 2
    assert "is a mamba, and this converter knows qwen2, qwen2_moe" in done.stderr
    assert quantize(tmp_path, tmp_path / "out.gguf", "gguf-f16").stderr.count("no config.json") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]
