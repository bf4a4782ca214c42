"""What an optimiser remembers, and of whom.

`Stepper` keeps the state of every parameter by identity and through a weak reference: it dies with
its parameter, and a new object at the same address never finds it. It sorts the parameters of a
call into the groups of `groups.py`; parameters that stop coming together part again.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_, setitem
from typing import Any

import numpy as np

from ..alignment import aligned
from ..atomic import at_once
from ..checks import as_array, as_integer, numeric, shown
from ..quiet import QUIET
from .groups import Group, join
from .plan import Plan, agree, apart, refuse_odd

PLANS = 16  # kept ready, for optimisers that serve several models in turn
_NEW = "new"  # the kin of parameters that were not updated yet


class Stepper:
    """The state of an optimiser: who belongs to which group, and the plans made so far.

    It holds parameters weakly and its owner not at all, so state dies with its parameter or its
    optimiser, at once and without the garbage collector.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.chain: Sequence[Any] = ()  # the rules whose moments the groups have, in a chain
        self._entries: dict[int, tuple[weakref.ref, Group]] = {}
        self._plans: dict[tuple[int, ...], Plan] = {}

    def step_(self, leaves: tuple, keys: Sequence, arrays: Sequence, gradients: Sequence) -> None:
        """Update `arrays` once, in place, by a chain of rules."""
        refuse_odd(arrays)
        ids = tuple(map(id, keys))
        plan = self._plans.get(ids)
        if plan is None or len(arrays) != len(ids) or not all(map(is_, arrays, plan.arrays)):
            for key in keys:
                referable(key)
            agree(gradients, arrays)  # before a new parameter gets its state
            plan = self._plan(leaves, keys, ids, arrays)
        plan.check(gradients)
        if plan.in_place:
            gradients = apart(gradients, arrays)
        QUIET.copy().run(plan.run, self, leaves, gradients)

    def prepare(self, read: Callable[[], tuple], keys: Sequence, arrays: Sequence) -> "Prepared":
        """A step over these parameters that is looked up once and run many times.

        `read` tells the rules of the chain, which may change meanwhile.
        """
        leaves = read()
        ids = tuple(map(id, keys))
        plan = self._plans.get(ids)
        if plan is None or not all(map(is_, arrays, plan.arrays)):
            refuse_odd(arrays)
            plan = self._plan(leaves, keys, ids, arrays)
        return Prepared(self, read, leaves, ids, plan)

    def _plan(self, leaves: tuple, keys: Sequence, ids: tuple, arrays: Sequence) -> Plan:
        """Sort the parameters into groups and prepare their step."""
        if len(arrays) != len(ids) or len(set(ids)) != len(ids):
            raise ValueError(f"Got {len(arrays)} arrays for {len(set(ids))} different parameters.")
        for key, x in zip(keys, arrays, strict=True):
            self._welcome(leaves, key, x)
        for group in self._groups(ids):
            if not set(group.ids) <= set(ids):
                self._part(group.split())
        families: dict[Any, list[Group]] = {}
        for group in self._groups(ids):
            kind = (group.dtype, group.t, *group.scales, group.kin)
            alike = kind if group.is_small else id(group)
            families.setdefault(alike, []).append(group)
        groups = [join(family) for family in families.values()]
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
            moments = [[aligned(x.size, dtype, np.zeros) for _ in leaf.moments] for leaf in leaves]
            scales = [(1.0,) * len(leaf.moments) for leaf in leaves]
            self._watch(key, Group([at], [x.shape], dtype, 0, moments, scales, _NEW))
        group = self._entries[at][1]
        shape = group.shapes[group.ids.index(at)]
        if shape != x.shape:
            raise ValueError(
                f"The state of a parameter was made for shape {shape}, but it has shape {x.shape} "
                "now; reset_() the optimiser if that is what you want."
            )
        if group.dtype != dtype:
            parted = group.split()
            (own,) = (g for g in parted if g.ids == [at])
            own.dtype, own.kin = dtype, _NEW
            own.moments = [[m.astype(dtype) for m in ms] for ms in own.moments]
            self._part(parted)

    def _part(self, groups: Iterable[Group]) -> None:
        """Enter groups that members have left; no plan may know the old ones."""
        self._plans.clear()
        self._enter(groups)

    def _enter(self, groups: Iterable[Group]) -> None:
        """Make these the groups of their living members, all at once."""
        entries = self._entries
        members = [(at, group) for group in groups for at in group.ids if at in entries]
        entries.update({at: (entries[at][0], group) for at, group in members})

    def adopt(self, new: Sequence[Any]) -> None:
        """Follow a chain that was changed: rules keep their moments, new ones start with zeros."""
        places: dict[int, list[int]] = {}  # of each old rule, which may stand there twice
        for i, leaf in enumerate(self.chain):
            places.setdefault(id(leaf), []).append(i)
        befores = [found.pop(0) if (found := places.get(id(leaf))) else None for leaf in new]
        calls: list[tuple] = []
        for group in self._groups(self._entries):
            moments, scales = [], []
            for leaf, k in zip(new, befores, strict=True):
                zeros = [np.zeros(group.size, group.dtype) for _ in leaf.moments]
                moments.append(zeros if k is None else group.moments[k])
                scales.append((1.0,) * len(zeros) if k is None else group.scales[k])
            calls += [(setattr, group, "moments", moments), (setattr, group, "scales", scales)]
        at_once([(self._plans.clear,), *calls, (setattr, self, "chain", new)])

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
        group = self._entries[at][1]
        leave = (setitem, group.ids, group.ids.index(at), -1)  # nobody's id: the others will part
        at_once([(self._plans.clear,), leave, (self._entries.pop, at)])

    def reset_(self) -> None:
        """Forget all, at once; steps that were prepared are not valid any more."""
        at_once(
            [(self._plans.clear,), (self._entries.clear,), (setattr, self, "calls", 0)],
        )

    def state(self, leaves: tuple, key: Any) -> dict[str, Any]:
        """Copies of what is kept for `key`, by name."""
        if id(key) not in self._entries or not self._entries[id(key)][1].t:
            return {}
        group = self._entries[id(key)][1]
        i = group.ids.index(id(key))
        state: dict[str, Any] = {}
        for k, (prefix, leaf) in enumerate(zip(prefixes(leaves), leaves, strict=True)):
            for name, m in zip(leaf.moments, group.moments[k], strict=True):
                state[prefix + name] = m[group.places[i]].reshape(group.shapes[i]).copy()
            if any(scale != 1 for scale in group.scales[k]):
                state[prefix + "scale"] = np.array(group.scales[k])
        return {**state, "t": group.t, "step": self.calls}

    def load_(
        self, leaves: tuple, key: Any, state: Mapping[str, Any], shape: tuple, dtype: np.dtype
    ) -> None:
        """Put back what `state` returned; {} forgets the key."""
        if not isinstance(state, Mapping):
            raise TypeError(f"The state must be a dict as state(key) gives it; got {shown(state)}.")
        if state and "t" not in state:
            raise ValueError("The state must have 't', the number of updates.")
        counts = [
            as_integer(state[k], f"state[{k!r}]", least=0) for k in ("t", "step") if k in state
        ]
        referable(key)
        dtype = np.promote_types(dtype, np.float32)
        pairs = zip(prefixes(leaves), leaves, strict=True)
        loaded = [_loaded(leaf, prefix, state, shape, dtype) for prefix, leaf in pairs]
        if id(key) in self._entries:
            self.forget(id(key))
        if state:
            moments, scales = [ms for ms, _ in loaded], [numbers for _, numbers in loaded]
            self._watch(key, Group([id(key)], [shape], dtype, counts[0], moments, scales, _NEW))
            self.calls = counts[-1]

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


def referable(key: Any) -> None:
    """Refuse a key that cannot be a parameter: one without weak references."""
    try:
        weakref.ref(key)
    except TypeError:
        raise TypeError(f"A parameter is wanted as the key; got {shown(key)}.") from None


class Prepared:
    """A step over certain parameters, for a program that writes the gradients where they are read.

    Attributes
    ----------
    places : list of arrays or None
        Where to write the gradient of each parameter; None: in an array of your own.
    """

    def __init__(
        self, stepper: Stepper, read: Callable, leaves: tuple, ids: tuple, plan: Plan
    ) -> None:
        self.stepper, self.read, self.leaves, self.ids = stepper, read, leaves, ids
        self.plan = plan
        self.places = plan.places()

    def fits(self, arrays: Sequence[np.ndarray]) -> bool:
        """Whether it is still valid, and these are the arrays of the parameters."""
        return self.valid() and all(map(is_, arrays, self.plan.arrays))

    def valid(self) -> bool:
        """Whether nothing has changed since: the parameters, their groups, the chain."""
        return self.read() == self.leaves and self.stepper._plans.get(self.ids) is self.plan

    def run(
        self, gradients: Sequence[np.ndarray], gathered: bool = False, then: Sequence[tuple] = ()
    ) -> None:
        """Update the parameters once; `gathered`: the gradients stand in their `places`.

        The calls `then` belong to the step: they are made if it is made. Raises NotFinite for
        gradients that are not finite; nothing has changed then.
        """
        step, stepper = self.plan.run, self.stepper
        QUIET.copy().run(step, stepper, self.leaves, gradients, gathered, then)


def _loaded(
    leaf: Any, prefix: str, state: Mapping[str, Any], shape: tuple, dtype: np.dtype
) -> tuple[list[np.ndarray], tuple[float, ...]]:
    """The moments of one rule in a state, each laid flat, and their scales."""
    names = [prefix + name for name in leaf.moments] if state else []
    for name in names:
        value = as_array(state.get(name), f"state[{name!r}]")
        if name not in state or value.shape != shape:
            raise ValueError(f"The state's {name!r} must be an array of shape {shape}.")
        numeric(value, f"state[{name!r}]")
    moments = [np.array(state[name], dtype).reshape(-1) for name in names]
    scale = as_array(state.get(prefix + "scale", [1.0] * len(names)), "The state's scale")
    right = scale.shape == (len(names),) and scale.dtype.kind in "fiu"
    if not right or not np.all((scale > 0) & (scale < np.inf)):
        raise ValueError(f"The state's 'scale' must be {len(names)} positive numbers.")
    numbers = scale.astype(float).tolist()
    later = leaf.fade(*numbers) if state else ()
    for i, number in enumerate(numbers):
        if not later or later[i] == number:  # it does not fade: nobody looks at its scale
            moments[i] *= number
            numbers[i] = 1.0
    return moments, tuple(numbers)


def prefixes(leaves: tuple) -> list[str]:
    """In a chain the names of moments begin with the position of their rule."""
    return [f"{i}." if len(leaves) > 1 else "" for i in range(len(leaves))]
