"""Derivatives of the elementwise functions.

    y = f(x):     dL/dx = g * f'(x)

written in the output `y` where that is as accurate. Where a function has a kink or a singularity,
the value that is chosen stands beside it. Where a slope can be infinite or undefined, `singular`
takes the place of `rule`.
"""

import numpy as np

from ..checks import numeric
from ..primitive import composed, primitive, rule, sample, without_gradient
from ..tensor import Tensor
from .singular import mended, singular

POSITIVE = (0.2, 3.0)
INSIDE = (-0.9, 0.9)  # of the unit interval
LN2, LN10 = np.log(np.longdouble(2)), np.log(np.longdouble(10))  # to be taken in a narrower type

# ------------------------------------------------------------------------------- arithmetic

rule(np.add, lambda g, y: g, lambda g, y: g)
rule(np.subtract, lambda g, y: g, lambda g, y: -g)
OTHER = ((1,), (0,))  # a product needs, for one factor, the other one

rule(np.multiply, lambda g, y, a, b: g * b, lambda g, y, a, b: g * a, needs=OTHER)


def quotient_slopes(g, y, arrays, live):
    """g / b and -(g / b) y, which share their division; 0 where g is 0."""
    b = arrays[1]
    d = g / b
    if type(b) in (int, float) and b != 0:
        return [d]
    found = [-d * y if i else d for i in live]
    if mended(found[-1], g) is found[-1]:  # the second has a nan wherever the first has one
        return found
    return [mended(d, g) for d in found]


rule(np.divide, joint=quotient_slopes, needs=((1,), (1,)), domain=POSITIVE)
rule(np.remainder, lambda g, y: g, lambda g, y, a, b: -g * np.floor_divide(a, b), domain=POSITIVE)
rule(np.positive, lambda g, y: g)
rule(np.negative, lambda g, y: -g)
rule(np.conjugate, lambda g, y: g)
rule(np.copy, lambda g, y, x, **_: g, samples=[sample((3, 4))])
singular(np.reciprocal, lambda g, y: -g * y * y, domain=POSITIVE)
singular(np.square, lambda g, y, x: g * (2 * x))
singular(np.sqrt, lambda g, y: g / (2 * y), domain=POSITIVE)
singular(np.cbrt, lambda g, y: g / (3 * y * y), domain=POSITIVE)


def power_base(g, y, a, b):
    """b a^(b-1), and 0 for a constant: a^0 has no slope, even at 0."""
    if type(b) in (int, float) and b in (2, 3):
        return g * (b * a) if b == 2 else g * (3 * a * a)
    less = np.where(np.equal(b, 0), 1, b - 1.0)  # the smallest of small integers would wrap
    return g * np.where(np.equal(b, 0), 0, b * np.power(a, less))


def power_exponent(g, y, a, b):
    """y log a; 0 where y is 0 (so 0^b has no slope in b), -inf at 0^0."""
    vanishes = np.equal(y, 0)
    base = np.where(vanishes, np.ones_like(y), a)  # in the type of y, which may be the wider one
    return g * np.where(vanishes, 0, y * np.log(base))


singular(np.power, power_base, power_exponent, domain=POSITIVE)
singular(np.float_power, power_base, power_exponent, domain=POSITIVE)

# ------------------------------------------------------------------------------- exp and log

singular(np.exp, lambda g, y: g * y)
singular(np.exp2, lambda g, y: g * (y * LN2.astype(y.dtype)))
singular(np.expm1, lambda g, y, x: g * np.exp(x))  # y + 1 would be 0 below -37
singular(np.log, lambda g, y, x: g / x, domain=POSITIVE)
singular(np.log2, lambda g, y, x: g / LN2.astype(x.dtype) / x, domain=POSITIVE)
singular(np.log10, lambda g, y, x: g / LN10.astype(x.dtype) / x, domain=POSITIVE)
singular(np.log1p, lambda g, y, x: g / (1 + x), domain=POSITIVE)


def share_of(g, mine, other, exp=np.exp):
    """mine's part of exp(mine) + exp(other), by their difference; half each if both are infinite.

    By exp(mine - y) it would lose as many digits as y has before the point.
    """
    equal = np.logical_and(np.isinf(mine), np.equal(mine, other))
    return g / (1 + exp(np.where(equal, 0, other - mine)))


rule(np.logaddexp, lambda g, y, a, b: share_of(g, a, b), lambda g, y, a, b: share_of(g, b, a))
rule(
    np.logaddexp2,
    lambda g, y, a, b: share_of(g, a, b, np.exp2),
    lambda g, y, a, b: share_of(g, b, a, np.exp2),
)

# ------------------------------------------------------------------------------- trigonometry

rule(np.sin, lambda g, y, x: g * np.cos(x))
rule(np.cos, lambda g, y, x: -g * np.sin(x))
singular(np.tan, lambda g, y: g * (1 + y * y), domain=INSIDE)
singular(np.arcsin, lambda g, y, x: g / np.sqrt((1 - x) * (1 + x)), domain=INSIDE)
singular(np.arccos, lambda g, y, x: -g / np.sqrt((1 - x) * (1 + x)), domain=INSIDE)
rule(np.arctan, lambda g, y, x: g / (1 + x * x))
singular(np.sinh, lambda g, y, x: g * np.cosh(x))
singular(np.cosh, lambda g, y, x: g * np.sinh(x))
rule(np.tanh, lambda g, y: g * (1 - y * y))
rule(np.arcsinh, lambda g, y, x: g / np.hypot(1, x))  # x * x could overflow
singular(
    np.arccosh,
    lambda g, y, x: g / np.sqrt(x - 1) / np.sqrt(x + 1),
    domain=(1.2, 3.0),
)
singular(np.arctanh, lambda g, y, x: g / ((1 - x) * (1 + x)), domain=INSIDE)
for to_radians in (np.deg2rad, np.radians):
    rule(to_radians, lambda g, y: np.deg2rad(g))
for to_degrees in (np.rad2deg, np.degrees):
    rule(to_degrees, lambda g, y: np.rad2deg(g))


def over_square(g, part, a, b):
    """g part / (a^2 + b^2) without overflow, and 0 at the origin."""
    r = np.hypot(a, b)
    r = r + np.equal(r, 0)
    return g * (part / r / r)


singular(
    np.arctan2,
    lambda g, y, a, b: over_square(g, b, a, b),
    lambda g, y, a, b: over_square(-g, a, a, b),
)
singular(
    np.hypot,
    lambda g, y, a, b: g * (a / (y + np.equal(y, 0))),
    lambda g, y, a, b: g * (b / (y + np.equal(y, 0))),
)  # 0 at the origin


def sinc_slope(g, y, x):
    """(cos(pi x) - sinc x) / x, by its series near 0, where the difference would cancel."""
    near = np.less(np.abs(x), 0.5)
    z = np.where(near, x, 0) * np.pi
    series = 1.0
    for k in range(11, 0, -1):
        series = 1 - z * z / (2 * k * (2 * k + 3)) * series
    series = -np.pi * z / 3 * series
    far = np.where(near, 1, x)
    return g * np.where(near, series, (np.cos(np.pi * far) - np.sinc(far)) / far)


rule(np.sinc, sinc_slope)

# ------------------------------------------------------------------------------- kinks


def absolute_slope(g, y, x):
    """sign(x), 0 at 0."""
    if x.dtype.kind == "c":
        raise TypeError(
            "absolute: complex numbers have no gradient here; compute with the real and imaginary "
            "parts as two arrays, np.hypot(re, im)"
        )
    return g * np.sign(x)


singular(np.absolute, absolute_slope)
singular(np.fabs, lambda g, y, x: g * np.sign(x))


def winner(g, y, mine, other):
    """All of g where mine is the one that was taken, half of it where both are."""
    won = np.equal(mine, y)
    both = np.logical_and(won, np.equal(other, y))
    return np.where(both, g * 0.5, np.where(won, g, 0))


for extremum in (np.maximum, np.minimum, np.fmax, np.fmin):
    rule(extremum, lambda g, y, a, b: winner(g, y, a, b), lambda g, y, a, b: winner(g, y, b, a))


def floats(x, name):
    """x as an array of floating-point numbers (integers become float64)."""
    x = x if isinstance(x, Tensor) else np.asarray(x)
    return x if x.dtype.kind == "f" else numeric(x, name).astype(np.float64)


@primitive(
    lambda g, y, x, low, high: np.where(
        np.logical_and(np.greater_equal(x, low), np.less_equal(x, high)), g, 0
    ),
    lambda g, y, x, low, high: np.where(
        np.logical_and(np.less(x, low), np.less_equal(low, high)), g, 0
    ),
    lambda g, y, x, low, high: np.where(
        np.logical_or(np.greater(x, high), np.greater(low, high)), g, 0
    ),
    samples=[
        sample((3, 4), (4,), (3, 1), by=lambda f, x, a, b: f(x, -np.abs(a), np.abs(b))),
        sample((3, 4), (4,), (3, 1)),
    ],
)
def clamp(x, low, high):
    """min(max(x, low), high); the slope is 1 in the closed interval (at the bounds, too)."""
    return np.minimum(np.maximum(x, low), high)


@composed(
    np.clip, samples=[sample((3, 4), a_min=-0.5, a_max=0.5), sample((5,), a_min=0.1, a_max=None)]
)
def clip(x, a_min=None, a_max=None, *, min=None, max=None):
    if not (a_min is a_max is None or min is max is None):
        raise ValueError("clip: the bounds are a_min and a_max, or min and max; got some of both")
    low, high = (a if a is not None else b for a, b in ((a_min, min), (a_max, max)))
    return clamp(x, -np.inf if low is None else low, np.inf if high is None else high)


rule(
    np.where,
    None,
    lambda g, y, c, a, b: np.where(c, g, 0),  # not c * g: infinity must not become nan
    lambda g, y, c, a, b: np.where(c, 0, g),
    samples=[sample((3, 4), (4,), by=lambda f, a, b: f(np.arange(4) % 2 == 0, a, b))],
)


@primitive(lambda g, y, x, **_: np.where(np.isfinite(x), g, 0), samples=())
def finite(x, *, nan, posinf, neginf):
    """np.nan_to_num, into an array of its own."""
    return np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


@composed(np.nan_to_num, samples=[sample((3, 4)), sample((3,), nan=1.0, posinf=2.0)])
def nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None):
    if not copy:
        raise TypeError("nan_to_num: copy=False writes into a value that is being recorded")
    return finite(x, nan=nan, posinf=posinf, neginf=neginf)


@composed(
    np.select,
    samples=[
        sample((4,), (4,), by=lambda f, a, b: f([np.arange(4) < 1, np.arange(4) < 3], [a, b], 7.0))
    ],
)
def select(condlist, choicelist, default=0):
    y = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        y = np.where(condition, choice, y)
    return y


# ------------------------------------------------------------------------------- SciPy's ufuncs

rule("scipy.special.expit", lambda g, y: g * y * (1 - y))
singular("scipy.special.logit", lambda g, y, x: g / (x * (1 - x)), domain=(0.1, 0.9))
rule("scipy.special.erf", lambda g, y, x: g * (2 / np.pi**0.5) * np.exp(-x * x))
rule("scipy.special.erfc", lambda g, y, x: -g * (2 / np.pi**0.5) * np.exp(-x * x))
digamma = singular("scipy.special.psi", lambda g, y, x: g * hurwitz(2.0, x), domain=POSITIVE)
singular("scipy.special.gammaln", lambda g, y, x: g * digamma(x), domain=POSITIVE)
singular(
    "scipy.special.xlogy",
    lambda g, y, a, b: g * xlogy(1.0, b),
    lambda g, y, a, b: g * (a / np.where(np.equal(a, 0), 1, b)),  # 0 where a is 0
    domain=POSITIVE,
)


@primitive(
    None,
    lambda g, y, s, q: -g * s * hurwitz(s + 1.0, q),
    domain=(1.1, 3.0),
    samples=[sample((3,), by=lambda f, q: f(2.0, q))],
)
def hurwitz(s, q):
    """The zeta function of Hurwitz, sum of (k + q)^-s: the derivatives of digamma."""
    from scipy.special import zeta

    return zeta(s, q)


def xlogy(a, b):
    """a log b, 0 where a is 0 (of SciPy, imported when it is used)."""
    from scipy.special import xlogy as kernel

    return kernel(a, b)


# ------------------------------------------------------------------------------- no gradient

without_gradient(
    np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal,
    np.logical_and, np.logical_or, np.logical_xor, np.logical_not,
    np.isnan, np.isinf, np.isfinite, np.isneginf, np.isposinf, np.signbit, np.isclose,
    np.sign, np.floor, np.ceil, np.trunc, np.rint, np.round, np.around, np.fix, np.floor_divide,
    np.spacing, np.heaviside,
)  # fmt: skip
