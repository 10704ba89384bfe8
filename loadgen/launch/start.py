"""Starting a server: its folder, its environment, its process. In: a `Command` and a folder. Out: a `Server`.

A server runs in a session of its own, so that a Ctrl-C at the terminal reaches loadgen alone and so that its whole
group can be signalled; its input is empty, its output goes through `LogCopy` into ``server.log``. Its working directory
is its own folder: a python adds its working directory to its import path, where the user's folders named ``datasets``
or ``models`` would stand in the way of packages of that name.

Pinning to cores is done by moving the starting *thread* there for the moment of the spawn: a child inherits its parent
thread's cores, so every thread of the engine has them from its first instruction on, which a call after the spawn
could not promise, and no code of ours runs between fork and exec, which would not be safe in a process with threads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from loadgen.errors import LaunchError, UsageError
from loadgen.launch import memory, server_json
from loadgen.launch.command import Command
from loadgen.launch.environment import inherited
from loadgen.launch.ports import free_port
from loadgen.launch.processes import COOKIE
from loadgen.launch.server import PortLost, Server, Spawned
from loadgen.redact import secret_values, struck_out

PORT_TRIES = 3


def start_ready(
    make: Callable[[int], Command],
    folder: Path,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    secrets: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    keep: bool = False,
) -> Server:
    """A ready server from ``make(port)``, on another port if the first is lost, at most three times.

    ``keep`` makes it one that may outlive this process (`Server.keep`); it still has to be stopped or kept. Whatever
    goes wrong, the server is stopped before the error goes on. Raises what `Server.wait_ready` raises.
    """
    hidden = secret_values(os.environ if environ is None else environ, secrets)
    for attempt in range(1, PORT_TRIES + 1):
        server = start(make(free_port()), folder, secrets=secrets, environ=environ, keep=keep)
        try:
            with struck_out(hidden):  # an engine that refuses a request may quote its headers
                server.wait_ready(cancelled=cancelled)
            return server
        except LaunchError as error:
            left = server.stop().problems()
            if left:
                raise type(error)("\n".join((str(error), *left))) from error
            if not isinstance(error, PortLost) or attempt == PORT_TRIES:
                raise
        except BaseException:
            server.stop()
            raise
    raise AssertionError("the loop returns or raises")


def start(
    command: Command,
    folder: Path,
    *,
    secrets: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    keep: bool = False,
) -> Server:
    """Start the server; it is not ready yet (`Server.wait_ready`).

    ``folder`` is made if need be (0700) and gets server.json, server.log and the command's files (0600). ``secrets``
    are values that must not appear in any of them, beside those of variables that are named like secrets. ``environ``
    is what the server inherits from, by default our own variables. Raises LaunchError if there is no such program, or
    if the folder cannot be written (a full disk).
    """
    environ = os.environ if environ is None else environ
    folder = folder.absolute()
    cookie = uuid.uuid4().hex
    env = _child_environment(command, environ) | {COOKIE: cookie}
    hidden = secret_values(env, (*secrets, *(env[name] for name in command.secret_env)))
    state = server_json.fresh(command, env, cookie, hidden)
    with _writing(command, folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in command.files.items():
            _write_private(folder / name, text)
        server_json.write(folder / server_json.FILE, state)
    before = memory.used(command.devices)
    try:
        process = _spawn(command, folder, env)
    except OSError as error:
        with contextlib.suppress(OSError):
            server_json.write(folder / server_json.FILE, state | {"state": "failed", "ended": server_json.now()})
        raise LaunchError(_no_program(command, error)) from error
    try:
        with _writing(command, folder):
            return Server(command, folder, Spawned(process, state, cookie, hidden, before, keep))
    except BaseException:  # nobody has the server yet, so nobody else can end it
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


@contextlib.contextmanager
def _writing(command: Command, folder: Path) -> Iterator[None]:
    """Says which server could not be written down; one that is not, would not be found again if we were killed."""
    try:
        yield
    except OSError as error:
        raise LaunchError(
            f"{command.engine} (target {command.target}) is not started: cannot write {folder}: {error.strerror}; "
            "free some space there, or choose another place with --store."
        ) from error


def _spawn(command: Command, folder: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with _on_cores(command):
        return subprocess.Popen(
            command.argv,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextlib.contextmanager
def _on_cores(command: Command) -> Iterator[None]:
    """Run this thread, and so whatever it spawns, on the command's cores; then as before."""
    if not command.cpus:
        yield
        return
    place = f"targets.{command.target}.cpus"
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError(f"{place}: this system cannot pin a process to cores; take the line out.")
    before = os.sched_getaffinity(0)
    if missing := set(command.cpus) - before:
        have = ", ".join(map(str, sorted(before)))
        raise UsageError(f"{place}: core {min(missing)} is not among those that this process may use ({have}).")
    os.sched_setaffinity(0, command.cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _child_environment(command: Command, environ: Mapping[str, str]) -> dict[str, str]:
    env = {**inherited(environ), **command.env}
    for theirs, ours in command.secret_env.items():
        if ours not in environ:
            raise UsageError(f"targets.{command.target}.api_key_env: the variable {ours} is not set; export it first.")
        env[theirs] = environ[ours]
    return env


def _no_program(command: Command, error: OSError) -> str:
    program = command.argv[0]
    if isinstance(error, FileNotFoundError):
        how = command.install or "install it, or name the python or image that has it in the target."
        return f"{command.engine} (target {command.target}): there is no program {program!r} here: {how}"
    return f"{command.engine} (target {command.target}): {program!r} could not be started: {error.strerror}."


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
