"""What the derivative is where there is none, or where the formula breaks down: one exact table."""

import numpy as np
import pytest
import scipy.special as sp

import tinyflux as flux

INF, NAN = np.inf, np.nan
TIED = np.array([1.0, 3.0, 3.0])
zeros = np.zeros


def d(f, *x):
    """The gradients of the sum of f; values that are infinite raise no warning here."""
    with np.errstate(all="ignore"):
        return flux.gradient(lambda *a: np.sum(f(*a)), *map(np.float64, x))


TABLE = {
    # kinks: 0 where the slope jumps, but where it says otherwise
    "relu at 0": (flux.relu, [0.0], [0.0]),
    "relu6 at its bounds": (flux.relu6, [[0.0, 6.0]], [[0, 0]]),
    "hardtanh at its bounds": (flux.hardtanh, [[-1.0, 1.0]], [[0, 0]]),
    "hardsigmoid at its bounds": (flux.hardsigmoid, [[-3.0, 3.0]], [[0, 0]]),
    "leakyrelu at 0": (lambda x: flux.leakyrelu(x, a=0.25), [0.0], [0.25]),
    "elu at 0": (flux.elu, [0.0], [1.0]),
    "elu with alpha at 0": (lambda x: flux.elu(x, alpha=3.0), [0.0], [1.0]),
    "selu at 0": (flux.selu, [0.0], [1.0507009873554805 * 1.6732632423543772]),
    "celu at 0": (lambda x: flux.celu(x, alpha=3.0), [0.0], [1.0]),
    "hardswish at its bounds": (flux.hardswish, [[-3.0, 3.0]], [[-0.5, 1.5]]),
    "softshrink at its bounds": (flux.softshrink, [[-0.5, 0.5, 0.0]], [[0, 0, 0]]),
    "softshrink by 0 at 0": (lambda x: flux.softshrink(x, lam=0), [0.0], [0]),
    "trelu at theta": (flux.trelu, [1.0], [0]),
    "trelu at a negative theta": (
        lambda x: flux.trelu(x, theta=-1.0), [[-1.0, -0.5, 0.0]], [[0, 1, 1]]
    ),
    "logcosh at 0": (flux.logcosh, [0.0], [0]),
    "softsign at 0": (flux.softsign, [0.0], [1]),
    "hinge at the margin": (
        lambda p: flux.losses.hinge_loss(p, np.ones(3), agg=np.sum),
        [[1.0, 0.5, 2.0]], [[0, -1, 0]],
    ),
    "squared hinge at the margin": (
        lambda p: flux.losses.squared_hinge_loss(p, np.ones(2), agg=np.sum), [[1.0, 0.5]], [[0, -1]]
    ),
    "contrastive loss at the margin": (
        lambda d: flux.losses.siamese_contrastive_loss(d, np.ones(2), agg=np.sum),
        [[1.0, 0.5]], [[0, -1]],
    ),
    "poisson loss of nothing at 0": (flux.losses.poisson_loss, [0.0, 0.0], [1, 0]),
    "absolute at 0": (np.abs, [[0.0, -0.0]], [[0, 0]]),
    "fabs at 0": (np.fabs, [0.0], [0]),
    "mae where they are equal": (flux.losses.mae, [[1.0, 2.0], [1.0, 3.0]], [[0, -0.5], [0, 0.5]]),
    "sign, floor, round": (lambda x: np.sign(x) + np.floor(x) + np.round(x), [0.0], [None]),
    # ties share evenly
    "maximum of equals": (np.maximum, [2.0, 2.0], [0.5, 0.5]),
    "minimum of equals": (np.minimum, [2.0, 2.0], [0.5, 0.5]),
    "fmax of equals": (np.fmax, [2.0, 2.0], [0.5, 0.5]),
    "fmin of equals": (np.fmin, [2.0, 2.0], [0.5, 0.5]),
    "maximum with 0 at 0": (lambda x: np.maximum(x, 0), [0.0], [0.5]),
    "maximum of x and x": (lambda x: np.maximum(x, x), [2.0], [1.0]),
    "fmax with nan": (np.fmax, [[NAN, 1.0], [2.0, NAN]], [[0, 1], [1, 0]]),
    "max of ties": (np.max, [TIED], [[0, 0.5, 0.5]]),
    "min of ties": (np.min, [-TIED], [[0, 0.5, 0.5]]),
    "max of equals": (np.max, [np.ones(4)], [[0.25] * 4]),
    "max along an axis": (
        lambda x: np.max(x, axis=0), [[TIED, [1, 1, 4]]], [[[0.5, 1, 0], [0.5, 0, 1]]]
    ),
    "max of infinities": (np.max, [[INF, INF, 0]], [[0.5, 0.5, 0]]),
    "ptp of equals": (np.ptp, [np.ones(3)], [[0, 0, 0]]),
    "sort of ties keeps their order": (
        lambda x: np.sort(x) * [1, 2, 3], [[3.0, 1.0, 3.0]], [[2, 1, 3]]
    ),
    "median of ties": (np.median, [[1.0, 2.0, 2.0, 2.0, 3.0]], [[0, 1 / 3, 1 / 3, 1 / 3, 0]]),
    "median between ties": (np.median, [[1.0, 1.0, 3.0, 4.0]], [[0.25, 0.25, 0.5, 0]]),
    "median with nan": (np.median, [[1.0, NAN, 3.0]], [[0, 0, 0]]),
    "quantile of equals": (lambda x: np.quantile(x, 0.3), [np.ones(4)], [[0.25] * 4]),
    "interp at its knots": (
        lambda x, xp: np.interp(x, xp, [0.0, 1.0, 3.0]),
        [[-1.0, 0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0]], [[0, 1, 2, 2, 0], [-1, -2, -2]],
    ),
    "interp at its end": (
        lambda x, fp: np.interp(x, [0.0, 1.0], fp, left=9), [[-1.0, 0.0, 1.0, 2.0], [5.0, 6.0]],
        [[0, 1, 1, 0], [1, 2]],
    ),
    "interp of one knot": (
        lambda x, fp: np.interp(x, [1.0], fp), [[0.0, 1.0], [5.0]], [[0, 0], [2]]
    ),
    "nansum": (np.nansum, [[NAN, INF, 2.0]], [[0, 1, 1]]),
    "nanmean": (np.nanmean, [[NAN, 1.0, 2.0]], [[0, 0.5, 0.5]]),
    # clip: the interval is closed
    "clip at its bounds": (lambda x: np.clip(x, 0, 1), [[-1, 0, 0.5, 1, 2.0]], [[0, 1, 1, 1, 0]]),
    "bounds of clip": (np.clip, [[-1, 0, 1, 2.0], 0.0, 1.0], [[0, 1, 1, 0], 1, 1]),
    "clip between equal bounds": (np.clip, [[0.0, 1.0, 2.0], 1.0, 1.0], [[0, 1, 0], 1, 1]),
    "clip between bounds that cross": (np.clip, [[0.0, 1.5, 3.0], 2.0, 1.0], [[0, 0, 0], 0, 3]),
    # singularities: 0 where a limit along every path would be possible, else the infinite slope
    "norm at 0": (np.linalg.norm, [zeros(3)], [[0, 0, 0]]),
    "norm of rows, one of them 0": (
        lambda x: np.linalg.norm(x, axis=1), [[[0, 0], [3, 4.0]]], [[[0, 0], [0.6, 0.8]]]
    ),
    "norm 3 at 0": (lambda x: np.linalg.norm(x, 3), [zeros(2)], [[0, 0]]),
    "norm 1/2 with a 0": (lambda x: np.linalg.norm(x, 0.5), [[0.0, 4.0]], [[0, 1]]),
    "norm -1 with a 0": (lambda x: np.linalg.norm(x, -1), [[0.0, 2.0, 3.0]], [[0, 0, 0]]),
    "norm 1 with a 0": (lambda x: np.linalg.norm(x, 1), [[0.0, -2.0]], [[0, -1]]),
    "hypot at 0": (np.hypot, [0.0, 0.0], [0, 0]),
    "arctan2 at 0": (np.arctan2, [0.0, 0.0], [0, 0]),
    "std of equals": (np.std, [np.full(3, 2.0)], [[0, 0, 0]]),
    "std of rows, one of equals": (
        lambda x: np.std(x, axis=1), [[[2, 2], [1, 3.0]]], [[[0, 0], [-0.5, 0.5]]]
    ),
    "var of equals": (np.var, [np.full(3, 2.0)], [[0, 0, 0]]),
    "sqrt at 0": (np.sqrt, [0.0], [INF]),
    "cbrt at 0": (np.cbrt, [0.0], [INF]),
    "log at 0": (np.log, [0.0], [INF]),
    "log1p at -1": (np.log1p, [-1.0], [INF]),
    "reciprocal at 0": (np.reciprocal, [0.0], [-INF]),
    "arcsin at its bounds": (np.arcsin, [[-1.0, 1.0]], [[INF, INF]]),
    "arccos at its bounds": (np.arccos, [[-1.0, 1.0]], [[-INF, -INF]]),
    "arctanh at its bounds": (np.arctanh, [[-1.0, 1.0]], [[INF, INF]]),
    "arccosh at 1": (np.arccosh, [1.0], [INF]),
    "sqrt of a sum of squares at 0": (lambda x: np.sqrt(np.sum(x**2)), [zeros(2)], [[NAN, NAN]]),
    "sinc at 0": (np.sinc, [0.0], [0]),
    # zero upstream kills (all of test_values_masked.py): what is left out has no slope at all
    "where without sqrt": (
        lambda x: np.where(x > 0, np.sqrt(x), 0), [[0.0, -1.0, 4.0]], [[0, 0, 0.25]]
    ),
    "where without log": (
        lambda x: np.where(x > 0, np.log(x), 0), [[0.0, -1.0, 4.0]], [[0, 0, 0.25]]
    ),
    "where without 1/x": (
        lambda x: np.where(x > 0, 1 / x, 0), [[0.0, -1.0, 4.0]], [[0, 0, -1 / 16]]
    ),
    "where without a norm": (
        lambda x: np.where(x[:, 0] > 0, np.sqrt(np.sum(x**2, axis=1)), 0),
        [[[0.0, 0.0], [4.0, 0.0]]], [[[0, 0], [1, 0]]],
    ),
    "maximum of a logarithm": (lambda x: np.maximum(np.log(x), -9), [[0.0, 4.0]], [[0, 0.25]]),
    "sqrt(x)**2 at 0": (lambda x: np.sqrt(x) ** 2, [0.0], [0]),
    # powers
    "x**0 at 0": (lambda x: x**0, [0.0], [0]),
    "x**0.0 at 0": (lambda x: x**0.0, [0.0], [0]),
    "x**1 at 0": (lambda x: x**1, [0.0], [1]),
    "x**1.0 at 0": (lambda x: np.power(x, 1.0), [0.0], [1]),
    "x**2 at 0": (lambda x: x**2, [0.0], [0]),
    "x**2.0 at 0": (lambda x: x**2.0, [0.0], [0]),
    "x**0.5 at 0": (lambda x: x**0.5, [0.0], [INF]),
    "x**-1 at 0": (lambda x: x**-1, [0.0], [-INF]),
    "x**y at 0, 2": (np.power, [0.0, 2.0], [0, 0]),
    "x**y at 0, 1": (np.power, [0.0, 1.0], [1, 0]),
    "x**y at 0, 0": (np.power, [0.0, 0.0], [0, -INF]),
    "x**x at 0": (lambda x: x**x, [0.0], [-INF]),
    "1**y": (np.power, [1.0, 5.0], [5, 0]),
    "(-2)**3": (lambda x: x**3, [-2.0], [12]),
    "(-2)**2.0": (lambda x: np.power(x, 2.0), [-2.0], [-4]),
    "(-2)**[1, 2, 3]": (lambda x: x ** np.array([1.0, 2.0, 3.0]), [-2.0], [1 - 4 + 12]),
    # products
    "prod with one 0": (np.prod, [[2.0, 0.0, 3.0]], [[0, 6, 0]]),
    "prod with two 0": (np.prod, [[0.0, 2.0, 0.0]], [[0, 0, 0]]),
    "prod of rows": (lambda x: np.prod(x, axis=1), [[[0, 2], [0, 0.0]]], [[[2, 0], [0, 0]]]),
    "cumprod with one 0": (np.cumprod, [[2.0, 0.0, 3.0]], [[1, 2 + 2 * 3, 0]]),
    "cumprod with two 0": (np.cumprod, [[0.0, 2.0, 0.0]], [[1 + 2, 0, 0]]),
    # infinities
    "logaddexp of -inf, -inf": (np.logaddexp, [-INF, -INF], [0.5, 0.5]),
    "logaddexp2 of -inf, -inf": (np.logaddexp2, [-INF, -INF], [0.5, 0.5]),
    "logaddexp of inf, inf": (np.logaddexp, [INF, INF], [0.5, 0.5]),
    "logaddexp of -inf, 0": (np.logaddexp, [-INF, 0.0], [0, 1]),
    "logaddexp of 0, inf": (np.logaddexp, [0.0, INF], [0, 1]),
    "logaddexp of 1e10, 1e10": (np.logaddexp, [1e10, 1e10], [0.5, 0.5]),
    "logsumexp with -inf": (flux.logsumexp, [[-INF, 0.0, 0.0]], [[0, 0.5, 0.5]]),
    "softmax with -inf": (lambda x: flux.softmax(x)[1], [[-INF, 0.0, 0.0]], [[0, 0.25, -0.25]]),
    "xlogy at 0, 0": (sp.xlogy, [0.0, 0.0], [-INF, 0]),
    "xlogy at 0, 2": (sp.xlogy, [0.0, 2.0], [np.log(2.0), 0]),
    "nan_to_num": (np.nan_to_num, [[NAN, INF, 2.0]], [[0, 0, 1]]),
    "where takes nothing from the other side": (
        lambda x: np.where(x > 0, x, 7.0), [[0.0, 1.0, NAN]], [[0, 1, 0]]
    ),
    "huber at delta": (
        lambda e: flux.losses.huber_loss(e, zeros(2), agg=np.sum), [[1.0, -1.0]], [[1, -1]]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_gradient(case):
    f, x, wanted = TABLE[case]
    found = d(f, *x)
    for g, w in zip(found, wanted, strict=True):
        if w is None:
            assert g is None
        else:
            np.testing.assert_array_equal(g, w)


@pytest.mark.parametrize("case", TABLE)
def test_single_precision_has_the_same_table(case):
    f, x, wanted = TABLE[case]
    x = [np.asarray(a, np.float32) for a in x]
    with np.errstate(all="ignore"):
        found = flux.gradient(lambda *a: np.sum(f(*a)), *x)
    for g, w in zip(found, wanted, strict=True):
        if w is not None:
            assert g.dtype == np.float32
            np.testing.assert_allclose(g, w, rtol=1e-6)


SECOND = {
    "x**2 at 0": (lambda x: x**2, 0.0, 2.0),
    "x**2.0 at 0": (lambda x: np.power(x, 2.0), 0.0, 2.0),
    "x**3 at 0": (lambda x: x**3, 0.0, 0.0),
    "x**1 at 0": (lambda x: x**1, 0.0, 0.0),
    "relu beside its kink": (flux.relu, 1.0, 0.0),
    "abs beside its kink": (np.abs, -1.0, 0.0),
    "sinc at 0": (np.sinc, 0.0, -(np.pi**2) / 3),
    "softplus at 0": (flux.softplus, 0.0, 0.25),
    "softplus far out": (flux.softplus, -200.0, np.exp(-200.0)),
    "logsigmoid far out": (flux.logsigmoid, 200.0, -np.exp(-200.0)),
    "logaddexp of x and 1 at 1": (lambda x: np.logaddexp(x, 1.0), 1.0, 0.25),
    "logaddexp of x and 300 at 0": (lambda x: np.logaddexp(x, 300.0), 0.0, np.exp(-300.0)),
    "elu on the left": (flux.elu, -1.0, np.exp(-1.0)),
    "celu on the left": (lambda x: flux.celu(x, alpha=2.0), -1.0, np.exp(-0.5) / 2),
    "logcosh at 0": (flux.logcosh, 0.0, 1.0),
    "softsign on the left": (flux.softsign, -1.0, 0.25),
    "hardswish inside": (flux.hardswish, 1.0, 1 / 3),
    "tanhshrink far out": (flux.tanhshrink, 400.0, 0.0),
}


@pytest.mark.parametrize("case", SECOND)
def test_second_derivative(case):
    f, x, wanted = SECOND[case]
    (found,) = flux.gradient(lambda x: flux.gradient(f, x)[0], x)
    np.testing.assert_allclose(0.0 if found is None else found, wanted, rtol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_eigenvectors_of_equal_eigenvalues_have_no_slope(compiled):
    """They may turn freely; the eigenvalues alone have a slope, and so has another matrix."""
    c = np.arange(9.0).reshape(3, 3)
    a = np.stack([np.eye(3), np.diag([1.0, 2.0, 3.0])])

    def rebuilt(a):
        w, v = np.linalg.eigh(a)
        return np.sum(c * np.matmul(v * w[:, None, :], np.swapaxes(v, -1, -2)))

    wrap = flux.compiled if compiled else flux.identity
    (g,) = flux.gradient(wrap(rebuilt), a)
    assert np.isnan(g[0]).any()
    np.testing.assert_allclose(g[1], (c + c.T) / 2, rtol=1e-14)
    (g,) = flux.gradient(wrap(lambda a: np.sum(np.linalg.eigh(a)[0] ** 2)), a)
    np.testing.assert_allclose(g, 2 * a, atol=1e-14)
    h = flux.hessian(lambda a: np.sum(np.linalg.eigh(a)[0]), np.eye(2))
    assert np.isnan(h).any()


@pytest.mark.parametrize("f", [np.max, np.min, np.ptp, lambda x: np.max(x, axis=0)])
def test_extremes_of_nothing_raise_as_in_numpy(f):
    for x in (np.ones(0), np.ones((0, 3))):
        with pytest.raises(ValueError):
            f(x)
        with pytest.raises(ValueError):
            flux.gradient(lambda x: np.sum(f(x)), x)


def test_sums_and_means_of_nothing():
    (g,) = d(np.sum, zeros((0, 3)))
    assert g.shape == (0, 3)
    with pytest.warns(RuntimeWarning):
        value, (g,) = flux.withgradient(np.mean, zeros(0))
    assert np.isnan(value) and g.shape == (0,)


@pytest.mark.parametrize("f", [np.sqrt, np.cbrt, lambda x: x**0.5, np.linalg.norm, np.std])
def test_an_infinite_slope_is_a_value_and_no_warning(f):
    """Warnings are errors in these tests."""
    flux.gradient(lambda x: np.sum(f(x)), zeros(3))


def test_a_row_of_minus_infinities_is_nan():
    """There is no probability to give; it is not hidden."""
    with np.errstate(invalid="ignore"):
        assert np.all(np.isnan(flux.softmax(np.full(3, -INF))))
    assert flux.logsumexp(np.full(3, -INF)) == -INF


def test_zero_dimensional_and_empty_gradients_are_arrays():
    for x in (np.float64(2), zeros(()), zeros((0,)), zeros((2, 0))):
        (g,) = flux.gradient(lambda x: np.sum(x * x), x)
        assert type(g) is np.ndarray and g.shape == np.shape(x)
