"""Normalisation over the batch."""

import numpy as np

from ..activations import identity
from ..checks import LARGEST, as_callable, as_flag, as_operand, as_real, is_whole, no_input, shown
from ..errors import ShapeError
from ..ops.state import buffer, moving_average_
from ..tensor import Tensor
from .modes import TwoModes, training
from .printing import constructor


class BatchNorm(TwoModes):
    """Shifts and scales each feature to mean 0 and variance 1 over the batch.

    y = activation(scale * (x - mean) / sqrt(var + eps) + shift)

    Parameters
    ----------
    n : int
        Size of the last axis: the features. The mean and the variance are taken over all others.
    activation : callable, default identity
    affine : bool, default True
        Whether there are `scale` and `shift`.
    eps : float, default 1e-5
        Keeps the division finite.
    momentum : float, default 0.1
        The weight of a new batch in the running statistics.

    Attributes
    ----------
    scale, shift : Tensor, shape (n,), at first 1 and 0; or None
    mean, var : Tensor, shape (n,), at first 0 and 1
        The running statistics: not parameters but buffers, saved with the model.

    Raises
    ------
    ShapeError
        When the last axis is not n, or there is a single value per feature in training.

    Notes
    -----
    While a gradient is taken (see `testmode_`) mean and var are those of the batch, var the biased
    one; the running ones follow them, var by the unbiased one. Otherwise the running ones are used.
    They follow as soon as a batch is seen: a step that is refused later does not take that back.
    Source: Ioffe & Szegedy, "Batch normalization" (2015), Algorithms 1 and 2; Flux 0.12, where the
    features stand on the last axis but one.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> layer = flux.trainmode_(flux.BatchNorm(2))
    >>> layer(np.array([[1.0, 0.0], [3.0, 0.0]], np.float32)).round(3)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    >>> layer.mean
    Tensor([0.2, 0. ], dtype=float32)
    """

    def __init__(self, n, activation=identity, *, affine=True, eps=1e-5, momentum=0.1):
        if not is_whole(n) or not 1 <= n <= LARGEST:
            raise TypeError(f"BatchNorm: n must be a positive whole number, got {shown(n)}")
        self.activation = as_callable(activation, "BatchNorm: the activation")
        affine = as_flag(affine, "BatchNorm: affine")
        self.eps = as_real(eps, "BatchNorm: eps", finite=True)
        self.momentum = as_real(momentum, "BatchNorm: momentum", most=1)
        self.scale = Tensor(np.ones(int(n), np.float32)) if affine else None
        self.shift = Tensor(np.zeros(int(n), np.float32)) if affine else None
        self.mean = buffer(np.zeros(int(n), np.float32))
        self.var = buffer(np.ones(int(n), np.float32))

    def __call__(self, x):
        array = x._array if isinstance(x, Tensor) else as_operand(x, repr(self))
        n, dtype = len(self.mean), self.mean.dtype
        if array.ndim < 2 or array.shape[-1] != n:
            wanted = f"(batch, ..., {n}) is wanted"
            raise ShapeError(repr(self), f"got x with shape {array.shape}; {wanted}.")
        if array.dtype != dtype:
            if array.dtype.kind not in "fiub":
                raise no_input(repr(self), array)
            x = (x if isinstance(x, Tensor) else array).astype(dtype)
        mean, var = self.statistics(x) if training(self) else (self.mean, self.var)
        y = (x - mean) / np.sqrt(var + dtype.type(self.eps))
        y = y if self.scale is None else y * self.scale + self.shift
        return y if self.activation is identity else self.activation(y)

    def statistics(self, x):
        """Mean and variance of the batch; the running ones follow."""
        axes, count = tuple(range(x.ndim - 1)), x.size // len(self.mean)
        if count < 2:
            problem = f"got x with shape {x.shape}: one value per feature has no variance."
            raise ShapeError(repr(self), f"{problem} Take a larger batch, or testmode_.")
        mean = np.mean(x, axis=axes)
        var = np.mean(np.square(x - mean), axis=axes)
        moving_average_(self.mean, mean, self.momentum)
        moving_average_(self.var, var * (count / (count - 1)), self.momentum)
        return mean, var

    def __repr__(self):
        given = [] if self.activation is identity else [self.activation]
        affine = self.scale is not None
        options = {"affine": affine, "eps": self.eps, "momentum": self.momentum}
        return constructor(self, len(self.mean), *given, **options)
