"""``loadgen roofline``: what it prints, at which width, and what it says of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import Done, command, loadgen
from model_configs import QWEN2_57B, QWEN15_32B

from loadgen.reports.plot import HEIGHT, plot
from loadgen.reports.roofline import render
from loadgen.shapes.model_config import shape_of
from loadgen.shapes.roofline import GPUS, Roofline

MODELS = Path(__file__).parents[1] / "scenarios/models"
BOTH = (str(MODELS / "qwen1.5-32b.json"), str(MODELS / "qwen2-57b-a14b.json"))


def rooflines(*names: str, gpus: int = 1, gpu: str = "h200") -> list[Roofline]:
    shapes = [
        shape_of(fields, name) for fields, name in zip((QWEN15_32B, QWEN2_57B), names or ("dense", "moe"), strict=False)
    ]
    return [Roofline(shape=shape, gpu=GPUS[gpu], gpus=gpus, input_tokens=1000, output_tokens=100) for shape in shapes]


def said(text: str) -> str:
    """Text with its line breaks undone."""
    return " ".join(text.split())


def test_two_models_get_a_table_the_crossings_and_a_plot(tmp_path: Path) -> None:
    done = loadgen(tmp_path, "roofline", *BOTH, "--gpu", "h200", "--input", "1000", "--output", "100")
    assert done.code == 0, done.err
    assert done.err == ""
    text = said(done.out)
    assert "On 1 × H200 SXM (4.8 TB/s each): 1,000 tokens in, 100 out" in text
    assert "57.409 B parameters, 14.249 B active (13.705 B without the input embedding), 8 of 64 experts" in text
    assert (
        "decode step: qwen2-57b-a14b is 2.32 times as fast as qwen1.5-32b at batch size 1, 1.04 times at 256: "
        "falls behind at 5.2, overtakes at 233.7" in text
    )
    assert "whole request: qwen2-57b-a14b is 2.32 times" in text
    assert "● decode step ○ whole request" in text


def test_json_holds_the_same_in_seconds_and_bytes(tmp_path: Path) -> None:
    done = loadgen(tmp_path, "roofline", *BOTH, "--gpu", "h200", "--batches", "256,1", "--json")
    found = json.loads(done.out)
    assert [one["name"] for one in found["models"]] == ["qwen1.5-32b", "qwen2-57b-a14b"]
    assert [point["batch"] for point in found["models"][1]["points"]] == [1, 256]
    assert found["models"][1]["points"][0]["decode_step_s"] == pytest.approx(5.723e-3, abs=1e-6)
    assert [one["direction"] for one in found["crossings"]] == ["falls behind", "overtakes"] * 2


def test_a_measured_bandwidth_gpus_and_a_precision_are_taken(tmp_path: Path) -> None:
    words = ("--gpu", "h200", "--bandwidth", "4300", "--tensor-parallel", "2", "--dtype", "int4", "--json")
    found = json.loads(loadgen(tmp_path, "roofline", BOTH[0], *words).out)
    assert (found["gpus"], found["bandwidth_b_s"], found["crossings"]) == (2, 4.3e12, [])
    (model,) = found["models"]
    assert model["dtype"] == "int4"
    step = model["points"][0]
    assert step["decode_step_s"] == pytest.approx(step["decode_bytes"] / (2 * 4.3e12))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((BOTH[0], "--gpu", "h20"), "gpu 'h20': did you mean 'h200'? There are"),
        ((*BOTH, BOTH[0], "--gpu", "h200"), "two models can be compared at once"),
        ((BOTH[0], "--gpu", "h200", "--batches", "1,x"), "--batches 1,x: 'x' is no batch size"),
        ((BOTH[0], "--gpu", "h200", "--batches", "0"), "'0' is no batch size"),
        ((BOTH[0], "--gpu", "h200", "--dtype", "fp4"), "dtype 'fp4': there are bf16, fp8, int8, int4, mxfp4"),
        (("nowhere", "--gpu", "h200"), "nowhere: there is no such file"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    done = loadgen(tmp_path, "roofline", *words)
    assert done.code == 2
    assert sentence in done.err
    assert "Traceback" not in done.err


def test_an_unknown_architecture_lists_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba2"}')
    done: Done = loadgen(tmp_path, "roofline", ".", "--gpu", "h200")
    assert done.code == 2
    assert "config.json: model_type: 'mamba2'" in done.err
    assert "deepseek_v3, gpt_oss" in done.err


def test_a_terminal_of_ascii_and_80_columns_gets_both_in_its_own_way(tmp_path: Path) -> None:
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        command("roofline", *BOTH, "--gpu", "h200"), cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    text = done.stdout.decode("ascii")
    assert "?" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "o decode step" in text
    assert "left out at this width: " in text


@pytest.mark.parametrize("width", [66, 80, 100, 120, 160])
@pytest.mark.parametrize(
    "names", [("d", "m"), ("Qwen1.5-32B-Chat-GPTQ-Int4", "Qwen2-57B-A14B-Instruct-GPTQ-Int4"), ("d",)]
)
def test_no_line_is_wider_than_the_terminal(width: int, names: tuple[str, ...]) -> None:
    text = render(rooflines(*names), [1, 16, 256], width)
    assert max(map(len, text.splitlines())) <= width


def test_names_give_way_to_roles_on_a_narrow_screen() -> None:
    text = render(rooflines("Qwen1.5-32B-Chat-GPTQ-Int4", "Qwen2-57B-A14B-Instruct-GPTQ-Int4"), [1, 16], 70)
    assert "1      baseline " in text
    assert "baseline Qwen1.5-32B-Chat-GPTQ-Int4: " in said(text)


def test_a_model_that_does_not_fit_is_marked_and_said() -> None:
    text = render(rooflines(gpu="h100")[1:], [1, 256], 160)
    assert "114.9*" in text
    assert "moe: does not fit on 1 × H100 SXM: a request of 1,100 tokens takes 114.9 of 80 GB" in text


def test_where_nothing_crosses_it_says_so() -> None:
    assert (
        "decode step: moe is 2.32 times as fast as dense at batch size 1, 1.15 times at 4: no crossing in 1..4"
        in said(render(rooflines(), [1, 4], 160))
    )


def test_one_batch_size_has_no_plot_and_one_model_no_ratio() -> None:
    text = render(rooflines("dense"), [4], 160)
    assert "decode ×" not in text
    assert "┄" not in text
    assert "│" not in text


def test_a_plot_puts_its_points_where_their_logarithms_are() -> None:
    lines = plot({"up": [(1, 1.0), (100, 100.0)]}, 40, unicode=False)
    drawn = [line.partition("|")[2] for line in lines[:HEIGHT]]
    assert [row.find("o") for row in drawn] == sorted((row.find("o") for row in drawn), reverse=True)
    assert drawn[0].endswith("o")
    assert drawn[-1].startswith("o")
    assert lines[0].startswith("100 |")
    assert lines[HEIGHT - 1].startswith("  1 |")
    assert lines[HEIGHT].strip().startswith("+1")
    assert lines[HEIGHT].endswith("100")


def test_a_plot_of_equal_values_is_a_line() -> None:
    lines = plot({"flat": [(1, 5.0), (2, 5.0), (4, 5.0)]}, 40, unicode=True)
    assert sum("●" in line for line in lines[:HEIGHT]) == 1


def test_the_start_of_the_command_loads_no_part_of_it() -> None:
    code = "import loadgen.cli, sys; print('loadgen.shapes.roofline' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
