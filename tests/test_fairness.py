"""What differs between two targets besides what was declared: facts in words, and what goes with what by nature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scenario_text import scenario

from loadgen.fair.facts import facts_of, scenario_of
from loadgen.fair.fairness import Kept, differences, doubts
from loadgen.fair.fingerprint import key_of
from loadgen.plan import Plan, make_plan
from loadgen.scenario import expand, public_dict

TWO = """
schema: loadgen/v1
targets:
  a: {engine: vllm, model: Qwen/A, options: {OPTIONS_A}, devices: [0]}
  b: {engine: vllm, model: Qwen/A, options: {OPTIONS_B}, devices: [1]}
workload: {prompts: natural, output: {exact: 8}}
load: {concurrency: 2, window_s: 1}
comparison: {}
"""
GPU = {"name": "NVIDIA H200", "uuid": "GPU-1", "memory_gb": 150.0, "driver": "580"}
MACHINE = {"host": "h", "cpu": "a processor", "cores": 8, "kernel": "6", "gpus": [GPU, {**GPU, "uuid": "GPU-2"}]}


def described(folder: Path, text: str, *, servers: dict[str, Any] | None = None) -> tuple[dict[str, Any], Plan]:
    """run.json and the plan of a scenario whose servers said this of themselves, by target."""
    found = scenario(folder, text)
    plan = make_plan(found, expand(found))
    started = {
        instance: {"target": target, "engine": found.targets[target].engine, "facts": (servers or {}).get(target, {})}
        for instance, target in plan.servers.items()
    }
    known = {
        "scenario": public_dict(found),
        "machine": MACHINE,
        "versions": {"loadgen": "1"},
        "servers": started,
        "seed": 1,
    }
    return known, plan


def sides(
    folder: Path, text: str = "", *, a: str = "", b: str = "", servers: dict[str, Any] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    text = (text or TWO).replace("OPTIONS_A", a).replace("OPTIONS_B", b)
    run, plan = described(folder, text, servers=servers)
    return facts_of(run, plan, "all", "a"), facts_of(run, plan, "all", "b")


def test_two_servers_of_one_kind_differ_in_nothing(tmp_path: Path) -> None:
    """Nor do the GPUs that they stand on, by number: those of one name are alike, and it is said which they are."""
    a, b = sides(
        tmp_path, a="dtype: bfloat16", b="dtype: bfloat16", servers={name: {"version": "0.26"} for name in "ab"}
    )
    assert differences(a, b, ()) == ()
    assert [doubt.text for doubt in doubts(a, b, ())] == ["devices is 0 for a and 1 for b."]


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        ("dtype: float16", "dtype: bfloat16", "dtype is float16 for a and bfloat16 for b"),
        ("quantization: awq", "", "quantization is awq for a and not set for b"),
        ("eager: true", "eager: false", "eager is true for a and false for b"),
        ("max_model_len: 4096", "max_model_len: 2048", "max_model_len is 4096 for a and 2048 for b"),
        ("speculative: {tokens: 3}", "", 'speculative is {"tokens": 3} for a and not set for b'),
    ],
)
def test_an_option_that_differs_is_a_difference_and_may_be_declared(
    tmp_path: Path, a: str, b: str, sentence: str
) -> None:
    found = sides(tmp_path, a=a, b=b)
    assert differences(*found, ("model",)) == (sentence,)
    assert differences(*found, ("model", sentence.partition(" ")[0])) == ()


@pytest.mark.parametrize(
    "words", ["port: 81", "served_name: x", "host: 0.0.0.0", "hub: offline", "trust_remote_code: true"]
)
def test_places_and_names_are_no_factors(tmp_path: Path, words: str) -> None:
    assert differences(*sides(tmp_path, a=words), ()) == ()


def test_what_differs_by_nature_from_start_to_start_is_no_factor(tmp_path: Path) -> None:
    said = {"a": {"weights_load_s": 4.2, "warmed_up_s": 1.0}, "b": {"weights_load_s": 9.9, "weights_gib": 3.0}}
    a, b = sides(tmp_path, servers=said)
    assert differences(a, b, ()) == ()


def test_what_an_engine_came_to_stands_in_for_what_nobody_set(tmp_path: Path) -> None:
    said = {"a": {"dtype": "float16"}, "b": {"dtype": "bfloat16"}}
    assert differences(*sides(tmp_path, servers=said), ("model",)) == ("dtype is float16 for a and bfloat16 for b",)
    assert differences(*sides(tmp_path, a="dtype: auto", b="dtype: bfloat16", servers=said), ("model",)) != ()
    assert differences(*sides(tmp_path, b="dtype: float16", servers={"a": {"dtype": "float16"}}), ("model",)) == ()


def test_another_model_brings_its_revision_and_its_tokenizer_and_no_more(tmp_path: Path) -> None:
    text = TWO.replace("b: {engine: vllm, model: Qwen/A", "b: {engine: vllm, model: Qwen/B-AWQ, tokenizer: Qwen/B")
    said = {"a": {"revision": "1f", "dtype": "bfloat16"}, "b": {"revision": "2e", "dtype": "bfloat16"}}
    found = sides(tmp_path, text, b="quantization: awq", servers=said)
    assert differences(*found, ("model",)) == ("quantization is not set for a and awq for b",)
    assert differences(*found, ("quantization",)) == (
        "model is Qwen/A for a and Qwen/B-AWQ for b",
        "revision is 1f for a and 2e for b",
        "tokenizer is not set for a and Qwen/B for b",
    )


def test_a_models_own_way_of_computing_goes_with_it(tmp_path: Path) -> None:
    """An MoE has experts, and picks its attention itself; a scenario that sets them sets them for a reason."""
    text = TWO.replace("b: {engine: vllm, model: Qwen/A", "b: {engine: vllm, model: Qwen/B")
    said = {
        "a": {"attention": "sdpa", "dtype": "float32"},
        "b": {"attention": "mla", "experts": "x", "dtype": "float32"},
    }
    assert differences(*sides(tmp_path, text, servers=said), ("model",)) == ()
    assert differences(*sides(tmp_path, text, a="attention: eager", servers=said), ("model",)) == (
        "attention is eager for a and mla for b",
    )


def test_the_dtype_of_another_model_is_doubted_where_nobody_says_it(tmp_path: Path) -> None:
    text = TWO.replace("b: {engine: vllm, model: Qwen/A", "b: {engine: vllm, model: Qwen/B")
    said = [doubt.text for doubt in doubts(*sides(tmp_path, text), ("model",))]
    assert "Not known of a and b: dtype. What is not declared may differ there." in said
    assert not any("dtype" in doubt.text for doubt in doubts(*sides(tmp_path, text), ("model", "dtype")))


def test_a_model_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    text = TWO.replace("b: {engine: vllm, model: Qwen/A", "b: {engine: vllm, model: /mnt/models/A")
    text = text.replace("a: {engine: vllm, model: Qwen/A", "a: {engine: vllm, model: ../A")
    assert differences(*sides(tmp_path, text), ()) == ()


def test_random_weights_against_a_checkpoint_is_not_covered_by_the_model(tmp_path: Path) -> None:
    found = sides(tmp_path, a="load_format: dummy", b="")
    assert differences(*found, ("model",)) == ("load_format is dummy for a and not set for b",)


def test_another_engine_brings_what_goes_with_it(tmp_path: Path) -> None:
    """Its version, image, protocol and request fields. Options that only one sets are doubted, options that both set
    must agree."""
    text = TWO.replace(
        "b: {engine: vllm,", "b: {engine: hf, backend: openai_completions, request: {x: 1}, args: [--y],"
    )
    said = {"a": {"version": "0.26"}, "b": {"version": "transformers 5"}}
    both = "dtype: bfloat16, "
    found = sides(tmp_path, text, a=both + "eager: true", b=both + "threads: 1", servers=said)
    assert differences(*found, ("engine",)) == ()
    texts = [doubt.text for doubt in doubts(*found, ("engine",))]
    assert any(text.startswith("Not known of a: threads.") for text in texts)
    assert any(text.startswith("Not known of b: eager.") for text in texts)
    differing = sides(tmp_path, text, a="dtype: float16", b="dtype: bfloat16", servers=said)
    assert differences(*differing, ("engine",)) == ("dtype is float16 for a and bfloat16 for b",)
    assert "engine is vllm for a and hf for b" in differences(*found, ("model",))


def test_another_version_of_one_engine_is_a_difference(tmp_path: Path) -> None:
    found = sides(tmp_path, servers={"a": {"version": "0.26.0"}, "b": {"version": "0.33.0"}})
    assert differences(*found, ("model",)) == ("engine_version is 0.26.0 for a and 0.33.0 for b",)
    for declared in ("engine", "engine_version", "python", "image"):
        assert differences(*found, (declared,)) == ()


def test_a_version_that_changed_between_two_starts_is_told_in_full(tmp_path: Path) -> None:
    run, plan = described(tmp_path, TWO.replace("OPTIONS_A", "").replace("OPTIONS_B", ""))
    first, second = [name for name, target in plan.servers.items() if target == "a"][:2]
    run["servers"][first]["facts"] = {"version": "1"}
    run["servers"][second]["facts"] = {"version": "2"}
    run["servers"]["b-1-2"] = {"target": "b", "engine": "vllm", "facts": {"version": "2"}}  # b-1 was started once more
    found = (facts_of(run, plan, "all", "a"), facts_of(run, plan, "all", "b"))
    assert differences(*found, ("model",)) == ("engine_version is 1 then 2 for a and 2 for b",)


def test_more_gpus_are_a_difference_unless_the_parallelism_is_meant(tmp_path: Path) -> None:
    text = TWO.replace("devices: [1]", "devices: [0, 1]")
    found = sides(tmp_path, text, b="tensor_parallel: 2")
    assert set(differences(*found, ("model",))) == {
        "tensor_parallel is not set for a and 2 for b",
        "gpus is 1 for a and 2 for b",
    }
    assert differences(*found, ("model", "tensor_parallel")) == ()


def test_pinning_counts_cores_and_not_which(tmp_path: Path) -> None:
    text = TWO.replace("devices: [0]", "cpus: [0]").replace("devices: [1]", "cpus: [1]")
    assert differences(*sides(tmp_path, text), ()) == ()
    text = text.replace("cpus: [1]", "cpus: [1, 2]")
    assert differences(*sides(tmp_path, text), ("model",)) == ("cpus is 1 pinned for a and 2 pinned for b",)


def test_kv_capacity_is_doubted_where_nothing_explains_it(tmp_path: Path) -> None:
    def said(a: str, first: float, second: float) -> list[str]:
        facts = {"a": {"kv_tokens": first}, "b": {"kv_tokens": second}}
        return [doubt.text for doubt in doubts(*sides(tmp_path, a=a, servers=facts), ("dtype",)) if "kv" in doubt.text]

    assert said("", 1000.0, 900.0) == ["kv_tokens is 1000 for a and 900 for b."]
    assert said("", 1000.0, 990.0) == []
    assert said("dtype: float16", 1000.0, 500.0) == []


ENDPOINTS = """
schema: loadgen/v1
targets:
  a: {endpoint: 'http://127.0.0.1:8000', model: m}
  b: {endpoint: 'http://127.0.0.1:8001', model: m}
workload: {prompts: natural, output: {exact: 8}}
load: {concurrency: 2, window_s: 1}
comparison: {}
"""


def test_of_endpoints_nothing_is_known_and_that_is_a_doubt(tmp_path: Path) -> None:
    a, b = sides(tmp_path, ENDPOINTS)
    assert differences(a, b, ("model",)) == ()
    assert [doubt.text for doubt in doubts(a, b, ("model",))] == [
        "Not known of a and b: engine, engine_version, dtype, quantization, gpu. What is not declared may differ there."
    ]


def test_what_is_known_of_the_launched_side_alone_is_doubted_of_the_endpoint(tmp_path: Path) -> None:
    text = ENDPOINTS.replace(
        "b: {endpoint: 'http://127.0.0.1:8001', model: m}", "b: {engine: hf, model: m, options: {threads: 2}}"
    )
    a, b = sides(tmp_path, text, servers={"b": {"version": "5"}})
    assert differences(a, b, ("model",)) == ()
    (doubt,) = [doubt for doubt in doubts(a, b, ("model",)) if "of a:" in doubt.text]
    for word in ("engine", "engine_version", "threads", "dtype", "gpu"):
        assert word in doubt.text


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("127.0.0.1:8001", "10.0.0.7:8001", "endpoint is this machine for a and another machine for b"),
        ("http://127.0.0.1:8001", "https://[::1]", "endpoint is this machine for a and this machine, https for b"),
        ("8001', model: m", "8001', model: n", "model is m for a and n for b"),
        ("8001', model: m", "8001', model: m, backend: ollama", "backend is openai_chat for a and ollama for b"),
        ("8001', model: m", "8001', model: m, request: {top_k: 5}", "request.top_k is not set for a and 5 for b"),
    ],
)  # fmt: skip
def test_how_an_endpoint_is_reached_and_asked_is_known(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    found = sides(tmp_path, ENDPOINTS.replace(old, new))
    assert differences(*found, ()) == (sentence,)
    assert differences(*found, (sentence.partition(" ")[0].partition(".")[0],)) == ()


def test_runs_of_other_scenarios_and_machines_differ_in_what_they_say(tmp_path: Path) -> None:
    a, _ = sides(tmp_path, ENDPOINTS)
    text = ENDPOINTS.replace("exact: 8}", "max: 8}, sampling: {temperature: 0.7}").replace(
        "natural", "synthetic, kind: words, words: 9"
    )
    run, plan = described(tmp_path, text.replace("concurrency: 2", "rate_rps: 3, driver: httpx"))
    run |= {"machine": {**MACHINE, "cpu": "another", "host": "i"}, "versions": {"loadgen": "2"}, "seed": 2}
    b = {**facts_of(run, plan, "all", "b"), "target": "b (of last night)"}
    assert set(differences(a, b, ())) == {
        "output is exactly 8 tokens for a and at most 8 tokens for b (of last night)",
        "sampling.temperature is 0 for a and 0.7 for b (of last night)",
        "prompts is natural for a and synthetic for b (of last night)",
        "prompts.kind is not set for a and words for b (of last night)",
        "prompts.words is not set for a and 9 for b (of last night)",
        "load is 2 in flight for a and rate_rps 3 for b (of last night)",
        "driver is loadgen for a and httpx for b (of last night)",
        "machine is a processor, 8 cores for a and another, 8 cores for b (of last night)",
        "loadgen is 1 for a and 2 for b (of last night)",
    }
    said = [doubt.text for doubt in doubts(a, b, ())]
    assert "host is h for a and i for b (of last night)." in said
    assert "prompts.seed is 1 for a and 2 for b (of last night)." in said
    assert differences(a, b, ("output", "sampling", "prompts", "load", "driver", "machine", "loadgen")) == ()


def stated(words: Any) -> Any:
    """Words without those that are None, which is what a word that is left out is."""
    if not isinstance(words, dict):
        return words
    return {key: stated(value) for key, value in words.items() if value is not None}


def test_a_cells_own_words_are_those_of_its_run(tmp_path: Path) -> None:
    """Axes and what an include adds, for every cell, after a way through JSON."""
    text = ENDPOINTS + (
        "matrix:\n  load.concurrency: [1, 2]\n  targets.*.request.top_k: [4, null]\n"
        "  include:\n"
        "    - {load.concurrency: 2, workload.sampling.top_p: 0.5}\n"
        "    - {load.concurrency: 3, workload.prompts: natural}\n"
    )
    run, plan = described(tmp_path, text)
    cells = expand(scenario(tmp_path, text))
    assert len(cells) == 5
    for cell in cells:
        words, theirs = stated(public_dict(cell.scenario)), stated(scenario_of(run, plan, cell.id))
        assert [theirs[root] for root in ("targets", "workload", "load")] == [
            words[root] for root in ("targets", "workload", "load")
        ]
        assert key_of(words, "b") == key_of(theirs, "b")


def test_a_run_without_fingerprints_is_held_against_another_by_its_facts(tmp_path: Path) -> None:
    run, plan = described(tmp_path, ENDPOINTS)
    side = Kept(run, plan).side("all", "a").named("x")
    assert (side.facts["target"], side.facts["model"], side.fingerprints) == ("x", "m", ())
