"""A vocabulary in parts on real ranks is the vocabulary in one piece."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rlstack.rendezvous import serve_store
from tests.kernels.oracle import Outcome, check, expected, relative_error, textbook
from tests.kernels.vocab_parallel_job import HIDDEN, JOBS, MODES, NUM_TOKENS, SHARDS, VALID, whole_case
from tests.ranks import run_new_ranks

LINEAR = [name for name, job in JOBS.items() if job.operator == "linear" and not job.alone]
LOGITS = [name for name, job in JOBS.items() if job.operator == "logits"]


@dataclass(frozen=True)
class Ranks:
    """What they left, rank by rank."""

    folder: Path
    size: int

    def tensors(self, job: str) -> list[dict[str, Tensor]]:
        return [load_file(self.folder / f"{job}-{rank}.safetensors") for rank in range(self.size)]

    def collectives(self, job: str) -> list[dict[str, Any]]:
        return [json.loads((self.folder / f"{job}-{rank}.json").read_text()) for rank in range(self.size)]


@pytest.fixture(scope="module", params=SHARDS, ids="{}_ranks".format)
def ranks(request, tmp_path_factory) -> Ranks:
    size, folder = request.param, tmp_path_factory.mktemp("vocab_parallel")
    store = serve_store("127.0.0.1", timeout_s=60.0)
    program = ["-m", "tests.kernels.vocab_parallel_job", folder, store.port]
    run_new_ranks(
        [[*program, rank, size] for rank in range(size)],
        timeout_s=120,
        GLOO_SOCKET_IFNAME="lo",
        TRITON_INTERPRET="1",
    )
    return Ranks(folder, size)


def joined(parts: Sequence[dict[str, Tensor]], hidden_grad: str) -> Outcome:
    """One rank's outcome from all ranks'; what is said to be the same must have the same bits."""
    same = ["logprobs", "entropy", *(["hidden_grad"] if hidden_grad == "all_reduce" else [])]
    for name in same:
        assert all(torch.equal(part[name], parts[0][name]) for part in parts)
    gradients = [part["hidden_grad"] for part in parts]
    hidden = {"partial": sum(gradients), "all_reduce": gradients[0], "reduce_scatter": torch.cat(gradients)}
    weight = torch.cat([part["weight_grad"] for part in parts])
    return Outcome(parts[0]["logprobs"], parts[0]["entropy"], hidden[hidden_grad], weight)


@pytest.mark.parametrize("job", LINEAR)
def test_the_parts_are_the_whole(job: str, ranks: Ranks) -> None:
    asked = JOBS[job]
    outcome = joined(ranks.tensors(job), asked.hidden_grad)
    assert outcome.weight_grad.dtype == asked.dtype
    assert bool(outcome.weight_grad[VALID:].any()) is not asked.padded
    assert not outcome.hidden_grad[-1].any()
    wanted = expected(whole_case(asked, ranks.size))
    wanted = wanted._replace(
        hidden_grad=wanted.hidden_grad * asked.num_passes, weight_grad=wanted.weight_grad * asked.num_passes
    )
    check(outcome, wanted, gradient=8e-3 if asked.dtype == torch.bfloat16 else 2e-6)


@pytest.mark.parametrize("job", LOGITS)
def test_logits_in_parts_are_the_whole(job: str, ranks: Ranks) -> None:
    case, parts = whole_case(JOBS[job], ranks.size), ranks.tensors(job)
    logits = (case.hidden @ case.weight.t()).double().requires_grad_()
    logprobs, entropy = textbook(logits[:, :VALID] * case.inv_temp, case.labels)
    wanted = torch.autograd.grad(
        (logprobs * case.logprob_slopes + entropy * case.entropy_slopes).sum(), logits
    )[0]
    for part in parts:
        torch.testing.assert_close(part["logprobs"].double(), logprobs, atol=2e-6, rtol=0)
        torch.testing.assert_close(part["entropy"].double(), entropy, atol=2e-6, rtol=0)
        assert torch.equal(part["logprobs"], parts[0]["logprobs"])
        assert torch.equal(part["entropy"], parts[0]["entropy"])
    found = torch.cat([part["weight_grad"] for part in parts], 1)
    assert relative_error(found, wanted) <= 2e-6 and not found[:, VALID:].any()


def test_a_group_of_one_is_no_group(ranks: Ranks) -> None:
    wanted = expected(whole_case(JOBS["alone"], ranks.size))
    for part, calls in zip(ranks.tensors("alone"), ranks.collectives("alone"), strict=True):
        check(joined([part], "partial"), wanted)
        assert calls == {"forward": [], "backward": []}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hidden_grad", ["equal", "all_reduce", "reduce_scatter"])
def test_one_exchange_of_four_numbers_per_token(mode: str, hidden_grad: str, ranks: Ranks) -> None:
    """And what the hidden states need: the reduction, in the pass that computes the gradients."""
    statistics = ["all_gather", [4, NUM_TOKENS]]
    gather = ["all_gather_into_tensor", [NUM_TOKENS // ranks.size, HIDDEN]]
    whole = [NUM_TOKENS, HIDDEN]
    reduction = {
        "equal": [],
        "all_reduce": [["all_reduce", whole]],
        "reduce_scatter": [["reduce_scatter_tensor", whole]],
    }
    gathers, reductions = [gather] if hidden_grad == "reduce_scatter" else [], reduction[hidden_grad]
    forward, backward = [*gathers, statistics], [*gathers, *reductions]
    if mode == "eager":
        forward, backward = [*forward, *reductions], []
    for calls in ranks.collectives(f"{mode}-{hidden_grad}"):
        assert calls == {"forward": forward, "backward": backward}


@pytest.mark.parametrize("job", LOGITS)
def test_logits_need_one_exchange(job: str, ranks: Ranks) -> None:
    for calls in ranks.collectives(job):
        assert calls == {"forward": [["all_gather", [4, NUM_TOKENS]]], "backward": []}
