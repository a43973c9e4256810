"""Public models by name, for what can be planned without their files. Numbers of their config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError
from rlstack.model.architecture import Architecture


def _model(family: str, sizes: tuple[int, ...], **settings: Any) -> Architecture:
    """sizes: num_layers, hidden_size, num_heads, num_kv_heads, ffn_size."""
    num_layers, hidden_size, num_heads, num_kv_heads, ffn_size = sizes
    common: dict[str, Any] = {
        "head_dim": 128,
        "rope_type": "default",
        "tied": False,
        "qkv_bias": family == "Qwen2",
        "qk_norm": family == "Qwen3",
    }
    return Architecture(
        family=f"{family}ForCausalLM",
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        ffn_size=ffn_size,
        **common | settings,
    )


def _llama_2(*sizes: int) -> Architecture:
    """https://huggingface.co/meta-llama."""
    return _model("Llama", sizes, vocab_size=32000, context_length=4096, norm_eps=1e-5, rope_theta=1e4)


def _llama_3(*sizes: int, **settings: Any) -> Architecture:
    """Llama 3.1 and 3.2: https://huggingface.co/meta-llama."""
    common: dict[str, Any] = {
        "vocab_size": 128256,
        "context_length": 131072,
        "norm_eps": 1e-5,
        "rope_theta": 5e5,
    }
    return _model("Llama", sizes, **common, rope_type="llama3", **settings)


def _mistral(*sizes: int) -> Architecture:
    """Mistral 0.3: https://huggingface.co/mistralai."""
    return _model("Mistral", sizes, vocab_size=32768, context_length=32768, norm_eps=1e-5, rope_theta=1e6)


def _qwen_2(*sizes: int, **settings: Any) -> Architecture:
    """Qwen 2.5: https://huggingface.co/Qwen."""
    return _model("Qwen2", sizes, context_length=131072, norm_eps=1e-6, rope_theta=1e6, **settings)


def _qwen_3(*sizes: int, **settings: Any) -> Architecture:
    """Qwen 3: https://huggingface.co/Qwen."""
    common: dict[str, Any] = {
        "vocab_size": 151936,
        "context_length": 40960,
        "norm_eps": 1e-6,
        "rope_theta": 1e6,
    }
    return _model("Qwen3", sizes, **common, **settings)


KNOWN_MODELS = {
    "Llama-2-7B": _llama_2(32, 4096, 32, 32, 11008),
    "Llama-3.1-8B": _llama_3(32, 4096, 32, 8, 14336),
    "Llama-3.1-70B": _llama_3(80, 8192, 64, 8, 28672),
    "Llama-3.2-1B": _llama_3(16, 2048, 32, 8, 8192, head_dim=64, tied=True),
    "Mistral-7B-v0.3": _mistral(32, 4096, 32, 8, 14336),
    "Qwen2.5-1.5B": _qwen_2(28, 1536, 12, 2, 8960, vocab_size=151936, tied=True),
    "Qwen2.5-7B": _qwen_2(28, 3584, 28, 4, 18944, vocab_size=152064),
    "Qwen3-0.6B": _qwen_3(28, 1024, 16, 8, 3072, tied=True),
    "Qwen3-8B": _qwen_3(36, 4096, 32, 8, 12288),
    "Qwen3-32B": _qwen_3(64, 5120, 64, 8, 25600),
}
_SUFFIX = "-instruct"  # tuned models have their base's shape


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


def planned_model(folder: str) -> tuple[str, Architecture]:
    """The name and shape of policy.model: of its config.json, or else of the known model of the same name.

    Raises ConfigError if there is neither.
    """
    path = Path(folder)
    if (path / "config.json").is_file():
        return path.name, Architecture.from_folder(path)
    known = {name.lower(): name for name in KNOWN_MODELS}
    name = known.get(path.name.lower().removesuffix(_SUFFIX))
    if name is None:
        raise ConfigError(
            f"policy.model = {folder}: there is no config.json, and the name is not one of "
            f"{' | '.join(KNOWN_MODELS)}; give a folder with a config.json, or one of these names"
        )
    return name, KNOWN_MODELS[name]
