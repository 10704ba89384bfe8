"""Locks: who may measure now, whatever becomes of the process that has them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadgen.errors import BusyError, LoadgenError, StoreError
from loadgen.locks import Wanted, held, machine_locks, name_lock

HOLD = """
import sys, time
from pathlib import Path
from loadgen.locks import held, name_lock
with held([name_lock(Path(sys.argv[1]), sys.argv[2])], "nightly of a test", 0, print):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def another_holds(store: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(store), name], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def take(wanted: list[Wanted], wait_s: float = 0) -> list[str]:
    said: list[str] = []
    with held(wanted, "this test", wait_s, said.append):
        pass
    return said


def test_what_is_held_is_busy_and_the_sentence_says_by_whom(tmp_path: Path) -> None:
    with another_holds(tmp_path, "n") as holder, pytest.raises(BusyError) as error:
        take([name_lock(tmp_path, "n")])
    assert error.value.exit_code == 75
    assert str(error.value).startswith(f"the nightly n is held by nightly of a test (pid {holder.pid} on ")
    assert str(error.value).endswith("; wait for it with --wait 2h, or try later.")


def test_kill_9_frees_a_lock_and_what_its_holder_wrote_is_not_believed(tmp_path: Path) -> None:
    with another_holds(tmp_path, "n") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert take([name_lock(tmp_path, "n")]) == []
        with held([name_lock(tmp_path, "n")], "me", 0, print):
            (tmp_path / "locks" / "n.json").write_text(f'{{"pid": {holder.pid}, "started": 1.0, "host": "", ')
            with pytest.raises(BusyError, match=r"^the nightly n is held by another process;"):
                take([name_lock(tmp_path, "n")])


def test_two_names_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with another_holds(tmp_path, "n"):
        assert take([name_lock(tmp_path, "m")]) == []


def test_one_that_waits_has_it_when_the_holder_ends(tmp_path: Path) -> None:
    with another_holds(tmp_path, "n") as holder:
        said: list[str] = []

        def say(text: str) -> None:
            said.append(text)
            holder.kill()

        with held([name_lock(tmp_path, "n")], "this test", 60, say):
            pass
    (waiting,) = said
    assert waiting.startswith("waiting for the nightly n, which is held by nightly of a test")


def test_waiting_has_an_end(tmp_path: Path) -> None:
    with another_holds(tmp_path, "n"):
        began = time.monotonic()
        with pytest.raises(BusyError):
            take([name_lock(tmp_path, "n")], 1)
        assert time.monotonic() - began >= 1


def test_locks_of_gpus_are_shared_by_stores_and_taken_in_one_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADGEN_LOCKS", str(tmp_path))
    wanted = machine_locks(["GPU-b", "GPU-a", "GPU-b"])
    assert [one.what for one in wanted] == ["GPU-a", "GPU-b"]
    with held(wanted[:1], "me", 0, print), pytest.raises(BusyError, match=r"^GPU-a is held by me "):
        take(machine_locks(["GPU-b", "GPU-a"]))
    assert take(wanted) == []  # what was taken before the one that is busy was given back


def test_who_shares_the_locks_of_a_machine_may_take_them_and_read_who_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADGEN_LOCKS", str(tmp_path))
    before = os.umask(0o077)
    try:
        with held(machine_locks(["GPU-a"]), "me", 0, print):
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"GPU-a.lock": 0o666, "GPU-a.json": 0o644}
    with held([name_lock(tmp_path, "n")], "me", 0, print):
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "locks").iterdir()} == {0o600}


def test_a_shared_folder_of_locks_that_is_not_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADGEN_LOCKS", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="LOADGEN_LOCKS: there is no folder"):
        machine_locks(["GPU-a"])


def test_a_folder_of_locks_that_is_somebody_elses_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOADGEN_LOCKS", raising=False)
    monkeypatch.setattr("loadgen.locks.PLACES", (str(tmp_path / "none"), str(tmp_path)))
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"loadgen-{os.getuid()}").symlink_to(tmp_path / "theirs")
    with pytest.raises(StoreError, match="is not this user's folder"):
        machine_locks(["GPU-a"])
    (tmp_path / f"loadgen-{os.getuid()}").unlink()
    (one,) = machine_locks(["GPU-a"])
    assert one.path.parent.stat().st_mode & 0o777 == 0o700
    assert take([one]) == []


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that loadgen-locks.conf makes, where everybody can come to it: pytest's own are root's alone."""
    monkeypatch.delenv("LOADGEN_LOCKS", raising=False)
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = Path(place, "loadgen")
        folder.mkdir()
        folder.chmod(0o1777)
        monkeypatch.setattr("loadgen.locks.SHARED", str(folder))
        monkeypatch.setattr("loadgen.locks.PLACES", (place,))
        yield folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root may make that folder")
def test_the_machines_folder_of_locks_is_used_where_root_made_it_and_no_other(shared: Path) -> None:
    (one,) = machine_locks(["cores"])
    assert (one.path.parent, one.mode) == (shared, 0o666)
    os.chown(shared, 12345, 12345)  # whoever came first to a place that everybody can write
    (one,) = machine_locks(["cores"])
    assert (one.path.parent.name, one.mode) == ("loadgen-0", 0o600)
    shared.rmdir()
    shared.symlink_to(shared.parent)
    (one,) = machine_locks(["cores"])
    assert one.path.parent.name == "loadgen-0"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may be two users")
def test_two_users_keep_each_other_out_and_whoever_comes_after_a_kill_gets_in(shared: Path) -> None:
    assert tried_as(20001) == "has it"
    with held(machine_locks(["cores"]), "a run of root", 0, print):
        assert tried_as(20001).startswith("the lock of this machine's cores is held by a run of root (pid ")
    assert tried_as(20001, then=lambda: os.kill(os.getpid(), signal.SIGKILL)) == ""
    (left,) = shared.glob("cores.json")
    assert left.stat().st_uid == 20001  # nobody but root may take it away
    assert tried_as(20002) == "has it"
    assert {path.stat().st_mode & 0o777 for path in shared.glob("*.lock")} == {0o666}
    shared.chmod(0o755)
    assert tried_as(20002).startswith(f"the locks of this machine lie in {shared}, which this user cannot write")


def tried_as(uid: int, then: Callable[[], None] = lambda: None) -> str:
    """What another user hears who wants the cores; '' if it is killed by ``then``, which it does when it has them."""
    import filelock  # noqa: F401 - the libraries may lie where that user cannot read

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            with held(machine_locks(["cores"]), f"a run of {uid}", 0, print):
                then()
            os.write(write, b"has it")
        except LoadgenError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as file:
        return file.read()


def test_what_may_not_be_cleared_away_costs_a_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a sticky bit nobody may delete what another user's process wrote before it was killed."""
    monkeypatch.setenv("LOADGEN_LOCKS", str(tmp_path))
    (tmp_path / "GPU-a.json").mkdir()  # can be neither replaced nor unlinked, by root either
    assert take(machine_locks(["GPU-a"])) == []
    assert take(machine_locks(["GPU-a"])) == []  # and it was given back


def test_nothing_wanted_is_nothing_held(tmp_path: Path) -> None:
    assert machine_locks([]) == []
    assert take([]) == []
