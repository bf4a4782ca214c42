"""`Params` and `Grads`: which arrays to train, and what the loss wants changed in them.

Both go by identity: two parameters with equal values are two parameters, and one that is used in
two places is one. They hold references, never copies.
"""

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from .errors import NotAskedError
from .tensor import Tensor

ATOMS = (
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    np.ndarray,
    np.generic,
    type,
    ModuleType,
)


class Params:
    """An ordered collection of Tensors, without repetitions.

    Parameters
    ----------
    tensors : iterable of Tensor, optional
    names : iterable of str, optional
        What to call them in messages; `params(model)` finds `layers[0].weight` and the like.

    Notes
    -----
    `in`, `|`, `&` and `==` compare by identity (`==` also the order). Indexing gives a Tensor, a
    slice gives a list. As in Flux 0.12, except that repetitions are dropped.

    Examples
    --------
    >>> import tinyflux as flux
    >>> W, b = flux.Tensor([[1.0, 2.0]]), flux.Tensor([0.0])
    >>> ps = flux.Params([W, b, W])
    >>> len(ps), W in ps, ps[1] is b
    (2, True, True)
    """

    def __init__(self, tensors=(), names=None):
        self.by_id = {}  # the Tensors in order
        self._names = {}
        tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
        for t, name in zip(tensors, names or [None] * len(tensors), strict=True):
            self.add(t, name)

    def add(self, t, name=None):
        """Append `t`, unless it is there already."""
        if not isinstance(t, Tensor):
            raise TypeError(
                f"Params holds Tensors, got {type(t).__name__}; for the parameters of a model "
                "write params(model)"
            )
        if t.mark is not None:
            raise TypeError("Params holds leaves, got a value that was computed by an operation")
        if id(t) not in self.by_id:
            self.by_id[id(t)] = t
            self._names[id(t)] = name

    def discard(self, t):
        """Take `t` out, if it is there."""
        self.by_id.pop(id(t), None)
        self._names.pop(id(t), None)

    def name(self, t):
        """What to call `t` in a message: its path in the model, or its shape."""
        name = self._names.get(id(t))
        return name or f"Tensor of shape {t.shape}"

    def names(self):
        """The names in order."""
        return [self.name(t) for t in self]

    def __iter__(self):
        return iter(self.by_id.values())

    def __len__(self):
        return len(self.by_id)

    def __contains__(self, t):
        return id(t) in self.by_id

    def __getitem__(self, i):
        return list(self.by_id.values())[i]

    def __or__(self, other):
        both = [*self, *other]
        return Params(both, [self._names.get(id(t)) or _name_in(other, t) for t in both])

    def __and__(self, other):
        kept = [t for t in self if any(t is u for u in other)]
        return Params(kept, [self._names[id(t)] for t in kept])

    def __eq__(self, other):
        if not isinstance(other, Params):
            return NotImplemented
        return list(self.by_id) == list(other.by_id)

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self):  # ids do not survive a copy; the references do
        return list(self.by_id.values()), list(self._names.values())

    def __setstate__(self, state):
        self.__init__(*state)  # type: ignore[misc]

    def __repr__(self):
        return f"Params([{', '.join(f'{self.name(t)} {t.shape}' for t in self)}])"


def _name_in(ps, t):
    return ps._names.get(id(t)) if isinstance(ps, Params) else None


def params(*models):
    """The trainable Tensors of models, in the order in which a reader meets them.

    Parameters
    ----------
    *models
        Layers, lists, tuples, dicts, dataclasses, Tensors, any object with attributes: whatever
        can be reached from them is searched, each object once, so that a shared or a cyclic part
        counts once. Frozen Tensors are left out.

    Returns
    -------
    Params

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.params(flux.Chain(flux.Dense(2, 3), flux.Dense(3, 1, bias=False)))
    Params([layers[0].weight (2, 3), layers[0].bias (3,), layers[1].weight (3, 1)])
    """
    found = Params()
    for name, t in named_tensors(*models):
        if t.trainable:
            found.add(t, name)
    return found


def named_tensors(*models):
    """Every leaf Tensor that can be reached from `models`, with its path, each once."""
    return [(path, t) for path, t in reachable(*models) if isinstance(t, Tensor) and t.mark is None]


def reachable(*models):
    """Everything that can be reached from `models`, with its path, each object once, depth first."""
    seen = set()
    for i, model in enumerate(models):
        stack = [("" if len(models) == 1 else f"[{i}]", model)]
        while stack:
            path, item = stack.pop()
            if isinstance(item, ATOMS) or id(item) in seen:
                continue
            seen.add(id(item))
            yield path.removeprefix("."), item
            if not isinstance(item, Tensor):
                stack.extend(reversed(list(parts(path, item))))


def parts(path, item):
    """The parts of a container or object, as (path, part)."""
    if isinstance(item, (Mapping, Params)):
        pairs = item.items() if isinstance(item, Mapping) else enumerate(item)
        for key, part in pairs:
            yield f"{path}[{key!r}]", part
    elif isinstance(item, (list, tuple)):
        fields = getattr(item, "_fields", None)  # of a named tuple
        for i, part in enumerate(item):
            yield f"{path}.{fields[i]}" if fields else f"{path}[{i}]", part
    else:
        for name in getattr(type(item), "__slots__", ()):
            if isinstance(name, str) and hasattr(item, name):
                yield f"{path}.{name}", getattr(item, name)
        for name, part in getattr(item, "__dict__", {}).items():
            yield f"{path}.{name}", part


class Grads(Mapping):
    """The gradients of one call: a mapping from each parameter to an array, or to None.

    `None` stands for a parameter that the loss does not depend on. The arrays are yours: they share
    memory with nothing, and what you change in them (clipping, say) the next `update_` uses.

    Arithmetic works parameter by parameter (`2 * gs`, `gs1 + gs2`, `-gs`, `gs / 3`), where None
    counts as zero; so does `gs.map(f)`. `gs.norm()` is the norm of all of them as one vector.

    Raises
    ------
    NotAskedError
        (a KeyError) from `gs[W]` if `W` was not among the parameters.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> w, unused = flux.Tensor([3.0, 4.0]), flux.Tensor(0.0)
    >>> gs = flux.gradient(lambda: 0.5 * np.sum(w**2), flux.Params([w, unused]))
    >>> gs[w], gs[unused], gs.norm()
    (array([3., 4.]), None, 5.0)
    >>> (2 * gs)[w]
    array([6., 8.])
    """

    def __init__(self, params, arrays):
        self.params = params
        self._arrays = arrays  # in the order of params

    def __getitem__(self, t):
        for p, g in zip(self.params, self._arrays, strict=True):
            if p is t:
                return g
        shape = f" of shape {t.shape}" if isinstance(t, Tensor) else f" ({type(t).__name__})"
        raise NotAskedError(
            f"no gradient was asked for this array{shape}; the gradients are those of "
            f"{self.params!r}. Add it to the parameters given to gradient."
        )

    def __setitem__(self, t, g):
        if g is not None and np.shape(g) != t.shape:
            raise ValueError(f"a gradient of shape {t.shape} is wanted, got {np.shape(g)}")
        old = self[t]  # raises for an array that is not there
        place = next(i for i, p in enumerate(self.params) if p is t)
        self._arrays[place] = (
            None if g is None else np.array(g, dtype=(t if old is None else old).dtype)
        )

    def __contains__(self, t):
        return t in self.params

    def __iter__(self):
        return iter(self.params)

    def __len__(self):
        return len(self.params)

    def values(self):
        """The arrays in the order of the parameters."""
        return list(self._arrays)

    def items(self):
        """Pairs of parameter and array."""
        return list(zip(self.params, self._arrays, strict=True))

    def map(self, f):
        """New Grads of `f(array)`; None stays None."""
        return Grads(self.params, [None if g is None else f(g) for g in self._arrays])

    def norm(self):
        """The Euclidean norm of all gradients taken as one vector."""
        return float(
            np.sqrt(sum(float(np.sum(np.square(g))) for g in self._arrays if g is not None))
        )

    def copy(self):
        """The same gradients in new arrays."""
        return self.map(np.array)

    def __neg__(self):
        return self.map(np.negative)

    def __mul__(self, factor):
        return self.map(lambda g: g * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor):
        return self.map(lambda g: g / divisor)

    def __add__(self, other):
        if not isinstance(other, Grads):
            return NotImplemented
        if self.params != other.params:
            raise ValueError(f"gradients of different parameters: {self.params} and {other.params}")
        pairs = zip(self._arrays, other._arrays, strict=True)
        return Grads(self.params, [_sum(a, b) for a, b in pairs])

    def __sub__(self, other):
        return self + -other if isinstance(other, Grads) else NotImplemented

    def __repr__(self):
        shown = ("None" if g is None else f"array{g.shape}" for g in self._arrays)
        names = self.params.names()
        return f"Grads({', '.join(f'{n}: {g}' for n, g in zip(names, shown, strict=True))})"


def _sum(a, b):
    """a + b in a new array, where None is zero."""
    if a is None or b is None:
        return None if a is b else np.array(b if a is None else a)
    return a + b


def freeze_(*models):
    """Take every Tensor of `models` out of training: `params` leaves frozen Tensors out."""
    _set_trainable(models, False)


def thaw_(*models):
    """Undo `freeze_`."""
    _set_trainable(models, True)


def _set_trainable(models, flag):
    for _, t in named_tensors(*models):
        t.trainable = flag
