"""The model's own chat template, rendered here: as the field renders it, and only within bounds."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from loadgen.errors import UsageError
from loadgen.record import Message
from loadgen.workloads import Context, jsonl, natural, synthetic
from loadgen.workloads.template import count_tokens, load_template, render

CHATML = (
    "{% for message in messages %}\n"
    "    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' -}}\n"
    "{% endif %}\n"
)
ASKED = (Message(role="system", content="Be brief."), Message(role="user", content="你好 <b>\n"))
CHATML_TEXT = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n你好 <b>\n<|im_end|>\n<|im_start|>assistant\n"


def model(folder: Path, template: object = None, **config: object) -> str:
    """A model's folder; the template as chat_template.jinja if it is not in the config."""
    if template is not None:
        (folder / "chat_template.jinja").write_text(str(template), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


def rendered(folder: Path, template: str, *messages: Message, **config: object) -> str:
    return render(messages or ASKED, model(folder, template, **config))


# What templates need --------------------------------------------------------------------------------------------------


def test_chatml_is_rendered_to_the_letter(tmp_path):
    assert rendered(tmp_path, CHATML) == CHATML_TEXT


def test_the_generation_prompt_can_be_left_out(tmp_path):
    text = render(ASKED, model(tmp_path, CHATML), add_generation_prompt=False)
    assert text == CHATML_TEXT.removesuffix("<|im_start|>assistant\n")


def test_a_template_in_the_config_is_used_as_a_string_and_as_the_default_of_a_list(tmp_path):
    assert render(ASKED, model(tmp_path, chat_template="A{{ messages|length }}")) == "A2"
    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D{{ messages|length }}"}]
    assert render(ASKED, model(tmp_path, chat_template=several)) == "D2"


def test_the_file_of_its_own_comes_before_the_config(tmp_path):
    assert render(ASKED, model(tmp_path, "file", chat_template="config")) == "file"


def test_special_tokens_are_known_to_the_template_whether_text_or_mapping(tmp_path):
    source = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}"
    assert rendered(tmp_path, source, bos_token="<s>", eos_token={"content": "</s>"}, pad_token=None) == "<s>|</s>|"


def test_blocks_take_no_space_of_their_own(tmp_path):
    assert rendered(tmp_path, "  {% if true %}\nx\n  {% endif %}\ny") == "x\ny"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ {'b': '<é中>', 'a': 1}|tojson }}", '{"b": "<é中>", "a": 1}'),
        ("{{ [1, {'a': 2}]|tojson(indent=2) }}", '[\n  1,\n  {\n    "a": 2\n  }\n]'),
        ("{{ strftime_now('%d %b %Y') }}", "01 Jan 2025"),
        ("{{ tools is none }} {{ documents is none }} {{ nothing is defined }}", "True True False"),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}", "user"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "Be brief."),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        (
            "{% macro show(m) %}[{{ m.role ~ ':' ~ m.content|trim }}]{% endmacro %}{{ show(messages[1]) }}",
            "[user:你好 <b>]",
        ),
        ("{{ messages[1:]|map(attribute='role')|list|join(',') }}", "user"),
        ("{{ messages|selectattr('role', 'equalto', 'user')|list|length }}", "1"),
        ("{{ 'a</think>b'.split('</think>')[-1].strip('\\n') }}", "b"),
        ("{{ '%s-%02d' % ('a', 3) }} {{ '{}={:.1f}'.format('x', 2.0) }}", "a-03 x=2.0"),
        ("{{ ('ab' * 3)|replace('a', 'c')|upper }}", "CBCBCB"),
        ("{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "x1"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ loop.last }}{% endfor %}", "1True"),
        ("{{ 'role' in messages[0] and 'x' not in 'abc' }}", "True"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x }}{% filter upper %}b{% endfilter %}", "a1B"),
        ("{{ messages[5] is defined }}{{ nothing }}", "False"),
        ("{{ 'a\nb'|indent(2) }}", "a\n  b"),
    ],
)
def test_what_published_templates_use_is_there(tmp_path, source, text):
    assert rendered(tmp_path, source) == text


def test_a_long_conversation_stays_within_the_bounds(tmp_path):
    spoken = [Message(role=("user", "assistant")[i % 2], content="word " * 400) for i in range(401)]
    assert len(rendered(tmp_path, CHATML, *spoken)) > 800_000


def test_one_template_renders_many_times(tmp_path):
    template = load_template(model(tmp_path, CHATML))
    assert [template.render(ASKED) for _ in range(50)] == [CHATML_TEXT] * 50


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{{ raise_exception('Roles must alternate') }}", r"cannot be rendered: it says 'Roles must alternate'\."),
        ("{% for %}", r"cannot be compiled: Expected"),
        ("{{ 1|nothing }}", r"cannot be compiled: No filter named 'nothing'\."),
        ("{{ nothing.more }}", r"cannot be rendered: 'nothing' is undefined\."),
        ("{{ 'a' + 1 }}", r"fails: TypeError: can only concatenate str"),
        ("{{ 1 / 0 }}", r"fails: ZeroDivisionError: division by zero\."),
    ],
)
def test_a_template_that_fails_says_why(tmp_path, source, sentence):
    with pytest.raises(UsageError, match=sentence):
        rendered(tmp_path, source)


# The model's folder ---------------------------------------------------------------------------------------------------


def test_a_model_without_a_template_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"has no chat template: neither chat_template\.jinja nor"):
        render(ASKED, model(tmp_path))


def test_a_broken_tokenizer_config_is_a_sentence(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(UsageError, match=r"tokenizer_config\.json cannot be used: the JSON ends too early; fetch the"):
        render(ASKED, str(tmp_path))


@pytest.mark.parametrize("path", [None, "nowhere"])
def test_rendering_at_the_client_needs_a_folder(path):
    with pytest.raises(UsageError, match=r"workload\.template: client"):
        natural.open({}, Context(seed=1, ask_tok=16, template="client", model_path=path))


# Prompts --------------------------------------------------------------------------------------------------------------


def client(model_path: str, **changes: object) -> Context:
    return Context(**{"seed": 1, "ask_tok": 16, "template": "client", "model_path": model_path, **changes})


def test_with_template_client_a_prompt_is_the_rendered_text(tmp_path):
    folder = model(tmp_path, CHATML)
    source = natural.open({}, client(folder))
    asked = natural.open({}, Context(seed=1, ask_tok=16)).session(3)[0].messages
    (prompt,) = source.session(3)
    assert prompt.text == render(asked, folder)
    assert prompt.messages is None
    told = source.describe()
    assert (told["template"], told["form"]) == ("client", "text")
    assert told["template_sha256"] == load_template(folder).sha256


def test_a_users_prompt_is_rendered_too_but_raw_ones_need_no_template(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    folder = model(tmp_path, CHATML)
    (prompt,) = jsonl.open({"path": "p.jsonl"}, client(folder, folder=str(tmp_path))).session(0)
    assert prompt.text == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    raw = jsonl.open({"path": "p.jsonl", "raw": True}, client("none", folder=str(tmp_path)))
    assert raw.session(0)[0].text == "a"
    assert synthetic.open({"kind": "words", "words": 2, "raw": True}, client("none")).session(0)[0].text


def test_a_template_that_refuses_a_shipped_prompt_says_so_when_it_is_opened_and_names_the_way_out(tmp_path):
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}ok"
    folder = model(tmp_path, refuses)
    with pytest.raises(UsageError, match=r"System role not supported.* prompt \S+\. Set workload\.system: false"):
        natural.open({}, client(folder))
    source = natural.open({"system": False}, client(folder))
    assert {source.session(i)[0].text for i in range(source.size)} == {"ok"}


def test_a_template_that_refuses_a_users_line_names_the_line(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    folder = model(tmp_path, "{% if messages[0].content == 'b' %}{{ raise_exception('no b') }}{% endif %}ok")
    source = jsonl.open({"path": "p.jsonl", "order": "file"}, client(folder, folder=str(tmp_path)))
    assert source.session(0)[0].text == "ok"
    with pytest.raises(UsageError, match=r"p\.jsonl:2: .*it says 'no b'\."):
        source.session(1)


class Letters:
    """A tokenizer whose tokens are letters; it stands for the package where that is not installed."""

    @classmethod
    def from_file(cls, path: str) -> Letters:
        if "broken" in Path(path).read_text():
            raise Exception("no model in it")
        return cls()

    def encode(self, text: str, add_special_tokens: bool = True) -> types.SimpleNamespace:
        return types.SimpleNamespace(ids=([1] if add_special_tokens else []) + [ord(letter) for letter in text])


def test_as_ids_sends_the_ids_of_the_rendered_text_without_added_special_tokens(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", types.SimpleNamespace(Tokenizer=Letters))
    folder = model(tmp_path, CHATML)
    (tmp_path / "tokenizer.json").write_text("{}")
    (prompt,) = natural.open({"as": "ids"}, client(folder)).session(3)
    (text,) = natural.open({}, client(folder)).session(3)
    assert prompt.token_ids == tuple(map(ord, text.text))
    assert prompt.in_tok_client == len(text.text)
    count = count_tokens(folder)
    assert count is not None
    assert count("abc") == 3


def test_without_the_package_there_is_no_counter_and_as_ids_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    folder = model(tmp_path, CHATML)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert count_tokens(folder) is None
    with pytest.raises(UsageError, match=r"workload\.as: ids needs the package tokenizers .* as: text needs neither"):
        natural.open({"as": "ids"}, client(folder))


def test_without_a_tokenizer_file_there_is_no_counter(tmp_path):
    assert count_tokens(tmp_path) is None
    assert count_tokens(None) is None


def test_a_tokenizer_file_that_cannot_be_read_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", types.SimpleNamespace(Tokenizer=Letters))
    (tmp_path / "tokenizer.json").write_text("broken")
    with pytest.raises(UsageError, match=r"tokenizer\.json is not a tokenizer .*: no model in it\."):
        count_tokens(tmp_path)


def test_the_real_package_counts_the_same(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    count = count_tokens(tmp_path)
    assert count is not None
    assert count("a b c") == 3
