"""Every option of every shipped recipe, in every way in which the engine can be started: all of them render."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadgen import backends
from loadgen.errors import UsageError
from loadgen.launch import Command, LaunchSpec, load_recipe, recipes, render
from loadgen.launch.ready import names_in
from loadgen.launch.recipe import Option, Recipe
from loadgen.record import Message, Prompt
from loadgen.scenario import Target
from loadgen.targets import check_target

BESIDE = ("served_name", "tokenizer", "devices", "cpus", "port")
"""Words that stand beside ``options`` in a target, or that are loadgen's own choice."""

COMMON = {
    *("tokenizer", "served_name", "devices", "dtype", "quantization", "memory_fraction", "max_model_len"),
    *("max_batch_size", "max_batched_tokens", "chunked_prefill", "prefix_caching", "eager", "kv_dtype", "attention"),
    *("tensor_parallel", "pipeline_parallel", "data_parallel", "expert_parallel", "load_format", "seed"),
    *("trust_remote_code", "hub", "hub_endpoint", "max_waiting", "max_concurrent", "threads", "kv_tokens"),
}
"""The vocabulary that recipes share. What only one engine has goes by other words."""

ALIASES = {
    *("tp", "tp_size", "num_shard", "gpu_memory_utilization", "context_length", "ctx_size", "max_num_seqs"),
    *("enforce_eager", "model_len", "batch_size", "kv_cache_dtype", "attn", "quantize", "gpu_memory_fraction"),
}


def ways(recipe: Recipe) -> Iterator[dict[str, Any]]:
    if recipe.command:
        yield {}
    if recipe.python_command or any("{python}" in word for word in recipe.command):
        yield {"python": "/env/bin/python"}
    if recipe.docker:
        yield {"image": "some/image:1"}


def values(option: Option) -> list[Any]:
    if option.words:
        return [{"true": True, "false": False}.get(word, word) for word in option.words]
    if option.takes_value:
        return [7, "x", 0.5, [1, 2]]
    return [True, False]


def made(recipe: Recipe, backend: str | None = None, **more: Any) -> Command:
    spec = LaunchSpec(name="t", engine=recipe.name, model="/models/m", backend=backend, **more)
    return render(recipe, spec, port=8123, run_id="r", launchers=Path("/opt/launchers"), folder=Path("/srv/s"))


def everything(command: Command) -> list[str]:
    nested = [command.request, command.exact, [call.body for call in command.preload], command.files]
    return [*command.argv, *command.env.values(), repr(nested), *command.version, command.ready.name]


@pytest.mark.parametrize("engine", recipes())
def test_every_option_renders_with_every_value_and_no_placeholder_is_left(engine: str) -> None:
    recipe = load_recipe(engine, Path())
    for way in ways(recipe):
        options = {**recipe.options, **(recipe.docker.options if recipe.docker and "image" in way else {})}
        bare = made(recipe, **way)
        for name, option in options.items():
            if name in BESIDE:
                continue
            came = [made(recipe, options={name: value}, **way) for value in values(option)]
            assert any(repr(command) != repr(bare) for command in came), f"{name} does nothing at all"
            for command in came:
                left = [text for text in everything(command) if re.search(r"\{(?!n\})[a-z_]+\}", text)]
                assert left == [], name


@pytest.mark.parametrize("engine", recipes())
def test_words_that_stand_beside_options_render_too(engine: str) -> None:
    recipe = load_recipe(engine, Path())
    for way in ways(recipe):
        if "devices" in recipe.options or "image" in way:
            command = made(recipe, devices=(0, 2), **way)
            assert any("0,2" in text for text in [*command.argv, *command.env.values()])
        if not recipe.served_name:
            assert made(recipe, served_name="some-name", **way).served_name == "some-name"


@pytest.mark.parametrize("engine", recipes())
def test_every_protocol_of_a_recipe_makes_a_request_of_exactly_n_tokens(engine: str) -> None:
    recipe = load_recipe(engine, Path())
    way = next(ways(recipe))
    for name in recipe.wires:
        backend = backends.load(name)
        command = made(recipe, name, **way)
        options = backends.RequestOptions(
            model=command.served_name, fields=dict(command.request), exact_fields=dict(command.exact)
        )
        body = backend.body(prompt(backend), options)
        assert "{n}" not in repr(body)
        assert "17" in repr(body)


def prompt(backend: backends.Backend) -> Prompt:
    given: dict[str, Any] = {"source": "test", "ask_tok": 17, "exact": True}
    if "messages" in backend.ACCEPTS:
        return Prompt(**given, messages=(Message("user", "Hi"),))
    return Prompt(**given, text="Hi")


@pytest.mark.parametrize("engine", recipes())
def test_a_plan_checks_a_target_of_every_engine_without_starting_anything(engine: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    target: dict[str, Any] = {"engine": engine, "model": "./m"}
    check_target(tmp_path, "t", Target.model_validate(target))
    with pytest.raises(UsageError, match=rf"targets\.t\.options\.nonsense: {engine} has no 'nonsense'.*knows "):
        check_target(tmp_path, "t", Target.model_validate(target | {"options": {"nonsense": 1}}))
    with pytest.raises(UsageError, match=rf"targets\.t\.backend: {engine} has no 'nonsense'.*knows "):
        check_target(tmp_path, "t", Target.model_validate(target | {"backend": "nonsense"}))
    endpoint = {"endpoint": "http://127.0.0.1:9", "backend": "nonsense"}
    with pytest.raises(UsageError, match=r"targets\.t\.backend"):
        check_target(tmp_path, "t", Target.model_validate(target | endpoint))


def test_a_model_is_looked_for_where_the_engine_will(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for engine, model in [("vllm", "no/where"), ("vllm", "/no/where"), ("tgi", "/no/where"), ("ollama", "./where")]:
        with pytest.raises(UsageError, match=r"targets\.t\.model"):
            check_target(tmp_path, "t", Target.model_validate({"engine": engine, "model": model}))
    for engine, model in [("ollama", "qwen2:0.5b"), ("tgi", "no/where")]:  # its own store; the container's cache
        check_target(tmp_path, "t", Target.model_validate({"engine": engine, "model": model}))
    inside = {"engine": "tgi", "model": "/data/m", "options": {"volumes": ["/srv:/data"]}}
    check_target(tmp_path, "t", Target.model_validate(inside))


def test_recipes_use_our_words_and_not_their_engines() -> None:
    for engine in recipes():
        assert not set(load_recipe(engine, Path()).options) & ALIASES, engine
    used = {word for engine in recipes() for word in load_recipe(engine, Path()).options}
    assert used >= COMMON


def test_the_page_on_engines_has_a_row_for_every_recipe_in_both_tables() -> None:
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
    missing = [engine for engine in recipes() if len(re.findall(rf"^\| `{engine}`", page, re.MULTILINE)) < 2]
    assert missing == []


@pytest.mark.parametrize(
    ("engine", "path", "answer"),
    [
        ("tgi", "/info", {"model_id": "/models/m", "version": "3.3.7"}),
        ("tabbyapi", "/v1/model", {"id": "m", "object": "model"}),
        ("vllm", "/v1/models", {"object": "list", "data": [{"id": "m"}, {"id": "another"}]}),
    ],
)
def test_the_model_is_asked_for_by_the_name_that_the_engine_gives_it(engine: str, path: str, answer: Any) -> None:
    ready = made(load_recipe(engine, Path())).ready
    assert ready.models == path
    assert ready.name in names_in(answer)
    assert names_in({"data": [{"id": "other"}]}) == ["other"]
    assert names_in([]) == []
