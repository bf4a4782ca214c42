"""The fully connected layer."""

import numpy as np

from ..activations import identity
from ..checks import (
    LARGEST,
    as_callable,
    as_flag,
    as_operand,
    is_whole,
    no_input,
    real_array,
    shown,
)
from ..errors import ShapeError
from ..initialise import glorot_uniform
from ..ops.nn import dense
from ..primitive import IN_PLACE
from ..tensor import Tensor
from .printing import constructor


class Dense:
    """activation(x @ weight + bias).

    Parameters
    ----------
    n_in, n_out : int
        Sizes of the last axis of the input and of the output.
    activation : callable, default identity
        Applied to the whole output: an activation of tinyflux, a NumPy function, or your own.
    bias : bool, default True
    init : callable, default glorot_uniform
        `init(n_in, n_out)` gives the first weights.

    Attributes
    ----------
    weight : Tensor, shape (n_in, n_out), of the type that `init` gives: float32
    bias : Tensor, shape (n_out,), at first 0; or None

    Raises
    ------
    ShapeError
        (a ValueError) when the last axis of the input is not n_in.
    TypeError, ValueError
        For sizes that are no positive whole numbers, and for first weights that are no array of
        floating-point numbers of shape (n_in, n_out).

    Notes
    -----
    Observations are rows: x has shape (batch, n_in), or (..., n_in), or (n_in,) for a single one.
    The input is converted to the dtype of the weights.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> layer = flux.Dense(2, 3, flux.relu)
    >>> layer, layer(np.ones((5, 2))).shape
    (Dense(2, 3, relu), (5, 3))
    """

    def __init__(self, n_in, n_out, activation=identity, *, bias=True, init=glorot_uniform):
        for name, n in (("n_in", n_in), ("n_out", n_out)):
            if not is_whole(n) or not 1 <= n <= LARGEST:
                raise TypeError(f"Dense: {name} must be a positive whole number, got {shown(n)}")
        if not callable(activation):
            raise TypeError(f"Dense: the activation must be a function, got {shown(activation)}")
        as_callable(init, "Dense: init")
        bias = as_flag(bias, "Dense: bias")
        n_in, n_out = int(n_in), int(n_out)
        try:
            first = init(n_in, n_out)
        except TypeError as error:  # np.ones would take n_out for a dtype
            error.add_note(
                "Dense calls init(n_in, n_out): a function of NumPy wants the shape as one tuple, "
                "init=lambda *shape: np.ones(shape, np.float32)"
            )
            raise
        self.weight = Tensor(real_array(first, "Dense: what init returned"))
        if self.weight.shape != (n_in, n_out):
            raise ValueError(f"Dense: init gave shape {self.weight.shape} for {(n_in, n_out)}")
        self.bias = Tensor(np.zeros(n_out, self.weight.dtype)) if bias else None
        self.activation = activation

    def __call__(self, x):
        weight, f = self.weight, self.activation
        if type(x) is Tensor:
            array = x._array
        else:
            array = x if type(x) is np.ndarray else as_operand(x, repr(self))
        if type(weight) is not Tensor:
            raise TypeError(
                f"Dense: the weight is {shown(weight)}, but it must be a Tensor: write "
                "layer.weight = Tensor(array), or layer.weight.data[...] = array"
            )
        n_in, dtype = weight._array.shape[0], weight._array.dtype
        if array.ndim == 0 or array.shape[-1] != n_in:
            raise ShapeError(repr(self), misfit(array.shape, n_in))
        if array.dtype is not dtype and array.dtype != dtype:
            if array.dtype.kind not in "fiub":
                raise no_input(repr(self), array)
            x = (x if type(x) is Tensor else array).astype(dtype)
        operation = IN_PLACE.get(f)  # one whose slope follows from its output
        if operation is not None:
            return dense(x, weight, self.bias, activation=operation)
        y = dense(x, weight, self.bias)
        return y if f is identity else f(y)

    def __repr__(self):
        given = [] if self.activation is identity else [self.activation]
        shape = getattr(self.weight, "shape", ())  # an error may name a layer with an odd weight
        return constructor(self, *shape, *given, bias=self.bias is not None)


def misfit(shape, n):
    """What is wrong with an input of `shape` where n features are wanted, and the remedy."""
    problem = f"got x with shape {shape}; the last axis must be {n}."
    if len(shape) > 2 and int(np.prod(shape[1:])) == n:
        return f"{problem} Flatten first: x.reshape(len(x), -1)."
    if len(shape) == 2 and shape[0] == n:
        return f"{problem} Observations are rows: x.T has shape {shape[::-1]}."
    return problem
