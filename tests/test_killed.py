"""Fifty rounds of kill -9, at random moments and at chosen ones, and what is left of what was measured."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cli_runner import environment, write_scenario
from fakes import FakeServer

from loadgen.nights.events import Night, append
from loadgen.nights.index import contents, look
from loadgen.ownership import half_written
from loadgen.record import read_records
from loadgen.repeat import Result
from loadgen.store import Run, request_files

REQUESTS, REPEATS = 24, 5
SCENARIO = f"""
targets: {{{{a: {{{{endpoint: '{{url}}', model: m}}}}}}}}
workload: {{{{prompts: natural, output: {{{{exact: 4}}}}}}}}
load: {{{{warmup_s: 0, requests: {REQUESTS}}}}}
matrix: {{{{load.concurrency: [2, 4]}}}}
repeats: {REPEATS}
"""

CHOSEN = (
    *(("run", "rename", n) for n in (1, 2, 3, 4, 5, 6, 9)),
    *(("run", "renamed", n) for n in (3, 4, 6, 7)),
    *(("run", "tick", n) for n in (1, 2, 3)),
    *(("run", "line", n) for n in (1, 2, 4, 6)),
    *(("reindex", "insert", n) for n in (1, 2, 9)),
    *(("reindex", "commit", n) for n in (1, 2)),
    *(("gc", "rename", n) for n in (1, 3)),
    *(("gc", "remove", n) for n in (1, 4)),
)
"""Command, moment, and which one of its kind."""

ROUNDS = 50


class Rounds:
    """A store, the program that dies in it, and every whole request line that was ever seen there."""

    def __init__(self, folder: Path, scenario: Path, mortal: subprocess.Popen[str]) -> None:
        self.folder, self.scenario, self.mortal = folder, scenario, mortal
        self.store = folder / "store"
        self.seen: dict[Path, bytes] = {}
        self.moments: Counter[str] = Counter()

    def order(self, words: list[str], moment: str = "never", nth: float = 0) -> int:
        assert self.mortal.stdin is not None
        assert self.mortal.stdout is not None
        self.mortal.stdin.write(json.dumps({"argv": words, "moment": moment, "nth": nth}) + "\n")
        self.mortal.stdin.flush()
        return int(self.mortal.stdout.readline())

    def run(self) -> list[str]:
        """Goes on with the last run, or begins one where that is complete."""
        runs = self.runs()
        over = not runs or runs[-1].read("run.json")["status"] in ("complete", "degraded")
        return ["run", str(self.scenario), "--quiet", *([] if over else ["--resume", runs[-1].id])]

    def runs(self) -> list[Run]:
        return [Run(path.parent) for path in sorted(self.store.glob("runs/*/*/run.json"))]

    def lines(self) -> Iterator[tuple[Path, bytes]]:
        """Every whole line on the disk now, by the file's plain name."""
        for attempt in self.store.glob("runs/*/*/cells/*/*/rep-*/attempt-*"):
            for path in request_files(attempt):
                data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
                yield path.with_name(path.name.removesuffix(".gz")), data[: data.rfind(b"\n") + 1]

    def look(self, moment: str, killed: bool) -> None:
        """What the disk says of the moment, and that nothing is gone which was there before."""
        torn = [path for path in self.store.rglob("*.jsonl") if path.read_bytes()[-1:] not in (b"", b"\n")]
        fresh = [path for run in self.runs() for path in half_written(run)]
        if killed and moment in ("tick", "line") and torn:
            self.moments[f"mid-line ({moment})"] += 1
        elif killed and moment in ("insert", "commit"):  # inside of its transaction
            self.moments[f"mid-index ({moment})"] += 1
        elif killed and fresh:
            name = fresh[-1].name.strip(".").rpartition(".")[0]
            self.moments[f"mid-rename ({'requests.gz' if name.endswith('.gz') else name})"] += 1
        else:
            self.moments[f"elsewhere ({moment})" if killed else "over before its moment"] += 1
        now = dict(self.lines())
        for path, data in self.seen.items():
            assert now[path].startswith(data), path
        self.seen = now

    def note_nights(self) -> None:
        """Every complete run is a night, so that the index has something to hold."""
        noted = {line.get("run") for line in map(json.loads, self._events())}
        for run in self.runs():
            if run.id not in noted and run.read("run.json")["status"] in ("complete", "degraded"):
                append(self.store, [Night(at="2026-11-21T04:00:00Z", run=run.id, scenario="s", verdicts=())])

    def _events(self) -> list[str]:
        path = self.store / "events.jsonl"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[Rounds]:
    program = [sys.executable, str(Path(__file__).with_name("mortal.py"))]
    with (
        FakeServer(ttft_ms=1, gap_ms=0) as server,
        subprocess.Popen(
            program, cwd=tmp_path, env=environment(tmp_path / "store"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as mortal,
    ):  # fmt: skip
        yield Rounds(tmp_path, write_scenario(tmp_path, SCENARIO.format(url=server.url)), mortal)
        mortal.kill()


def test_after_fifty_kills_every_line_is_there_and_none_counts_twice(rounds: Rounds) -> None:
    kills = 0
    for command, moment, nth in in_order(random.Random(4711)):
        words = rounds.run() if command == "run" else [command]
        if command != "run":
            settle(rounds)
        killed = rounds.order(words, moment, nth) == -9
        kills += killed
        rounds.look(moment, killed)
        rounds.note_nights()
    while (status := rounds.order(rounds.run())) not in (0, 5) or not complete(rounds):
        assert status != 70, (rounds.folder / "out.txt").read_text()
    rounds.look("never", killed=False)
    print("\n".join(f"{count:3} {moment}" for moment, count in sorted(rounds.moments.items())))
    assert kills >= ROUNDS * 3 // 4
    hit = " ".join(rounds.moments)
    assert all(moment in hit for moment in ("mid-line (line)", "mid-line (tick)", "mid-rename", "mid-index"))
    assert "Traceback" not in (rounds.folder / "out.txt").read_text()
    settle(rounds)
    assert rounds.order(["gc"]) == 0  # it clears what was half written of a run that was complete already: a report
    counted_once(rounds)
    index_is_its_rebuild(rounds)


def in_order(draw: random.Random) -> list[tuple[str, str, float]]:
    """The chosen moments among random ones. What needs a run that is there does not come first."""
    anywhere = [("run", "after", 0.05 + 1.2 * draw.random()) for _ in range(ROUNDS - len(CHOSEN))]
    runs = [*anywhere, *(one for one in CHOSEN if one[0] == "run")]
    draw.shuffle(runs)
    later = [*runs[ROUNDS // 4 :], *(one for one in CHOSEN if one[0] != "run")]
    draw.shuffle(later)
    return [*runs[: ROUNDS // 4], *later]


def settle(rounds: Rounds) -> None:
    """Nothing was written for two minutes, so that ``gc`` has something to do."""
    before = time.time() - 120
    for path in rounds.store.rglob("*"):
        os.utime(path, (before, before))


def complete(rounds: Rounds) -> bool:
    return all(run.read("run.json")["status"] in ("complete", "degraded") for run in rounds.runs())


def counted_once(rounds: Rounds) -> None:
    """Every request is in one line, and every repeat counts by one whole attempt, with all of its requests."""
    ids = Counter()
    for run in rounds.runs():
        counted = 0
        for repeat in run.repeats():
            for attempt in repeat.attempts():
                ids.update(record.request_id() for record in read_records(request_files(attempt)))
            whole = repeat.whole()
            assert whole is not None
            result = msgspec.json.decode((whole / "summary.json").read_bytes(), type=Result)
            measured = [record for record in read_records(request_files(whole)) if record.phase == "measure"]
            assert result.summary.requests == len(measured) == REQUESTS
            assert result.attempt == int(whole.name.removeprefix("attempt-"))
            counted += result.summary.requests
        assert counted == 2 * REPEATS * REQUESTS
        assert half_written(run) == []
    assert ids.most_common(1)[0][1] == 1


def index_is_its_rebuild(rounds: Rounds) -> None:
    rounds.note_nights()
    look(rounds.store, lambda _: None, print)
    before = contents(rounds.store)
    assert rounds.order(["reindex"]) == 0
    assert contents(rounds.store) == before
    assert len(before["runs"]) == len(rounds.runs())
    assert before["points"]
