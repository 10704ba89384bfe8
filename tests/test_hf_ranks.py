"""Tensor parallelism on a CPU: two processes that give the tokens of one, and that live and die together."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from hf_running import TEXTS, Running, made_model, needs_torch, running

pytestmark = needs_torch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_model(tmp_path_factory.getbasetemp(), "two-heads", num_key_value_heads=2)


def tokens(server: Running, text: str) -> list[int]:
    message = {"role": "user", "content": text}
    body = {"messages": [message], "max_tokens": 24, "ignore_eos": True, "temperature": 0}
    found: list[int] = server.post("/v1/chat/completions", body).json()["choices"][0]["token_ids"]
    return found


def follower(server: Running) -> psutil.Process:
    """The rank that the server has started."""
    (found,) = psutil.Process(server.process.pid).children()
    return found


def gone(process: psutil.Process, within_s: float = 20) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_two_ranks_give_the_tokens_of_one_and_stop_together(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "one.log") as one:
        expected = [tokens(one, text) for text in TEXTS]
    with running(model, tmp_path / "two.log", "--tensor-parallel", "2") as two:
        assert [tokens(two, text) for text in TEXTS] == expected
        about = two.client.get("/version").json()
        assert about["tensor_parallel"] == 2
        other = follower(two)
        two.process.terminate()
        assert two.process.wait(20) == 0
        assert gone(other)
        assert two.log.read_text().endswith("stopped\n")


def test_a_rank_does_not_outlive_a_leader_that_is_killed(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "server.log", "--tensor-parallel", "2") as two:
        other = follower(two)
        two.process.kill()
        assert gone(other)


def test_a_leader_says_that_a_rank_has_ended_and_ends(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "server.log", "--tensor-parallel", "2") as two:
        os.kill(follower(two).pid, signal.SIGKILL)
        assert two.process.wait(20) == 1
        assert "Rank 1 of the model ended with exit code -9" in two.log.read_text()


def test_a_group_that_is_told_to_stop_stops_as_one(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "server.log", "--tensor-parallel", "2") as two:
        other = follower(two)
        other.terminate()  # as a signal to the whole group does: a rank leaves the answer to its leader
        assert tokens(two, TEXTS[0])
        two.process.terminate()
        assert two.process.wait(20) == 0
        assert gone(other)
