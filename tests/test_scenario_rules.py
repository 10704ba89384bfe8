"""What must be there in a cell and what does not go together; secrets; objectives."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario_text import SMALLEST, complaints, scenario

from loadgen.metrics import METRICS, STATISTICS
from loadgen.scenario import Load, Objective, contrasts, parse_objective, public_dict
from loadgen.scenario.objective import parse_measure
from loadgen.scenario.secrets import is_secret_name

TWO = SMALLEST.replace("dense: {engine: hf, model: a}", "dense: {engine: hf, model: a}\n  moe: {engine: hf, model: b}")
LOAD = "concurrency: 2, window_s: 1"
TARGET = "engine: hf, model: a"


def only(lines: list[str]) -> str:
    (line,) = lines
    return line.partition(": ")[2]


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        ("window_s: 1", "load: needs exactly one of concurrency, rate_rps, burst, rates, timestamps, and has none"),
        ("concurrency: 1, burst: 2, window_s: 1", "and has concurrency and burst; set all but one to null"),
        ("concurrency: 1", "load: needs the length of the measured window: window_s (seconds) or requests (a number)"),
        ("concurrency: 1, window_s: 1, requests: 2", "load.requests: does not go with window_s"),
        ("burst: 5, window_s: 1", "load.window_s: does not go with burst, whose 5 requests are what is measured"),
        ("concurrency: 1, arrival: poisson, window_s: 1", "poisson does not go with concurrency, which takes none"),
        (
            "rate_rps: 1, arrival: burst, window_s: 1",
            "burst does not go with rate_rps, which takes constant, poisson, gamma",
        ),
        ("rates: [[0, 1]], arrival: gamma, window_s: 1", "gamma does not go with rates, which takes piecewise"),
        ("rate_rps: 1, burstiness: 2, window_s: 1", "load.burstiness: belongs to arrival: gamma alone"),
        ("rate_rps: 1, ramp_s: 2, window_s: 1", "load.ramp_s: belongs to a closed loop (concurrency)"),
        ("concurrency: 1, max_in_flight: 2, window_s: 1", "load.max_in_flight: belongs to an open loop"),
        ("rates: [[1, 1]], window_s: 1", "load.rates: must start at second 0 and go on in rising seconds"),
        ("rates: [[0, 1], [0, 2]], window_s: 1", "load.rates: must start at second 0"),
        ("rates: [], window_s: 1", "load.rates: must start at second 0"),
        ("rates: [[0, 0], [5, 0]], window_s: 1", "load.rates: never sends a request: every rate is 0"),
        ("rates: [[0, -1]], window_s: 1", "load.rates[0][1]: must be at least 0, not -1"),
        ("rates: [[0]], window_s: 1", "load.rates[0]"),
    ],
)
def test_a_load_that_cannot_be_driven_is_a_sentence(tmp_path: Path, load: str, reason: str) -> None:
    assert reason in complaints(tmp_path, SMALLEST.replace(LOAD, load))[0]


@pytest.mark.parametrize(
    ("load", "kind"),
    [
        ("concurrency: 4, requests: 10, ramp_s: 2", None),
        ("rate_rps: 2, window_s: 3", "poisson"),
        ("rate_rps: 2, window_s: 3, arrival: constant, max_in_flight: 3", "constant"),
        ("rate_rps: 2, requests: 3, arrival: gamma, burstiness: 2", "gamma"),
        ("rates: [[0, 5], [60, 20]], window_s: 3", "piecewise"),
        ("burst: 100", "burst"),
        ("timestamps: t.txt", "timestamps"),
        ("timestamps: t.txt, requests: 4, warmup_s: auto", "timestamps"),
    ],
)
def test_the_shape_of_a_load_follows_from_its_words(tmp_path: Path, load: str, kind: str | None) -> None:
    assert scenario(tmp_path, SMALLEST.replace(LOAD, load)).load.kind == kind


def test_a_load_without_a_shape_has_no_kind() -> None:
    assert Load().kind is None


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("model: a", "targets.dense: needs an engine to launch, or the endpoint of a server that exists"),
        ("engine: hf", "targets.dense.model: is missing"),
        ("engine: hf, model: a, python: p, image: i", "targets.dense.image: has a python as well"),
        ("endpoint: http://h, model: a, args: [-x]", "targets.dense.args: means nothing beside endpoint"),
        ("endpoint: http://h, engine: hf, model: a, options: {x: 1}", "targets.dense.options: means nothing beside"),
        ("endpoint: http://h, model: {config: c}", "targets.dense.model: is made for an engine that is launched"),
        ("engine: hf, model: {}", "targets.dense.model.config: is missing"),
        ("engine: hf, model: a, env: {A-B: x}", "targets.dense.env.A-B: a variable's name has letters, digits and '_'"),
        ("engine: hf, model: a, env: {A: true}", "targets.dense.env.A: must be text, not true"),
        ("engine: hf, model: a, cpus: []", "targets.dense.cpus: is empty; it needs at least one"),
        ("engine: hf, model: a, cpus: [-1]", "targets.dense.cpus[0]: must be at least 0, not -1"),
        ("engine: hf, model: a, devices: [1.5]", "targets.dense.devices[0]: must be a whole number or text, not 1.5"),
        ("engine: '', model: a", "targets.dense.engine: is empty"),
        ("engine: hf, model: a, api_key_env: sk-123", "targets.dense.api_key_env: must match "),
    ],
)
def test_a_target_that_cannot_be_used_is_a_sentence(tmp_path: Path, target: str, reason: str) -> None:
    assert only(complaints(tmp_path, SMALLEST.replace(TARGET, target))).startswith(reason)


def test_an_engine_beside_an_endpoint_says_how_to_talk(tmp_path: Path) -> None:
    text = SMALLEST.replace(TARGET, "engine: hf, endpoint: http://h, model: {config: c}, served_name: tiny")
    assert scenario(tmp_path, text).targets["dense"].served_name == "tiny"


def test_no_targets_is_a_sentence(tmp_path: Path) -> None:
    text = SMALLEST.replace("targets:\n  dense: {engine: hf, model: a}", "targets: {}")
    assert only(complaints(tmp_path, text)) == "targets: is empty; it needs at least one"


@pytest.mark.parametrize("name", [".", "..", "-x", "a/b", "a" * 41])
def test_names_that_would_escape_the_run_folder_are_refused(tmp_path: Path, name: str) -> None:
    lines = complaints(tmp_path, SMALLEST.replace("dense:", f'"{name}":'))
    assert "a target's name has 1 to 40 letters" in lines[0]
    assert "name: has 1 to 64 letters" in complaints(tmp_path, SMALLEST + "name: ../x\n")[0]


@pytest.mark.parametrize(
    ("output", "count"), [("{}", "neither"), ("{exact: 1, max: 2}", "both; set one of them to null")]
)
def test_the_length_of_replies_is_exact_or_at_most(tmp_path: Path, output: str, count: str) -> None:
    text = SMALLEST.replace("{exact: 8}", output)
    assert only(complaints(tmp_path, text)) == f"workload.output: needs exactly one of exact and max, and has {count}"


@pytest.mark.parametrize(
    ("comparison", "reason"),
    [
        (
            "{baseline: dens}",
            "comparison.baseline: there is no target 'dens'; did you mean 'dense'? There are: dense, moe",
        ),
        ("{candidates: [mo]}", "comparison.candidates[0]: there is no target 'mo'; did you mean 'moe'?"),
        (
            "{candidates: [dense]}",
            "comparison.candidates[0]: 'dense' is the baseline, and nothing is compared with itself",
        ),
        ("{candidates: []}", "comparison.candidates: is empty"),
        ("{metric: ttfx}", "comparison.metric: metric 'ttfx' does not exist; did you mean"),
        ("{margin: {speed: 1%}}", "comparison.margin.speed: metric 'speed' does not exist"),
        ("{margin: {output_tok_s: 0}}", "comparison.margin.output_tok_s: must be more than 0, not 0"),
        ("{until: 1 percent}", "comparison.until: must be a number, not the text '1 percent'"),
        ("{scope: always}", "comparison.scope: must be 'restart' or 'instance', not the text 'always'"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_a_sentence(tmp_path: Path, comparison: str, reason: str) -> None:
    assert only(complaints(tmp_path, TWO + f"comparison: {comparison}\n")).startswith(reason)


def test_a_comparison_needs_two_targets(tmp_path: Path) -> None:
    assert only(complaints(tmp_path, SMALLEST + "comparison: {}\n")) == (
        "comparison: needs two targets, and there is only 'dense'; add one or remove comparison"
    )


@pytest.mark.parametrize(
    ("a", "b", "comparison", "shared"),
    [
        ("[0, 1]", "[1, 2]", "{scope: instance}", "1"),
        ("[0, 1]", "null", "{scope: instance}", "0, 1"),  # who names none has them all
        ("[0]", "[1]", "{scope: instance}", None),
        ("null", "null", "{scope: instance}", None),  # there may be no GPU at all
        ("[0]", "[0]", "{scope: instance, share_devices: true}", None),
        ("[0]", "[0]", "{scope: restart}", None),  # one after the other
    ],
)
def test_servers_that_stand_at_once_stand_on_gpus_of_their_own_unless_it_is_said_that_they_share(
    tmp_path: Path, a: str, b: str, comparison: str, shared: str | None
) -> None:
    text = TWO.replace("moe: {", f"moe: {{devices: {b}, ").replace("dense: {", f"dense: {{devices: {a}, ")
    text += f"comparison: {comparison}\n"
    if shared is None:
        assert scenario(tmp_path, text).comparison is not None
        return
    (sentence,) = complaints(tmp_path, text)
    assert f"targets.moe.devices: 'moe' would stand beside 'dense' on GPU {shared}; name other devices" in sentence


def test_the_first_target_is_compared_with_all_others(tmp_path: Path) -> None:
    three = TWO.replace("workload", "  far: {endpoint: http://h, model: c}\nworkload", 1)
    read = scenario(tmp_path, three + "comparison: {until: 1%, margin: {p50 ttft: 3 %, output_tok_s: 0.02}}\n")
    assert contrasts(public_dict(read)) == [("dense", "moe"), ("dense", "far")]
    assert read.comparison is not None
    assert read.comparison.until == 0.01
    assert read.comparison.margin == {"p50 ttft_s": 0.03, "output_tok_s": 0.02}
    chosen = scenario(tmp_path, three + "comparison: {baseline: moe, candidates: [far], metric: ttft}\n")
    assert contrasts(public_dict(chosen)) == [("moe", "far")]
    assert chosen.comparison is not None
    assert chosen.comparison.metric == "p50 ttft_s"
    assert contrasts(public_dict(scenario(tmp_path, three))) == []


def test_whole_replies_have_no_time_to_first_token(tmp_path: Path) -> None:
    text = TWO.replace("natural,", "natural, stream: false,")
    text += "comparison: {metric: p50 ttft}\nobjectives: [p99 e2e < 1 s, p99 tpot < 1 s]\nnightly: {primary: [ttft]}\n"
    assert complaints(tmp_path, text) == [
        "x.yaml:7:22: comparison.metric: ttft_s is undefined with workload.stream: false, where replies come whole",
        "x.yaml:8:29: objectives[1]: tpot_s is undefined with workload.stream: false, where replies come whole",
        "x.yaml:9:21: nightly.primary[0]: ttft_s is undefined with workload.stream: false, where replies come whole",
    ]


# secrets


@pytest.mark.parametrize(
    ("target", "where"),
    [
        (f"{TARGET}, api_key: canary", "targets.dense.api_key"),
        (f"{TARGET}, headers: {{x-api-key: canary}}", "targets.dense.headers.x-api-key"),
        (f"{TARGET}, headers: {{Cookie: canary}}", "targets.dense.headers.Cookie"),
        (f"{TARGET}, env: {{HF_TOKEN: canary}}", "targets.dense.env.HF_TOKEN"),
        (f"{TARGET}, env: {{AWS_SECRET_ACCESS_KEY: canary}}", "targets.dense.env.AWS_SECRET_ACCESS_KEY"),
        (f"{TARGET}, env: {{HF_TOKEN: '${{env:X:-canary}}'}}", "targets.dense.env.HF_TOKEN"),
        (f"{TARGET}, env: {{HF_TOKEN: 'canary ${{env:X:-}}'}}", "targets.dense.env.HF_TOKEN"),
        (f"{TARGET}, options: {{deep: {{password: canary}}}}", "targets.dense.options.deep.password"),
        (f"{TARGET}, request: {{token: 12345}}", "targets.dense.request.token"),
        (f"{TARGET}, args: [--api-key, canary]", "targets.dense.args[0]"),
        (f"{TARGET}, args: [--hf-token=canary]", "targets.dense.args[0]"),
    ],
)
def test_a_secret_that_is_written_out_is_refused_and_not_repeated(tmp_path: Path, target: str, where: str) -> None:
    lines = complaints(tmp_path, SMALLEST.replace(TARGET, target) + "unknown: 1\n")
    assert only(lines).startswith(f"{where}: ")
    assert "canary" not in lines[0]


def test_secrets_in_unused_profiles_and_on_the_command_line_are_refused_too(tmp_path: Path) -> None:
    profiles = SMALLEST + "profiles: {far: {targets: {dense: {api_key: canary}}}}\n"
    assert only(complaints(tmp_path, profiles)).startswith(
        "profiles.far.targets.dense.api_key: is a secret written out"
    )
    for setting in ("targets.dense.env.MY_KEY=canary", "targets.dense.headers={x-token: canary}"):
        lines = complaints(tmp_path, SMALLEST, sets=[setting, "load.nothing=1"])
        assert lines[0].startswith("--set targets.dense.")
        assert "=***: " in lines[0]
        assert "canary" not in "".join(lines)


def test_an_authorization_header_is_refused_even_by_reference(tmp_path: Path) -> None:
    text = SMALLEST.replace(TARGET, f"{TARGET}, headers: {{Authorization: 'Bearer ${{env:K:-}}'}}")
    assert only(complaints(tmp_path, text)) == (
        "targets.dense.headers.Authorization: stands in no header here; name the variable that holds the key: "
        "api_key_env: NAME"
    )


def test_secrets_are_given_by_reference(tmp_path: Path) -> None:
    target = f"{TARGET}, api_key_env: K, env: {{HF_TOKEN: '${{env:T}}'}}, headers: {{x-api-key: '${{env:T}}'}}"
    read = scenario(tmp_path, SMALLEST.replace(TARGET, target), env={"T": "t"})
    assert read.targets["dense"].env == {"HF_TOKEN": "t"}


@pytest.mark.parametrize(
    "name", ["api_key_env", "max_tokens", "input_tokens", "tokenizer", "eos_token", "output_tok_s"]
)
def test_words_of_the_trade_are_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


# objectives


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99 ttft < 0.5 s", ("p99", "ttft_s", "<", 0.5)),
        ("p50 tpot < 40 ms", ("p50", "tpot_s", "<", 0.04)),
        ("p99.9 chunk gap <= 500us", ("p99.9", "chunk_gap_s", "<=", 0.0005)),
        ("max e2e ≤ 2", ("max", "e2e_s", "<=", 2.0)),
        ("mean latency < 1e1 s", ("mean", "e2e_s", "<", 10.0)),
        ("P99 Time to first token < 1 s", ("p99", "ttft_s", "<", 1.0)),
        ("error rate < 1 %", (None, "error_rate", "<", 0.01)),
        ("errors<=0", (None, "error_rate", "<=", 0.0)),
        ("output_tok_s > 100", (None, "output_tok_s", ">", 100.0)),
        ("output_tok_s > 100 tok/s", (None, "output_tok_s", ">", 100.0)),
        ("qps >= 2.5 rps", (None, "request_rps", ">=", 2.5)),
        ("  in_flight < 3  ", (None, "in_flight", "<", 3.0)),
    ],
)
def test_an_objective_is_read_as_people_write_it(text: str, expected: tuple[str | None, str, str, float]) -> None:
    statistic, metric, op, value = expected
    parsed = parse_objective(text)
    assert parsed == Objective(statistic, metric, op, pytest.approx(value), text.strip())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fast", "'fast' is no objective; write it like 'p99 ttft < 0.5 s'"),
        ("ttft < 1 s", "ttft_s has many values in a window; say which is meant: 'p99 ttft ...'"),
        ("p98 ttft < 1 s", "there is no statistic 'p98'"),
        ("p50 output_tok_s > 3", "output_tok_s is one number per window"),
        ("p99 tttft < 1 s", "metric 'tttft' does not exist; did you mean 'ttft_s'?"),
        ("p99 ttft < 1 tok/s", "ttft_s is not measured in 'tok/s' but in s, ms, us, µs"),
        ("in_flight < 1 s", "in_flight is not measured in 's' but in plain numbers"),
        ("error_rate < 2", "error_rate is a share between 0 and 1, never 2; a hundredth is written '1 %'"),
        ("p99 ttft < 1.2.3 s", "'1.2.3' is no number"),
    ],
)
def test_what_is_no_objective_is_a_sentence(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_objective(text)
    assert reason in str(caught.value)


def test_every_metric_can_be_an_objective_and_a_measure() -> None:
    for metric, statistic in itertools.product(METRICS.values(), STATISTICS):
        words = metric.name if metric.per == "window" else f"{statistic} {metric.name}"
        parsed = parse_objective(f"{words} < 0.5")
        assert (parsed.metric, parsed.value) == (metric.name, 0.5)
        assert str(parse_measure(words)) == words


@given(st.text(max_size=30))
def test_any_text_is_an_objective_or_a_sentence(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_objective(text).text == text.strip()


def test_a_factor_that_does_not_exist_is_refused_with_the_list(tmp_path: Path) -> None:
    def text(factor: str, options: str = "") -> str:
        two = TWO.replace("model: b}", f"model: b, options: {{{options}}}}}")
        return two + f"comparison: {{factor: [{factor}]}}\n"

    line = only(complaints(tmp_path, text("modle")))
    assert line.startswith("comparison.factor[0]: there is no factor 'modle'; did you mean 'model'? There are: model, ")
    assert "comparison.factor[1]: there is no factor 'dytpe'" in complaints(tmp_path, text("model, dytpe"))[0]
    for good in (text("model, dtype, engine_version"), text("my_own_word", "my_own_word: 1"), text("")):
        assert scenario(tmp_path, good).comparison is not None
