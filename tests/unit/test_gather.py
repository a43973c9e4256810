"""Two stages and two receivers, each in a process of its own, over gloo."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from unittest import mock

import pytest
import torch

from rlstack.rendezvous import serve_store
from rlstack.transfer import gather
from rlstack.transfer.errors import TransferError
from rlstack.transfer.gather import GatherReceiver, GatherSender
from tests.ranks import forks

HOST = "127.0.0.1"
SPECS = [
    [("embed", (7, 4), "float32"), ("up", (5, 4), "bfloat16"), ("norm", (4,), "float32")],
    [("down", (4, 5), "float32"), ("head", (7, 4), "float32")],
]
NUM_RECEIVERS = 2


def weights(stage: int, version: int) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(10 * version + stage)
    return [(name, torch.randn(shape, generator=generator)) for name, shape, _ in SPECS[stage]]


def open_sender(port: int, stage: int, *, timeout_s: float = 20.0, is_leader: bool = True) -> GatherSender:
    return GatherSender(
        store_host=HOST,
        store_port=port,
        stage=stage,
        num_stages=2,
        num_receivers=NUM_RECEIVERS,
        is_leader=is_leader,
        specs=SPECS[stage],
        bucket_bytes=100,
        timeout_s=timeout_s,
        backend="gloo",
    )


def open_receiver(port: int, receiver: int, *, timeout_s: float = 20.0) -> GatherReceiver:
    return GatherReceiver(
        store_host=HOST,
        store_port=port,
        receiver=receiver,
        num_stages=2,
        num_receivers=NUM_RECEIVERS,
        timeout_s=timeout_s,
        backend="gloo",
        device=torch.device("cpu"),
    )


def send(port: int, stage: int, versions: list[int]) -> list[float]:
    sender = open_sender(port, stage)
    return [sender.send(weights(stage, v), version=v)["bytes"] for v in versions]


def seal_then_damage(buffer: torch.Tensor, *, version: int, seal=gather.seal) -> None:
    seal(buffer, version=version)
    buffer[3] ^= 16


def seal_as_the_next_version(buffer: torch.Tensor, *, version: int, seal=gather.seal) -> None:
    seal(buffer, version=version + 1)


def send_sealed_by(seal, port: int, stage: int) -> None:
    """Stage 1 seals its buckets by `seal`; stage 0 is as it should be."""
    with mock.patch.object(gather, "seal", seal if stage == 1 else gather.seal):
        send(port, stage, [1])


def receive(port: int, receiver: int, versions: list[int]) -> list[dict[str, list[float]]]:
    opened = open_receiver(port, receiver)
    rounds = [opened.receive(v) for v in versions]
    return [{name: tensor.float().tolist() for name, tensor in tensors.items()} for tensors in rounds]


@pytest.fixture
def store():
    return serve_store(HOST, timeout_s=20.0)


@pytest.fixture(scope="module")
def processes(pytestconfig):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(pytestconfig.rootpath))  # processes import this file by name
        with ProcessPoolExecutor(4, mp_context=forks()) as pool:
            yield pool


def test_every_receiver_gets_every_stage_bit_by_bit(store, processes):
    senders = [processes.submit(send, store.port, stage, [1, 2]) for stage in range(2)]
    receivers = [processes.submit(receive, store.port, i, [1, 2]) for i in range(NUM_RECEIVERS)]
    dtypes = {name: getattr(torch, dtype) for stage in SPECS for name, _, dtype in stage}
    for receiver in receivers:
        for version, tensors in zip([1, 2], receiver.result(60), strict=True):
            sent = dict(weights(0, version) + weights(1, version))
            assert tensors == {name: t.to(dtypes[name]).float().tolist() for name, t in sent.items()}
    for sender, specs in zip(senders, SPECS, strict=True):
        elements = sum(
            torch.Size(shape).numel() * getattr(torch, dtype).itemsize for _, shape, dtype in specs
        )
        assert min(sender.result(60)) >= elements


@pytest.mark.parametrize("seal", [seal_then_damage, seal_as_the_next_version])
def test_a_bucket_that_is_not_what_was_sent_is_refused(store, processes, seal):
    senders = [processes.submit(send_sealed_by, seal, store.port, stage) for stage in range(2)]
    receivers = [processes.submit(receive, store.port, i, [1]) for i in range(NUM_RECEIVERS)]
    for receiver in receivers:
        with pytest.raises(TransferError, match=r"stage 1, bucket 0 .*down to down.* version 1"):
            receiver.result(60)
    for future in senders:
        future.exception(60)


def test_every_one_of_300_flipped_bits_is_seen():
    chance = random.Random(0)
    for version in range(300):
        stage = chance.randrange(2)
        bucket = chance.choice(gather.plan_buckets(SPECS[stage], bucket_bytes=100))
        tensors = dict(weights(stage, version))
        buffer = gather._fill(bucket, ((s.name, tensors[s.name]) for s in bucket.specs), version=version)
        gather._verify(bucket, buffer, version=version, where="here")
        buffer[chance.randrange(buffer.numel())] ^= 1 << chance.randrange(8)
        with pytest.raises(TransferError, match=f"here .* is not what was sent as version {version}"):
            gather._verify(bucket, buffer, version=version, where="here")


def test_a_missing_worker_is_named(store):
    with pytest.raises(
        TransferError, match=r"stage0/open: waited 0\.2 s for engine worker 0, engine worker 1"
    ):
        open_sender(store.port, 0, timeout_s=0.2)


def test_a_missing_leader_is_named(store):
    with pytest.raises(TransferError, match=r"waited 0\.2 s for the leader of pipeline stage 0"):
        open_receiver(store.port, 0, timeout_s=0.2)


def test_a_rank_that_is_no_leader_only_exhausts_its_tensors():
    made = iter(weights(0, 1))
    open_sender(0, 0, is_leader=False).send(made, version=1)
    assert next(made, None) is None
