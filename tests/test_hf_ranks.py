"""Tensor parallelism on a CPU: two processes that give the tokens of one, and that live and die together."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hf_running import LAUNCHERS, TEXTS, Running, made_model, needs_torch, running

pytestmark = needs_torch
sys.path.insert(0, str(LAUNCHERS))


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


def gone(process: psutil.Process, within_s: float = 60) -> bool:
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
        assert two.process.wait(60) == 0
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
        assert two.process.wait(60) == 1
        assert "Rank 1 of the model ended with exit code -9" in two.log.read_text()


def test_a_group_that_is_told_to_stop_stops_as_one(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "server.log", "--tensor-parallel", "2") as two:
        other = follower(two)
        other.terminate()  # as a signal to the whole group does: a rank leaves the answer to its leader
        assert tokens(two, TEXTS[0])
        two.process.terminate()
        assert two.process.wait(60) == 0
        assert gone(other)


class ScriptedRanks:
    """Stands for `hf_ranks.Ranks` with one rank that follows: keeps what it was told, answers from a script."""

    def __init__(self, *answers: Exception | None) -> None:
        self.told: list[Any] = []
        self.answers = list(answers)

    def send(self, message: Any) -> None:
        self.told.append(message)

    def receive(self, timeout_s: float | None = None) -> list[Any]:
        return [(self.answers.pop(0) if self.answers else None, None)]

    def answered(self) -> bool:
        return False


class CountedRows:
    """Stands for rank 0's rows: a prefill takes one, whether it then fails or not."""

    rows = 4

    def __init__(self, error: Exception | None = None) -> None:
        self.used = 0
        self.error = error

    def prefill(self, prompt: list[int]) -> str:
        self.used += 1
        if self.error is not None:
            raise self.error
        return "logits"

    def cut(self, used: int) -> None:
        self.used = used

    def memory(self) -> None:
        return None


def test_what_is_done_here_is_done_in_every_rank() -> None:
    from hf_ranks import Led

    ranks, rows = ScriptedRanks(), CountedRows()
    assert Led(rows, ranks).prefill([1, 2]) == "logits"  # type: ignore[arg-type]
    assert ranks.told == [("prefill", ([1, 2],))]
    assert rows.used == 1


@pytest.mark.parametrize(("here", "there"), [("here", None), (None, "there"), ("here", "there")])
def test_a_step_that_fails_in_one_rank_is_undone_in_all(here: str | None, there: str | None) -> None:
    from hf_ranks import Led

    ranks = ScriptedRanks(RuntimeError(there) if there else None)
    rows = CountedRows(RuntimeError(here) if here else None)
    led = Led(rows, ranks)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=here or there):
        led.prefill([1, 2])
    assert ranks.told == [("prefill", ([1, 2],)), ("cut", (0,))]
    assert rows.used == 0
    rows.error = None
    assert led.prefill([3]) == "logits"


def test_out_of_memory_in_another_rank_is_out_of_memory_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    import torch
    from hf_ranks import plain

    monkeypatch.setenv("RANK", "3")
    error = pickle.loads(pickle.dumps(plain(torch.OutOfMemoryError("Tried to allocate 2.00 GiB."))))
    assert isinstance(error, torch.OutOfMemoryError)
    assert "rank 3: OutOfMemoryError: Tried to allocate 2.00 GiB." in str(error)
    assert type(plain(KeyError("x"))) is RuntimeError
