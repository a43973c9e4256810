"""Move weights from one process to another as a weight sync does, and verify them.

The sender packs and seals, the receiver verifies digests and stamps. In the last round one bit is changed
after sealing, which the receiver must notice.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from details import leave
from processes import Results, results_of
from torch import Tensor

from rlstack.rendezvous import serve_store
from rlstack.transfer import outbox
from rlstack.transfer.layout import Piece, View
from rlstack.transfer.reshard import ReshardReceiver, ReshardSender

HOST = "127.0.0.1"
TIMEOUT_S = 60.0
ROUNDS = 4  # the last one is damaged
WIDTH = 4096
BUCKET_BYTES = 64 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["ipc", "nccl", "gloo"], required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--mib", type=int, default=1024)
    given = parser.parse_args()
    store = serve_store(HOST, timeout_s=TIMEOUT_S)
    rows = given.mib * 2**20 // (2 * WIDTH)
    common = {"backend": given.backend, "rows": rows, "port": store.port}
    # NCCL needs a GPU for each; memory is shared on one.
    places = [given.device] * 2 if given.backend != "nccl" else ["cuda:0", "cuda:1"]
    sides = zip((send_all, receive_all), places, strict=True)
    found: dict[str, Any] = {}
    for result in results_of([(call, (place, common)) for call, place in sides], timeout_s=2 * TIMEOUT_S):
        found |= result
    seconds = min(found["seconds"][1:])
    leave(
        cuda=torch.cuda.is_available() and given.device == "cuda",
        bytes=given.mib * 2**20,
        seconds=seconds,
        gib_per_s=given.mib / 2**10 / seconds,
        equal=found["equal"],
        damage=found["damage"],
    )
    if not all(found["equal"]) or "is not what was sent" not in found["damage"]:
        raise SystemExit(f"{found['equal']}, and of the damaged round: {found['damage']!r}")


def send_all(device: str, common: dict[str, Any], results: Results[Any]) -> None:
    """The policy's side."""
    use(device)
    weight = torch.empty(common["rows"], WIDTH, dtype=torch.bfloat16, device=device)
    sender = ReshardSender(**ends(**common), source=0, tensor_of={"weight": weight}.__getitem__)
    for version in range(1, ROUNDS + 1):
        weight.copy_(content(version, weight))
        with ExitStack() as stack:
            if version == ROUNDS:
                stack.enter_context(mock.patch.object(outbox, "seal", damaging(outbox.seal)))
            sender.send(version)
    results.put({})


def receive_all(device: str, common: dict[str, Any], results: Results[Any]) -> None:
    """The engine's side."""
    use(device)
    weight = torch.empty(common["rows"], WIDTH, dtype=torch.bfloat16, device=device)
    settings = {"receiver": 0, "dtypes": {"weight": "bfloat16"}, "device": weight.device}
    receiver = ReshardReceiver(**ends(**common), **settings)
    seconds, equal, damage = [], [], ""
    for version in range(1, ROUNDS + 1):
        started = time.perf_counter()
        receiver.begin(version)
        try:
            arrived = list(receiver.finish(version))
        except RuntimeError as error:
            damage = str(error)
            continue
        seconds.append(time.perf_counter() - started)
        for view, shape, data in arrived:
            weight.as_strided(shape, view.strides, view.offset).copy_(data)
        equal.append(bool(weight.equal(content(version, weight))))
    results.put({"seconds": seconds, "equal": equal, "damage": damage})


def use(device: str) -> None:
    """Make `device` the current one, if it is a GPU."""
    if device != "cpu":
        torch.cuda.set_device(torch.device(device).index or 0)


def ends(*, backend: str, rows: int, port: int) -> dict[str, Any]:
    """The arguments that both sides have."""
    piece = Piece("weight", ((0, rows), (0, WIDTH)), View("weight", 0, (WIDTH, 1)))
    return {
        "store_host": HOST,
        "store_port": port,
        "num_sources": 1,
        "num_receivers": 1,
        "pieces": [piece],
        "backend": backend,
        "bucket_bytes": BUCKET_BYTES,
        "timeout_s": TIMEOUT_S,
    }


def content(version: int, weight: Tensor) -> Tensor:
    """The content of `weight` in a version, the same on both sides."""
    generator = torch.Generator(weight.device).manual_seed(version)
    return torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)


def damaging(seal: Callable[..., None]) -> Callable[..., None]:
    """As `seal`, and then a bit is flipped."""

    def sealed(buffer: Tensor, *others: Any, **named: Any) -> None:
        seal(buffer, *others, **named)
        buffer[3] ^= 16

    return sealed


if __name__ == "__main__":
    main()
