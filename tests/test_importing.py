"""Results that other tools really wrote become runs: their figures come back, and their definitions are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer
from foreign_results import doubts, imported, results, said, summary, unpack

from loadgen.assemble import assemble
from loadgen.record import read_records
from loadgen.reports import json as json_report
from loadgen.reports import markdown, text
from loadgen.store import find_run, request_files

EVERY = (
    "vllm_detailed.json",
    "vllm_plain.json",
    "vllm_append.json",
    "vllm_faults.json",
    "aiperf",
    "aiperf_rate",
    "aiperf_faults",
    "guidellm.yaml",
    "guidellm_rate.json",
    "guidellm_sampled.json",
    "guidellm_faults.json",
)
AIPERF = "profile_export_aiperf.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("imports"))


@pytest.mark.parametrize("name", EVERY)
def test_every_report_says_whose_figures_they_are(folder: Path, tmp_path: Path, name: str) -> None:
    report = imported(tmp_path, folder / name)
    for page in (text.render(report, 80), markdown.render(report)):
        assert "imported from" in page[:400]
        assert "not by loadgen" in page
    assert all("imported" in doubts(result.summary) for result in results(report))
    assert {result.summary.state for result in results(report)} == {"ok"}
    assert report.exit_code == 0


@pytest.mark.parametrize("name", EVERY)
def test_a_stored_import_gives_the_same_report_again(folder: Path, tmp_path: Path, name: str) -> None:
    report = imported(tmp_path, folder / name)
    again = assemble(find_run(tmp_path, "last"))
    assert json_report.render(again) == json_report.render(report)
    described = again.run
    assert described["status"] == "complete"
    assert described["origin"]["definitions"]["ttft_s"]
    assert "loadgen" not in described["versions"]


# vllm bench serve -----------------------------------------------------------------------------------------------------


def test_vllm_with_details_gives_its_own_figures_from_single_requests(folder: Path, tmp_path: Path) -> None:
    theirs = said(folder / "vllm_detailed.json")
    found = summary(imported(tmp_path, folder / "vllm_detailed.json"))
    assert found.request_rps == pytest.approx(theirs["request_throughput"], rel=1e-9)
    assert found.output_tok_s == pytest.approx(theirs["output_throughput"], rel=1e-9)
    assert found.total_tok_s == pytest.approx(theirs["total_token_throughput"], rel=1e-9)
    assert found.ttft_s.mean == pytest.approx(theirs["mean_ttft_ms"] / 1e3, rel=1e-9)
    assert found.tpot_s.mean == pytest.approx(theirs["mean_tpot_ms"] / 1e3, rel=1e-9)
    assert found.e2e_s.mean == pytest.approx(theirs["mean_e2el_ms"] / 1e3, rel=1e-9)
    assert found.chunk_gap_s.mean == pytest.approx(theirs["mean_itl_ms"] / 1e3, abs=1e-6)  # whole microseconds
    assert found.chunk_gap_s.n == sum(map(len, theirs["itls"]))
    assert found.ttft_s.p90 is not None
    assert found.ttft_s.p99 is None  # 40 requests have no p99, whatever the file calls so
    lines = list(read_records(request_files(next(tmp_path.rglob("attempt-1")))))
    assert len(lines) == 40
    assert {line.driver for line in lines} == {"vllm bench serve"}


def test_vllm_without_details_gives_the_same_as_with_them(folder: Path, tmp_path: Path) -> None:
    theirs = said(folder / "vllm_detailed.json")
    for name in ("input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors"):
        del theirs[name]  # as vLLM does it without --save-detailed
    (tmp_path / "plain.json").write_text(json.dumps(theirs))
    plain = summary(imported(tmp_path / "a", tmp_path / "plain.json"))
    detailed = summary(imported(tmp_path / "b", folder / "vllm_detailed.json"))
    assert plain.output_tok_s == pytest.approx(detailed.output_tok_s)
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        a, b = getattr(plain, metric), getattr(detailed, metric)
        assert a.n == b.n
        assert a.mean == pytest.approx(b.mean)
        assert a.sd == pytest.approx(b.sd)
        assert a.p50 == pytest.approx(b.p50, rel=0.01)  # theirs is interpolated
        assert a.p99 is None
    assert plain.chunk_gap_s.n == plain.stall_s.n == 0
    assert plain.audit.late_p99_s is None
    assert "imported_figures" in doubts(plain)


def test_latencies_that_vllm_leaves_in_make_the_distribution_of_e2e(folder: Path, tmp_path: Path) -> None:
    theirs = said(folder / "vllm_plain.json")
    found = summary(imported(tmp_path, folder / "vllm_plain.json"))
    assert "mean_e2el_ms" not in theirs
    assert found.e2e_s.mean == pytest.approx(sum(theirs["latencies"]) / 40)
    assert found.ttft_s.p50 == pytest.approx(theirs["median_ttft_ms"] / 1e3)


def test_a_file_of_a_vllm_that_kept_less_is_read_by_what_it_has(folder: Path, tmp_path: Path) -> None:
    theirs = said(folder / "vllm_detailed.json")
    for name in ("latencies", "queue_times", "failed", "backend", "burstiness", "max_output_tokens_per_s", "rtfx"):
        del theirs[name]
    (tmp_path / "older.json").write_text(json.dumps(theirs))
    older = summary(imported(tmp_path / "a", tmp_path / "older.json"))
    newer = summary(imported(tmp_path / "b", folder / "vllm_detailed.json"))
    assert older.output_tok_s == pytest.approx(newer.output_tok_s)
    assert older.e2e_s.mean == pytest.approx(newer.e2e_s.mean)
    assert older.status == newer.status


def test_appended_results_of_one_load_are_repeats(folder: Path, tmp_path: Path) -> None:
    report = imported(tmp_path, folder / "vllm_append.json")
    assert [result.rep for result in results(report)] == [1, 2, 3]
    assert report.cells[0].axes == {"rate_rps": 20.0}
    both = imported(tmp_path, folder / "vllm_append.json", folder / "vllm_detailed.json")
    assert [len(cell.targets[0].results) for cell in both.cells] == [3, 1]


def test_a_role_chunk_that_vllm_takes_for_the_first_token_is_named(folder: Path, tmp_path: Path) -> None:
    found = summary(imported(tmp_path, folder / "vllm_faults.json"))
    assert found.ttft_s.p50 is not None
    assert found.ttft_s.p50 < 0.01  # the server sent its first token after 50 ms
    assert "12 of 13 replies have two chunks more than tokens" in doubts(found)["imported_ttft"]
    clean = summary(imported(tmp_path, folder / "vllm_detailed.json"))
    assert "two chunks more" not in doubts(clean)["imported_ttft"]


def test_failures_keep_their_kind_and_what_vllm_books_as_good_stays_so(folder: Path, tmp_path: Path) -> None:
    found = summary(imported(tmp_path, folder / "vllm_faults.json"))
    assert found.status == {"ok": 13, "truncated": 2, "http_error": 1}
    assert found.ok == said(folder / "vllm_faults.json")["completed"]  # the error inside a 200 among them
    assert "counts as ok" in doubts(found)["imported_failures"]


# AIPerf ---------------------------------------------------------------------------------------------------------------


def test_aiperf_gives_its_own_latencies_and_the_tokens_of_the_server(folder: Path, tmp_path: Path) -> None:
    theirs = said(folder / "aiperf" / AIPERF)
    found = summary(imported(tmp_path, folder / "aiperf"))
    assert found.ttft_s.mean == pytest.approx(theirs["time_to_first_token"]["avg"] / 1e3, rel=1e-6)
    assert found.e2e_s.mean == pytest.approx(theirs["request_latency"]["avg"] / 1e3, rel=1e-6)
    assert found.chunk_gap_s.mean == pytest.approx(theirs["inter_chunk_latency"]["avg"] / 1e3, abs=1e-6)
    assert found.request_rps == pytest.approx(theirs["request_throughput"]["avg"], rel=1e-6)
    assert (found.out_tok.mean, found.in_tok.mean) == (16, 1)  # its own tokenizer counts 48 and 32
    assert theirs["total_osl"]["avg"] == 3 * 640
    assert "AIPerf counted 1920, the server 640" in doubts(found)["imported_tokens"]
    assert found.tok_source == {"usage": 40}
    assert found.tpot_s.mean == pytest.approx(0.010, abs=0.001)
    assert 0 < found.conn_s.n < 40
    assert found.conn_s.max == pytest.approx(theirs["http_req_connecting"]["max"] / 1e3)


def test_aiperf_warm_up_is_not_measured_and_its_lateness_is_known(folder: Path, tmp_path: Path) -> None:
    report = imported(tmp_path, folder / "aiperf_rate")
    found, theirs = summary(report), said(folder / "aiperf_rate" / AIPERF)
    assert report.cells[0].axes == {"rate_rps": 20.0}
    assert found.warmup_status == {"ok": 4}
    assert found.status == {"ok": 12}
    assert found.window.w0 > 0.3
    assert found.output_tok_s == pytest.approx(theirs["output_token_throughput"]["avg"], rel=1e-6)
    assert found.audit.late_s.n == 12
    assert found.ttft_from_schedule_s.mean > found.ttft_s.mean  # type: ignore[operator]


def test_aiperf_without_its_request_lines_gives_its_figures(folder: Path, tmp_path: Path) -> None:
    (tmp_path / AIPERF).write_bytes((folder / "aiperf" / AIPERF).read_bytes())
    theirs, found = said(tmp_path / AIPERF), summary(imported(tmp_path, tmp_path / AIPERF))
    assert found.output_tok_s == theirs["output_token_throughput"]["avg"]
    assert found.ttft_s.p50 == pytest.approx(theirs["time_to_first_token"]["p50"] / 1e3)
    assert found.ttft_s.p99 is None
    assert {"imported_figures", "imported_tokens"} <= set(doubts(found))


def test_an_older_aiperf_is_read_by_what_it_has(folder: Path, tmp_path: Path) -> None:
    """As 0.3.0 wrote it: another configuration, no versions, no credits, no usage."""
    theirs = said(folder / "aiperf" / AIPERF)
    for name in ("aiperf_version", "schema_version"):
        del theirs[name]
    endpoint = {"model_names": ["older"], "type": "chat", "streaming": True, "url": "http://127.0.0.1:1"}
    theirs["input_config"] = {"endpoint": endpoint, "loadgen": {"concurrency": 4, "request_count": 40}}
    (tmp_path / AIPERF).write_text(json.dumps(theirs))
    with (tmp_path / "profile_export.jsonl").open("w") as file:
        for line in map(json.loads, (folder / "aiperf" / "profile_export.jsonl").read_text().splitlines()):
            del line["metadata"]["credit_issued_ns"]
            kept = {name: value for name, value in line["metrics"].items() if not name.startswith(("usage", "http"))}
            print(json.dumps(line | {"metrics": kept}), file=file)
    report = imported(tmp_path / "store", tmp_path)
    found = summary(report)
    assert (report.cells[0].id, report.cells[0].targets[0].target) == ("concurrency=4", "older")
    assert found.out_tok.mean == 48
    assert found.tok_source == {"tokenizer": 40}
    assert found.audit.late_s.n == found.ttft_from_schedule_s.n == found.conn_s.n == 0
    assert "0.13.0; that of this file is not known" in doubts(found)["imported_version"]


def test_a_reply_of_aiperf_without_usage_is_counted_by_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    found = summary(imported(tmp_path, folder / "aiperf_faults" / "profile_export.jsonl"))
    assert found.status == {"ok": 13, "truncated": 2, "http_error": 1}
    assert found.tok_source == {"usage": 12, "tokenizer": 1}  # the one that brought an error inside a 200
    assert found.ttft_s.p50 == pytest.approx(0.05, abs=0.01)  # no role chunk here


# GuideLLM -------------------------------------------------------------------------------------------------------------


def test_guidellm_gives_its_own_rates_and_its_itl_as_tpot(folder: Path, tmp_path: Path) -> None:
    theirs = said(folder / "guidellm_rate.json")["benchmarks"][0]["metrics"]
    found = summary(imported(tmp_path, folder / "guidellm_rate.json"))
    assert found.request_rps == pytest.approx(theirs["requests_per_second"]["successful"]["mean"], rel=1e-6)
    assert found.output_tok_s == pytest.approx(theirs["output_tokens_per_second"]["successful"]["mean"], rel=1e-6)
    assert found.ttft_s.mean == pytest.approx(theirs["time_to_first_token_ms"]["successful"]["mean"] / 1e3, rel=1e-6)
    assert found.tpot_s.mean == pytest.approx(theirs["inter_token_latency_ms"]["successful"]["mean"] / 1e3, rel=1e-6)
    assert found.tpot_s.mean < theirs["time_per_output_token_ms"]["successful"]["mean"] / 1e3 - 0.002
    assert found.e2e_s.mean < theirs["request_latency"]["successful"]["mean"]  # theirs ends with the stream
    assert found.audit.late_s.n == 12
    assert found.chunk_gap_s.n == 0


def test_a_report_of_guidellm_in_yaml_is_read_like_one_in_json(folder: Path, tmp_path: Path) -> None:
    report = imported(tmp_path, folder / "guidellm.yaml")
    found = summary(report)
    assert report.cells[0].axes == {"concurrency": 4}
    assert (found.ok, found.out_tok.mean) == (12, 16)
    assert found.audit.late_p99_s is None  # a closed loop of GuideLLM has no schedule
    assert report.run["origin"]["version"] == "0.8.1"


def test_a_sampled_report_of_guidellm_gives_its_figures_and_each_benchmark_a_cell(folder: Path, tmp_path: Path) -> None:
    report = imported(tmp_path, folder / "guidellm_sampled.json")
    assert [cell.axes for cell in report.cells] == [{"concurrency": 1}, {"concurrency": 2}]
    theirs = said(folder / "guidellm_sampled.json")["benchmarks"]
    for result, benchmark in zip(results(report), theirs, strict=True):
        rate = benchmark["metrics"]["output_tokens_per_second"]["successful"]["mean"]
        assert result.summary.output_tok_s == pytest.approx(rate)
        assert result.summary.ok == 10
        assert "keeps 3 of 10 requests" in doubts(result.summary)["imported_figures"]


def test_failures_of_guidellm_keep_their_kind(folder: Path, tmp_path: Path) -> None:
    found = summary(imported(tmp_path, folder / "guidellm_faults.json"))
    assert found.status == {"ok": 12, "truncated": 2, "error_event": 1, "http_error": 1}


# Beside our own -------------------------------------------------------------------------------------------------------


def test_an_import_is_compared_with_our_own_run_once_the_client_is_declared(folder: Path, tmp_path: Path) -> None:
    with FakeServer(ttft_ms=50, gap_ms=10) as server:  # paced as the null server was when vLLM measured it
        words = (
            f"name: own\ntargets: {{tiny: {{endpoint: '{server.url}', model: tiny}}}}\n"
            "workload: {prompts: natural, output: {max: 16}}\nmatrix: {concurrency: [4]}\n"
            "load: {warmup_s: 0, requests: 40}\nrepeats: 1\n"
        )
        ours = loadgen(tmp_path, "run", str(write_scenario(tmp_path, words)), "--quiet")
    assert ours.good, ours.err
    theirs = loadgen(tmp_path, "import", str(folder / "vllm_detailed.json"), "--name", "theirs")
    assert theirs.code == 0, theirs.err
    names = [path.name for path in sorted(tmp_path.glob("store/runs/*/*"))]
    own, foreign = next(n for n in names if "-own-" in n), next(n for n in names if "-theirs-" in n)
    refused = loadgen(tmp_path, "compare", own, foreign)
    assert "driver is loadgen for" in refused.out, refused.err
    allowed = loadgen(tmp_path, "compare", own, foreign, "--factor", "driver", "--json")
    found = json.loads(allowed.out)
    assert not any("driver is loadgen for" in note for note in found["notes"])
    cell = found["comparisons"][0]["cells"][0]
    (mine,), (other,) = (cell["secondary"]["p50 ttft_s"][f"{side}_values"] for side in ("baseline", "candidate"))
    assert 0.9 < other / mine < 1.5  # the same 50 ms, through two clients
    assert cell["primary"]["verdict"] in ("inconclusive", "invalid")  # one repeat each; invalid on a busy machine
