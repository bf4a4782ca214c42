"""`Params`: which arrays to train.

It goes by identity: two parameters with equal values are two parameters, and one that is used in
two places is one. It holds references, never copies.
"""

from collections import deque
from itertools import islice

import numpy as np

from .checks import brief, item, shown
from .tensor import Tensor
from .walking import named_tensors


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
    slice gives a list. As in Flux 0.12, except that repetitions are dropped. Memory into which a
    gradient has copied large arrays stays here, for the next one.

    Examples
    --------
    >>> import tinyflux as flux
    >>> W, b = flux.Tensor([[1.0, 2.0]]), flux.Tensor([0.0])
    >>> ps = flux.Params([W, b, W])
    >>> len(ps), W in ps, ps[1] is b
    (2, True, True)
    """

    walked_as_a_list = True  # inside a model its Tensors are called by their places
    __array_ufunc__ = None  # to NumPy this is no array: array == ps is False

    def __init__(self, tensors=(), names=None):
        self.by_id = {}  # the Tensors in order
        self._names = {}
        self.spare = deque()  # memory that gradients use again, see `borrowing.py`
        if isinstance(tensors, Tensor) or not np.iterable(tensors):
            tensors = [tensors]
        tensors = [leaf(t) for t in tensors]
        names, n = [None] * len(tensors) if names is None else names, len(tensors)
        if not np.iterable(names) or len(known := list(islice(names, n + 1))) != n:
            raise ValueError(f"Params: wanted {n} names for the Tensors, got {brief(names)}")
        for t, name in zip(tensors, known, strict=True):
            self.add(t, name)

    def add(self, t, name=None):
        """Append `t`, unless it is there already.

        Raises
        ------
        TypeError
            If `t` is no Tensor, or not one that was made by you.

        Examples
        --------
        >>> import tinyflux as flux
        >>> ps = flux.Params()
        >>> ps.add(flux.Tensor([0.0]), "offset")
        >>> ps
        Params([offset (1,)])
        """
        if not isinstance(name, (str, type(None))):
            raise TypeError(f"Params: a name is {shown(name)}, but it must be a string")
        if id(leaf(t)) not in self.by_id:
            self.by_id[id(t)] = t
            self._names[id(t)] = name

    def discard(self, t):
        """Take `t` out, if it is there.

        Examples
        --------
        >>> import tinyflux as flux
        >>> layer = flux.Dense(2, 3)
        >>> ps = flux.params(layer)
        >>> ps.discard(layer.bias)
        >>> ps
        Params([weight (2, 3)])
        """
        self.by_id.pop(id(t), None)
        self._names.pop(id(t), None)

    def copy(self):
        """The same Tensors in a collection of its own."""
        new = object.__new__(Params)
        new.by_id, new._names, new.spare = self.by_id.copy(), self._names.copy(), deque()
        return new

    def name(self, t):
        """What to call `t` in a message: its path in the model, or its shape."""
        name = self._names.get(id(t))
        return name or f"Tensor of shape {np.shape(t) if isinstance(t, Tensor) else brief(t)}"

    def names(self):
        """The names in order.

        Examples
        --------
        >>> import tinyflux as flux
        >>> flux.params(flux.Dense(2, 3)).names()
        ['weight', 'bias']
        """
        return [self.name(t) for t in self]

    def __iter__(self):
        return iter(self.by_id.values())

    def __len__(self):
        return len(self.by_id)

    def __contains__(self, t):
        return id(t) in self.by_id

    def __getitem__(self, i):
        return item(list(self.by_id.values()), i, "Params", "parameter")

    def __or__(self, other):
        other = other if isinstance(other, Params) else Params(other)
        both = [*self, *other]
        return Params(both, [self._names.get(id(t)) or other._names.get(id(t)) for t in both])

    def __and__(self, other):
        other = other if isinstance(other, Params) else Params(other)
        kept = [t for t in self if t in other]
        return Params(kept, [self._names[id(t)] for t in kept])

    def __eq__(self, other):
        if not isinstance(other, Params):
            return False  # and not NotImplemented, for an array would compare element by element
        return list(self.by_id) == list(other.by_id)

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self):  # ids do not survive a copy; the references do
        return list(self.by_id.values()), list(self._names.values())

    def __setstate__(self, state):
        self.__init__(*state)

    def __repr__(self):
        shown = (f"{self._names.get(id(t)) or 'Tensor'} {t.shape}" for t in self)
        return f"Params([{', '.join(shown)}])"


def leaf(t):
    """`t`, if it is a Tensor that was made by the user."""
    if not isinstance(t, Tensor):
        raise TypeError(
            f"Params holds Tensors, got {type(t).__name__}; for the parameters of a model "
            "write params(model)"
        )
    if t.mark is not None:
        raise TypeError("Params holds leaves, got a value that was computed by an operation")
    return t


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
    models = tuple(list(m) if isinstance(m, Params) else m for m in models)
    for name, t in named_tensors(*models):
        if getattr(t, "trainable", True):  # an argument of `gradient` has no such mark
            found.add(t, name)
    return found


def freeze_(*models):
    """Take every Tensor of `models` out of training: `params` leaves frozen Tensors out.

    Parameters
    ----------
    *models
        What `params` takes: a layer, a model, a Tensor, ...

    Examples
    --------
    >>> import tinyflux as flux
    >>> m = flux.Chain(flux.Dense(2, 3), flux.Dense(3, 1))
    >>> flux.freeze_(m[0])
    >>> flux.params(m)
    Params([layers[1].weight (3, 1), layers[1].bias (1,)])
    """
    _set_trainable(models, False, "freeze_")


def thaw_(*models):
    """Undo `freeze_`.

    Examples
    --------
    >>> import tinyflux as flux
    >>> W = flux.Tensor([1.0])
    >>> flux.freeze_(W)
    >>> flux.thaw_(W)
    >>> flux.params(W)
    Params([Tensor (1,)])
    """
    _set_trainable(models, True, "thaw_")


def _set_trainable(models, flag, who):
    found = named_tensors(*models)
    if not found:
        raise TypeError(f"{who}: there is no Tensor in {', '.join(map(shown, models)) or '()'}")
    for _, t in found:
        if getattr(t, "trainable", True) is not None:  # a buffer stays one
            t.trainable = flag
