"""The memory of every target of a scenario, for ``loadgen plan``: what is known before anything is started.

In: cells, the GPUs of this machine. Out: for each target its `MemoryPlan` per configuration, at the lengths and the
concurrency that need the most, with the memory of its GPUs; or why it is not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadgen import lengths
from loadgen.errors import UsageError
from loadgen.limits.footing import Footing, footing
from loadgen.limits.served import Served, serving
from loadgen.scenario import Cell
from loadgen.scenario.model import Workload
from loadgen.shapes.memory_plan import STEP_TOKENS, MemoryPlan
from loadgen.workloads import Context, trace


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """One target in one configuration. ``plan`` is None where its model is not known, and ``why`` says so.

    ``memory_bytes`` is that of one of its GPUs, None where it runs on none that is known. ``whole_input`` is False
    where the lengths of prompts are not known before they are drawn; they count as one token. ``of_trace`` is True
    where the request is that of a trace which there is the least room for. ``at_once`` is True for an engine that holds
    a whole batch or none; one with a paged cache lets requests wait.
    """

    target: str
    plan: MemoryPlan | None
    memory_bytes: float | None = None
    whole_input: bool = True
    of_trace: bool = False
    at_once: bool = False
    why: str = ""


def planned_memory(cells: Sequence[Cell], folder: Path, machine: Sequence[Mapping[str, Any]]) -> list[Need]:
    """What the targets of these cells need, each configuration once. Paths start from ``folder``."""
    most: dict[tuple[str, int], Need] = {}
    for _, need, number in _needs(cells, folder, machine):
        before = most.get((need.target, number))
        if before is None or _size(need) > _size(before):
            most[need.target, number] = need
    return list(most.values())


def needs_of_cells(
    cells: Sequence[Cell], folder: Path, machine: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Cell, Need]]:
    """What every target of every cell needs, in that cell. Paths start from ``folder``."""
    yield from ((cell, need) for cell, need, _ in _needs(cells, folder, machine))


def _needs(
    cells: Sequence[Cell], folder: Path, machine: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Cell, Need, int]]:
    """The same, with the number of the target's configuration in `Serving.targets`."""
    kept, described = serving(cells, folder), {"machine": {"gpus": list(machine)}}
    read: dict[str, Sequence[Asked]] = {}  # cells share a trace, which may be long
    for cell in cells:
        workload = cell.scenario.workload
        key = workload.model_dump_json(exclude={"scale"})  # which changes no length
        read[key] = read[key] if key in read else _largest(workload, folder)
        for name in cell.scenario.targets:
            number = kept.cells[cell.id].targets[name]
            stand = footing(kept, described, cell.id, name, None)
            share = _share(cell.scenario.targets[name].options.get("memory_fraction"))
            one = _memory(kept.targets[number], stand, machine)
            memory_bytes = None if one is None else one * share
            yield cell, max((_need(cell, name, stand, memory_bytes, asked) for asked in read[key]), key=_demand), number


def _size(need: Need) -> float:
    return need.plan.at_peak().total if need.plan else 0.0


def _demand(need: Need) -> tuple[int, float]:
    """The greater, the fewer such requests there is room for; then, the more one of them needs."""
    plan, memory_bytes = need.plan, need.memory_bytes
    return (0 if plan is None or memory_bytes is None else -plan.requests(memory_bytes), _size(need))


def _share(option: Any) -> float:
    """The part of a GPU that an engine was told to take; all of it where it was told nothing that is a number."""
    known = isinstance(option, int | float) and not isinstance(option, bool) and 0 < option < 1
    return float(option) if known else 1.0


def _memory(served: Served, stand: Footing, machine: Sequence[Mapping[str, Any]]) -> float | None:
    """Bytes of one GPU: as this machine says of its own, else as the vendor of the one that the scenario names."""
    if served.launched and machine and not served.gpu:
        return float(min(one["memory_gb"] for one in machine)) * 1e9
    return stand.gpu.memory_bytes or None if stand.gpu else None


class Asked(NamedTuple):
    """A request that may be the one that needs the most: tokens of its prompt, None where they are not known, and of
    its reply."""

    in_tok: int | None
    out_tok: int
    of_trace: bool = False


def _largest(workload: Workload, folder: Path) -> Sequence[Asked]:
    """The largest requests of a workload, of which one needs the most whatever the engine holds. Those of a trace are
    the one of the longest prompt, of the longest reply, and of the most tokens together: no request has all of them.

    Raises UsageError for a trace that cannot be read."""
    output = workload.output
    if workload.prompts != "trace":
        return [Asked(_longest(workload.settings.get("input_tokens")), output.most or 1)]
    pairs = trace.lengths(workload.settings, Context(seed=0, ask_tok=0, folder=str(folder)))
    asked = [Asked(in_tok, out_tok if output.said == "trace" else output.most or 1, True) for in_tok, out_tok in pairs]
    keys: tuple[Callable[[Asked], int], ...] = (
        lambda one: one.in_tok or 0,
        lambda one: one.out_tok,
        lambda one: (one.in_tok or 0) + one.out_tok,
    )
    return [max(asked, key=key) for key in keys]


def _need(cell: Cell, name: str, stand: Footing, memory_bytes: float | None, asked: Asked) -> Need:
    if stand.shape is None:
        return Need(target=name, plan=None, why=stand.why[0])
    target, load = cell.scenario.targets[name], cell.scenario.load
    in_process = target.engine == "hf"
    every = in_process and target.options.get("prompt_logits") == "all"
    plan = MemoryPlan(
        shape=stand.shape,
        input_tokens=asked.in_tok or 1,
        output_tokens=asked.out_tok,
        batch=math.ceil((load.concurrency or load.burst or 1) / stand.replicas),
        gpus=max(1, (stand.gpus or 1) // stand.replicas),
        split="layers" if in_process and target.options.get("sharding") in (None, "layers", "auto") else "tensor",
        prompt_logits="all" if every else "last",
        step_tokens=(asked.in_tok or 1)
        if in_process
        else STEP_TOKENS,  # ours takes one prompt after the other, each whole
        wide=stand.wide,
    )
    return Need(
        target=name,
        plan=plan,
        memory_bytes=memory_bytes,
        whole_input=asked.in_tok is not None,
        of_trace=asked.of_trace,
        at_once=in_process,
    )


def _longest(asked: Any) -> int | None:
    """The longest prompt that the words of a workload allow, None where they do not say or are none."""
    try:
        return None if asked is None else lengths.most(lengths.parse("input_tokens", asked))
    except UsageError:  # `check` says it, with its place
        return None
