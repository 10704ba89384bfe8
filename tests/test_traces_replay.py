"""A trace against a server: what arrives is what the trace says, and its prefix hits are what the trace implies."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer
from hypothesis import given
from hypothesis import strategies as st
from made_traces import conversations, put
from test_reports import made

from loadgen.arrival import Arrival
from loadgen.drive.job import Shape
from loadgen.drive.schedule import digest, share
from loadgen.errors import UsageError
from loadgen.expected import AROUND_S
from loadgen.nightly.budget import seconds_of
from loadgen.offered import shape_of
from loadgen.plan import make_plan
from loadgen.prefixes import Implied, doubts
from loadgen.reports import csv as csv_report
from loadgen.reports import machines, markdown, text
from loadgen.scenario import expand
from loadgen.scenario import load as load_scenario
from loadgen.scenario.model import Load, Workload
from loadgen.workloads import Context, synthetic
from loadgen.workloads.outline import Prefixes, hit


def scenario(url: str, load: str = "arrival: trace, warmup_s: 0") -> str:
    return (
        f"targets: {{a: {{endpoint: '{url}', model: m, backend: openai_completions}}}}\n"
        "workload: {prompts: trace, path: t.jsonl, format: mooncake, vocab_size: 3000, output: {exact: trace}}\n"
        f"load: {{{load}}}\nrepeats: 1\n"
    )


def test_a_replay_sends_every_request_of_the_trace_at_its_time_with_its_lengths(tmp_path: Path):
    rows = conversations(40, gap_ms=25)
    put(tmp_path, rows)
    with FakeServer(ttft_ms=2, gap_ms=0, dialect="openai_completions") as server:
        text = scenario(server.url, load="arrival: trace, warmup_s: 0, workers: 2")
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    assert done.good, done.err + done.out
    records = sorted(done.records(done.attempts()[0]), key=lambda record: record.session)
    assert [record.session for record in records] == list(range(40))
    assert {record.phase for record in records} == {"measure"}
    for row, record in zip(rows, records, strict=True):
        assert record.t_sched == pytest.approx(row["timestamp"] / 1e3, abs=1e-6)
        assert (record.in_tok, record.out_tok) == (row["input_length"], row["output_length"])
        assert record.t_send >= record.t_sched


def test_a_servers_prefix_hits_are_those_that_the_trace_implies(tmp_path: Path):
    put(tmp_path, conversations(60))
    with FakeServer(ttft_ms=1, gap_ms=0, dialect="openai_completions", prefix_cache=True) as server:
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, scenario(server.url))))
    assert done.good, done.err + done.out
    (result,) = done.results()
    assert result.implied is not None
    assert 0.4 < result.implied.low <= result.implied.high < 0.95
    assert result.cached_share == pytest.approx(result.implied.high, abs=0.03)
    assert "prefix_hits" not in {doubt.code for doubt in result.summary.doubts}


def test_a_replay_ends_with_its_window(tmp_path: Path):
    put(tmp_path, conversations(40, gap_ms=25))
    with FakeServer(ttft_ms=2, gap_ms=0, dialect="openai_completions") as server:
        text = scenario(server.url, load="arrival: trace, warmup_s: 0.2, window_s: 0.4")
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    records = done.records(done.attempts()[0])
    assert 0 < len(records) < 40
    assert max(record.t_sched for record in records) < 0.6
    assert all(record.t_sched < 0.2 for record in records if record.phase == "warmup")
    assert all(record.t_send >= 0.2 for record in records if record.phase == "measure")


# The schedule ---------------------------------------------------------------------------------------------------------


def test_the_times_of_a_trace_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = conversations(10)
    put(tmp_path, rows)
    monkeypatch.chdir("/")
    words = {"prompts": "trace", "path": "t.jsonl", "format": "mooncake", "scale": 2.0}
    shape = shape_of(Load(arrival="trace"), Workload.model_validate(words), tmp_path)
    assert shape.arrival is not None
    assert list(shape.arrival.timestamps) == pytest.approx([row["timestamp"] / 2e3 for row in rows])
    (tmp_path / "times.txt").write_text("0\n0.5\n")
    replay = shape_of(Load(timestamps="times.txt"), None, tmp_path).arrival
    assert replay is not None
    assert replay.timestamps == (0, 0.5)


def test_a_plan_and_a_nights_budget_take_as_long_as_the_trace_whatever_folder_they_are_made_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = conversations(30, gap_ms=2000)
    put(tmp_path, rows)
    found = load_scenario(write_scenario(tmp_path, scenario("http://127.0.0.1:9"))).scenario
    monkeypatch.chdir("/")
    plan = make_plan(found, expand(found), tmp_path)
    assert plan.estimate_s == pytest.approx(rows[-1]["timestamp"] / 1e3 + AROUND_S)
    assert seconds_of(found, expand(found), 1.0, tmp_path) == plan.estimate_s
    assert (
        plan.cells[0].digest != make_plan(found, expand(found.model_copy(update={"seed": 2})), tmp_path).cells[0].digest
    )


@given(
    at=st.lists(st.floats(0, 100), min_size=1, max_size=60).map(sorted),
    workers=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_the_shares_of_a_replay_are_the_replay(at, workers, seed):
    arrival = Arrival(kind="timestamps", timestamps=tuple(at))
    parts = [pair for worker in range(workers) for pair in share(arrival, seed, worker, workers)]
    assert sorted(parts) == list(enumerate(at))
    shape = Shape(arrival=arrival, warmup_s=0.0)
    whole = sum(digest(shape, seed, worker, workers) for worker in range(workers)) % (1 << 64)
    assert whole == digest(shape, seed, 0, 1)


# What is implied ------------------------------------------------------------------------------------------------------

beginnings = st.lists(st.lists(st.tuples(st.integers(0, 3), st.just(8)), max_size=4), min_size=1, max_size=12)


@given(prompts=beginnings, tails=st.lists(st.integers(1, 8), min_size=12, max_size=12))
def test_what_prompts_share_is_the_longest_beginning_that_an_earlier_one_has(prompts, tails):
    """Against the tokens themselves: a block is written out, and the last is cut."""
    asked = [
        [*blocks[:-1], (blocks[-1][0], tail)] if blocks else [] for blocks, tail in zip(prompts, tails, strict=False)
    ]
    seen, written = Prefixes(), []
    for blocks in asked:
        tokens = [(block, place) for block, count in blocks for place in range(count)]
        best = 0
        for other in written:
            same = next(
                (i for i, (a, b) in enumerate(zip(tokens, other, strict=False)) if a != b), min(len(tokens), len(other))
            )
            best = max(best, same)
        shared = seen.take(blocks)
        assert shared <= best
        assert shared >= best // 8 * 8
        written.append(tokens)


def test_hits_are_whole_blocks_and_never_the_whole_prompt():
    assert [hit(shared, 100, 16) for shared in (0, 15, 16, 99, 100)] == [0, 0, 16, 96, 96]
    assert hit(64, 64, 16) == 48
    assert hit(64, 65, 16) == 64


def test_a_pool_of_prefixes_implies_its_share():
    settings = {"input_tokens": 100, "vocab_size": 900, "prefix": {"pool": 10, "tokens": 64, "share": 0.8}}
    source = synthetic.open(settings, Context(seed=1, ask_tok=1))
    seen = Prefixes()
    shared = sum(seen.take(source.outline(i).blocks) for i in range(4000)) / (4000 * 100)
    assert shared == pytest.approx(0.8 * 0.64, abs=0.015)
    prompts = [source.session(i)[0].token_ids for i in range(500)]
    begun = [ids[:64] for i, ids in enumerate(prompts) if source.outline(i).blocks]
    assert len(set(begun)) == 10
    assert len(begun) / 500 == pytest.approx(0.8, abs=0.06)
    assert len(set(prompts)) == 500


def test_pools_of_system_messages_are_said_before_the_question():
    settings = {"kind": "words", "words": 5, "prefix": {"pool": 3, "words": 7}}
    source = synthetic.open(settings, Context(seed=1, ask_tok=1))
    asked = [source.session(i)[0].messages for i in range(60)]
    assert {tuple(message.role for message in messages) for messages in asked} == {("system", "user")}
    assert len({messages[0].content for messages in asked}) == 3
    assert {len(messages[0].content.split()) for messages in asked} == {7}
    raw = synthetic.open({**settings, "raw": True}, Context(seed=1, ask_tok=1)).session(0)[0]
    assert len(raw.text.split()) == 12


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prefix": {"tokens": 100}}, r"prefix\.tokens: 100 leaves nothing of its own to a prompt of 100 tokens"),
        ({"prefix": {"words": 3}}, r"workload\.prefix: a prefix of kind: ids is so many tokens"),
        ({"prefix": {"pool": 0, "tokens": 3}}, r"workload\.prefix\.pool: expected a whole number >= 1"),
        ({"prefix": {"tokens": 3, "share": 1.5}}, r"workload\.prefix\.share: expected a number <= 1"),
        ({"prefix": {"tokens": 3}, "shared_prefix_tokens": 4}, r"shared_prefix_tokens says the same of a pool of one"),
    ],
)
def test_prefixes_that_cannot_be_are_sentences(settings: dict, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        synthetic.open({"input_tokens": 100, "vocab_size": 900, **settings}, Context(seed=1, ask_tok=1))


def test_a_share_outside_of_what_is_implied_is_doubted_and_one_within_is_not():
    found = Implied(low=0.4, high=0.6)
    source = synthetic.open({"input_tokens": 9, "vocab_size": 900}, Context(seed=1, ask_tok=1))
    assert [len(doubts(source, found, share)) for share in (None, 0.36, 0.38, 0.5, 0.62, 0.64)] == [0, 1, 0, 0, 0, 1]
    (few,) = doubts(source, found, 0.02)
    assert few.text.startswith("The workload implies that 40 to 60 % of the prompt tokens come from a prefix cache")
    assert "too small to hold them" in few.text
    assert doubts(source, None, 0.5) == []


def test_reports_hold_a_servers_hits_against_what_is_implied(tmp_path: Path):
    report = made(tmp_path)
    assert machines.PREFIX not in text.render(report, 160)
    first, *rest = report.cells
    implied = Implied(low=0.25, high=0.5, cache_block=32)
    target, *others = first.targets
    results = tuple(msgspec.structs.replace(result, implied=implied) for result in target.results if result)
    cell = msgspec.structs.replace(first, targets=(msgspec.structs.replace(target, results=results), *others))
    found = msgspec.structs.replace(report, cells=(cell, *rest))
    for shown in (text.render(found, 160), text.render(found, 80), markdown.render(found)):
        assert machines.PREFIX in shown
        assert "25.00 to 50.00" in shown
    (line,) = [line for line in text.render(found, 160).splitlines() if "25.00 to 50.00" in line]
    assert line.split()[-2:] == ["0.000", "32"]
    columns = csv_report.render([found]).splitlines()
    place = columns[0].split(",").index("implied_low")
    assert {row.split(",")[place] for row in columns[1:] if row.split(",")[place]} == {"0.25"}
