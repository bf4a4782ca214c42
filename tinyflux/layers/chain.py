"""Layers one after another."""

from collections.abc import Iterator

from ..checks import brief, item
from ..errors import ShapeError
from .printing import summary, text


class Chain:
    """Calls its layers one after another, each on the output of the one before.

    Parameters
    ----------
    *layers : callable
        Any functions or layers.
    **named : callable
        Or the same with names: `Chain(encode=Dense(4, 2), decode=Dense(2, 4))`.

    Attributes
    ----------
    layers : tuple
    names : tuple of str, or None

    Raises
    ------
    TypeError
        If a layer cannot be called or is a class of layers, or if some are given by position and
        others by name.

    Notes
    -----
    `chain[0]` is a layer, `chain["encode"]` the one of that name, `chain[1:]` a Chain of the same
    layers. `Chain()` is the identity. As in Flux 0.12.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> m = flux.Chain(flux.Dense(4, 3, flux.tanh), flux.Dense(3, 2), flux.softmax)
    >>> m(np.ones((5, 4))).shape
    (5, 2)
    >>> m[:2]
    Chain(Dense(4, 3, tanh), Dense(3, 2))
    """

    def __init__(self, *layers, **named):
        if layers and named:
            raise TypeError("Chain: give layers either by position or by name, not both")
        if "layers" in named or "names" in named:
            raise ValueError("Chain: a layer cannot be called 'layers' or 'names'")
        self.layers = tuple(named.values()) if named else layers
        self.names = tuple(named) if named else None
        for i, layer in enumerate(self.layers):
            refuse_odd(f"Chain: layer {self._place(i)}", layer)

    def __call__(self, x):
        i, layer = 0, self
        try:
            for i, layer in enumerate(self.layers):  # noqa: B007  (named in the error)
                x = layer(x)
        except ShapeError as error:
            error.place += f", layer {self._place(i)} of Chain"
            raise
        except Exception as error:
            error.add_note(f"in layer {self._place(i)} of Chain, {text(layer)}")
            raise
        return x

    def activations(self, x):
        """The outputs of all layers, as a list; the last one is what a call returns.

        Examples
        --------
        >>> import tinyflux as flux
        >>> flux.Chain(lambda x: x + 1, lambda x: 10 * x).activations(2.0)
        [3.0, 30.0]
        """
        return [x := layer(x) for layer in self.layers]

    def _place(self, i):
        return repr(self.names[i]) if self.names else i

    def __getitem__(self, i):
        if isinstance(i, str):
            if i not in (self.names or ()):
                raise KeyError(
                    f"Chain: no layer is called {brief(i)}; there are {self.names or 'no names'}"
                )
            return self.layers[self.names.index(i)]
        if isinstance(i, slice):
            if self.names:
                return Chain(**dict(zip(self.names[i], self.layers[i], strict=True)))
            return Chain(*self.layers[i])
        return item(self.layers, i, "Chain", "layer")

    def __len__(self):
        return len(self.layers)

    def __iter__(self):
        return iter(self.layers)

    def __repr__(self):
        names = [f"{n}=" for n in self.names] if self.names else [""] * len(self)
        shown = (n + text(layer) for n, layer in zip(names, self.layers, strict=True))
        return f"Chain({', '.join(shown)})"

    def __str__(self):
        return summary(self)


def refuse_odd(who, layer):
    """Refuse what is no layer, and a class in the place of a layer that is made of it."""
    if not callable(layer):
        hint = ": write Chain(**layers)" if isinstance(layer, dict) else ""
        if isinstance(layer, (list, tuple, Iterator)):
            hint = ": write Chain(*layers)"
        raise TypeError(f"{who} is {brief(layer)}, which is not callable{hint}")
    # Of other classes the call may be meant: np.float32 converts.
    if isinstance(layer, type) and any("__call__" in vars(kind) for kind in layer.__mro__):
        name = layer.__name__
        raise TypeError(f"{who} is the class {name}; a layer made of it is wanted: {name}(...)")
