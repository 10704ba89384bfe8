"""What cannot be imported is refused with a sentence, and leaves nothing in the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cli_runner import loadgen
from foreign_results import doubts, imported, results, said, summary, unpack

from loadgen.errors import UsageError
from loadgen.reports import markdown, text

AGGREGATE, LINES = "profile_export_aiperf.json", "profile_export.jsonl"
HOSTILE = "../../\u001b[31m<script>alert(1)</script>|"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("imports"))


def refused(store: Path, *paths: Path, **names: Any) -> str:
    """The sentence of a refusal. The store stays as it was."""
    with pytest.raises(UsageError) as error:
        imported(store, *paths, **names)
    assert not list(store.rglob("rep-*"))
    assert not list(store.glob("runs/*/*"))
    return str(error.value)


def changed(folder: Path, tmp_path: Path, **fields: Any) -> Path:
    """vllm_detailed.json with other values."""
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(said(folder / "vllm_detailed.json") | fields))
    return path


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("x.json", b"", "is empty"),
        ("x.json", b"hello", "is no JSON"),
        ("x.json", b"\xff\xfe\x00{", "is no JSON"),
        ("x.json", b"[1, 2]", "holds no JSON object"),
        ("x.json", b"[" * 100_000, "holds no JSON object"),
        ("x.json", b'{"a":' * 100_000, "recursion"),
        ("x.json", b'{"mean_ttft": 5, "backend": "sglang"}', "backend, mean_ttft"),
        ("x.jsonl", b'{"a": 1}\n{"a": 2}\n', "of no tool that is known"),
        ("x.yaml", b"- a\n", "holds no JSON object"),
        ("x.yaml", b"a: [", "is no YAML"),
        ("x.yaml", b"benchmarks: &a [*a]\nmetadata: {}\n", "aliases"),
        ("x.yaml", b'metadata: !!python/object/apply:os.system ["true"]\n', "is no YAML"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert why in refused(tmp_path / "store", tmp_path / name)


def test_an_unknown_file_gets_the_list_of_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    for path in (tmp_path / "x.json", tmp_path, tmp_path / "nowhere"):
        sentence = refused(tmp_path / "store", path)
        assert all(tool in sentence for tool in ("vllm bench serve", "GuideLLM", "AIPerf"))


def test_aliases_that_would_fill_the_memory_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join(['*' + before] * 8)}]" for before, name in pairwise("abcdefghi")]
    (tmp_path / "x.yaml").write_text("\n".join([*lines, "metadata: {}", "benchmarks: *i"]))
    assert "aliases" in refused(tmp_path / "store", tmp_path / "x.yaml")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["vllm_detailed.json", "guidellm_faults.json"])
def test_a_file_that_was_cut_off_is_refused(folder: Path, tmp_path: Path, name: str, share: float) -> None:
    data = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    assert "was cut off" in refused(tmp_path / "store", tmp_path / name)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"ttfts": [-1.0] * 40}, "request 0: ttft and itls: -1.0 is no duration"),
        ({"ttfts": [1e300] * 40}, "is no duration"),
        ({"ttfts": "none"}, "ttfts: Expected `array`"),
        ({"ttfts": [0.1]}, "entries"),
        ({"itls": [["x"]] * 40}, "request 0: itls: Expected `float`"),
        ({"output_lens": [-4] * 40}, "request 0: -4 is no number of tokens"),
        ({"start_times": [0.0] + [1e12] * 39}, "is no duration"),
        ({"duration": 0}, "lasted no time"),
        ({"duration": float("nan")}, "has no duration"),
        ({"max_concurrency": -1}, "max_concurrency: -1 is no load"),
        ({"request_rate": -2.0}, "request_rate: -2.0 is no load"),
        ({"model_id": 5}, "model_id: Expected `str`"),
    ],
)
def test_a_value_that_cannot_be_is_refused(folder: Path, tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    assert why in refused(tmp_path / "store", changed(folder, tmp_path, **fields))


def aiperf_with(folder: Path, tmp_path: Path, change: Callable[[list[str]], list[str]]) -> Path:
    """The folder of AIPerf with other request lines."""
    lines = (folder / "aiperf" / LINES).read_text().splitlines(keepends=True)
    (tmp_path / AGGREGATE).write_bytes((folder / "aiperf" / AGGREGATE).read_bytes())
    (tmp_path / LINES).write_text("".join(change(lines)))
    return tmp_path


def test_a_damaged_line_of_aiperf_is_named_and_a_last_one_that_was_cut_off_is_left_out(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    damaged = aiperf_with(folder, tmp_path / "a", lambda lines: [*lines[:3], '{"metadata": 1}\n', *lines[3:]])
    assert f"{LINES}:4 is no request of AIPerf" in refused(tmp_path / "store", damaged)
    cut = aiperf_with(folder, tmp_path / "b", lambda lines: [*lines[:-1], lines[-1][:-30]])
    assert summary(imported(tmp_path / "store", cut)).ok == 39


def test_two_results_of_aiperf_in_one_folder_are_told_apart_by_the_file(folder: Path, tmp_path: Path) -> None:
    for prefix in ("a", "b"):
        (tmp_path / f"{prefix}_aiperf.json").write_bytes((folder / "aiperf" / AGGREGATE).read_bytes())
    assert "a_aiperf.json, b_aiperf.json" in refused(tmp_path / "store", tmp_path)
    assert summary(imported(tmp_path / "store", tmp_path / "b_aiperf.json")).ok == 40


def test_results_of_two_tools_do_not_make_one_run(folder: Path, tmp_path: Path) -> None:
    sentence = refused(tmp_path / "store", folder / "vllm_plain.json", folder / "aiperf")
    assert "vllm bench serve and AIPerf" in sentence


def test_a_copy_is_no_repeat_and_another_model_no_repeat_either(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.json").write_bytes((folder / "vllm_plain.json").read_bytes())
    assert "a copy is no repeat" in refused(tmp_path / "store", folder / "vllm_plain.json", tmp_path / "copy.json")
    assert "a copy is no repeat" in refused(tmp_path / "store", folder / "aiperf", folder / "aiperf")
    other = changed(folder, tmp_path, model_id="other")
    assert "models tiny and other" in refused(tmp_path / "store", folder / "vllm_plain.json", other)


@pytest.mark.parametrize("flag", ["name", "target"])
@pytest.mark.parametrize("given", ["../up", "", ".hidden", "a b", "x" * 80])
def test_a_name_that_no_folder_may_have_is_refused(folder: Path, tmp_path: Path, flag: str, given: str) -> None:
    assert f"--{flag}" in refused(tmp_path / "store", folder / "vllm_plain.json", **{flag: given})


def test_hostile_names_and_errors_stay_text_and_inside_the_store(folder: Path, tmp_path: Path) -> None:
    path = changed(folder, tmp_path, model_id=HOSTILE, errors=[HOSTILE] * 5 + [""] * 35)
    report = imported(tmp_path / "store", path)
    assert report.cells[0].targets[0].target == "script"
    assert summary(report).failed == 5
    for page in (text.render(report, 100), markdown.render(report)):
        assert "\u001b" not in page
    assert "<script>" not in markdown.render(report)
    assert {path.name for path in tmp_path.iterdir()} == {"store", "changed.json"}


def test_nan_that_python_writes_into_json_counts_as_nothing(folder: Path, tmp_path: Path) -> None:
    plain = said(folder / "vllm_plain.json") | {"mean_ttft_ms": float("nan")}
    (tmp_path / "x.json").write_text(json.dumps(plain))
    assert "NaN" in (tmp_path / "x.json").read_text()
    assert summary(imported(tmp_path / "store", tmp_path / "x.json")).ttft_s.n == 0


def test_a_result_without_a_good_request_is_failed_and_says_so(folder: Path, tmp_path: Path) -> None:
    none: dict[str, Any] = {"ttfts": [0.0] * 40, "itls": [[]] * 40, "latencies": [0.0] * 40, "output_lens": [0] * 40}
    report = imported(tmp_path / "store", changed(folder, tmp_path, errors=["Cannot connect to host"] * 40, **none))
    (result,) = results(report)
    assert result.summary.state == "failed"
    assert result.summary.status == {"connect_error": 40}
    assert result.summary.output_tok_s is None
    assert "40 of 40 requests failed" in doubts(result.summary)["errors"]
    assert report.exit_code == 6


def test_the_command_says_what_it_did_and_refuses_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    done = loadgen(tmp_path, "import", str(folder / "aiperf"), "--name", "theirs", "--target", "dense")
    assert done.code == 0, done.err
    assert done.out.startswith("theirs (imported from AIPerf 0.13.0, schema 1.4)")
    assert done.run.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in done.run.rglob("*") if path.is_file())
    again = loadgen(tmp_path, "report", "last")
    assert again.out == done.out
    bad = loadgen(tmp_path, "import", "nowhere.json")
    assert (bad.code, bad.out) == (2, "")
    assert bad.err.startswith("loadgen: there is no nowhere.json;")
