"""Values and slopes over the whole range of floating-point numbers, against wider arithmetic.

float32 is measured against float64, and float64 against longdouble where that is wider. The bounds
are in units in the last place (eps times the true value); what is beyond the range of the type must
be infinite, what is within it must be there; what is smaller than any normal number counts as 0.
Warnings are errors in these tests.
"""

import numpy as np
import pytest
import scipy.special as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyflux as flux
from tests.suites import a_third, examples

thorough = settings(max_examples=examples(30), deadline=None, derandomize=True)
WIDE = {np.float32: np.float64, np.float64: np.longdouble}
HAS_WIDER = np.finfo(np.longdouble).maxexp > 4 * np.finfo(np.float64).maxexp
wider = pytest.mark.skipif(not HAS_WIDER, reason="longdouble is no wider than float64 here")
both = pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=wider)])
AWKWARD = np.array(
    [0, 5e-324, 1e-310, 1e-300, 1e-45, 1e-40, 1e-20, 1e-8, 0.1, 0.5, 1, 2, 16.7, 20, 37, 88.7, 89]
    + [104, 709, 710, 746, 1e4, 1e10, 1e20, 1e30, 1e38, 1e154, 1e300, 1e308]
)  # fmt: skip
AWKWARD = np.concatenate([AWKWARD, -AWKWARD])


def awkward(dtype):
    """The awkward numbers that the type has, and its own limits."""
    fi = np.finfo(dtype)
    own = [fi.max, fi.tiny, fi.eps, 1 - fi.epsneg, 1 + fi.eps, fi.smallest_subnormal]
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate([AWKWARD, own, np.negative(own)]).astype(dtype)
    return np.unique(x[np.isfinite(x)])


def slope(f, *x):
    """The gradients of the sum of f, whatever f itself warns of."""
    with np.errstate(all="ignore"):
        value, back = flux.pullback(f, *x)
    return back(np.ones_like(value))


def check(got, wanted, ulp, absolute=0.0, where=True):
    """`got` is `wanted`, which has more digits, up to `ulp` and `absolute` (both times eps)."""
    fi = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        size = np.abs(wanted)
        out = size > fi.max
        near = size > float(fi.max) * (1 - 64 * float(fi.eps))  # either will do
        error = np.abs(got.astype(wanted.dtype) - wanted)
        bound = ulp * fi.eps * size + absolute * fi.eps + fi.tiny
        right = (error <= bound) | (out & np.isinf(got) & (np.sign(got) == np.sign(wanted)))
        right |= near & ~np.isnan(got)
        right |= np.isnan(wanted) & np.isnan(got)
    wrong = ~right & where
    with np.errstate(all="ignore"):
        assert not wrong.any(), (got[wrong], wanted[wrong], (error / fi.eps / size)[wrong])


# Function: (slope in wider arithmetic, ulp, absolute bound in eps, where it is defined).
always = lambda x: np.full(np.shape(x), True)
moderate = lambda x: np.abs(x) < 1e5  # beyond that cos(x) is a matter of the reduction of x
inside = lambda x: np.abs(x) <= 1
UNARY = {
    np.exp: (np.exp, 4, 0, always),
    np.exp2: (lambda x: np.exp2(x) * np.log(x.dtype.type(2)), 4, 0, always),
    np.expm1: (np.exp, 4, 0, always),
    np.log: (lambda x: 1 / x, 1, 0, lambda x: x >= 0),
    np.log2: (lambda x: 1 / x / np.log(x.dtype.type(2)), 3, 0, lambda x: x > 0),
    np.log10: (lambda x: 1 / x / np.log(x.dtype.type(10)), 3, 0, lambda x: x > 0),
    np.log1p: (lambda x: 1 / (1 + x), 2, 0, lambda x: x >= -1),
    np.sqrt: (lambda x: 0.5 / np.sqrt(x), 2, 0, lambda x: x > 0),
    np.cbrt: (lambda x: 1 / np.cbrt(x) ** 2 / 3, 8, 0, lambda x: x != 0),
    np.square: (lambda x: 2 * x, 1, 0, always),
    np.reciprocal: (lambda x: -1 / x / x, 4, 0, lambda x: x != 0),
    np.sin: (np.cos, 2, 1, moderate),
    np.cos: (lambda x: -np.sin(x), 2, 1, moderate),
    np.tan: (lambda x: 1 / np.cos(x) ** 2, 8, 0, lambda x: np.abs(x) < 1.5),
    np.arcsin: (lambda x: 1 / np.sqrt((1 - x) * (1 + x)), 3, 0, inside),
    np.arccos: (lambda x: -1 / np.sqrt((1 - x) * (1 + x)), 3, 0, inside),
    np.arctan: (lambda x: 1 / (1 + x * x), 3, 0, always),
    np.sinh: (np.cosh, 4, 0, always),
    np.cosh: (np.sinh, 4, 0, always),
    np.tanh: (lambda x: 1 / np.cosh(x) ** 2, 0, 4, always),
    np.arcsinh: (lambda x: 1 / np.hypot(1, x), 3, 0, always),
    np.arccosh: (lambda x: 1 / np.sqrt(x - 1) / np.sqrt(x + 1), 4, 0, lambda x: x >= 1),
    np.arctanh: (lambda x: 1 / (1 - x) / (1 + x), 3, 0, inside),
    np.absolute: (np.sign, 0, 0, always),
    np.deg2rad: (lambda x: np.deg2rad(np.ones_like(x)), 2, 0, always),
    sp.expit: (lambda x: long_sigmoid(x) * long_sigmoid(-x), 4, 2, always),
    sp.erf: (lambda x: 2 / np.sqrt(wide_pi(x)) * np.exp(-x * x), 4, 2, always),
    sp.logit: (lambda x: 1 / x / (1 - x), 4, 0, lambda x: (x > 0) & (x < 1)),
}


def wide_pi(x):
    return x.dtype.type("3.14159265358979323846264338327950288")


def long_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def long_softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


numbers = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("f", a_third(UNARY), ids=lambda f: f.__name__)
@both
@thorough
@given(hnp.arrays(np.float64, 24, elements=st.one_of(numbers, st.floats(-40, 40))))
@example(np.zeros(1))
def test_slopes_of_elementwise_functions(f, dtype, x):
    formula, ulp, absolute, domain = UNARY[f]
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate([x.astype(dtype), awkward(dtype)])
    x = x[np.isfinite(x) & domain(x)]
    (g,) = slope(f, x)
    with np.errstate(all="ignore"):
        wanted = formula(x.astype(WIDE[dtype]))
    assert g.dtype == dtype
    check(g, wanted, ulp, absolute)


@both
def test_the_slope_of_sinc_near_0(dtype):
    """Where its formula is a difference of almost equal numbers."""
    x = np.linspace(-0.6, 0.6, 301).astype(dtype)
    (g,) = slope(np.sinc, x)
    z = wide_pi(x.astype(WIDE[dtype])) * x
    term = wanted = -wide_pi(z) * z / 3
    for k in range(1, 20):
        term = -term * z * z / (2 * k * (2 * k + 3))
        wanted = wanted + term
    check(g, wanted, 8)


def power_slopes(a, b):
    return b * a ** (b - 1), a**b * np.log(a)


BINARY = {
    np.multiply: (lambda a, b: (b, a), 0),
    np.divide: (lambda a, b: (1 / b, -a / b / b), 4),
    np.hypot: (lambda a, b: (a / np.hypot(a, b), b / np.hypot(a, b)), 4),
    np.arctan2: (lambda a, b: (b / np.hypot(a, b) ** 2, -a / np.hypot(a, b) ** 2), 8),
    np.logaddexp: (lambda a, b: (long_sigmoid(a - b), long_sigmoid(b - a)), 4),
    np.power: (power_slopes, 8),
}


@pytest.mark.parametrize("f", BINARY, ids=lambda f: f.__name__)
@both
def test_slopes_of_pairs(f, dtype):
    """Every pair of awkward numbers whose value itself fits the type."""
    formula, ulp = BINARY[f]
    a, b = (c.reshape(-1) for c in np.meshgrid(awkward(dtype), awkward(dtype)))
    if f is np.power:  # b a^(b-1) may overflow in between for an exponent that is almost 0
        tame = (a > 0) & (np.abs(b) < 1e5) & ((np.abs(b) >= 0.1) | (b == 0))
        a, b = a[tame], b[tame]
    with np.errstate(all="ignore"):
        wide = a.astype(WIDE[dtype]), b.astype(WIDE[dtype])
        value, wanted = f(*wide), formula(*wide)
        fi = np.finfo(dtype)
        fits = (np.abs(value) <= fi.max) & ((np.abs(value) >= fi.tiny) | (value == 0))
        if f is np.divide:
            fits &= (value != 0) & (np.abs(b) >= fi.tiny)
    spread = np.abs(np.subtract(*wide)) if f is np.logaddexp else 0  # exp of a rounded difference
    if f is np.power:
        spread = (1 + np.abs(wide[1])) * np.abs(np.log(wide[0]))
    for got, want in zip(slope(f, a, b), wanted, strict=True):
        bound = ulp + np.minimum(spread, 1e5)
        with np.errstate(all="ignore"):
            check(got, want, bound, where=fits & ~((a == 0) & (b == 0)))


# ------------------------------------------------------------------------------- activations

# Name: (formula, ulp, absolute) of the value, and of the slope. Where the tail of an activation is
# computed as a difference from 1, it is as accurate as 1 is, or as the x that it is a factor of.
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772


def wide_gelu(x):
    u2 = 2 * np.sqrt(2 / wide_pi(x)) * (x + x.dtype.type("0.044715") * x**3)
    return u2, x * long_sigmoid(u2)


def wide_gelu_slope(x):
    u2, _ = wide_gelu(x)
    du2 = 2 * np.sqrt(2 / wide_pi(x)) * (1 + 3 * x.dtype.type("0.044715") * x * x)
    tail = long_sigmoid(u2) * long_sigmoid(-u2)
    return long_sigmoid(u2) + np.where(tail == 0, 0, x * tail * np.where(tail == 0, 0, du2))


def wide_mish_slope(x):
    s = long_softplus(x)
    tail = long_sigmoid(x) / np.cosh(s) ** 2
    return np.tanh(s) + np.where(tail == 0, 0, x * tail)


def wide_logcosh(x):
    """log1p(2 sinh(x/2)^2), and far out |x| - log 2."""
    a = np.abs(x)
    near = np.log1p(2 * np.sinh(np.minimum(a, 50) / 2) ** 2)
    return np.where(a < 50, near, a - np.log(x.dtype.type(2)))


def near(x):
    """Where a difference cancels, it is as accurate as x is."""
    return np.minimum(np.abs(x.astype(np.float64)), 1)


def times_tail(x, tail):
    return np.where(tail == 0, 0, x * tail)


ACTIVATIONS = {
    "softplus": ((long_softplus, 3, 0), (long_sigmoid, 4, 0)),
    "logsigmoid": ((lambda x: -long_softplus(-x), 3, 0), (lambda x: long_sigmoid(-x), 4, 0)),
    "sigmoid": ((long_sigmoid, 0, 1), (lambda x: long_sigmoid(x) * long_sigmoid(-x), 0, 1)),
    "tanh": ((np.tanh, 2, 0), (lambda x: 1 / np.cosh(x) ** 2, 0, 4)),
    "relu": ((lambda x: np.maximum(x, 0), 0, 0), (lambda x: (x > 0) * np.ones_like(x), 0, 0)),
    "elu": (
        (lambda x: np.where(x >= 0, x, np.expm1(np.minimum(x, 0))), 3, 0),
        (lambda x: np.exp(np.minimum(x, 0)), 0, 2),
    ),
    "selu": (
        (lambda x: SCALE * np.where(x >= 0, x, ALPHA * np.expm1(np.minimum(x, 0))), 4, 0),
        (lambda x: SCALE * np.where(x > 0, 1, ALPHA * np.exp(np.minimum(x, 0))), 2, 4),
    ),
    "gelu": ((lambda x: wide_gelu(x)[1], 2, 2), (wide_gelu_slope, 4, 20)),
    "swish": (
        (lambda x: times_tail(x, long_sigmoid(x)), 2, 20),
        (
            lambda x: long_sigmoid(x) + times_tail(x, long_sigmoid(x) * long_sigmoid(-x)),
            4,
            20,
        ),
    ),
    "mish": (
        (lambda x: x * np.tanh(long_softplus(x)), 4, 0),
        (wide_mish_slope, 6, lambda x: np.where(x < -2, 0, 4)),  # at -1.2 it is 0
    ),
    "celu": (
        (lambda x: np.where(x >= 0, x, np.expm1(np.minimum(x, 0))), 3, 0),
        (lambda x: np.exp(np.minimum(x, 0)), 0, 2),
    ),
    "logcosh": ((wide_logcosh, 6, 0), (np.tanh, 2, 0)),
    "softsign": ((lambda x: x / (1 + np.abs(x)), 2, 0), (lambda x: (1 + np.abs(x)) ** -2, 6, 0)),
    "lisht": (
        (lambda x: x * np.tanh(x), 3, 0),
        (lambda x: np.tanh(x) + times_tail(x, 1 / np.cosh(x) ** 2), 4, 20),
    ),
    "tanhshrink": ((lambda x: x - np.tanh(x), 2, near), (lambda x: np.tanh(x) ** 2, 4, 0)),
    "hardswish": (
        (lambda x: np.where(x >= 3, x, np.maximum(x, -3) * (np.maximum(x, -3) + 3) / 6), 4, 0),
        (lambda x: np.where(x < -3, 0, np.where(x > 3, 1, x / 3 + 0.5)), 2, 2),
    ),
    "softshrink": (
        (lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0), 1, 0),
        (lambda x: (np.abs(x) > 0.5) * np.ones_like(x), 0, 0),
    ),
    "trelu": (
        (lambda x: np.where(x > 1, x, 0), 0, 0),
        (lambda x: (x > 1) * np.ones_like(x), 0, 0),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@both
@thorough
@given(hnp.arrays(np.float64, 32, elements=st.one_of(numbers, st.floats(-120, 120))))
def test_activations_and_their_slopes(name, dtype, x):
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate([x.astype(dtype), awkward(dtype)])
    x = x[np.abs(x) <= np.finfo(dtype).max / 2]
    y, back = flux.pullback(getattr(flux, name), x)
    (g,) = back(np.ones_like(x))
    assert y.dtype == g.dtype == dtype
    with np.errstate(all="ignore"):
        for got, (formula, ulp, absolute) in zip((y, g), ACTIVATIONS[name], strict=True):
            absolute = absolute(x) if callable(absolute) else absolute
            check(got, formula(x.astype(WIDE[dtype])), ulp, absolute)
