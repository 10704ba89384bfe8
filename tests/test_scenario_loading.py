"""Reading scenario files: what a good one becomes, and the sentence and the line that each bad one gets."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenario_text import SMALLEST, complaints, loaded, put, scenario

from loadgen.errors import ScenarioError
from loadgen.scenario import MadeModel, from_public, load, public_dict
from loadgen.scenario.tree import MAX_BYTES, parse


def test_the_smallest_scenario_gets_its_name_from_the_file_and_its_defaults(tmp_path: Path) -> None:
    read = load(put(tmp_path, SMALLEST, "my run.yaml"))
    assert read.source == SMALLEST.encode()
    assert read.path == tmp_path / "my run.yaml"
    assert (read.profile, read.profile_reason) == (None, "")
    assert read.scenario.name == "my_run"
    assert read.scenario.repeats == 6
    assert read.scenario.workload.sampling == {"temperature": 0}
    assert read.scenario.load.closed
    assert read.scenario.load.kind is None


def test_a_stored_scenario_reads_back_as_the_same(tmp_path: Path) -> None:
    text = SMALLEST.replace("window_s: 1", "rates: [[0, 5], [60, 20]], requests: 9, concurrency: null")
    text = text.replace("natural,", "synthetic, input_tokens: 7,").replace(
        "model: a", "model: {config: c.json, seed: 3}"
    )
    text += "comparison: null\nobjectives: [p99 ttft < 0.5 s]\nmatrix: {input_tokens: [1, 2]}\n"
    text = text.replace("load: {concurrency: 2, ", "load: {")
    original = scenario(tmp_path, text)
    assert original.load.kind == "piecewise"
    assert original.workload.settings == {"input_tokens": 7}
    assert original.targets["dense"].model == MadeModel(config="c.json", seed=3)
    again = from_public(public_dict(original))
    assert again == original
    assert public_dict(again) == public_dict(original)


def test_a_stored_scenario_that_was_damaged_is_a_sentence() -> None:
    with pytest.raises(ScenarioError, match=r"run\.json: targets: is missing"):
        from_public({"schema": "loadgen/v1", "workload": {"prompts": "natural"}, "load": {"concurrency": 1}})


def test_every_problem_of_a_file_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
schema: loadgen/v2
nme: x
targets:
  dense: {engin: hf, model: {confg: tiny.json}, concurrency: 3}
  moe: {engine: hf, model: 3, devices: 0}
  bad name: {engine: hf, model: x}
  far: {endpoint: "localhost:8000", model: x}
workload: {prompts: natural, output: {exact: 0}, template: servr, stream: yes}
load: {concurrency: "4", warmup_s: soon, rates: [[0, a]]}
repeats: 2.5
comparison: {until: 150}
objectives: [p99 ttft < 1 kg]
"""
    assert complaints(tmp_path, text) == [
        "x.yaml:1:9: schema: must be 'loadgen/v1', not the text 'loadgen/v2'; did you mean 'loadgen/v1'?",
        "x.yaml:2:1: nme: unknown key; did you mean 'name'?",
        "x.yaml:4:11: targets.dense.engin: unknown key; did you mean 'engine'?",
        "x.yaml:4:22: targets.dense.model.config: is missing",
        "x.yaml:4:30: targets.dense.model.confg: unknown key; did you mean 'config'?",
        "x.yaml:4:49: targets.dense.concurrency: unknown key here; did you mean load.concurrency?",
        "x.yaml:5:28: targets.moe.model: must be text, not 3",
        "x.yaml:5:40: targets.moe.devices: must be a list, not 0; write [0]",
        "x.yaml:6:3: targets.bad name: a target's name has 1 to 40 letters, digits, '.', '_' or '-', "
        "and starts with a letter, digit or '_'",
        "x.yaml:7:19: targets.far.endpoint: the text 'localhost:8000' is no address; write it like http://127.0.0.1:8000",
        "x.yaml:8:46: workload.output.exact: must be at least 1, not 0",
        "x.yaml:8:60: workload.template: must be 'server' or 'client', not the text 'servr'; did you mean 'server'?",
        "x.yaml:8:75: workload.stream: must be true or false, not the text 'yes'",
        "x.yaml:9:21: load.concurrency: must be a whole number, not the text '4'",
        "x.yaml:9:36: load.warmup_s: must be a number or 'auto', not the text 'soon'",
        "x.yaml:9:54: load.rates[0][1]: must be a number, not the text 'a'",
        "x.yaml:10:10: repeats: must be a whole number, not 2.5",
        "x.yaml:11:21: comparison.until: must be less than 1, not 150",
        "x.yaml:12:14: objectives[0]: ttft_s is not measured in 'kg' but in s, ms, us, µs",
    ]


def test_a_broken_rule_is_told_beside_a_wrong_type_elsewhere_and_not_because_of_it(tmp_path: Path) -> None:
    text = SMALLEST.replace("concurrency: 2", 'concurrency: "2"').replace("engine: hf, ", "") + "repeats: x\n"
    assert complaints(tmp_path, text) == [
        "x.yaml:3:3: targets.dense: needs an engine to launch, or the endpoint of a server that exists",
        "x.yaml:5:21: load.concurrency: must be a whole number, not the text '2'",
        "x.yaml:6:10: repeats: must be a whole number, not the text 'x'",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "x.yaml: is empty; a scenario starts with 'schema: loadgen/v1'"),
        ("# nothing\n", "x.yaml: is empty; a scenario starts with 'schema: loadgen/v1'"),
        ("- a\n", "x.yaml:1:1: must be a mapping of keys to values, such as 'schema: loadgen/v1'"),
        ("just words\n", "x.yaml:1:1: must be a mapping of keys to values, such as 'schema: loadgen/v1'"),
        (SMALLEST + "---\na: 1\n", "x.yaml:6:1: holds a second document; a scenario is one document"),
        ("load:\n\tx: 1\n", "x.yaml:2:1: is not YAML: a tab; YAML indents with spaces"),
        ("a: [1,\n", "x.yaml:2:1: is not YAML: expected the node content"),
        ("a: 'x\n", "x.yaml:2:1: is not YAML: found unexpected end of stream"),
        ("a: b: c\n", "x.yaml:1:5: is not YAML: mapping values are not allowed here"),
        ("a: *nothing\n", "x.yaml:1:4: is not YAML: found undefined alias 'nothing'"),
        ("a: \x01\n", "x.yaml: is not YAML: unacceptable character"),
        ("a: {b: ${env:X}}\n", "(inside { } and [ ] a reference stands in quotes: '${env:NAME}')"),
        ("a: !!python/object:os.system x\n", "the tag 'python/object:os.system' has no meaning here"),
        ("a: !mine [1]\n", "x.yaml:1:4: a: the tag '!mine' has no meaning here"),
        ("? [1, 2]\n: 3\n", "x.yaml:1:3: a key must be text"),
        ("<<: 3\n", "x.yaml:1:5: <<: must be a mapping, or a list of mappings"),
        ("a: .inf\n", "x.yaml:1:4: a: '.inf' is no number that can be measured with; write a finite one"),
        (f"a: {'9' * 31}\n", "is too long for a number"),
        ("load: {concurrency: 1}\nload: {concurrency: 2}\n", "x.yaml:2:1: load: is written twice, first in line 1"),
        ("a: &x [*x]\n", "x.yaml: has an anchor that holds itself, at a[0]"),
        ("a: " + "[" * 60 + "]" * 60, "x.yaml: is nested too deeply to be a scenario"),
        ("a: " + "[" * 20_000, "x.yaml: is nested too deeply to be a scenario"),
    ],
)
def test_a_file_that_is_no_scenario_is_a_sentence(tmp_path: Path, text: str, line: str) -> None:
    assert line in "\n".join(complaints(tmp_path, text))


def test_anchors_that_expand_without_bound_are_refused_quickly(tmp_path: Path) -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    assert complaints(tmp_path, laughs) == [
        "x.yaml: holds more than 50,000 values once its anchors are expanded; no scenario does"
    ]


def test_files_that_cannot_be_read_are_sentences(tmp_path: Path) -> None:
    put(tmp_path, SMALLEST, "demo.yaml")
    assert complaints(tmp_path, tmp_path / "dmo.yaml") == ["dmo.yaml: does not exist; did you mean demo.yaml?"]
    assert complaints(tmp_path, tmp_path / "no" / "x.yaml") == ["no/x.yaml: does not exist"]
    (tmp_path / "folder").mkdir()
    assert complaints(tmp_path, tmp_path / "folder") == ["folder: is a folder; name the scenario file in it"]
    path = put(tmp_path, SMALLEST + "# " + "x" * MAX_BYTES, "big.yaml")
    assert "a scenario has at most 262,144 (prompts go into a file of their own)" in complaints(tmp_path, path)[0]
    path.write_bytes(b"schema: loadgen/v1\nname: \xff\xfe\n")
    assert complaints(tmp_path, path) == ["big.yaml:2:7: is not UTF-8; save the file as UTF-8"]


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    assert load(path).scenario.load.concurrency == 2


def test_the_version_of_the_language_must_be_stated(tmp_path: Path) -> None:
    text = SMALLEST.replace("schema: loadgen/v1\n", "")
    assert complaints(tmp_path, text) == ["x.yaml: schema: is missing; write schema: loadgen/v1 at the top"]


def test_yaml_is_version_1_2_with_anchors_and_merge_keys() -> None:
    text = """\
a: yes
b: 010
c: 0x1F
d: 1e3
e: 2026-11-21
f: ~
g: 1_000
h: &base {x: 1, y: 2}
i: {<<: *base, y: 3}
j: {<<: [{x: 5}, *base], z: 4}
k: &base on
l: !!str 12
m: -.5
n: True
"""
    tree, problems = parse(text, "x")
    assert problems == []
    assert tree is not None
    assert tree.plain() == {
        "a": "yes",
        "b": 10,
        "c": 31,
        "d": 1000.0,
        "e": "2026-11-21",
        "f": None,
        "g": 1000,
        "h": {"x": 1, "y": 2},
        "i": {"x": 1, "y": 3},
        "j": {"x": 5, "y": 2, "z": 4},
        "k": "on",
        "l": "12",
        "m": -0.5,
        "n": True,
    }


def test_an_alias_is_reported_where_its_anchor_stands(tmp_path: Path) -> None:
    text = SMALLEST.replace("dense: {engine: hf, model: a}", "dense: &t {engine: 3, model: a}\n  moe: *t")
    assert complaints(tmp_path, text) == [
        "x.yaml:3:22: targets.dense.engine: must be text, not 3",
        "x.yaml:3:22: targets.moe.engine: must be text, not 3",
    ]


@pytest.mark.parametrize(
    ("written", "root"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("https://host/proxy/v1", "https://host/proxy"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
    ],
)
def test_an_endpoint_may_be_written_with_or_without_v1(tmp_path: Path, written: str, root: str) -> None:
    text = SMALLEST.replace("engine: hf", f'endpoint: "{written}"')
    assert scenario(tmp_path, text).targets["dense"].endpoint == root


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("localhost:8000", "the text 'localhost:8000' is no address; write it like http://127.0.0.1:8000"),
        ("http://", "is no address"),
        ("ftp://host", "is no address"),
        ("http://host:99999", "has a port outside 0 to 65535"),
        ("http://host/?a=b", "has a query or a fragment"),
        ("unix://run/x.sock", "write a socket as unix:///absolute/path.sock"),
        ("http://me:hunter2@host", "holds credentials, which do not stand in a scenario"),
    ],
)
def test_an_endpoint_that_is_no_address_is_refused(tmp_path: Path, written: str, reason: str) -> None:
    (line,) = complaints(tmp_path, SMALLEST.replace("engine: hf", f'endpoint: "{written}"'))
    assert line.startswith("x.yaml:3:")
    assert reason in line
    assert "hunter2" not in line


def test_a_scenario_cannot_be_changed_after_it_was_read(tmp_path: Path) -> None:
    read = loaded(tmp_path, SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        read.scenario.load.concurrency = 9  # type: ignore[misc]


WORDS = [
    "[",
    "]",
    "{",
    "}",
    ":",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "null",
    "true",
    "-1",
    "\t",
    "\n",
    "!!int ",
    "${env:X}",
    "'",
    "é",
]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 20), st.sampled_from(WORDS)), min_size=1, max_size=4))
def test_a_damaged_file_is_a_scenario_or_a_sentence(tmp_path: Path, damages: list[tuple[int, int, str]]) -> None:
    text = SMALLEST + "matrix:\n  concurrency: [1, 2]\n  include: [{concurrency: 3}]\nobjectives: [p99 ttft < 1 s]\n"
    for at, cut, word in damages:
        text = text[:at] + word + text[at + cut :]
    with contextlib.suppress(ScenarioError):
        read = loaded(tmp_path, text).scenario
        assert from_public(public_dict(read), env={}) == read


def test_settings_of_a_workload_may_be_called_like_parts_of_a_model(tmp_path: Path) -> None:
    text = SMALLEST.replace("natural,", "natural, settings: 1, copy: 2, model_extra: 3, schema: 4,")
    assert scenario(tmp_path, text).workload.settings == {"settings": 1, "copy": 2, "model_extra": 3, "schema": 4}
