"""Conversations as a source of prompts, and what a run of them reports."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Done, loadgen, write_scenario
from fakes import FakeServer
from scenario_text import SMALLEST, scenario

from loadgen.assemble import assemble
from loadgen.backends import RequestOptions, openai_completions
from loadgen.errors import UsageError
from loadgen.preview import preview
from loadgen.record import Message
from loadgen.reports import text
from loadgen.reports.preview import render
from loadgen.scenario import expand
from loadgen.store import Run
from loadgen.workloads import Context, Conversing, conversation
from loadgen.workloads.conversation import Conversation, Exponential, Lognormal, Think, think_time

MADE: dict[str, Any] = {"turns": {"uniform": {"min": 2, "max": 5}}, "first": {"words": 9}, "later": {"words": 3}}


def opened(settings: dict[str, Any] | None = None, folder: Path = Path(), **context: Any) -> Conversation:
    return conversation.open(
        MADE if settings is None else settings, Context(**{"seed": 3, "ask_tok": 7, "folder": str(folder), **context})
    )


def user(content: str) -> Message:
    return Message(role="user", content=content)


def said(source: Conversation, index: int) -> list[str]:
    return [m.content for prompt in source.session(index) for m in prompt.messages or () if m.role == "user"]


# Made conversations ---------------------------------------------------------------------------------------------------


def test_a_conversation_is_a_function_of_the_seed_and_its_number() -> None:
    one, again, other = opened(), opened(), opened(seed=4)
    assert isinstance(one, Conversing)
    for index in (5, 0, 123_456):
        assert one.session(index) == again.session(index)
        assert said(one, index) != said(other, index)
    turns = [said(one, index) for index in range(200)]
    assert {len(asked) for asked in turns} == {2, 3, 4, 5}
    assert all(len(asked[0].split()) == 9 and {len(more.split()) for more in asked[1:]} == {3} for asked in turns)
    every = [question for asked in turns for question in asked]
    assert len(set(every)) == len(every)


def test_a_later_turn_holds_everything_that_was_said_with_the_replies_between() -> None:
    source = opened({**MADE, "turns": 3, "system": "Be brief."})
    first, second, third = said(source, 8)
    assert source.session(8)[0].messages == (Message(role="system", content="Be brief."), user(first))
    history = source.turn(8, 2, ["one", "two"]).messages
    spoken = [("system", "Be brief."), ("user", first), ("assistant", "one"), ("user", second)]
    assert history == tuple(Message(*pair) for pair in [*spoken, ("assistant", "two"), ("user", third)])


def test_one_system_message_of_random_words_is_shared_by_all() -> None:
    source = opened({**MADE, "system": {"words": 40}})
    systems = {source.session(index)[0].messages[0] for index in range(9)}  # type: ignore[index]
    (system,) = systems
    assert (system.role, len(system.content.split())) == ("system", 40)


def test_each_turn_asks_for_as_many_tokens_as_the_scenario_says() -> None:
    source = opened(exact=True)
    prompts = [*source.session(1), source.turn(1, 1, ["yes"])]
    assert {(prompt.ask_tok, prompt.exact) for prompt in prompts} == {(7, True)}


def test_questions_may_be_the_shipped_prompts_without_a_second_system_message() -> None:
    source = opened({"turns": 6, "first": {"prompts": "natural"}, "system": "Only one."})
    for index in range(40):
        roles = [m.role for prompt in source.session(index) for m in prompt.messages or ()]
        assert roles == ["system"] + ["user"] * 6


# Think times ----------------------------------------------------------------------------------------------------------


def test_a_fixed_think_time_is_that() -> None:
    source = opened({**MADE, "think_s": 1.5})
    assert {prompt.think_s for prompt in source.session(0)[1:]} == {1.5}
    assert source.session(0)[0].think_s == 0.0


@pytest.mark.parametrize(
    ("think", "sd"), [(Think(exponential=Exponential(5.0)), 5.0), (Think(lognormal=Lognormal(5.0, 2.0)), 2.0)]
)
def test_think_times_are_drawn_with_the_mean_and_the_spread_that_are_asked_for(think: Think, sd: float) -> None:
    drawn = [think_time(think, f"{number}") for number in range(20_000)]
    assert statistics.fmean(drawn) == pytest.approx(5.0, rel=0.03)
    assert statistics.stdev(drawn) == pytest.approx(sd, rel=0.05)
    assert min(drawn) > 0
    assert think_time(think, "7") == drawn[7]


# Templates and backends -----------------------------------------------------------------------------------------------

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<a>"


def test_for_a_backend_without_messages_the_whole_history_is_rendered_anew_for_each_turn(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    source = opened({**MADE, "turns": 2}, template="client", model_path=str(tmp_path))
    first, second = said(opened({**MADE, "turns": 2}), 0)
    assert source.session(0)[0].text == f"<user>{first}<a>"
    later = source.turn(0, 1, ["ok"])
    assert later.text == f"<user>{first}<assistant>ok<user>{second}<a>"
    body = openai_completions.body(later, RequestOptions(model="m"))
    assert body["prompt"] == later.text


def test_messages_for_a_backend_without_them_are_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"makes prompts as messages, and backend openai_completions .* template: cli"):
        openai_completions.body(opened().session(0)[0], RequestOptions(model="m"))


def test_a_template_that_refuses_a_second_turn_says_so_before_the_run(tmp_path: Path) -> None:
    refusing = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}x"
    (tmp_path / "chat_template.jinja").write_text(refusing)
    with pytest.raises(UsageError, match="one turn only"):
        opened(template="client", model_path=str(tmp_path))


# Files ----------------------------------------------------------------------------------------------------------------


def test_of_a_sharegpt_file_the_users_turns_are_asked_and_its_replies_are_not(tmp_path: Path) -> None:
    talks = [
        {"conversations": [{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": "old"}] * (1 + i % 3)}
        for i in range(4)
    ]
    (tmp_path / "s.json").write_text(json.dumps(talks))
    source = opened({"path": "s.json", "order": "file"}, tmp_path)
    assert [len(source.session(index)) for index in range(5)] == [1, 2, 3, 1, 1]
    history = source.turn(1, 1, ["new"]).messages
    assert history == (user("q1"), Message(role="assistant", content="new"), user("q1"))
    assert source.describe()["dropped"] == {}
    capped = opened({"path": "s.json", "order": "file", "turns": 2}, tmp_path)
    assert [len(capped.session(index)) for index in range(4)] == [1, 2, 2, 1]


def test_of_lines_of_messages_each_of_the_users_is_a_turn(tmp_path: Path) -> None:
    roles = [("system", "s"), ("user", "a"), ("assistant", "x"), ("user", " "), ("user", "b"), ("system", "t")]
    chat = {"messages": [{"role": role, "content": content} for role, content in roles], "output_tokens": 3}
    (tmp_path / "t.jsonl").write_text("\ufeff" + json.dumps(chat) + "\n\n" + json.dumps({"prompt": "alone"}) + "\n")
    source = opened({"path": "t.jsonl", "order": "file"}, tmp_path)
    first, second = source.session(0)
    assert first.messages == (Message(role="system", content="s"), user("a"))
    assert second.messages == (user("b"),)
    assert (first.ask_tok, second.ask_tok, source.size) == (3, 3, 2)
    assert [prompt.messages for prompt in source.session(1)] == [(user("alone"),)]
    other = opened({"path": "t.jsonl", "order": "file", "system": "mine"}, tmp_path, exact=True)
    assert other.session(0)[0].messages == (Message(role="system", content="mine"), user("a"))
    assert other.session(0)[0].ask_tok == 7


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"token_ids": [1, 2]}, r"t\.jsonl:1: a conversation is made of messages, and this line has token_ids"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, r"t\.jsonl:1: nobody asks anything"),
        ({"messages": [{"role": "bot", "content": "x"}]}, r"t\.jsonl:1: messages\[0\]\.role is 'bot'"),
        ({"conversations": []}, r"t\.jsonl:1: a line has exactly one of messages, prompt and token_ids"),
    ],
)
def test_a_line_that_cannot_be_held_as_a_conversation_is_named(
    tmp_path: Path, line: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=sentence):
        opened({"path": "t.jsonl"}, tmp_path)


@pytest.mark.parametrize("data", ["", "[]", "[{}]", "\n\n"])
def test_a_file_without_conversations_is_refused(tmp_path: Path, data: str) -> None:
    (tmp_path / "empty").write_text(data)
    with pytest.raises(UsageError, match=r"empty"):
        opened({"path": "empty"}, tmp_path)


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, r"needs turns and first \(such as turns: 4, first: \{words: 300\}\)"),
        ({"turns": 3}, "needs turns and first"),
        ({**MADE, "turns": 0}, r"workload\.turns: 0 is no length"),
        ({**MADE, "turns": 2000}, r"workload\.turns: a conversation may have 2,000 turns; 1000 are the most"),
        ({**MADE, "first": {"wrds": 3}}, r"workload\.first\.wrds: .* did you mean 'words'\?"),
        ({**MADE, "later": {"prompts": "natur"}}, r"workload\.later\.prompts: 'natur' does not exist"),
        ({**MADE, "first": {"prompts": "conversation"}}, "a conversation is not made of conversations"),
        ({**MADE, "first": {"kind": "ids", "input_tokens": 9, "vocab_size": 999}}, "its history has to hold the repl"),
        ({**MADE, "first": {"words": 5, "raw": True}}, "its history has to hold the replies"),
        ({**MADE, "system": " "}, r"workload\.system is empty"),
        ({**MADE, "think_s": -1}, r"workload\.think_s: expected a number >= 0"),
        ({**MADE, "think_s": {"exponential": {"mean": 1}, "lognormal": {"mean": 1, "sd": 1}}}, "one of the two"),
        ({**MADE, "think_s": {}}, "one of the two"),
        ({**MADE, "order": "file"}, r"workload\.order belongs to a file"),
        ({**MADE, "path": "x.json"}, r"workload\.first belongs to made conversations, and path names a file"),
        ({"path": "none.json"}, r"workload\.path: .*none\.json does not exist"),
        ({**MADE, "as": "ids"}, r"workload\.as: ids needs chat messages and template: client"),
    ],
)
def test_settings_that_cannot_be_meant_are_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        opened(settings)


def test_a_preview_says_how_many_turns_there_are_and_how_long_people_think(tmp_path: Path) -> None:
    words = "prompts: conversation, turns: {uniform: {min: 2, max: 5}}, first: {words: 4}, think_s: 2"
    (cell,) = expand(scenario(tmp_path, SMALLEST.replace("prompts: natural", words)))
    found = preview(cell, tmp_path)
    assert found.turns is not None
    assert (found.turns.min, found.turns.max, found.think_s) == (2, 5, 2.0)
    assert "2 to 5; mean 3.5; 2.000 s on average from a reply to the next" in render([found])


# Runs -----------------------------------------------------------------------------------------------------------------


def run(folder: Path, url: str, load: str, turns: str = "3", think: str = "0.01", more: str = "") -> Done:
    words = (
        f"targets: {{a: {{endpoint: '{url}', model: m}}}}\n"
        f"workload: {{prompts: conversation, turns: {turns}, first: {{words: 200}}, later: {{words: 20}}, "
        f"think_s: {think}, output: {{exact: 6}}{more}}}\nload: {{{load}, timeout_s: 20}}\nrepeats: 1\n"
    )
    return loadgen(folder, "run", str(write_scenario(folder, words)))


def test_a_run_shows_each_turn_by_itself_and_how_the_conversations_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(ttft_ms=30, gap_ms=1, prefix_cache=True) as server:
        done = run(tmp_path, server.url, "rate_rps: 20, arrival: constant, warmup_s: 0, window_s: 2")
    assert done.code in (0, 5), done.err + done.out  # 5: this machine was too busy to send in time
    (result,) = done.results()
    turns = result.parts["turn"]
    assert list(turns) == ["1", "2", "3"]
    assert turns["1"].requests == 40
    assert [turn.in_tok.min for turn in turns.values()] == [200, 226, 252]  # a question and a reply more each time
    assert (turns["1"].cached_share or 0) == 0
    assert (turns["3"].cached_share or 0) > (turns["2"].cached_share or 0) > 0.8
    counts = [audit.conversations for audit in result.workers if audit.conversations is not None]
    begun, whole = sum(one.begun for one in counts), sum(one.whole for one in counts)
    assert (begun, sum(one.broken for one in counts)) == (40, 0)
    assert whole == turns["3"].ok
    assert result.summary.audit.offered_rps == pytest.approx(result.summary.audit.achieved_rps, rel=0.1)
    shown = text.render(assemble(Run(done.run)), width=100)
    assert "By turn of the conversations" in shown
    assert f"40 conversations were begun, {whole} came to their end" in shown
    assert "of the concurrency" not in shown
    monkeypatch.setattr("loadgen.reports.parts.MOST_ROWS", 2)
    assert "By turn of the conversations: 3 rows, in report.md" in text.render(assemble(Run(done.run)), width=100)


def test_a_server_sees_what_the_seed_holds_with_its_own_replies_between(tmp_path: Path) -> None:
    texts = ["Né ", "\\ ", '"ja" ', "\n", "龘"]
    with FakeServer(ttft_ms=5, gap_ms=1, texts=texts) as server:
        done = run(
            tmp_path, server.url, "concurrency: 3, warmup_s: 0, requests: 30, workers: 2", "4", more=", save_text: true"
        )
        got = {one["id"]: one["body"]["messages"] for one in server.truth(31)}
    (result,) = done.results()
    source = conversation.open(
        {"turns": 4, "first": {"words": 200}, "later": {"words": 20}}, Context(seed=result.seed, ask_tok=6, exact=True)
    )
    records = sorted(done.records(done.attempts()[0]), key=lambda record: (record.session, record.turn))
    assert {record.status for record in records} == {"ok"}
    assert {record.worker for record in records} == {0, 1}
    replies: dict[int, list[str]] = {}
    for record in records:
        before = replies.setdefault(record.session, [])
        asked = source.turn(record.session, record.turn, before)
        assert got[record.request_id()] == [{"role": m.role, "content": m.content} for m in asked.messages or ()]
        assert record.session % 2 == record.worker
        before.append(record.text or "")
    assert {len(before) for before in replies.values()} >= {4}
    assert {text for before in replies.values() for text in before} == {'Né \\ "ja" \n龘Né '}


def test_turns_that_were_never_sent_are_counted_among_the_failed(tmp_path: Path) -> None:
    fault = {"kind": "http", "status": 500, "nth": [3, 7]}
    with FakeServer(ttft_ms=5, gap_ms=1, faults=[fault]) as server:
        done = run(tmp_path, server.url, "burst: 8", turns="4", think="0")
    (result,) = done.results()
    status = result.summary.status
    assert (status["http_error"], sum(status.values())) == (2, 32)
    unsent = status["unsent"]
    assert 2 <= unsent <= 6
    assert result.summary.failed == 2 + unsent
    assert "sends" not in [doubt.code for doubt in result.summary.invalid]
    assert "unsent" in next(doubt.text for doubt in result.summary.doubts if doubt.code == "errors")
    assert [audit.conversations.broken for audit in result.workers if audit.conversations] == [2]
