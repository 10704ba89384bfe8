"""Real engines on a CPU: each starts by its recipe, answers with exactly N tokens, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cli_runner import Done, command, environment
from cpu_engines import CHECKOUT, CPU_ENGINES, ENGINES, MOE, Engine

from loadgen import backends
from loadgen.backends import RequestOptions
from loadgen.errors import LaunchError
from loadgen.launch import LaunchSpec, Server, launchers_folder, load_recipe, render, start_ready
from loadgen.record import Chunk, Message, Prompt

pytestmark = pytest.mark.engines

SAME_TEXT = ["hf", "transformers-serve", "vllm", "llamacpp-python", "ctranslate2"]
"""One model in one precision, or two that agree on it: greedy decoding is to give the same text everywhere."""


def started(spec: LaunchSpec, folder: Path) -> Server:
    recipe = load_recipe(spec.engine, folder)
    make = partial(render, recipe, spec, run_id="run-1", launchers=launchers_folder(), folder=folder)
    return start_ready(lambda port: make(port=port), folder)


def asked(spec: LaunchSpec, server: Server, tokens: int, *, stream: bool) -> tuple[str, dict[str, Any]]:
    """Path and body of a request of exactly so many tokens, as the driver would send it."""
    recipe = load_recipe(spec.engine, spec.folder)
    made = render(recipe, spec, port=1, run_id="run-1", launchers=launchers_folder(), folder=spec.folder)
    backend = backends.load(made.backend)
    options = RequestOptions(
        model=made.served_name,
        stream=stream,
        sampling={"temperature": 0},
        fields=dict(made.request),
        exact_fields=dict(made.exact),
    )
    prompt = Prompt(source="test", ask_tok=tokens, exact=True, messages=(Message("user", "Hello there"),))
    if "messages" not in backend.ACCEPTS:
        prompt = Prompt(source="test", ask_tok=tokens, exact=True, text="Hello there")
    return backend.PATH, backend.body(prompt, options)


def whole(spec: LaunchSpec, server: Server, tokens: int) -> Chunk:
    path, body = asked(spec, server, tokens, stream=False)
    reply = httpx.post(url_of(server) + path, json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    backend = backends.load(server.describe()["backend"])
    return backend.whole(reply.json())


def url_of(server: Server) -> str:
    return str(server.describe()["base_url"])


def alive(server: Server) -> list[int]:
    """Processes of the server that still live, by pid and start."""
    kept = server.describe()["processes"]
    found = []
    for each in kept:
        try:
            process = psutil.Process(each["pid"])
            if abs(process.create_time() - each["create_time"]) < 2 and process.status() != psutil.STATUS_ZOMBIE:
                found.append(each["pid"])
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(params=[pytest.param(engine, id=name) for name, engine in CPU_ENGINES.items()])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.param
    return found


@pytest.mark.parametrize("backend", ["openai_chat", "openai_completions"])
def test_an_engine_starts_answers_exactly_n_tokens_and_leaves_nothing(
    engine: Engine, backend: str, tmp_path: Path
) -> None:
    spec = engine.spec(tmp_path, backend=backend)
    server = started(spec, tmp_path)
    try:
        reply = whole(spec, server, 11)
        assert reply.usage is not None
        assert (reply.usage.out_tok, reply.finish) == (11, "length")
        assert reply.text
        assert alive(server)
        assert server.describe()["facts"]["version"]
    finally:
        proof = server.stop()
    assert proof.problems() == []
    assert proof.port_free
    assert alive(server) == []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The scenario that comes with loadgen, run once. It takes some minutes, most of which are starts."""
    for each in CPU_ENGINES.values():
        each.spec(Path())
    store = tmp_path_factory.mktemp("store")
    words = command("run", str(CHECKOUT / "scenarios/engines_cpu.yaml"), "--set", "load.window_s=2")
    done = subprocess.run(
        words, env={**environment(store), "LOADGEN_ENGINES": str(ENGINES)}, capture_output=True, text=True, timeout=900
    )
    return Done(done.returncode, done.stdout, done.stderr, store)


def test_one_scenario_runs_all_of_them_and_ends_in_one_table(report: Done) -> None:
    assert report.good, report.err + report.out
    targets = ("hf", "hf_moe", "transformers_serve", "vllm", "llamacpp", "ctranslate2")
    (table,) = [part for part in report.out.split("\n\n") if part.startswith("concurrency")]
    for level in ("1", "4"):
        shown = [line.split()[1] for line in table.splitlines() if line.split()[:1] == [level]]
        assert sorted(shown) == sorted(targets)


def test_every_engine_gave_sixteen_tokens_to_every_request_and_a_time_to_the_first(report: Done) -> None:
    for result in report.results():
        assert (result.summary.failed, result.summary.ok > 0) == (0, True)
    for attempt in report.attempts():
        records = [record for record in report.records(attempt) if record.status == "ok"]
        counted = {(record.tok_source, record.out_tok) for record in records}
        if "llamacpp" in attempt.parts:  # its streams have no usage: the text is counted, which may be cut otherwise
            assert {source for source, _ in counted} == {"tokenizer"}
        else:
            assert counted == {("usage", 16)}, attempt
        assert all(record.ttft_s is not None and record.e2e_s is not None for record in records), attempt


def test_every_server_of_the_scenario_is_gone_with_proof(report: Done) -> None:
    servers = report.description()["servers"]
    assert len(servers) == 6
    assert [kept["state"] for kept in servers.values()] == ["stopped"] * 6
    assert all(kept["proof"]["ok"] and kept["proof"]["port_free"] for kept in servers.values())


def test_one_model_says_the_same_on_every_engine(tmp_path: Path) -> None:
    said = {}
    for name in SAME_TEXT:
        spec = CPU_ENGINES[name].spec(tmp_path / name)
        (tmp_path / name).mkdir()
        with started(spec, tmp_path / name) as server:
            said[name] = whole(spec, server, 4).text.strip()
    assert len(set(said.values())) == 1, said


# -- CTranslate2's server, which is ours ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ct2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running server."""
    folder = tmp_path_factory.mktemp("ct2")
    with started(CPU_ENGINES["ctranslate2"].spec(folder), folder) as server:
        yield url_of(server)


def chat(tokens: int, words: int = 3, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello " * words}]
    return {"model": "tiny", "messages": messages, "max_tokens": tokens, "ignore_eos": True, "temperature": 0, **more}


def test_ctranslate2_streams_a_token_in_each_event_and_not_all_at_the_end(ct2: str) -> None:
    body = chat(200, stream=True, stream_options={"include_usage": True})
    at, ids = [], []
    with httpx.stream("POST", f"{ct2}/v1/chat/completions", json=body, timeout=60) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                for choice in event["choices"]:
                    at.append(time.perf_counter())
                    ids += choice["token_ids"]
    assert len(at) == len(ids) == 200
    assert event["usage"]["completion_tokens"] == 200
    half = at[100] - at[0]
    assert 0.2 < half / (at[-1] - at[0]) < 0.8


def test_ctranslate2_gives_requests_of_a_batch_the_text_they_have_alone(ct2: str) -> None:
    bodies = [chat(n, words=w) for n, w in ((8, 4), (24, 5), (1, 4), (17, 7), (9, 90), (12, 4))]

    async def both() -> tuple[list[Any], list[Any]]:
        async with httpx.AsyncClient(base_url=ct2, timeout=60) as client:
            alone = [await client.post("/v1/chat/completions", json=body) for body in bodies]
            together = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for body in bodies))
        return [reply.json() for reply in alone], [reply.json() for reply in together]

    alone, together = asyncio.run(both())
    assert [reply["usage"]["completion_tokens"] for reply in together] == [8, 24, 1, 17, 9, 12]
    assert [r["choices"][0]["token_ids"] for r in together] == [r["choices"][0]["token_ids"] for r in alone]
    page = httpx.get(f"{ct2}/metrics").text
    seen = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("ct2:"))
    assert float(seen["ct2:batch_size_max"]) > 1
    assert (float(seen["ct2:requests_running"]), float(seen["ct2:requests_waiting"])) == (0, 0)


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("chat/completions", chat(5, nonsense=1), 400, "Unknown field 'nonsense'"),
        ("chat/completions", chat(5, temperature=1, seed=3), 400, "one stream of random numbers"),
        ("chat/completions", chat(100_000), 400, "this server takes 4096"),
        ("completions", {"model": "tiny", "prompt": [999_999], "max_tokens": 1}, 400, "a token id of this model"),
        ("completions", {"model": "other", "prompt": "Hi"}, 404, "this server serves 'tiny'"),
    ],
)
def test_ctranslate2_refuses_in_one_sentence(ct2: str, path: str, body: Any, status: int, sentence: str) -> None:
    reply = httpx.post(f"{ct2}/v1/{path}", json=body, timeout=60)
    assert reply.status_code == status
    assert sentence in reply.json()["error"]["message"]


def test_ctranslate2_samples_where_it_is_asked_to(ct2: str) -> None:
    body = chat(12, temperature=5.0, top_p=1.0)
    texts = {httpx.post(f"{ct2}/v1/chat/completions", json=body, timeout=60).text.split('"choices"')[1] for _ in "abc"}
    assert len(texts) == 3


def test_ctranslate2_has_no_mixture_of_experts_and_says_so(tmp_path: Path) -> None:
    spec = Engine("ctranslate2", MOE).spec(tmp_path)
    with pytest.raises(LaunchError, match=r"Qwen2MoeConfig\. It knows dense architectures"):
        started(spec, tmp_path)


def test_ctranslate2_refuses_a_type_that_the_device_would_replace_in_silence(tmp_path: Path) -> None:
    spec = CPU_ENGINES["ctranslate2"].spec(tmp_path, options={"dtype": "float16", "device": "cpu"})
    with pytest.raises(LaunchError, match=r"--compute-type float16: CTranslate2 .* choose one of these"):
        started(spec, tmp_path)
