"""Readers of traces: what a format says comes out, what is damaged is named by its line, what is cut is counted."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import traces
from loadgen.errors import UsageError
from loadgen.traces import How, Row
from loadgen.traces.cut import Cut, Trace, cut
from loadgen.workloads import Context, trace

MOONCAKE = [
    {"timestamp": 0, "input_length": 1200, "output_length": 20, "hash_ids": [7, 8, 9]},
    {"timestamp": 1500, "input_length": 1024, "output_length": 5, "hash_ids": [7, 8]},
    {"timestamp": 1500, "input_length": 700, "output_length": 0, "hash_ids": [7, 30]},
    {"timestamp": 4000, "input_length": 300, "output_length": 9},
]
BURST_OLD = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
BURST_NEW = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def put(folder: Path, text: str, name: str = "t") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(path: Path, form: str, **how: object) -> list[Row]:
    return list(traces.load(form).rows(path, How(**how)))


def times(rows: list[Row]) -> list[int]:
    """Whole nanoseconds after the first row."""
    return [row.at_ns - rows[0].at_ns for row in rows]


def lengths(rows: list[Row]) -> list[tuple[int, int]]:
    return [(row.in_tok, row.out_tok) for row in rows]


# Formats --------------------------------------------------------------------------------------------------------------


def test_mooncakes_times_are_milliseconds_and_its_ids_are_kept(tmp_path: Path):
    rows = read(put(tmp_path, lines(*MOONCAKE)), "mooncake")
    assert times(rows) == [0, 1_500_000_000, 1_500_000_000, 4_000_000_000]
    assert lengths(rows) == [(1200, 20), (1024, 5), (700, 0), (300, 9)]
    assert [row.hash_ids for row in rows] == [(7, 8, 9), (7, 8), (7, 30), ()]


def test_a_timed_trace_of_vllm_has_seconds_and_blocks_of_sixteen_unless_it_is_said(tmp_path: Path):
    path = put(tmp_path, lines({"timestamp": 61.114, "input_length": 40, "output_length": 3, "hash_ids": [1, 2, 3]}))
    (row,) = read(path, "timed")
    assert (row.at_ns, row.in_tok, row.hash_ids) == (61_114_000_000, 40, (1, 2, 3))
    other = put(tmp_path, lines({"ts": 5, "prompt": 40, "reply": 3, "blocks": ["ab", "cd"]}), "u")
    named = {"time": "ts", "input": "prompt", "output": "reply", "hash_ids": "blocks"}
    (row,) = read(other, "timed", columns=named, time_unit="us", block_tokens=32)
    assert (row.at_ns, row.out_tok, len(set(row.hash_ids))) == (5000, 3, 2)


def test_azures_fractions_keep_their_seventh_digit(tmp_path: Path):
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951691,396,109\n2023-11-16 18:15:50.9951692,396,109\n"
    )
    rows = read(put(tmp_path, text), "azure")
    assert times(rows) == [0, 4_314_579_100, 4_314_579_200]
    assert lengths(rows)[0] == (374, 44)


def test_azures_newer_times_have_a_zone_and_no_fraction_at_the_full_second(tmp_path: Path):
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n"
        "2024-05-10 00:00:01+00:00,1,1\n2024-05-10T02:00:02+02:00,1,1\n2024-05-10 00:00:03Z,1,1\n"
    )
    assert times(read(put(tmp_path, text), "azure")) == [0, 990_070_000, 1_990_070_000, 2_990_070_000]


def test_both_forms_of_burstgpt_are_read_by_their_headings(tmp_path: Path):
    old = put(tmp_path, BURST_OLD + "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,0,1087,API log\n")
    new = put(
        tmp_path,
        BURST_NEW + "5,a,1.5,ChatGPT,472,18,490,Conversation log\n45,b,0,GPT-4,1087,0,1087,API log\n",
        "new",
    )
    assert lengths(read(old, "burstgpt")) == lengths(read(new, "burstgpt")) == [(472, 18), (1087, 0)]
    assert times(read(new, "burstgpt")) == [0, 40_000_000_000]
    assert lengths(read(new, "burstgpt", where={"Model": "GPT-4"})) == [(1087, 0)]


def test_a_table_of_ones_own_names_its_columns(tmp_path: Path):
    path = put(tmp_path, '"when (ms)",id,out,"in, tokens"\n10,x,3,7\n\n12.5,y,4.0,8\n')
    columns = {"time": "when (ms)", "input": "in, tokens", "output": "out"}
    rows = read(path, "csv", columns=columns, time_unit="ms")
    assert times(rows) == [0, 2_500_000]
    assert lengths(rows) == [(7, 3), (8, 4)]


def test_a_compressed_trace_is_read_as_what_it_holds(tmp_path: Path):
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(lines(*MOONCAKE).encode()))
    assert len(read(path, "mooncake")) == 4
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"t\.jsonl\.gz cannot be read: "):
        read(path, "mooncake")


GOOD = {"timestamp": 1, "input_length": 10, "output_length": 2}


@pytest.mark.parametrize(
    ("form", "text", "sentence"),
    [
        ("mooncake", lines(GOOD) + "{", r"t:2: not a JSON object: "),
        ("mooncake", lines(GOOD) + "[1]\n", r"t:2: not a JSON object"),
        (
            "mooncake",
            "\n" + lines({"timestamp": 1, "input_length": 10}),
            r"t:2: there is no 'output_length'; the line has",
        ),
        ("mooncake", lines({**GOOD, "timestamp": "noon"}), r"t:1: timestamp is 'noon', not a time in ms"),
        ("mooncake", lines({**GOOD, "input_length": -1}), r"t:1: input_length is -1; a number of tokens is from 0"),
        ("mooncake", lines({**GOOD, "input_length": 2.5}), r"t:1: input_length is 2\.5, not a whole number"),
        (
            "mooncake",
            lines({**GOOD, "hash_ids": [1, 2]}),
            r"t:1: 2 hash_ids of 512 tokens for a prompt of 10, which has 1",
        ),
        ("mooncake", lines({**GOOD, "hash_ids": "1"}), r"t:1: hash_ids is no list of ids"),
        ("mooncake", lines({**GOOD, "hash_ids": [True]}), r"t:1: hash_ids is no list of ids"),
        (
            "azure",
            "TIMESTAMP,ContextTokens\n",
            r"t:1: there is no column 'GeneratedTokens'; there are: TIMESTAMP, Context",
        ),
        ("azure", "TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,1\n", r"t:2: TIMESTAMP is 'soon', not a time in s"),
        (
            "azure",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-16 18:15:46.1,1,1\n",
            r"t:2: TIMESTAMP is .* no moment",
        ),
        (
            "azure",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.1,1\n",
            r"t:2: the line has 2 fields, and 3",
        ),
        ("azure", "", r"t:1: there is no column 'TIMESTAMP'; there are: none"),
        (
            "burstgpt",
            BURST_OLD + "5,ChatGPT,many,18,490,Conversation log\n",
            r"t:2: Request tokens is 'many', not a whole",
        ),
        ("burstgpt", BURST_OLD + "inf,ChatGPT,1,18,490,Conversation log\n", r"t:2: Timestamp is inf, not a time"),
        ("burstgpt", BURST_OLD + '5,"ChatGPT,1,18,490,Conversation log\n', r"t:\d: no CSV: "),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, form: str, text: str, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        read(put(tmp_path, text), form)


def test_bytes_that_are_no_text_are_a_sentence(tmp_path: Path):
    path = tmp_path / "t"
    path.write_bytes(BURST_OLD.encode() + b"5,\xff\xfe,1,18,490,log\n")
    with pytest.raises(UsageError, match="no CSV"):
        read(path, "burstgpt")
    with pytest.raises(UsageError, match="t:1: not a JSON object"):
        read(path, "mooncake")


@given(text=st.text(max_size=200), form=st.sampled_from(["mooncake", "timed", "azure", "burstgpt"]))
def test_no_text_whatever_ends_in_anything_but_rows_or_a_sentence(tmp_path_factory, text, form):
    path = put(tmp_path_factory.mktemp("t"), text)
    try:
        found = read(path, form)
    except UsageError as error:
        found, said = [], str(error)
        assert str(path) in said
    assert all(row.in_tok >= 0 and row.out_tok >= 0 for row in found)


def test_an_unknown_format_names_the_nearest_and_all():
    with pytest.raises(
        UsageError, match=r"'moncake' is not known; did you mean 'mooncake'\? There are: azure, burstgpt"
    ):
        traces.load("moncake")


def test_csv_says_which_columns_it_lacks(tmp_path: Path):
    with pytest.raises(UsageError, match=r"workload\.columns: format: csv needs the heading of input and output"):
        read(put(tmp_path, "a\n1\n"), "csv", columns={"time": "a"})
    with pytest.raises(UsageError, match=r"workload\.columns\.when: a trace has no 'when'; it has time, input"):
        read(put(tmp_path, "a\n1\n"), "timed", columns={"when": "a"})


# Cutting --------------------------------------------------------------------------------------------------------------


def rows_at(*seconds: float, in_tok: int = 10, out_tok: int = 5) -> list[Row]:
    return [Row(round(at * 1e9), in_tok, out_tok, (), line) for line, at in enumerate(seconds, 1)]


def test_a_cut_counts_its_seconds_from_the_first_row_and_its_replay_from_the_cut():
    found = cut(rows_at(100, 101, 103, 110, 111), Cut(from_s=2, to_s=11), "t")
    assert found.offsets() == [1.0, 8.0]
    assert found.dropped == {"outside of the cut": 3}


def test_scale_makes_time_run_faster():
    assert cut(rows_at(5, 6, 9), Cut(scale=2), "t").offsets() == [0, 0.5, 2.0]
    assert cut(rows_at(5, 6, 9), Cut(scale=0.5), "t").offsets() == [0, 2.0, 8.0]


def test_rows_that_are_not_in_order_are_put_into_it_before_the_first_are_taken():
    rows = [row._replace(in_tok=10 * row.line) for row in rows_at(5, 3, 9, 4)]
    found = cut(rows, Cut(first=3), "t")
    assert found.offsets() == [0, 1, 2]
    assert list(found.in_tok) == [20, 40, 10]


def test_no_more_is_read_than_is_taken():
    endless = (Row(i * 10**9, 10, 5, (), i) for i in itertools.count())
    assert len(cut(endless, Cut(first=7), "t")) == 7


def test_failures_are_left_out_and_counted_or_asked_for_one_token():
    rows = [*rows_at(0, 1), Row(2 * 10**9, 10, 0, (), 3), Row(3 * 10**9, 0, 7, (), 4)]
    dropped = cut(rows, Cut(), "t")
    assert (len(dropped), dropped.dropped) == (2, {"without a reply": 1, "without a prompt": 1})
    kept = cut(rows, Cut(failures="keep"), "t")
    assert (list(kept.out_tok), kept.dropped) == ([5, 5, 1], {"without a prompt": 1})


def test_what_is_too_long_is_refused_with_its_line_clipped_or_left_out():
    rows = [*rows_at(0), Row(10**9, 90, 20, (), 2), Row(2 * 10**9, 10, 300, (), 3)]
    with pytest.raises(
        UsageError, match=r"t:2: 90 tokens of prompt and 20 of reply .* so are those of 1 other .* clip"
    ):
        cut(rows, Cut(max_model_len=100), "t")
    clipped = cut(rows, Cut(max_model_len=100, too_long="clip"), "t")
    assert list(zip(clipped.in_tok, clipped.out_tok, strict=True)) == [(10, 5), (80, 20), (1, 99)]
    assert clipped.clipped == 2
    left = cut(rows, Cut(max_model_len=100, too_long="drop"), "t")
    assert (len(left), left.dropped) == (1, {"too long": 2})


@pytest.mark.parametrize(
    ("rows", "how", "sentence"),
    [
        ([], Cut(), "t holds no request"),
        (rows_at(0, out_tok=0), Cut(), r"t: of 1 requests none is left \(1 without a reply\)"),
        (rows_at(0, 1), Cut(from_s=50), r"none is left \(2 outside of the cut\); widen the cut"),
    ],
)
def test_a_trace_of_which_nothing_is_left_is_a_sentence(rows: list[Row], how: Cut, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        cut(rows, how, "t")


@given(
    at=st.lists(st.integers(0, 10**12), min_size=1, max_size=40),
    first=st.none() | st.integers(1, 50),
    scale=st.floats(0.01, 100),
)
def test_a_replay_is_in_order_begins_at_its_start_and_loses_nothing_uncounted(at, first, scale):
    rows = [Row(time, 1 + number, 1, (number,), number) for number, time in enumerate(at)]
    found = cut(rows, Cut(first=first, scale=scale), "t")
    offsets = found.offsets()
    assert offsets == sorted(offsets)
    assert offsets[0] == 0
    assert len(found) + found.dropped.total() == found.total
    assert all(list(found.hash_ids(row)) == [found.in_tok[row] - 1] for row in range(len(found)))


# As a source ----------------------------------------------------------------------------------------------------------


def source(folder: Path, seed: int = 1, ask_tok: int = 0, **settings: object) -> trace.TraceSource:
    put(folder, lines(*MOONCAKE))
    words = {"path": "t", "format": "mooncake", "vocab_size": 5000, "failures": "keep", **settings}
    return trace.open(words, Context(seed=seed, ask_tok=ask_tok, exact=True, folder=str(folder)))


def test_equal_hash_ids_are_equal_tokens_and_a_partial_block_is_the_beginning_of_the_whole(tmp_path: Path):
    found = source(tmp_path)
    first, second, third, last = (found.session(i)[0].token_ids for i in range(4))
    assert [len(ids) for ids in (first, second, third, last)] == [1200, 1024, 700, 300]
    assert first[:1024] == second
    assert first[:512] == third[:512]
    assert first[512:700] != third[512:]
    clipped = source(tmp_path, max_model_len=900, too_long="clip").session(0)[0].token_ids
    assert clipped == first[:880]


def test_every_request_asks_for_what_the_trace_says_or_for_what_the_scenario_does(tmp_path: Path):
    assert [source(tmp_path).session(i)[0].ask_tok for i in range(4)] == [20, 5, 1, 9]
    assert {source(tmp_path, ask_tok=64).session(i)[0].ask_tok for i in range(4)} == {64}


def test_a_seed_repeats_a_trace_to_the_byte_and_another_shares_nothing_with_it(tmp_path: Path):
    same = [[source(tmp_path, seed).session(i)[0].token_ids for i in range(8)] for seed in (1, 1, 2)]
    assert same[0] == same[1]
    assert all(a[:20] != b[:20] for a, b in zip(same[0], same[2], strict=True))


def test_a_second_pass_shares_among_itself_as_the_first_does_and_nothing_with_it(tmp_path: Path):
    found = source(tmp_path)
    before, after = ([found.session(4 * lap + i)[0].token_ids for i in range(3)] for lap in (0, 1))
    assert after[0][:1024] == after[1]
    assert before[0][:16] != after[0][:16]


def test_an_outline_is_what_the_prompt_turns_out_to_be(tmp_path: Path):
    found = source(tmp_path)
    for i in range(9):
        outline, prompt = found.outline(i), found.session(i)[0]
        assert (outline.in_tok, outline.ask_tok) == (prompt.in_tok_client, prompt.ask_tok)
        assert sum(tokens for _, tokens in outline.blocks) <= outline.in_tok


def test_the_description_names_the_file_and_counts_what_was_left_out(tmp_path: Path):
    told = source(tmp_path, failures="drop").describe()
    assert json.loads(json.dumps(told)) == told
    assert told["dropped"] == {"without a reply": 1}
    assert (told["size"], told["read"], told["format"], len(told["sha256"])) == (3, 4, "mooncake", 64)


def test_what_is_not_sent_as_it_stands_is_a_doubt_and_the_part_that_was_asked_for_is_none(tmp_path: Path):
    (doubt,) = source(tmp_path, failures="drop", max_model_len=1020, too_long="clip").doubts()
    assert doubt.text.startswith("Of 4 requests that were read from the trace, 1 left out without a reply and 2 cut to")
    (doubt,) = source(tmp_path, max_model_len=1020, too_long="drop").doubts()
    assert "2 left out as too long" in doubt.text
    assert source(tmp_path, first=1).doubts() == source(tmp_path, to_s=2).doubts() == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"format": "mooncakes"}, r"workload\.format: 'mooncakes' is not known; did you mean 'mooncake'"),
        ({"scale": 0}, r"workload\.scale: expected a number >= 0.001"),
        ({"time_unit": "h"}, r"workload\.time_unit: 'h' is not known; did you mean 's'\?|There are: s, ms"),
        ({"failures": "ignore"}, r"workload\.failures: 'ignore' is not known; did you mean"),
        ({"first": 0}, r"workload\.first: expected a whole number >= 1"),
        ({"time_units": "s"}, r"workload\.time_units: prompts: trace has no such setting; did you mean 'time_unit'"),
        ({"path": "nowhere"}, r"workload\.path: .*nowhere does not exist"),
    ],
)
def test_settings_that_cannot_be_used_are_sentences(tmp_path: Path, settings: dict, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        source(tmp_path, **settings)


def test_the_columns_of_a_trace_take_little_memory():
    found = Trace()
    for i in range(1000):
        found.add(Row(i, 1, 1, (), i))
    held = sum(len(memoryview(column).cast("B")) for column in vars(found).values() if hasattr(column, "typecode"))
    assert held <= 40 * 1000
