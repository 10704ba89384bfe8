"""Which of several endpoints a request goes to."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import pytest
from drive_driver import drive
from drive_servers import Peer, RawServer, nobody, reply
from hypothesis import given
from hypothesis import strategies as st

from loadgen.drive.balance import SHUNNED_NS, Balance
from loadgen.drive.schedule import Send


def send(session: int, turn: int = 0) -> Send:
    return Send(0, session, -1, turn)


@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 4), st.integers(0, 60))
def test_in_turn_every_endpoint_gets_as_many_within_one(places: int, workers: int, worker: int, requests: int) -> None:
    balance = Balance("round_robin", places, worker, workers)
    found = Counter(balance.choose(send(session), 0) for session in range(requests))
    counts = [found[place] for place in range(places)]
    assert max(counts) - min(counts) <= 1


def test_each_worker_begins_with_another_endpoint() -> None:
    assert [Balance("round_robin", 3, worker, 4).choose(send(worker), 0) for worker in range(4)] == [0, 1, 2, 0]


@given(st.integers(2, 5), st.integers(1, 4), st.data())
def test_a_conversation_stays_with_one_endpoint_and_conversations_are_spread_evenly(
    places: int, workers: int, data: st.DataObject
) -> None:
    worker = data.draw(st.integers(0, workers - 1))
    sessions = [worker + number * workers for number in range(20)]
    turns = data.draw(st.permutations([(session, turn) for session in sessions for turn in range(3)]))
    balance = Balance("sticky", places, worker, workers)
    home: dict[int, int] = {}
    for session, turn in turns:
        place = balance.choose(send(session, turn), 0)
        assert home.setdefault(session, place) == place
    counts = [list(home.values()).count(place) for place in range(places)]
    assert max(counts) - min(counts) <= 1


def test_the_least_busy_endpoint_is_chosen_and_of_equals_the_next_in_turn() -> None:
    balance = Balance("least_in_flight", 3, 0, 1)
    assert [balance.choose(send(n), 0) for n in range(4)] == [0, 1, 2, 0]
    balance.ended(2, None, 0)
    assert balance.choose(send(4), 0) == 2
    balance.ended(0, None, 0)
    balance.ended(0, None, 0)
    assert [balance.choose(send(n), 0) for n in (5, 6)] == [0, 1]


def test_an_endpoint_that_is_gone_draws_no_load_for_having_little_to_do() -> None:
    balance = Balance("least_in_flight", 2, 0, 1)
    assert balance.choose(send(0), 0) == 0
    balance.ended(0, "connect_error", 10)
    assert {balance.choose(send(n), 10 + SHUNNED_NS - 1) for n in range(5)} == {1}
    assert balance.choose(send(6), 10 + SHUNNED_NS) == 0
    balance.ended(0, "timeout", 20 + SHUNNED_NS)  # it answers, if late
    assert balance.choose(send(7), 20 + SHUNNED_NS) == 0


def test_where_all_are_gone_all_are_tried() -> None:
    balance = Balance("least_in_flight", 2, 0, 1)
    for place in (0, 1):
        assert balance.choose(send(place), 0) == place
        balance.ended(place, "reset", 0)
    assert {balance.choose(send(n), 5) for n in range(4)} == {0, 1}


# The driver -----------------------------------------------------------------------------------------------------------


def answers(peer: Peer) -> None:
    while True:
        head, _ = peer.request()
        peer.send(reply())
        assert f"host: 127.0.0.1:{peer.sock.getsockname()[1]}".encode() in head


def to_both(shape: dict[str, Any], *urls: str, **fields: Any) -> Any:
    return drive(urls[0], shape, 4, endpoints=urls, **fields)


def test_each_request_goes_to_the_endpoint_of_its_record_with_the_head_that_is_meant_for_it() -> None:
    with RawServer(answers) as one, RawServer(answers) as two:
        driven = to_both({"concurrency": 2, "requests": 20}, one.url, two.url)
    assert driven.statuses == {"ok": 20}
    assert Counter(record.endpoint for record in driven.records) == {one.url: 10, two.url: 10}


def test_connections_are_opened_ahead_to_all_endpoints_evenly() -> None:
    with RawServer(answers) as one, RawServer(answers) as two:
        driven = to_both({"concurrency": 1, "requests": 1}, one.url, two.url)  # needs one, and warms four
    assert [pool.opened for pool in driven.loop.traffic.pools] == [2, 2]


@pytest.mark.parametrize("balance", ["round_robin", "least_in_flight"])
def test_an_endpoint_that_nobody_listens_at_costs_its_share_alone(
    balance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadgen.drive.balance.SHUNNED_NS", 3600 * 1_000_000_000)  # a second may pass in between
    with RawServer(answers) as one, nobody() as gone:
        driven = to_both({"concurrency": 1, "requests": 8}, one.url, gone, balance=balance)
    by = {url: Counter(r.status for r in driven.records if r.endpoint == url) for url in (one.url, gone)}
    lost = 4 if balance == "round_robin" else 1
    assert by == {one.url: {"ok": 8 - lost}, gone: {"connect_error": lost}}
    assert {r.err for r in driven.records if r.err} == {f"{gone}: Connection refused"}


def test_a_name_that_is_not_found_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    look = socket.getaddrinfo

    def counting(host: str, *rest: Any, **more: Any) -> Any:
        found.append(host)
        if host == "nowhere.invalid":  # some resolvers take long to say so
            raise socket.gaierror(-2, "Name or service not known")
        return look(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    with RawServer(answers) as one:
        driven = to_both({"concurrency": 1, "requests": 6}, one.url, "http://nowhere.invalid:1")
    assert driven.statuses == {"ok": 3, "connect_error": 3}
    assert found.count("nowhere.invalid") == 1


def test_where_no_endpoint_can_be_reached_the_load_does_not_begin() -> None:
    with nobody() as one, nobody() as two, pytest.raises(ConnectionRefusedError):
        to_both({"concurrency": 1, "requests": 1}, one, two)
