"""Mixes: shares that hold exactly, sources in the records, and a row for each part in every report."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.errors import UsageError
from loadgen.workloads import Context, Source
from loadgen.workloads.replies import open_source

SYNTHETIC = {"prompts": "synthetic", "vocab_size": 5000}


def opened(seed: int = 1, ask_tok: int = 16, exact: bool = False, probe: bool = False, **parts: dict) -> Source:
    context = Context(seed=seed, ask_tok=ask_tok, exact=exact, probe=probe)
    return open_source("mix", {"mix": parts}, context)


def chat_and_code(**more: object) -> dict[str, dict]:
    return {
        "chat": {**SYNTHETIC, "weight": 3, "input_tokens": 20},
        "code": {**SYNTHETIC, "input_tokens": 50, **more},
    }


def sources(source: Source, count: int) -> list[str]:
    return [source.session(i)[0].source for i in range(count)]


def test_the_shares_hold_exactly_in_every_thousand_sessions():
    source = opened(**chat_and_code())
    for lap in range(3):
        found = Counter(source.session(i)[0].source for i in range(1000 * lap, 1000 * (lap + 1)))
        assert found == {"chat": 750, "code": 250}


@settings(max_examples=30)
@given(weights=st.lists(st.floats(0.5, 50), min_size=2, max_size=6))
def test_any_weights_come_within_one_in_a_thousand(weights):
    parts = {f"p{i}": {**SYNTHETIC, "weight": weight, "input_tokens": 3} for i, weight in enumerate(weights)}
    told = opened(**parts).describe()["parts"]
    shares = [told[name]["share"] for name in parts]
    assert sum(shares) == pytest.approx(1)
    assert all(abs(share - weight / sum(weights)) < 0.001 for share, weight in zip(shares, weights, strict=True))


def test_parts_come_in_a_seeded_order_and_not_in_rows():
    order = sources(opened(**chat_and_code()), 400)
    assert order == sources(opened(**chat_and_code()), 400)
    assert order != sources(opened(seed=2, **chat_and_code()), 400)
    assert 60 <= order.count("code") <= 140
    assert any(a == b == "code" for a, b in pairwise(order))


def test_no_prompt_of_a_part_comes_twice():
    source = opened(**chat_and_code())
    prompts = [source.session(i)[0] for i in range(3000)]
    assert len({prompt.token_ids for prompt in prompts}) == 3000
    assert {(prompt.source, len(prompt.token_ids)) for prompt in prompts} == {("chat", 20), ("code", 50)}


def test_a_part_uses_all_prompts_of_a_file_before_one_comes_again(tmp_path: Path):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": f"q{i}"}) + "\n" for i in range(250)))
    parts = chat_and_code()
    parts["code"] = {"prompts": "jsonl", "path": "p.jsonl", "weight": 1}
    source = open_source("mix", {"mix": parts}, Context(seed=1, ask_tok=4, folder=str(tmp_path)))
    asked = [p.messages for i in range(1000) if (p := source.session(i)[0]).source == "code"]
    assert len(set(asked)) == len(asked) == 250


def test_a_part_has_its_own_output_and_the_others_have_the_workloads():
    source = opened(**chat_and_code(output={"max": {"uniform": {"min": 100, "max": 200}}}))
    found = {"chat": set(), "code": set()}
    for i in range(300):
        prompt = source.session(i)[0]
        found[prompt.source].add(prompt.ask_tok)
        assert source.outline(i).ask_tok == prompt.ask_tok
    assert found["chat"] == {16}
    assert len(found["code"]) > 20
    assert min(found["code"]) >= 100


def test_a_probe_asks_every_part_for_as_little():
    source = opened(ask_tok=7, probe=True, **chat_and_code(output={"max": 500}))
    assert {source.session(i)[0].ask_tok for i in range(50)} == {7}


def test_parts_share_no_prefix_though_their_pools_are_alike():
    pool = {"prefix": {"pool": 1, "tokens": 10}}
    parts = {"a": {**SYNTHETIC, "input_tokens": 20, **pool}, "b": {**SYNTHETIC, "input_tokens": 20, **pool}}
    source = opened(**parts)
    beginnings = {(p := source.session(i)[0]).token_ids[:10] for i in range(20)}
    assert len(beginnings) == len({source.outline(i).blocks for i in range(20)}) == 2
    assert p.source in parts


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"chat": SYNTHETIC}, r"workload\.mix: prompts: mix takes one setting, at least two workloads by name"),
        ({"a": SYNTHETIC, "b": "natural"}, r"workload\.mix\.b: must be a workload with prompts"),
        ({"a": SYNTHETIC, "b": {"weight": 3}}, r"workload\.mix\.b: must be a workload with prompts"),
        ({**chat_and_code(), "c": {"prompts": "trace"}}, r"mix\.c\.prompts: trace cannot be a part of a mix"),
        ({**chat_and_code(), "c": {"prompts": "natrual"}}, r"mix\.c: workload\.prompts: 'natrual' does not exist"),
        (chat_and_code(weight=0), r"mix\.code\.weight: must be a number above 0, not 0"),
        (chat_and_code(weight="much"), r"mix\.code\.weight: must be a number above 0, not 'much'"),
        (chat_and_code(weight=1e-6), r"mix\.code\.weight: 1e-06 of 3 is under 1 in 1000; leave it out"),
        (chat_and_code(words=3), r"mix\.code: workload\.words belongs to kind: words"),
        (chat_and_code(output={"exact": 9}), r"mix\.code\.output: exact and max do not mix; say .* max"),
        (chat_and_code(output={}), r"mix\.code\.output: needs exactly one of exact and max, and has none"),
        (chat_and_code(output={"max": {"norm": 1}}), r"mix\.code\.output\.max: object contains unknown field norm"),
    ],
)
def test_a_mix_that_cannot_be_is_a_sentence(parts: dict, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        opened(**parts)


def test_every_report_has_a_row_for_each_part_of_a_mix(tmp_path: Path):
    with FakeServer(ttft_ms=5, gap_ms=1, dialect="openai_completions") as server:
        text = (
            f"targets: {{a: {{endpoint: '{server.url}', model: m, backend: openai_completions}}}}\n"
            "workload:\n  prompts: mix\n  output: {exact: 4}\n  mix:\n"
            "    chat: {weight: 3, prompts: synthetic, vocab_size: 900, input_tokens: 20}\n"
            "    code: {prompts: synthetic, vocab_size: 900, input_tokens: 50, output: {exact: 9}}\n"
            "load: {concurrency: 4, warmup_s: 0.1, requests: 80}\nrepeats: 1\n"
        )
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    assert done.good, done.err + done.out
    records = [record for record in done.records(done.attempts()[0]) if record.phase == "measure"]
    lengths = {(record.source, record.in_tok, record.ask_tok, record.out_tok) for record in records}
    assert lengths == {("chat", 20, 4, 4), ("code", 50, 9, 9)}
    (result,) = done.results()
    parts = result.parts["source"]
    counts = Counter(record.source for record in records)
    assert {name: part.requests for name, part in parts.items()} == counts
    assert sum(part.request_rps for part in parts.values()) == pytest.approx(result.summary.request_rps)
    assert sum(part.output_tok_s for part in parts.values()) == pytest.approx(result.summary.output_tok_s)
    assert result.summary.wrong_length == 0
    for shown in (done.out, (done.run / "report.md").read_text(), (done.run / "report.html").read_text()):
        assert "By workload" in shown
    table = loadgen(tmp_path, "report", done.run.name, "--format", "csv").out
    named = {row["part"]: row for row in csv.DictReader(io.StringIO(table)) if row["part"]}
    assert {name: int(row["requests"]) for name, row in named.items()} == {
        name: counts[name.split(" ")[-1]] for name in named
    }
    assert len(named) == 2
