"""What a run wrote of a target, as facts in words: factor -> value, for `fairness` to hold against another target's.

In: run.json and the plan. Out: one mapping for each target of a cell. A factor that is not known has no entry. The
words are those of ``scenario/factors.py``; pure functions, so that stored and imported runs are read alike.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from loadgen.lengths import words_of
from loadgen.plan import Plan
from loadgen.scenario.sides import urls_of

NAMES = ("target", "place")
"""What facts are about, and no facts."""

NO_FACTORS = (*NAMES, "host", "port", "served_name", "hub", "hub_endpoint", "trust_remote_code", "devices")
"""Options that are no factors: places and names, and how files are found; devices count by their names."""

FOUND = "found."
"""Before an option's name: what the engine says that it came to."""


def facts_of(described: Mapping[str, Any], plan: Plan, cell: str, target: str) -> dict[str, str]:
    """Factor -> value in words, of one target in one cell of a run; ``described`` is its run.json.

    A factor that is not known has no entry. ``sampling.temperature`` is part of the factor ``sampling``;
    ``found.dtype`` is what the engine says that it came to. ``target`` is the name for sentences, and ``place`` says
    whether the target was launched, is an endpoint, of which little is known, or was measured by another tool; both are
    no factors.
    """
    scenario = scenario_of(described, plan, cell)
    words = (scenario.get("targets") or {}).get(target) or {}
    servers = _servers(described, plan, cell, target)
    launched = bool(servers) or bool(words.get("engine") and not urls_of(words))
    place = "imported" if described.get("origin") else "launched" if launched else "endpoint"
    facts = {"target": target, "place": place}
    chosen = _chosen(words) if place == "launched" else {}
    parts = [_asked(scenario, words, servers), chosen, _machine(described, words)]
    if place == "imported":  # the other tool's file says less: what our defaults would fill in is not known
        parts[0] |= {"backend": words.get("backend"), "endpoint": _between(words) if urls_of(words) else None}
    for part in (*parts, _said(servers)):
        facts |= {name: value for name, value in part.items() if value is not None}
    return facts


def scenario_of(described: Mapping[str, Any], plan: Plan, cell: str) -> dict[str, Any]:
    """The words of one cell: those of the run's scenario with what this cell sets in their place."""
    words = next((planned.words for planned in plan.cells if planned.id == cell), {})
    merged: dict[str, Any] = _merged(described.get("scenario") or {}, words)
    return merged


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return copy.deepcopy(over)
    return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}


def starts_of(plan: Plan, cell: str, target: str, names: Iterable[str]) -> list[str]:
    """Those of the names of starts (folders under ``servers``) that a target had in a cell: those of its servers, and
    of servers that were started again (``a-1-2`` is the second start of ``a-1``)."""
    ids = {step.server for step in plan.steps if step.cell == cell and step.target == target and step.server}
    return [name for name in names if name in ids or re.sub(r"-\d+$", "", name) in ids]


def _servers(described: Mapping[str, Any], plan: Plan, cell: str, target: str) -> list[Mapping[str, Any]]:
    servers = described.get("servers") or {}
    found = [servers[name] for name in starts_of(plan, cell, target, servers)]
    return [server for server in found if server.get("target") == target]


def _asked(
    scenario: Mapping[str, Any], words: Mapping[str, Any], servers: Sequence[Mapping[str, Any]]
) -> dict[str, str | None]:
    """What requests are made of, and how they are sent."""
    workload, load = scenario.get("workload") or {}, scenario.get("load") or {}
    output = workload.get("output") or {}
    own = ("prompts", "template", "output", "stream", "sampling", "save_text", "routing_check")
    backend = _same(servers, "backend") or words.get("backend") or (None if words.get("engine") else "openai_chat")
    lengths = [
        f"{how} {words_of(output[word])} tokens"
        for word, how in (("exact", "exactly"), ("max", "at most"))
        if output.get(word)
    ]
    return {
        "backend": backend,
        "template": workload.get("template"),
        "output": " ".join(lengths) or None,
        "stream": _text(workload.get("stream")),
        "prompts": workload.get("prompts"),
        **_flat("prompts", {key: value for key, value in workload.items() if key not in own}),
        **_flat("sampling", workload.get("sampling")),
        **_flat("request", words.get("request")),
        **_flat("exact", words.get("exact")),
        "load": _load(load),
        "driver": load.get("driver"),
        "endpoint": _between(words) if words else None,
    }


def _load(load: Mapping[str, Any]) -> str | None:
    """The shape of the load: what is held in flight, or how requests arrive."""
    if load.get("concurrency") is not None:
        return f"{load['concurrency']} in flight"
    names = ("rate_rps", "arrival", "rates", "burst", "timestamps", "max_in_flight")
    open_loop = [f"{name} {_text(load[name])}" for name in names if load.get(name) is not None]
    return ", ".join(open_loop) or None


def _between(words: Mapping[str, Any]) -> str:
    """Where a server stands as seen from the client, and what lies between."""
    urls = urls_of(words) or ("http://127.0.0.1",)
    several = [f"{len(urls)} endpoints, {words.get('balance') or 'round_robin'}"] if len(urls) > 1 else []
    return ", ".join([*several, *dict.fromkeys(map(_way, urls)), *(["through a proxy"] if words.get("proxy") else [])])


def _way(address: str) -> str:
    url = urlsplit(address)
    here = url.scheme == "unix" or url.hostname in ("127.0.0.1", "localhost", "::1")
    return ("this machine" if here else "another machine") + (", https" if url.scheme == "https" else "")


def _chosen(words: Mapping[str, Any]) -> dict[str, str | None]:
    """What the scenario says of a server that is launched."""
    options = {key: value for key, value in (words.get("options") or {}).items() if str(key) not in NO_FACTORS}
    return {
        **{str(key): None if value in (None, "auto") else _text(value) for key, value in options.items()},
        "tokenizer": words.get("tokenizer"),
        "python": words.get("python"),
        "image": words.get("image"),
        "args": " ".join(map(str, words.get("args") or ())) or None,
        **_flat("env", words.get("env")),
        "cpus": f"{len(words['cpus'])} pinned" if words.get("cpus") else "not pinned",
    }


def _said(servers: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """What the servers said of themselves; a value that changed from one start to the next is there in full."""
    found: dict[str, list[str]] = {}
    for server in servers:
        for name, value in (server.get("facts") or {}).items():
            if value is not None and _text(value) not in found.setdefault(name, []):
                found[name].append(_text(value))
    said: dict[str, str | None] = {FOUND + name: " then ".join(values) for name, values in found.items()}
    version = said.pop(f"{FOUND}version", None)
    revision = said.pop(f"{FOUND}revision", None)
    digest = said.pop(f"{FOUND}image_digest", None) or said.pop(f"{FOUND}image_id", None)
    kv = [value for server in servers if isinstance(value := (server.get("facts") or {}).get("kv_tokens"), int | float)]
    own = {"engine": _same(servers, "engine"), "engine_version": version, "revision": revision}
    return {**said, **own, "kv_tokens": _text(kv[-1]) if kv else None, **({"image": digest} if digest else {})}


def _machine(described: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, str | None]:
    """The model, and the machine as far as the target has it: an endpoint's is another one, or may be."""
    machine = described.get("machine") or {}
    launched = not urls_of(words) and not described.get("origin")
    model = words.get("model")
    made = isinstance(model, Mapping)
    facts: dict[str, str | None] = {
        "model": _model(model),
        "engine": PurePath(str(words["engine"])).name if words.get("engine") else None,
        "loadgen": (described.get("versions") or {}).get("loadgen"),
        "machine": f"{machine['cpu']}, {machine.get('cores')} cores" if machine.get("cpu") else None,
        "host": machine.get("host"),
        "kernel": machine.get("kernel"),
        "prompts.seed": None if described.get("seed") is None else str(described["seed"]),
        "weights": "random" if made or (words.get("options") or {}).get("load_format") == "dummy" else None,
    }
    return facts | (_gpus(machine.get("gpus") or [], words) if launched else {})


def _model(model: Any) -> str | None:
    """A model by its name: a path's last part, since checkpoints lie in other folders on other machines."""
    if isinstance(model, Mapping):
        return f"made from {PurePath(str(model.get('config'))).name}, seed {model.get('seed', 0)}"
    if model is None:
        return None
    return PurePath(model).name if model.startswith(("/", "./", "../", "~", "$")) else str(model)


def _gpus(gpus: Sequence[Mapping[str, Any]], words: Mapping[str, Any]) -> dict[str, str | None]:
    """The GPUs that a launched server has. One that names no devices may take them all; how many is known only where
    there is no choice, or its options say so."""
    devices, options = words.get("devices"), words.get("options") or {}
    if not gpus:
        return {"gpu": "none"}
    mine = [gpu for i, gpu in enumerate(gpus) if devices is None or i in devices or gpu.get("uuid") in devices]
    degrees = [options[name] for name in ("tensor_parallel", "pipeline_parallel", "data_parallel") if options.get(name)]
    count = len(devices) if devices else len(gpus) if len(gpus) == 1 else None
    if count is None and degrees and all(isinstance(degree, int) for degree in degrees):
        count = math.prod(degrees)
    return {
        "gpu": ", ".join(sorted({str(gpu.get("name")) for gpu in mine})) or None,
        "gpus": None if count is None else str(count),
        "gpu_driver": ", ".join(sorted({str(gpu["driver"]) for gpu in mine if gpu.get("driver")})) or None,
        "devices": ",".join(map(str, devices)) if devices else None,
    }


def _same(servers: Sequence[Mapping[str, Any]], name: str) -> str | None:
    return next((str(server[name]) for server in servers if server.get(name)), None)


def _flat(name: str, values: Any) -> dict[str, str | None]:
    return {f"{name}.{key}": _text(value) for key, value in (values or {}).items() if value is not None}


def _text(value: Any) -> str:
    """A value in the words of a scenario file."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
