"""The sizes in the config.json of released models, as far as counting needs them."""

from __future__ import annotations

from typing import Any

Fields = dict[str, Any]


def dense(kind: str, vocabulary: int, sizes: tuple[int, int, int, int, int], **more: Any) -> Fields:
    """``sizes``: layers, hidden size, heads, KV heads, width of the MLP."""
    layers, hidden, heads, kv_heads, width = sizes
    return {
        "model_type": kind,
        "vocab_size": vocabulary,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": width,
        **more,
    }


def qwen_moe(kind: str, sizes: tuple[int, int, int, int, int], experts: tuple[int, int, int], **more: Any) -> Fields:
    """``experts``: their number, those chosen, their width."""
    number, chosen, width = experts
    return dense(
        kind,
        151936,
        sizes,
        num_experts=number,
        num_experts_per_tok=chosen,
        moe_intermediate_size=width,
        decoder_sparse_step=1,
        **more,
    )


def deepseek(
    kind: str, vocabulary: int, sizes: tuple[int, int, int, int], experts: tuple[int, ...], rank: Any
) -> Fields:
    """``sizes``: layers, hidden size, heads, width of the dense MLPs; ``experts``: number, chosen, width, shared ones,
    dense layers before them; ``rank`` of the queries or None."""
    layers, hidden, heads, width = sizes
    number, chosen, expert_width, shared, first = experts
    return dense(
        kind,
        vocabulary,
        (layers, hidden, heads, heads, width),
        n_routed_experts=number,
        num_experts_per_tok=chosen,
        moe_intermediate_size=expert_width,
        n_shared_experts=shared,
        first_k_dense_replace=first,
        moe_layer_freq=1,
        q_lora_rank=rank,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
    )


def mixtral(vocabulary: int, sizes: tuple[int, int, int, int, int]) -> Fields:
    return dense("mixtral", vocabulary, sizes, num_local_experts=8, num_experts_per_tok=2, sliding_window=None)


def gpt_oss(layers: int, experts: int) -> Fields:
    return dense(
        "gpt_oss",
        201088,
        (layers, 2880, 64, 8, 2880),
        head_dim=64,
        num_local_experts=experts,
        num_experts_per_tok=4,
        sliding_window=128,
        attention_bias=True,
    )


QWEN15_32B = dense("qwen2", 152064, (64, 5120, 40, 8, 27392))
QWEN2_57B = qwen_moe("qwen2_moe", (28, 3584, 28, 4, 18944), (64, 8, 2560), shared_expert_intermediate_size=20480)

RELEASED: dict[str, Fields] = {
    "Qwen1.5-7B": dense("qwen2", 151936, (32, 4096, 32, 32, 11008)),
    "Qwen1.5-14B": dense("qwen2", 152064, (40, 5120, 40, 40, 13696)),
    "Qwen1.5-32B": QWEN15_32B,
    "Qwen2-7B": dense("qwen2", 152064, (28, 3584, 28, 4, 18944)),
    "Qwen2-72B": dense("qwen2", 152064, (80, 8192, 64, 8, 29568)),
    "Qwen2.5-14B": dense("qwen2", 152064, (48, 5120, 40, 8, 13824)),
    "Qwen2.5-32B": dense("qwen2", 152064, (64, 5120, 40, 8, 27648)),
    "Qwen3-8B": dense("qwen3", 151936, (36, 4096, 32, 8, 12288), head_dim=128),
    "Qwen1.5-MoE-A2.7B": qwen_moe(
        "qwen2_moe", (24, 2048, 16, 16, 5632), (60, 4, 1408), shared_expert_intermediate_size=5632
    ),
    "Qwen2-57B-A14B": QWEN2_57B,
    "Mixtral-8x7B": mixtral(32000, (32, 4096, 32, 8, 14336)),
    "Mixtral-8x22B": mixtral(32768, (56, 6144, 48, 8, 16384)),
    "Qwen3-30B-A3B": qwen_moe("qwen3_moe", (48, 2048, 32, 4, 6144), (128, 8, 768), head_dim=128),
    "Qwen3-235B-A22B": qwen_moe("qwen3_moe", (94, 4096, 64, 4, 12288), (128, 8, 1536), head_dim=128),
    "DeepSeek-V2-Lite": deepseek("deepseek_v2", 102400, (27, 2048, 16, 10944), (64, 6, 1408, 2, 1), None),
    "DeepSeek-V2": deepseek("deepseek_v2", 102400, (60, 5120, 128, 12288), (160, 6, 1536, 2, 1), 1536),
    "DeepSeek-V3": deepseek("deepseek_v3", 129280, (61, 7168, 128, 18432), (256, 8, 2048, 1, 3), 1536),
    "gpt-oss-20b": gpt_oss(24, 32),
    "gpt-oss-120b": gpt_oss(36, 128),
    "Llama-3.1-8B": dense("llama", 128256, (32, 4096, 32, 8, 14336)),
    "Llama-3.2-1B": dense("llama", 128256, (16, 2048, 32, 8, 8192), head_dim=64, tie_word_embeddings=True),
    "Qwen2.5-0.5B": dense("qwen2", 151936, (24, 896, 14, 2, 4864), tie_word_embeddings=True),
}
