"""Models before the launch: made from a config where a scenario says so, and missed in a sentence where absent."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from loadgen.errors import LaunchError
from loadgen.launch.command import is_local
from loadgen.launch.environment import inherited
from loadgen.launch.hubs import hub_cache, not_at_hand, not_to_be_had

LONGEST_MAKE_S = 900.0
MAKER = "make_model.py"


def make_model(config: Path, out_root: Path, python: str, seed: int, launchers: Path) -> Path:
    """The folder of a model made from ``config`` with random weights and a tokenizer trained on the shipped prompts.

    Made by ``launchers/make_model.py`` under ``python``, which needs the packages of the extra ``hf``; a folder made
    from the same inputs is used again. Raises LaunchError, with the program's own words, if it cannot be made.
    """
    out = made_folder(config, out_root, seed, launchers)
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = launchers / MAKER
    words = [python, str(program), "--config", str(config), "--prompts", str(_prompts())]
    words += ["--out", str(out), "--seed", str(seed)]
    try:
        done = subprocess.run(
            words,
            env=inherited(os.environ),
            cwd=out.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LONGEST_MAKE_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise LaunchError(f"no model can be made from {config}: there is no python {python!r}.") from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"making a model from {config} took longer than {LONGEST_MAKE_S:.0f} s.") from error
    if done.returncode != 0 or not (out / "config.json").exists():
        said = "\n".join(f"  {line}" for line in done.stdout.decode(errors="replace").strip().splitlines()[-20:])
        raise LaunchError(
            f"no model could be made from {config} (exit code {done.returncode}); {program.name} said:\n{said}"
        )
    return out


def made_folder(config: Path, out_root: Path, seed: int, launchers: Path) -> Path:
    """Where `make_model` puts the model of these inputs; its name holds their digest, so it may be there already.

    Raises LaunchError for a config that cannot be read.
    """
    try:
        parts = [config.read_bytes(), _prompts().read_bytes(), (launchers / MAKER).read_bytes(), str(seed).encode()]
    except OSError as error:
        raise LaunchError(f"no model can be made from {config}: {error.strerror}: {error.filename}.") from error
    key = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]
    return out_root.absolute() / f"{config.stem}-{key}"


def _prompts() -> Path:
    """The shipped prompts, on which the tokenizers of made models are trained."""
    return Path(str(files("loadgen.workloads") / "natural.jsonl"))


def missing_model_sentence(
    model: str, environ: Mapping[str, str] | None = None, *, folder: Path = Path(), ask: bool = False
) -> str | None:
    """Why this model cannot be served, before anything is started; None if nothing speaks against it.

    A path must exist and be a model (a folder with config.json, or a file). A hub's id must be in the local cache if
    ``environ`` (ours with what recipe and target add) says that the hub is not to be asked; otherwise the engine
    fetches it, and the hub must have it: with ``ask`` it is asked whether it does.
    """
    environ = os.environ if environ is None else environ
    if is_local(model):
        path = Path(os.path.expanduser(model)) if model.startswith("~") else folder / model
        if not path.exists():
            return f"the model {model} does not exist ({path.absolute()}); give a folder that does, or a hub's id."
        if path.is_dir() and not any((path / name).exists() for name in ("config.json", "model.bin", "params.json")):
            return f"the folder {path} is no model: it has no config.json; give the folder that holds the weights."
        return None
    return not_at_hand(model, environ) or (not_to_be_had(model, environ) if ask else None)


def model_revision(model: str, environ: Mapping[str, str]) -> str | None:
    """The commit of a hub's model that the local cache holds as its newest; None for a path, and where it has none.

    That is the one an engine on this machine loads unless it is told another; an engine that says its own knows better.
    """
    if is_local(model):
        return None
    try:
        main = hub_cache(environ) / f"models--{model.replace('/', '--')}" / "refs" / "main"
        return main.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
