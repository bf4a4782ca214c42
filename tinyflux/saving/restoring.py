"""Putting back what was saved: first everything is looked at, then everything is written."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..atomic import fill
from ..optimise.rule import UpdateRule
from ..tensor import Tensor
from .content import arrays_of, generators_of, tensors_of

# A position within the numbers drawn ahead, and its largest value: NumPy does not look.
POSITIONS = {"MT19937": (("state", "pos"), 624), "Philox": (("buffer_pos",), 4)}


def problems(
    tree: Mapping[str, Any], model: Any, opt: UpdateRule | None, loader: Any
) -> Iterator[str]:
    """What does not fit, each in a line; nothing is changed."""
    yield from of_model(tree["model"], arrays_of(model), tree.get("nan", False))
    if opt is not None:
        if "optimiser" not in tree:
            yield "the optimiser: the file is not a checkpoint; load it without one"
        else:
            stored, tensors = tree["model"], tensors_of(model)
            fitting = {n: t for n, t in tensors.items() if alike(stored.get(n), t._array)}
            yield from of_optimiser(tree["rules"], tree["optimiser"], opt, fitting)
    if loader is not None:
        if "loader" not in tree:
            yield "the loader: its position is not in the file; load it without one"
        else:
            yield from of_loader(tree["loader"], loader)
    if (opt is not None and "optimiser" in tree) or (loader is not None and "loader" in tree):
        yield from of_generators(tree["generators"], generators_of(model))


def of_model(
    stored: Mapping[str, np.ndarray], live: Mapping[str, np.ndarray], nan: bool
) -> Iterator[str]:
    """What is wrong with the arrays of the model."""
    yield from unequal(stored, live, "the model")
    for name, array in live.items():
        found = stored.get(name)
        if found is None:
            continue
        if not alike(found, array):
            yield f"{name}: {form(found)} in the file, {form(array)} in the model"
        if not array.flags.writeable:
            yield f"{name}: the array of the model is read-only"
        if not nan and has_nan(found):
            yield f"{name}: holds NaN, and was not saved with allow_nan=True"


def unequal(stored: Iterable[str], live: Iterable[str], whose: str) -> Iterator[str]:
    """Names that only one of the two has."""
    stored, live = dict.fromkeys(stored), dict.fromkeys(live)
    yield from (f"{name}: not in the file" for name in live if name not in stored)
    yield from (f"{name[:200]}: not in {whose}" for name in stored if name not in live)


def alike(found: np.ndarray | None, array: np.ndarray) -> bool:
    """Whether an array of the file fits into one of the model."""
    return found is not None and form(found) == form(array)


def form(array: np.ndarray) -> str:
    """Dtype and shape in a few letters; the byte order does not matter."""
    return f"{array.dtype.newbyteorder('=')} {array.shape}"


def has_nan(array: np.ndarray) -> bool:
    """Whether there is a NaN in it."""
    return array.dtype.kind in "fc" and bool(np.isnan(array).any())


def of_optimiser(
    rules: list, states: Mapping[str, Any], opt: UpdateRule, tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """What is wrong with the optimiser; tried on a copy of it."""
    leaves = opt.leaves()
    if (saved := [rule[0] for rule in rules]) != (mine := [type(leaf).__name__ for leaf in leaves]):
        yield f"the optimiser: {'-'.join(saved)} in the file, got {'-'.join(mine)}"
        return
    for leaf, (kind, fields) in zip(leaves, rules, strict=True):
        trial = copy.copy(leaf)
        for name, value in fields.items():
            try:
                setattr(trial, name, typed(value, getattr(leaf, name)))
            except (AttributeError, TypeError, ValueError) as error:
                yield f"the optimiser: {kind} with {name}={value!r}: {error}"
    trial = copy.copy(opt)
    trial.reset_()
    for name, t in tensors.items():
        try:
            trial.load_state_(t, states[name], t._array)
            if not same(trial.state(t), states[name]):
                yield f"the optimiser: the state of {name} is not that of such a rule"
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            yield f"the optimiser: the state of {name}: {error}"


def typed(value: Any, live: Any) -> Any:
    """The value of a field from a file, where tuples are lists."""
    return tuple(value) if isinstance(live, tuple) and isinstance(value, list) else value


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal, to the last bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (
            (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        )
    return type(a) is type(b) and a == b


def of_generators(
    states: Mapping[str, Any], generators: Mapping[str, np.random.Generator]
) -> Iterator[str]:
    """What is wrong with the states of random numbers."""
    yield from (f"the generators: {line}" for line in unequal(states, generators, "the model"))
    for name, rng in generators.items():
        if name in states:
            yield from (f"the generator {name}: {line}" for line in of_generator(states[name], rng))


def of_generator(state: Any, rng: np.random.Generator) -> Iterator[str]:
    """What is wrong with one; tried on a new one."""
    kind = type(rng.bit_generator)
    try:
        path, largest = POSITIONS.get(kind.__name__, ((), 0))
        if path and not 0 <= operator.index(deep(state, path)) <= largest:
            raise ValueError(f"{path[-1]} is not in 0, ..., {largest}")
        kind(0).state = state
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        yield f"the file has no state of a {kind.__name__}: {error}"


def deep(tree: Any, path: tuple[str, ...]) -> Any:
    """An item of nested dicts."""
    for key in path:
        tree = tree[key]
    return tree


def of_loader(state: Any, loader: Any) -> Iterator[str]:
    """What is wrong with the position of the loader; tried on a copy."""
    trial = copy.copy(loader)
    rng = getattr(loader, "rng", None)
    if isinstance(rng, np.random.Generator):
        trial.rng = np.random.Generator(type(rng.bit_generator)(0))
        if isinstance(state, dict) and state.get("rng") is not None:
            yield from (f"the loader: its generator: {p}" for p in of_generator(state["rng"], rng))
    try:
        trial.restore_(state)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        yield f"the loader: {error}"


# --------------------------------------------------------------------------------- the commit


def write(tree: Mapping[str, Any], model: Any, opt: UpdateRule | None, loader: Any) -> None:
    """Put everything in its place; interrupted, it puts everything back as it was."""
    live = arrays_of(model)
    targets = [a.view(np.ndarray) for a in live.values()]
    sources = [tree["model"][name] for name in live]
    if opt is None and loader is None:
        fill(targets, sources)
        return
    undo: list[Callable[[], Any]] = [later(fill, targets, [a.copy() for a in targets])]
    steps: list[Callable[[], Any]] = [later(fill, targets, sources)]
    if opt is not None:
        for leaf, (_, fields) in zip(opt.leaves(), tree["rules"], strict=True):
            for name, value in fields.items():
                undo.append(later(setattr, leaf, name, getattr(leaf, name)))
                steps.append(later(setattr, leaf, name, typed(value, getattr(leaf, name))))
        states = tree["optimiser"]
        for name, t in tensors_of(model).items():
            undo.append(later(opt.load_state_, t, opt.state(t), t._array))
            steps.append(later(opt.load_state_, t, states[name], t._array))
        undo.append(later(setattr, opt._stepper, "calls", opt._stepper.calls))
        if not any(states.values()):  # saved before its first step
            steps.append(later(setattr, opt._stepper, "calls", 0))
    if loader is not None:
        undo.append(later(loader.restore_, loader.state()))
        steps.append(later(loader.restore_, tree["loader"]))
    for name, rng in generators_of(model).items():
        bits = rng.bit_generator
        undo.append(later(setattr, bits, "state", bits.state))
        steps.append(later(setattr, bits, "state", tree["generators"][name]))
    try:
        for step in steps:
            step()
    except BaseException:
        for step in undo:
            step()
        raise


def later(f: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """A call for later."""
    return lambda: f(*args)
