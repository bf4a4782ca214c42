"""Initialisers: random first values of the weights.

Each takes the shape and `rng=` (a NumPy Generator or a seed; default the library's generator) and
returns float32. The last two axes are inputs and outputs, the others the receptive field of a
convolution; fan_in and fan_out are how many inputs an output sees, and the other way round. Called
with keywords alone an initialiser returns a function of the shape, for a layer to call:

>>> import tinyflux as flux
>>> flux.Dense(2, 3, init=flux.kaiming_normal(gain=1.0))
Dense(2, 3)

Sizes that are not whole numbers are a TypeError.
"""

import functools
import inspect
import math

import numpy as np

from .checks import LARGEST, as_real, brief, is_whole
from .generators import generator

OVERFLOW = float(np.finfo(np.float32).max)
SQRT2 = math.sqrt(2)  # makes up for the half that relu sets to 0


def fans(shape):
    """(fan_in, fan_out) of a weight: how many inputs an output sees, and the other way round.

    Examples
    --------
    >>> from tinyflux.initialise import fans
    >>> fans((784, 32)), fans((3, 3, 16, 32)), fans((5,))
    ((784, 32), (144, 288), (1, 5))
    """
    if len(shape) < 2:
        return 1, (shape[0] if shape else 1)
    field = math.prod(shape[:-2])
    return max(field * shape[-2], 1), max(field * shape[-1], 1)  # an empty weight has them, too


def initialiser(make):
    """Let `make(shape, rng, **options)` be called as `f(3, 4, rng=...)` or `f(gain=2)(3, 4)`."""

    @functools.wraps(make)
    def init(*shape, rng=None, **options):
        if not shape:
            return functools.partial(init, rng=rng, **options)
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        shape = sizes(shape, make.__name__)
        for name, value in options.items():
            options[name] = as_real(value, f"{make.__name__}: {name}", least=-math.inf)
            if not abs(options[name]) < OVERFLOW and name not in ("lo", "hi"):
                raise ValueError(f"{make.__name__}: {name}={value} is too large for float32")
        return make(shape, generator(rng), **options).astype(np.float32, copy=False)

    init.__signature__ = as_called(make)
    return init


def as_called(make):
    """The signature for `help`: the sizes one by one, all else by name."""
    _, rng, *options = inspect.signature(make).parameters.values()
    shape = inspect.Parameter("shape", inspect.Parameter.VAR_POSITIONAL)
    named = [p.replace(kind=p.KEYWORD_ONLY) for p in (rng.replace(default=None), *options)]
    return inspect.Signature([shape, *named])


def sizes(shape, who):
    """A shape as a tuple of ints, if an array can have it."""
    for n in shape:
        if not is_whole(n) or n < 0:
            raise TypeError(f"{who}: the sizes must be whole numbers, got {brief(shape)}")
    shape = tuple(map(int, shape))  # whole numbers of few bits would overflow in a product
    if math.prod(n or 1 for n in shape) > LARGEST // 8:
        raise ValueError(f"{who}: no array can have as many elements as {brief(shape)}")
    return shape


def uniform(shape, rng, limit):
    """Uniform on (-limit, limit)."""
    return (rng.random(shape, np.float32) * 2 - 1) * np.float32(limit)


def normal(shape, rng, std):
    """Normal with mean 0 and standard deviation std."""
    return rng.standard_normal(shape, np.float32) * np.float32(std)


@initialiser
def glorot_uniform(shape, rng, gain=1.0):
    """Uniform on +-gain sqrt(6 / (fan_in + fan_out)).

    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural
    networks" (2010), eq. 16.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.glorot_uniform(2, 3, rng=0).shape
    (2, 3)
    """
    return uniform(shape, rng, gain * math.sqrt(6 / sum(fans(shape))))


@initialiser
def glorot_normal(shape, rng, gain=1.0):
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out)).

    Source: Glorot & Bengio (2010), eq. 12.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> round(float(np.std(flux.glorot_normal(300, 500, rng=0))), 2)  # sqrt(2 / 800)
    0.05
    """
    return normal(shape, rng, gain * math.sqrt(2 / sum(fans(shape))))


@initialiser
def kaiming_uniform(shape, rng, gain=SQRT2):
    """Uniform on +-gain sqrt(3 / fan_in).

    Source: He et al., "Delving deep into rectifiers" (2015), eq. 10, which fixes the variance.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> round(float(np.max(flux.kaiming_uniform(600, 500, rng=0))), 3)  # sqrt(2) sqrt(3 / 600)
    0.1
    """
    return uniform(shape, rng, gain * math.sqrt(3 / fans(shape)[0]))


@initialiser
def kaiming_normal(shape, rng, gain=SQRT2):
    """Normal with standard deviation gain / sqrt(fan_in).

    Source: He et al. (2015), eq. 10.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> round(float(np.std(flux.kaiming_normal(200, 500, rng=0))), 2)  # sqrt(2 / 200)
    0.1
    """
    return normal(shape, rng, gain / math.sqrt(fans(shape)[0]))


@initialiser
def truncated_normal(shape, rng, mean=0.0, std=1.0, lo=-2.0, hi=2.0):
    """Normal, cut off at `lo` and `hi`, by inverting the distribution function.

    Examples
    --------
    >>> import tinyflux as flux
    >>> weight = flux.truncated_normal(200, 500, lo=-1.0, hi=1.0, rng=0)
    >>> bool((abs(weight) <= 1).all())
    True
    """
    from scipy.special import ndtr, ndtri

    if not (std > 0 and lo < hi):
        raise ValueError(f"truncated_normal: std={std} must be above 0, and lo={lo} below hi={hi}")
    low, high = (lo - mean) / std, (hi - mean) / std
    sign = -1 if low > 0 else 1  # an upper tail as a lower one: ndtr near 1 has no digits left
    low, high = sorted(ndtr([sign * low, sign * high]))
    if high == 0:
        raise ValueError(
            f"truncated_normal: {lo} to {hi} is too far from mean={mean} for std={std}"
        )
    return np.clip(mean + std * sign * ndtri(rng.uniform(low, high, shape)), lo, hi)


@initialiser
def lecun_normal(shape, rng, gain=1.0):
    """Normal with standard deviation gain / sqrt(fan_in), cut off at -2 and 2 as in Flux.

    Source: LeCun et al., "Efficient BackProp" (1998), eq. 16.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.lecun_normal(100, 500, rng=0).shape
    (100, 500)
    """
    if gain <= 0:
        raise ValueError(f"lecun_normal: gain={gain} must be above 0")
    return truncated_normal(shape, rng=rng, std=gain / math.sqrt(fans(shape)[0]))


@initialiser
def orthogonal(shape, rng, gain=1.0):
    """gain times a matrix with orthonormal rows or columns; leading axes count as rows.

    Source: Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks" (2014).

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> Q = flux.orthogonal(3, 3, rng=0)
    >>> np.allclose(Q.T @ Q, np.eye(3), atol=1e-6)
    True
    """
    if not shape:
        raise ValueError("orthogonal: at least one size is wanted, got ()")
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diagonal(r))  # makes the distribution uniform
    return gain * (q if rows >= columns else q.T).reshape(shape)


@initialiser
def sparse_init(shape, rng, sparsity=0.1, std=0.01):
    """Normal, with the share `sparsity` of every column, rounded up, set to 0.

    Source: Martens, "Deep learning via Hessian-free optimization" (2010), section 5.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> weight = flux.sparse_init(10, 3, sparsity=0.5, rng=0)
    >>> np.sum(weight == 0, axis=0)
    array([5, 5, 5])
    """
    if len(shape) != 2:
        raise ValueError(f"sparse_init: two sizes are wanted, got {shape}")
    share = min(1.0, max(0.0, sparsity)) * shape[0]
    zeros = math.ceil(round(share, 6))  # 0.07 * 100 is a little more than 7
    weight = normal(shape, rng, std)
    order = np.argsort(rng.random(shape), axis=0)
    np.put_along_axis(weight, order[:zeros], 0, axis=0)
    return weight


@initialiser
def identity_init(shape, rng, gain=1.0):
    """gain times the identity: what comes in goes out (the centre tap of a convolution).

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.identity_init(2, 3)
    array([[1., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """
    weight = np.zeros(shape, np.float32)
    if len(shape) >= 2:
        centre = tuple((n - 1) // 2 for n in shape[:-2])
        weight[centre] = gain * np.eye(*shape[-2:])
    return weight


@initialiser
def zeros_init(shape, rng):
    """All 0.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.zeros_init(2)
    array([0., 0.], dtype=float32)
    """
    return np.zeros(shape)


@initialiser
def ones_init(shape, rng):
    """All 1.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.ones_init(2)
    array([1., 1.], dtype=float32)
    """
    return np.ones(shape)
