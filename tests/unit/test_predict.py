import math
from dataclasses import replace

import pytest
import torch

from rlstack.config.parallel import stage_layers
from rlstack.model.architecture import Architecture
from rlstack.model.known_models import KNOWN_MODELS
from rlstack.model.weight_names import slice_bounds, stage_rules
from rlstack.orchestration.layout_text import EngineLayout, TrainerLayout
from rlstack.orchestration.predict import model_shapes, predicted_receiver_pieces, predicted_source_pieces
from rlstack.orchestration.transfer_forecast import forecast, least_transfer_bytes, predicted_layouts
from rlstack.policy.hf_map import fuse
from rlstack.transfer.layout import Piece, shape, volume
from rlstack.transfer.plan import Demand, build_plan

TINY = replace(
    KNOWN_MODELS["Qwen3-8B"],
    num_layers=4,
    hidden_size=16,
    num_heads=8,
    num_kv_heads=4,
    head_dim=4,
    ffn_size=24,
    vocab_size=130,
    qkv_bias=True,
)


# The parameters that their model.safetensors.index.json counts.
@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("Llama-2-7B", 6_738_415_616),
        ("Llama-3.1-8B", 8_030_261_248),
        ("Llama-3.1-70B", 70_553_706_496),
        ("Llama-3.2-1B", 1_235_814_400),
        ("Mistral-7B-v0.3", 7_248_023_552),
        ("Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen3-0.6B", 596_049_920),
        ("Qwen3-8B", 8_190_735_360),
        ("Qwen3-32B", 32_762_123_264),
    ],
)
def test_known_models_have_their_published_size(name: str, num_parameters: int) -> None:
    assert sum(map(math.prod, model_shapes(KNOWN_MODELS[name]).values())) == num_parameters


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("tp_size", "num_stages"), [(1, 1), (2, 2), (4, 1)])
def test_sources_hold_what_the_name_map_puts_together(tp_size: int, num_stages: int, tied: bool) -> None:
    architecture = replace(TINY, tied=tied)
    weights = {name: torch.randn(size) for name, size in model_shapes(architecture).items()}
    layouts = predicted_source_pieces(
        architecture, tensor_parallel=tp_size, pipeline_parallel=num_stages, data_parallel=1
    )
    for rank, pieces in enumerate(layouts):
        stage, tp_rank = divmod(rank, tp_size)
        layers = stage_layers(architecture.num_layers, num_stages=num_stages)[stage]
        rules = stage_rules(architecture, layers)
        held = 0
        for name, rule in rules.items():
            slices = [weights[part.name] for part in rule.parts]
            for i, part in enumerate(rule.parts):
                if part.cut is not None:
                    bounds = slice_bounds(part, rule, architecture, tp_rank=tp_rank, tp_size=tp_size)
                    slices[i] = slices[i].narrow(part.cut, bounds.start, bounds.stop - bounds.start)
            parameter = fuse(rule, slices, architecture, tp_size=tp_size).contiguous()
            held += sum(map(torch.numel, slices))
            for piece in (piece for piece in pieces if piece.view.tensor == f"0.{name}"):
                cut = tuple(slice(low, high) for low, high in piece.box)
                found = parameter.as_strided(shape(piece.box), piece.view.strides, piece.view.offset)
                assert torch.equal(found, weights[piece.name][cut])
        assert sum(volume(piece.box) for piece in pieces) == held


def test_data_parallel_ranks_are_between_tensor_and_pipeline_parallel_ones() -> None:
    layouts = predicted_source_pieces(TINY, tensor_parallel=2, pipeline_parallel=2, data_parallel=2)
    first = {rank: pieces[0].name for rank, pieces in enumerate(layouts)}
    assert [name == "model.embed_tokens.weight" for name in first.values()] == [True] * 4 + [False] * 4
    assert layouts[0] == layouts[2] != layouts[1] == layouts[3]


def boxes(architecture: Architecture, *, tensor_parallel: int, rank: int) -> dict[str, Piece]:
    pieces = predicted_receiver_pieces(architecture, tensor_parallel=tensor_parallel, rank=rank)
    return {piece.name: piece for piece in pieces}


def test_key_value_heads_are_repeated_where_there_are_more_ranks() -> None:
    ranks = [boxes(TINY, tensor_parallel=8, rank=rank) for rank in range(8)]
    key, query = "model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.q_proj.weight"
    assert [rank[key].box[0] for rank in ranks] == [(4 * (i // 2), 4 * (i // 2) + 4) for i in range(8)]
    assert [rank[query].box[0] for rank in ranks] == [(4 * i, 4 * i + 4) for i in range(8)]


def test_workers_fuse_rows_in_order() -> None:
    found = boxes(TINY, tensor_parallel=2, rank=1)
    start = {}
    for x in ("self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up"):
        view = found[f"model.layers.0.{x}_proj.weight"].view
        start[x] = (view.tensor.removeprefix("model.layers.0."), view.offset // TINY.hidden_size)
    assert start == {
        "self_attn.q": ("self_attn.qkv_proj:weight", 0),
        "self_attn.k": ("self_attn.qkv_proj:weight", 16),
        "self_attn.v": ("self_attn.qkv_proj:weight", 24),
        "mlp.gate": ("mlp.gate_up_proj:weight", 0),
        "mlp.up": ("mlp.gate_up_proj:weight", 12),
    }


def test_the_vocabulary_is_padded_before_it_is_cut() -> None:
    found = [boxes(TINY, tensor_parallel=4, rank=rank).get("lm_head.weight") for rank in range(4)]
    assert [piece and piece.box[0] for piece in found] == [(0, 48), (48, 96), (96, 130), None]


def test_a_stage_of_a_virtual_pipeline_holds_the_chunks_that_are_its_turn() -> None:
    layouts = predicted_source_pieces(
        replace(TINY, num_layers=6),
        tensor_parallel=1,
        pipeline_parallel=2,
        data_parallel=1,
        context_parallel=2,
        virtual_pipeline=2,
        pipeline_layers=[1, 2, 1, 2],
    )
    assert layouts[0] == layouts[1] and layouts[2] == layouts[3]  # context-parallel ranks hold the same
    numbers = [
        sorted({int(p.name.split(".")[2]) for p in pieces if "layers" in p.name}) for pieces in layouts[::2]
    ]
    assert numbers == [[0, 3], [1, 2, 4, 5]]
    chunks = {piece.name: piece.view.tensor[0] for pieces in layouts for piece in pieces}
    assert chunks["model.layers.3.mlp.down_proj.weight"] == chunks["lm_head.weight"] == "1"
    assert chunks["model.layers.2.mlp.down_proj.weight"] == chunks["model.embed_tokens.weight"] == "0"


LAYOUTS = {
    "tp2_pp2_dp2": {"tensor_parallel": 2, "pipeline_parallel": 2, "data_parallel": 2},
    "pp2_vp2": {"tensor_parallel": 1, "pipeline_parallel": 2, "data_parallel": 1, "virtual_pipeline": 2},
    "cp2": {"tensor_parallel": 1, "pipeline_parallel": 1, "data_parallel": 1, "context_parallel": 2},
    "uneven_cp2": {
        "tensor_parallel": 2,
        "pipeline_parallel": 2,
        "data_parallel": 1,
        "context_parallel": 2,
        "pipeline_layers": [1, 3],
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("tensor_parallel", [1, 2, 4, 8])
def test_predicted_layouts_fit_together(tensor_parallel: int, tied: bool, layout: str) -> None:
    architecture = replace(TINY, tied=tied)
    sources = predicted_source_pieces(architecture, **LAYOUTS[layout])
    receivers = [
        predicted_receiver_pieces(architecture, tensor_parallel=tensor_parallel, rank=rank)
        for rank in range(tensor_parallel)
    ]
    shapes = model_shapes(architecture)
    plan = build_plan(sources, receivers, shapes=shapes, itemsizes=dict.fromkeys(shapes, 2))
    assert {move.name for move in plan.moves()} == set(shapes)
    for rank, pieces in enumerate(receivers):
        assert plan.bytes_received(rank) == 2 * sum(volume(piece.box) for piece in pieces)
    if LAYOUTS[layout].get("context_parallel", 1) > 1 and tensor_parallel > 1:
        assert all(plan.bytes_sent(rank) for rank in range(len(sources))), "replicas share the work"


@pytest.mark.parametrize(
    ("trainer", "num_engines"),
    [
        (TrainerLayout(tensor_parallel=2, pipeline_parallel=2, data_parallel=4), 2),
        (TrainerLayout(tensor_parallel=4, pipeline_parallel=1, data_parallel=2), 6),
        (TrainerLayout(tensor_parallel=2, pipeline_parallel=2, data_parallel=2), 3),
        (TrainerLayout(tensor_parallel=1, pipeline_parallel=1, data_parallel=1), 4),
    ],
)
def test_the_least_bytes_of_a_transfer_are_those_of_its_plan(
    trainer: TrainerLayout, num_engines: int
) -> None:
    """Where the bound decides and where it does not, with relays and without."""
    model, engines = KNOWN_MODELS["Qwen3-0.6B"], EngineLayout(num_engines=num_engines, tensor_parallel=2)
    sizes = {"itemsize": 2, "bucket_bytes": 2**20}
    found = forecast(model, trainer, engines, gb_per_s={"": 1}, **sizes)
    assert least_transfer_bytes(model, trainer, engines, **sizes) == found.bounds[""].transfer_s * 1e9
    demand = Demand(
        *predicted_layouts(model, trainer, engines),
        shapes=(shapes := model_shapes(model)),
        itemsizes=dict.fromkeys(shapes, 2),
    )
    plan = demand.plan()
    sent = max(plan.bytes_sent(source) for source in range(trainer.data_parallel * 4))
    assert demand.least_sent() <= sent <= demand.most_sent()
