"""A few greedy requests to a server before it is timed: its fingerprint. Is it asked, and does it answer, alike?

In: a site and a cell. Out: request lines (phase ``probe``) and a ``fingerprint.json`` beside them: how many tokens the
prompts have for client and server, how long the replies are, a hash of each text. The probes are requests of the very
workload, sent by the workers that send the load, one after the other; what they say is judged in ``fairness.py``.

Their prompts come from a seed that no repeat has, so they warm no prefix cache for the measured ones as long as the
source has more prompts than it shows. Two starts of one server should give the same texts: at one request at a time
there is no batch whose size could change the arithmetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from loadgen.drive.job import Job, Shape
from loadgen.errors import StoreError
from loadgen.fleet import Fleet, Stop
from loadgen.jobs import Site, make_jobs
from loadgen.plan import Step
from loadgen.record import Record, read_records
from loadgen.scenario import Cell, public_dict
from loadgen.store import Run, make_folder, read_json, request_files, requests_path, write_json
from loadgen.written import strike_out_of

VERSION = 1
FILE = "fingerprint.json"

PROBES = 4
PROBE_TOKENS = 16
"""What a probe asks for at most: enough for a text to betray another model, and little beside a start."""

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "do_sample",
    "best_of",
    "n",
    "seed",
)
"""Fields of a request that say how tokens are drawn, under the names that most engines use."""


UNASKED = ("save_text", "routing_check")
"""Words of a workload that no server notices."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One greedy request: its prompt's hash and tokens (the server's count, the client's), its reply's; ``err`` is None
    for one that ended ok."""

    prompt_sha: str | None
    in_tok: int | None
    in_tok_client: int | None
    cached_tok: int | None
    out_tok: int | None
    out_sha: str | None
    err: str | None = None


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What one server answered before it was timed.

    ``server`` is the folder of this start under ``servers``, None for an endpoint. ``key`` is equal for cells that ask
    alike. ``ask_tok`` is what each probe asked for, exactly that many if ``exact``. ``sampling`` is what the measured
    requests send. ``skipped`` says why there are no probes.
    """

    v: int = VERSION
    target: str
    server: str | None
    key: str
    ask_tok: int
    exact: bool
    sampling: dict[str, Any]
    probes: tuple[Probe, ...] = ()
    skipped: str | None = None


class Prober:
    """Takes the fingerprint of each server once for each way of asking, before its first repeat."""

    def __init__(self, run: Run, fleet: Fleet) -> None:
        self._run = run
        self._fleet = fleet
        self._done: set[tuple[str, str | None, str]] = set()

    def before(self, cell: Cell, step: Step, site: Site, server: str | None, look: Callable[[], Stop | None]) -> None:
        """Probes the server of a step that is about to be timed, unless that was done. ``server`` names this start.

        Raises TargetError when it cannot be reached at all.
        """
        key = key_of(public_dict(cell.scenario), step.target)
        if (step.target, server, key) in self._done:
            return
        self._done.add((step.target, server, key))
        found = Fingerprint(target=step.target, server=server, key=key, **_asked(cell, site))
        for url in site.urls or (site.url,):
            self._probe(cell, step, msgspec.structs.replace(site, url=url, urls=()), found, look)

    def _probe(self, cell: Cell, step: Step, site: Site, found: Fingerprint, look: Callable[[], Stop | None]) -> None:
        """Probes one server, or one of several endpoints."""
        folder = self._folder(step.target, found.server or "endpoint", found.key)
        if found.skipped is None:
            stopped: list[Stop] = []

            def looked() -> Stop | None:
                stopped.extend(wanted for wanted in [look()] if wanted)
                return stopped[-1] if stopped else None

            self._fleet.run([_job(cell, site, step, (self._run.id, folder), found.ask_tok)], _no_tick, looked)
            strike_out_of(request_files(folder), site.hidden)
            if stopped:
                return
            found = msgspec.structs.replace(found, probes=tuple(_probes(folder)))
        write_json(folder / FILE, found)

    def _folder(self, target: str, server: str, key: str) -> Path:
        """A new folder: that of an endpoint may be there from before the run was resumed."""
        number, place = 1, self._run.folder / "probes" / target / server / key
        while place.exists():
            number += 1
            place = place.with_name(f"{key}-{number}")
        return make_folder(place)


def key_of(words: Mapping[str, Any], target: str) -> str:
    """Equal for two cells (as their scenarios' plain words) in which a target is asked alike, whatever the load."""
    asked, load = words.get("targets", {}).get(target, {}), words.get("load", {})
    workload = {word: value for word, value in words.get("workload", {}).items() if word not in UNASKED}
    words_of = ("endpoint", "endpoints", "model", "served_name", "backend", "request", "exact")
    how = {word: asked.get(word) for word in words_of}
    data = msgspec.json.encode(
        [words.get("seed"), _set(workload), _set(how), load.get("driver")], order="deterministic"
    )
    return hashlib.sha256(data).hexdigest()[:12]


def _set(words: Any) -> Any:
    """Words without those that are None, at any depth: left out and not set are the same."""
    if not isinstance(words, Mapping):
        return words
    return {word: _set(value) for word, value in words.items() if value is not None}


def read_fingerprints(run: Run) -> list[Fingerprint]:
    """Every fingerprint that a run took, the oldest first. Raises StoreError with the path of one that is none."""
    paths = sorted(run.folder.glob(f"probes/*/*/*/{FILE}"), key=lambda path: path.stat().st_mtime)
    return [_read(path) for path in paths]


def _read(path: Path) -> Fingerprint:
    try:
        return msgspec.convert(read_json(path), Fingerprint)
    except msgspec.ValidationError as error:
        raise StoreError(f"{path} is no fingerprint: {error}; without its folder the run can be read.") from error


def _asked(cell: Cell, site: Site) -> dict[str, Any]:
    """How the measured requests are sampled, what the probes ask for, and why they cannot be greedy if so."""
    output, options = cell.scenario.workload.output, site.options
    tokens = output.number or PROBE_TOKENS
    sent = {**options.sampling, **options.fields}
    warm = next((value for value in _values(options.fields, "temperature") if value), None)
    skipped = f"its own request fields set temperature {warm}" if warm is not None else None
    return {
        "ask_tok": min(tokens, PROBE_TOKENS),
        "exact": output.exact is not None,
        "sampling": {word: sent[word] for word in SAMPLING if word in sent},
        "skipped": skipped,
    }


def _values(fields: Mapping[str, Any], name: str) -> Iterator[Any]:
    """The values under a name, at any depth: some protocols keep sampling in an object of its own."""
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _values(value, name)
        elif key == name:
            yield value


def _job(cell: Cell, site: Site, step: Step, place: tuple[str, Path], tokens: int) -> Job:
    """The job of one worker: a handful of greedy requests, one at a time."""
    run_id, folder = place
    load = cell.scenario.load
    shape = Shape(
        concurrency=1,
        requests=PROBES,
        drain_s=load.timeout_s,
        timeout_s=load.timeout_s,
        stall_timeout_s=load.stall_timeout_s,
        connect_timeout_s=load.connect_timeout_s,
        max_event_bytes=load.max_event_bytes,
        max_rps=load.max_rps,
    )
    seed = int.from_bytes(hashlib.sha256(f"{cell.scenario.seed}:probes".encode()).digest()[:6], "big")
    step = msgspec.structs.replace(step, rep=0, seed=seed)
    (job,) = make_jobs(cell, site, step, (run_id, folder, 1), shape, 1)
    drawn = {key: value for key, value in site.options.sampling.items() if key not in SAMPLING}
    return msgspec.structs.replace(
        job,
        phase="probe",
        out=str(requests_path(folder, 0)),
        context={**job.context, "ask_tok": tokens, "probe": True},
        options=msgspec.structs.replace(site.options, sampling={**drawn, "temperature": 0}),
    )


def _probes(folder: Path) -> Iterator[Probe]:
    """What the request lines say, in the order of the prompts."""
    for record in sorted(read_records(request_files(folder)), key=lambda record: record.session):
        yield Probe(
            prompt_sha=record.prompt_sha,
            in_tok=record.in_tok,
            in_tok_client=record.in_tok_client,
            cached_tok=record.cached_tok,
            out_tok=record.out_tok,
            out_sha=record.out_sha,
            err=_failure(record),
        )


def _failure(record: Record) -> str | None:
    return None if record.status == "ok" else f"{record.status}: {record.err}" if record.err else record.status


def _no_tick(_: object) -> None:
    """Probes are no load: nobody watches their seconds."""
