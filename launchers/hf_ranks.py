"""The ranks of tensor parallelism: this program several times over, one process a device, every rank in step.

Rank 0 is the program that was started: it serves HTTP, chooses the tokens and leads. It starts the other ranks itself,
with the same command line and RANK, LOCAL_RANK and WORLD_SIZE in their environment, and tells each of them over a pipe
what it is about to do (`prefill`, `decode`, `drop` ...); they do the same to their part of the model, and the
collectives of torch.distributed meet. Each says when it is through, with its memory, and rank 0 waits for that, so no
rank runs ahead.

They live and die together. A rank whose leader is gone is ended by the kernel (a parent-death signal, which kill -9 of
the leader sets off too); when a rank ends, the leader says so and ends. A rank that fails in a step says so, and when
every rank is through with the step the server lives on; a rank that is stuck in a collective that will never be met
cannot be, and all end after `STUCK_S`.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import hf_memory

if TYPE_CHECKING:
    import torch
    from hf_slots import Rows

PIPE = "LOADGEN_HF_RANK_PIPE"
"""In the environment of a rank that follows: its end of the pipe."""
STUCK_S = 60
"""A rank that is through with a step waits for the others so long."""
END_S = 3.0
SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


class Ranks:
    """The ranks that follow, as rank 0 sees them."""

    def __init__(self, count: int) -> None:
        self._pipes: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ending = False
        for rank in range(1, count):
            ours, theirs = multiprocessing.Pipe()
            words = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), PIPE: str(theirs.fileno())}
            process = subprocess.Popen(
                [sys.executable, *sys.argv], env={**os.environ, **words}, pass_fds=(theirs.fileno(),)
            )
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
            threading.Thread(target=self._watch, args=(rank, process), daemon=True).start()
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(count))  # transformers looks for its device there

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        """Ends this program when a rank ends that was not told to."""
        code = process.wait()
        time.sleep(0.2)  # a sentence that this rank is about to say itself (an option that cannot be met) comes first
        if not self._ending:
            fall(f"Rank {rank} of the model ended with exit code {code}; its error stands above in this log.", code)

    def meet(self, device: str) -> None:
        """Makes the process group of all ranks on this machine's loopback; the port is one that is free."""
        dist: Any = importlib.import_module("torch.distributed")
        store = dist.TCPStore("127.0.0.1", 0, len(self._pipes) + 1, is_master=True, wait_for_workers=False)
        self.send(store.port)
        join(store, device, 0, len(self._pipes) + 1)

    def send(self, message: Any) -> None:
        """Says something to every rank."""
        for pipe in self._pipes:
            pipe.send(message)

    def receive(self, timeout_s: float | None = None) -> list[Any]:
        """What every rank answers. Raises TimeoutError where one does not in time."""
        answers = []
        for pipe in self._pipes:
            if timeout_s is not None and not pipe.poll(timeout_s):
                raise TimeoutError
            answers.append(pipe.recv())
        return answers

    def answered(self) -> bool:
        """True where a rank's answer waits to be read."""
        return any(pipe.poll(0) for pipe in self._pipes)

    def end(self) -> None:
        """Lets the ranks end, and sees to it that they do."""
        self._ending = True
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Led:
    """Rows of all ranks: what is done to rank 0's rows is done to those of the others at the same time."""

    def __init__(self, own: Rows, ranks: Ranks) -> None:
        self.rows = own.rows
        self._own = own
        self._ranks = ranks
        self._lock = threading.Lock()  # the event loop drops rows, the model's thread does the rest
        self._memory: list[hf_memory.Memory | None] = []
        self._working = False
        threading.Thread(target=self._guard, daemon=True).start()

    @property
    def used(self) -> int:
        """Rows in use."""
        return self._own.used

    def prefill(self, prompt: Sequence[int]) -> torch.Tensor:
        """`Slots.prefill` in every rank."""
        logits: torch.Tensor = self._all("prefill", list(prompt))
        return logits

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """`Slots.decode` in every rank."""
        logits: torch.Tensor = self._all("decode", list(tokens))
        return logits

    def drop(self, row: int) -> None:
        """`Slots.drop` in every rank."""
        self._all("drop", row)

    def cut(self, used: int) -> None:
        """`Slots.cut` in every rank."""
        self._all("cut", used)

    def pretend(self, rows: int, length: int) -> None:
        """`Slots.pretend` in every rank."""
        self._all("pretend", rows, length)

    def memory(self) -> hf_memory.Memory | None:
        """All ranks' memory; that of the others as of their last step."""
        return hf_memory.total([self._own.memory(), *self._memory])

    def reset_memory(self) -> None:
        """`Slots.reset_memory` in every rank."""
        self._all("reset_memory")

    def _all(self, name: str, *arguments: Any) -> Any:
        """Does one thing in every rank. Raises what failed in this one, or RuntimeError with what failed elsewhere; a
        row that a failed prefill took in some ranks is then free again in all."""
        with self._lock:
            before = self._own.used
            self._ranks.send((name, arguments))
            failed: Exception | None = None
            result = None
            self._working = True
            try:
                result = getattr(self._own, name)(*arguments)
            except Exception as error:  # noqa: BLE001 - the others must be heard first, whatever it is
                failed = error
            self._working = False
            failed = self._answers(failed)
            if failed is not None:
                self._ranks.send(("cut", (before,)))
                self._own.cut(before)
                self._answers(None)
                raise failed
            return result

    def _guard(self) -> None:
        """Ends all ranks where this one waits for a rank in vain: one that has answered, since it failed, say."""
        waited = 0
        while waited < STUCK_S:
            time.sleep(1.0)
            waited = waited + 1 if self._working and self._ranks.answered() else 0
        fall("The ranks of the model are out of step: one is through with a step that another cannot end.", 1)

    def _answers(self, failed: Exception | None) -> Exception | None:
        """Waits until every rank is through; what failed, here or there."""
        try:
            answers = self._ranks.receive(STUCK_S)
        except TimeoutError:
            if failed is not None:
                traceback.print_exception(failed)
            fall("A rank of the model did not come to the end of a step; the ranks are out of step.", 1)
        except (EOFError, OSError):
            fall("A rank of the model is gone.", 1)
        self._memory = [memory for _, memory in answers]
        return failed or next((error for error, _ in answers if error is not None), None)


def fall(sentence: str, code: int) -> None:
    """Ends this program at once, and with it the ranks that follow it: a collective that is not met never returns."""
    print(sentence, file=sys.stderr, flush=True)
    os._exit(code if code == 2 else 1)


def pipe_to_leader() -> Connection | None:
    """The pipe of a rank that follows; None in the program that was started."""
    handle = os.environ.get(PIPE)
    return None if handle is None else Connection(int(handle))


def bind_to_leader() -> None:
    """Ties this rank's life to its leader's. What ends the whole group gracefully is the leader's to answer."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError, AttributeError):  # elsewhere than on Linux the end of the pipe does it, a step later
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
    if os.getppid() == 1:
        os._exit(1)  # it was gone before


def join(store: Any, device: str, rank: int, count: int) -> None:
    """Joins the process group: NCCL between GPUs, gloo between CPUs."""
    import torch
    import torch.distributed as dist

    if device == "cpu":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
        return
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", store=store, rank=rank, world_size=count, device_id=torch.device(device))


def meet_leader(pipe: Connection, device: str) -> None:
    """Joins the group that the leader makes."""
    dist: Any = importlib.import_module("torch.distributed")
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    join(dist.TCPStore("127.0.0.1", pipe.recv(), count, is_master=False), device, rank, count)


def follow(pipe: Connection, make_rows: Callable[[], Rows]) -> int:
    """Does what the leader does until it closes the pipe; the exit code."""
    rows = make_rows()
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            os._exit(0)  # without the farewells of NCCL, which wait for ranks that are gone
        error = None
        try:
            getattr(rows, name)(*arguments)
        except Exception as failed:  # noqa: BLE001 - the leader decides what becomes of it
            traceback.print_exception(failed)
            error = plain(failed)
        pipe.send((error, rows.memory()))


def plain(error: Exception) -> Exception:
    """An error that travels: its kind where the leader treats it in a way of its own, its words in any case."""
    import torch

    kind = torch.OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else RuntimeError
    return kind(f"rank {os.environ['RANK']}: {type(error).__name__}: {error}")
