"""Hubs: a model that cannot be had is a sentence with the command that fetches it, before any server is started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import loadgen, write_scenario
from tiny_hub import BUSY, COMMIT, PRIVATE, TinyHub, hub_with

from loadgen.errors import ScenarioError, UsageError
from loadgen.launch import missing_model_sentence
from loadgen.launch.hubs import MODELSCOPE, hub_of, not_to_be_had
from loadgen.scenario import load
from loadgen.targets import check

WORDS = "workload: {prompts: natural, output: {exact: 8}}\nload: {concurrency: 1, requests: 1, warmup_s: 1}\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[TinyHub]:
    with hub_with(tiny=model) as found:
        yield found


def environ(folder: Path, hub: TinyHub | None, **more: str) -> dict[str, str]:
    """Caches below ``folder``, and this hub for both kinds."""
    url = hub.url if hub else "http://127.0.0.1:9"
    return {
        "HF_HOME": f"{folder}/hf", "MODELSCOPE_CACHE": f"{folder}/ms", "HF_ENDPOINT": url, "MODELSCOPE_ENDPOINT": url,
        **more,
    }  # fmt: skip


def test_a_model_that_the_hub_has_is_the_engines_to_fetch(tmp_path: Path, hub: TinyHub) -> None:
    assert not_to_be_had("org/tiny", environ(tmp_path, hub)) is None
    assert [path for path, _ in hub.asked] == ["/api/models/org/tiny"]


def test_a_model_that_the_hub_has_not_is_a_sentence_with_the_download_command(tmp_path: Path, hub: TinyHub) -> None:
    sentence = not_to_be_had("org/none", environ(tmp_path, hub)) or ""
    assert f"Hugging Face has no model org/none ({hub.url}/api/models/org/none says 404); mend the id" in sentence
    assert sentence.endswith("hf download org/none")


def test_a_hub_that_does_not_answer_is_a_sentence(tmp_path: Path) -> None:
    sentence = not_to_be_had("org/none", environ(tmp_path, None)) or ""
    assert f"({tmp_path}/hf/hub), and http://127.0.0.1:9 does not answer (a mirror: HF_ENDPOINT=URL)" in sentence
    assert sentence.endswith("fetch it with: hf download org/none")


def test_what_a_busy_hub_says_speaks_against_nothing(tmp_path: Path, hub: TinyHub) -> None:
    assert not_to_be_had(BUSY, environ(tmp_path, hub)) is None


def test_a_proxy_that_cannot_be_used_here_speaks_against_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert not_to_be_had("org/none", {**environ(tmp_path, None), "HF_ENDPOINT": "http://hub.invalid"}) is None


def test_an_address_without_a_scheme_does_not_answer(tmp_path: Path) -> None:
    sentence = not_to_be_had("org/none", {**environ(tmp_path, None), "HF_ENDPOINT": "hf-mirror.example"}) or ""
    assert "hf-mirror.example does not answer" in sentence


def test_a_private_model_wants_a_token_which_goes_to_the_hub_and_nowhere_else(tmp_path: Path, hub: TinyHub) -> None:
    assert "or it is private: export HF_TOKEN" in (not_to_be_had(PRIVATE, environ(tmp_path, hub)) or "")
    assert not_to_be_had(PRIVATE, environ(tmp_path, hub, HF_TOKEN="hf_secret")) is None
    assert hub.asked[-1][1] == "Bearer hf_secret"
    assert "hf_secret" not in (not_to_be_had("org/none", environ(tmp_path, hub, HF_TOKEN="hf_secret")) or "")


def test_a_token_that_the_hubs_own_tools_keep_may_open_a_private_model(tmp_path: Path, hub: TinyHub) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("kept")
    assert not_to_be_had(PRIVATE, environ(tmp_path, hub)) is None


def test_what_huggingfaces_client_fetched_is_there_and_no_hub_is_asked_again(tmp_path: Path, hub: TinyHub) -> None:
    pytest.importorskip("huggingface_hub")
    variables = environ(tmp_path, hub)
    fetch = "import huggingface_hub as h; print(h.hf_hub_download('org/tiny', 'config.json'))"
    done = subprocess.run(
        [sys.executable, "-c", fetch], env={**os.environ, **variables, "HF_HUB_OFFLINE": "0"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().endswith(f"snapshots/{COMMIT}/config.json")
    assert hub_of("org/tiny", variables).held
    hub.asked.clear()
    for offline in ("0", "1"):
        assert missing_model_sentence("org/tiny", {**variables, "HF_HUB_OFFLINE": offline}, ask=True) is None
    assert hub.asked == []


@pytest.mark.parametrize("variable", MODELSCOPE)
def test_modelscope_is_asked_where_the_engine_asks_it(variable: str, tmp_path: Path, hub: TinyHub) -> None:
    variables = environ(tmp_path, hub, **{variable: "True"})
    assert not_to_be_had("org/tiny", variables) is None
    sentence = not_to_be_had("org/none", variables) or ""
    assert sentence.startswith("ModelScope has no model org/none")
    assert sentence.endswith("modelscope download --model org/none")
    assert [path for path, _ in hub.asked] == ["/api/v1/models/org/tiny", "/api/v1/models/org/none"]


@pytest.mark.parametrize(
    "folder",
    [
        "models/org--m-0.5b/snapshots/master",
        *("models/org/m-0___5b", "hub/models/org/m-0___5b", "org/m-0.5b", "hub/org/m-0.5b"),
    ],
)
def test_every_layout_of_modelscopes_cache_counts(folder: str, tmp_path: Path) -> None:
    variables = environ(tmp_path, None, VLLM_USE_MODELSCOPE="True", HF_HUB_OFFLINE="1")
    assert "modelscope download --model org/m-0.5b" in (missing_model_sentence("org/m-0.5b", variables) or "")
    (tmp_path / "ms" / folder).mkdir(parents=True)
    (tmp_path / "ms" / folder / "config.json").write_text("{}")
    assert missing_model_sentence("org/m-0.5b", variables) is None


@pytest.mark.parametrize("name", ["org/../../etc", "org/m?x=1", "org/m#x", "org/ m;rm -rf ~", "org/\u00fc"])
def test_a_strange_id_stays_one_path_and_one_word_of_the_command(name: str, tmp_path: Path, hub: TinyHub) -> None:
    sentence = not_to_be_had(name, environ(tmp_path, hub)) or ""
    assert "says 404" in sentence
    assert "?" not in hub.asked[0][0]
    assert sentence.endswith(f"hf download {name}") or sentence.endswith(f"hf download '{name}'")


# In a scenario --------------------------------------------------------------------------------------------------------


def checked(folder: Path, target: str) -> None:
    path = folder / "s.yaml"
    path.write_text(
        f"schema: loadgen/v1\ntargets: {{a: {target}, b: {target}}}\n{WORDS}matrix: {{load.requests: [1, 2]}}\n"
    )
    from loadgen.scenario import expand

    loaded = load(path)
    check(loaded, expand(loaded.scenario))


def test_the_options_of_a_target_say_which_hub_and_each_target_is_asked_for_once(
    tmp_path: Path, hub: TinyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    checked(tmp_path, f"{{engine: hf, model: org/tiny, options: {{hub_endpoint: '{hub.url}'}}}}")
    assert len(hub.asked) == 2
    with pytest.raises(UsageError, match=r"targets\.a\.model: Hugging Face has no model org/none"):
        checked(tmp_path, f"{{engine: hf, model: org/none, options: {{hub_endpoint: '{hub.url}'}}}}")
    with pytest.raises(UsageError, match=r"the hub is switched off \(HF_HUB_OFFLINE\); .*hf download org/tiny"):
        checked(tmp_path, "{engine: hf, model: org/tiny, options: {hub: offline}}")


@pytest.mark.parametrize("engine", ["vllm", "sglang", "lmdeploy"])
def test_engines_that_know_modelscope_ask_it(
    engine: str, tmp_path: Path, hub: TinyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    checked(tmp_path, f"{{engine: {engine}, model: org/tiny, options: {{hub: modelscope}}}}")
    with pytest.raises(UsageError, match="modelscope download --model org/none"):
        checked(tmp_path, f"{{engine: {engine}, model: org/none, options: {{hub: modelscope}}}}")


@pytest.mark.parametrize("engine", ["hf", "transformers-serve", "ctranslate2", "tensorrt-llm"])
def test_engines_that_do_not_know_it_refuse_the_word(engine: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"options\.hub: {engine} has no 'modelscope'; .* knows huggingface, offline"):
        checked(tmp_path, f"{{engine: {engine}, model: org/tiny, options: {{hub: modelscope}}}}")


def test_a_hub_beside_the_model_is_answered_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"targets\.a\.hub: unknown key here: .* write options: \{hub: \.\.\.\}"):
        checked(tmp_path, "{engine: vllm, model: org/tiny, hub: modelscope}")


def test_a_folder_needs_no_hub(tmp_path: Path, model: Path) -> None:
    checked(tmp_path, "{engine: hf, model: ./tiny, options: {hub_endpoint: 'http://127.0.0.1:9'}}")


def test_a_run_stops_before_anything_is_started(tmp_path: Path, hub: TinyHub) -> None:
    text = f"targets: {{a: {{engine: hf, model: org/none, options: {{hub_endpoint: '{hub.url}'}}}}}}\n{WORDS}"
    done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    assert done.code == 2
    assert "loadgen: targets.a.model: Hugging Face has no model org/none" in done.err
    assert not list((tmp_path / "store").glob("runs/*/*"))


def test_a_server_by_hand_is_not_started_either(tmp_path: Path, hub: TinyHub) -> None:
    done = loadgen(tmp_path, "launch", "hf", "--model", "org/none", "-o", f"hub_endpoint={hub.url}")
    assert done.code == 2
    assert "Hugging Face has no model org/none" in done.err
