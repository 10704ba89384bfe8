"""Makes a small model with random weights from a config.json: nothing is downloaded.

In: a config.json of any architecture that transformers knows (Qwen2 and Qwen2-MoE here), and a file of prompts, one
JSON line each with ``{"messages": [{"role": ..., "content": ...}, ...]}``. Out: a model folder that transformers and
vLLM load: a byte-level BPE tokenizer trained on the prompts, a ChatML template, weights drawn from the seed, and
``loadgen_made.json``, which says that the weights are random and what they were made from. The same inputs give the
same bytes under the same versions of the tools.

A folder that was made from the same inputs is kept as it is, and that is seen before torch is imported. The folder
appears whole or not at all: it is written beside its place and renamed. Nothing of loadgen is imported, so that the
python of any environment runs this file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAKER = 1
"""Raised when the same inputs would give another folder; older folders are then made again."""
RECORD = "loadgen_made.json"
PACKAGES = ("torch", "transformers", "tokenizers")
MIN_HEAD_DIM = 32
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's way of cutting text into words. transformers puts it into every tokenizer of a qwen2 model, whatever its file
says, and leaves that of a qwen2_moe model alone: with any other, the two would count the same prompt differently."""
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Unusable(Exception):
    """An input that cannot be used. The message is a sentence for the user."""


def main() -> int:
    """The program. 0 made or kept, 2 with a sentence on stderr where an input cannot be used."""
    args = arguments()
    try:
        kept = make(args.config, args.prompts, args.out, seed=args.seed, vocab_size=args.vocab_size)
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: {'kept, it was made from the same inputs' if kept else 'made, with random weights'}")
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make a small model with random weights from a config.json.")
    parser.add_argument("--config", type=Path, required=True, help="config.json of an architecture of transformers")
    parser.add_argument(
        "--prompts", type=Path, required=True, help="JSONL with messages; the tokenizer is trained on it"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    parser.add_argument("--vocab-size", type=int, default=4096, help="tokens that the tokenizer is to have at most")
    return parser.parse_args()


def make(config: Path, prompts: Path, out: Path, *, seed: int = 0, vocab_size: int = 4096) -> bool:
    """Makes the folder ``out``; True if it was there already, made from the same inputs.

    Raises Unusable for a config or prompts that cannot be used, and for a folder that something else has filled.
    """
    words = read_config(config)
    inputs = {
        "maker": MAKER,
        "config_sha256": sha256(config),
        "prompts_sha256": sha256(prompts),
        "seed": seed,
        "vocab_size": vocab_size,
    }
    if is_made(out, inputs):
        return True
    if out.exists() and not (out / RECORD).exists() and (not out.is_dir() or any(out.iterdir())):
        raise Unusable(f"{out} exists and was not made by this program; name another folder, or remove it yourself.")
    need(PACKAGES)
    building = out.parent / f".{out.name}.{os.getpid()}.making"
    building.mkdir(parents=True)
    try:
        tokenizer = train(prompts, vocab_size)
        write_tokenizer(tokenizer, building)
        facts = write_model(words, tokenizer, seed, building)
        write_record(building, inputs, facts)
        put_in_place(building, out, inputs)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return False


def read_config(path: Path) -> dict[str, Any]:
    """The config's words, checked as far as they can be without transformers."""
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unusable(f"{path} does not exist; name a config.json, such as one in scenarios/models.") from None
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(words, dict) or not isinstance(words.get("model_type"), str):
        raise Unusable(
            f"{path} has no model_type; a config.json names its architecture, such as 'model_type': 'qwen2'."
        )
    hidden, heads = words.get("hidden_size"), words.get("num_attention_heads")
    if not (isinstance(hidden, int) and isinstance(heads, int) and heads > 0):
        return words
    if "head_dim" not in words and hidden % heads:
        raise Unusable(f"{path}: hidden_size {hidden} does not divide by num_attention_heads {heads}.")
    head_dim = words.get("head_dim") or hidden // heads
    if head_dim < MIN_HEAD_DIM:
        raise Unusable(
            f"{path}: head_dim is {head_dim} (hidden_size {hidden} / num_attention_heads {heads}) and must be "
            f"{MIN_HEAD_DIM} or more: vLLM's CPU backend answers /health with less and dies at the first request. "
            "Take fewer heads."
        )
    return words


def is_made(out: Path, inputs: Mapping[str, Any]) -> bool:
    """True if the folder was made from these inputs and its files have the lengths that they were written with."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        files = record["files"]
        return bool(record["inputs"] == inputs) and all(
            (out / name).stat().st_size == entry["bytes"] for name, entry in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def need(packages: tuple[str, ...]) -> None:
    """Raises Unusable naming the packages that this python cannot import."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Unusable(
            f"{sys.executable} cannot import {', '.join(missing)}; install loadgen's extra hf into that environment, "
            f"or: {sys.executable} -m pip install {' '.join(missing)}"
        )


def texts(prompts: Path) -> Iterator[str]:
    """Every message of the prompts as it stands in a rendered conversation, without the marks of the turns."""
    with prompts.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                for message in json.loads(line)["messages"]:
                    yield message["role"] + "\n"
                    yield message["content"]
            except (ValueError, KeyError, TypeError):
                raise Unusable(
                    f"{prompts}:{number}: no messages; a line is "
                    '{"messages": [{"role": "user", "content": "..."}]}.'
                ) from None


def train(prompts: Path, vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of at most ``vocab_size`` tokens; the marks of the turns come first (0, 1, 2)."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    marks = [END_OF_TEXT, TURN_START, TURN_END]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + len(marks):
        raise Unusable(f"--vocab-size {vocab_size} is too small: the bytes and marks alone are {len(alphabet) + 3}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    text = list(texts(prompts))
    if not text:
        raise Unusable(f"{prompts} holds no prompts, and the tokenizer is trained on them.")
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """The tokenizer in transformers' files, written by hand: their form then does not hang on a version."""
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "additional_special_tokens": [TURN_START],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000,
            "chat_template": CHATML,
        },
    )


def write_model(words: Mapping[str, Any], tokenizer: Tokenizer, seed: int, folder: Path) -> dict[str, Any]:
    """Config, generation config and weights; returns what the record says of them."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch

    hub: Any = importlib.import_module("transformers")  # its types are partial, and change from version to version
    hub.utils.logging.disable_progress_bar()
    ends: dict[str, Any] = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(TURN_END),
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
    }
    size = -(-tokenizer.get_vocab_size() // 64) * 64
    rest = {key: value for key, value in words.items() if key not in ("model_type", "dtype", "torch_dtype")}
    dtype = getattr(torch, str(words.get("dtype") or words.get("torch_dtype") or "float32"))
    try:
        config = hub.AutoConfig.for_model(words["model_type"], **{**rest, "vocab_size": size, **ends})
        torch.manual_seed(seed)
        model = hub.AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(dtype)
    except (ValueError, TypeError, KeyError) as error:
        raise Unusable(f"transformers cannot build this config: {error}") from error
    model.generation_config = hub.GenerationConfig(do_sample=False, **ends)
    model.save_pretrained(folder, max_shard_size="100GB")
    return {
        "architecture": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(dtype).removeprefix("torch."),
        "vocab_size": size,
        "tokenizer_tokens": tokenizer.get_vocab_size(),
    }


def write_record(folder: Path, inputs: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """``loadgen_made.json``: its presence says that the folder is whole."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    record = {"weights": "random", "seed": inputs["seed"], **facts, "inputs": inputs, "versions": versions}
    write_json(folder / RECORD, {**record, "files": files})


def put_in_place(building: Path, out: Path, inputs: Mapping[str, Any]) -> None:
    """Renames the finished folder to its name. One that another process put there meanwhile, from the same inputs,
    stays; one made from other inputs goes."""
    if is_made(out, inputs):
        return
    if out.exists():
        old = out.parent / f".{out.name}.{os.getpid()}.old"
        out.rename(old)
        shutil.rmtree(old)
    try:
        building.rename(out)
    except OSError:
        if not is_made(out, inputs):
            raise


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys, for people and for equal bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, hexadecimal. Raises Unusable for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}.") from None


if __name__ == "__main__":
    sys.exit(main())
