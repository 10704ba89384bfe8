"""A stored run is judged again, by the rules of this version: ``loadgen rejudge RUN``.

In: the request lines, the ticks and what ``summary.json`` says besides. Out: new summaries, and the reports made of
them. Nothing is measured anew, and nothing that was measured changes: a rule that has become better speaks about old
runs as well. What the lines cannot say (the server's machine, workers that were lost, what a workload implied) is kept
as it was said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from loadgen.assemble import RunReport, assemble
from loadgen.audit import CODES
from loadgen.drive.tally import Tick
from loadgen.errors import UsageError
from loadgen.fleet import Outcome, Shard
from loadgen.host import versions
from loadgen.judging import judged
from loadgen.offered import shape_of
from loadgen.ownership import held
from loadgen.plan import Plan, Step
from loadgen.repeat import Result
from loadgen.reports.stored import write_reports
from loadgen.scenario import Cell, expand
from loadgen.scenario.loading import from_public
from loadgen.searched import cells_of, read_plan, read_probes
from loadgen.store import Run, request_files, write_json
from loadgen.summary import Doubt, Summary, Window


def rejudge(run: Run) -> tuple[RunReport, list[str]]:
    """The report of the run as it is judged now, and a sentence for every repeat whose state has changed.

    Raises UsageError where the request lines are gone, or the run is one that nothing was sent for.
    """
    described = run.read("run.json")
    if "origin" in described or not (run.folder / "plan.json").exists():
        raise UsageError(f"{run.id} was read from a file of another program: it has no request lines of ours.")
    plan = read_plan(run)
    cells = {cell.id: cell for cell in expand(from_public(described["scenario"]))}
    cells |= cells_of(read_probes(run), plan, cells)
    with held(run):
        found = list(_results(run, plan))
        for _, folder, _ in found:
            if not request_files(folder):
                raise UsageError(
                    f"{folder} has no request lines any more (loadgen gc deletes old ones): nothing was done."
                )
        place = Path(described["scenario_path"]).parent
        share = msgspec.convert(described["shard"], Shard) if described.get("shard") else None
        part = (0, 1) if share is None else (share.index, share.of)
        changed = [text for one in found if (text := _again(one, cells[one[0].cell], place, part)) is not None]
        run.write("run.json", {**run.read("run.json"), "judged_by": versions().get("loadgen")})
        report = assemble(run)
        write_reports(report)
    return report, changed


def _results(run: Run, plan: Plan) -> Iterator[tuple[Step, Path, Result]]:
    for step in plan.steps:
        folder = run.repeat(step.cell, step.target, step.rep).whole()
        if folder is not None:
            yield step, folder, msgspec.json.decode((folder / "summary.json").read_bytes(), type=Result)


def _again(found: tuple[Step, Path, Result], cell: Cell, place: Path, part: tuple[int, int]) -> str | None:
    step, folder, before = found
    window = before.summary.window
    shares = cpu_shares(folder, window)
    audits = tuple(
        msgspec.structs.replace(audit, cpu_share=shares.get(audit.worker, audit.cpu_share)) for audit in before.workers
    )
    start = before.start_ns
    outcome = Outcome(start_ns=start, started_at=0.0, audits=audits, lost=before.lost, clocks=before.clocks, share=part)
    made_again = CODES | {"endpoint_lost"}
    kept = [doubt for doubt in before.summary.doubts if doubt.code not in made_again]
    shape = shape_of(cell.scenario.load, cell.scenario.workload, place)
    now = judged(cell, (shape, step.seed), folder, window, (outcome, kept))
    summary = _failed_before(before.summary, now.summary)
    write_json(folder / "summary.json", msgspec.structs.replace(before, summary=summary, parts=now.parts))
    if summary.state == before.summary.state:
        return None
    why = " ".join(doubt.text for doubt in (summary.invalid or before.summary.invalid))
    return f"{step.cell}, {step.target}, repeat {step.rep}: {before.summary.state} before, now {summary.state}. {why}"


def _failed_before(before: Summary, now: Summary) -> Summary:
    """What was found out about a repeat when it was over, such as a server that left processes behind, still holds."""
    reasons: tuple[Doubt, ...] = tuple(doubt for doubt in before.invalid if doubt.code not in CODES)
    if not reasons:
        return now
    return msgspec.structs.replace(now, state="failed", invalid=(*reasons, *now.invalid))


def cpu_shares(folder: Path, window: Window) -> dict[int, float]:
    """By worker: the share of a core that it used over the window, from its ticks. Those that are not wholly inside are
    left out; a worker without two of them is not there."""
    used: dict[int, list[float]] = {}
    at: dict[int, float] = {}
    for tick in _ticks(folder / "ticks.jsonl"):
        began = at.get(tick.worker, 0.0)
        at[tick.worker] = tick.t
        if began >= window.w0 and tick.t <= window.w1:
            used.setdefault(tick.worker, []).append(tick.cpu)
    return {worker: sum(shares) / len(shares) for worker, shares in used.items() if len(shares) > 1}


def _ticks(path: Path) -> Iterator[Tick]:
    """Those that are whole, one at a time: of a run of hours there are many. None where there is no file."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):  # cut off by a kill
                yield msgspec.json.decode(line, type=Tick)
