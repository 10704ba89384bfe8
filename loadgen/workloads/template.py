"""Chat messages in, a prompt in the form that the target takes out: who renders the model's chat template.

``template: server`` leaves the messages as they are. ``template: client`` renders the model's own template here
(``chat_template.jinja``, or the one in ``tokenizer_config.json``), with the names that the field gives to templates:
``messages``, ``add_generation_prompt``, ``tools`` and ``documents`` (none), the special tokens, ``raise_exception``,
``strftime_now``. ``as: ids`` sends the token ids of that text, made with the model's ``tokenizer.json``, instead of the
text. Templates come with models, from strangers; what one may do is in ``sandbox``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from loadgen.errors import UsageError
from loadgen.record import Message, Prompt
from loadgen.workloads import Context, reason_of

Form = Literal["text", "ids"]

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

T = TypeVar("T")


class ChatTemplate:
    """A model's chat template, compiled once. Not for two threads at the same time (it keeps a budget of work)."""

    def __init__(self, source: str, tokens: dict[str, str], where: str) -> None:
        from loadgen.workloads.sandbox import Sandbox

        self._sandbox = Sandbox(source, where)
        self._tokens = tokens
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()

    def render(self, messages: Iterable[Message], add_generation_prompt: bool = True) -> str:
        """The text that the model reads. Raises UsageError for a template that fails or takes too much work."""
        spoken = [{"role": message.role, "content": message.content} for message in messages]
        return self._sandbox.render(
            {
                **self._tokens,
                "messages": spoken,
                "tools": None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            }
        )


class Shaper:
    """Makes the prompts of one source: in the form that the scenario asks for, with its number of output tokens.

    ``templated`` is False where none of the source's prompts are chat messages. Raises UsageError when it is made if
    the model's folder lacks what ``template: client`` needs.
    """

    def __init__(self, source: str, context: Context, form: Form = "text", templated: bool = True) -> None:
        self._source = source
        self._ask_tok = context.ask_tok
        self._exact = context.exact
        self._template: ChatTemplate | None = None
        self._encode: Callable[[str], list[int]] | None = None
        if context.template == "server" or not templated:
            if form == "ids":
                raise UsageError("workload.as: ids needs chat messages and template: client, that is, text made here.")
            return
        self._template = load_template(needed(context.model_path))
        if form == "ids":
            self._encode = encoder(context.model_path)
            if self._encode is None:
                raise UsageError(
                    "workload.as: ids needs the package tokenizers (pip install tokenizers) and a tokenizer.json in "
                    f"{context.model_path}; as: text needs neither."
                )

    def prompt(self, messages: Sequence[Message], ask_tok: int | None = None) -> Prompt:
        """Chat messages as they are, as text or as ids; ``ask_tok`` replaces the scenario's number of output tokens."""
        if self._template is None:
            return self._make(ask_tok, messages=tuple(messages))
        text = self._template.render(messages)
        if self._encode is None:
            return self._make(ask_tok, text=text)
        return self.as_ids(self._encode(text), ask_tok)

    def as_text(self, text: str, ask_tok: int | None = None) -> Prompt:
        """Text outside any template."""
        return self._make(ask_tok, text=text)

    def as_ids(self, ids: Sequence[int], ask_tok: int | None = None) -> Prompt:
        """Token ids as they are."""
        return self._make(ask_tok, token_ids=tuple(ids), in_tok_client=len(ids))

    def _make(self, ask_tok: int | None, **form: Any) -> Prompt:
        return Prompt(source=self._source, ask_tok=ask_tok or self._ask_tok, exact=self._exact, **form)

    def describe(self) -> dict[str, Any]:
        """Who renders the template, which one (its SHA-256; None for the server's), and the form that is sent."""
        if self._template is None:
            return {"template": "server", "template_sha256": None, "form": "messages"}
        form = "text" if self._encode is None else "ids"
        return {"template": "client", "template_sha256": self._template.sha256, "form": form}


def render(messages: Iterable[Message], model_path: str | Path, add_generation_prompt: bool = True) -> str:
    """The messages in the template of the model in this folder. Raises UsageError; see `ChatTemplate`."""
    return load_template(model_path).render(messages, add_generation_prompt)


def load_template(model_path: str | Path) -> ChatTemplate:
    """The chat template of the model in this folder. Raises UsageError where it has none."""
    config = model_file(model_path, "tokenizer_config.json", dict[str, Any]) or {}
    tokens: dict[str, str] = {}
    for name in SPECIAL_TOKENS:
        value = config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            tokens[name] = value
    file = Path(model_path, "chat_template.jinja")
    if file.is_file():
        return ChatTemplate(_read(file).decode(errors="replace"), tokens, str(file))
    for name in ("tokenizer_config.json", "chat_template.json"):
        held = (model_file(model_path, name, dict[str, Any]) or {}).get("chat_template")
        if isinstance(held, list):  # several by name: [{"name": "default", "template": "..."}, ...]
            held = {item.get("name"): item.get("template") for item in held if isinstance(item, dict)}.get("default")
        if isinstance(held, str):
            return ChatTemplate(held, tokens, f"{Path(model_path, name)}: chat_template")
    raise UsageError(
        f"{model_path} has no chat template: neither chat_template.jinja nor one in tokenizer_config.json; it may be a "
        "base model. Use a chat model, or prompts that need no template (synthetic, or jsonl with raw: true)."
    )


def encoder(model_path: str | Path | None) -> Callable[[str], list[int]] | None:
    """Text to token ids, special tokens only where the text spells them; None without ``tokenizers`` or its file."""
    if model_path is None or not Path(model_path, "tokenizer.json").is_file():
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    file = str(Path(model_path, "tokenizer.json"))
    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as error:  # the package raises bare Exception for every kind of bad file
        raise UsageError(f"{file} is not a tokenizer that the package tokenizers can read: {error}.") from error

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return encode


def count_tokens(model_path: str | Path | None) -> Callable[[str], int] | None:
    """A counter of the tokens of a text; None where the package ``tokenizers`` or ``tokenizer.json`` is missing."""
    encode = encoder(model_path)
    if encode is None:
        return None
    return lambda text: len(encode(text))


def model_file(model_path: str | Path | None, name: str, shape: type[T]) -> T | None:
    """A JSON file of the model's folder; None where there is no folder or no such file. Raises UsageError."""
    if model_path is None or not Path(model_path, name).is_file():
        return None
    file = Path(model_path, name)
    try:
        return msgspec.json.decode(_read(file), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{file} cannot be used: {reason_of(error)}; fetch the model's files again.") from None


def needed(model_path: str | None) -> str:
    """The model's folder. Raises UsageError where there is none."""
    if model_path is None:
        raise UsageError(
            "workload.template: client needs the model's tokenizer files in a local folder; name it in the target's "
            "tokenizer, or use template: server."
        )
    if not Path(model_path).is_dir():
        raise UsageError(
            f"workload.template: client: {model_path} is not a folder; name one in the target's tokenizer."
        )
    return model_path


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
