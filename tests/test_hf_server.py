"""The Hugging Face server, for real: a small model, made and served here, spoken to over HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hf_running import TEXTS, Running, made_model, needs_torch, running, token_ids

pytestmark = needs_torch
CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
ROWS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_model(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for most tests. Its steps are slowed a little, so that requests meet in the batch on any machine."""
    log = tmp_path_factory.mktemp("hf") / "server.log"
    options = ("--max-batch-size", str(ROWS), "--step-delay-ms", "3", "--served-name", "small", "--max-waiting", "8")
    with running(model, log, *options) as one:
        yield one


def ask(text: str = TEXTS[0], tokens: int = 8, **more: Any) -> dict[str, Any]:
    """A chat request for exactly so many tokens, greedily."""
    message = {"role": "user", "content": text}
    return {"messages": [message], "max_tokens": tokens, "ignore_eos": True, "temperature": 0, **more}


def at_once(server: Running, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The replies to requests that are sent together."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: server.post(CHAT, body).json(), bodies))


def test_every_token_is_an_event_with_its_id(server: Running) -> None:
    events = server.events(CHAT, ask(tokens=12, stream_options={"include_usage": True}))
    *tokens, usage = events
    assert [len(event["choices"][0]["token_ids"]) for event in tokens] == [1] * 12
    assert [event["choices"][0]["finish_reason"] for event in tokens] == [None] * 11 + ["length"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 12
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 12


def test_a_stream_has_no_usage_unless_it_is_asked_for(server: Running) -> None:
    assert all(event["choices"] and "usage" not in event for event in server.events(CHAT, ask()))


def test_the_first_bytes_after_the_headers_are_a_token(server: Running) -> None:
    body = json.dumps(ask(tokens=3, stream=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(head + body)
        received = b"".join(iter(lambda: raw.recv(65536), b""))
    events = [json.loads(line[6:]) for line in received.split(b"\n") if line.startswith(b"data: {")]
    assert b"200 OK" in received.split(b"\r\n", 1)[0]
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len(events[0]["choices"][0]["token_ids"]) == 1
    assert all("role" not in event["choices"][0]["delta"] for event in events[1:])


def test_streamed_and_whole_replies_are_the_same_text_and_tokens(server: Running) -> None:
    events = server.events(CHAT, ask(tokens=24))
    whole = server.post(CHAT, ask(tokens=24)).json()["choices"][0]
    assert token_ids(events) == whole["token_ids"]
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == whole["message"]["content"]
    assert whole["finish_reason"] == "length"


def test_a_batch_of_four_gives_the_tokens_of_four_alone_and_is_a_batch(server: Running) -> None:
    alone = [server.post(CHAT, ask(text, tokens=96)).json() for text in TEXTS]
    steps, rows = server.metric("hf:batch_size_count"), server.metric("hf:batch_size_sum")
    together = at_once(server, [ask(text, tokens=96) for text in TEXTS])
    ids = [reply["choices"][0]["token_ids"] for reply in together]
    assert ids == [reply["choices"][0]["token_ids"] for reply in alone]
    seen = (server.metric("hf:batch_size_sum") - rows) / (server.metric("hf:batch_size_count") - steps)
    assert seen > 1.5
    assert 2 <= server.metric("hf:batch_size_max") <= ROWS


def test_exactly_n_tokens_come_whatever_n_is_and_the_counters_add_up(server: Running) -> None:
    names = ("hf:generation_tokens_total", "hf:prompt_tokens_total", 'hf:requests_total{outcome="length"}')
    before = [server.metric(name) for name in names]
    sizes = [1, 2, 3, 5, 8, 13, 21, 34]
    replies = at_once(server, [ask(tokens=size, min_tokens=size) for size in sizes])
    usages = [reply["usage"] for reply in replies]
    assert [len(reply["choices"][0]["token_ids"]) for reply in replies] == sizes
    assert [usage["completion_tokens"] for usage in usages] == sizes
    after = [server.metric(name) for name in names]
    grown = [new - old for new, old in zip(after, before, strict=True)]
    assert grown == [sum(sizes), sum(usage["prompt_tokens"] for usage in usages), len(sizes)]


def test_more_requests_than_rows_wait_and_are_served(server: Running) -> None:
    replies = at_once(server, [ask(tokens=40) for _ in range(2 * ROWS)])
    assert [reply["usage"]["completion_tokens"] for reply in replies] == [40] * 2 * ROWS
    assert any(reply["metrics"]["queue_time_ms"] > 3 for reply in replies)
    server.settle("hf:requests_running", 0)


def test_prompts_are_text_or_token_ids_or_a_list_of_one(server: Running) -> None:
    ids = [40, 41, 42, 43]
    body = {"max_tokens": 6, "ignore_eos": True, "temperature": 0}
    plain = server.post(PLAIN, {**body, "prompt": ids}).json()
    listed = server.post(PLAIN, {**body, "prompt": [ids]}).json()
    assert plain["choices"][0]["token_ids"] == listed["choices"][0]["token_ids"]
    assert plain["usage"]["prompt_tokens"] == 4
    streamed = server.events(PLAIN, {**body, "prompt": ids})
    assert token_ids(streamed) == plain["choices"][0]["token_ids"]
    assert "".join(event["choices"][0]["text"] for event in streamed) == plain["choices"][0]["text"]
    text = server.post(PLAIN, {**body, "prompt": ["Quite unseen words: 123"]}).json()
    assert text["usage"]["prompt_tokens"] > 4


def test_a_prompt_of_one_token_is_served(server: Running) -> None:
    assert server.post(PLAIN, {"prompt": [7], "max_tokens": 2}).json()["usage"]["prompt_tokens"] == 1


def test_completions_without_max_tokens_have_sixteen(server: Running) -> None:
    reply = server.post(PLAIN, {"prompt": [7, 8], "ignore_eos": True}).json()
    assert reply["usage"]["completion_tokens"] == 16


def test_sampling_repeats_with_its_seed_and_differs_from_another(server: Running) -> None:
    def draw(seed: int) -> Any:
        body = ask(tokens=16, seed=seed) | {"temperature": 1.5, "top_p": 0.99, "top_k": 200}
        return server.post(CHAT, body).json()["choices"][0]["token_ids"]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_the_official_client_talks_to_it(server: Running) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as client:
        message = {"role": "user", "content": TEXTS[1]}
        extra = {"ignore_eos": True}
        stream = client.chat.completions.create(
            model="small",
            messages=[message],
            max_completion_tokens=9,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=extra,
        )
        chunks = list(stream)
        assert chunks[-1].usage.completion_tokens == 9
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 8 + ["length"]
        text = "".join(chunk.choices[0].delta.content for chunk in chunks[:-1])
        whole = client.chat.completions.create(
            model="small", messages=[message], max_tokens=9, temperature=0, extra_body=extra
        )
        assert whole.choices[0].message.content == text
        plain = client.completions.create(model="small", prompt=TEXTS[1], max_tokens=5, extra_body=extra)
        assert plain.usage.completion_tokens == 5
        assert [each.id for each in client.models.list()] == ["small"]
        with pytest.raises(openai.NotFoundError, match="serves 'small'"):
            client.chat.completions.create(model="large", messages=[message])


def test_a_client_that_goes_away_frees_its_row(server: Running) -> None:
    server.settle("hf:requests_running", 0)
    gone = server.metric('hf:requests_total{outcome="cancelled"}')
    with server.client.stream("POST", CHAT, json=ask(tokens=400, stream=True)) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        server.settle("hf:requests_running", 1)
    server.settle('hf:requests_total{outcome="cancelled"}', gone + 1)
    server.settle("hf:requests_running", 0)


def test_a_full_queue_answers_503_and_says_how_to_widen_it(server: Running) -> None:
    with ThreadPoolExecutor(ROWS + 12) as pool:
        replies = list(pool.map(lambda _: server.post(CHAT, ask(tokens=300)), range(ROWS + 12)))
    refused = [reply for reply in replies if reply.status_code != 200]
    assert 1 <= len(refused) <= 8  # 8 may wait; those that have a row by then leave room for others
    assert all(reply.status_code == 503 for reply in refused)
    assert "--max-waiting" in refused[0].json()["error"]["message"]


def test_what_runs_stands_in_version_metrics_and_log(server: Running) -> None:
    about = server.client.get("/version").json()
    assert about["batching"] == "continuous"
    assert (about["dtype"], about["device"], about["weights"]) == ("float32", "cpu", "random")
    assert "transformers" in about["version"]
    assert about["step_delay_ms"] == 3
    assert server.metric("hf:kv_capacity_tokens") == ROWS * 512
    assert server.metric("process_resident_memory_bytes") > 1e8
    page = server.client.get("/metrics").text
    assert "loadgen_hf_info{" in page
    assert 'batching="continuous"' in page
    assert "memory_allocated" not in page  # there is no CUDA here, and what is not known is absent
    log = server.log.read_text()
    assert log.index("loaded in") < log.index("warmed up in") < log.index("ready on")
    card = server.client.get("/v1/models").json()["data"][0]
    assert (card["id"], card["max_model_len"]) == ("small", 512)


def test_unknown_paths_and_methods_are_error_objects(server: Running) -> None:
    for reply, status in ((server.client.get("/v2/models"), 404), (server.client.get(CHAT), 405)):
        assert reply.status_code == status
        assert reply.json()["error"]["type"] == "invalid_request_error"


def test_refused_requests_are_counted_as_such(server: Running) -> None:
    before = server.metric('hf:requests_total{outcome="refused"}')
    reply = server.client.post(CHAT, content=b"{'messages'")
    assert reply.status_code == 400
    assert "not JSON" in reply.json()["error"]["message"]
    assert server.metric('hf:requests_total{outcome="refused"}') == before + 1


def test_transformers_own_batching_gives_the_same_tokens(server: Running, model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "paged.log", "--batching", "paged", "--max-batch-size", str(ROWS)) as paged:
        mine = [server.post(CHAT, ask(text, tokens=12)).json()["choices"][0]["token_ids"] for text in TEXTS]
        replies = at_once(paged, [ask(text, tokens=12) for text in TEXTS])
        assert [reply["choices"][0]["token_ids"] for reply in replies] == mine
        assert paged.metric("hf:generation_tokens_total") == 12 * len(TEXTS)
        assert paged.metric("hf:batch_size_sum") == 11 * len(TEXTS)
        assert token_ids(paged.events(CHAT, ask(tokens=5))) == mine[0][:5]
        refused = paged.post(CHAT, ask() | {"temperature": 0.7})
        assert refused.status_code == 400
        assert "--batching continuous" in refused.json()["error"]["message"]
        with paged.client.stream("POST", CHAT, json=ask(tokens=400, stream=True)) as reply:
            next(reply.iter_lines())
        paged.settle('hf:requests_total{outcome="cancelled"}', 1)
        assert paged.client.get("/version").json()["batching"] == "paged"
        paged.process.terminate()
        assert paged.process.wait(60) == 0


def test_a_reset_of_the_peak_memory_is_taken_in_the_middle_of_a_reply(server: Running) -> None:
    with server.client.stream("POST", CHAT, json=ask(tokens=40, stream=True)) as reply:
        lines = (line for line in reply.iter_lines() if line)
        next(lines)
        assert server.post("/reset_peak_memory", {}).status_code == 200
        assert list(lines)[-1] == "data: [DONE]"


def test_memory_is_absent_where_there_is_no_gpu_and_never_0(server: Running) -> None:
    if server.client.get("/version").json()["device"] == "cpu":
        assert "hf:memory_" not in server.client.get("/metrics").text


def test_what_was_warmed_is_said(server: Running) -> None:
    about = server.client.get("/version").json()
    assert about["warmed_up"] == "prompts of 1, 16, 64, 256 tokens, decode steps of 1, 2, 4 rows"
    assert about["warmed_up_s"] > 0
    assert about["weights_bytes"] > 0
