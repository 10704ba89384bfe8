"""What people are told of nights: on changes alone, once a week in any case, and never twice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_run, scenario_of
from nights_made import Hook, listening

from loadgen.assemble import assemble
from loadgen.nightly.notify import message, send, write_summary
from loadgen.nightly.telling import tell, tell_not_run, wrongs
from loadgen.nights.night import NightReport, exit_code_of, head, lines, news, remarks, standing
from loadgen.nights.series import Series, points_of
from loadgen.nights.verdicts import Drift, SeriesVerdict, State, judge
from loadgen.reports.night import render, render_markdown
from loadgen.store import read_json, write_json


def series(name: str = "batch16") -> Series:
    return Series(key=name, scenario="n", cell=name, target="moe", measure="output_tok_s")


def verdict(state: State, name: str = "batch16", primary: bool = True, **fields: Any) -> SeriesVerdict:
    known: dict[str, Any] = {"value": 941.0, "normal": 1002.0, "expected": (985.0, 1019.0)}
    known |= {"lowest": 987.0, "highest": 1015.0, "n": 14, "p": 1e-6, "again": (2, 2), "alert": "r"}
    return SeriesVerdict(series=series(name), run="r", state=state, primary=primary, **{**known, **fields})


def night(*verdicts: SeriesVerdict, **fields: Any) -> NightReport:
    known: dict[str, Any] = {"name": "n", "run": "r", "path": "/s/r", "started": "", "exit_code": 0}
    return NightReport(verdicts=verdicts, **{**known, **fields})


def test_a_night_that_lacks_repeats_says_so_and_is_degraded_and_no_regression(tmp_path: Path) -> None:
    run = made_run(tmp_path / "store", scenario_of(tmp_path, ["a"], "repeats: 3\n"), {"a": [1000.0, 1010.0, None]})
    report = assemble(run)
    assert wrongs(report) == ["It was not measured whole: 1 repeats are missing, the first all, a, repeat 3."]
    assert report.exit_code == 5
    points = points_of(report)
    assert {(one.state, one.reps) for one in points if one.primary} == {("degraded", 2)}
    assert {one.state for one in judge(points, {}, {})} == {State.LEARNING}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with listening() as found:
        monkeypatch.setenv("A_HOOK", found.url)
        yield found


def told_lately(store: Path) -> None:
    """As if there had been a digest yesterday."""
    (store / "nightly").mkdir()
    write_json(store / "nightly" / "n.json", {"digest": time.time() - 86400})


def test_where_several_exit_codes_hold_the_contracts_is_taken() -> None:
    assert exit_code_of([0]) == 0
    assert exit_code_of([3, 4]) == 4
    assert exit_code_of([4, 5]) == 5
    assert exit_code_of([5, 6, 4]) == 6
    assert exit_code_of([6, 143]) == 143


def test_the_line_of_a_regression_is_that_of_the_specification_with_what_changed() -> None:
    one = night(verdict(State.REGRESSION), changed={"batch16": ("engine_version 0.32 -> 0.33",)}, exit_code=4)
    assert lines(one) == [
        "REGRESSION n moe batch16 output_tok_s 941 vs 1002 (-6.1 %), 14-night range 987..1015, expected 985..1019, "
        "p=1e-6, confirmed 2/2; changed: engine_version 0.32 -> 0.33"
    ]
    assert head(one) == "1 primary series: 1 regression"


def test_the_gravest_comes_first_and_primary_before_secondary() -> None:
    found = night(
        verdict(State.IMPROVEMENT, "a"), verdict(State.SUSPECT, "b", primary=False), verdict(State.SUSPECT, "c"),
        verdict(State.OK, "d"), verdict(State.REGRESSION, "e"),
    )  # fmt: skip
    assert [line.split()[0] + line.split()[3] for line in lines(found)] == [
        "REGRESSIONe", "SUSPECTc", "SUSPECTb", "IMPROVEMENTa",
    ]  # fmt: skip


def test_only_a_series_that_stands_otherwise_than_was_told_is_news() -> None:
    bad, good, none = verdict(State.REGRESSION), verdict(State.OK), verdict(State.INVALID, value=None)
    assert news({}, night(good)) == []
    assert news({}, night(verdict(State.SUSPECT))) == []
    assert news({}, night(verdict(State.REGRESSION, primary=False))) == []
    assert news({}, night(bad)) == lines(night(bad))
    assert news(standing([bad]), night(bad)) == []
    assert news(standing([bad]), night(good))[0].startswith("RECOVERED (ok) n moe batch16 output_tok_s 941")
    assert news(standing([bad]), night(verdict(State.LEARNING)))[0].startswith("NEW EPOCH (learning) n moe batch16")
    assert news({}, night(none)) == ["INVALID n moe batch16 output_tok_s: no good repeat"]
    assert news(standing([none]), night(good))[0].startswith("MEASURED AGAIN (ok) n moe")


def test_nothing_is_sent_where_nothing_changed(tmp_path: Path, hook: Hook) -> None:
    told_lately(tmp_path)
    assert tell(tmp_path, "A_HOOK", night(verdict(State.OK))) == []
    assert hook.bodies == []
    assert tell(tmp_path, None, night(verdict(State.REGRESSION))) == []
    assert hook.bodies == []


def test_a_regression_is_sent_once_and_its_end_too(tmp_path: Path, hook: Hook) -> None:
    told_lately(tmp_path)
    for state in (State.REGRESSION, State.REGRESSION, State.OK, State.OK):
        assert tell(tmp_path, "A_HOOK", night(verdict(state))) == []
    first, second = hook.texts()
    assert "\n• REGRESSION n moe batch16" in first
    assert first.endswith("\nrun /s/r")
    assert "\n• RECOVERED (ok) n moe batch16" in second


def test_a_green_week_ends_with_a_digest(tmp_path: Path, hook: Hook) -> None:
    told_lately(tmp_path)
    path = tmp_path / "nightly" / "n.json"
    write_json(path, {**read_json(path), "digest": time.time() - 7 * 86400 + 3600})  # cron was an hour early
    assert tell(tmp_path, "A_HOOK", night(verdict(State.OK))) == []
    (text,) = hook.texts()
    assert "(weekly): 1 primary series: 1 ok*\nrun /s/r" in text
    assert tell(tmp_path, "A_HOOK", night(verdict(State.OK))) == []
    assert len(hook.bodies) == 1


def test_a_damaged_memory_of_what_was_told_is_none(tmp_path: Path, hook: Hook) -> None:
    (tmp_path / "nightly").mkdir()
    (tmp_path / "nightly" / "n.json").write_text('{"standing": {"batch16')
    assert tell(tmp_path, "A_HOOK", night(verdict(State.OK))) == []
    assert len(hook.bodies) == 1


def test_what_could_not_be_sent_is_sent_after_the_next_night(tmp_path: Path, hook: Hook) -> None:
    told_lately(tmp_path)
    hook.status = 403
    (problem,) = tell(tmp_path, "A_HOOK", night(verdict(State.REGRESSION)))
    assert problem.endswith("it answers HTTP 403. It will be after the next night.")
    hook.status = 200
    assert tell(tmp_path, "A_HOOK", night(verdict(State.REGRESSION))) == []
    assert "REGRESSION" in hook.texts()[-1]


def test_a_night_that_could_not_be_run_is_told_once(tmp_path: Path, hook: Hook) -> None:
    assert tell_not_run(tmp_path, "n", "A_HOOK", "GPU 0 is not free") == []
    assert tell_not_run(tmp_path, "n", "A_HOOK", "GPU 0 is not free") == []
    (text,) = hook.texts()
    assert "nothing was measured*\n• NOT RUN: GPU 0 is not free\nstore " in text


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_webhook_that_is_busy_is_tried_three_times(hook: Hook, status: int) -> None:
    hook.status = status
    problem = send("A_HOOK", "hello", (0.0, 0.0))
    assert problem == f"the webhook of A_HOOK was not told: it answers HTTP {status}. It will be after the next night."
    assert len(hook.bodies) == 3


def test_no_sentence_holds_the_webhooks_address(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    hook.status = 404
    said = [send("A_HOOK", "x", ())]
    monkeypatch.setenv("A_HOOK", "http://127.0.0.1:1/SECRET")
    said.append(send("A_HOOK", "x", ()))
    monkeypatch.setenv("A_HOOK", "SECRET")
    said.append(send("A_HOOK", "x", ()))
    monkeypatch.setenv("A_HOOK", "http://[SECRET/")
    said.append(send("A_HOOK", "x", ()))
    monkeypatch.delenv("A_HOOK")
    said.append(send("A_HOOK", "x", ()))
    assert all(said)
    assert "SECRET" not in " ".join(map(str, said))
    assert said[-1] == "the webhook was not told: the environment has no variable A_HOOK."


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("A_HOOK", f"http://{'a' * 64}.example/SECRET", "that is no URL"),
        ("ALL_PROXY", "none://SECRET", "the proxy or the certificates that the environment names cannot be used"),
        ("SSL_CERT_FILE", "/SECRET", "the proxy or the certificates that the environment names cannot be used"),
    ],
)
def test_an_environment_that_no_request_can_be_made_in_is_a_sentence(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_HOOK", "https://127.0.0.1:1/")
    monkeypatch.setenv(name, value)
    problem = send("A_HOOK", "x", ())
    assert problem is not None
    assert problem.startswith(f"the webhook of A_HOOK was not told: {said}")
    assert "SECRET" not in problem


def test_a_webhook_that_asks_to_wait_for_no_number_of_seconds_is_asked_again_as_others_are(hook: Hook) -> None:
    hook.status, hook.retry_after = 503, "\u00b2"  # a digit to Python, and no number
    problem = send("A_HOOK", "x", (0.0,))
    assert problem is not None
    assert "it answers HTTP 503" in problem
    assert len(hook.bodies) == 2


def test_slack_sees_no_links_and_no_calls_in_names() -> None:
    text = message("a <!channel> & b", ["<https://evil|x>"] * 50, "run <r>")
    assert text.startswith("*a &lt;!channel&gt; &amp; b*\n• &lt;https://evil|x&gt;\n")
    assert "\n• and 10 more\nrun &lt;r&gt;" in text


def test_a_summary_is_added_to_the_page_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert write_summary("one\n") is None
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert write_summary("one\n") is None
    assert write_summary("two\n") is None
    assert write_summary("x" * 2_000_000) is None
    assert (tmp_path / "summary.md").read_text() == "one\ntwo\nThe summary of this night is too long for this page.\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert write_summary("one\n") == "cannot write $GITHUB_STEP_SUMMARY: Is a directory."


def test_a_night_reads_well_at_80_columns_and_without_unicode() -> None:
    drifting = Drift(series=series(), worse=0.05, p=0.001, found=True, reference=1000.0, recent=950.0)
    one = night(
        verdict(State.REGRESSION), verdict(State.INVALID, "b", value=None), left_out=("c1", "c2"),
        unconfirmed=("c3",), drifts=(drifting,), notes=("the webhook é",), confirmed_by="/s/r2", exit_code=5,
    )  # fmt: skip
    text = render(one, 80, unicode=False)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    assert text.startswith("nightly n: 2 primary series: 1 regression, 1 invalid; not all of it is to be\n  trusted\n")
    for part in (
        "REGRESSION n moe batch16", "DRIFT n moe batch16", "no time for 2 cells: c1, c2.",
        "no time to measure again: c3.", "run: /s/r\nmeasured again: /s/r2\n", "-6.1 %", "none",
    ):  # fmt: skip
        assert part in text, part
    assert remarks(one)[-1] == "the webhook é"


def test_markdown_of_a_night_has_no_markup_of_names() -> None:
    text = render_markdown(night(verdict(State.REGRESSION, "<img src=x>|`[a](b)`\x1b[2J"), name="<b>"), "# report")
    assert "<img" not in text
    assert "<b>" not in text
    assert "\x1b" not in text
    assert "](b)" not in text.replace("\\[a](b)", "")
    assert text.endswith("# report\n")


def test_a_webhook_whose_answer_never_ends_has_been_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            sock, _ = server.accept()
            sock.recv(1 << 16)
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
            asked.append(sock)  # and nothing more: it stays open

        asked: list[socket.socket] = []
        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("A_HOOK", f"http://127.0.0.1:{server.getsockname()[1]}/")
        began = time.monotonic()
        assert send("A_HOOK", "a text") is None
        assert time.monotonic() - began < 5  # the limit for a silence is 10 s
        thread.join()
        asked[0].close()
