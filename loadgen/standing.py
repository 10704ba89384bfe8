"""One server by itself, outside of any run: from flags or a scenario's target to an endpoint, until it is told to end.

In: a `LaunchSpec`. Out: its command line (`command_of`), or a server that stands (`stand`). The server's folder lies in
the store like that of a run (whose scenario is called "launch"), so that `leftovers` finds it after a kill -9; it holds
no run.json, and so no report takes it for a run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import msgspec

from loadgen import launch
from loadgen.errors import EXIT_SIGINT, EXIT_SIGTERM, LaunchError, UsageError
from loadgen.launch.ports import is_free
from loadgen.plan import launch_key
from loadgen.scenario import Cell, Loaded, MadeModel, Target
from loadgen.store import create_run, read_json
from loadgen.targets import local_model, models_folder, spec_of

BESIDE_OPTIONS = ("devices", "tokenizer", "served_name", "port")
"""Words of recipes that are no options of a target: they stand beside those, and have flags of their own."""

_LOOK_EVERY_S = 0.1


def target_spec(loaded: Loaded, name: str) -> tuple[launch.LaunchSpec, MadeModel | None]:
    """What a scenario's target is to be launched as, and its model where that must be made first.

    Raises UsageError for a target that does not exist or that launches nothing.
    """
    targets: Mapping[str, Target] = loaded.scenario.targets
    if name not in targets:
        raise UsageError(f"--target {loaded.path}:{name}: there is no target {name!r}; there are {', '.join(targets)}.")
    if not _launches(targets[name]):
        raise UsageError(f"--target {loaded.path}:{name}: this target is an endpoint; there is nothing to launch.")
    return _spec(loaded.path.parent.absolute(), name, targets[name])


def planned_commands(
    loaded: Loaded, cells: Sequence[Cell], tell: Callable[[str], None]
) -> Iterator[tuple[str, launch.Command]]:
    """The name of a target and its command, for every configuration that a run of these cells launches.

    Nothing is started or made; what is not there yet is told. Raises UsageError for what a recipe does not have.
    """
    folder = loaded.path.parent.absolute()
    known: set[str] = set()
    for cell in cells:
        for name, target in cell.scenario.targets.items():
            if _launches(target) and (key := launch_key(name, target)) not in known:
                known.add(key)
                spec = with_model(*_spec(folder, name, target), tell, make=False)
                yield name, command_of(spec, launch.free_port(), "plan")


def _launches(target: Target) -> bool:
    return target.engine is not None and target.launched


def _spec(folder: Path, name: str, target: Target) -> tuple[launch.LaunchSpec, MadeModel | None]:
    if not isinstance(target.model, MadeModel):
        return spec_of(folder, name, target, local_model(folder, target)), None
    config = str(folder / target.model.config)
    return spec_of(folder, name, target, None), target.model.model_copy(update={"config": config})


def with_model(
    spec: launch.LaunchSpec, made: MadeModel | None, tell: Callable[[str], None], *, make: bool
) -> launch.LaunchSpec:
    """The spec with the folder of its model, which is made if need be and ``make`` is true.

    Raises UsageError for a model that is not there, LaunchError for one that cannot be made.
    """
    if made is None:
        missing = None if spec.image else _missing(spec, ask=make)
        if missing and make:
            raise UsageError(missing)
        if missing:
            tell(missing)
        return spec
    config, launchers = Path(made.config), launch.launchers_folder()
    folder = launch.made_folder(config, models_folder(), made.seed, launchers)
    if make:
        tell(f"the weights are random, of the architecture in {config}")
        python = launch.resolved(spec.python or sys.executable, spec.folder)
        folder = launch.make_model(config, models_folder(), python, made.seed, launchers)
    elif not folder.exists():
        tell(f"{folder} does not exist yet: it is made from {config} at the first launch")
    return msgspec.structs.replace(spec, model=str(folder), served_name=spec.served_name or config.stem)


def _missing(spec: launch.LaunchSpec, ask: bool) -> str | None:
    """Why the model of an engine outside containers is not there. A hub is asked where the engine knows one, if
    ``ask``."""
    try:
        environ = {**os.environ, **command_of(spec, 1, "check").env}
    except launch.OptionError:  # the command that is started says it, in the words of its flags
        return None
    asks_hub = "hub" in launch.load_recipe(spec.engine, spec.folder).options
    return launch.missing_model_sentence(spec.model, environ, folder=spec.folder, ask=ask and asks_hub)


def command_of(spec: launch.LaunchSpec, port: int, run_id: str, folder: Path | None = None) -> launch.Command:
    """The command that starts the server on this port. Raises UsageError for what its recipe does not have."""
    recipe = launch.load_recipe(spec.engine, spec.folder)
    return launch.render(recipe, spec, port=port, run_id=run_id, launchers=launch.launchers_folder(), folder=folder)


def check_port(port: int | None) -> None:
    """Raises UsageError for a port that another program holds."""
    if port is not None and not is_free(port):
        raise UsageError(f"--port {port}: another program listens there; name another, or leave the flag out.")


class Stood(msgspec.Struct, frozen=True):
    """How a server that stood came to its end. ``exit_code`` is 130 after Ctrl-C, 143 after SIGTERM or a terminal that
    was closed; ``problems`` has a sentence for everything that is left of it."""

    exit_code: int
    problems: tuple[str, ...]


def stand(spec: launch.LaunchSpec, store: Path, port: int | None, announce: Callable[[launch.Server], None]) -> Stood:
    """Starts the server, calls ``announce`` when it is ready, waits until a signal comes, and stops it.

    ``port`` None takes a free one. Raises LaunchError, with the tail of its log, for a server that does not get ready
    or that dies while it stands, and UsageError for what its recipe does not have.
    """
    run = create_run(store, "launch")
    folder = run.server_folder(f"{spec.name}-1")
    with _signals() as came:
        try:
            server = launch.start_ready(
                lambda free: command_of(spec, port or free, run.id, folder),
                folder,
                cancelled=lambda: bool(came),
                secrets=[os.environ[name] for name in [spec.api_key_env or ""] if name in os.environ],
            )
        except launch.LaunchCancelled:
            whole = read_json(folder / "server.json")["state"] == "stopped"
            return Stood(came[0], () if whole else (f"Not all of it is gone: see {folder / 'server.json'}.",))
        return _until_the_end(server, announce, came)


def _until_the_end(server: launch.Server, announce: Callable[[launch.Server], None], came: list[int]) -> Stood:
    with server:
        announce(server)
        while not came and server.alive():
            time.sleep(_LOOK_EVERY_S)
        died = None if came else server.death("while it stood")
        problems = server.stop().problems()
    if died is not None:
        raise LaunchError("\n".join([str(died), *problems])) from died
    return Stood(came[0], tuple(problems))


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The exit codes of the signals that came, in their order; none of them ends this process by itself.

    A terminal that is closed counts as well, unless nohup took that signal away: the server would outlive it.
    """
    came: list[int] = []
    codes = {signal.SIGINT: EXIT_SIGINT, signal.SIGTERM: EXIT_SIGTERM, signal.SIGHUP: EXIT_SIGTERM}
    wanted = [number for number in codes if signal.getsignal(number) is not signal.SIG_IGN]

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(codes[signal.Signals(number)])

    before = {number: signal.signal(number, note) for number in wanted}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
