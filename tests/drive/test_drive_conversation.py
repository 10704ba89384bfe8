"""Conversations against servers that note what they are asked: true histories, think times, what a failure costs."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from drive_driver import Driven, drive
from drive_servers import DONE, END, FINISH, STREAM, Peer, RawServer, chunk, event, page

from loadgen.arrival import Arrival
from loadgen.backends import RequestOptions
from loadgen.drive.tally import Conversed
from loadgen.record import Record
from loadgen.workloads import Context, conversation

SETTINGS: dict[str, Any] = {
    "turns": {"uniform": {"min": 2, "max": 4}},
    "first": {"words": 8},
    "later": {"words": 3},
    "system": "Hm.",
}
CONTEXT: dict[str, Any] = {"seed": 1, "ask_tok": 3}
THINK = 0.02


class Listener:
    """A server whose replies tell what they answer: the hash of the request's body, in pieces with a line end, quotes
    and a character beyond Latin-1. ``fault(turn)`` may say something else in place of the reply to a turn (from 0)."""

    def __init__(self, fault: Any = None) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.replies: dict[str, str] = {}
        self.order: list[str] = []
        self._fault = fault or (lambda turn: None)
        self._lock = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        while True:
            head, body = peer.request()
            fields = json.loads(body)
            name = re.search(rb"x-request-id: (\S+)", head)[1].decode()  # type: ignore[index]
            words = ["say ", hashlib.sha256(body).hexdigest()[:8], ' "ок"\n']
            with self._lock:
                self.bodies[name], self.replies[name] = fields, "".join(words)
                self.order.append(name)
            instead = self._fault(sum(m["role"] == "assistant" for m in fields.get("messages", ())))
            if instead is not None:
                peer.send(instead)
            elif "prompt" in fields:
                texts = (b'data: {"choices": [{"text": ' + json.dumps(word).encode() + b"}]}\n\n" for word in words)
                peer.send(STREAM + b"".join(map(chunk, texts)) + FINISH + DONE + END)
            elif fields.get("stream"):
                peer.send(STREAM + b"".join(event(word) for word in words) + FINISH + DONE + END)
            else:
                choice = {"message": {"content": "".join(words)}, "finish_reason": "stop"}
                peer.send(page("200 OK", json.dumps({"choices": [choice]}).encode(), content_type="application/json"))


def talk(url: str, shape: dict[str, Any], think: float = 0.0, **fields: Any) -> Driven:
    settings = {**SETTINGS, "think_s": think, **fields.pop("settings", {})}
    return drive(url, shape, 4, workload="conversation", settings=settings, context=CONTEXT, **fields)


def by_session(records: list[Record]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.session, record.turn)):
        found[record.session].append(record)
    return found


def assert_true_histories(driven: Driven, server: Listener, settings: dict[str, Any] | None = None) -> int:
    """Every request that the server got is the turn that the source holds, after the replies that were really given;
    how many had a history."""
    source = conversation.open({**SETTINGS, **(settings or {})}, Context(**CONTEXT))
    sent = [record for record in driven.records if record.status != "unsent"]
    assert sorted(record.request_id() for record in sent) == sorted(server.order)
    for session, records in by_session(sent).items():
        assert [record.turn for record in records] == list(range(len(records)))
        replies = [server.replies[record.request_id()] for record in records]
        for turn, record in enumerate(records):
            asked = source.turn(session, turn, replies) if turn else source.session(session)[0]
            got = server.bodies[record.request_id()]["messages"]
            assert got == [{"role": m.role, "content": m.content} for m in asked.messages or ()]
    return sum(record.turn > 0 for record in sent)


def turns_of(session: int) -> int:
    return len(conversation.open(SETTINGS, Context(**CONTEXT)).session(session))


@pytest.mark.parametrize("stream", [True, False])
def test_the_server_sees_the_conversations_of_the_schedule_with_its_own_replies_in_them(stream: bool) -> None:
    server = Listener()
    with RawServer(server) as at:
        options = RequestOptions(model="m", stream=stream)
        driven = talk(at.url, {"concurrency": 3, "requests": 30}, options=options)
    assert driven.statuses == {"ok": 30}
    assert assert_true_histories(driven, server) >= 15


def test_a_turn_is_due_when_the_reply_before_it_ended_and_the_think_time_is_over() -> None:
    with RawServer(Listener()) as at:
        driven = talk(at.url, {"concurrency": 2, "requests": 12}, think=THINK)
    gaps = 0
    for records in by_session(driven.records).values():
        for before, after in itertools.pairwise(records):
            assert after.t_sched == pytest.approx((before.t_end or 0) + THINK, abs=2e-9)
            assert (after.t_send or 0) >= after.t_sched
            gaps += 1
    assert gaps >= 5


def test_think_times_are_drawn_for_each_turn_and_kept() -> None:
    settings = {"think_s": {"exponential": {"mean": 0.02}}}
    with RawServer(Listener()) as at:
        driven = talk(at.url, {"concurrency": 3, "requests": 20}, settings=settings)
    source = conversation.open({**SETTINGS, **settings}, Context(**CONTEXT))
    thought = set()
    for session, records in by_session(driven.records).items():
        for before, after in itertools.pairwise(records):
            think = source.session(session)[after.turn].think_s
            assert after.t_sched == pytest.approx((before.t_end or 0) + think, abs=2e-9)
            thought.add(think)
    assert len(thought) >= 8


def test_a_slot_of_a_closed_loop_holds_whole_conversations_one_after_the_other() -> None:
    with RawServer(Listener()) as at:
        driven = talk(at.url, {"concurrency": 2, "requests": 24}, think=0.005)
    found = by_session(driven.records)
    spans = sorted((records[0].t_sched, records[-1].t_end or 0.0) for records in found.values())
    for at_, _ in spans:  # conversations that are open when one begins, itself among them
        assert sum(begin <= at_ < end for begin, end in spans) <= 2
    whole = [session for session, records in found.items() if len(records) == turns_of(session)]
    assert len(whole) >= len(found) - 2


def test_arrivals_of_an_open_loop_begin_conversations() -> None:
    arrival = Arrival(kind="timestamps", timestamps=(0.0, 0.03, 0.05))
    server = Listener()
    with RawServer(server) as at:
        driven = talk(at.url, {"arrival": arrival}, think=THINK)
    found = by_session(driven.records)
    assert [records[0].t_sched for records in found.values()] == pytest.approx([0.0, 0.03, 0.05])
    assert [len(records) for records in found.values()] == [turns_of(session) for session in range(3)]
    assert assert_true_histories(driven, server) >= 3
    assert driven.loop.talks is not None
    assert driven.loop.talks.counts == Conversed(begun=3, whole=3, broken=0)


def test_a_burst_of_conversations_goes_on_to_the_end_of_all() -> None:
    with RawServer(Listener()) as at:
        driven = talk(at.url, {"arrival": Arrival(kind="burst", count=6)})
    assert len(driven.records) == sum(turns_of(session) for session in range(6))
    assert sorted(record.seq for record in driven.records) == list(range(len(driven.records)))


BROKEN = {
    "http_error": page("500 Oh", b"no"),
    "truncated": STREAM + event("half") + END,
    "error_event": STREAM + event("half") + chunk(b'data: {"error": {"message": "dead"}}\n\n') + END,
    "empty": STREAM + FINISH + DONE + END,
    "malformed": STREAM + b"nonsense\r\n",
}


@pytest.mark.parametrize("status", list(BROKEN))
@pytest.mark.parametrize("think", [0.0, 0.01])
def test_a_turn_that_fails_ends_its_conversation_and_the_rest_is_recorded_as_unsent(status: str, think: float) -> None:
    server = Listener(lambda turn: BROKEN[status] if turn == 1 else None)
    with RawServer(server) as at:
        driven = talk(at.url, {"arrival": Arrival(kind="burst", count=4)}, think, settings={"turns": 4})
    for records in by_session(driven.records).values():
        assert [record.status for record in records] == ["ok", status, "unsent", "unsent"]
        assert [record.turn for record in records] == [0, 1, 2, 3]
        assert {record.err for record in records[2:]} == {f"turn 2 of this conversation failed ({status})"}
        assert all(record.t_send is None and record.t_sched == records[1].t_end for record in records[2:])
    assert len(server.order) == 8
    assert driven.loop.talks is not None
    assert driven.loop.talks.counts == Conversed(begun=4, whole=0, broken=4)


@pytest.mark.parametrize("status", ["http_error", "truncated"])
def test_after_a_failure_the_slot_begins_another_conversation_but_not_at_once(status: str) -> None:
    server = Listener(lambda turn: BROKEN[status] if turn == 1 else None)
    with RawServer(server) as at:
        driven = talk(at.url, {"concurrency": 1, "requests": 6}, settings={"turns": 3})
    assert driven.statuses == {"ok": 3, status: 3, "unsent": 2}  # of the last one the end of the run cut the rest
    failed = [record for record in driven.records if record.status == status]
    begun = [record for record in driven.records if record.turn == 0]
    for before, after in zip(failed, begun[1:], strict=False):
        assert after.t_sched >= before.t_sched + 0.0999


def test_a_template_that_refuses_what_was_replied_ends_that_conversation_and_not_the_run(tmp_path: Path) -> None:
    refusing = (
        "{% for m in messages %}{% if 'ок' in m.content and messages|length > 3 %}{{ raise_exception('no') }}"
        "{% endif %}{{ m.content }} {% endfor %}"
    )
    (tmp_path / "chat_template.jinja").write_text(refusing)
    context = {**CONTEXT, "template": "client", "model_path": str(tmp_path)}
    settings = {"turns": 3, "first": {"words": 2}}
    shape = {"arrival": Arrival(kind="burst", count=2)}
    with RawServer(Listener()) as at:
        driven = drive(
            at.url, shape, 4, workload="conversation", settings=settings, context=context, backend="openai_completions"
        )
    for records in by_session(driven.records).values():
        assert [record.status for record in records] == ["ok", "ok", "unsent"]
        assert "no" in str(records[2].err)
    assert driven.loop.talks is not None
    assert driven.loop.talks.counts == Conversed(begun=2, whole=0, broken=2)


def test_what_the_end_of_the_run_cuts_off_leaves_no_record() -> None:
    with RawServer(Listener()) as at:
        driven = talk(at.url, {"concurrency": 2, "window_s": 0.3}, think=60.0)
    assert driven.statuses == {"ok": 2}
    assert {record.turn for record in driven.records} == {0}
    assert driven.loop.talks is not None
    assert driven.loop.talks.counts == Conversed(begun=2, whole=0, broken=0)


def test_a_turn_over_the_clients_own_cap_is_dropped_and_ends_its_conversation() -> None:
    stuck = threading.Event()
    server = Listener(lambda turn: b"" if turn == 0 and stuck.wait(0.15) else None)
    with RawServer(server) as at:
        driven = talk(at.url, {"arrival": Arrival(kind="burst", count=3), "max_in_flight": 2}, settings={"turns": 2})
    dropped = [record.session for record in driven.records if record.status == "dropped"]
    assert len(dropped) == 1
    assert [record.status for record in by_session(driven.records)[dropped[0]]] == ["dropped", "unsent"]


def test_two_workers_hold_together_the_conversations_of_one() -> None:
    arrival = Arrival(kind="constant", rate_rps=60.0)
    held = []
    for workers in (1, 2):
        bodies: dict[int, Any] = {}
        seqs: list[int] = []
        for worker in range(workers):
            server = Listener()
            with RawServer(server) as at:
                driven = talk(at.url, {"arrival": arrival, "requests": 24}, worker=worker, workers=workers)
            seqs += [record.seq for record in driven.records]
            for record in driven.records:
                if record.turn == 0:
                    bodies[record.session] = server.bodies[record.request_id()]
            assert {record.session % workers for record in driven.records} == {worker}
        assert len(set(seqs)) == len(seqs)
        held.append(bodies)
    both = held[0].keys() & held[1].keys()
    assert len(both) >= 5
    assert all(held[0][session] == held[1][session] for session in both)


def test_probes_ask_first_turns_alone() -> None:
    with RawServer(Listener()) as at:
        driven = talk(at.url, {"concurrency": 1, "requests": 4}, think=30.0, phase="probe")
    assert [(record.session, record.turn) for record in driven.records] == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_drops_of_the_clients_own_cap_do_not_hold_up_the_next_turn_of_a_good_conversation() -> None:
    stuck = threading.Event()
    server = Listener(lambda turn: b"" if turn == 0 and stuck.wait(0.04) else None)
    with RawServer(server) as at:
        driven = talk(at.url, {"arrival": Arrival(kind="burst", count=40), "max_in_flight": 2}, settings={"turns": 2})
    assert driven.statuses["dropped"] > 20
    talked = [turns for turns in by_session(driven.records).values() if [one.status for one in turns] == ["ok", "ok"]]
    assert talked
    for first, second in talked:
        assert first.t_end is not None
        assert second.t_sched == pytest.approx(first.t_end, abs=1e-6)
