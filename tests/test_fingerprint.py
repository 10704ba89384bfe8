"""Fingerprints of servers: how they are taken, by the workers that send the load, and what they say when compared."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer
from scenario_text import scenario

from loadgen.assemble import assemble
from loadgen.errors import StoreError, TargetError
from loadgen.fair import gates
from loadgen.fair.fairness import Kept
from loadgen.fair.fingerprint import FILE, PROBE_TOKENS, PROBES, Fingerprint, Probe, Prober, read_fingerprints
from loadgen.fleet.local import Fleet
from loadgen.jobs import Site
from loadgen.plan import make_plan
from loadgen.record import read_records
from loadgen.scenario import expand
from loadgen.statistics import Verdict
from loadgen.store import Run, create_run, request_files
from loadgen.targets import options_of
from loadgen.workloads import Context, natural

SCENARIO = """
schema: loadgen/v1
targets: {a: {endpoint: 'URL', model: m, request: {REQUEST}}}
workload: {prompts: natural, output: {exact: TOKENS}, sampling: {temperature: 0.7, top_p: 0.9, stop: [X]}}
load: {warmup_s: 0, window_s: 1, workers: 2}
matrix: {load.concurrency: [1, 4]}
repeats: 2
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(2) as fleet:
        yield fleet


def quick(**script: Any) -> FakeServer:
    return FakeServer(ttft_ms=1, gap_ms=0, **script)


def take(folder: Path, fleet: Fleet, url: str, request: str = "", *, tokens: int = 100, **given: Any) -> Run:
    """A run's folder after every repeat of it was prepared and none was driven."""
    text = SCENARIO.replace("URL", url).replace("REQUEST", request).replace("TOKENS", str(tokens))
    found = scenario(folder, text)
    cells = {cell.id: cell for cell in expand(found)}
    run = given.get("run") or create_run(folder / "store", "s")
    prober = Prober(run, fleet)
    for step in make_plan(found, list(cells.values())).steps:
        cell = cells[step.cell]
        options = options_of(cell, cell.scenario.targets["a"], "m", {}, {"min_tokens": "{n}"})
        site = Site(url=url, backend="openai_chat", options=options, headers={})
        prober.before(cell, step, site, None, given.get("look", lambda: None))
    return run


def test_a_server_is_asked_once_a_few_greedy_questions_of_the_workload(tmp_path: Path, fleet: Fleet) -> None:
    with quick(log_body=True) as server:
        run = take(tmp_path, fleet, server.url)
    bodies = [entry["body"] for entry in server.truth()]
    assert len(bodies) == PROBES  # of two cells and two repeats
    assert all((body["temperature"], body["stop"], body["max_tokens"]) == (0, ["X"], 16) for body in bodies)
    assert not any("top_p" in body for body in bodies)
    (found,) = read_fingerprints(run)
    assert (found.target, found.server, found.exact, found.ask_tok) == ("a", None, True, PROBE_TOKENS)
    assert found.sampling == {"temperature": 0.7, "top_p": 0.9}
    assert all((probe.out_tok, probe.err) == (16, None) and probe.in_tok for probe in found.probes)
    assert len({probe.prompt_sha for probe in found.probes}) == PROBES


def test_probes_are_request_lines_of_their_own_phase_one_after_the_other(tmp_path: Path, fleet: Fleet) -> None:
    with quick() as server:
        run = take(tmp_path, fleet, server.url, tokens=5)
    (folder,) = run.folder.glob("probes/a/endpoint/*")
    assert json.loads((folder / FILE).read_text())["v"] == 1
    records = sorted(read_records(request_files(folder)), key=lambda record: record.session)
    assert {(record.phase, record.rep, record.out_tok) for record in records} == {("probe", 0, 5)}
    assert all((one.t_end or 0) <= (next_.t_send or 0) for one, next_ in itertools.pairwise(records))


def test_the_questions_are_the_same_for_every_server_and_no_repeats_own(tmp_path: Path, fleet: Fleet) -> None:
    def prompts(seed: int) -> list[str | None]:
        context = Context(seed=seed, ask_tok=8, exact=True)
        return [natural.open({}, context).session(index)[0].sha() for index in range(PROBES)]

    with quick() as one, quick() as other:
        found = [
            read_fingerprints(take(tmp_path / name, fleet, url))[0] for name, url in (("x", one.url), ("y", other.url))
        ]
    asked = [[probe.prompt_sha for probe in one.probes] for one in found]
    assert asked[0] == asked[1]
    planned = scenario(tmp_path, SCENARIO.replace("URL", "http://h").replace("REQUEST", "").replace("TOKENS", "8"))
    seeds = {step.seed for step in make_plan(planned, expand(planned)).steps}
    assert all(prompts(seed) != asked[0] for seed in seeds)


def test_a_resumed_run_takes_a_fingerprint_beside_the_old_one(tmp_path: Path, fleet: Fleet) -> None:
    with quick() as server:
        run = take(tmp_path, fleet, server.url, tokens=5)
        take(tmp_path, fleet, server.url, tokens=5, run=run)
    assert len(read_fingerprints(run)) == 2
    assert len({found.key for found in read_fingerprints(run)}) == 1


def test_a_broken_fingerprint_is_a_sentence_with_its_path(tmp_path: Path, fleet: Fleet) -> None:
    with quick() as server:
        run = take(tmp_path, fleet, server.url, tokens=5)
    (path,) = run.folder.glob(f"probes/*/*/*/{FILE}")
    for text, reason in (("{", "is no JSON"), ('{"v": 1}', "is no fingerprint")):
        path.write_text(text)
        with pytest.raises(StoreError, match=f"{FILE} {reason}"):
            read_fingerprints(run)


@pytest.mark.parametrize("request_words", ["temperature: 0.7", "sampling_params: {temperature: 1}"])
def test_a_server_that_cannot_be_asked_greedily_is_not_probed_and_it_says_why(
    tmp_path: Path, fleet: Fleet, request_words: str
) -> None:
    with quick() as server:
        (found,) = read_fingerprints(take(tmp_path, fleet, server.url, request_words))
        assert server.truth() == []
    assert found.probes == ()
    doubt, _ = gates.doubts(("a", [found]), ("b", [found]), (), same=False)
    assert doubt.text.startswith("a was not probed before it was timed: its own request fields set temperature ")


def test_an_interrupt_leaves_no_fingerprint(tmp_path: Path, fleet: Fleet) -> None:
    with FakeServer(ttft_ms=2000) as server:
        run = take(tmp_path, fleet, server.url, look=lambda: "now")
    assert read_fingerprints(run) == []


def test_a_server_that_cannot_be_reached_is_an_error_of_its_target(tmp_path: Path, fleet: Fleet) -> None:
    with pytest.raises(TargetError, match="cannot be reached"):
        take(tmp_path, fleet, "http://127.0.0.1:9")


# What they say --------------------------------------------------------------------------------------------------------


def probed(folder: Path, fleet: Fleet, tokens: int = 8, **script: Any) -> Fingerprint:
    with quick(**script) as server:
        (found,) = read_fingerprints(take(folder, fleet, server.url, tokens=tokens))
    return found


def said(a: Sequence[Fingerprint], b: Sequence[Fingerprint], *declared: str, same: bool = True) -> list[str]:
    found = [*gates.differences(("a", a), ("b", b), declared)]
    return found + [f"? {doubt.code}: {doubt.text}" for doubt in gates.doubts(("a", a), ("b", b), declared, same)]


def test_servers_that_answer_alike_say_nothing(tmp_path: Path, fleet: Fleet) -> None:
    one, other = (probed(tmp_path / name, fleet) for name in "xy")
    assert said([one], [other]) == []
    assert gates.alike([one], [other]) == (4, 4)
    assert said([], [other]) == []
    assert gates.alike([], [other]) is None


def test_prompts_of_other_lengths_differ_unless_the_model_is_meant(tmp_path: Path, fleet: Fleet) -> None:
    one, other = probed(tmp_path / "x", fleet, in_tok=100), probed(tmp_path / "y", fleet, in_tok=102)
    text = "prompts of 4 probes have 400 tokens for a and 408 for b: the template or the tokenizer differs"
    assert said([one], [other], "engine") == [f"the {text}"]
    assert said([one], [other], "model") == [f"? prompt_lengths: The {text}."]
    near = probed(tmp_path / "z", fleet, in_tok=101)
    assert said([one], [near]) == []


def test_a_server_that_cuts_or_adds_to_prompts_differs_whatever_is_declared() -> None:
    def of(made: int, read: int) -> Fingerprint:
        probe = Probe(prompt_sha="1", in_tok=read, in_tok_client=made, cached_tok=0, out_tok=1, out_sha="2")
        return Fingerprint(target="x", server=None, key="k", ask_tok=1, exact=True, sampling={}, probes=(probe,) * 4)

    text = "the prompts of 4 probes were made of 4000 tokens, and b counts 2048: it cuts or adds"
    assert text in said([of(1000, 1000)], [of(1000, 512)], "model")
    assert said([of(1000, 1000)], [of(1000, 1001)], "model") == []


def test_sampling_that_an_engines_own_fields_change_differs(tmp_path: Path, fleet: Fleet) -> None:
    one = probed(tmp_path, fleet)
    other = msgspec.structs.replace(one, sampling={"temperature": 0.7, "top_k": 1})
    found = ["sampling.top_p is 0.9 for a and not set for b", "sampling.top_k is not set for a and 1 for b"]
    assert said([one], [other], "engine") == found
    assert said([one], [other], "sampling") == []


def test_replies_that_are_not_as_long_as_asked_are_doubted(tmp_path: Path, fleet: Fleet) -> None:
    one, other = probed(tmp_path / "x", fleet, tokens=8), probed(tmp_path / "y", fleet, tokens=8)
    short = msgspec.structs.replace(other, probes=tuple(msgspec.structs.replace(p, out_tok=5) for p in other.probes))
    (doubt,) = said([one], [short])
    assert doubt == "? not_exact: 4 of 4 probes of b did not get exactly the tokens that they asked for: 5 and not 8."
    assert said([one], [msgspec.structs.replace(short, exact=False)]) == []


def test_outputs_that_change_from_one_start_to_another_are_doubted(tmp_path: Path, fleet: Fleet) -> None:
    first = msgspec.structs.replace(probed(tmp_path / "x", fleet), server="a-1")
    second = msgspec.structs.replace(probed(tmp_path / "y", fleet, texts=["x"]), server="a-2")
    assert said([first, first], [first]) == []
    found = said([first, second], [first, second])
    assert found[0] == (
        "? outputs_changed: 4 of 4 greedy probes of a got another reply from another of its starts: its server is not "
        "deterministic, or not always the same."
    )


def test_outputs_of_the_same_model_and_engine_should_be_the_same(tmp_path: Path, fleet: Fleet) -> None:
    one, other = probed(tmp_path / "x", fleet), probed(tmp_path / "y", fleet, texts=["x"])
    (doubt,) = said([one], [other])
    assert doubt.startswith(
        "? outputs_differ: 4 of 4 greedy probes got another reply from b than from a, though nothing"
    )
    assert said([one], [other], same=False) == []


def test_probes_that_fail_are_doubted_and_not_read(tmp_path: Path, fleet: Fleet) -> None:
    fault = [{"kind": "http", "status": 400, "every": 2, "body": "no such field"}]
    one, other = probed(tmp_path / "x", fleet), probed(tmp_path / "y", fleet, faults=fault, in_tok=3)
    (doubt,) = said([one], [other], same=False)
    assert doubt.startswith("? probes_failed: 2 of 4 probes of b failed, the first with http_error: 400")
    assert "no such field" in doubt


# A whole run ----------------------------------------------------------------------------------------------------------

RECIPE = """
command: ['{python}', -S, PROGRAM, --port, '{port}', --truth, truth, --script, '{"ttft_ms": 20, "in_tok": LENGTH}']
ready: {path: /health, probe: false}
stop: {grace_s: 2}
"""

COMPARED = """
targets:
  a: {engine: ./ten.yaml, model: m}
  b: {engine: ./twelve.yaml, model: m}
workload: {prompts: natural, output: {exact: 8}}
load: {warmup_s: 0, window_s: 0.3}
matrix: {load.concurrency: [1, 2]}
repeats: 2
comparison: {scope: restart, factor: [engine]}
"""


def test_a_run_is_refused_by_what_the_probes_of_each_start_found_before_it(tmp_path: Path) -> None:
    program = str(Path(__file__).with_name("fake_server.py"))
    for name, length in (("ten", "10"), ("twelve", "12")):
        (tmp_path / f"{name}.yaml").write_text(RECIPE.replace("PROGRAM", program).replace("LENGTH", length))
    done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, COMPARED)))
    report = assemble(Run(done.run))
    assert sorted(str(found.server) for found in report.fingerprints) == ["a-1", "a-2", "b-1", "b-2"]
    kept = Kept(report.run, report.plan, report.fingerprints)
    for cell in report.cells:
        assert [found.server for found in kept.side(cell.id, "b").fingerprints] == ["b-1", "b-2"]
    why = "the prompts of 4 probes have 40 tokens for a and 48 for b: the template or the tokenizer differs"
    (comparison,) = report.comparisons
    assert comparison.notes[0].startswith(f"Declared to differ: engine. Also different: {why}. ")
    for primary in (cell.primary for cell in comparison.cells):
        if primary.verdict is not Verdict.INVALID:  # this machine was too busy to send in time
            assert (primary.verdict, primary.why) == (Verdict.NOT_COMPARABLE, why)
