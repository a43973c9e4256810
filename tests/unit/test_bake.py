"""vLLM's reload machinery around a loader of our own, whose every habit is known."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm")

from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.model_loader.reload.layerwise import record_metadata_for_reloading

from rlstack.transfer.bake import Layout, Spec, bake, box_of
from rlstack.transfer.errors import TransferError
from rlstack.transfer.layout import Piece, View
from rlstack.transfer.scatter import land_direct, land_staged, same_bits, supports_direct, window

SHAPES = {"up": (6, 4), "down": (4, 6)}


class Fused(torch.nn.Module):
    """Rows 2 to 4 of `up`, then a row of padding, in one parameter; columns 3 to 5 of `down` in another."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Parameter(torch.ones(4, 4), requires_grad=False)
        self.down = torch.nn.Parameter(torch.ones(4, 3), requires_grad=False)

    def load_weights(self, weights) -> None:
        loaders = {"up": self.load_up, "down": self.load_down}
        for name, weight in weights:
            loaders[name](weight)

    def load_up(self, weight) -> None:
        self.up[:3].copy_(weight.narrow(0, 2, 3))
        self.up[3:].fill_(0)

    def load_down(self, weight) -> None:
        self.down.copy_(weight.narrow(1, 3, 3))


def baked(model: torch.nn.Module, shapes=SHAPES):
    record_metadata_for_reloading(model)
    return bake(model, shapes, dtype=torch.float32)


def test_pieces_padding_and_bytes_are_what_the_loader_copies():
    layout = baked(Fused())
    assert layout.pieces == [
        Piece("up", ((2, 5), (0, 4)), View(":up", 0, (4, 1))),
        Piece("down", ((0, 4), (3, 6)), View(":down", 0, (3, 1))),
    ]
    assert layout.padding == [(View(":up", 12, (4, 1)), (1, 4))]
    assert (layout.num_bytes, layout.num_padding) == (24 * 4, 4)
    assert layout.dtypes == {"up": "float32", "down": "float32"}


def test_a_bake_leaves_the_model_as_it_was():
    model = Fused()
    before = {name: (parameter, parameter.clone()) for name, parameter in model.named_parameters()}
    baked(model)
    for name, parameter in model.named_parameters():
        same, copy = before[name]
        assert parameter is same and torch.equal(parameter, copy)


def transposed(self, weight):
    self.down.copy_(weight.narrow(1, 3, 3).t().contiguous().t())


def scaled(self, weight):
    self.down.copy_(weight.narrow(1, 3, 3) * 2)


def strided(self, weight):
    self.down.copy_(weight[:, ::2])


def in_place(self, weight):
    self.down.copy_(weight.narrow(1, 3, 3)).mul_(2)


def broadcast(self, weight):
    self.down.copy_(weight[:, :1])


def half(self, weight):
    self.down[:2].copy_(weight[:2, 3:])


def twice(self, weight):
    self.down[:2].copy_(weight[:2, 3:])
    self.down[:2].copy_(weight[2:, 3:])


def aside(self, weight):
    torch.empty(4, 6).copy_(weight)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (transposed, "computed"),
        (scaled, "computed"),
        (strided, "no box"),
        (in_place, "mul_"),
        (broadcast, "no box"),
        (half, "set 6 of its 12"),
        (twice, "twice"),
        (aside, "no parameter"),
        (lambda self, weight: None, "ignores down"),
    ],
)
def test_a_loader_that_does_more_than_slice_is_refused(monkeypatch, load, message):
    monkeypatch.setattr(Fused, "load_down", load)
    model = Fused()
    with pytest.raises(TransferError, match=message):
        baked(model)
    assert all(not parameter.is_meta for parameter in model.parameters())


def test_weights_that_do_not_fill_the_model_are_refused():
    with pytest.raises(TransferError, match=r":down: .* 0 of its 12"):
        baked(Fused(), {"up": (6, 4)})


def test_a_tied_parameter_is_filled_under_its_other_name(monkeypatch):
    model = Fused()
    model.head = torch.nn.Linear(4, 4, bias=False)
    model.head.weight = model.up
    assert {piece.name for piece in baked(model).pieces} == set(SHAPES)


@pytest.mark.parametrize(
    ("view", "box"),
    [
        (lambda t: t, ((0, 4), (0, 6))),
        (lambda t: t[1:3, 2:5], ((1, 3), (2, 5))),
        (lambda t: t[3:4], ((3, 4), (0, 6))),
        (lambda t: t[:, 5:], ((0, 4), (5, 6))),
        (lambda t: t.t(), None),
        (lambda t: t[::2], None),
        (lambda t: t.view(-1), None),
        (lambda t: t.as_strided((2, 6), (6, 1), 3), None),
    ],
)
def test_a_box_is_read_off_a_view(view, box):
    whole = torch.empty(4, 6, device="meta")
    assert box_of(view(whole), whole) == box


def test_what_is_landed_directly_is_in_the_windows_and_nowhere_else():
    model = Fused()
    data = torch.arange(6.0).view(2, 3)
    land_direct(model, [(View(":down", 3, (3, 1)), (2, 3), data)])
    assert torch.equal(window(model.down, View(":down", 3, (3, 1)), (2, 3)), data)
    assert torch.equal(model.down[[0, 3]], torch.ones(2, 3)) and torch.equal(model.up, torch.ones(4, 4))


def test_same_bits_tells_signed_zeros_and_accepts_nans():
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))


class Doubling(QuantizeMethodBase):
    """What becomes of a weight is computed with, and not the weight; `order` has whose turn it was."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def create_weights(self, layer, *args, **kwargs) -> None:
        raise AssertionError("the layers have theirs")

    def apply(self, layer, *args, **kwargs) -> torch.Tensor:
        raise AssertionError("nothing is computed")

    def process_weights_after_loading(self, layer) -> None:
        self.order.append(layer.place)
        layer.weight = torch.nn.Parameter(2 * layer.weight, requires_grad=False)


def test_modules_are_processed_in_the_models_order_whatever_came_first():
    order: list[int] = []
    model = torch.nn.Sequential(*(torch.nn.Linear(1, 3, bias=False) for _ in range(3)))
    for place, layer in enumerate(model):
        layer.place, layer.quant_method = place, Doubling(order)
        layer.weight.requires_grad_(False)
    record_metadata_for_reloading(model)
    live = [layer.weight for layer in model]
    specs = {f"{place}:weight": Spec((3, 1), torch.float32) for place in range(3)}
    assert supports_direct(model, specs) == "0:weight is processed by Doubling"
    layout = Layout(pieces=[], padding=[], tensors=specs, dtypes={})
    for version in (1.0, 2.0):
        arrivals = [
            (View(f"{place}:weight", 0, (1, 1)), (3, 1), torch.full((3, 1), version + place))
            for place in (2, 0, 1)
        ]
        land_staged(model, layout, arrivals, model_config=None, device="cpu")
        assert order == [0, 1, 2]
        assert [weight.tolist() for weight in live] == [[[2 * (version + place)]] * 3 for place in range(3)]
        assert all(layer.weight is weight for layer, weight in zip(model, live, strict=True))
        order.clear()
