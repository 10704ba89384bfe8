"""A Qwen2 or Qwen2-MoE model in transformers' format -> a GGUF file, with the `gguf` package alone.

Matrices are stored as f16, q8_0 or q4_0 (one type for all, without llama.cpp's exceptions for single layers), vectors
and the router as float32. Names and metadata are those that llama.cpp reads for these architectures.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ARCHITECTURES = {"qwen2": "qwen2", "qwen2_moe": "qwen2moe"}
EXPERT = ".mlp.experts."
STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Unusable(Exception):
    """An input that cannot be used. The message is a sentence for the user."""


def convert(model: Path, out: Path, kind: str) -> None:
    """Writes the file. Raises Unusable for an architecture that this does not know."""
    gguf: Any = importlib.import_module("gguf")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    name = ARCHITECTURES.get(config.get("model_type"))
    if name is None:
        raise Unusable(
            f"{model} is a {config.get('model_type')}, and this converter knows {', '.join(ARCHITECTURES)}; "
            "take llama.cpp's convert_hf_to_gguf.py for it."
        )
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    writer = gguf.GGUFWriter(str(out), name)
    writer.add_name(model.name)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_shape(writer, config)
    add_vocabulary(gguf, writer, model, config)
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for tensor, values in merged(tensors(model)):
        stem, _, suffix = tensor.rpartition(".")
        place = names.get_name(stem)
        if place is None:
            raise Unusable(f"{model}: llama.cpp has no place for the tensor {tensor} in a {name}.")
        plain = values.ndim == 1 or stem.endswith((".mlp.gate", "shared_expert_gate")) or values.shape[-1] % 32
        type_ = gguf.GGMLQuantizationType.F32 if plain else wanted
        if stem.endswith("shared_expert_gate"):
            values = values.reshape(-1)
        data = gguf.quants.quantize(np.ascontiguousarray(values, dtype=np.float32), type_)
        writer.add_tensor(f"{place}.{suffix}", data, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_shape(writer: Any, config: Mapping[str, Any]) -> None:
    """The numbers of the architecture."""
    rope = config.get("rope_parameters") or {}
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if "num_experts" in config:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])


def add_vocabulary(gguf: Any, writer: Any, model: Path, config: Mapping[str, Any]) -> None:
    """The byte-level BPE of tokenizer.json, with its merges, marks and chat template."""
    own = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    words = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    if own["model"].get("type") != "BPE":
        raise Unusable(f"{model}: its tokenizer is {own['model'].get('type')}, and this converter knows BPE.")
    ids = {**own["model"]["vocab"], **{token["content"]: token["id"] for token in own["added_tokens"]}}
    marks = {token["id"] for token in own["added_tokens"] if token["special"]}
    by_id = {number: text for text, number in ids.items()}
    size = config["vocab_size"]  # the matrix may have more rows than the tokenizer has tokens
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(size)]
    kinds = [
        gguf.TokenType.CONTROL
        if number in marks
        else gguf.TokenType.NORMAL
        if number in by_id
        else gguf.TokenType.UNUSED
        for number in range(size)
    ]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in own["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    if (end := ids.get(str(words.get("eos_token")))) is not None:
        writer.add_eos_token_id(end)
    if (pad := ids.get(str(words.get("pad_token")))) is not None:
        writer.add_pad_token_id(pad)
    writer.add_add_bos_token(False)
    template = model / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.exists() else words.get("chat_template")
    if isinstance(text, str):
        writer.add_chat_template(text)


def tensors(model: Path) -> Iterator[tuple[str, Array]]:
    """Every tensor of the checkpoint, in float32. The files are read here, since numpy has no bfloat16: eight bytes
    with the length of a JSON header, the header, then the numbers. Raises Unusable for a checkpoint without any."""
    paths = sorted(model.glob("*.safetensors"))
    if not paths:
        raise Unusable(f"{model} has no safetensors; save it with transformers' save_pretrained first.")
    for path in paths:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        start = 8 + int(content[:8].view("<u8")[0])
        for name, entry in json.loads(bytes(content[8:start])).items():
            if name == "__metadata__":
                continue
            if (stored := STORED.get(entry["dtype"])) is None:
                raise Unusable(f"{path}: {name} is stored as {entry['dtype']}; give a model that is not quantized yet.")
            begin, end = (start + offset for offset in entry["data_offsets"])
            numbers = np.frombuffer(content[begin:end].tobytes(), dtype=stored)
            if stored == "<u2":  # bfloat16 is the upper half of a float32
                numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
            yield name, numbers.astype(np.float32).reshape(entry["shape"])


def merged(plain: Iterator[tuple[str, Array]]) -> Iterator[tuple[str, Array]]:
    """The same, with the matrices of a layer's experts as one of three dimensions."""
    experts: dict[str, dict[int, Array]] = {}
    for name, values in plain:
        if EXPERT not in name:
            yield name, values
            continue
        layer, _, rest = name.partition(EXPERT)
        number, _, part = rest.partition(".")
        experts.setdefault(f"{layer}{EXPERT}{part}", {})[int(number)] = values
    for name, parts in experts.items():
        yield name, np.stack([parts[number] for number in sorted(parts)])
