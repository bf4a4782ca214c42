"""Zero upstream kills: where nobody asks for a gradient, an infinite slope counts for nothing.

np.where(x > 0, np.sqrt(x), 0) does not depend on x at 0 and below, so its gradient is 0 there,
although 0 times the slope of the root would be nan.
"""

import numpy as np
import pytest
import scipy.special as sp

import tinyflux as flux
from tinyflux.compiled import compiled
from tinyflux.ops.singular import cleared, has_nan
from tinyflux.primitive import OPERATIONS

INF, NAN = np.inf, np.nan
FROM_ZERO = ([0.0, -1.0, 4.0], lambda x: x > 0)
IN_UNIT = ([1.0, -1.0, 2.0, 0.5], lambda x: np.abs(x) < 1)
LARGE = ([1.0, 1000.0, -1000.0], lambda x: np.abs(x) < 700)
NANS = ([NAN, 2.0], lambda x: x == x)

# f, (the points, which of them count), the slope where they count.
MASKED = {
    "sqrt": (np.sqrt, FROM_ZERO, lambda x: 0.5 / np.sqrt(x)),
    "x**0.5": (lambda x: x**0.5, FROM_ZERO, lambda x: 0.5 / np.sqrt(x)),
    "cbrt": (np.cbrt, FROM_ZERO, lambda x: x ** (-2 / 3) / 3),
    "log": (np.log, FROM_ZERO, lambda x: 1 / x),
    "log2": (np.log2, FROM_ZERO, lambda x: 1 / x / np.log(2)),
    "log10": (np.log10, FROM_ZERO, lambda x: 1 / x / np.log(10)),
    "log1p": (np.log1p, ([-1.0, -2.0, 3.0], lambda x: x > -1), lambda x: 1 / (1 + x)),
    "1/x": (lambda x: 1 / x, FROM_ZERO, lambda x: -1 / x**2),
    "x**-1": (lambda x: x**-1, FROM_ZERO, lambda x: -1 / x**2),
    "reciprocal": (np.reciprocal, FROM_ZERO, lambda x: -1 / x**2),
    "x/x": (lambda x: x / x, FROM_ZERO, lambda x: 0 * x),
    "sin(x)/x": (lambda x: np.sin(x) / x, FROM_ZERO, lambda x: np.cos(x) / x - np.sin(x) / x**2),
    "x**0.3": (lambda x: x**0.3, FROM_ZERO, lambda x: 0.3 * x**-0.7),
    "x**x": (lambda x: x**x, FROM_ZERO, lambda x: x**x * (1 + np.log(x))),
    "float_power": (lambda x: np.float_power(x, 0.3), FROM_ZERO, lambda x: 0.3 * x**-0.7),
    "arcsin": (np.arcsin, IN_UNIT, lambda x: 1 / np.sqrt(1 - x * x)),
    "arccos": (np.arccos, IN_UNIT, lambda x: -1 / np.sqrt(1 - x * x)),
    "arctanh": (np.arctanh, IN_UNIT, lambda x: 1 / (1 - x * x)),
    "arccosh": (np.arccosh, ([1.0, -1.0, 2.0], lambda x: x > 1), lambda x: (x * x - 1) ** -0.5),
    "logit": (sp.logit, ([0.0, 1.0, 0.5], lambda x: x == 0.5), lambda x: 1 / x / (1 - x)),
    "gammaln": (sp.gammaln, FROM_ZERO, sp.digamma),
    "digamma": (sp.digamma, FROM_ZERO, lambda x: sp.polygamma(1, x)),
    "xlogy": (lambda x: sp.xlogy(x, x), FROM_ZERO, lambda x: np.log(x) + 1),
    "exp": (np.exp, LARGE, np.exp),
    "exp2": (lambda x: np.exp2(2 * x), LARGE, lambda x: 2 * np.log(2) * np.exp2(2 * x)),
    "expm1": (np.expm1, LARGE, np.exp),
    "sinh": (np.sinh, LARGE, np.cosh),
    "cosh": (np.cosh, LARGE, np.sinh),
    "a softplus of one's own": (
        lambda x: np.log1p(np.exp(x)), LARGE, lambda x: 1 / (1 + np.exp(-x))
    ),
    "square of nan": (lambda x: x**2, NANS, lambda x: 2 * x),
    "fabs of nan": (np.fabs, NANS, np.sign),
    "distance to nan": (lambda x: np.abs(x - 1), NANS, np.sign),
    "hypot": (lambda x: np.hypot(x, x), ([INF, 3.0], np.isfinite), lambda x: 0 * x + 2**0.5),
    "arctan2": (lambda x: np.arctan2(x, x), ([INF, 3.0], np.isfinite), lambda x: 0 * x),
    "tan": (np.tan, ([INF, 1.0], np.isfinite), lambda x: 1 + np.tan(x) ** 2),
}  # fmt: skip
every = pytest.mark.parametrize("name", MASKED)


def sum_of(f, wanted):
    """Turns f into the sum of f where `wanted`, by a choice between f and 0."""
    return lambda x: np.sum(np.where(wanted(x), f(x), 0))


def silent(f, *args):
    """f in a setting in which NumPy warns of nothing: what is left out is computed all the same."""
    with np.errstate(all="ignore"):
        return f(*args)


def true_slopes(points, wanted, slope):
    x = np.asarray(points)
    with np.errstate(all="ignore"):
        return np.where(wanted(x), slope(x), 0)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_left_out_has_the_gradient_zero(name, dtype):
    f, (points, wanted), slope = MASKED[name]
    x = np.array(points, dtype)
    (g,) = silent(flux.gradient, sum_of(f, wanted), x)
    assert g.dtype == dtype
    np.testing.assert_allclose(g, true_slopes(x, wanted, slope), rtol=3e-6, atol=1e-30)


@every
def test_the_same_by_other_ways_to_leave_out(name):
    f, (points, wanted), slope = MASKED[name]
    x = np.array(points)
    keep = wanted(x)
    expected = true_slopes(points, wanted, slope)
    for loss in (
        lambda x: np.sum(f(x)[keep]),
        lambda x: np.sum(np.take(f(x), np.flatnonzero(keep))),
        lambda x: np.sum(np.select([keep], [f(x)], 0.0)),
    ):
        (g,) = silent(flux.gradient, loss, x)
        np.testing.assert_allclose(g, expected, rtol=1e-12)


@every
def test_compiled_does_the_same(name):
    f, (points, wanted), _ = MASKED[name]
    x = np.array(points)
    loss = sum_of(f, wanted)
    hot = silent(compiled, loss)
    expected = silent(flux.gradient, loss, x)[0]
    for _ in range(2):
        np.testing.assert_array_equal(silent(flux.withgradient, hot, x)[1][0], expected)


CLAMPED = {
    "maximum of log": (lambda x: np.maximum(np.log(x), -10), [0.0, 1e-9, 4.0], [0, 0, 0.25]),
    "clip of log": (lambda x: np.clip(np.log(x), -10, 10), [0.0, 1e-9, 4.0], [0, 0, 0.25]),
    "relu of -sqrt": (lambda x: flux.relu(-np.sqrt(x)), [0.0, 4.0], [0, 0]),
    "max of 1/x": (lambda x: np.min(1 / x), [0.0, 4.0], [0, -1 / 16]),
    "0 times sqrt": (lambda x: (x > 0) * np.sqrt(x), [0.0, 4.0], [0, 0.25]),
}


@pytest.mark.parametrize("name", CLAMPED)
def test_bounds_cut_off_as_well(name):
    f, x, wanted = CLAMPED[name]
    np.testing.assert_array_equal(
        silent(flux.gradient, lambda x: np.sum(f(x)), np.array(x))[0], wanted
    )


ROWS = np.array([[0.0, 0.0], [NAN, 1.0], [3.0, 4.0]])
OF_ROWS = {
    "norm": lambda x: np.linalg.norm(x, axis=1),
    "norm 3": lambda x: np.linalg.norm(x, 3, axis=1),
    "norm 1/2": lambda x: np.linalg.norm(x, 0.5, axis=1),
    "root of a sum of squares": lambda x: np.sqrt(np.sum(x**2, axis=1)),
    "logsumexp": lambda x: flux.logsumexp(np.where(x == 0, -INF, x)),
}


@pytest.mark.parametrize("name", OF_ROWS)
def test_rows_that_are_left_out(name):
    """A root of a sum of squares at 0, a norm of nan, a sum over nothing but -inf."""
    f = OF_ROWS[name]
    (g,) = silent(flux.gradient, lambda x: np.sum(np.where([False, False, True], f(x), 0)), ROWS)
    (alone,) = silent(flux.gradient, lambda x: np.sum(f(x)), ROWS[2:])
    np.testing.assert_array_equal(g[:2], 0)
    np.testing.assert_array_equal(g[2:], alone)
    assert np.isfinite(alone).all()


def test_what_is_asked_for_is_not_hidden():
    for f, x, wanted in [
        (np.sqrt, [0.0, -1.0], [INF, NAN]),
        (np.log, [0.0, NAN], [INF, NAN]),
        (lambda x: 1 / x, [0.0], [-INF]),
        (lambda x: np.sqrt(np.square(x)), [0.0], [NAN]),  # an infinite upstream and the slope 0
        (lambda x: np.square(np.sqrt(x)), [0.0], [0.0]),  # the square asks for nothing at 0
    ]:
        (g,) = silent(flux.gradient, lambda x: np.sum(f(x)), np.array(x))  # noqa: B023
        np.testing.assert_array_equal(g, wanted)


def test_a_product_is_the_exception_and_xlogy_the_remedy():
    """x log x by hand: the slope of the product is log x itself, which nothing makes finite."""
    x = np.array([0.0, 4.0])
    (g,) = silent(flux.gradient, sum_of(lambda x: x * np.log(x), lambda x: x > 0), x)
    np.testing.assert_array_equal(np.isnan(g), [True, False])
    inner = lambda x: np.where(x > 0, x, 1)
    (g,) = flux.gradient(sum_of(lambda x: x * np.log(inner(x)), lambda x: x > 0), x)
    np.testing.assert_allclose(g, [0, np.log(4) + 1])
    (g,) = flux.gradient(sum_of(lambda x: sp.xlogy(x, x), lambda x: x > 0), x)
    np.testing.assert_allclose(g, [0, np.log(4) + 1])


SECOND = ["sqrt", "cbrt", "log", "log1p", "x**0.3", "arcsin", "arctanh", "arccosh", "exp", "cosh"]


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_of_what_is_left_out(name):
    f, (points, wanted), slope = MASKED[name]
    found = silent(flux.hessian, sum_of(f, wanted), np.array(points))
    assert np.isfinite(found).all()
    for i, x in enumerate(points):
        h = 1e-6 * max(1, abs(x))
        inside = bool(wanted(np.float64(x)))
        second = (slope(x + h) - slope(x - h)) / (2 * h) if inside else 0
        np.testing.assert_allclose(found[i], np.where(np.arange(len(points)) == i, second, 0), 1e-6)


def test_a_zero_gradient_is_no_constant():
    """s log x at s = 0: the slope towards x is 0 there, but it changes with s."""
    found = flux.hessian(lambda v: v[0] * np.log(v[1]), np.array([0.0, 4.0]))
    np.testing.assert_array_equal(found, [[0, 0.25], [0.25, 0]])
    for f in (np.sqrt, np.exp, np.arcsin, np.square, np.abs, lambda x: 1 / x, lambda x: x**0.3):
        found = flux.hessian(lambda v: v[0] * f(v[1]), np.array([0.0, 0.25]))  # noqa: B023
        (wanted,) = flux.gradient(f, 0.25)
        np.testing.assert_allclose(found, [[0, wanted], [wanted, 0]], rtol=1e-14)


def test_missing_labels():
    """A loss that leaves out what was not measured, and is trained on the rest."""
    y = np.array([[1.0], [NAN], [3.0]])
    m = flux.f64(flux.Dense(2, 1)) if hasattr(flux, "f64") else flux.Dense(2, 1)
    x = np.arange(6.0).reshape(3, 2)
    known = ~np.isnan(y)
    masked = lambda: np.sum(np.where(known, (m(x) - y) ** 2, 0))
    picked = lambda: np.sum((m(x[known[:, 0]]) - y[known[:, 0]]) ** 2)
    found, wanted = (flux.gradient(f, flux.params(m)) for f in (masked, picked))
    for g, h in zip(found.values(), wanted.values(), strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-5)


def test_cleared():
    d, g = np.array([NAN, NAN, INF, 2.0]), np.array([0.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(cleared(d, g), [0, NAN, INF, 2])
    np.testing.assert_array_equal(d, [NAN, NAN, INF, 2])
    for out in (np.empty(4), d.copy()):
        cleared(d, g, out=out)
        np.testing.assert_array_equal(out, [0, NAN, INF, 2])
    out = d.copy()
    cleared(out, g, out=out)
    np.testing.assert_array_equal(out, [0, NAN, INF, 2])
    clean = np.array([1e300, -INF, 0.0])  # squares that overflow are no nan
    assert cleared(clean, np.zeros(3)) is clean
    for shape in [(), (0,), (2, 3), (3, 0)]:
        assert (
            not has_nan(np.ones(shape)) and cleared(np.ones(shape), np.ones(shape)).shape == shape
        )
    assert has_nan(np.full((2, 3), NAN).T) and has_nan(np.float64(NAN))
    assert cleared(np.float32([NAN]), np.float32([0])).dtype == np.float32


def test_rules_that_can_be_infinite_are_marked():
    """Every elementwise function, at every awkward point, under a zero upstream."""
    points = np.array([0, -0.0, 1, -1, 2, -2, 0.5, 1e308, -1e308, 710, 1e4, -1e4, INF, -INF])
    tame = {
        np.sin,
        np.cos,
        np.sinc,
        np.multiply,
        np.remainder,
    }  # of inf and -inf only, or a product
    for f, operation in OPERATIONS.items():
        if isinstance(f, np.ufunc) and f.nin == 1 and operation.samples is None:
            x = points[np.isfinite(points)] if f in tame else points
            _, back = silent(flux.pullback, f, x)
            (g,) = back(np.zeros(len(x)))
            np.testing.assert_array_equal(g, 0, err_msg=operation.name)
        elif isinstance(f, np.ufunc) and f.nin == 2 and f not in tame and operation.samples is None:
            a, b = (c.reshape(-1) for c in np.meshgrid(points, points))
            finite = np.isfinite(a) & np.isfinite(b)
            a, b = a[finite], b[finite]
            _, back = silent(flux.pullback, f, a, b)
            for g in back(np.zeros(len(a))):
                np.testing.assert_array_equal(g, 0, err_msg=operation.name)
