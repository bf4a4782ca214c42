"""Groups: the parameters that are updated together, and what is remembered of them."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from math import prod, sqrt
from typing import Any

import numpy as np

from ..alignment import aligned

# Elements that go through a rule together; smaller parameters share a group. Up to here OpenBLAS
# adds c * a in the thread that asks (see `writing.in_one_pass`).
BLOCK = 32768
FLUSH = 100  # steps between two looks for moments that fade into the subnormal numbers
SHRUNK = 2.0**-10  # a smaller scale is multiplied into its moment


def blocks(size: int) -> list[slice]:
    """The blocks of so many elements."""
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]


def renewed(scales: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Let no scale become too small: it goes into its moment, and begins at 1 again.

    Returns the new scales, and by what each moment is to be multiplied.
    """
    small = [scale < SHRUNK for scale in scales]
    kept = tuple(1.0 if gone else scale for scale, gone in zip(scales, small, strict=True))
    return kept, tuple(scale if gone else 1.0 for scale, gone in zip(scales, small, strict=True))


class Group:
    """Parameters that are updated together: one step count, and their moments laid end to end.

    `moments` and `scales` have one item per rule of the chain. Members of the same `kin` may still
    join if they come together; None: settled for good.
    """

    def __init__(
        self,
        ids: list[int],
        shapes: list[tuple[int, ...]],
        dtype: np.dtype,
        t: int,
        moments: list[list[np.ndarray]],
        scales: list[tuple[float, ...]],
        kin: object,
    ) -> None:
        self.ids, self.shapes, self.dtype, self.t = ids, shapes, dtype, t
        self.moments, self.scales, self.kin = moments, scales, kin
        edges = [0, *accumulate(map(prod, shapes))]
        self.size, self.places = edges[-1], [slice(*edge) for edge in pairwise(edges)]

    @property
    def is_small(self) -> bool:
        """Whether it may still share a group with others."""
        return self.kin is not None and self.size < BLOCK

    def parts(self, flat: np.ndarray) -> list[np.ndarray]:
        """The members' parts of a flat array, each in its shape."""
        return [flat[p].reshape(s) for p, s in zip(self.places, self.shapes, strict=True)]

    def split(self) -> list["Group"]:
        """One group per member; those that go on coming together will join again."""
        kin, groups = object(), []
        for at, shape, place in zip(self.ids, self.shapes, self.places, strict=True):
            moments = [[m[place] for m in ms] for ms in self.moments]
            groups.append(Group([at], [shape], self.dtype, self.t, moments, [*self.scales], kin))
        return groups

    def settle(self, leaves: Sequence[Any]) -> None:
        """Set moments to 0 that are about to become subnormal, where no parameter can notice.

        Without it the moments of a dead unit fade into numbers that make every step ten times
        slower, for good. In a denominator sqrt(v) + eps nothing is lost if eps is not tiny itself.
        """
        finfo = np.finfo(self.dtype)
        bound = finfo.tiny * 2**20  # at 0.9 per step not yet subnormal at the next look
        for leaf, moments in zip(leaves, self.moments, strict=True):
            if getattr(leaf, "eps", 1.0) * finfo.eps / 4 > sqrt(bound):
                for m in moments:
                    for where in blocks(self.size):
                        part = m[where]
                        part *= np.abs(part) > bound


def join(groups: list[Group]) -> Group:
    """One settled group out of many, their moments copied end to end."""
    joined = groups[0]
    if len(groups) > 1:
        ids = [at for group in groups for at in group.ids]
        shapes = [shape for group in groups for shape in group.shapes]
        rules = zip(*(group.moments for group in groups), strict=True)
        whole = partial(aligned, sum(group.size for group in groups), joined.dtype)
        moments = [
            [np.concatenate(ms, out=whole()) for ms in zip(*rule, strict=True)] for rule in rules
        ]
        joined = Group(ids, shapes, joined.dtype, joined.t, moments, joined.scales, None)
    joined.kin = None
    return joined
