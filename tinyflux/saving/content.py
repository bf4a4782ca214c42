"""What there is to save of a model, its optimiser and its loader: by name, as a tree.

* model: name of an array -> array; nan: whether NaN among them is meant
* rules: of the optimiser, [name of the class, {field: value}]
* optimiser: name of a parameter -> `opt.state(parameter)`
* loader: `loader.state()`
* generators: name of a Generator -> state of its numbers
* extra: whatever the caller adds
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..checks import shown
from ..generators import generator
from ..optimise.rule import UpdateRule
from ..params import Params
from ..tensor import Tensor
from ..walking import named_tensors, parts, reachable

DEFAULT = "(default)"  # the Generator of tinyflux itself, among those of the layers
# Names that come from an address in memory, and are others in the next process.
FLEETING = re.compile(r"\.by_id\[|\bat 0x")
REMEDY = "use strings as keys, and no brackets in the names of attributes"


def tensors_of(model: Any) -> dict[str, Tensor]:
    """The leaf Tensors of a model by their names, frozen ones too, each once."""
    if isinstance(model, Params):
        names = model.names()
        if len(set(names)) < len(names):
            names = [f"[{i}]" for i in range(len(model))]
        return dict(zip(names, model, strict=True))
    found = named_tensors(model)
    tensors = {path or "Tensor": t for path, t in found}
    if len(tensors) < len(found):
        twice = next(path for path, t in found if tensors[path] is not t)
        raise ValueError(f"two Tensors of the model are called {twice}; {REMEDY}")
    return tensors


def arrays_of(model: Any) -> dict[str, np.ndarray]:
    """The arrays of a model by name: of its Tensors, and the plain ones that are its state.

    Those are the writeable arrays of numbers in public attributes of the model itself and of
    whatever can be called in it, also in lists, tuples and dicts there.
    """
    arrays = {name: t._array for name, t in tensors_of(model).items()}
    known = {id(a) for a in arrays.values()}
    owners = {id(model)}
    for path, item in reachable(() if isinstance(model, Params) else model):
        if isinstance(item, Tensor) or not (callable(item) or id(item) in owners):
            continue
        for name, part in parts(path, item):
            if name[len(path) :].lstrip(".").startswith("_"):
                continue
            if isinstance(part, (Mapping, list, tuple)):
                owners.add(id(part))
            elif isinstance(part, np.ndarray) and part.dtype.kind in "biufc":
                if part.flags.writeable and id(part) not in known:
                    known.add(id(part))
                    name = name.removeprefix(".")
                    if name in arrays:
                        raise ValueError(f"two arrays of the model are called {name}; {REMEDY}")
                    arrays[name] = part
    return arrays


def generators_of(model: Any) -> dict[str, np.random.Generator]:
    """The default Generator, and those that layers own."""
    found = {DEFAULT: generator()}
    for path, item in reachable(() if isinstance(model, Params) else model):
        if isinstance(item, np.random.Generator):
            found[path] = item
    return found


def rules_of(opt: UpdateRule) -> list[tuple[str, dict[str, Any]]]:
    """The hyper-parameters of an optimiser, rule by rule; only those that are plain values."""
    return [
        (type(leaf).__name__, {n: v for n in leaf.fields if is_plain(v := getattr(leaf, n))})
        for leaf in opt.leaves()
    ]


def is_plain(value: Any) -> bool:
    """Whether a hyper-parameter is a number, a string, or a few of them."""
    if isinstance(value, (tuple, list)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, np.bool_, np.number))


def state_of(opt: UpdateRule, t: Tensor) -> dict[str, Any]:
    """What the optimiser keeps for a Tensor, in the type of its next update.

    Moments follow a Tensor that was converted only with its next update, but a file is to fit the
    model that is in it.
    """
    dtype, state = np.promote_types(t.dtype, np.float32), opt.state(t)
    numbers = ("t", "step", "scale")
    moments = {n: a for n, a in state.items() if n.split(".")[-1] not in numbers}
    return state | {n: a.astype(dtype) for n, a in moments.items()}


def content_of(
    model: Any, opt: UpdateRule | None, loader: Any, extra: dict[str, Any]
) -> dict[str, Any]:
    """The tree to be saved. The arrays in it are copies, so it is of one moment."""
    arrays = {name: a.copy() for name, a in arrays_of(model).items()}
    if not arrays:
        raise ValueError(
            f"save: there are no Tensors in {shown(model)}; they are found in the attributes of "
            "objects, and in lists and dicts"
        )
    for name in filter(FLEETING.search, arrays):
        raise ValueError(
            f"save: {name} would be called otherwise in the next process; save the model that the "
            "array belongs to, and use strings or numbers as the keys of dicts"
        )
    tree: dict[str, Any] = {"model": arrays}
    if opt is not None or loader is not None:
        found = generators_of(model).items()
        tree["generators"] = {name: rng.bit_generator.state for name, rng in found}
    if opt is not None:
        tree["rules"] = rules_of(opt)
        tree["optimiser"] = {name: state_of(opt, t) for name, t in tensors_of(model).items()}
    if loader is not None:
        tree["loader"] = loader.state()
    return {**tree, "extra": extra}
