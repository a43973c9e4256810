"""What real ranks of megatron say they hold, against the Hugging Face tensors that they were filled with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlstack.orchestration.predict import predicted_source_pieces
from rlstack.rendezvous import serve_store
from rlstack.transfer.layout import Piece, View, decode, shape
from rlstack.transfer.plan import build_plan
from tests.distributed.weight_source_job import CASES, NUM_RANKS, Case, hf_tensors
from tests.ranks import run_ranks

JOB = Path(__file__).with_name("weight_source_job.py")


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Path:
    """A folder with what the ranks hold, case by case."""
    folder = tmp_path_factory.mktemp("held")
    store = serve_store("127.0.0.1", timeout_s=60.0)
    run_ranks(
        [[JOB, folder, store.port, rank] for rank in range(NUM_RANKS)],
        timeout_s=300,
        GLOO_SOCKET_IFNAME="lo",
    )
    return folder


def predicted(case: Case) -> list[list[Piece]]:
    return predicted_source_pieces(
        case.architecture,
        tensor_parallel=case.tp,
        pipeline_parallel=case.pp,
        context_parallel=case.cp,
        data_parallel=NUM_RANKS // (case.tp * case.pp * case.cp),
        virtual_pipeline=case.vpp or 1,
        pipeline_layers=case.layers,
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_pieces_of_all_ranks_are_the_hugging_face_tensors(held, case):
    expected = hf_tensors(CASES[case].architecture)
    sources = [decode((held / f"{case}-{rank}.json").read_text()) for rank in range(NUM_RANKS)]
    for rank, pieces in enumerate(sources):
        tensors = load_file(held / f"{case}-{rank}.safetensors")
        for piece in pieces:
            view = piece.view
            window = tensors[view.tensor].as_strided(shape(piece.box), view.strides, view.offset)
            box = tuple(slice(low, high) for low, high in piece.box)
            assert torch.equal(window, expected[piece.name][box]), (rank, piece)
        assert {(piece.name, piece.box) for piece in pieces} == {
            (piece.name, piece.box) for piece in predicted(CASES[case])[rank]
        }
    # A receiver that wants everything gets each element from exactly one box, or there is no plan.
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    everything = [Piece(n, tuple((0, x) for x in s), View(n, 0, (1,) * len(s))) for n, s in shapes.items()]
    plan = build_plan(sources, [everything], shapes=shapes, itemsizes=dict.fromkeys(shapes, 4))
    assert plan.bytes_received(0) == sum(tensor.numel() * 4 for tensor in expected.values())
    if CASES[case].tp * CASES[case].pp < NUM_RANKS:
        assert all(plan.bytes_sent(rank) for rank in range(NUM_RANKS)), "replicas share the work"
