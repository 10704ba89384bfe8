"""What this machine can be trusted with, measured: streams, tokens and requests a second, and the error of the times.

In: nothing. Out: a `Ceiling`. Our own driver runs against a null server on the same machine that knows when it wrote
every first token, at growing load, until the driver's own audit or the truth says that the numbers cannot be trusted.
The null server shares the machine, so the ceiling is a lower bound: a server elsewhere leaves more for the client.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from loadgen.arrival import Arrival
from loadgen.backends import RequestOptions
from loadgen.drive.job import Job, Labels, Shape
from loadgen.fleet.local import Fleet
from loadgen.record import Record, read_records
from loadgen.summarise import summarise
from loadgen.summary import Context, Summary, Window

STREAMS = (1, 16, 64, 256, 512, 1024)
RATES = (50, 200, 500, 1000, 2000)
_TOKENS = 50
_WINDOW_S = 2.0
_WARMUP_S = 0.5
_ERROR_LIMIT_S = 0.001


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One load. ``error_ms`` holds p50 and p99 of the difference between our first-token stamp and the server's, and
    ``late_ms`` those of the send lateness; ``server_late_ms`` is the server's own p99. ``why`` is None where the
    numbers can be trusted."""

    what: str
    load: int
    tokens_per_s: float
    requests_per_s: float
    error_ms: tuple[float, float] | None
    late_ms: tuple[float, float] | None
    server_late_ms: float | None
    cpu: float
    why: str | None


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """All trials. The largest load of each kind that was still good is what can be trusted here."""

    trials: tuple[Trial, ...]

    def best(self, what: str) -> Trial | None:
        """The largest good trial of a kind, before the first that was not."""
        good = None
        for trial in self.trials:
            if trial.what == what:
                if trial.why is not None:
                    break
                good = trial
        return good


def selftest(workers: int, tell: Callable[[Trial], None], quick: bool = False) -> Ceiling:
    """Runs the trials, each as soon as the one before was good; ``tell`` is called with each."""
    trials: list[Trial] = []
    with Fleet(workers) as fleet:
        for what, loads in (
            ("streams", STREAMS[: 1 if quick else None]),
            ("requests/s", RATES[: 1 if quick else None]),
        ):
            for load in loads:
                trials.append(_trial(fleet, workers, what, load))
                tell(trials[-1])
                if trials[-1].why is not None:
                    break
    return Ceiling(trials=tuple(trials))


def _trial(fleet: Fleet, workers: int, what: str, load: int) -> Trial:
    tokens = _TOKENS if what == "streams" else 2
    with _null_server() as (url, truth), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = _shape(what, load)
        jobs = [_job(url, shape, folder, worker, workers, tokens) for worker in range(workers)]
        outcome = fleet.run(jobs, lambda _: None, lambda: None)
        records = list(read_records(sorted(folder.glob("*.jsonl"))))
        cpu = tuple(audit.cpu_share for audit in outcome.audits if audit.cpu_share is not None)
        window = Window(_WARMUP_S, _WARMUP_S + _WINDOW_S)
        context = Context(exact_tok=tokens, worker_cpu=cpu, concurrency=load if what == "streams" else None)
        return _judged(what, load, summarise(records, window, context), _errors(records, truth(), outcome.start_ns))


def _judged(what: str, load: int, one: Summary, errors: tuple[list[float], list[float]]) -> Trial:
    error, server_late = errors
    late = one.audit.late_s
    why = one.invalid[0].text if one.invalid else None
    if why is None and one.failed:
        why = f"{one.failed} of {one.requests} requests failed: {next(iter(one.errors.values()), ['?'])[0]}"
    if why is None and error and _quantile(error, 0.99) > _ERROR_LIMIT_S:
        why = f"first-token stamps are off by {_quantile(error, 0.99) * 1e3:.2f} ms at p99"
    return Trial(
        what=what,
        load=load,
        tokens_per_s=one.output_tok_s or 0.0,
        requests_per_s=one.request_rps or 0.0,
        error_ms=(_quantile(error, 0.5) * 1e3, _quantile(error, 0.99) * 1e3) if error else None,
        late_ms=((late.p50 or 0.0) * 1e3, (one.audit.late_p99_s or 0.0) * 1e3) if late.n else None,
        server_late_ms=_quantile(server_late, 0.99) * 1e3 if server_late else None,
        cpu=sum(one.audit.worker_cpu),
        why=why,
    )


def _errors(records: Sequence[Record], truth: str, start_ns: int) -> tuple[list[float], list[float]]:
    """(error of the first-token stamp, lateness of the server) of each measured request, in seconds."""
    written = {}
    for line in truth.splitlines():
        name, _, first, _, _, late = line.rsplit(" ", 5)
        written[name] = (int(first), int(late) / 1e9)
    errors, lates = [], []
    for record in records:
        if record.phase == "measure" and record.t_first is not None and (name := record.request_id()) in written:
            first_ns, late_s = written[name]
            errors.append(record.t_first - (first_ns - start_ns) / 1e9)
            lates.append(late_s)
    return errors, lates


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _shape(what: str, load: int) -> Shape:
    if what == "streams":
        return Shape(concurrency=load, ramp_s=_WARMUP_S, warmup_s=_WARMUP_S, window_s=_WINDOW_S, drain_s=5)
    arrival = Arrival(kind="poisson", rate_rps=load)
    return Shape(arrival=arrival, warmup_s=_WARMUP_S, window_s=_WINDOW_S, drain_s=5)


def _job(url: str, shape: Shape, folder: Path, worker: int, workers: int, tokens: int) -> Job:
    return Job(
        labels=Labels(run="selftest", cell="c", target="t", rep=1, attempt=1, endpoint=url),
        worker=worker,
        workers=workers,
        endpoint=url,
        backend="openai_chat",
        options=RequestOptions(model="null"),
        headers={},
        workload="natural",
        settings={"tags": ["chat"]},
        context={"seed": 1, "ask_tok": tokens, "exact": True},
        shape=shape,
        seed=1,
        out=str(folder / f"requests-{worker}.jsonl"),
    )


@contextmanager
def _null_server() -> Iterator[tuple[str, Callable[[], str]]]:
    """A fresh null server: its URL, and a function that fetches its truth."""
    import httpx

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "loadgen.null_server", "--ttft-ms", "50", "--gap-ms", "20"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = f"http://127.0.0.1:{int(process.stdout.readline())}"
    try:
        yield url, lambda: httpx.get(f"{url}/truth", timeout=30, trust_env=False).text
    finally:
        process.kill()
        process.communicate()
