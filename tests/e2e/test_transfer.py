"""From senders in this process to a live engine; transformers says what the new weights would generate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rlstack.config.schema import RunConfig, TransferMethod
from rlstack.data.records import Prompt, Rollout
from rlstack.rendezvous import serve_store
from rlstack.rollout.engine import Engine
from rlstack.transfer import gather
from rlstack.transfer.gather import GatherSender

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"
TIMEOUT_S = 60.0
METHOD = TransferMethod.gather
PROMPTS = [
    Prompt(task="t", row=i, problem="", token_ids=tuple(range(3 + i, 3 + i + length)))
    for i, length in enumerate([5, 9, 1, 17])
]


def receive(
    folder: str, port: int, tensor_parallel: int, num_stages: int, versions: list[int]
) -> tuple[list[list[Rollout]], list[str]]:
    """Greedy rollouts before and after every version is received, and the errors on the way."""
    config = RunConfig()
    config.policy.model = folder
    config.policy.pipeline_parallel = num_stages
    config.rollout.tensor_parallel = tensor_parallel
    config.rollout.max_new_tokens = 30
    config.rollout.kv_cache_gib = 0.1
    config.transfer.timeout_s = TIMEOUT_S
    engine = Engine(config, index=0)

    def greedy() -> list[Rollout]:
        seeds = [0] * len(PROMPTS)
        return [group[0] for group in engine.generate(PROMPTS, n=1, temperature=0.0, top_p=1.0, seeds=seeds)]

    engine.open_transfer(HOST, port, method=METHOD, first_receiver=0, num_receivers=tensor_parallel)
    rounds, errors = [greedy()], []
    for version in versions:
        try:
            stats = engine.commit_receive(version, METHOD)
            assert stats["verified"] == 1.0
        except RuntimeError as error:
            errors.append(str(error))
        rounds.append(greedy())
    engine.close()
    return rounds, errors


def send(port: int, stage: int, num_stages: int, num_receivers: int, rounds: list[tuple[int, dict]]) -> None:
    shares = [(version, list(weights.items())[stage::num_stages]) for version, weights in rounds]
    sender = GatherSender(
        store_host=HOST,
        store_port=port,
        stage=stage,
        num_stages=num_stages,
        num_receivers=num_receivers,
        is_leader=True,
        specs=[(name, tuple(tensor.shape), "float32") for name, tensor in shares[0][1]],
        bucket_bytes=50_000,
        timeout_s=TIMEOUT_S,
        backend="gloo",
    )
    for version, share in shares:
        sender.send(share, version=version)


def run(
    own_process, folder: Path, rounds: list[tuple[int, dict]], *, tensor_parallel: int, num_stages: int
) -> tuple[list[list[Rollout]], list[str], list[BaseException | None]]:
    """What the engine generated, its errors, and what became of the senders."""
    store = serve_store(HOST, timeout_s=TIMEOUT_S)
    versions = [version for version, _ in rounds]
    with ThreadPoolExecutor(num_stages) as threads:
        engine = own_process.submit(receive, str(folder), store.port, tensor_parallel, num_stages, versions)
        senders = [
            threads.submit(send, store.port, stage, num_stages, tensor_parallel, rounds)
            for stage in range(num_stages)
        ]
        generated, errors = engine.result()
        return generated, errors, [sender.exception() for sender in senders]


@torch.no_grad()
def assert_generated_by(folder: Path, rollouts: list[Rollout]) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    for prompt, rollout in zip(PROMPTS, rollouts, strict=True):
        ids = torch.tensor([[*prompt.token_ids.tolist(), *rollout.token_ids.tolist()]])
        best = model(ids).logits[0, len(prompt.token_ids) - 1 : -1].log_softmax(-1).max(-1)
        assert best.indices.tolist() == list(rollout.token_ids)
        torch.testing.assert_close(torch.tensor(rollout.generator_logprobs), best.values, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("tensor_parallel", "tied"),
    [
        (2, True),
        pytest.param(1, False, marks=pytest.mark.thorough),
        pytest.param(1, True, marks=pytest.mark.thorough),
        pytest.param(2, False, marks=pytest.mark.thorough),
    ],
)
def test_the_engine_generates_with_the_weights_that_it_received(
    small_llama, own_process, tensor_parallel, tied
):
    folders = [small_llama(seed, tied=tied) for seed in range(3)]
    rounds = [(v, load_file(folders[v] / "model.safetensors")) for v in (1, 2)]
    generated, errors, failures = run(
        own_process, folders[0], rounds, tensor_parallel=tensor_parallel, num_stages=2
    )
    assert errors == [] and failures == [None, None]
    for version, (folder, rollouts) in enumerate(zip(folders, generated, strict=True)):
        assert {r.version for r in rollouts} == {version}
        assert_generated_by(folder, rollouts)


@pytest.mark.thorough
def test_a_tied_head_that_the_folder_has_too_follows_the_embedding(small_llama, own_process):
    """vLLM takes it for a head of its own until it has read both; the policy sends the embedding alone."""
    old, new = (small_llama(seed, tied=True) for seed in range(2))
    rounds = [(1, load_file(new / "model.safetensors"))]
    tensors = load_file(old / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, old / "model.safetensors", metadata={"format": "pt"})
    generated, errors, failures = run(own_process, old, rounds, tensor_parallel=1, num_stages=1)
    assert errors == [] and failures == [None]
    for folder, rollouts in zip((old, new), generated, strict=True):
        assert_generated_by(folder, rollouts)


def test_a_damaged_bucket_leaves_the_engine_with_its_old_weights(small_llama, own_process, monkeypatch):
    seal = gather.seal

    def seal_then_damage(buffer: torch.Tensor, *, version: int) -> None:
        seal(buffer, version=version)
        buffer[100] ^= 1

    monkeypatch.setattr(gather, "seal", seal_then_damage)
    old, new = (small_llama(seed, tied=False) for seed in range(2))
    rounds = [(1, load_file(new / "model.safetensors"))]
    generated, errors, _ = run(own_process, old, rounds, tensor_parallel=1, num_stages=1)
    assert len(errors) == 1 and "stage 0, bucket 0" in errors[0] and "version 1" in errors[0]
    assert generated[1] == generated[0] and generated[0][0].version == 0
    assert_generated_by(old, generated[1])
