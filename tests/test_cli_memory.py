"""``loadgen plan --memory``, and the memory in ``loadgen plan SCENARIO``: what is printed, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from cli_runner import command, loadgen, write_scenario
from model_configs import QWEN2_57B, QWEN15_32B
from msgspec.structs import replace

from loadgen.reports.memory import render, verdict
from loadgen.shapes.memory_plan import MemoryPlan
from loadgen.shapes.model_config import shape_of

MODELS = Path(__file__).parents[1] / "scenarios/models"
MOE, DENSE = MODELS / "qwen2-57b-a14b.json", MODELS / "qwen1.5-32b.json"


def test_a_verdict_speaks_of_the_split_that_was_planned() -> None:
    plan = MemoryPlan(shape=shape_of(QWEN2_57B, "m"), input_tokens=1, output_tokens=1, split="layers")
    assert verdict(plan, 24e9) == (
        "It does not fit on 1 × 24 GB; the smallest number of GPUs, split by layers, that does is 5."
    )
    assert verdict(replace(plan, gpus=8), 24e9) == "It fits on 8 × 24 GB; 5 would do."
    assert verdict(plan, 1e9).endswith("allow up to 4.")


def test_the_command_says_what_is_needed_and_the_smallest_that_does(tmp_path: Path) -> None:
    done = loadgen(tmp_path, "plan", "--memory", str(DENSE), "--gpu", "24GB", "--quantization", "awq")
    assert (done.code, done.err) == (0, "")
    assert "weights 19.2 GB (32.512 B parameters)" in done.out
    assert "It fits on 1 × 24 GB." in done.out
    more = loadgen(tmp_path, "plan", "--memory", str(DENSE), "--gpu", "24GB")
    assert "It does not fit on 1 × 24 GB; the smallest tensor parallelism that does is 4." in more.out
    many = " ".join(loadgen(tmp_path, "plan", "--memory", str(MOE), "--gpu", "24GB").out.split())
    assert "its 28 heads allow up to 4; split by layers (a pipeline), 5 would do." in many


def test_json_holds_the_same_in_bytes(tmp_path: Path) -> None:
    words = ("--gpu", "a100", "--input", "6144", "--output", "2048", "--batch", "4", "--tp", "2", "--json")
    found = json.loads(loadgen(tmp_path, "plan", "--memory", str(MOE), *words).out)
    assert (found["gpu_memory_bytes"], found["fewest_gpus"]) == (80e9, 2)
    assert [one["gpus"] for one in found["gpus"]] == [1, 2, 4]
    assert [one["fits"] for one in found["gpus"]] == [False, True, True]
    two = found["gpus"][1]
    assert two["total_bytes"] == sum(
        two[f"{name}_bytes"] for name in ["weights", "tables", "kv", "activations", "logits", "copies"]
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name a scenario, or a model and its GPU"),
        (("--memory", str(MOE)), "say on which GPU: --gpu 24GB"),
        (("--memory", "nowhere", "--gpu", "24GB"), "nowhere: there is no such file"),
        (("--memory", str(MOE), "--gpu", "big"), "gpu 'big': write its memory"),
        (("--memory", str(MOE), "--gpu", "24GB", "--tp", "3"), "--tp 3: qwen2-57b-a14b has 28 heads"),
        (("--memory", str(MOE), "--gpu", "24GB", "--prompt-logits", "some"), "'some': all or last belongs here"),
        (("x.yaml", "--memory", str(MOE), "--gpu", "24GB"), "--memory and --gpu are for a model without a scenario"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    done = loadgen(tmp_path, "plan", *words)
    assert done.code == 2
    assert sentence in done.err
    assert "Traceback" not in done.err


def test_a_config_of_sizes_that_no_model_has_is_a_sentence(tmp_path: Path) -> None:
    fields = QWEN15_32B | {"hidden_size": 10**40}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    done = loadgen(tmp_path, "plan", "--memory", ".", "--gpu", "24GB")
    assert done.code == 2
    assert "no model has; mend the file" in done.err


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    plan = MemoryPlan(shape=shape_of(QWEN2_57B, "Qwen2-57B-A14B-Instruct"), input_tokens=30720, output_tokens=2048)
    assert max(map(len, render(plan, 24e9, width).splitlines())) <= width


def test_a_terminal_of_ascii_gets_ascii(tmp_path: Path) -> None:
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "ascii"}
    words = command("plan", "--memory", str(DENSE), "--gpu", "24GB")
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert "It does not fit on 1 x 24 GB" in done.stdout.decode("ascii")


def test_the_plan_of_a_scenario_says_what_every_target_takes_and_whether_it_fits(tmp_path: Path) -> None:
    path = write_scenario(
        tmp_path,
        "targets:\n"
        f"  small: {{endpoint: 'http://127.0.0.1:1', model: a, config: {DENSE}, gpu: h200}}\n"
        f"  large: {{endpoint: 'http://127.0.0.1:1', model: b, config: {MOE}, gpu: a100}}\n"
        f"  unknown: {{endpoint: 'http://127.0.0.1:1', model: c}}\n"
        "workload: {prompts: synthetic, input_tokens: 1000, vocab_size: 9, output: {exact: 100}}\n"
        "load: {window_s: 10, warmup_s: 2}\nmatrix: {concurrency: [1, 900]}\nrepeats: 1\n",
    )
    done = loadgen(tmp_path, "plan", str(path))
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    small = re.search(r"small: .*? It fits on 1 × 141 GB: room for (\d+) such requests at once; some of 900 wait", text)
    assert small is not None
    plan = MemoryPlan(shape=shape_of(QWEN15_32B, "m"), input_tokens=1000, output_tokens=100)
    assert int(small[1]) == plan.requests(141e9)
    assert "It does not fit on 1 × 80 GB; the smallest tensor parallelism that does is 2." in text
    assert "1000 + 100 tokens" in text
    assert "unknown: not known: no config.json of unknown's model is at hand" in text
    assert text.index("memory (from sizes alone") < text.index("order (")


@pytest.mark.parametrize(("fraction", "sentence"), [(0.9, "It fits on 2 × 72 GB"), (0.7, "does not fit on 2 × 56 GB")])
def test_a_launched_target_has_the_share_of_its_gpus_that_it_is_told(
    tmp_path: Path, fraction: float, sentence: str
) -> None:
    path = write_scenario(
        tmp_path,
        f"targets: {{moe: {{engine: vllm, model: x/moe, config: {MOE}, gpu: a100, "
        f"options: {{tensor_parallel: 2, memory_fraction: {fraction}}}}}}}\n"
        "workload: {prompts: synthetic, input_tokens: 1000, vocab_size: 9, output: {exact: 100}}\n"
        "load: {window_s: 10, warmup_s: 2, concurrency: 1}\nrepeats: 1\n",
    )
    assert sentence in " ".join(loadgen(tmp_path, "plan", str(path)).out.split())


TRACE = """
targets: {{a: {{endpoint: 'http://127.0.0.1:1', model: m, config: {config}, gpu: a100}}}}
workload:
  {{prompts: trace, path: t.csv, format: csv, columns: {{time: at, input: in, output: out}}, vocab_size: 9,
    output: {output}}}
load: {{concurrency: 4, requests: 3, warmup_s: 0}}
repeats: 1
"""


@pytest.mark.parametrize(
    ("output", "rows", "largest"),
    [
        ("{exact: trace}", "0,900,20\n1,1000,10\n2,700,900\n", "700 + 900"),  # not 1000 + 900, which nobody sends
        ("{exact: trace}", "0,9000,20\n1,1000,10\n2,700,300\n", "9000 + 20"),
        ("{max: 64}", "0,900,20\n1,1000,10\n2,700,300\n", "1000 + 64"),
    ],
)
def test_a_trace_is_judged_by_the_request_that_needs_the_most(
    tmp_path: Path, output: str, rows: str, largest: str
) -> None:
    (tmp_path / "t.csv").write_text(f"at,in,out\n{rows}")
    done = loadgen(tmp_path, "plan", str(write_scenario(tmp_path, TRACE.format(config=DENSE, output=output))))
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert f"with a request of {largest} tokens, the largest of the trace" in said
    assert "of unknown length" not in said


def test_a_trace_that_is_not_there_is_named_when_it_is_planned(tmp_path: Path) -> None:
    text = TRACE.format(config=DENSE, output="{max: 64}")
    done = loadgen(tmp_path, "plan", str(write_scenario(tmp_path, text)))
    assert done.code == 2
    assert "t.csv" in done.err
