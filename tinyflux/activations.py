r"""Activation functions: elementwise, of any shape; a floating-point input keeps its type.

Each is declared with its slope beside it, written in the output `y` where that is as accurate. At a
kink the slope is the one that is stated. The constants are those of Flux (NNlib).
"""

import numpy as np

from .checks import as_number, brief, numeric
from .ops.elementwise import LN2, clamp, floats
from .ops.nn import logsoftmax, logsumexp, softmax, zeros
from .primitive import Operation, entered, primitive, sample
from .tensor import Tensor

__all__ = [
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "identity", "leakyrelu", "lisht",
    "logcosh", "logsigmoid", "logsoftmax", "logsumexp", "mish", "relu", "relu6", "selu", "sigmoid",
    "softmax", "softplus", "softshrink", "softsign", "swish", "tanh", "tanhshrink", "trelu", "σ",
]  # fmt: skip

tanh = np.tanh

SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772
GELU_WIDTH = float(np.sqrt(2 / np.pi))
GELU_CUBE = 0.044715 * GELU_WIDTH
ZERO = np.zeros((), np.float32)  # NumPy handles an array quicker than a number
ZERO.flags.writeable = False


def reals(x, name):
    """x as an array of real numbers, of their own type."""
    x = x if isinstance(x, Tensor) else np.asarray(x)
    return x if x.dtype.kind == "f" else numeric(x, name)


class Parametric(Operation):
    """An activation with a parameter, by position or by name: an operand too, it may be learned."""

    def __call__(self, x, *args, **params):
        parameter = self.kernel.__code__.co_varnames[1]
        if not args and parameter in params:
            args = (params.pop(parameter),)
        if len(args) == 1:
            args = (slope_of(args[0], f"{self.name}: {parameter}"),)
        return super().__call__(x, *args, **params)


def parametric(*rules, by):
    """As `primitive`, for a kernel (x, parameter); `by(f, x, a)` is a sample of a call."""
    shapes = ((3, 4), ()), ((), ()), ((0, 2), ())
    samples = [sample((2, 3)), *(sample(*s, by=by) for s in shapes)]

    def declare(kernel):
        operation = Parametric(kernel.__name__, kernel, rules, doc=kernel.__doc__, samples=samples)
        return entered(operation, kernel)

    return declare


def slope_of(a, name):
    """The parameter of an activation, if it is a number."""
    if type(a) is float or (isinstance(a, Tensor) and a.ndim == 0):
        return a
    number = as_number(a, name)
    return a if isinstance(a, np.generic) else number


def identity(x):
    """x itself: no activation.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.identity(3.0)
    3.0
    """
    return x


@primitive(lambda g, y, **_: g * y * (1 - y))
def sigmoid(x, out=None):
    r"""1 / (1 + exp(-x)), computed as (1 + tanh(x/2)) / 2.

    That form never overflows, and NumPy's tanh is five times faster than its exp and a division.
    Slope y (1 - y). Also under the name `σ`.

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    y = np.multiply(floats(x, "sigmoid"), 0.5, out=out)
    if type(y) is not np.ndarray:
        return np.tanh(y) * 0.5 + y.dtype.type(0.5)
    np.tanh(y, out=y)
    np.multiply(y, 0.5, out=y)
    return np.add(y, 0.5, out=y)


σ = sigmoid


@primitive(lambda g, y, **_: g * np.greater(y, ZERO))
def relu(x, out=None):
    """max(x, 0); slope 0 at 0. NaN stays NaN.

    Parameters
    ----------
    x : array_like of real numbers, of any shape

    Returns
    -------
    numpy.ndarray
        Of the shape of `x`, and of its type if that is a floating-point one.

    Raises
    ------
    TypeError
        For complex numbers, strings and objects.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    if type(x) is np.ndarray and x.dtype is ZERO.dtype:
        return np.maximum(x, zeros(x.shape), out=out)
    return np.maximum(reals(x, "relu"), 0, out=out)


@parametric(
    lambda g, y, x, a=0.01: g * slopes(x, np.greater(x, 0), 1.0, a),
    lambda g, y, x, a: g * np.minimum(x, 0),
    by=lambda f, x, a: f(x, a),
)
def leakyrelu(x, a=0.01):
    """x where x > 0, a x elsewhere; slope a at 0.

    Takes what `relu` takes, and for `a` a number, or a Tensor of one that is learned.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.leakyrelu(np.array([-1.0, 2.0]), a=0.1)
    array([-0.1,  2. ])
    """
    x = floats(x, "leakyrelu")
    return x * slopes(x, np.greater(x, 0), 1.0, a)


def slopes(x, condition, yes, no):
    """`yes` where the condition holds, `no` elsewhere, in the type of x."""
    return np.where(condition, yes, no).astype(np.result_type(x), copy=False)


@parametric(
    lambda g, y, x, alpha=1.0: g * np.where(np.less(x, 0), y + alpha, 1),
    lambda g, y, x, alpha: g * np.expm1(np.minimum(x, 0)),
    by=lambda f, x, alpha: f(x, alpha=alpha),
)
def elu(x, alpha=1.0):
    """x where x >= 0, alpha (exp(x) - 1) elsewhere; slope 1 at 0.

    Source: Clevert, Unterthiner & Hochreiter, "Fast and accurate deep network learning by
    exponential linear units" (2016), eq. 15.

    Takes what `relu` takes, and for `alpha` a number, or a Tensor of one that is learned.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.elu(np.array([-1000.0, 2.0]))
    array([-1.,  2.])
    """
    x = floats(x, "elu")
    return slopes(x, x >= 0, x, alpha * np.expm1(np.minimum(x, 0)))


def celu_width(g, y, x, alpha):
    """exp(z) - 1 - z exp(z) with z = x / alpha, on the left; so far out z exp(z) is 0."""
    z = np.maximum(np.minimum(x, 0) / alpha, -1000)
    return g * (np.expm1(z) - z * np.exp(z))


@parametric(
    lambda g, y, x, alpha=1.0: g * np.where(np.less(x, 0), y / alpha + 1, 1),
    celu_width,
    by=lambda f, x, alpha: f(x, alpha=0.5 + np.square(alpha)),
)
def celu(x, alpha=1.0):
    """x where x >= 0, alpha (exp(x / alpha) - 1) elsewhere; slope 1 at 0. `alpha` is positive.

    Source: Barron, "Continuously differentiable exponential linear units" (2017).

    Takes what `relu` takes, and for `alpha` a number, or a Tensor of one that is learned.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.celu(np.array([-1000.0, 2.0]), alpha=0.5)
    array([-0.5,  2. ])
    """
    x = floats(x, "celu")
    if not np.greater(alpha, 0):
        raise ValueError(f"celu: alpha must be positive, got {brief(alpha)}")
    with np.errstate(over="ignore"):  # a quotient of minus infinity is far out as well
        left = alpha * np.expm1(np.minimum(x, 0) / alpha)
    return slopes(x, x >= 0, x, left)


@primitive(lambda g, y, x: g * np.where(np.greater(x, 0), SELU_SCALE, y + SELU_SCALE * SELU_ALPHA))
def selu(x):
    """scale * elu(x, alpha) with the two constants that keep mean 0 and variance 1.

    Slope scale * alpha at 0. Source: Klambauer et al., "Self-normalizing neural networks" (2017).

    Takes what `relu` takes.

    Examples
    --------
    >>> import tinyflux as flux
    >>> round(float(flux.selu(1.0)), 6)
    1.050701
    """
    x = floats(x, "selu")
    return np.where(x > 0, SELU_SCALE * x, SELU_SCALE * SELU_ALPHA * np.expm1(np.minimum(x, 0)))


def gelu_tanh(x):
    """(tanh u, x cut off) with u = sqrt(2/pi) (x + 0.044715 x^3).

    Beyond 100 tanh is -1 or 1, and the cube must not overflow.
    """
    near = clamp(x, -100, 100)
    return np.tanh(near * (GELU_WIDTH + GELU_CUBE * (near * near))), near


def gelu_slope(g, y, x):
    """h + x h' with h = (1 + tanh u) / 2."""
    t, near = gelu_tanh(x)
    bend = (1 - t * t) * (GELU_WIDTH + 3 * GELU_CUBE * (near * near))
    return g * (0.5 * (1 + t) + 0.5 * x * bend)


@primitive(gelu_slope)
def gelu(x):
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the usual approximation of x Phi(x).

    Source: Hendrycks & Gimpel, "Gaussian error linear units" (2016), section 2.

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.gelu(np.array([-1000.0, 0.0, 1000.0]))
    array([  -0.,    0., 1000.])
    """
    x = floats(x, "gelu")
    with np.errstate(under="ignore"):  # the square of a tiny number
        t, _ = gelu_tanh(x)
        return x * (0.5 * (1 + t))


@primitive(lambda g, y, x: g * swish_bend(x, sigmoid(x)))
def swish(x):
    """x sigmoid(x), also called SiLU.

    Source: Ramachandran, Zoph & Le, "Searching for activation functions" (2017).

    Takes what `relu` takes.

    Examples
    --------
    >>> import tinyflux as flux
    >>> float(flux.swish(0.0))
    0.0
    """
    x = floats(x, "swish")
    return x * sigmoid(x)


def swish_bend(x, s):
    """The slope of x s(x): s + x s (1 - s)."""
    return s + x * s * (1 - s)


@primitive(lambda g, y: -g * np.expm1(-y))
def softplus(x):
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), which never overflows.

    The slope is sigmoid(x) = 1 - exp(-y), accurate far out on both sides.

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.softplus(np.array([-1000.0, 1000.0]))
    array([   0., 1000.])
    """
    x = floats(x, "softplus")
    return np.maximum(x, 0) + log1p_exp(-np.abs(x))


def log1p_exp(x):
    """log(1 + exp(x)) for negative x; that the exponential of -1000 is 0 is no error."""
    with np.errstate(under="ignore"):
        return np.log1p(np.exp(x))


@primitive(lambda g, y: -g * np.expm1(y))
def logsigmoid(x):
    """log(sigmoid(x)) = -softplus(-x), accurate where the sigmoid is almost 0.

    The slope is sigmoid(-x) = 1 - exp(y).

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.logsigmoid(np.array([-1000.0]))
    array([-1000.])
    """
    x = floats(x, "logsigmoid")
    return np.minimum(x, 0) - log1p_exp(-np.abs(x))


def mish_slope(g, y, x):
    """t + x (1 - t^2) sigmoid(x) with t = tanh(s), s = softplus(x), sigmoid(x) = 1 - exp(-s)."""
    s = softplus(x)
    t = np.tanh(s)
    return g * (t - x * (1 - t * t) * np.expm1(-s))


@primitive(mish_slope)
def mish(x):
    """x tanh(softplus(x)).

    Source: Misra, "Mish: a self regularized non-monotonic activation function" (2019), eq. 1.

    Takes what `relu` takes.

    Examples
    --------
    >>> import tinyflux as flux
    >>> float(flux.mish(0.0))
    0.0
    """
    x = floats(x, "mish")
    return x * np.tanh(softplus(x))


@primitive(lambda g, y, x: g * np.tanh(x))
def logcosh(x):
    """log(cosh(x)) = |x| + log1p(exp(-2 |x|)) - log 2, which never overflows.

    Near 0, where that difference would cancel, -log1p(-tanh(x)^2) / 2. The slope is tanh(x).

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.logcosh(np.array([0.0, 1e-8])).tolist()
    [0.0, 5e-17]
    """
    a = np.abs(floats(x, "logcosh"))
    ln2 = LN2.astype(a.dtype)
    t = np.tanh(np.minimum(a, 1))
    with np.errstate(under="ignore"):  # the square of a tiny number
        near = -0.5 * np.log1p(-t * t)
    return np.where(a < 1, near, a + (log1p_exp(-2 * np.minimum(a, 500)) - ln2))


def softsign_slope(g, y, x):
    """1 / (1 + |x|)^2, whose square would overflow."""
    r = 1 / (1 + np.abs(x))
    return g * r * r


@primitive(softsign_slope)
def softsign(x):
    """x / (1 + |x|); of infinity 1.

    Source: Turian, Bergstra & Bengio, "Quadratic features and deep architectures for chunking"
    (2009).

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.softsign(np.array([-1.0, 0.0, 3.0]))
    array([-0.5 ,  0.  ,  0.75])
    """
    x = floats(x, "softsign")
    largest = np.finfo(x.dtype).max
    x = np.clip(x, -largest, largest)
    return x / (1 + np.abs(x))


def lisht_slope(g, y, x):
    """t + x (1 - t^2) with t = tanh(x)."""
    t = np.tanh(x)
    return g * (t + x * (1 - t * t))


@primitive(lisht_slope)
def lisht(x):
    """x tanh(x).

    Source: Roy et al., "LiSHT: non-parametric linearly scaled hyperbolic tangent activation
    function for neural networks" (2019).

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.lisht(np.array([-1000.0, 0.0, 1000.0]))
    array([1000.,    0., 1000.])
    """
    x = floats(x, "lisht")
    with np.errstate(under="ignore"):  # the square of a tiny number
        return x * np.tanh(x)


@primitive(lambda g, y, x: g * np.square(np.tanh(x)))
def tanhshrink(x):
    """x - tanh(x).

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.tanhshrink(np.array([-1000.0, 0.0, 1000.0]))
    array([-999.,    0.,  999.])
    """
    x = floats(x, "tanhshrink")
    return x - np.tanh(x)


def inside(x, low, high):
    """Whether x lies strictly between the bounds."""
    return np.logical_and(np.greater(x, low), np.less(x, high))


@primitive(lambda g, y, x: g * inside(x, -3, 3) / 6)
def hardsigmoid(x):
    """clip((x + 3) / 6, 0, 1); slope 0 at the bounds.

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.hardsigmoid(np.array([-3.0, 0.0, 9.0]))
    array([0. , 0.5, 1. ])
    """
    return np.clip((floats(x, "hardsigmoid") + 3) / 6, 0, 1)


@primitive(lambda g, y, x: g * inside(x, -1, 1))
def hardtanh(x):
    """clip(x, -1, 1); slope 0 at the bounds.

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.hardtanh(np.array([-3.0, 0.5]))
    array([-1. ,  0.5])
    """
    x = reals(x, "hardtanh")
    return np.clip(x, 0 if x.dtype.kind == "u" else -1, 1)


@primitive(lambda g, y, x: g * inside(x, 0, 6))
def relu6(x):
    """clip(x, 0, 6); slope 0 at the bounds.

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.relu6(np.array([-3.0, 0.5, 7.0]))
    array([0. , 0.5, 6. ])
    """
    return np.clip(reals(x, "relu6"), 0, 6)


def hardswish_slope(g, y, x):
    """0 below -3, 1 above 3, x/3 + 1/2 between them and at both."""
    return g * np.where(np.less(x, -3), 0, np.where(np.greater(x, 3), 1, x / 3 + 0.5))


@primitive(hardswish_slope)
def hardswish(x):
    """x hardsigmoid(x); slope -1/2 at -3 and 3/2 at 3.

    Source: Howard et al., "Searching for MobileNetV3" (2019), section 5.2.

    Takes what `relu` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.hardswish(np.array([-3.0, 1.5, 9.0]))
    array([-0.   ,  1.125,  9.   ])
    """
    x = floats(x, "hardswish")
    return np.maximum(x, -3) * np.clip((x + 3) / 6, 0, 1)  # minus infinity times 0 would be nan


@parametric(
    lambda g, y, x, lam=0.5: g * np.greater(np.abs(x), lam),
    lambda g, y, x, lam: -g * np.sign(x) * np.greater(np.abs(x), lam),
    by=lambda f, x, lam: f(x, lam=np.square(lam) / 4),
)
def softshrink(x, lam=0.5):
    """x - lam where x > lam, x + lam where x < -lam, 0 between; slope 0 at both bounds.

    `lam` is not negative. NaN stays NaN.

    Takes what `relu` takes, and for `lam` a number, or a Tensor of one that is learned.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.softshrink(np.array([-2.0, 0.25, 2.0]))
    array([-1.5,  0. ,  1.5])
    """
    x = floats(x, "softshrink")
    if not np.greater_equal(lam, 0):
        raise ValueError(f"softshrink: lam must not be negative, got {brief(lam)}")
    return slopes(x, np.abs(x) <= lam, 0, x - np.sign(x) * lam)


@parametric(
    lambda g, y, x, theta=1.0: g * np.greater(x, theta),
    None,
    by=lambda f, x, theta: f(x, theta=theta),
)
def trelu(x, theta=1.0):
    """x where x > theta, 0 elsewhere (a step, unless theta is 0); slope 0 at theta.

    NaN stays NaN. Source: Konda, Memisevic & Krueger, "Zero-bias autoencoders and the benefits of
    co-adapting features" (2015).

    Takes what `relu` takes, and for `theta` a number, or a Tensor of one that is learned.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.trelu(np.array([0.5, 1.0, 2.0]))
    array([0., 0., 2.])
    """
    x = floats(x, "trelu")
    return slopes(x, x <= theta, 0, x)
