"""One of four ranks that build models in many layouts; a program, because the ranks are real processes.

python weight_source_job.py FOLDER PORT RANK: leaves what the rank holds of every case in FOLDER.
"""

from __future__ import annotations

import re
import sys
import zlib
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from rlstack.config.schema import Policy
from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import slice_bounds, stage_rules
from rlstack.policy.backend import parallel_state
from rlstack.policy.hf_map import fuse
from rlstack.policy.model import ModelChunk, PolicyModel
from rlstack.policy.weight_source import source_pieces, source_tensor
from rlstack.rendezvous import connect_store
from rlstack.transfer.layout import encode

NUM_RANKS = 4
LLAMA = Architecture(
    family="LlamaForCausalLM",
    num_layers=4,
    hidden_size=32,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    ffn_size=48,
    vocab_size=133,  # padded to 256 or 512 rows, of which a rank of four may have none
    context_length=64,
    norm_eps=1e-6,
    rope_type="default",
    rope_theta=1e4,
    tied=False,
    qkv_bias=False,
    qk_norm=False,
)
QWEN2 = replace(LLAMA, family="Qwen2ForCausalLM", num_kv_heads=2, qkv_bias=True)
QWEN3 = replace(LLAMA, family="Qwen3ForCausalLM", head_dim=16, tied=True, qk_norm=True)


@dataclass
class Case:
    """On four ranks; those that are left over are data parallel."""

    architecture: Architecture = LLAMA
    tp: int = 1
    pp: int = 1
    vpp: int | None = None
    cp: int = 1
    layers: list[int] | None = None  # of each chunk, where they are uneven


CASES = {
    "dp4": Case(),
    "tp2_dp2": Case(tp=2),
    "tp4": Case(tp=4),
    "pp2_dp2": Case(pp=2),
    "pp4": Case(pp=4),
    "tp2_pp2": Case(tp=2, pp=2),
    "pp2_vpp2": Case(pp=2, vpp=2),
    "tp2_pp2_vpp2": Case(tp=2, pp=2, vpp=2),
    "uneven_pp2": Case(pp=2, layers=[3, 1]),
    "uneven_pp2_vpp2": Case(replace(LLAMA, num_layers=6), pp=2, vpp=2, layers=[1, 2, 2, 1]),
    "pp2_cp2": Case(pp=2, cp=2),
    "one_kv_head_pp2": Case(replace(LLAMA, num_kv_heads=1), pp=2),
    "qwen2_tp2_pp2": Case(QWEN2, tp=2, pp=2),
    "qwen3_tied_dp4": Case(QWEN3),
    "qwen3_tied_tp2_pp2": Case(QWEN3, tp=2, pp=2),
    "qwen3_tied_pp2_vpp2": Case(QWEN3, pp=2, vpp=2),
}


def hf_tensors(architecture: Architecture) -> dict[str, torch.Tensor]:
    """Random ones, the same in every process."""
    rules = stage_rules(architecture).values()
    shapes = {part.name: part.shape for rule in rules for part in rule.parts}

    def make(name: str) -> torch.Tensor:
        return torch.randn(shapes[name], generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))

    return {name: make(name) for name in shapes}


@torch.no_grad()
def fill(chunk: ModelChunk, case: Case) -> None:
    """By the layers' own numbers, of which `source_pieces` makes no use."""
    tensors, architecture = hf_tensors(case.architecture), case.architecture
    rules = stage_rules(architecture)
    tp_rank = parallel_state.get_tensor_model_parallel_rank()
    for name, parameter in chunk.named_parameters():
        if match := re.fullmatch(r"decoder\.layers\.(\d+)\.(.+)", name):
            number = chunk.decoder.layers[int(match[1])].layer_number - 1
            name = f"decoder.layers.{number}.{match[2]}"
        rule = rules[name]
        slices = []
        for part in rule.parts:
            bounds = [slice(None)] * len(part.shape)
            if part.cut is not None:
                bounds[part.cut] = slice_bounds(part, rule, architecture, tp_rank=tp_rank, tp_size=case.tp)
            slices.append(tensors[part.name][tuple(bounds)])
        parameter.copy_(fuse(rule, slices, architecture, tp_size=case.tp))


def run(case: Case, path: Path) -> None:
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=case.tp,
        pipeline_model_parallel_size=case.pp,
        virtual_pipeline_model_parallel_size=case.vpp,
        context_parallel_size=case.cp,
        create_gloo_process_groups=False,
    )
    policy = Policy(
        tensor_parallel=case.tp,
        pipeline_parallel=case.pp,
        virtual_pipeline=case.vpp or 1,
        context_parallel=case.cp,
        pipeline_layers=case.layers,
    )
    chunks = PolicyModel(case.architecture, policy, entropy_gradient=False).chunks
    for chunk in chunks:
        fill(chunk, case)
    pieces = source_pieces(chunks, case.architecture)
    path.with_suffix(".json").write_text(encode(pieces))
    held = {piece.view.tensor: source_tensor(chunks, piece.view.tensor).clone() for piece in pieces}
    save_file(held, path.with_suffix(".safetensors"))
    parallel_state.destroy_model_parallel()


def main(folder: Path, port: int, rank: int) -> None:
    torch.set_num_threads(1)
    store = connect_store("127.0.0.1", port, timeout_s=60.0)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=NUM_RANKS, timeout=timedelta(seconds=60)
    )
    for name, case in CASES.items():
        run(case, folder / f"{name}-{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
