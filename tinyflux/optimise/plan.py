"""How a rule is run over all parameters, at the speed of NumPy written by hand.

* Many small parameters are updated as one long one: those that are first seen in the same call
  share flat moments, their gradients and they themselves are gathered end to end, and the rule runs
  once. A ufunc call costs as much as a thousand elements; this saves most of them.
* A big parameter is updated in blocks, so that x, g, the moments and the work arrays of a block
  stay in the cache from the first ufunc to the last.
* A step happens as a whole or not at all: up to its last line nothing has changed that is kept,
  and that line is one call (`at_once`). Rules of ours are written down as calls on the moments
  themselves. Rules of others, and chains with a clip by norm, work on copies of the moments;
  what is written down for those is only that the results are put in their places.

Every element sees the same operations in the same order in each of these ways, so the results are
equal bit for bit. A `Lane` is a group of parameters bound to their arrays, and a `Plan` a whole
step, with everything prepared that stays the same.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain
from math import isfinite
from operator import attrgetter, setitem
from typing import Any, NamedTuple

import numpy as np

from ..alignment import aligned
from ..atomic import at_once
from ..checks import refuse_masked, shown
from .groups import FLUSH, SHRUNK, Group, blocks, renewed
from .writing import in_one_pass, is_straight, reads, written_down

LARGE = 131072  # elements; from here on BLAS does two passes in one where it can

_shape, _dtype = attrgetter("shape"), attrgetter("dtype")


def is_finite(flat: np.ndarray) -> bool:
    """Whether all elements are finite: so are their squares, nearly always, in one quick pass."""
    return isfinite(flat.dot(flat)) or bool(np.isfinite(flat).all())


MAY = (
    "It is to leave in u what is to be subtracted, as in np.multiply(g, lr, out=u), and to return "
    "nothing; beside u it may change its moments and work arrays."
)


def first_odd(gradients: Sequence[np.ndarray]) -> str:
    """Which of the gradients is the first that is not finite."""
    return f"gradient {[is_finite(g.ravel()) for g in gradients].index(False)}"


class NotFinite(FloatingPointError):
    """A gradient is infinite or NaN; nothing was changed."""


class Hole(NamedTuple):
    """Stands in a list of calls for a block of the gradient, until there is one."""

    where: slice


class Lane:
    """A group, bound to its arrays: the constants of a step, and what there is to be done.

    Attributes
    ----------
    home : bool
        Whether a rule works on the parameter where it stands: a single one, contiguous, of the type
        of its moments. Otherwise `x` is memory of its own.
    gathers : bool
        Whether `x` is filled with the parameters before every step: some rule looks at them.
    inputs : list of array or None
        What goes into each stage, end to end; None: the gradient as it comes.
    out : array or None
        What is to be subtracted, end to end; None: each block of it is, as soon as it is there.
    blocks : list of (slice, list)
        For each block, and in it for each stage, what `delta` gets from each rule.
    told, constants : list of tuple, list of array
        The numbers of each rule in the last step, and where its calls read them.
    template : list of tuple
        The calls of a step, with a `Hole` for each block of a gradient that is read as it comes.
    calls, bound
        The template with its holes filled, and the gradient that fills them.
    """

    def __init__(self, group: Group, leaves: tuple, plan: "Plan", members: list[int]) -> None:
        self.group, self.member = group, members[0]
        self.note = vars(group).update  # of its step count and its scales
        # Views stay writeable if a parameter becomes read-only: no step may end in the middle.
        self.xs = [plan.arrays[i].view(np.ndarray) for i in members]
        x = self.xs[0]
        self.home = len(members) == 1 and x.flags.c_contiguous and x.dtype == group.dtype
        whole = plan.careful or not self.home
        new = partial(aligned, group.size, group.dtype)
        self.careful = plan.careful
        self.out: Any = new() if whole else None
        self.x = x.reshape(-1) if self.home else new()
        self.inputs: list[Any] = [None if self.home and not plan.careful else new()]
        self.moments = group.moments
        if plan.careful:
            self.moments = [[np.empty_like(m) for m in ms] for ms in group.moments]
        self.scales = group.scales.copy()
        self.shrunk: list[tuple[np.ndarray, float]] = []
        self.told = [self.numbers(k, leaf, 1) for k, leaf in enumerate(leaves)]
        for leaf, values in zip(leaves, self.told, strict=True):
            if not isinstance(values, tuple):
                name = type(leaf).__name__
                raise TypeError(f"{name}.constants returned {shown(values)}; wanted a tuple")
        self.constants = [np.array(values, group.dtype) for values in self.told]
        for stage in plan.stages[:-1]:
            # A clip works in place, but not on the gradient that others look at.
            own = stage or len(self.inputs) == 1
            self.inputs.append(new() if own else self.inputs[-1])
        if not plan.stages[-1]:
            self.out = self.inputs[-1]
        alone = len(leaves) == 1 and self.home and not plan.careful
        # BLAS would work on a copy of what is not aligned.
        self.large = alone and group.size >= LARGE and self.x.flags.aligned
        self.blocks = [self.block(where, leaves, plan) for where in blocks(group.size)]
        self.gathers = not self.home and self.reads_x(leaves)
        self.template = self.write(leaves, plan.careful)
        self.holes = [i for i, call in enumerate(self.template) if Hole in map(type, call)]
        self.calls = [] if self.holes else self.template
        self.bound: Any = None  # the gradient that stands in `calls`

    def block(self, where: slice, leaves: tuple, plan: "Plan") -> tuple[slice, list[list]]:
        """Where a block is, and per stage and rule what `delta` gets: (position, x, u, ...)."""
        size, dtype, stages = where.stop - where.start, self.group.dtype, []
        x = self.x[where]
        x.setflags(write=not plan.careful)  # rules of others only look at it
        for stage, output in zip(plan.stages, [*self.inputs[1:], self.out], strict=True):
            links = []
            for i, k in enumerate(stage):
                full = output is not None and k == stage[-1]
                u = output[where] if full else plan.scratch(dtype, i % 2)[:size]
                moments = [m[where] for m in self.moments[k]]
                work = [plan.scratch(dtype, 2 + j)[:size] for j in range(leaves[k].scratch)]
                # A 0-d array costs a ufunc call 0.2 us less than a np.float32, 1 us less than a
                # float.
                numbers = [self.constants[k][j, ...] for j in range(len(self.constants[k]))]
                links.append((k, x, u, *moments, *work, *numbers))
            stages.append(links)
        return where, stages

    def reads_x(self, leaves: tuple) -> bool:
        """Whether some rule looks at the parameter; who is not written down may."""
        for _, stages in self.blocks[:1]:
            for k, x, u, *rest in chain(*stages):
                kind = type(leaves[k])
                if not is_straight(kind):
                    return True
                if reads(written_down(kind.delta, leaves[k], x, u, u, *rest), x):
                    return True
        return False

    def numbers(self, k: int, leaf: Any, n: int) -> tuple[float, ...]:
        """The constants of a rule at its next step; its moments fade."""
        group = self.group
        scales = leaf.fade(*group.scales[k])
        if not scales:
            return leaf.constants(group.t + 1, n)
        if min(scales) < SHRUNK:
            scales, factors = renewed(scales)
            self.shrunk += zip(self.moments[k], factors, strict=True)
        self.scales[k] = scales
        return leaf.constants(group.t + 1, n, *scales)

    def refresh(self, leaves: tuple, n: int) -> None:
        """Compute the numbers of this step."""
        self.scales, self.shrunk = self.group.scales.copy(), []
        for k, leaf in enumerate(leaves):
            values = self.numbers(k, leaf, n)
            # Those of SGD are the same in every step; a rule of others may write to them.
            if self.careful or values != self.told[k]:
                self.constants[k][...] = self.told[k] = values

    def shrink(self) -> list[tuple]:
        """The calls that multiply moments by what their scale has gathered, now and then."""
        return [(np.multiply, m, np.asarray(by, m.dtype), m) for m, by in self.shrunk if by != 1]

    def compute(self, leaves: tuple, stage: int) -> None:
        """Run a stage on the copies of the moments; what is to be subtracted ends in `out`."""
        for where, stages in self.blocks:
            g = self.inputs[stage][where]
            g.setflags(write=False)
            for k, x, u, *rest in stages[stage]:
                u[:1] = np.nan
                try:
                    left = leaves[k].delta(x, g, u, *rest)
                except Exception as error:
                    error.add_note(f"This is {type(leaves[k]).__name__}.delta. {MAY}")
                    raise
                returned = "" if left is None or left is u else f" and returned {shown(left)}"
                if returned or np.isnan(u[:1]).any():
                    raise TypeError(
                        f"{type(leaves[k]).__name__}.delta left nothing (or nan) in u{returned}. "
                        + MAY
                    )
                g = u
            if stage == 0 and not stages[0] and len(self.inputs) > 1:
                self.inputs[1][where] = g

    def write(self, leaves: tuple, careful: bool) -> list[tuple]:
        """The calls that change what is kept: moments and parameters."""
        calls: list[tuple] = []
        if careful:
            pairs = zip(chain(*self.group.moments), chain(*self.moments), strict=True)
            calls += [(setitem, m, ..., new) for m, new in pairs]
        else:
            flat = self.inputs[0]
            for where, (links,) in self.blocks:
                g = Hole(where) if flat is None else flat[where]
                calls += self.write_block(leaves, g, links)
        if self.out is not None:
            parts = self.group.parts(self.out)
            calls += [(np.subtract, x, part, x) for x, part in zip(self.xs, parts, strict=True)]
        return calls

    def write_block(self, leaves: tuple, g: Any, links: list) -> list[tuple]:
        """One block: the chain of rules, and x -= u."""
        calls: list[tuple] = []
        for k, x, u, *rest in links:
            calls += written_down(type(leaves[k]).delta, leaves[k], x, g, u, *rest)
            g = u
        if self.out is not None:
            return calls
        calls.append((np.subtract, x, g, x))
        return in_one_pass(calls, [u, *rest]) if self.large else calls

    def filled(self, g: np.ndarray) -> list[tuple]:
        """The calls with a gradient in them that is read where it stands."""
        calls, flat = self.template.copy(), g.reshape(-1)
        for i in self.holes:
            calls[i] = tuple([flat[a.where] if type(a) is Hole else a for a in calls[i]])
        return calls


def refuse_odd(arrays: Sequence[np.ndarray]) -> None:
    """Refuse what cannot be the array of a parameter."""
    for i, x in enumerate(arrays):
        if type(x) is not np.ndarray:
            refuse_masked(x, f"Parameter {i}")
        if not isinstance(x, np.ndarray):
            what = shown(x)
        elif x.dtype.kind != "f":
            what = f"of {x.dtype}"
        elif not x.flags.writeable:
            what = "read-only"
        else:
            continue
        raise TypeError(f"Parameter {i} is {what}; wanted a writeable array of floats.")


def apart(gradients: Sequence[np.ndarray], arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """The gradients, with no memory in common with a parameter.

    A large parameter is updated block by block: what it shared would change in the middle.
    """
    alone = {id(g) for g in gradients if g.base is None}
    if len(alone) == len(gradients) and alone.isdisjoint(map(id, arrays)):
        return gradients
    return [g.copy() if any(np.may_share_memory(g, x) for x in arrays) else g for g in gradients]


def agree(gradients: Sequence[np.ndarray], arrays: Sequence[np.ndarray]) -> None:
    """Refuse gradients that are not those of the arrays."""
    for i, (g, x) in enumerate(zip(gradients, arrays, strict=True)):
        # A value in the other byte order is the same value.
        if g.shape != x.shape or g.dtype.newbyteorder("=") != x.dtype.newbyteorder("="):
            raise ValueError(
                f"Gradient {i} has shape {g.shape} and dtype {g.dtype}, its parameter has "
                f"{x.shape} and {x.dtype}; both must agree."
            )


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
        straight = all(is_straight(type(leaves[k])) for k in chain(*self.stages))
        self.careful = bool(self.clips) or not leaves or not straight
        longest = max((blocks(group.size)[0].stop for group in groups if group.size), default=0)
        self.scratch: Callable[..., np.ndarray] = cache(lambda dtype, i: aligned(longest, dtype))
        self.lanes: list[Lane] = []
        self.gather: list[tuple[np.ndarray, int]] = []  # part of a flat array, which gradient
        self.copies: list[tuple[np.ndarray, np.ndarray]] = []  # part of a flat array, parameter
        index = {at: i for i, at in enumerate(ids)}
        for group in groups:
            members = [index[at] for at in group.ids]
            lane = Lane(group, leaves, self, members)
            self.lanes.append(lane)
            if lane.inputs[0] is not None:
                self.gather += zip(group.parts(lane.inputs[0]), members, strict=True)
            if lane.gathers:
                self.copies += zip(group.parts(lane.x), lane.xs, strict=True)
        self.in_place = any(lane.holes for lane in self.lanes)  # gradients are read where they are
        # Gradients of another type cannot be written straight away (nor in another byte order).
        self.placed = [pair for pair in self.gather if pair[0].dtype == self.dtypes[pair[1]]]
        self.others = [pair for pair in self.gather if pair[0].dtype != self.dtypes[pair[1]]]
        self.inputs = [self._parts(i) for i in range(len(self.stages))] if self.clips else []

    def places(self) -> list[np.ndarray | None]:
        """Where each gradient may be written straight away; None: anywhere."""
        places: list[np.ndarray | None] = [None] * len(self.arrays)
        for part, i in self.placed:
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
        agree(gradients, self.arrays)

    def run(
        self,
        stepper: Any,
        leaves: tuple,
        gradients: Sequence[Any],
        gathered: bool = False,
        then: Sequence[tuple] = (),
    ) -> None:
        """Update all parameters once, and make the calls of `then`: all of this or nothing.

        `gathered` says that the gradients have been written to their `places`, and that they are
        the same arrays in every step. Gradients that are not finite are refused.
        """
        n = stepper.calls + 1
        for part, i in self.others if gathered else self.gather:
            part[...] = gradients[i]
        for lane in self.lanes:
            flat = lane.inputs[0]
            if not is_finite(gradients[lane.member].reshape(-1) if flat is None else flat):
                raise NotFinite(f"{first_odd(gradients)} is not finite; nothing was changed")
        for part, x in self.copies:
            part[...] = x
        for lane in self.lanes:
            lane.refresh(leaves, n)
        if self.careful:
            self.compute(leaves)
        calls: list[tuple] = []
        for lane in reversed(self.lanes):  # the first layer last: it is read next, from the cache
            if lane.shrunk and not self.careful:
                calls += lane.shrink()
            calls += self.calls_of(lane, gradients, gathered)
            calls.append((lane.note, {"t": lane.group.t + 1, "scales": lane.scales}))
        at_once([*calls, (setattr, stepper, "calls", n), *then])
        for lane in self.lanes:
            if not lane.group.t % FLUSH:
                lane.group.settle(leaves)

    def calls_of(self, lane: Lane, gradients: Sequence[Any], gathered: bool) -> list[tuple]:
        """What a lane does last."""
        if lane.holes:
            g = gradients[lane.member]
            if not gathered or not g.flags.c_contiguous:
                return lane.filled(g)
            if lane.bound is not g:
                lane.bound, lane.calls = g, lane.filled(g)
        return lane.calls

    def compute(self, leaves: tuple) -> None:
        """All that comes before the last line, where it is not written down."""
        for lane in self.lanes:
            for m, copy in zip(chain(*lane.group.moments), chain(*lane.moments), strict=True):
                copy[...] = m
            at_once(lane.shrink())
            lane.compute(leaves, 0)
        for stage, k in enumerate(self.clips, 1):
            leaves[k].clip_(self.inputs[stage])
            for lane in self.lanes:
                lane.compute(leaves, stage)
