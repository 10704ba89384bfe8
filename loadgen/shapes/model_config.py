"""Reads a config.json into a `ModelShape`. In: a path, a folder, or the fields. Out: the shape, or a UsageError.

Families differ in few ways (`_Family`), and name the same thing differently: the keys are looked for under all their
names. Class defaults of transformers are not trusted, for many are those of no released model: what a count needs must
be in the file. Formulas: attention h·nh·d + 2·h·nkv·d + nh·d·h; MLP with a gate 3·h·width; MLA (DeepSeek-V2, section
2.1) h·qr + qr·nh·(nope + rope) + h·(kvr + rope) + kvr·nh·(nope + v) + nh·v·h.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from loadgen.errors import UsageError
from loadgen.shapes.model_shape import Attention, Experts, Mlp, ModelShape
from loadgen.shapes.precision import Precision, stored_precision


class _Family(msgspec.Struct, frozen=True, kw_only=True):
    """How an architecture departs from Llama's.

    ``bias``: attention has biases on q, k and v, or on all four where ``attention_bias`` says so. ``own_head_dim``:
    head_dim is not hidden_size / heads and must be stated. ``windows``: which layers slide where no list says it.
    """

    bias: Literal["qkv", "stated", "all"] = "stated"
    qk_norm: bool = False
    own_head_dim: bool = False
    sinks: bool = False
    mla: bool = False
    expert_width: str = "moe_intermediate_size"
    expert_bias: bool = False
    windows: Literal["none", "late", "all", "alternate"] = "none"


_QWEN2 = _Family(bias="qkv", windows="late")
_QWEN3 = _Family(qk_norm=True, own_head_dim=True, windows="late")
_MLA = _Family(mla=True)

MOST_LAYERS = 10_000
"""A config with more is damaged."""

FAMILIES: Mapping[str, _Family] = MappingProxyType(
    {
        "llama": _Family(),
        "qwen2": _QWEN2,
        "qwen2_moe": _QWEN2,
        "qwen3": _QWEN3,
        "qwen3_moe": _QWEN3,
        "mixtral": _Family(expert_width="intermediate_size", windows="all"),
        "deepseek_v2": _MLA,
        "deepseek_v3": _MLA,
        "gpt_oss": _Family(
            bias="all",
            own_head_dim=True,
            sinks=True,
            expert_width="intermediate_size",
            expert_bias=True,
            windows="alternate",
        ),
    }
)
"""By ``model_type``."""

SAME_AS: Mapping[str, str] = MappingProxyType(
    {
        "qwen2_vl_text": "qwen2",
        "qwen2_5_vl_text": "qwen2",
        "qwen3_vl_text": "qwen3",
        "qwen3_vl_moe_text": "qwen3_moe",
    }
)
"""The language models inside vision models, under the names of their nested configs."""


def read_shape(path: Path, precision: Precision | None = None) -> ModelShape:
    """The shape of a model's folder or config.json. ``precision`` stands for the one that the config states.

    Raises UsageError where there is no such file, where it is no JSON object, and as `shape_of` does.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file}: there is no such file; name a model's folder or its config.json.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{file}: cannot be read as JSON ({error}).") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{file}: holds no JSON object; name a model's config.json.")
    name = file.absolute().parent.name if file.name == "config.json" else file.stem
    return shape_of(fields, name, place=str(file), precision=precision)


def shape_of(
    fields: Mapping[str, Any], name: str, *, place: str = "config.json", precision: Precision | None = None
) -> ModelShape:
    """The shape that the fields of a config.json describe.

    Raises UsageError for an architecture that is not known, and for a field that is missing or is no number.
    """
    nested = fields.get("text_config")
    inner: Mapping[str, Any] = nested if isinstance(nested, dict) else fields
    architecture = _architecture(inner, fields, place)
    config, family = _Config(inner, place, architecture), FAMILIES[architecture]
    hidden, layers = config.count("hidden_size"), config.count("num_hidden_layers")
    if layers > MOST_LAYERS:  # they are gone through one by one
        raise UsageError(f"{place}: num_hidden_layers: {layers}: {MOST_LAYERS} at most; no model has as many.")
    experts = _experts(config, family, hidden, layers)
    return ModelShape(
        name=name,
        architecture=architecture,
        hidden=hidden,
        layers=layers,
        vocabulary=config.count("vocab_size"),
        # The output matrix belongs to the outer model, and so does the word on whether it is tied.
        tied=bool(fields.get("tie_word_embeddings", inner.get("tie_word_embeddings", False))),
        attention=_mla(config, hidden) if family.mla else _attention(config, family, hidden),
        mlp=_mlp(config, hidden, layers - (experts.layers if experts else 0)),
        experts=experts,
        window=config.count("sliding_window", default=0),
        windowed_layers=_windowed_layers(config, family, layers),
        stored=precision or stored_precision(_quantization(inner, fields), place),
    )


class _Config:
    """The fields of one config and where they stand; what is wrong with one is a sentence."""

    def __init__(self, fields: Mapping[str, Any], place: str, architecture: str) -> None:
        self.fields = fields
        self.place = place
        self._architecture = architecture

    def count(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """The number under the first of these names that is there and not null, else the default.

        Raises UsageError for what is less than ``least``, or than a default of 0.
        """
        for name in names:
            value = self.fields.get(name)
            if value is None:
                continue
            least = 0 if default == 0 else least
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{self.place}: {name}: {value!r}: a whole number of {least} or more belongs here.")
            return value
        if default is None:
            raise UsageError(
                f"{self.place}: {' or '.join(names)}: missing, and the size of a {self._architecture} model cannot be "
                "told without it; take the config.json of the released model."
            )
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        """A field that is true or false."""
        return bool(self.fields.get(name, default))

    def several(self, name: str) -> list[Any]:
        """A field that is a list; empty where there is none."""
        value = self.fields.get(name)
        return value if isinstance(value, list) else []


def _architecture(inner: Mapping[str, Any], outer: Mapping[str, Any], place: str) -> str:
    """The known family: by ``model_type``, else by the class (a model may bring a name of its own for a known one)."""
    stated = inner.get("model_type")
    known = SAME_AS.get(str(stated), str(stated))
    if known in FAMILIES:
        return known
    classes = [*(inner.get("architectures") or []), *(outer.get("architectures") or [])]
    by_class = {name.replace("_", "") + "forcausallm": name for name in FAMILIES}
    for one in classes:
        if (found := by_class.get(str(one).lower())) is not None:
            return found
    raise UsageError(
        f"{place}: model_type: {stated!r} is no architecture whose size is known here; known are {', '.join(FAMILIES)}."
    )


def _quantization(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = outer.get("quantization_config") or inner.get("quantization_config")
    return found if isinstance(found, dict) else None


def _attention(config: _Config, family: _Family, hidden: int) -> Attention:
    heads = config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads", default=heads)
    size = config.count("head_dim") if family.own_head_dim else config.count("head_dim", default=hidden // heads)
    queries, keys = heads * size, kv_heads * size
    other = 2 * size if family.qk_norm else 0
    other += heads if family.sinks else 0
    if family.bias == "all" or (family.bias == "stated" and config.flag("attention_bias")):
        other += queries + 2 * keys + hidden
    elif family.bias == "qkv" and config.flag("qkv_bias", default=True):
        other += queries + 2 * keys
    flops = 4 * queries  # scores and weighted values: a multiplication and an addition each
    return Attention(
        linear=2 * hidden * queries + 2 * hidden * keys,
        other=other,
        kv_values=2 * keys,
        prefill_flops=flops,
        decode_flops=flops,
        heads=heads,
        kv_heads=kv_heads,
    )


def _mla(config: _Config, hidden: int) -> Attention:
    """Multi-head latent attention: the cache holds one latent vector and one rotary key a token, for all heads."""
    heads = config.count("num_attention_heads")
    latent, rotary = config.count("kv_lora_rank"), config.count("qk_rope_head_dim")
    plain, value = config.count("qk_nope_head_dim"), config.count("v_head_dim")
    rank, query = config.count("q_lora_rank", default=0), heads * (plain + rotary)
    queries = rank * (hidden + query) if rank else hidden * query
    keys = hidden * (latent + rotary) + latent * heads * (plain + value)
    return Attention(
        linear=queries + keys + heads * value * hidden,
        other=rank + latent,
        kv_values=latent + rotary,
        prefill_flops=2 * heads * (plain + rotary + value),
        decode_flops=2 * heads * (2 * latent + rotary),
        heads=heads,
        kv_heads=1,
    )


def _mlp(config: _Config, hidden: int, layers: int) -> Mlp:
    if not layers:
        return Mlp(layers=0, linear=0, other=0)
    width = config.count("intermediate_size")
    bias = 2 * width + hidden if config.flag("mlp_bias") else 0
    return Mlp(layers=layers, linear=3 * hidden * width, other=bias)


def _experts(config: _Config, family: _Family, hidden: int, layers: int) -> Experts | None:
    number = config.count("n_routed_experts", "num_local_experts", "num_experts", default=0)
    sparse = _sparse_layers(config, layers) if number else 0
    if not sparse:
        return None
    per_token, width = config.count("num_experts_per_tok"), config.count(family.expert_width)
    if per_token > number:
        raise UsageError(f"{config.place}: num_experts_per_tok: {per_token} of {number} experts cannot be chosen.")
    gated = config.count("shared_expert_intermediate_size", default=0)  # Qwen2-MoE: one, behind a gate
    plain = config.count("n_shared_experts", default=0)  # DeepSeek: some of the routed ones' width
    return Experts(
        layers=sparse,
        number=number,
        per_token=per_token,
        linear=3 * hidden * width,
        other=2 * width + hidden if family.expert_bias else 0,
        shared=3 * hidden * (gated + plain * width),
        router=hidden * number + (hidden if gated else 0) + (number if family.expert_bias else 0),
    )


def _sparse_layers(config: _Config, layers: int) -> int:
    """Layers with routed experts: Qwen's step and list of exceptions, DeepSeek's first dense ones and frequency."""
    first, dense = config.count("first_k_dense_replace", default=0), config.several("mlp_only_layers")
    step = config.count("decoder_sparse_step", default=1)
    frequency = config.count("moe_layer_freq", default=1)
    return sum(i >= first and i not in dense and (i + 1) % step == 0 and i % frequency == 0 for i in range(layers))


def _windowed_layers(config: _Config, family: _Family, layers: int) -> int:
    """Layers that attend to a window; Qwen's configs state a window that they do not use."""
    used = config.flag("use_sliding_window", default=family.windows != "late")
    if family.windows == "none" or not used or not config.count("sliding_window", default=0):
        return 0
    if listed := config.several("layer_types"):
        return sum(kind == "sliding_attention" for kind in listed)
    if family.windows == "alternate":
        return (layers + 1) // 2
    return (
        layers
        if family.windows == "all"
        else max(0, layers - config.count("max_window_layers", default=layers, least=0))
    )
