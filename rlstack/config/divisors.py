"""Numbers of ranks that have to divide something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def indivisible(key: str, size: int, counts: Mapping[str, int]) -> Iterator[str]:
    """One problem if `size`, which is what `key` says, does not divide all of `counts`, by their names."""
    if rests := [f"{count} {what}" for what, count in counts.items() if count % size]:
        sizes = [str(d) for d in range(1, size) if all(count % d == 0 for count in counts.values())]
        yield f"{key} = {size}: does not divide the model's {' and '.join(rests)}; try {' or '.join(sizes)}"
