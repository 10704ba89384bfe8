"""Profiles: which variant of a scenario this machine runs, and the sentence that says why.

In: the ``profiles`` of a file, what the machine has, and what ``--profile`` asks for. Out: a name and a reason. A
profile with ``when`` is chosen where the machine has what it asks for, the most demanding of those first; one without
is chosen by name only.
"""

from __future__ import annotations

import msgspec
from pydantic import ValidationError

from loadgen.scenario.model import When
from loadgen.scenario.override import did_you_mean
from loadgen.scenario.problems import problems_of
from loadgen.scenario.tree import Node, Problem


class Machine(msgspec.Struct, frozen=True):
    """What profiles ask about: the number of GPUs, the memory of the smallest in GB, and their name."""

    gpus: int
    gpu_memory_gb: float
    gpu_name: str | None

    def __str__(self) -> str:
        if not self.gpus:
            return "no GPU"
        name = f" ({self.gpu_name})" if self.gpu_name else ""
        memory = f" with {self.gpu_memory_gb:g} GB" if self.gpu_memory_gb else ""
        return f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}{memory}{name}"


class Choice(msgspec.Struct, frozen=True):
    """The profile that is used (None for the scenario as it stands) and a sentence that says why."""

    name: str | None
    reason: str


def choose(profiles: Node | None, asked: str | None, machine: Machine) -> tuple[Choice, list[Problem]]:
    """The profile for a machine, or the one that was asked for; and what is wrong with the profiles."""
    if profiles is None or profiles.value is None:
        if asked is None:
            return Choice(None, ""), []
        return Choice(None, ""), [Problem(f"--profile {asked}", (), "this scenario has no profiles")]
    if not isinstance(profiles.value, dict):
        return Choice(None, ""), [Problem(profiles.where, ("profiles",), "must be a mapping of names to profiles")]
    if asked is not None:
        if asked in profiles.value:
            return Choice(asked, f"profile {asked!r}: asked for by --profile"), []
        reason = f"there is no profile {asked!r}{did_you_mean(asked, profiles.value)}"
        return Choice(None, ""), [Problem(f"--profile {asked}", (), reason)]
    conditions, problems = _conditions(profiles)
    return _fitting(conditions, machine), problems


def _conditions(profiles: Node) -> tuple[dict[str, When], list[Problem]]:
    conditions: dict[str, When] = {}
    problems: list[Problem] = []
    for name, profile in profiles.value.items():
        if not isinstance(profile.value, dict):
            problems.append(Problem(profile.where, ("profiles", name), "must be a mapping"))
        when = profile.get("when")
        if when is None or when.value is None:
            continue
        try:
            conditions[name] = When.model_validate(when.plain())
        except ValidationError as error:
            problems += problems_of(error, when, ("profiles", name, "when"))
    return conditions, problems


def _fitting(conditions: dict[str, When], machine: Machine) -> Choice:
    fitting = [name for name, when in conditions.items() if _has(machine, when)]
    missed = [f"{name!r} asks for {_text(when)}" for name, when in conditions.items() if name not in fitting]
    # Of two that fit, the one whose wishes include the other's is the more special; else the first written wins.
    best = [n for n in fitting if not any(_includes(conditions[o], conditions[n]) for o in fitting if o != n)]
    but = f"; {', '.join(missed)}" if missed else ""
    if not best:
        return Choice(None, f"no profile fits a machine with {machine}{but}: the scenario is used as it stands")
    name = best[0]
    return Choice(name, f"profile {name!r}: this machine has {machine}, and it asks for {_text(conditions[name])}{but}")


def _has(machine: Machine, when: When) -> bool:
    named = when.gpu_name is None or when.gpu_name.lower() in (machine.gpu_name or "").lower()
    return named and machine.gpus >= when.gpus and machine.gpu_memory_gb >= when.gpu_memory_gb


def _includes(special: When, plain: When) -> bool:
    """True if whatever has what ``special`` asks for has what ``plain`` asks for, and not the other way round."""
    named = plain.gpu_name is None or plain.gpu_name.lower() in (special.gpu_name or "").lower()
    more = special.gpus >= plain.gpus and special.gpu_memory_gb >= plain.gpu_memory_gb
    return named and more and special != plain


def _text(when: When) -> str:
    if not (when.gpus or when.gpu_memory_gb or when.gpu_name):
        return "nothing"
    return str(Machine(max(when.gpus, 1), when.gpu_memory_gb, when.gpu_name))
