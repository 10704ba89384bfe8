"""Whole nights against servers whose speed is scripted: what is found, confirmed, kept, told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cli_runner import Done, command, environment, hear_signals
from nights_made import NORMAL, SCENARIO, SLOW, Hook, Place, listening

from loadgen.errors import BusyError, PreflightError, StoreError
from loadgen.launch import leftovers
from loadgen.locks import held, machine_locks, name_lock
from loadgen.nightly.afterwards import clean
from loadgen.nightly.past_runs import paces, unfinished
from loadgen.nightly.site import write_site
from loadgen.nightly.story import Asked, nightly
from loadgen.nights.events import Night, Raised, Recovered, read_events
from loadgen.nights.history import read_history
from loadgen.nights.index import contents, look, reindex
from loadgen.nights.night import NightReport, lines, remarks
from loadgen.nights.verdicts import State
from loadgen.plan import Plan, PlannedCell, Step
from loadgen.progress import Progress
from loadgen.retention import KEEP_S
from loadgen.scenario import Machine, Scenario, load
from loadgen.store import create_run, read_json, write_json

HOOK = "nightly: {webhook_env: A_HOOK}\n"
SPEED = "nightly: {webhook_env: A_HOOK, primary: [output_tok_s]}\n"
"""Times to the first token are those of this machine's moods as well."""


ODD = b'{"run": 5, "status": [], "started": 7, "scenario": "x", "night": "y", "failures": 3, "pid": "z"}'


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with ten nights."""
    folder = tmp_path_factory.mktemp("learned")
    place = Place(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOADGEN_LOCKS", str(folder))
        night(place)
    place.copy_into_the_past(9)
    return place.store


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("LOADGEN_LOCKS", str(tmp_path / "locks"))
    return Place(tmp_path)


def night(place: Place, scenario: Path | None = None, *, tries: int = 12, **asked: Any) -> NightReport:
    """A night in this process. One in which this machine was too busy to send in time never was: it is done again."""
    what = Asked(load(scenario or place.scenario()), place.store, **asked)
    for _ in range(tries):
        before = place.remember()
        report, _ = nightly(what, Progress(lambda _: None, None))
        if not hurried(report) or tries == 1:
            break
        place.restore(before)
    return report


def hurried(report: NightReport) -> bool:
    """True if this machine was too busy for a night."""
    said = ("The client sent late", "Requests ran in step", "were sent inside the window")
    return any(words in line for words in said for line in remarks(report))


def nights(place: Place) -> list[Night]:
    return [event for event in read_events(place.store) if isinstance(event, Night)]


def speed(report: NightReport) -> State:
    (found,) = [one for one in report.verdicts if one.series.measure == "output_tok_s"]
    return found.state


@pytest.fixture
def hook(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with listening() as found:
        monkeypatch.setenv("A_HOOK", found.url)
        place.hook = found
        yield found


def test_the_first_night_learns_is_kept_and_is_told_as_the_weeks_digest(place: Place, hook: Hook) -> None:
    report = night(place, place.scenario(HOOK))
    assert report.exit_code == 0, remarks(report)
    assert [one.state for one in report.verdicts if one.primary] == [State.LEARNING] * 2
    (run,) = place.runs()
    assert read_json(run / "run.json")["night"] == {"part": "measure", "left_out": []}
    (kept,) = nights(place)
    assert (kept.run, kept.scenario, kept.confirms, kept.exit_code) == (run.name, "watched", (), 0)
    assert kept.verdicts == report.verdicts
    (text,) = hook.texts()
    assert text.startswith("*loadgen nightly watched on ")
    assert "(weekly): 2 primary series: 2 learning*" in text
    assert (place.store / "site" / "index.html").exists()
    assert not list(run.rglob("requests-*.jsonl"))
    assert list(run.rglob("requests-*.jsonl.gz"))


def test_a_slow_night_is_measured_again_and_is_a_regression_until_it_recovers(
    place: Place, hook: Hook, learned: Path
) -> None:
    scenario = place.scenario(SPEED)
    shutil.copytree(learned, place.store)
    place.pace(SLOW)
    first = night(place, scenario)
    assert speed(first) is State.REGRESSION, first
    assert first.exit_code == 4, remarks(first)
    measured, again = place.runs()[-2:]
    assert str(again) == first.confirmed_by
    assert read_json(again / "run.json")["night"] == {"part": "confirm", "confirms": measured.name}
    assert len(list(measured.glob("servers/*"))) == len(list(again.glob("servers/*"))) == 1  # a fresh server
    (said, *_) = lines(first)
    assert said.startswith("REGRESSION watched a all output_tok_s ")
    assert "confirmed 2/2" in said
    (text,) = hook.texts()
    assert f"• {said}" in text
    assert "SECRET" not in "".join(
        path.read_text(errors="replace") for path in place.store.rglob("*") if path.is_file()
    )

    second = night(place, scenario)
    assert (speed(second), second.exit_code, second.confirmed_by) == (State.REGRESSION, 4, None)
    assert len(hook.bodies) == 1  # one alert

    place.pace(NORMAL)
    third = night(place, scenario)
    assert (speed(third), third.exit_code) == (State.OK, 0)
    assert "• RECOVERED (ok) watched a all output_tok_s " in hook.texts()[1]
    kinds = [type(event) for event in read_events(place.store) if isinstance(event, Raised | Recovered)]
    assert kinds == [Raised, Recovered]


def test_what_is_slow_once_and_not_twice_is_suspect_and_no_alarm(place: Place, learned: Path) -> None:
    shutil.copytree(learned, place.store)
    place.pace(SLOW, NORMAL)
    report = night(place, place.scenario(SPEED))
    assert (speed(report), report.exit_code) == (State.SUSPECT, 0), remarks(report)
    assert report.confirmed_by is not None
    assert "worse in 1/2" in lines(report)[0]


def test_a_candidate_that_cannot_be_measured_again_remains_suspect_and_the_night_has_failed(
    place: Place, learned: Path
) -> None:
    shutil.copytree(learned, place.store)
    place.pace(SLOW, "-1")
    report = night(place, place.scenario(SPEED))
    assert (speed(report), report.exit_code) == (State.SUSPECT, 6)
    assert report.confirmed_by is not None


def test_a_night_without_a_server_is_told_and_the_next_good_one_too(place: Place, hook: Hook) -> None:
    scenario = place.scenario(HOOK)
    place.pace("-1", NORMAL)
    failed = night(place, scenario)
    assert failed.exit_code == 6
    assert {one.state for one in failed.verdicts} == {State.INVALID}
    assert any("FAILED: paced (target a) died while loading" in line for line in remarks(failed)), remarks(failed)
    assert "INVALID watched a all output_tok_s: no good repeat" in hook.texts()[0]
    assert night(place, scenario).exit_code == 0
    assert "MEASURED AGAIN (learning) watched a all output_tok_s" in hook.texts()[1]


def test_a_preflight_that_fails_begins_no_run_and_is_told_once(place: Place, hook: Hook) -> None:
    broken = "targets: {a: {endpoint: 'http://127.0.0.1:1', model: m}}\nname: watched\n"
    rest = "workload: {prompts: natural, output: {exact: 4}}\nload: {concurrency: 1, warmup_s: 0, window_s: 1}\n"
    hook.status = 404
    with pytest.raises(
        PreflightError, match=r"in spite of it\.\) the webhook of A_HOOK was not told: it answers HTTP 404"
    ):
        night(place, place.scenario(HOOK, broken + rest))
    hook.status = 200
    hook.bodies.clear()
    for _ in range(2):
        with pytest.raises(PreflightError, match=r"the night was not begun\. endpoint: target a: .* refused") as error:
            night(place, place.scenario(HOOK, broken + rest))
    assert error.value.exit_code == 6
    assert place.runs() == []
    (text,) = hook.texts()
    assert "nothing was measured*\n• NOT RUN: the night was not begun." in text
    night(place, place.scenario(HOOK))
    assert "• RUNS AGAIN" in hook.texts()[1]


def test_a_night_whose_store_cannot_be_used_is_told(place: Place, hook: Hook) -> None:
    """A disk that is away at half past three is not seen by anybody until the morning."""
    place.store.write_text("no folder")
    with pytest.raises(StoreError, match="cannot make the folder"):
        nightly(Asked(load(place.scenario(HOOK)), place.store), Progress(lambda _: None, live=True))
    (text,) = hook.texts()
    assert "nothing was measured*\n• NOT RUN: cannot make the folder " in text


def test_a_webhook_that_fails_fails_no_night(place: Place, hook: Hook) -> None:
    hook.status = 404
    report = night(place, place.scenario(HOOK))
    assert report.exit_code == 0
    assert report.notes == (
        "the webhook of A_HOOK was not told: it answers HTTP 404. It will be after the next night.",
    )


def test_a_budget_drops_the_last_cells_and_names_them(place: Place) -> None:
    text = SCENARIO.replace("load: {concurrency: 4, ", "load: {") + "matrix: {load.concurrency: [1, 4]}\n"
    report = night(place, place.scenario(text=text), budget_s=43)
    assert report.left_out == ("concurrency=4",)
    assert {one.series.cell for one in report.verdicts} == {"concurrency=1"}
    assert "The budget had no time for 1 cells: concurrency=4." in remarks(report)


def test_a_night_whose_process_was_killed_is_gone_on_with_and_is_one_night(place: Place) -> None:
    scenario = place.scenario(text=SCENARIO.replace("repeats: 1", "repeats: 3"))
    one = subprocess.Popen(
        command("nightly", str(scenario), "--quiet"), env=environment(place.store), stdout=subprocess.DEVNULL
    )
    first = place.store / "runs"
    deadline = time.monotonic() + 120
    while not list(first.rglob("summary.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    (run,) = place.runs()
    kept = list(run.rglob("summary.json"))
    assert kept
    before = {path: path.read_bytes() for path in kept}
    report = night(place, scenario, resume=True, tries=1)
    assert report.went_on
    assert place.runs() == [run]
    assert report.exit_code == 0 or hurried(report), remarks(report)  # the killed one may have been late already
    assert [path.read_bytes() for path in before] == list(before.values())
    assert [one.run for one in nights(place)] == [run.name]
    assert leftovers(place.store) == []
    assert not night(place, scenario, resume=True).went_on  # that night is over


def test_a_night_that_was_killed_in_its_second_measurement_goes_on_there(place: Place, learned: Path) -> None:
    shutil.copytree(learned, place.store)
    place.pace(SLOW)
    first = night(place, place.scenario(SPEED))
    assert speed(first) is State.REGRESSION
    measured, again = place.runs()[-2:]
    events = place.store / "events.jsonl"  # as if it had been killed before its verdict, with one repeat not whole
    events.write_text("".join(line for line in events.read_text().splitlines(True) if measured.name not in line))
    for path in again.rglob("summary.json"):
        path.unlink()
    second = night(place, place.scenario(SPEED), resume=True)
    assert (second.run, second.confirmed_by) == (measured.name, str(again))
    assert speed(second) is State.REGRESSION
    assert place.runs()[-2:] == [measured, again]
    assert len(list(measured.glob("cells/*/*/rep-*/attempt-*"))) == 1
    assert [path.parent.name for path in again.rglob("summary.json")] == ["attempt-2"]


def test_a_night_of_another_scenario_or_of_yesterday_is_not_gone_on_with(place: Place) -> None:
    night(place)
    (place.store / "events.jsonl").unlink()
    (run,) = place.runs()
    changed = load(place.scenario(text=SCENARIO.replace("window_s: 0.6", "window_s: 0.5"))).scenario
    same = load(place.scenario()).scenario
    assert unfinished(place.store, same, (), "measure") is not None
    assert unfinished(place.store, same, (), "confirm") is None
    assert unfinished(place.store, same, (run.name,), "measure") is None
    assert unfinished(place.store, changed, (), "measure") is None
    write_json(run / "run.json", {**read_json(run / "run.json"), "started": "2020-01-01T00:00:00Z"})
    assert unfinished(place.store, same, (), "measure") is None


def test_an_unfinished_night_is_found_whatever_folders_of_runs_are_called_by_now(place: Place, learned: Path) -> None:
    shutil.copytree(learned, place.store)
    scenario = load(place.scenario()).scenario
    judged = [one.run for one in nights(place)]
    newest = place.runs()[-1]
    begun = shutil.copytree(newest, place.store / "runs" / "2020-01-01" / "20200101T000000Z-watched-abcdef")
    written = {**read_json(begun / "run.json"), "run": begun.name}
    for name, started in (("zz my best night", written["started"]), ("another", "not a time")):  # judged ones
        copy = shutil.copytree(newest, newest.with_name(name))
        write_json(copy / "run.json", {**read_json(copy / "run.json"), "started": started, "run": judged[0]})
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    write_json(begun / "run.json", {**written, "started": later})
    assert found_in(place, scenario, judged) == begun
    renamed = begun.rename(begun.with_name("do not touch [1]"))
    assert found_in(place, scenario, judged) == renamed
    assert found_in(place, scenario, [*judged, begun.name]) is None  # its name may change, what was judged does not
    for started in ("2038-01-01T00:00:00Z", "yesterday", None, 7):
        write_json(renamed / "run.json", {**written, "started": started})
        found_in(place, scenario, judged)
    write_json(renamed / "run.json", {**written, "started": "2038-01-01T00:00:00Z"})
    assert found_in(place, scenario, judged) is None  # the clock was wrong that night


def found_in(place: Place, scenario: Scenario, judged: list[str]) -> Path | None:
    found = unfinished(place.store, scenario, judged, "measure")
    return found.folder if found else None


def test_a_night_whose_folder_was_renamed_moved_or_copied_is_the_night_that_it_was(place: Place, learned: Path) -> None:
    shutil.copytree(learned, place.store)
    before = read_history(place.store)
    oldest, *_, newest = place.runs()
    shutil.copytree(newest, newest.with_name("a copy of it"))
    moved = oldest.rename(newest.with_name("0 the first one"))
    (place.store / "runs" / "2020-01-01").rename(place.store / "runs" / "older")
    after = read_history(place.store)
    assert [night.run for night in after.nights] == [night.run for night in before.nights]
    assert after.entries == before.entries
    assert len(next(iter(after.entries.values()))) == 10
    assert after.kept() - before.kept() == {moved.name}
    assert before.kept() - after.kept() == {oldest.name}
    assert after.folders()[oldest.name] == place.store / "runs" / moved.relative_to(place.store / "runs")
    write_site(place.store)
    pages = {path.stem for path in (place.store / "site" / "runs").glob("*.html")}
    assert pages >= {night.run for night in after.nights}
    write_json(moved / "run.json", {**read_json(moved / "run.json"), "run": "../../outside"})
    assert moved.name in read_history(place.store).folders()


@pytest.mark.parametrize("text", [b"", b"\0" * 400, b"null", b"[1]", b'{"scenario": {"name": "\xff"}}', ODD])
def test_a_run_whose_run_json_is_damaged_costs_no_other_night_anything(
    place: Place, learned: Path, text: bytes
) -> None:
    shutil.copytree(learned, place.store)
    (place.runs()[-1] / "run.json").write_bytes(text)
    shutil.copytree(place.runs()[0] / "cells", place.runs()[0] / "cells" / "odd" / "a" / "rep-old")
    said = night(place, resume=True)
    assert not said.went_on
    assert speed(said) in (State.OK, State.IMPROVEMENT)
    assert len(nights(place)) == 11


def test_an_interrupted_night_says_nothing_of_any_series_and_is_no_night(place: Place) -> None:
    one = subprocess.Popen(
        command("nightly", str(place.scenario()), "--quiet"),
        env=environment(place.store), stdout=subprocess.PIPE, text=True, preexec_fn=hear_signals,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(place.store.rglob("requests-*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    one.send_signal(signal.SIGTERM)
    out, _ = one.communicate(timeout=120)
    assert one.returncode == 143
    assert "interrupted; nothing is said of any series, and --resume goes on" in out
    assert nights(place) == []


def test_two_nightlies_in_the_same_second_are_one_and_a_busy_one_and_the_store_is_whole(place: Place) -> None:
    words = command("nightly", str(place.scenario()), "--quiet")
    both = [
        subprocess.Popen(words, env=environment(place.store), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    done = [(*one.communicate(timeout=120), one.returncode) for one in both]
    ((_, err, _),) = [one for one in done if one[2] == 75]
    ((out, _, code),) = [one for one in done if one[2] != 75]
    assert code in (0, 5), out
    assert err.startswith("loadgen: ")
    assert " is held by " in err
    (run,) = place.runs()
    assert [one.run for one in nights(place)] == [run.name]
    look(place.store, lambda index: None, print)
    before = contents(place.store)
    assert reindex(place.store) == (1, 1)
    assert contents(place.store) == before


def test_a_night_kept_out_by_a_run_is_told_once_and_one_that_is_at_it_already_is_not(place: Place, hook: Hook) -> None:
    scenario = place.scenario(HOOK)
    for wanted in ([name_lock(place.store, "watched")], machine_locks(["cores"]), machine_locks(["cores"])):
        with held(wanted, "run x", 0, print), pytest.raises(BusyError, match=r" is held by run x \(pid "):
            night(place, scenario)
    (text,) = hook.texts()
    assert "nothing was measured*\n• NOT RUN: the lock of this machine's cores is held by run x (pid " in text
    assert place.runs() == []


def test_old_request_lines_make_room_before_a_night_looks_for_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full until they are gone: else no night would begin any more, and none would end by deleting."""
    night(place)
    place.copy_into_the_past(1)
    (old, new) = place.runs()
    write_json(old / "run.json", {**read_json(old / "run.json"), "ended": "2020-01-01T00:00:00Z"})
    lines = next(new.rglob("requests-*.jsonl.gz"))
    kept = old / lines.relative_to(new)
    assert kept.exists()
    events = place.store / "events.jsonl"
    events.write_text("".join(line for line in events.read_text().splitlines(True) if old.name not in line))

    def usage(_: object) -> Any:
        return SimpleNamespace(free=0 if kept.exists() else 10**12)

    monkeypatch.setattr("loadgen.doctor.disks.shutil.disk_usage", usage)
    report = night(place)
    assert not kept.exists()
    assert report.exit_code == 0, remarks(report)


def test_a_night_that_fails_after_its_run_did_not_measure_nothing_and_is_judged_by_resuming(
    place: Place, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = place.scenario(HOOK)

    def full(*_: object) -> None:
        raise StoreError("cannot write events.jsonl: No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr("loadgen.nightly.story.append", full)
        with pytest.raises(StoreError, match="No space left"):
            night(place, scenario)
    (text,) = hook.texts()
    (run,) = place.runs()
    assert "nothing was judged*\n• NOT JUDGED: cannot write events.jsonl" in text
    assert text.endswith(f"run {run}; --resume judges it")
    report = night(place, scenario, resume=True, tries=1)  # the first one may have been late already
    assert (report.run, report.went_on) == (run.name, True)
    assert [one.run for one in nights(place)] == [run.name]


def test_a_machine_that_lost_its_gpus_does_not_measure_another_profile_in_silence(place: Place) -> None:
    profiles = SCENARIO.replace("load: {concurrency: 4, ", "load: {") + (
        "profiles:\n  gpu: {when: {gpus: 1}, load: {concurrency: 4}}\n  cpu: {when: {}, load: {concurrency: 2}}\n"
    )
    path = place.scenario(text=profiles)
    with_gpu = Machine(gpus=1, gpu_memory_gb=80, gpu_name="H100")
    nightly(Asked(load(path, machine=with_gpu), place.store), Progress(lambda _: None, None))
    lost = Asked(load(path, machine=Machine(0, 0.0, None)), place.store)
    with pytest.raises(PreflightError, match=r"the last night ran 'gpu', and now profile 'cpu': .*: --profile cpu\."):
        nightly(lost, Progress(lambda _: None, None))
    assert len(place.runs()) == 1
    report, _ = nightly(msgspec.structs.replace(lost, named=True), Progress(lambda _: None, None))
    assert report.findings == () or report.findings[0].name != "profile"


def test_two_scenarios_of_one_name_that_take_turns_are_noticed(place: Place) -> None:
    one, other = place.scenario(), SCENARIO.replace("exact: 12", "exact: 11")
    assert night(place, one).notes == ()
    assert night(place, place.scenario(text=other)).notes == ()  # it may have been changed for good
    (note,) = night(place, place.scenario()).notes
    assert note.startswith("The last night called watched measured other series, and an earlier one these.")


def test_a_night_that_its_budget_cut_teaches_the_next_ones_how_long_it_takes(tmp_path: Path) -> None:
    """4 of 8 repeats of 10 s were measured in 80 s: nights take twice what they plan."""
    run = create_run(tmp_path, "n")
    cells = [PlannedCell(id="c", axes={}, digest="", seconds=10)]
    steps = [Step(cell="c", target="a", rep=rep, block=1, seed=1, server=None) for rep in range(1, 9)]
    run.write("plan.json", Plan(scope="instance", cells=tuple(cells), steps=tuple(steps), servers={}, estimate_s=80))
    for step in steps[:4]:
        write_json(run.repeat("c", "a", step.rep).new_attempt()[1] / "summary.json", {})
    began, ended = "2026-01-01T00:00:00Z", "2026-01-01T00:01:20Z"
    described = {"status": "degraded", "out_of_time": True, "failures": [], "started": began, "ended": ended}
    run.write("run.json", described)
    assert paces(tmp_path, [run.id]) == [(80.0, 40.0)]
    run.write("run.json", {**run.read("run.json"), "started": "1999-01-01T00:00:00Z"})  # a clock that was set meanwhile
    assert paces(tmp_path, [run.id]) == []
    run.write("run.json", {**described, "failures": ["a died"]})
    assert paces(tmp_path, [run.id]) == []


def test_ci_gets_a_summary_and_the_night_as_json(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = place.folder / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    store = place.folder / "st\u00f6re"  # JSON is UTF-8, whatever the locale
    done = subprocess.run(
        command("nightly", str(place.scenario()), "--quiet", "--json", "--store", str(store)),
        env={**environment(store), "PYTHONIOENCODING": "ascii"}, capture_output=True,
    )  # fmt: skip
    assert Done(done.returncode, "", "", store).good, done.stderr
    told = json.loads(done.stdout.decode())
    assert (told["name"], Path(told["path"]).parents[2]) == ("watched", store)
    text = summary.read_text()
    assert text.startswith("## Nightly watched: 2 primary series: ")
    assert "| a | all | output\\_tok\\_s |" in text
    assert "## watched" in text or "# watched" in text  # the run's own report follows


def test_a_night_whose_clock_is_years_ahead_deletes_no_request_lines(
    place: Place, learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(learned, place.store)
    *_, other, last = place.runs()
    lines = [path for run in place.runs() for path in run.rglob("requests-*")]
    (place.store / "events.jsonl").unlink()  # no baseline stands on any
    now = time.time()
    monkeypatch.setattr("loadgen.nightly.afterwards.time.time", lambda: now + 20 * 365 * 86400)
    clean(place.store, KEEP_S, print)
    assert len(lines) == len([path for run in place.runs() for path in run.rglob("requests-*")]) == 10
    monkeypatch.setattr("loadgen.nightly.afterwards.time.time", lambda: now)
    for run in place.runs():
        if run not in (other, last):
            described = read_json(run / "run.json")
            old = {"started": "2020-01-01T00:00:00Z", "ended": "2020-01-01T00:01:00Z"}
            write_json(run / "run.json", {**described, **old})
    clean(place.store, KEEP_S, print)
    assert {path.parents[5] for path in place.store.rglob("requests-*")} == {other, last}
