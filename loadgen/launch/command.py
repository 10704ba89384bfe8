"""What goes into a launch (`LaunchSpec`, a target as far as its launch goes) and what is run in the end (`Command`)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import UsageError
from loadgen.launch.environment import inherited
from loadgen.launch.recipe import Call, Fact, Ready
from loadgen.redact import is_secret


class OptionError(UsageError):
    """A target that asks of its engine what the recipe does not have. ``path`` is its place in the scenario, dotted."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A target as far as its launch goes; the names are the scenario's.

    ``folder`` is the scenario's: paths that start with ``./`` or ``../`` are relative to it. ``devices`` and ``cpus``
    are empty where the scenario names none. ``api_key_env`` is the name of one of our own variables.
    """

    name: str
    engine: str
    model: str
    tokenizer: str | None = None
    served_name: str | None = None
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    python: str | None = None
    image: str | None = None
    devices: tuple[int | str, ...] = ()
    cpus: tuple[int, ...] = ()
    folder: Path = Path()
    api_key_env: str | None = None
    backend: str | None = None


class Container(msgspec.Struct, frozen=True):
    """A container of ours: the program that runs it, its name, and the label by which it is found again."""

    program: str
    name: str
    label: str


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `start` needs, and what the rest of a run must know of the engine.

    ``model`` is a path or a hub's id. ``env`` is added to the inherited variables; ``secret_env`` too, by reference
    (the engine's name -> ours). ``files`` are written into the server's folder, its working directory. ``request`` is
    added to every request, ``exact`` to those that ask for exactly N tokens (``"{n}"`` stands for N). ``metrics`` is a
    path or None, ``seen`` names what stands there, ``reset_peak`` is a path or None; ``version`` is a command that
    prints the engine's version, or empty.
    ``cpus`` is empty where the server is not pinned, or its container is.
    """

    target: str
    engine: str
    model: str
    run_id: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    secret_env: Mapping[str, str]
    files: Mapping[str, str]
    request: Mapping[str, Any]
    exact: Mapping[str, Any]
    preload: tuple[Call, ...]
    backend: str
    port: int
    served_name: str
    ready: Ready
    metrics: str | None
    seen: Mapping[str, str]
    reset_peak: str | None
    facts: Mapping[str, Fact]
    version: tuple[str, ...]
    stop: tuple[tuple[str, ...], ...]
    grace_s: float
    container: Container | None
    cpus: tuple[int, ...]
    devices: tuple[int | str, ...]
    install: str
    notes: tuple[str, ...]

    @property
    def base_url(self) -> str:
        """The endpoint's root, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"


def is_local(model: str) -> bool:
    """True for a model that is a path and not a hub's id."""
    return model.startswith(("/", "./", "../", "~"))


def dry_run_text(command: Command, environ: Mapping[str, str] | None = None) -> str:
    """One line for a POSIX shell that starts the same thing: every inherited variable by name, every added one by
    value, secrets by name only."""
    quote = shlex.quote
    names = inherited(os.environ if environ is None else environ)
    env = [f'{name}="${name}"' for name in names if name not in command.env and name not in command.secret_env]
    env += [f'{ours}="${theirs}"' for ours, theirs in command.secret_env.items()]
    for name, value in command.env.items():
        env.append(f'{name}="${name}"' if is_secret(name) else f"{name}={quote(value)}")
    files = "".join(f"printf %s {quote(text)} > {quote(name)} && " for name, text in command.files.items())
    pinned = f"taskset -c {','.join(map(str, command.cpus))} " if command.cpus else ""
    return f"{files}env -i {' '.join(env)} {pinned}{shlex.join(command.argv)}"
