"""How a rule is run over all parameters, at the speed of NumPy written by hand.

* Many small parameters are updated as one long one: those that are first seen in the same call share
  flat moments, their gradients are gathered end to end, the rule runs once, and each parameter
  subtracts its part. A ufunc call costs as much as a thousand elements; this saves most of them.
* A big parameter is updated in blocks, so that x, g, the moments and the work arrays of a block stay
  in the cache from the first ufunc to the last.
* A rule that is not elementwise (a clip by norm) cuts a chain into stages; then all parameters are
  gathered, and the output of a stage stands in full before the next one begins.

Every element sees the same operations in the same order in each of these ways, so the results are
equal bit for bit. `Stepper` keeps the state, by identity and through weak references; a `Group` is
what is updated together, and a `Plan` is a step over certain parameters with everything prepared.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context
from functools import cache
from itertools import accumulate, pairwise
from math import prod, sqrt
from operator import is_
from typing import Any

import numpy as np

BLOCK = 32768  # elements; smaller parameters share a group
FLUSH = 100  # steps between two looks for moments that fade into the subnormal numbers
PLANS = 16  # kept ready, for optimisers that serve several models in turn
_NEW = "new"  # the kin of parameters that were not updated yet


def _blocks(size: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]


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


def _join(groups: list[Group]) -> Group:
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

    A *direct* lane reads the gradient and writes the parameter where they are; any other one gathers
    its gradients in `inputs[0]` and leaves the amounts to subtract in `inputs[-1]`.
    """

    def __init__(self, group: Group, leaves: tuple, plan: "Plan", members: list[int]) -> None:
        self.group, self.member = group, members[0]
        x = plan.arrays[self.member]
        alone = len(members) == 1 and len(plan.stages) == 1
        self.direct = alone and x.flags.c_contiguous and x.dtype == group.dtype
        self.x = x.reshape(-1) if self.direct else None
        if not self.direct and any(leaf.reads_x for leaf in leaves):
            self.x = np.empty(group.size, group.dtype)
        numbers = [leaf.constants(group.t + 1, 1) for leaf in leaves]
        self.constants = [np.array(values, group.dtype) for values in numbers]
        self.inputs = [None if self.direct else np.empty(group.size, group.dtype)]
        self.stages = []
        for stage in plan.stages:
            flat = self.inputs[-1]
            out = flat if flat is None or not stage else np.empty_like(flat)
            blocks = [self._block(w, stage, out, leaves, plan) for w in _blocks(group.size)]
            self.stages.append(blocks)
            self.inputs.append(out)

    def _block(
        self, where: slice, stage: list[int], out: np.ndarray | None, leaves: tuple, plan: "Plan"
    ) -> tuple:
        """Where a block is, its part of x, and per rule `delta` with all that follows x and g."""
        size, dtype, links = where.stop - where.start, self.group.dtype, []
        for i, k in enumerate(stage):
            leaf, constants = leaves[k], self.constants[k]
            last = out is not None and k == stage[-1]
            u = out[where] if last else plan.scratch(dtype, i % 2)[:size]
            moments = [m[where] for m in self.group.moments[k]]
            work = [plan.scratch(dtype, 2 + j)[:size] for j in range(leaf.scratch)]
            # A 0-d array costs a ufunc call 0.1 us less than a float32, 1 us less than a float.
            numbers = [constants[j, ...] for j in range(len(constants))]
            links.append((k, type(leaf).delta, (u, *moments, *work, *numbers)))
        return where, None if self.x is None else self.x[where], links

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
        """Run a stage, block by block; a direct lane subtracts on the way."""
        direct = self.direct
        flat = gradients[self.member].reshape(-1) if direct else self.inputs[stage]
        for where, x, links in self.stages[stage]:
            g = flat[where]
            for k, delta, rest in links:
                delta(leaves[k], x, g, *rest)
                g = rest[0]
            if direct:
                x -= g


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
        index = {at: i for i, at in enumerate(ids)}
        members = [[index[at] for at in group.ids] for group in groups]
        self.lanes = [
            Lane(group, leaves, self, m) for group, m in zip(groups, members, strict=True)
        ]
        self.gather, self.fetch, self.scatter = [], [], []
        for lane, m in zip(self.lanes, members, strict=True):
            if not lane.direct:
                xs, parts = [arrays[i] for i in m], lane.group.parts
                self.gather += zip(parts(lane.inputs[0]), m, strict=True)
                self.fetch += zip(parts(lane.x), xs, strict=True) if lane.x is not None else ()
                self.scatter += zip(xs, parts(lane.inputs[-1]), strict=True)
        self.inputs = [self._parts(stage) for stage in range(len(self.stages))] if self.clips else []

    def _parts(self, stage: int) -> list[np.ndarray]:
        """What goes into a stage, parameter by parameter."""
        return [part for lane in self.lanes for part in lane.group.parts(lane.inputs[stage])]

    def check(self, gradients: Sequence[np.ndarray]) -> None:
        """Refuse gradients that do not match, before anything is written."""
        shapes = [g.shape for g in gradients]
        if shapes == self.shapes and [g.dtype for g in gradients] == self.dtypes:
            return
        if len(shapes) != len(self.shapes):
            raise ValueError(f"Got {len(shapes)} gradients for {len(self.shapes)} parameters.")
        for i, (g, x) in enumerate(zip(gradients, self.arrays, strict=True)):
            if g.shape != x.shape or g.dtype != x.dtype:
                raise ValueError(
                    f"Gradient {i} has shape {g.shape} and dtype {g.dtype}, its parameter has shape "
                    f"{x.shape} and dtype {x.dtype}; give it the shape and dtype of the parameter."
                )

    def run(self, leaves: tuple, gradients: Sequence[np.ndarray], n: int) -> None:
        """Update all parameters once; `n` is the number of this call."""
        for part, i in self.gather:
            part[...] = gradients[i]
        for part, x in self.fetch:
            part[...] = x
        if self.clips:  # refuse what is not finite before a moment has changed
            leaves[self.clips[0]].norms(self.inputs[0])
        for lane in self.lanes:
            lane.refresh(leaves, n)
            lane.run(leaves, 0, gradients)
        for stage, k in enumerate(self.clips, 1):
            leaves[k].clip_(self.inputs[stage])
            for lane in self.lanes:
                lane.run(leaves, stage, gradients)
        for x, amount in self.scatter:
            x -= amount
        for lane in self.lanes:
            group = lane.group
            group.t += 1
            if not group.t % FLUSH:
                group.settle(leaves)


class Stepper:
    """The state of an optimiser: who belongs to which group, and the plans made so far.

    It holds parameters and rules weakly, so state dies with its parameter, at once and without the
    garbage collector.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._rules: list[weakref.ref] = []
        self._entries: dict[int, tuple[weakref.ref, Group]] = {}
        self._plans: dict[tuple[int, ...], Plan] = {}
        # NumPy is silent in this context: an underflow within a rule is not the user's, and must
        # not stop an update half-way. Entering it is ten times cheaper than `np.errstate`.
        self._quiet = Context()
        self._quiet.run(np.seterr, all="ignore")

    def step_(self, leaves: tuple, keys: Sequence, arrays: Sequence, gradients: Sequence) -> None:
        """Update `arrays` once, in place, by a chain of rules."""
        self.adopt(leaves)
        ids = tuple(map(id, keys))
        plan = self._plans.get(ids)
        if plan is None or len(arrays) != len(ids) or not all(map(is_, arrays, plan.arrays)):
            plan = self._plan(leaves, keys, ids, arrays)
        plan.check(gradients)
        self._quiet.run(plan.run, leaves, gradients, self.calls + 1)
        self.calls += 1

    def _plan(self, leaves: tuple, keys: Sequence, ids: tuple, arrays: Sequence) -> Plan:
        """Sort the parameters into groups and prepare their step."""
        if len(arrays) != len(ids) or len(set(ids)) != len(ids):
            raise ValueError(f"Got {len(arrays)} arrays for {len(set(ids))} different parameters.")
        for i, x in enumerate(arrays):
            if x.dtype.kind != "f" or not x.flags.writeable:
                what = f"of {x.dtype}" if x.dtype.kind != "f" else "read-only"
                raise TypeError(f"Parameter {i} is {what}; wanted a writeable array of floats.")
        for key, x in zip(keys, arrays, strict=True):
            self._welcome(leaves, key, x)
        for group in self._groups(ids):
            if not set(group.ids) <= set(ids):
                self._split(group)
        families: dict[Any, list[Group]] = {}
        for group in self._groups(ids):
            small = group.kin is not None and group.size < BLOCK
            alike = (group.dtype, group.t, *group.scales, group.kin) if small else id(group)
            families.setdefault(alike, []).append(group)
        groups = [_join(family) for family in families.values()]
        self._enter(groups)
        if len(self._plans) >= PLANS:
            self._plans.clear()
        plan = self._plans[ids] = Plan(leaves, ids, arrays, groups)
        return plan

    def _groups(self, ids: Iterable[int]) -> list[Group]:
        return list({id(group): group for group in (self._entries[at][1] for at in ids)}.values())

    def _welcome(self, leaves: tuple, key: Any, x: np.ndarray) -> None:
        """See to it that `key` has a group that fits `x`; moments are at least float32."""
        at, dtype = id(key), np.promote_types(x.dtype, np.float32)
        if at not in self._entries:
            moments = [[np.zeros(x.size, dtype) for _ in leaf.moments] for leaf in leaves]
            scales = [leaf.scale() for leaf in leaves]
            self._watch(key, Group([at], [x.shape], dtype, 0, moments, scales, _NEW))
        group = self._entries[at][1]
        shape = group.shapes[group.ids.index(at)]
        if shape != x.shape:
            raise ValueError(
                f"The state of a parameter was made for shape {shape}, but it has shape {x.shape} "
                "now; reset_() the optimiser if that is what you want."
            )
        if group.dtype != dtype:
            self._split(group)
            own = self._entries[at][1]
            own.dtype, own.kin = dtype, _NEW
            own.moments = [[m.astype(dtype) for m in ms] for ms in own.moments]

    def _split(self, group: Group) -> None:
        self._plans.clear()
        self._enter(group.split())

    def _enter(self, groups: Iterable[Group]) -> None:
        """Make these the groups of their living members."""
        for group in groups:
            for at in group.ids:
                if at in self._entries:
                    self._entries[at] = (self._entries[at][0], group)

    def adopt(self, leaves: tuple) -> None:
        """Follow a chain that was changed: rules keep their moments, new ones start with zeros."""
        old, new = self._rules, [weakref.ref(leaf) for leaf in leaves]
        if old == new:
            return
        self._rules = new
        self._plans.clear()
        for group in self._groups(self._entries):
            moments, scales = group.moments, group.scales
            group.moments, group.scales = [], []
            for rule, leaf in zip(new, leaves, strict=True):
                k = old.index(rule) if rule in old else None
                zeros = [np.zeros(group.size, group.dtype) for _ in leaf.moments]
                group.moments.append(zeros if k is None else moments[k])
                group.scales.append(leaf.scale() if k is None else scales[k])

    def _watch(self, key: Any, group: Group) -> None:
        """Keep `group` for as long as `key` lives."""
        this, at = weakref.ref(self), id(key)

        def forget(_: weakref.ref) -> None:
            stepper = this()
            if stepper is not None:
                stepper.forget(at)

        self._entries[at] = (weakref.ref(key, forget), group)

    def forget(self, at: int) -> None:
        """Drop the state of the key with this id."""
        group = self._entries.pop(at)[1]
        group.ids[group.ids.index(at)] = -1  # nobody's id: the others will part from it
        self._plans.clear()

    def state(self, leaves: tuple, key: Any) -> dict[str, Any]:
        """Copies of what is kept for `key`, by name."""
        self.adopt(leaves)
        if id(key) not in self._entries:
            return {}
        group = self._entries[id(key)][1]
        i = group.ids.index(id(key))
        state: dict[str, Any] = {}
        for k, (prefix, leaf) in enumerate(zip(_prefixes(leaves), leaves, strict=True)):
            for name, m in zip(leaf.moments, group.moments[k], strict=True):
                state[prefix + name] = m[group.places[i]].reshape(group.shapes[i]).copy()
            if any(scale != 1 for scale in group.scales[k]):
                state[prefix + "scale"] = np.array(group.scales[k])
        return {**state, "t": group.t, "step": self.calls}

    def load_(
        self, leaves: tuple, key: Any, state: Mapping[str, Any], shape: tuple, dtype: np.dtype
    ) -> None:
        """Put back what `state` returned; {} forgets the key."""
        self.adopt(leaves)
        moments, scales = [], []
        dtype = np.promote_types(dtype, np.float32)
        for prefix, leaf in zip(_prefixes(leaves), leaves, strict=True):
            names = [prefix + name for name in leaf.moments] if state else []
            for name in names:
                if np.shape(state.get(name)) != shape:
                    raise ValueError(f"The state's {name!r} must be an array of shape {shape}.")
            moments.append([np.array(state[name], dtype).reshape(-1) for name in names])
            scales.append(tuple(map(float, state.get(prefix + "scale", [1.0] * len(names)))))
        if id(key) in self._entries:
            self.forget(id(key))
        if state:
            t = int(state["t"])
            self._watch(key, Group([id(key)], [shape], dtype, t, moments, scales, _NEW))
            self.calls = int(state.get("step", t))

    def states(self, leaves: tuple) -> tuple:
        """Everything, with the keys themselves, as pickle and deepcopy want it."""
        kept = []
        for ref, group in list(self._entries.values()):
            key = ref()
            if key is not None:
                shape = group.shapes[group.ids.index(id(key))]
                kept.append((key, self.state(leaves, key), shape, group.dtype))
        return self.calls, kept

    def load_all_(self, leaves: tuple, states: tuple) -> None:
        """Put back what `states` returned."""
        calls, kept = states
        for key, state, shape, dtype in kept:
            self.load_(leaves, key, state, shape, dtype)
        self.calls = calls


def _prefixes(leaves: tuple) -> list[str]:
    """In a chain the names of moments begin with the position of their rule."""
    return [f"{i}." if len(leaves) > 1 else "" for i in range(len(leaves))]
