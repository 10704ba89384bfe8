"""Distributions of lengths: what is drawn has the moments, the ends and the counts that were asked for."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario_text import complaints, scenario

from loadgen.errors import UsageError
from loadgen.lengths import Draw, most, parse, read_lengths, words_of
from loadgen.workloads import Context
from loadgen.workloads.replies import open_source


def drawn(said: object, count: int = 20_000, seed: int = 1, folder: Path = Path()) -> list[int]:
    draw = Draw("w", parse("w", said), str(folder))
    return [draw.at(seed, "length", index) for index in range(count)]


def test_a_normal_length_has_its_mean_and_deviation():
    found = drawn({"normal": {"mean": 1000, "sd": 100}})
    assert statistics.mean(found) == pytest.approx(1000, abs=4)
    assert statistics.stdev(found) == pytest.approx(100, rel=0.02)


def test_the_moments_of_a_lognormal_length_are_those_of_the_lengths_themselves():
    found = drawn({"lognormal": {"mean": 600, "sd": 300}}, 50_000)
    assert statistics.mean(found) == pytest.approx(600, rel=0.015)
    assert statistics.stdev(found) == pytest.approx(300, rel=0.04)
    assert statistics.median(found) == pytest.approx(600 / (1 + 0.25) ** 0.5, rel=0.02)


def test_truncation_piles_nothing_up_at_the_ends():
    found = Counter(drawn({"normal": {"mean": 100, "sd": 30, "min": 80, "max": 120}}, 40_000))
    assert (min(found), max(found)) == (80, 120)
    middle = statistics.mean(found[length] for length in range(95, 106))
    assert found[80] < middle
    assert found[120] < middle
    assert found[80] == pytest.approx(found[120], rel=0.25)


def test_a_file_of_lengths_is_drawn_from_as_often_as_it_has_them(tmp_path: Path):
    (tmp_path / "l.txt").write_text("# lengths\n10\n10\n10\n\n400\n")
    found = Counter(drawn({"file": {"path": "l.txt"}}, folder=tmp_path))
    assert set(found) == {10, 400}
    assert found[10] / 20_000 == pytest.approx(0.75, abs=0.015)


@pytest.mark.parametrize("text", ["tokens,count\n10,3\n400,1\n", "10 3\n400 1\n", "10;1\n10;2\r\n400\n", "﻿10 3\n400\n"])
def test_a_histogram_is_read_with_any_of_the_usual_separators(tmp_path: Path, text: str):
    path = tmp_path / "h.csv"
    path.write_text(text, encoding="utf-8")
    assert read_lengths(path, "w") == {10: 3, 400: 1}


def test_a_histogram_can_be_truncated(tmp_path: Path):
    (tmp_path / "h.csv").write_text("1,100\n50,1\n60,1\n9000,100\n")
    found = Counter(drawn({"file": {"path": "h.csv", "min": 10, "max": 100}}, 2000, folder=tmp_path))
    assert set(found) == {50, 60}


said = st.one_of(
    st.integers(1, 10_000),
    st.tuples(st.integers(1, 500), st.integers(0, 500)).map(lambda t: {"uniform": {"min": t[0], "max": t[0] + t[1]}}),
    st.builds(
        lambda kind, mean, sd, low: {kind: {"mean": mean, "sd": sd, "min": low, "max": low + 5000}},
        st.sampled_from(["normal", "lognormal"]),
        st.floats(500, 4000),
        st.floats(50, 2000),
        st.integers(1, 400),
    ),
)


@given(said=said, seed=st.integers(0, 10**6), index=st.integers(0, 10**9))
def test_every_length_lies_within_its_ends_and_is_the_same_every_time(said, seed, index):
    draw = Draw("w", parse("w", said))
    length = draw.at(seed, "length", index)
    assert draw.shortest <= length <= draw.longest
    assert length == Draw("w", parse("w", said)).at(seed, "length", index)


def test_prompts_and_replies_are_drawn_apart():
    draw = Draw("w", parse("w", {"uniform": {"min": 1, "max": 1000}}))
    pairs = [(draw.at(1, "length", i), draw.at(1, "output", i)) for i in range(300)]
    assert abs(statistics.correlation(*zip(*pairs, strict=True))) < 0.2


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (0, r"^w: 0 is no length"),
        ("long", r"^w: 'long' is no length; write a number, or one of uniform, normal"),
        (True, r"^w: 'True' is no length"),
        ({}, r"^w: a distribution is exactly one of uniform, normal, lognormal, file"),
        ({"gamma": {"mean": 3}}, r"^w: object contains unknown field gamma; there are uniform"),
        ({"normal": {"mean": 5}}, r"^w\.normal: object missing required field sd"),
        ({"normal": {"mean": -5, "sd": 1}}, r"^w\.normal\.mean: expected float > 0"),
        ({"normal": {"mean": 5, "sd": 1, "sigma": 2}}, r"unknown field sigma"),
        ({"normal": {"mean": 5, "sd": 1}, "uniform": {"min": 1, "max": 2}}, r"exactly one of"),
        (
            {"normal": {"mean": 10, "sd": 1, "min": 500}},
            r"^w\.normal: next to nothing of mean 10 and sd 1 lies between",
        ),
        ({"uniform": {"min": 5, "max": 2}}, r"^w\.uniform: min 5 is above max 2"),
        ({"file": {"path": "none.txt"}}, r"^w\.file\.path: none\.txt cannot be read: No such file"),
    ],
)
def test_a_length_that_is_none_is_a_sentence(said: object, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        drawn(said)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10\nten\n", r"l\.txt:2: 'ten' is neither a length nor"),
        ("10\n-4\n", r"l\.txt:2: -4 \(x 1\) is no length"),
        ("10 2 3\n", r"l\.txt:1: '10 2 3' is neither"),
        ("10 0\n", r"l\.txt:1: 10 \(x 0\) is no length"),
        ("# nothing\n", r"l\.txt holds no length"),
        ("50\n", r"w\.file: l\.txt has no length from 100 to 200; its lengths go from 50 to 50"),
    ],
)
def test_a_damaged_file_of_lengths_names_its_line(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "l.txt").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        drawn({"file": {"path": "l.txt", "min": 100, "max": 200}}, folder=tmp_path)


def test_a_length_in_words():
    assert words_of(512) == "512"
    assert words_of({"lognormal": {"mean": 600, "sd": 900}}) == "lognormal mean 600 sd 900"


def test_the_longest_is_known_where_the_words_set_an_end():
    assert most(7) == 7
    assert most(parse("w", {"uniform": {"min": 1, "max": 9}})) == 9
    assert most(parse("w", {"normal": {"mean": 5, "sd": 1}})) is None


# Natural text ---------------------------------------------------------------------------------------------------------


def tokenizer(folder: Path) -> str:
    """A model's folder with a tokenizer that takes each byte for a token."""
    tokenizers = pytest.importorskip("tokenizers")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_natural_text_is_cut_to_its_length_and_no_two_prompts_begin_alike(tmp_path: Path):
    context = Context(seed=1, ask_tok=1, model_path=tokenizer(tmp_path))
    source = open_source("natural", {"input_tokens": {"uniform": {"min": 50, "max": 300}}, "langs": ["en"]}, context)
    prompts = [source.session(i)[0].token_ids for i in range(400)]
    assert {len(ids) for ids in prompts} <= set(range(50, 301))
    assert len({ids[:50] for ids in prompts}) == 400
    assert prompts == [source.session(i)[0].token_ids for i in range(400)]


def test_natural_text_that_is_longer_than_all_there_is_goes_round(tmp_path: Path):
    context = Context(seed=1, ask_tok=1, model_path=tokenizer(tmp_path))
    source = open_source("natural", {"input_tokens": 300_000, "tags": ["maths"]}, context)
    (prompt,) = source.session(5)
    size = source.describe()["ring_tokens"]
    assert len(prompt.token_ids) == 300_000 > 2 * size
    assert prompt.token_ids[size : 2 * size] == prompt.token_ids[:size]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, r"natural text of a stated length is cut by the model's tokenizer: it needs a local folder"),
        ({"raw": True}, r"workload\.raw means nothing beside input_tokens"),
        ({"as": "ids"}, r"workload\.as means nothing beside input_tokens"),
    ],
)
def test_natural_text_that_cannot_be_cut_is_a_sentence(settings: dict, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        open_source("natural", {"input_tokens": 9, **settings}, Context(seed=1, ask_tok=1))


# In a scenario --------------------------------------------------------------------------------------------------------


def test_replies_have_drawn_lengths_that_the_prompts_do_not_change():
    output = {"lognormal": {"mean": 50, "sd": 40, "max": 300}}
    context = Context(seed=7, ask_tok=0, exact=True, output=output)
    asked = []
    for settings in ({"input_tokens": 9, "vocab_size": 900}, {"input_tokens": 700, "vocab_size": 900}):
        source = open_source("synthetic", settings, context)
        asked.append([source.session(i)[0].ask_tok for i in range(200)])
        assert source.describe()["output"]["lognormal"]["max"] == 300
    assert asked[0] == asked[1]
    assert len(set(asked[0])) > 30
    assert max(asked[0]) <= 300
    assert all(source.session(i)[0].exact for i in range(3))


def test_a_line_that_states_its_own_length_keeps_it_unless_lengths_are_exact(tmp_path: Path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "output_tokens": 3}\n{"prompt": "b"}\n')
    for exact, kept in ((False, True), (True, False)):
        context = Context(
            seed=1, ask_tok=0, exact=exact, folder=str(tmp_path), output={"uniform": {"min": 50, "max": 60}}
        )
        source = open_source("jsonl", {"path": "p.jsonl", "order": "file"}, context)
        asked = [source.session(i)[0].ask_tok for i in range(2)]
        assert (asked[0] == 3) is kept
        assert 50 <= asked[1] <= 60


def test_an_output_may_be_a_number_a_distribution_or_the_traces(tmp_path: Path):
    text = (
        "schema: loadgen/v1\ntargets: {{a: {{engine: hf, model: a}}}}\n"
        "workload: {{prompts: trace, path: t, format: azure, output: {{{}}}}}\nload: {{concurrency: 1, window_s: 1}}\n"
    )
    for words, asked, longest in (
        ("exact: 8", {"ask_tok": 8, "exact": True, "output": None}, 8),
        (
            "max: {uniform: {min: 2, max: 9}}",
            {"ask_tok": 0, "exact": False, "output": {"uniform": {"min": 2, "max": 9}}},
            9,
        ),
        ("exact: trace", {"ask_tok": 0, "exact": True, "output": None}, None),
    ):
        output = scenario(tmp_path, text.format(words)).workload.output
        assert output.asked == asked
        assert output.most == longest


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("exact: 0", "x.yaml:3:46: workload.output.exact: must be at least 1, not 0"),
        ("exact: {normal: {mean: 3}}", "workload.output.exact: normal: object missing required field sd"),
        ("exact: none", "workload.output.exact: must be 'trace', not the text 'none'"),
        ("exact: trace", "workload.output: trace takes lengths from prompts: trace, and prompts is another source"),
    ],
)
def test_an_output_that_is_none_is_a_sentence(tmp_path: Path, words: str, sentence: str):
    text = (
        "schema: loadgen/v1\ntargets: {a: {engine: hf, model: a}}\n"
        f"workload: {{prompts: natural, output: {{{words}}}}}\nload: {{concurrency: 1, window_s: 1}}\n"
    )
    (said,) = complaints(tmp_path, text)
    assert sentence in said
