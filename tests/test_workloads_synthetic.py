"""Random prompts of a stated length: exactly that length, from allowed ids only, the same on every machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.errors import UsageError
from loadgen.workloads import Context, synthetic


def opened(folder: Path | None = None, seed: int = 1, **settings: object) -> synthetic.Ids | synthetic.Words:
    model_path = None if folder is None else str(folder)
    return synthetic.open(settings, Context(seed=seed, ask_tok=16, model_path=model_path, template="client"))


def ids(source: synthetic.Ids | synthetic.Words, index: int) -> tuple[int, ...]:
    found = source.session(index)[0].token_ids
    assert found is not None
    return found


@given(length=st.integers(1, 300), index=st.integers(0, 10**9), seed=st.integers(0, 10**6))
def test_a_prompt_has_exactly_as_many_ids_as_asked_and_says_so(length, index, seed):
    (prompt,) = opened(seed=seed, input_tokens=length, vocab_size=1000).session(index)
    assert len(prompt.token_ids) == prompt.in_tok_client == length
    assert all(256 <= token < 1000 for token in prompt.token_ids)


def test_one_token_is_a_prompt():
    assert len(ids(opened(input_tokens=1, vocab_size=500), 0)) == 1


def test_sessions_differ_and_a_seed_repeats_them():
    first = [ids(opened(input_tokens=20, vocab_size=9999), i) for i in range(50)]
    assert len(set(first)) == 50
    assert first == [ids(opened(input_tokens=20, vocab_size=9999), i) for i in range(50)]
    assert first != [ids(opened(seed=2, input_tokens=20, vocab_size=9999), i) for i in range(50)]


def test_the_ids_are_the_same_on_every_machine():
    assert ids(opened(input_tokens=5, vocab_size=32000), 3) == (8118, 25834, 1949, 12648, 1306)


def test_all_allowed_ids_are_drawn():
    assert set(ids(opened(input_tokens=5000, vocab_size=356), 0)) == set(range(256, 356))


def test_a_shared_prefix_is_shared_and_the_rest_is_not():
    source = opened(input_tokens=30, vocab_size=9999, shared_prefix_tokens=20)
    prompts = [ids(source, i) for i in range(20)]
    assert len({prompt[:20] for prompt in prompts}) == 1
    assert len({prompt[20:] for prompt in prompts}) == 20
    assert {len(prompt) for prompt in prompts} == {30}


def test_uniform_lengths_reach_both_ends_and_stay_within_them():
    source = opened(input_tokens={"uniform": {"min": 3, "max": 6}}, vocab_size=999)
    assert {len(ids(source, i)) for i in range(200)} == {3, 4, 5, 6}


def model(folder: Path, config: dict | None = None, tokenizer: dict | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config or {}))
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_the_vocabulary_comes_from_the_models_config(tmp_path):
    assert opened(model(tmp_path, {"vocab_size": 300}), input_tokens=1).describe()["ids"]["last"] == 299
    assert (
        opened(model(tmp_path, {"text_config": {"vocab_size": 290}}), input_tokens=1).describe()["ids"]["last"] == 289
    )


@pytest.mark.parametrize("listed", [False, True])
def test_added_tokens_and_ids_that_the_tokenizer_lacks_are_not_drawn(tmp_path, listed):
    vocabulary = [[f"t{i}", -1.0] for i in range(300)] if listed else {f"t{i}": i for i in range(300)}
    added = [{"id": 260, "content": "<|im_end|>", "special": True}, {"id": 300, "content": "<tool>", "special": False}]
    folder = model(tmp_path, {"vocab_size": 512}, {"model": {"type": "x", "vocab": vocabulary}, "added_tokens": added})
    found = set(ids(opened(folder, input_tokens=4000), 0))
    assert found == set(range(256, 300)) - {260}


def test_a_broken_tokenizer_file_is_a_sentence(tmp_path):
    folder = model(tmp_path, {"vocab_size": 512})
    (folder / "tokenizer.json").write_text('{"model": {"vocab": 3}}')
    with pytest.raises(
        UsageError, match=r"tokenizer\.json cannot be used: model\.vocab: expected .* fetch the model's"
    ):
        opened(folder, input_tokens=1)


@given(count=st.integers(1, 200), index=st.integers(0, 10**6))
def test_words_are_as_many_as_asked(count, index):
    source = synthetic.open({"kind": "words", "words": count}, Context(seed=1, ask_tok=16))
    (prompt,) = source.session(index)
    assert [message.role for message in prompt.messages] == ["user"]
    assert len(prompt.messages[0].content.split()) == count
    assert prompt.in_tok_client is None


def test_raw_words_are_text():
    (prompt,) = opened(kind="words", words=7, raw=True).session(0)
    assert len(prompt.text.split()) == 7
    assert prompt.messages is None


def test_the_words_are_distinct_and_plain():
    words = synthetic.WORDS.split()
    assert len(set(words)) == len(words) >= 256
    assert all(word.isascii() and word.islower() and word.isalpha() for word in words)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, r"workload\.input_tokens is missing: kind: ids needs the length of a prompt\."),
        ({"kind": "words"}, r"workload\.words is missing"),
        ({"kind": "idz"}, r"workload\.kind: 'idz' is not known; did you mean 'ids'\?"),
        ({"input_token": 3}, r"workload\.input_token: .* no such setting; did you mean 'input_tokens'\?"),
        ({"input_tokens": 0}, r"workload\.input_tokens: expected a whole number >= 1\."),
        (
            {"input_tokens": True, "vocab_size": 999},
            r"workload\.input_tokens: expected a whole number .*not true or false",
        ),
        ({"input_tokens": 2.5}, r"workload\.input_tokens: expected a whole number"),
        ({"input_tokens": {"norm": {}}}, r"workload\.input_tokens: there can be no norm\."),
        ({"input_tokens": {"uniform": {"min": 3}}}, r"workload\.input_tokens\.uniform: it needs max\."),
        ({"input_tokens": {"uniform": {"min": 5, "max": 2}}}, r"input_tokens\.uniform: min 5 is above max 2; exchange"),
        ({"input_tokens": 4}, r"workload\.vocab_size is missing and the model has no local folder"),
        ({"input_tokens": 4, "vocab_size": 256}, r"there are 0 token ids to draw from: .* lower first_id\."),
        ({"input_tokens": 4, "vocab_size": 999, "words": 3}, r"workload\.words belongs to kind: words"),
        ({"kind": "words", "words": 3, "input_tokens": 4}, r"workload\.input_tokens belongs to kind: ids"),
        ({"kind": "words", "words": 3, "vocab_size": 4}, r"workload\.vocab_size belongs to kind: ids"),
        ({"input_tokens": 4, "vocab_size": 999, "as": "ids"}, r"workload\.as belongs to kind: words"),
        (
            {"input_tokens": {"uniform": {"min": 4, "max": 9}}, "vocab_size": 999, "shared_prefix_tokens": 4},
            r"workload\.shared_prefix_tokens: 4 leaves nothing of its own to a prompt of 4 tokens",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_sentences(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        synthetic.open(settings, Context(seed=1, ask_tok=16))


def test_a_model_without_a_vocabulary_size_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"workload\.vocab_size is missing and .*config\.json does not say it"):
        opened(model(tmp_path), input_tokens=4)


def test_a_small_vocabulary_can_be_used_with_a_lower_first_id():
    assert set(ids(opened(input_tokens=500, vocab_size=8, first_id=4), 0)) == {4, 5, 6, 7}


def test_the_description_can_be_written_as_json():
    for settings in (
        {"input_tokens": {"uniform": {"min": 1, "max": 2}}, "vocab_size": 999},
        {"kind": "words", "words": 3},
    ):
        told = synthetic.open(settings, Context(seed=1, ask_tok=16)).describe()
        assert json.loads(json.dumps(told)) == told
