"""The targets of a run as places that answer: endpoints that exist are tried, engines are launched, kept and stopped.

In: the scenario's targets. Out: a `Site` for each step of the plan, whose server is up. A server is started when the
first step that needs it comes and stopped after its last; whatever happens, `Sites.close` stops what is left. One that
dies in the middle is started once more for the steps that remain; a second death and what never came up at all are
given up, for every later server of the same configuration. With ``keep`` those that nothing needs the place of stay up.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from loadgen import launch
from loadgen.errors import LaunchError
from loadgen.jobs import Site
from loadgen.launch.processes import ProcessId
from loadgen.plan import Plan, launch_key
from loadgen.probe import probe
from loadgen.redact import struck_out
from loadgen.scenario import Cell, Target
from loadgen.scenario.target import MadeModel
from loadgen.store import Run, read_json
from loadgen.summary import Doubt
from loadgen.targets import (
    doubts_of,
    headers_of,
    hidden_of,
    local_model,
    models_folder,
    options_of,
    secrets_of,
    spec_of,
)
from loadgen.telemetry.sampler import Machine


class Watcher(Protocol):
    """Who is told how a run goes on; ``cli`` shows it."""

    def say(self, text: str) -> None:
        """Something happened that a person would want to know."""


class Sites:
    """All targets of one run. Use it as a context manager."""

    def __init__(
        self, run: Run, folder: Path, watcher: Watcher, cancelled: Callable[[], bool], plan: Plan, keep: bool = False
    ) -> None:
        self._run = run
        self._folder = folder
        self._watcher = watcher
        self._cancelled = cancelled
        self._uses = [one.server for one in plan.searches or plan.steps]
        self._keep = keep
        self._servers: dict[str, launch.Server] = {}
        self._keys: dict[str, str] = {}
        self._deaths: dict[str, int] = {}
        self._given_up: dict[str, str] = {}
        self._models: dict[str, Path] = {}
        self._probed: set[str] = set()
        self._remains: list[Doubt] = []
        self.described: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Sites:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> dict[str, list[str]]:
        """Stops every server that is still up, or keeps it; what was left of which, in sentences."""
        left = {}
        for instance in list(self._servers):
            if self._keep and self._servers[instance].alive():
                self._keep_up(instance)
            else:
                left[instance] = self._stop(instance)
        return left

    def try_endpoints(self, cells: Iterable[Cell]) -> None:
        """Asks every endpoint for one token, once. Raises TargetError for one that does not answer as it must."""
        for cell in cells:
            for name, target in cell.scenario.targets.items():
                if not target.launched:
                    self._endpoint(cell, name, target)

    def site(self, cell: Cell, target_name: str, instance: str | None) -> Site:
        """The target's place for a cell. Starts its server if it is not up.

        Raises LaunchError if it cannot be started (again), TargetError if an endpoint does not answer as it must.
        """
        target = cell.scenario.targets[target_name]
        if instance is None:
            return self._endpoint(cell, target_name, target)
        server = self._up(target_name, target, instance)
        command = server.command
        model = self._model_path(target_name, target)
        return Site(
            url=command.base_url,
            backend=command.backend,
            options=options_of(cell, target, command.served_name, dict(command.request), dict(command.exact)),
            headers=headers_of(target),
            model_path=model,
            folder=str(self._folder),
            tokenizer=self._tokenizer(target, model),
            metrics=(command.base_url + command.metrics,) if command.metrics else (),
            names=dict(command.seen),
            doubts=(*doubts_of(target_name, target, model), *self._remains),
            hidden=hidden_of([target]),
            machine=self._machine(cell, target_name, server),
        )

    def start_of(self, instance: str | None) -> str | None:
        """The folder's name of the start that a server is up by; None for an endpoint, or one that is not up."""
        server = self._servers.get(instance or "")
        return None if server is None else server.folder.name

    def alive(self, instance: str | None) -> bool:
        """False if the server of a running repeat has died."""
        server = self._servers.get(instance or "")
        return server is None or server.alive()

    def lost(self, instance: str) -> LaunchError:
        """The sentence for a server that has died, with what is left of it; it is not one of those that are up now."""
        key, death = self._keys[instance], self._servers[instance].death("in the middle of the run")
        left = "".join(f"\n{problem}" for problem in self._stop(instance))
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] > 1:
            self._given_up[key] = f"its server died twice and is given up, the second time so: {death}"
        return LaunchError(f"{death}{left}")

    def spare(self, steps: Iterable[int]) -> None:
        """These steps of the plan, by number, will not be run: no server is kept up for them."""
        for step in steps:
            self._uses[step] = None

    def done_with(self, step: int) -> dict[str, list[str]]:
        """Step number ``step`` is over: servers that no later step needs are stopped; what is left of which.

        A run that keeps its servers keeps those whose place no later start may need.
        """
        later = self._uses[step + 1 :]
        if self._keep and all(other is None or other in self._servers for other in later):
            return {}
        return {instance: self._stop(instance) for instance in list(self._servers) if instance not in later}

    def _machine(self, cell: Cell, name: str, server: launch.Server) -> Machine:
        """Where telemetry finds what runs here. The processes of a container have other numbers than those we see."""
        contained = any(one.command.container is not None for one in self._servers.values())
        others = [one for one in self._servers.values() if one is not server]
        return Machine(
            gpus=server.command.devices,
            dcgm=cell.scenario.telemetry.exporter(name, endpoint=False),
            processes=() if server.command.container is not None else _processes(server),
            others=None if contained else tuple(process for one in others for process in _processes(one)),
            reset_peak=server.command.base_url + server.command.reset_peak if server.command.reset_peak else None,
        )

    # -- servers --------------------------------------------------------------------------------------------------

    def _up(self, name: str, target: Target, instance: str) -> launch.Server:
        key = self._keys.setdefault(instance, launch_key(name, target))
        if instance in self._servers:
            if self._servers[instance].alive():
                return self._servers[instance]
            self._watcher.say(str(self.lost(instance)).partition("\n")[0])
        if key in self._given_up:
            raise LaunchError(f"target {name}: {self._given_up[key]}")
        if self._deaths.get(key):
            self._watcher.say(f"{name} is started once more: its server died.")
        place = self._place(instance)
        try:
            server = self._start(name, target, place)
        except LaunchError as error:
            if (place / "server.json").exists():
                self.described[place.name] = read_json(place / "server.json")
            self._given_up[key] = f"it is not started again: {error}"
            raise
        self._servers[instance] = server
        self.described[server.folder.name] = server.describe()
        return server

    def _start(self, name: str, target: Target, place: Path) -> launch.Server:
        spec = self.spec(name, target)
        recipe = launch.load_recipe(spec.engine, self._folder)
        make = partial(
            launch.render, recipe, spec, run_id=self._run.id, launchers=launch.launchers_folder(), folder=place
        )
        began = time.monotonic()
        self._watcher.say(f"starting {spec.engine} for {name}: {spec.model}")
        for sentence in launch.trusted(spec):
            self._watcher.say(sentence)
        server = launch.start_ready(
            lambda port: make(port=port), place, cancelled=self._cancelled, secrets=secrets_of(target), keep=self._keep
        )
        self._watcher.say(f"{name} is ready after {time.monotonic() - began:.1f} s ({server.command.base_url})")
        return server

    def _place(self, instance: str) -> Path:
        """A folder for this start. One of an earlier start may still lead to what that left, and is never reused."""
        number, place = 1, self._run.server_folder(instance)
        while (place / "server.json").exists():
            number += 1
            place = self._run.server_folder(f"{instance}-{number}")
        return place

    def spec(self, name: str, target: Target) -> launch.LaunchSpec:
        """What is to be launched for a target."""
        return spec_of(self._folder, name, target, self._model_path(name, target))

    def _model_path(self, name: str, target: Target) -> str | None:
        if not isinstance(target.model, MadeModel):
            return local_model(self._folder, target)
        key = launch_key(name, target)
        if key not in self._models:
            self._watcher.say(f"making the model of {name} from {target.model.config} (random weights)")
            python = launch.resolved(target.python or sys.executable, self._folder)
            config = self._folder / target.model.config
            self._models[key] = launch.make_model(
                config, models_folder(), python, target.model.seed, launch.launchers_folder()
            )
        return str(self._models[key])

    def _tokenizer(self, target: Target, model: str | None) -> str | None:
        """The folder whose tokenizer counts tokens here; None where the target names none that this machine has."""
        named = target.tokenizer or model
        folder = self._folder / Path(os.path.expanduser(named)) if named is not None else None
        return str(folder) if folder is not None and (folder / "tokenizer.json").exists() else None

    def _stop(self, instance: str) -> list[str]:
        """Ends a server; what is left of it, in sentences. From now on that weakens every number."""
        server = self._servers.pop(instance)
        for other in self._servers.values():
            server.leave_memory_to(other)
        proof = server.stop()
        place = server.folder.name
        self.described[place] = server.describe()
        problems = [f"server {place}: {problem}" for problem in proof.problems()]
        self._remains += [
            Doubt("left_behind", f"This was measured beside what a stop left: {text}") for text in problems
        ]
        return problems

    def _keep_up(self, instance: str) -> None:
        server = self._servers.pop(instance)
        server.keep()
        self.described[server.folder.name] = server.describe()
        self._watcher.say(
            f"{server.command.target} stays up at {server.command.base_url}, its log is {server.log_path}. "
            f"Stop it with: loadgen doctor --stop --store {shlex.quote(str(self._run.folder.absolute().parents[2]))}"
        )

    # -- endpoints that exist -------------------------------------------------------------------------------------

    def _endpoint(self, cell: Cell, name: str, target: Target) -> Site:
        recipe = launch.load_recipe(target.engine, self._folder) if target.engine else None
        wire = launch.wire_of(recipe, name, target.backend) if recipe else None
        model = self._model_path(name, target)
        urls = target.urls
        pages = [url + recipe.metrics for url in urls if recipe and recipe.metrics and url.startswith("http")]
        site = Site(
            url=urls[0],
            urls=urls if len(urls) > 1 else (),
            balance=target.balance or "round_robin",
            backend=target.backend or (recipe.backend if recipe else "openai_chat"),
            options=options_of(
                cell,
                target,
                target.served_name or str(target.model),
                dict(wire.request) if wire else {},
                dict(wire.exact) if wire else {},
            ),
            headers=headers_of(target),
            proxy=target.proxy,
            model_path=model,
            folder=str(self._folder),
            tokenizer=self._tokenizer(target, model),
            metrics=tuple(pages) if len(pages) == len(urls) else (),
            names={str(word): name for word, name in recipe.seen.items()} if recipe else {},
            hidden=hidden_of([target]),
            machine=Machine(dcgm=cell.scenario.telemetry.exporter(name, endpoint=True)),
        )
        if name not in self._probed:
            with struck_out(site.hidden):  # who refuses a key may quote it
                probe(name, site, cell.scenario.load.connect_timeout_s, self._cancelled)
            self._probed.add(name)
        return site


def _processes(server: launch.Server) -> tuple[ProcessId, ...]:
    """Those that a server was last seen to have."""
    return tuple(ProcessId.from_json(one) for one in server.describe()["processes"])
