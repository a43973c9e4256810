from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlstack.transfer.buckets import plan_buckets
from rlstack.transfer.digest import digest

SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)
SPECS = st.lists(st.tuples(SHAPES, st.sampled_from(["float32", "bfloat16"])), max_size=20).map(
    lambda rows: [(f"t{i}", shape, dtype) for i, (shape, dtype) in enumerate(rows)]
)


@given(SPECS, st.integers(1, 400))
def test_every_tensor_has_its_own_bytes_in_order(specs, bucket_bytes):
    buckets = plan_buckets(specs, bucket_bytes=bucket_bytes)
    assert [tuple(s) for b in buckets for s in b.specs] == specs
    for bucket in buckets:
        ends = [offset + s.num_bytes for offset, s in zip(bucket.offsets, bucket.specs, strict=True)]
        assert all(end <= start for end, start in zip(ends, bucket.offsets[1:], strict=False))
        assert bucket.num_bytes == ends[-1]


@given(SPECS, st.integers(1, 400))
def test_only_a_lone_tensor_exceeds_the_bucket_size(specs, bucket_bytes):
    for bucket in plan_buckets(specs, bucket_bytes=bucket_bytes):
        assert bucket.num_bytes <= bucket_bytes or len(bucket.specs) == 1


def test_views_write_into_the_buffer():
    (bucket,) = plan_buckets([("a", (3,), "bfloat16"), ("b", (2, 2), "float32")], bucket_bytes=1000)
    buffer = torch.zeros(bucket.num_bytes, dtype=torch.uint8)
    for i, view in enumerate(bucket.views(buffer)):
        view.fill_(i + 1)
    assert [v.flatten().tolist() for v in bucket.views(buffer)] == [[1.0] * 3, [2.0] * 4]


@given(st.binary(min_size=1, max_size=100), st.data())
def test_digest_sees_every_flipped_bit(data, draw):
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    assert digest(_bytes(data)) != digest(_bytes(flipped))


def test_digest_sees_exchanged_words_and_length():
    words = torch.arange(1, 9, dtype=torch.int64)
    exchanged = words[torch.tensor([0, 1, 6, 3, 4, 5, 2, 7])]
    assert digest(words.view(torch.uint8)) != digest(exchanged.view(torch.uint8))
    assert digest(_bytes(b"\0" * 7)) != digest(_bytes(b"\0" * 8))


def test_digest_sees_a_change_in_the_second_chunk():
    data = torch.zeros((1 << 19) + 11, dtype=torch.uint8)
    before = digest(data)
    data[-1] = 1
    after_last = digest(data)
    data[-1], data[-9] = 0, 1
    assert len({before, after_last, digest(data)}) == 3


def _bytes(data: bytes | bytearray) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
