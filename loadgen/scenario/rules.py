"""Rules between the values of a cell: what must be there, and what does not go together.

In: the scenario of one cell (after the matrix has put its values in). Out: pairs of a path and a sentence. They are
kept out of the models because the scenario that a file states is only the pattern of its cells: it may leave the
concurrency to the matrix.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from loadgen.scenario.factors import factors_of
from loadgen.scenario.model import ARRIVAL_WORDS, Load, Scenario
from loadgen.scenario.objective import parse_measure, parse_objective
from loadgen.scenario.override import LAUNCH_WORDS, did_you_mean
from loadgen.scenario.published import published_rules
from loadgen.scenario.search_rules import search_rules, searched_load
from loadgen.scenario.target import MadeModel, Target
from loadgen.scenario.telemetry import EVERY
from loadgen.scenario.tree import Path
from loadgen.statistics import UNTIL_LEAST, UNTIL_MOST

Broken = Iterator[tuple[Path, str]]

RATE_ARRIVALS = ("constant", "poisson", "gamma")

STREAM_METRICS = ("ttft_s", "ttft_from_schedule_s", "tpot_s", "chunk_gap_s", "stall_s", "decode_tok_s")
"""Metrics that a reply which comes as a whole does not have."""


def broken_rules(scenario: Scenario) -> Broken:
    """Every rule that a cell breaks, with the path of the value that is to be changed."""
    for name, target in scenario.targets.items():
        yield from _target(("targets", name), target)
    yield from _output(scenario)
    yield from _trace(scenario)
    yield from search_rules(scenario)
    yield from _load(searched_load(scenario))
    yield from _comparison(scenario)
    yield from _telemetry(scenario)
    yield from _devices(scenario)
    yield from _fleet(scenario)
    yield from _stream(scenario)
    yield from published_rules(scenario)


def _target(path: Path, target: Target) -> Broken:
    if target.engine is None and target.launched:
        yield path, "needs an engine to launch, or the endpoint of a server that exists"
    yield from _endpoints(path, target)
    if target.python is not None and target.image is not None:
        yield (*path, "image"), "has a python as well; an engine runs in an environment or in a container, not in both"
    if target.launched:
        if target.proxy is not None:
            yield (*path, "proxy"), "means nothing without endpoint: a launched server is on this machine; remove proxy"
        return
    for word in LAUNCH_WORDS:
        if getattr(target, word):
            yield (*path, word), f"means nothing beside endpoint: no server is launched; remove {word} or endpoint"
    if isinstance(target.model, MadeModel) and target.served_name is None:
        yield (*path, "model"), "is made for an engine that is launched; a server that exists is asked for it by name"


def _endpoints(path: Path, target: Target) -> Broken:
    several = target.endpoints or ()
    if target.endpoint is not None and several:
        yield (*path, "endpoints"), "stands beside endpoint; name all servers here, and set endpoint to null"
    twice = next((url for url in several if several.count(url) > 1), None)
    if twice is not None:
        yield (*path, "endpoints"), f"names {twice} twice"
    if target.balance is not None and len(several) < 2:
        yield (*path, "balance"), "means nothing without several endpoints; remove it, or name them in endpoints"


def _output(scenario: Scenario) -> Broken:
    output = scenario.workload.output
    if (output.exact is None) == (output.max is None):
        count = "neither" if output.exact is None else "both; set one of them to null"
        yield ("workload", "output"), f"needs exactly one of exact and max, and has {count}"


def _trace(scenario: Scenario) -> Broken:
    """What only a trace can say: when requests come, and how long each reply is."""
    workload = scenario.workload
    if workload.prompts == "trace":
        return
    if scenario.load.arrival == "trace":
        yield ("load", "arrival"), "trace takes its times from workload.prompts: trace, and prompts is another source"
    if workload.output.said == "trace":
        yield ("workload", "output"), "trace takes lengths from prompts: trace, and prompts is another source"


def _load(load: Load) -> Broken:
    if load.arrival == "trace":
        yield from _replay(load)
        return
    shapes = [word for word in ("concurrency", *ARRIVAL_WORDS) if getattr(load, word) is not None]
    if len(shapes) != 1:
        all_words = ", ".join(["concurrency", *ARRIVAL_WORDS])
        found = f"{' and '.join(shapes)}; set all but one to null" if shapes else "none"
        yield ("load",), f"needs exactly one of {all_words}, and has {found}"
        return
    shape = shapes[0]
    yield from _arrival(load, shape)
    yield from _length(load, shape)
    if load.rates is not None:
        starts = [start for start, _ in load.rates]
        if starts[:1] != [0] or any(a >= b for a, b in itertools.pairwise(starts)):
            yield ("load", "rates"), "must start at second 0 and go on in rising seconds: [[0, 5], [60, 20]]"
        if not any(rate > 0 for _, rate in load.rates):
            yield ("load", "rates"), "never sends a request: every rate is 0"


def _replay(load: Load) -> Broken:
    """A replay has the times of its trace, and ends with it or before."""
    for word in ("concurrency", *ARRIVAL_WORDS):
        if getattr(load, word) is not None:
            yield (
                ("load", word),
                f"does not go with arrival: trace, which has times of its own; remove {word} or arrival",
            )
    if load.burstiness != 1.0:
        yield ("load", "burstiness"), "belongs to arrival: gamma alone"
    if load.ramp_s:
        yield (
            ("load", "ramp_s"),
            "belongs to a closed loop (concurrency); workload.scale makes a trace faster or slower",
        )
    yield from _length(load, "timestamps")


def _arrival(load: Load, shape: str) -> Broken:
    path: Path = ("load", "arrival")
    fitting = {"concurrency": (), "rate_rps": RATE_ARRIVALS}.get(shape, (ARRIVAL_WORDS.get(shape),))
    if load.arrival is not None and load.arrival not in fitting:
        reason = f"{load.arrival} does not go with {shape}"
        yield path, f"{reason}, which takes {', '.join(map(str, fitting)) or 'none (a closed loop has no arrivals)'}"
    if load.burstiness != 1.0 and load.kind != "gamma":
        yield ("load", "burstiness"), "belongs to arrival: gamma alone"
    if load.ramp_s and not load.closed:
        yield ("load", "ramp_s"), "belongs to a closed loop (concurrency); in an open loop use rates"
    if load.max_in_flight is not None and load.closed:
        yield ("load", "max_in_flight"), "belongs to an open loop; in a closed loop concurrency is what is in flight"


def _length(load: Load, shape: str) -> Broken:
    given = [word for word in ("window_s", "requests") if getattr(load, word) is not None]
    if shape == "burst":
        for word in given:
            yield ("load", word), f"does not go with burst, whose {load.burst} requests are what is measured"
    elif len(given) == 2:
        yield ("load", "requests"), "does not go with window_s; a window ends by time or by count (set one to null)"
    elif not given and shape != "timestamps":
        yield ("load",), "needs the length of the measured window: window_s (seconds) or requests (a number)"


def _comparison(scenario: Scenario) -> Broken:
    comparison, names = scenario.comparison, list(scenario.targets)
    if comparison is None:
        return
    if len(names) < 2:
        yield ("comparison",), f"needs two targets, and there is only {names[0]!r}; add one or remove comparison"
        return
    path: Path = ("comparison", "baseline")
    if comparison.baseline is not None and comparison.baseline not in names:
        yield path, f"there is no target {comparison.baseline!r}{did_you_mean(comparison.baseline, names)}"
    for i, candidate in enumerate(comparison.candidates or ()):
        here: Path = ("comparison", "candidates", i)
        if candidate not in names:
            yield here, f"there is no target {candidate!r}{did_you_mean(candidate, names)}"
        elif candidate == (comparison.baseline or names[0]):
            yield here, f"{candidate!r} is the baseline, and nothing is compared with itself"
    if comparison.candidates == ():
        yield ("comparison", "candidates"), "is empty; name the targets, or leave it out for all but the baseline"
    for i, word in enumerate(comparison.factor):
        known = factors_of(scenario)
        if word not in known:
            yield ("comparison", "factor", i), f"there is no factor {word!r}{did_you_mean(word, known)}"
    yield from _until(scenario)


def _telemetry(scenario: Scenario) -> Broken:
    for name in scenario.telemetry.dcgm:
        if name != EVERY and name not in scenario.targets:
            yield ("telemetry", "dcgm", name), f"there is no target {name!r}{did_you_mean(name, scenario.targets)}"


def _until(scenario: Scenario) -> Broken:
    """Repeats that are added come in whole ABBA blocks, from the fewest that an interval is believed of."""
    if scenario.comparison is None or scenario.comparison.until is None:
        return
    if scenario.repeats % 2 or not UNTIL_LEAST <= scenario.repeats <= UNTIL_MOST:
        reason = (
            f"is {scenario.repeats}, and with comparison.until it is the fewest repeats: an even number (whole ABBA"
        )
        yield ("repeats",), f"{reason} blocks) from {UNTIL_LEAST} to {UNTIL_MOST}; leave it out for {UNTIL_LEAST}"


def _devices(scenario: Scenario) -> Broken:
    """Servers that stand at the same time stand on GPUs of their own, unless it is said that they share. One that names
    no GPUs has them all; where none names any there may be none."""
    comparison = scenario.comparison
    if comparison is None or comparison.scope == "restart" or comparison.share_devices:
        return
    launched = {name: target.devices for name, target in scenario.targets.items() if target.launched}
    for (one, mine), (other, theirs) in itertools.combinations(launched.items(), 2):
        shared = sorted(map(str, {*mine} & {*theirs} if mine and theirs else mine or theirs or ()))
        if shared:
            reason = f"{other!r} would stand beside {one!r} on GPU {', '.join(shared)}"
            how = "name other devices for one, take comparison.scope: restart, or set comparison.share_devices: true"
            yield ("targets", other, "devices"), f"{reason}; {how}"


def _fleet(scenario: Scenario) -> Broken:
    if scenario.load.fleet == "local":
        return
    launched = [name for name, target in scenario.targets.items() if target.launched]
    if launched:
        reason = f"puts workers on other machines, which cannot reach {launched[0]!r}: it is launched on this one"
        yield ("load", "fleet"), f"{scenario.load.fleet} {reason}, for itself alone; start it, and name its endpoint"


def _stream(scenario: Scenario) -> Broken:
    if scenario.workload.stream:
        return
    used: list[tuple[Path, str]] = [
        (("objectives", i), parse_objective(text).metric) for i, text in enumerate(scenario.objectives)
    ]
    if scenario.comparison is not None:
        used.append((("comparison", "metric"), parse_measure(scenario.comparison.metric).metric))
    primary = enumerate(scenario.nightly.primary or ())
    used += [(("nightly", "primary", i), parse_measure(words).metric) for i, words in primary]
    for path, metric in used:
        if metric in STREAM_METRICS:
            yield path, f"{metric} is undefined with workload.stream: false, where replies come whole"
