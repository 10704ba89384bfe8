"""Prompts from files of the user's: what is read, what is refused and where, what stays in memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.errors import UsageError
from loadgen.record import Message
from loadgen.workloads import Context, jsonl, sharegpt

CONTEXT = Context(seed=1, ask_tok=16)


def in_folder(folder: Path, **changes: object) -> Context:
    return Context(**{"seed": 1, "ask_tok": 16, "folder": str(folder), **changes})


def opened(folder: Path, data: str | bytes, settings: dict | None = None, **changes: object) -> jsonl.Jsonl:
    (folder / "p.jsonl").write_bytes(data if isinstance(data, bytes) else data.encode())
    return jsonl.open({"path": "p.jsonl", "order": "file", **(settings or {})}, in_folder(folder, **changes))


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


# jsonl ----------------------------------------------------------------------------------------------------------------


def test_messages_prompts_and_token_ids_are_read(tmp_path):
    chat = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "你好", "name": "x"}]}
    text = "\n".join(json.dumps(line) for line in (chat, {"prompt": "hello", "id": 3}, {"token_ids": [5, 6]}))
    source = opened(tmp_path, text)
    first, second, third = (source.session(i)[0] for i in range(3))
    assert first.messages == (Message(role="system", content="s"), Message(role="user", content="你好"))
    assert second.messages == user("hello")
    assert third.token_ids == (5, 6)
    assert third.in_tok_client == 2
    assert {prompt.source for prompt in (first, second, third)} == {"jsonl"}


def test_a_raw_prompt_stays_text(tmp_path):
    (prompt,) = opened(tmp_path, '{"prompt": "Once"}', {"raw": True}).session(0)
    assert prompt.text == "Once"
    assert prompt.messages is None


def test_a_byte_order_mark_blank_lines_and_carriage_returns_are_passed_over(tmp_path):
    data = b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n  \n{"prompt": "b"}\r\n{"prompt": "c"}'
    source = opened(tmp_path, data)
    assert source.size == 3
    assert [source.session(i)[0].messages for i in range(4)] == [user("a"), user("b"), user("c"), user("a")]


def test_output_tokens_replace_a_limit_but_not_an_exact_length(tmp_path):
    data = '{"prompt": "a", "output_tokens": 99}\n{"prompt": "b"}'
    assert [opened(tmp_path, data).session(i)[0].ask_tok for i in range(2)] == [99, 16]
    assert [opened(tmp_path, data, exact=True).session(i)[0].ask_tok for i in range(2)] == [16, 16]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"prompt": "a"', r"p\.jsonl:2: the JSON ends too early\."),
        ('{"prompt": "a",}', r"p\.jsonl:2: JSON is malformed"),
        ("prompt: a", r"p\.jsonl:2: JSON is malformed"),
        ('["a"]', r"p\.jsonl:2: this is a JSON array; .*sharegpt"),
        ('"a"', r"p\.jsonl:2: expected a mapping, not text\."),
        ("{}", r"p\.jsonl:2: a line has exactly one of messages, prompt and token_ids; this one has none of them\."),
        ('{"prompt": "a", "token_ids": [1]}', r"p\.jsonl:2: a line has exactly one .* has prompt and token_ids\."),
        ('{"prompt": ""}', r"p\.jsonl:2: prompt is empty; a request must ask something\."),
        ('{"messages": []}', r"p\.jsonl:2: messages is empty"),
        ('{"token_ids": []}', r"p\.jsonl:2: token_ids is empty"),
        ('{"token_ids": [1, -2]}', r"p\.jsonl:2: token_ids\[1\]: expected a whole number >= 0\."),
        ('{"prompt": 5}', r"p\.jsonl:2: prompt: expected text or nothing, not a whole number\."),
        ('{"prompt": "a", "output_tokens": 0}', r"p\.jsonl:2: output_tokens: expected a whole number >= 1\."),
        ('{"messages": [{"role": "user"}]}', r"p\.jsonl:2: messages\[0\]: there is no content\."),
        (
            '{"messages": [{"role": "users", "content": "a"}]}',
            r"p\.jsonl:2: messages\[0\]\.role is 'users'; did you mean 'user'\? There are: system, user, assistant\.",
        ),
        ('{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', r"content: expected text, not a list\."),
        (b'{"prompt": "\xff"}', r"p\.jsonl:2: "),
        ("[" * 100_000, r"p\.jsonl:2: "),
        ('{"x": ' + "[" * 100_000, r"p\.jsonl:2: "),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, line, sentence):
    data = b'{"prompt": "fine"}\n' + (line if isinstance(line, bytes) else line.encode()) + b"\n"
    with pytest.raises(UsageError, match=sentence):
        opened(tmp_path, data)


def test_a_utf_16_file_is_named_as_one(tmp_path):
    with pytest.raises(UsageError, match=r"p\.jsonl:1: the file is UTF-16; save it as UTF-8\."):
        opened(tmp_path, '{"prompt": "a"}\n'.encode("utf-16"))


@pytest.mark.parametrize("data", ["", "\n\n  \n", "\ufeff"])
def test_an_empty_file_is_a_sentence(tmp_path, data):
    with pytest.raises(UsageError, match=r"p\.jsonl holds no prompt; write one JSON object a line"):
        opened(tmp_path, data)


def test_a_missing_file_and_a_folder_are_sentences(tmp_path):
    with pytest.raises(UsageError, match=r"workload\.path: .*none\.jsonl does not exist; a relative path starts at"):
        jsonl.open({"path": "none.jsonl"}, in_folder(tmp_path))
    with pytest.raises(UsageError, match=r"is a folder; name the file in it"):
        jsonl.open({"path": "."}, in_folder(tmp_path))
    with pytest.raises(UsageError, match=r"prompts: jsonl: it needs path\."):
        jsonl.open({}, in_folder(tmp_path))


def test_a_file_that_changed_while_it_was_in_use_is_a_sentence_and_not_a_wrong_prompt(tmp_path):
    source = opened(tmp_path, '{"prompt": "aaaa"}\n{"prompt": "bbbb"}\n')
    os.truncate(tmp_path / "p.jsonl", 25)
    assert source.session(0)[0].messages == user("aaaa")
    with pytest.raises(UsageError, match=r"p\.jsonl:2: the JSON ends too early"):
        source.session(1)


def test_the_description_pins_the_data(tmp_path):
    one = opened(tmp_path, '{"prompt": "a"}\n').describe()
    two = opened(tmp_path, '{"prompt": "b"}\n').describe()
    assert one["sha256"] != two["sha256"]
    assert (one["kind"], one["size"], one["path"], one["order"]) == ("jsonl", 1, "p.jsonl", "file")


def test_memory_holds_offsets_and_not_the_prompts(tmp_path):
    source = opened(tmp_path, "".join(json.dumps({"prompt": "x" * 2000 + str(i)}) + "\n" for i in range(500)))
    held = source._index.starts.itemsize * len(source._index.starts) + source._index.numbers.itemsize * 500
    assert held == 16 * 500
    assert source.session(499)[0].messages == user("x" * 2000 + "499")


def test_a_position_in_the_file_that_another_process_moves_changes_nothing(tmp_path):
    source = opened(tmp_path, "".join(f'{{"prompt": "{i}"}}\n' for i in range(9)))
    os.lseek(source._file, 33, os.SEEK_SET)  # what a forked process that reads does to its parent
    assert [source.session(i)[0].messages for i in range(9)] == [user(str(i)) for i in range(9)]


@given(texts=st.lists(st.text(min_size=1), min_size=1, max_size=20), seed=st.integers(0, 9))
def test_every_text_comes_back_as_it_was_written_once_a_pass(tmp_path_factory, texts, seed):
    folder = tmp_path_factory.mktemp("texts")
    data = "".join(json.dumps({"prompt": text}, ensure_ascii=False) + "\n\n" for text in texts)
    source = opened(folder, data.encode("utf-8", "surrogatepass"), {"order": "seeded"}, seed=seed)
    assert sorted(source.session(i)[0].messages[0].content for i in range(len(texts))) == sorted(texts)


# sharegpt -------------------------------------------------------------------------------------------------------------


def talk(*turns: tuple[str, str]) -> dict:
    return {"id": "x", "conversations": [{"from": speaker, "value": value} for speaker, value in turns]}


def shared(folder: Path, entries: object, settings: dict | None = None) -> sharegpt.ShareGpt:
    (folder / "s.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return sharegpt.open({"path": "s.json", "order": "file", **(settings or {})}, in_folder(folder))


def test_the_first_human_turn_is_the_prompt(tmp_path):
    source = shared(
        tmp_path, [talk(("human", "q1"), ("gpt", "a"), ("human", "q2")), talk(("human", "q3"), ("gpt", "b"))]
    )
    assert [source.session(i)[0].messages for i in range(2)] == [user("q1"), user("q3")]
    assert source.session(0)[0].source == "sharegpt"


def test_a_system_turn_before_it_is_kept(tmp_path):
    source = shared(tmp_path, [talk(("system", "s"), ("human", "q"), ("gpt", "a"))])
    assert source.session(0)[0].messages == (Message(role="system", content="s"), *user("q"))


def test_the_other_spelling_is_read(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert shared(tmp_path, [{"conversations": turns}]).session(0)[0].messages == user("q")


def test_what_is_dropped_is_counted_with_its_reason(tmp_path):
    entries = [
        talk(("human", "q"), ("gpt", "a")),
        talk(("human", "alone")),
        talk(("system", "s"), ("human", "alone")),
        talk(),
        {"id": "nothing"},
        talk(("gpt", "a"), ("human", "q")),
        talk(("human", "  "), ("gpt", "a")),
        {"conversations": [{"from": 1, "value": 2}, {"from": "gpt", "value": "a"}]},
        "text",
    ]
    source = shared(tmp_path, entries)
    assert source.size == 1
    assert source.describe()["dropped"] == {
        "with fewer than two turns": 4,
        "that do not begin with a human turn": 1,
        "with an empty question": 1,
        "with a shape that is not ShareGPT's": 2,
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"s\.json is empty; a ShareGPT file is one JSON array"),
        ("[]", r"s\.json: no conversation can be used: the array is empty"),
        ('{"conversations": []}', r"s\.json: not one JSON array .* is read by prompts: jsonl\."),
        ('[{"conversations": []}', r"s\.json: not one JSON array of conversations: the JSON ends too early\."),
        (
            '[{"conversations": []}]',
            r"no conversation can be used: 1 with fewer than two turns; one needs a human turn",
        ),
        ("[" * 100_000, r"s\.json: "),
    ],
)
def test_a_file_that_is_no_sharegpt_file_is_a_sentence(tmp_path, text, sentence):
    with pytest.raises(UsageError, match=sentence):
        shared(tmp_path, text)
