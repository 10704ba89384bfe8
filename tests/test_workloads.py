"""What every source of prompts promises, the order of prompts, and the prompts that ship."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import workloads
from loadgen.errors import UsageError
from loadgen.record import Message
from loadgen.workloads import Context
from loadgen.workloads.order import place

CONTEXT = Context(seed=7, ask_tok=16)


def lines() -> list[dict]:
    text = resources.files("loadgen.workloads").joinpath("natural.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def question(line: dict) -> str:
    return line["messages"][-1]["content"]


# The folder -----------------------------------------------------------------------------------------------------------


def test_every_listed_name_can_be_opened_and_every_shared_file_cannot():
    assert {"jsonl", "mix", "natural", "sharegpt", "synthetic", "trace"} <= set(workloads.names())
    for module in pkgutil.iter_modules(workloads.__path__):
        found = importlib.import_module(f"loadgen.workloads.{module.name}")
        assert hasattr(found, "open") == (module.name in workloads.names())


def test_an_unknown_workload_names_the_nearest_and_all():
    with pytest.raises(
        UsageError, match=r"'natrual' does not exist; did you mean 'natural'\? There are: .*jsonl, .*natural"
    ):
        workloads.load("natrual")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tag": ["chat"]}, r"workload\.tag: prompts: natural has no such setting; did you mean 'tags'\?"),
        ({"tags": "chat"}, r"workload\.tags: expected a list or nothing, not text\."),
        ({"tags": ["chatt"]}, r"workload\.tags: 'chatt' is not known; did you mean 'chat'\?"),
        ({"langs": ["de"]}, r"workload\.langs: 'de' is not known; did you mean '..'\? There are: en, zh\."),
        ({"langs": []}, r"natural has no prompt with tags None and langs \[\]; leave one out\."),
        ({"as": "token"}, r"workload\.as: 'token' is not known; .*There are: text, ids\."),
        ({"as": "ids"}, r"workload\.as: ids needs chat messages and template: client"),
    ],
)
def test_a_setting_that_cannot_be_used_is_a_sentence(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        workloads.load("natural").open(settings, CONTEXT)


def test_opening_a_workload_loads_neither_jinja_nor_tokenizers():
    code = (
        "import sys; from loadgen import workloads\n"
        "workloads.load('natural').open({}, workloads.Context(seed=1, ask_tok=1)).session(0)\n"
        "print(*sorted({'jinja2', 'tokenizers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# Order ----------------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 700), seed=st.integers(), lap=st.integers(0, 5))
def test_a_pass_over_the_prompts_uses_each_exactly_once(size, seed, lap):
    assert sorted(place(lap * size + step, size, seed) for step in range(size)) == list(range(size))


def test_another_pass_and_another_seed_have_another_order():
    first = [place(i, 100, 1) for i in range(100)]
    assert first != [place(100 + i, 100, 1) for i in range(100)]
    assert first != [place(i, 100, 2) for i in range(100)]
    assert first != list(range(100))


@pytest.mark.parametrize("size", [2, 5, 240])
def test_every_prompt_comes_first_about_equally_often(size):
    seeds = 200 * size
    counts = [0] * size
    for seed in range(seeds):
        counts[place(0, size, seed)] += 1
    # chi-squared with size - 1 degrees of freedom: mean size - 1, standard deviation sqrt(2 (size - 1))
    chi2 = sum((count - 200) ** 2 / 200 for count in counts)
    assert chi2 < size - 1 + 5 * (2 * (size - 1)) ** 0.5


def test_the_order_is_the_same_on_every_machine():
    assert [place(i, 240, 1) for i in range(6)] == [147, 123, 36, 0, 218, 81]


def test_the_order_of_a_file_can_be_kept():
    assert [place(i, 3, 1, "file") for i in range(5)] == [0, 1, 2, 0, 1]


# Sessions -------------------------------------------------------------------------------------------------------------


def sha_lines(hash_seed: str) -> str:
    code = (
        "from loadgen import workloads as w\n"
        "c = w.Context(seed=3, ask_tok=8)\n"
        "for n, s in (('natural', {}), ('synthetic', {'input_tokens': 40, 'vocab_size': 5000}),\n"
        "             ('synthetic', {'kind': 'words', 'words': {'uniform': {'min': 1, 'max': 9}}})):\n"
        "    source = w.load(n).open(s, c)\n"
        "    print([source.session(i)[0].sha() for i in (5, 0, 3, 250)])\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def test_two_processes_with_different_hash_seeds_make_the_same_prompts():
    assert sha_lines("1") == sha_lines("2")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("natural", {}),
        ("synthetic", {"input_tokens": 8, "vocab_size": 999}),
        ("synthetic", {"kind": "words", "words": 3}),
    ],
)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_shares_of_the_workers_together_are_what_one_worker_asks(name, settings, workers):
    source = workloads.load(name).open(settings, CONTEXT)
    alone = [source.session(i) for i in range(300)]
    shared = {}
    for worker in reversed(range(workers)):
        own = workloads.load(name).open(settings, CONTEXT)
        shared |= {i: own.session(i) for i in range(worker, 300, workers)}
    assert [shared[i] for i in range(300)] == alone


# The shipped prompts --------------------------------------------------------------------------------------------------


def test_there_are_at_least_200_prompts_in_both_languages_and_all_five_tags():
    found = lines()
    assert len(found) >= 200
    kinds = {(line["lang"], line["tag"]) for line in found}
    assert kinds == {(lang, tag) for lang in ("en", "zh") for tag in ("chat", "code", "maths", "summarise", "continue")}
    assert 0.5 < sum(line["lang"] == "en" for line in found) / len(found) < 0.7
    assert any(line["messages"][0]["role"] == "system" for line in found)


def test_ids_are_unique_and_say_language_and_tag():
    found = lines()
    assert len({line["id"] for line in found}) == len(found)
    assert all(line["id"].startswith(f"{line['lang']}-{line['tag']}-") for line in found)


def test_no_two_prompts_begin_alike_and_none_repeats_another():
    found = lines()
    assert len({question(line)[:60] for line in found}) == len(found)
    pieces = [({q[i : i + 12] for i in range(len(q) - 11)}, line["id"]) for line in found if (q := question(line))]
    pieces = [(piece, name) for piece, name in pieces if len(piece) > 30]
    alike = [
        (a, b)
        for i, (one, a) in enumerate(pieces)
        for other, b in pieces[i + 1 :]
        if len(one & other) > 0.2 * min(len(one), len(other))
    ]
    assert alike == []


def test_english_passages_to_summarise_have_80_to_400_words():
    passages = [
        question(line).split("\n\n", 1)[1] for line in lines() if (line["lang"], line["tag"]) == ("en", "summarise")
    ]
    lengths = [len(passage.split()) for passage in passages]
    assert len(lengths) >= 15
    assert min(lengths) >= 80
    assert max(lengths) <= 400


def test_chinese_prompts_are_written_in_chinese_and_english_ones_are_not():
    for line in lines():
        chinese = sum("\u4e00" <= character <= "\u9fff" for character in question(line))
        assert chinese >= 5 if line["lang"] == "zh" else chinese == 0, line["id"]


def test_natural_sends_messages_with_the_number_of_tokens_that_the_scenario_asks():
    (prompt,) = workloads.load("natural").open({}, Context(seed=1, ask_tok=33, exact=True)).session(4)
    assert (prompt.source, prompt.ask_tok, prompt.exact) == ("natural", 33, True)
    assert prompt.messages
    assert all(isinstance(message, Message) for message in prompt.messages)
    assert prompt.text is None


def test_raw_natural_prompts_are_the_text_of_their_messages():
    told, raw = (workloads.load("natural").open({"raw": raw}, CONTEXT) for raw in (False, True))
    for i in range(told.size):
        (prompt,) = raw.session(i)
        assert prompt.messages is None
        assert prompt.text == "\n\n".join(message.content for message in told.session(i)[0].messages)


def test_tags_and_langs_narrow_the_set_and_the_description_says_so():
    source = workloads.load("natural").open({"tags": ["code", "maths"], "langs": ["zh"]}, CONTEXT)
    told = source.describe()
    assert set(told["tags"]) == {"code", "maths"}
    assert set(told["langs"]) == {"zh"}
    assert told["size"] == source.size == sum(told["tags"].values())
    wanted = {question(line) for line in lines() if line["lang"] == "zh" and line["tag"] in ("code", "maths")}
    assert {source.session(i)[0].messages[-1].content for i in range(source.size)} == wanted


def test_the_description_can_be_written_as_json_and_names_the_data():
    told = workloads.load("natural").open({}, CONTEXT).describe()
    assert json.loads(json.dumps(told)) == told
    assert len(told["sha256"]) == 64
    assert told["template"] == "server"
