"""Public models by name, for what can be planned without their files. Numbers of their config.json."""

from __future__ import annotations

from pathlib import Path

from rlstack.errors import ConfigError
from rlstack.policy.architecture import Architecture


def _llama(num_layers: int, hidden_size: int, num_heads: int, ffn_size: int) -> Architecture:
    """Llama 3.1: https://huggingface.co/meta-llama."""
    return Architecture(
        family="LlamaForCausalLM",
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=8,
        head_dim=128,
        ffn_size=ffn_size,
        vocab_size=128256,
        context_length=131072,
        norm_eps=1e-5,
        rope_type="llama3",
        rope_theta=500000.0,
        tied=False,
        qkv_bias=False,
        qk_norm=False,
    )


def _qwen(
    family: str,
    *,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    num_kv_heads: int,
    ffn_size: int,
    vocab_size: int,
    context_length: int,
    tied: bool = False,
) -> Architecture:
    """Qwen 2.5 and 3: https://huggingface.co/Qwen."""
    return Architecture(
        family=family,
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=128,
        ffn_size=ffn_size,
        vocab_size=vocab_size,
        context_length=context_length,
        norm_eps=1e-6,
        rope_type="default",
        rope_theta=1e6,
        tied=tied,
        qkv_bias=family == "Qwen2ForCausalLM",
        qk_norm=family == "Qwen3ForCausalLM",
    )


KNOWN_MODELS = {
    "Llama-3.1-8B": _llama(32, 4096, 32, 14336),
    "Llama-3.1-70B": _llama(80, 8192, 64, 28672),
    "Qwen2.5-1.5B": _qwen(
        "Qwen2ForCausalLM",
        num_layers=28,
        hidden_size=1536,
        num_heads=12,
        num_kv_heads=2,
        ffn_size=8960,
        vocab_size=151936,
        context_length=131072,
        tied=True,
    ),
    "Qwen2.5-7B": _qwen(
        "Qwen2ForCausalLM",
        num_layers=28,
        hidden_size=3584,
        num_heads=28,
        num_kv_heads=4,
        ffn_size=18944,
        vocab_size=152064,
        context_length=131072,
    ),
    "Qwen3-8B": _qwen(
        "Qwen3ForCausalLM",
        num_layers=36,
        hidden_size=4096,
        num_heads=32,
        num_kv_heads=8,
        ffn_size=12288,
        vocab_size=151936,
        context_length=40960,
    ),
    "Qwen3-32B": _qwen(
        "Qwen3ForCausalLM",
        num_layers=64,
        hidden_size=5120,
        num_heads=64,
        num_kv_heads=8,
        ffn_size=25600,
        vocab_size=151936,
        context_length=40960,
    ),
}


def architecture_of(model: str) -> Architecture:
    """The architecture of a Hugging Face folder, or of a model of KNOWN_MODELS.

    Raises ConfigError if `model` is neither, or is not of a supported family.
    """
    if model in KNOWN_MODELS:
        return KNOWN_MODELS[model]
    if not (Path(model) / "config.json").is_file():
        raise ConfigError(
            f"MODEL = {model}: there is no such folder with a config.json; give one, or a name of "
            f"{' | '.join(KNOWN_MODELS)}"
        )
    return Architecture.from_folder(Path(model))
