"""Workers on a Ray cluster of two nodes: the same load as here, one start, and what is left when a node is lost.

The cluster is real (two raylets with a token, in processes of their own), and a node is killed as the operating system
kills it. What needs no cluster (clocks, batches, sums) is tested without one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
import pytest
from cli_runner import Done, command, environment, write_scenario
from fakes import FakeServer

from loadgen.errors import LoadgenError, UsageError
from loadgen.fleet import Elsewhere, open_fleet
from loadgen.fleet.node import About
from loadgen.fleet.ray import _doubts
from loadgen.fleet.ray_repeat import Member
from loadgen.histogram import intervals, read_log
from loadgen.record import Record

SCENARIO = """
targets: {{a: {{endpoint: '{url}', model: m}}}}
workload: {{prompts: natural, output: {{exact: 4}}}}
load: {{rate_rps: 40, arrival: poisson, warmup_s: 0.5, window_s: {window}, drain_s: 5}}
repeats: {repeats}
"""
TOKEN = "0123456789abcdef" * 2


class Cluster(NamedTuple):
    address: str
    raylets: list[int]
    env: dict[str, str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    with tempfile.TemporaryDirectory(prefix="lg-") as folder:  # a short path: Ray puts sockets into it
        ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}
        env = {**os.environ, **ray, "TMPDIR": folder}
        with held(env) as said:
            if said is not None:
                yield Cluster(**json.loads(said), env=env)
                return
        with held(env) as said:  # Ray gives a node 30 s to come up, which a busy machine may not do
            assert said is not None
            yield Cluster(**json.loads(said), env=env)


@contextlib.contextmanager
def held(env: dict[str, str]) -> Iterator[str | None]:
    """The program that holds a cluster: what it says of it, None if it could not start it."""
    script = Path(__file__).with_name("ray_nodes.py")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, str(script)], env=env, **pipes)  # type: ignore[call-overload]
    try:
        yield next((line for line in holder.stdout if line.startswith("{")), None)
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            holder.communicate("", timeout=60)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if env["RAY_TMPDIR"] in " ".join(process.cmdline()):  # what Ray left: its paths are in this folder
                    process.kill()


def start(folder: Path, env: dict[str, str], *words: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        command("run", *words, "--quiet"),
        env={**env, **environment(folder / "store")},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder: Path, process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err, folder / "store")


def run(folder: Path, env: dict[str, str], *words: str) -> Done:
    return finish(folder, start(folder, env, *words))


def content(records: list[Record]) -> list[tuple[Any, ...]]:
    """What a record says that is no time, and when it was due."""
    return sorted(
        (one.session, one.turn, one.phase, one.status, one.prompt_sha, one.out_tok, round(one.t_sched, 6))
        for one in records
    )


def test_one_scenario_is_the_same_load_on_one_worker_on_two_and_on_two_nodes(tmp_path: Path, cluster: Cluster) -> None:
    with FakeServer(ttft_ms=10, gap_ms=2, log_body=False) as server:
        path = write_scenario(tmp_path, SCENARIO.format(url=server.url, window=1.5, repeats=1))
        flags = {
            "one": ("--workers", "1"),
            "two": ("--workers", "2"),
            "ray": ("--fleet", "ray", "--workers", "2", "--address", cluster.address),
        }
        begun = {name: start(tmp_path / name, cluster.env, str(path), *words) for name, words in flags.items()}
        one, two, ray = (finish(tmp_path / name, process) for name, process in begun.items())
    assert {done.code for done in (one, two, ray)} <= {0, 5}, one.err + two.err + ray.err
    for other in (two, ray):
        assert content(other.records(other.attempts()[0])) == content(one.records(one.attempts()[0]))
    results = [done.results()[0] for done in (one, two, ray)]
    digests = [sum(audit.digest for audit in result.workers) % 2**64 for result in results]
    assert digests[0] == digests[1] == digests[2]
    plans = [json.loads((done.run / "plan.json").read_text())["cells"] for done in (one, two, ray)]
    assert plans[0] == plans[1] == plans[2]
    (ours,) = results[2:]
    assert {record.worker for record in ray.records(ray.attempts()[0])} == {0, 1}
    assert [clock.worker for clock in ours.clocks] == [0, 1]
    assert all(0 < (clock.error_us or 0) < 1e5 for clock in ours.clocks)
    # Both nodes read the clock of this machine: what is found between them is the error, and within its bound.
    assert all(abs(clock.offset_ns) <= (clock.error_us or 0) * 1e3 + 1 for clock in ours.clocks)
    apart_us = sum((clock.error_us or 0) + clock.late_us for clock in ours.clocks)  # late where this machine is busy
    assert ours.summary.audit.skew_s == pytest.approx(apart_us / 1e6)
    merged = {(one.start_s, one.tag): one.histogram for one in read_log(ray.attempts()[0] / "latency.hlog")}
    counted = {(one.start_s, one.tag): one.histogram for one in intervals(ray.records(ray.attempts()[0]))}
    assert merged == counted  # what the nodes counted, added up, is what all request lines hold
    told = ray.description()["fleet"]
    assert (told["kind"], told["workers"], len(told["nodes"])) == ("ray", 2, 2)
    if os.getuid() == 0:  # Ray gave its processes a niceness of 15
        assert [node["nice"] for node in told["nodes"]] == [0, 0]
    assert list(Path(cluster.env["TMPDIR"]).glob("loadgen-fleet-*")) == []  # the nodes' own copies are gone


def test_more_workers_than_nodes_are_refused_with_their_names(tmp_path: Path, cluster: Cluster) -> None:
    path = write_scenario(tmp_path, SCENARIO.format(url="http://127.0.0.1:9", window=1, repeats=1))
    done = run(tmp_path, cluster.env, str(path), "--fleet", "ray", "--workers", "3", "--address", cluster.address)
    assert done.code == 2
    assert "3 workers need 3 nodes, one each, and the Ray cluster has 2" in done.err
    assert "--workers 2" in done.err


def test_a_node_that_is_killed_leaves_every_acknowledged_record_and_a_degraded_run(
    tmp_path: Path, cluster: Cluster
) -> None:
    with FakeServer(ttft_ms=10, gap_ms=2, log_body=False) as server:
        path = write_scenario(tmp_path, SCENARIO.format(url=server.url, window=3, repeats=2))
        flags = ("--fleet", "ray", "--workers", "2", "--address", cluster.address)
        process = start(tmp_path, cluster.env, str(path), *flags)
        seen = lines_of_both(tmp_path, process)
        kill(cluster.raylets[1])
        done = finish(tmp_path, process)
    assert done.code == 5, done.err
    assert done.description()["status"] == "degraded"
    first, second = done.attempts()
    for name, lines in seen.items():
        assert (first / name).read_bytes().startswith(lines)  # what was acknowledged is there, to the last byte
    result = done.results()[0]
    (lost,) = result.lost
    (audit,) = result.workers
    assert "is lost" in lost
    records = done.records(first)
    rest = [record for record in records if record.worker == audit.worker]
    assert len(rest) == audit.sent  # the other node finished
    assert {record.worker for record in records} == {0, 1}
    assert any(doubt.code == "worker_lost" for doubt in result.summary.doubts)
    # The next repeat is dealt to the node that is left, whole.
    assert {record.worker for record in done.records(second)} == {0}
    assert any(doubt.code == "fewer_workers" for doubt in done.results()[1].summary.doubts)
    assert {record.session for record in done.records(second)} == set(range(len(done.records(second))))


def lines_of_both(folder: Path, process: subprocess.Popen[str]) -> dict[str, bytes]:
    """What stands in the files of both workers, once both have some records of the window."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        found = {path.name: path.read_bytes() for path in folder.glob("store/runs/*/*/cells/*/*/*/*/requests-*")}
        if len(found) == 2 and all(data.count(b"\n") >= 10 for data in found.values()):
            return found
        time.sleep(0.05)
    raise AssertionError(process.communicate()[1])


def kill(raylet: int) -> None:
    """Kills a node: its raylet and all that it started, without a word."""
    node = psutil.Process(raylet)
    for process in [node, *node.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            process.kill()


def test_an_address_where_nobody_listens_is_a_sentence_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(LoadgenError, match=r"no Ray cluster answers at 127\.0\.0\.1:9: Connection refused"):
        open_fleet({"ray"}, 1, elsewhere("127.0.0.1:9"))
    assert time.monotonic() - began < 20


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="write HOST:PORT"):
        open_fleet({"ray"}, 1, elsewhere("somewhere"))
    with pytest.raises(UsageError, match="means nothing without --fleet ray"):
        open_fleet({"local"}, 1, elsewhere("127.0.0.1:9"))


def test_without_ray_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'loadgen\[ray\]'"):
        open_fleet({"ray"}, 1)


def test_a_worker_that_others_go_before_is_a_doubt() -> None:
    member = Member(0, None)
    member.about = About(host="far", loadgen="1", python="3.11", cores=4, nice=15)
    (doubt,) = _doubts([member])
    assert doubt.text.startswith("Workers on far (15) run with a niceness above 0")
    member.about = msgspec.structs.replace(member.about, nice=0)
    assert list(_doubts([member])) == []


def elsewhere(address: str) -> Elsewhere:
    return Elsewhere(address=address)
