"""The flags of ``loadgen launch`` as what is to be launched. In: `Flags`. Out: a `LaunchSpec`, and how to say what is
wrong with it in the words of the flags."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from loadgen.errors import UsageError

if TYPE_CHECKING:
    from loadgen.launch import LaunchSpec, OptionError
    from loadgen.scenario import MadeModel


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. ``target`` is ``FILE:NAME``; all others are as in a scenario's target, None where absent."""

    engine: str | None
    model: str | None
    target: str | None
    profile: str | None
    options: Sequence[str]
    env: Sequence[str]
    args: Sequence[str]
    devices: str | None
    python: str | None
    image: str | None
    served_name: str | None
    tokenizer: str | None


def spec_of(flags: Flags) -> tuple[LaunchSpec, MadeModel | None]:
    """What is to be launched, and its model where that must be made first.

    Raises UsageError for flags that are missing, contradict each other or cannot be read.
    """
    spec, made = _from_target(flags) if flags.target is not None else _from_engine(flags)
    single = {name: getattr(flags, name) for name in ("python", "image", "served_name", "tokenizer")}
    changes: dict[str, Any] = {name: _from_here(value) for name, value in single.items() if value is not None}
    if flags.devices is not None:
        devices = [word.strip() for word in flags.devices.split(",") if word.strip()]
        changes["devices"] = tuple(int(word) if word.isdigit() else word for word in devices)
    return (
        msgspec.structs.replace(
            spec,
            options={**spec.options, **dict(_option(text) for text in flags.options)},
            env={**spec.env, **dict(_variable(text) for text in flags.env)},
            args=(*spec.args, *(word for text in flags.args for word in _words(text))),
            **changes,
        ),
        made,
    )


def in_flags(error: OptionError, flags: Flags) -> UsageError:
    """The error with the flag as its place; one in a scenario's target keeps that as its place."""
    if flags.target is not None:
        return UsageError(f"{flags.target}: {error}")
    _, _, words = error.path.split(".", 2)
    flag = f"-o {words.removeprefix('options.')}" if words.startswith("options.") else f"--{words.replace('_', '-')}"
    return UsageError(f"{flag}: {error.reason}")


def pythons_of(texts: Sequence[str], engines: Sequence[str]) -> dict[str, str]:
    """Interpreters by engine, of ``NAME=PATH``. Raises UsageError for what is none."""
    found = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError(f"--python {text}: write --python NAME=PATH, an engine and its interpreter.")
        if name not in engines:
            raise UsageError(f"--python {text}: there is no engine {name!r} here; there are {', '.join(engines)}.")
        found[name] = str(Path(os.path.expanduser(path)))
    return found


def _from_engine(flags: Flags) -> tuple[LaunchSpec, MadeModel | None]:
    from loadgen.launch import LaunchSpec

    if flags.engine is None:
        raise UsageError("launch what? Name an engine (`loadgen engines` lists them) or --target FILE.yaml:NAME.")
    if flags.model is None:
        raise UsageError(f"launch {flags.engine}: --model is missing; give a hub's id, a folder or a config.json.")
    if flags.profile is not None:
        raise UsageError(f"--profile {flags.profile}: profiles belong to a scenario; name one with --target FILE:NAME.")
    path = Path(os.path.expanduser(flags.model))
    made = _made(path) if path.suffix == ".json" else None
    model = str(path.absolute()) if path.exists() else flags.model
    return LaunchSpec(name=Path(flags.engine).stem, engine=flags.engine, model=model, folder=Path.cwd()), made


def _made(config: Path) -> MadeModel:
    from loadgen.scenario import MadeModel

    if not config.is_file():
        raise UsageError(f"--model {config}: there is no such file.")
    return MadeModel(config=str(config.absolute()))


def _from_target(flags: Flags) -> tuple[LaunchSpec, MadeModel | None]:
    from loadgen import host, scenario
    from loadgen.standing import target_spec

    path, _, name = str(flags.target).rpartition(":")
    if not path or not name:
        raise UsageError(f"--target {flags.target}: write FILE.yaml:NAME, a scenario and one of its targets.")
    for word in ("engine", "model"):
        if getattr(flags, word) is not None:
            raise UsageError(f"--target {flags.target}: the target names its {word} itself; take one of the two out.")
    loaded = scenario.load(Path(path), profile=flags.profile, machine=host.machine())
    return target_spec(loaded, name)


def _from_here(text: str) -> str:
    """A relative path of the command line, which starts where the user stands and not where a scenario lies."""
    return str(Path(text).absolute()) if text.startswith(("./", "../")) else text


def _option(text: str) -> tuple[str, Any]:
    from loadgen.scenario.tree import parse
    from loadgen.standing import BESIDE_OPTIONS

    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"-o {text}: is no setting; write -o word=value (`loadgen engines NAME` lists the words).")
    if name.strip() in BESIDE_OPTIONS:
        flag = name.strip().replace("_", "-")
        raise UsageError(f"-o {text}: this stands beside the options; write --{flag} {value}.")
    node, problems = parse(value, f"-o {name}")
    if problems:
        raise UsageError(str(problems[0]))
    return name.strip(), None if node is None else node.plain()


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--args {text}: a shell could not read this either ({error}); mend its quotes.") from error


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--env {text}: is no variable; write --env NAME=VALUE.")
    return name, value
