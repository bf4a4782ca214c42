"""How a rule is run over all parameters, at the speed of NumPy written by hand.

* Many small parameters are updated as one long one: those that are first seen in the same call
  share flat moments, their gradients and they themselves are gathered end to end, and the rule runs
  once. A ufunc call costs as much as a thousand elements; this saves most of them.
* A big parameter is updated in blocks, so that x, g, the moments and the work arrays of a block
  stay in the cache from the first ufunc to the last.
* A rule that is not elementwise (a clip by norm) cuts a chain into stages; then all gradients are
  copied, and the output of a stage stands in full before the next one begins.

Every element sees the same operations in the same order in each of these ways, so the results are
equal bit for bit. A `Group` is what is updated together, a `Lane` is a group bound to its arrays,
and a `Plan` is a whole step with everything prepared that stays the same.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, pairwise
from math import prod, sqrt
from operator import attrgetter
from typing import Any

import numpy as np

BLOCK = 32768  # elements; smaller parameters share a group
LARGE = 131072  # elements; from here on BLAS does the last two passes of a step in one
FLUSH = 100  # steps between two looks for moments that fade into the subnormal numbers


_shape, _dtype = attrgetter("shape"), attrgetter("dtype")


def _blocks(size: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]


def _axpy(rule: Any, dtype: np.dtype) -> Callable[..., Any] | None:
    """BLAS's y += a x for rules that say their `direction`; None for others."""
    if "direction" not in vars(type(rule)) or dtype.char not in "fd":
        return None
    from scipy.linalg import blas  # only large parameters need it, and it is slow to import

    return blas.saxpy if dtype.char == "f" else blas.daxpy


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
                    for where in _blocks(self.size):
                        part = m[where]
                        part *= np.abs(part) > bound


def join(groups: list[Group]) -> Group:
    """One settled group out of many, their moments copied end to end."""
    joined = groups[0]
    if len(groups) > 1:
        ids = [at for group in groups for at in group.ids]
        shapes = [shape for group in groups for shape in group.shapes]
        rules = zip(*(group.moments for group in groups), strict=True)
        moments = [[np.concatenate(ms) for ms in zip(*rule, strict=True)] for rule in rules]
        joined = Group(ids, shapes, joined.dtype, joined.t, moments, joined.scales, None)
    joined.kin = None
    return joined


class Lane:
    """A group, bound to its arrays: the constants of a step, and the blocks of every stage.

    `x` is the parameter itself where that can be. Otherwise it is a copy end to end, written back
    afterwards; or, where no rule reads the parameters (`remote`), what is to be subtracted.
    `inputs` says what goes into each stage; None: the gradient as it comes.
    """

    def __init__(self, group: Group, leaves: tuple, plan: "Plan", members: list[int]) -> None:
        self.group, self.member = group, members[0]
        x = plan.arrays[self.member]
        self.home = len(members) == 1 and x.flags.c_contiguous and x.dtype == group.dtype
        self.x = x.reshape(-1) if self.home else np.empty(group.size, group.dtype)
        reads = any(leaf.reads_x for leaf in leaves) or not plan.stages[-1]
        self.remote = not self.home and not reads
        as_it_comes = self.home and len(plan.stages) == 1
        self.inputs: list[Any] = [None if as_it_comes else np.empty_like(self.x)]
        numbers = [leaf.constants(group.t + 1, 1) for leaf in leaves]
        self.constants = [np.array(values, group.dtype) for values in numbers]
        self.stages = []
        for stage in plan.stages:
            last = len(self.inputs) == len(plan.stages)
            if last:
                out = self.x if self.remote else None
            else:
                out = np.empty_like(self.x) if stage else self.inputs[-1]
            blocks = [self._block(w, stage, out, leaves, plan) for w in _blocks(group.size)]
            self.stages.append(blocks)
            self.inputs.append(out)
        one = len(leaves) == 1 and self.home and group.size >= LARGE
        self.axpy = _axpy(leaves[0], group.dtype) if one else None

    def _block(
        self, where: slice, stage: list[int], out: Any, leaves: tuple, plan: "Plan"
    ) -> tuple:
        """Where a block is, its part of x, and per rule `delta` with all that follows x and g."""
        size, dtype, links = where.stop - where.start, self.group.dtype, []
        for i, k in enumerate(stage):
            leaf, constants = leaves[k], self.constants[k]
            full = out is not None and k == stage[-1]
            u = out[where] if full else plan.scratch(dtype, i % 2)[:size]
            moments = [m[where] for m in self.group.moments[k]]
            work = [plan.scratch(dtype, 2 + j)[:size] for j in range(leaf.scratch)]
            # A 0-d array costs a ufunc call 0.2 us less than a np.float32, 1 us less than a float.
            numbers = [constants[j, ...] for j in range(len(constants))]
            links.append((k, type(leaf).delta, (u, *moments, *work, *numbers)))
        return where, self.x[where], links

    def refresh(self, leaves: tuple, n: int) -> None:
        """Compute the numbers of this step; follow a change of a rule's scale."""
        group = self.group
        for k, leaf in enumerate(leaves):
            self.constants[k][...] = leaf.constants(group.t + 1, n)
            scale = leaf.scale()
            if scale != group.scales[k]:
                for m, old, new in zip(group.moments[k], group.scales[k], scale, strict=True):
                    m *= np.asarray(old / new, m.dtype)
                group.scales[k] = scale

    def run(self, leaves: tuple, stage: int, gradients: Sequence[np.ndarray]) -> None:
        """Run a stage block by block; the last one subtracts."""
        if self.axpy is not None:
            self.run_large(self.axpy, leaves[0], gradients[self.member].reshape(-1))
            return
        flat, subtract = self.inputs[stage], stage == len(self.stages) - 1 and not self.remote
        if flat is None:
            flat = gradients[self.member].reshape(-1)
        for where, x, links in self.stages[stage]:
            g = flat[where]
            for k, delta, rest in links:
                delta(leaves[k], x, g, *rest)
                g = rest[0]
            if subtract:
                x -= g

    def run_large(self, axpy: Callable[..., Any], rule: Any, flat: np.ndarray) -> None:
        """Block by block: the direction, and x -= rate * direction in a single pass."""
        direction, rate = type(rule).direction, -float(self.constants[0][-1])
        for where, x, ((_, _, rest),) in self.stages[0]:
            direction(rule, x, flat[where], *rest)
            axpy(rest[0], x, a=rate)


class Plan:
    """A step over certain parameters, with everything prepared that stays the same."""

    def __init__(
        self, leaves: tuple, ids: Sequence[int], arrays: Sequence[np.ndarray], groups: list[Group]
    ) -> None:
        self.arrays = list(arrays)
        self.shapes, self.dtypes = [x.shape for x in arrays], [x.dtype for x in arrays]
        self.stages: list[list[int]] = [[]]  # the positions of the elementwise rules in each
        self.clips: list[int] = []  # those of the rules between two stages
        for k, leaf in enumerate(leaves):
            if leaf.elementwise:
                self.stages[-1].append(k)
            else:
                self.stages.append([])
                self.clips.append(k)
        self.scratch: Callable[..., np.ndarray] = cache(lambda dtype, i: np.empty(BLOCK, dtype))
        self.lanes: list[Lane] = []
        self.gather: list[tuple[np.ndarray, int]] = []  # part of a flat array, which gradient
        self.copies: list[tuple[np.ndarray, np.ndarray]] = []  # part of a flat array, parameter
        self.steps: list[tuple[np.ndarray, np.ndarray]] = []  # the same, for remote lanes
        index = {at: i for i, at in enumerate(ids)}
        for group in groups:
            members = [index[at] for at in group.ids]
            lane = Lane(group, leaves, self, members)
            self.lanes.append(lane)
            if lane.inputs[0] is not None:
                self.gather += zip(group.parts(lane.inputs[0]), members, strict=True)
            if not lane.home:
                xs = [arrays[i] for i in members]
                pairs = self.steps if lane.remote else self.copies
                pairs += zip(group.parts(lane.x), xs, strict=True)
        self.inputs = [self._parts(i) for i in range(len(self.stages))] if self.clips else []

    def places(self) -> list[np.ndarray | None]:
        """Where each gradient may be written straight away; None: anywhere."""
        places: list[np.ndarray | None] = [None] * len(self.arrays)
        for part, i in self.gather:
            if part.dtype == self.dtypes[i]:
                places[i] = part
        return places

    def _parts(self, stage: int) -> list[np.ndarray]:
        """What goes into a stage, parameter by parameter."""
        flats = [(lane.group, lane.inputs[stage]) for lane in self.lanes]
        return [part for group, flat in flats for part in group.parts(flat)]

    def check(self, gradients: Sequence[np.ndarray]) -> None:
        """Refuse gradients that do not match, before anything is written."""
        shapes = list(map(_shape, gradients))
        if shapes == self.shapes and list(map(_dtype, gradients)) == self.dtypes:
            return
        if len(shapes) != len(self.shapes):
            raise ValueError(f"Got {len(shapes)} gradients for {len(self.shapes)} parameters.")
        for i, (g, x) in enumerate(zip(gradients, self.arrays, strict=True)):
            if g.shape != x.shape or g.dtype != x.dtype:
                raise ValueError(
                    f"Gradient {i} has shape {g.shape} and dtype {g.dtype}, its parameter has "
                    f"{x.shape} and {x.dtype}; both must agree."
                )

    def run(self, leaves: tuple, gradients: Sequence[Any], n: int, gathered: bool = False) -> None:
        """Update all parameters once; `n` is the number of this call.

        `gathered` says that the gradients have been written to their `places`.
        """
        for part, i in () if gathered else self.gather:
            part[...] = gradients[i]
        for part, x in self.copies:
            part[...] = x
        if self.clips and self.stages[0]:  # refuse what is not finite before a moment has changed
            leaves[self.clips[0]].norms(self.inputs[0])
        for lane in self.lanes:
            lane.refresh(leaves, n)
            lane.run(leaves, 0, gradients)
        for stage, k in enumerate(self.clips, 1):
            leaves[k].clip_(self.inputs[stage])
            for lane in self.lanes:
                lane.run(leaves, stage, gradients)
        for part, x in self.copies:
            x[...] = part
        for part, x in self.steps:
            x -= part
        for lane in self.lanes:
            group = lane.group
            group.t += 1
            if not group.t % FLUSH:
                group.settle(leaves)
