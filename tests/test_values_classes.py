"""Softmax, its relatives and the losses for classes: values and gradients at scores of any size.

The oracles are the formulas in wider arithmetic (float64 for float32, longdouble for float64), by
sums of terms of one sign; the bounds are in eps of the largest number that takes part.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyflux as flux
from tests.suites import examples
from tests.test_values_extremes import WIDE, both, check, long_sigmoid, long_softplus, slope
from tinyflux import losses
from tinyflux.ops.nn import ones

thorough = settings(max_examples=examples(40), deadline=None, derandomize=True)
sizes = st.sampled_from([1e-8, 1.0, 20.0, 37.0, 89.0, 100.0, 710.0, 1e4, 1e10, 1e30])
shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)


@st.composite
def scores(draw):
    """Arrays of scores of one order of magnitude, some of them equal."""
    x = draw(hnp.arrays(np.float64, draw(shapes), elements=st.floats(-1, 1)))
    return x * draw(sizes)


def wide_probabilities(x):
    """(p, log p, log of the sum) of the last axis."""
    top = x.max(axis=-1, keepdims=True)
    e = np.exp(x - top)
    total = e.sum(axis=-1, keepdims=True)
    return e / total, x - top - np.log(total), top + np.log(total)


def wide(x):
    with np.errstate(all="ignore"):
        return wide_probabilities(x.astype(WIDE[x.dtype.type]))


def spread(x):
    """What the rounding of a difference of scores does to its exponential, in eps."""
    return np.minimum(np.ptp(x, axis=-1, keepdims=True).astype(np.float64), 1e3)


@both
@thorough
@given(scores())
def test_softmax_and_its_relatives(dtype, x):
    x = x.astype(dtype)
    p, log_p, log_sum = wide(x)
    n = x.shape[-1]
    y = flux.softmax(x)
    check(y, p, 4 + n + spread(x))
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=(2 + n) * np.finfo(dtype).eps)
    check(flux.logsoftmax(x), log_p, 4, 4 + np.log(n))
    check(flux.logsumexp(x, keepdims=True), log_sum, 2, 4)
    check(slope(flux.logsumexp, x)[0], p, 4 + n + spread(x))
    weights = np.linspace(-1, 1, x.size, dtype=dtype).reshape(x.shape)
    w = weights.astype(p.dtype)
    with np.errstate(under="ignore"):
        of_softmax = p * (w - np.sum(w * p, axis=-1, keepdims=True))
        of_logsoftmax = w - p * w.sum(axis=-1, keepdims=True)
    few = 8 + 2 * n
    check(slope(lambda x: flux.softmax(x) * weights, x)[0], of_softmax, spread(x), few)
    check(slope(lambda x: flux.logsoftmax(x) * weights, x)[0], of_logsoftmax, 0, few + spread(x))


@thorough
@given(hnp.arrays(np.int64, (3, 4), elements=st.integers(-50, 50)), st.integers(0, 900))
def test_shifting_the_scores_changes_no_bit(x, power):
    """Whole numbers plus a power of 2: the sums are exact, or all scores become equal."""
    x, shift = x.astype(np.float64), 2.0 ** min(power, 46)
    for f in (flux.softmax, flux.logsoftmax):
        np.testing.assert_array_equal(f(x + shift), f(x))
    huge = np.full((2, 4), 2.0**power * 1e10)
    np.testing.assert_array_equal(flux.softmax(huge), 0.25)
    np.testing.assert_array_equal(flux.softmax(-huge), 0.25)


@pytest.mark.parametrize("size", [np.inf, 1e308])
def test_one_score_of_minus_infinity_has_no_probability_and_no_gradient(size):
    x = np.array([0.0, -size, 1.0])
    assert flux.softmax(x)[1] == 0
    for k in range(3):
        (g,) = flux.gradient(lambda x: flux.softmax(x)[k], x)  # noqa: B023
        assert g[1] == 0 and np.isfinite(g).all()
    assert flux.gradient(flux.logsumexp, x)[0][1] == 0


def test_a_row_of_minus_infinities_is_nan_and_can_be_left_out():
    """There is no probability to give; where nobody asks for logsumexp, nothing spreads."""
    x = np.array([[-np.inf, -np.inf], [1.0, 2.0]])
    with np.errstate(invalid="ignore"):
        assert np.isnan(flux.softmax(x)[0]).all() and np.isnan(flux.logsoftmax(x)[0]).all()
    (g,) = flux.gradient(lambda x: np.sum(np.where([False, True], flux.logsumexp(x), 0)), x)
    np.testing.assert_allclose(g, [[0, 0], flux.softmax(x[1])])


# ------------------------------------------------------------------------------- losses


def one_hot(x):
    """Labels for rows of scores, and the same as rows."""
    labels = np.arange(x[..., 0].size).reshape(x.shape[:-1]) % x.shape[-1]
    return labels, np.eye(x.shape[-1], dtype=x.dtype)[labels]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("way", [lambda f: f, flux.compiled])
@pytest.mark.parametrize("agg", [np.mean, np.sum])
def test_a_class_may_be_left_out_by_a_score_of_minus_infinity(dtype, way, agg):
    for scores, wanted in (([[-np.inf, 0, 1]], np.log1p(np.e)), ([[-3e38, 3e38, 0]], 0.0)):
        for y in (np.array([1]), np.array([[0, 1, 0]], bool), np.array([[0, 1, 0]], dtype)):
            f = way(lambda x, y=y: losses.logitcrossentropy(x, y, agg=agg))
            with np.errstate(over="ignore"):  # the difference of the scores
                value, (slope,) = flux.withgradient(f, np.array(scores, dtype))
            np.testing.assert_allclose(value, wanted, rtol=1e-6)
            assert slope[0, 0] == 0 and np.isfinite(slope).all()


@pytest.mark.parametrize("way", [lambda f: f, flux.compiled])
@pytest.mark.parametrize("agg", [np.mean, np.sum])
def test_a_target_of_0_has_a_gradient_too(way, agg):
    """As one that is learned has; also within another gradient."""
    x, y = np.array([[0.0, 1.0, 3.0]]), np.array([[1.0, 0.0, 0.0]])
    f = way(lambda y: losses.logitcrossentropy(x, y, agg=agg))
    np.testing.assert_allclose(flux.gradient(f, y)[0], -flux.logsoftmax(x))
    g = way(lambda y: np.sum(flux.gradient(f, y)[0] * np.array([1.0, 2.0, 3.0]) * y**2))
    wanted = -flux.logsoftmax(x) * [[2.0, 0.0, 0.0]]
    value, (slope,) = flux.withgradient(g, y)
    np.testing.assert_allclose(value, wanted[0, 0] / 2)
    np.testing.assert_allclose(slope, wanted)
    g = way(lambda y: np.sum(flux.gradient(f, y)[0]) + 0 * np.sum(y))
    np.testing.assert_allclose(flux.withgradient(g, y)[0], -np.sum(flux.logsoftmax(x)))


@both
@thorough
@given(scores())
def test_cross_entropy_of_scores(dtype, x):
    """Its gradient is p - y, finite and at most 1 whatever the scores are."""
    x = x.astype(dtype)
    labels, y = one_hot(x)
    p, log_p, _ = wide(x)
    rows, n = max(labels.size, 1), x.shape[-1]
    picked = np.sum(np.where(y > 0, -log_p, 0), axis=-1)
    for target in (labels, y):
        single = losses.logitcrossentropy(x, target, agg=flux.identity)
        check(np.asarray(single), np.asarray(picked), 4, 4 + np.log(n))
        value, (g,) = flux.withgradient(lambda x: losses.logitcrossentropy(x, target), x)  # noqa: B023
        assert value.dtype == g.dtype == dtype and np.isfinite(value)
        check(g * dtype(rows), p - y, 0, 4 + 2 * n + spread(x))
        assert np.all(np.abs(g) <= 1)


@both
@thorough
@given(scores())
def test_cross_entropy_of_two_classes(dtype, z):
    """To a few units in the last place in both tails: -log sigmoid(z) or -log sigmoid(-z)."""
    z = z.astype(dtype)
    w = z.astype(WIDE[dtype])
    with np.errstate(under="ignore"):
        wanted = {1: (long_softplus(-w), -long_sigmoid(-w)), 0: (long_softplus(w), long_sigmoid(w))}
    for label, (value, slopes) in wanted.items():
        y = np.full_like(z, label)
        single = losses.logitbinarycrossentropy(z, y, agg=flux.identity)
        check(single, value, 4)
        (g,) = flux.gradient(lambda z: losses.logitbinarycrossentropy(z, y, agg=np.sum), z)  # noqa: B023
        check(g, slopes, 5)


@both
@thorough
@given(scores())
def test_cross_entropy_of_probabilities(dtype, x):
    """As Flux: with eps inside the logarithm, so that 0 costs -log eps with the slope 1 / eps."""
    x = x.astype(dtype)
    eps = np.finfo(dtype).eps
    p = flux.softmax(x)
    y = one_hot(x)[1]
    w, few = p.astype(WIDE[dtype]), 8 + 2 * x.shape[-1]
    for name, formula, slopes in [
        ("crossentropy", -np.sum(y * np.log(w + eps), axis=-1), -y / (w + eps)),
        ("kldivergence", -np.sum(y * np.log(w + eps), axis=-1), -y / (w + eps)),
        (
            "binarycrossentropy",
            -y * np.log(w + eps) - (1 - y) * np.log(1 - w + eps),
            -y / (w + eps) + (1 - y) / (1 - w + eps),
        ),
    ]:
        loss = getattr(losses, name)
        check(np.asarray(loss(p, y, agg=flux.identity)), np.asarray(formula), few, few)
        (g,) = flux.gradient(lambda p: loss(p, y, agg=np.sum), p)  # noqa: B023
        assert np.isfinite(g).all() and g.dtype == dtype
        # near 1 the sum 1 - p + eps has no more digits than eps
        check(g, slopes, few, where=(y > 0) | (w < 0.9))


def test_the_ones_that_all_sums_share_cannot_be_written_to():
    shared = ones(3, "f")
    assert shared is ones(3, "f")
    with pytest.raises(ValueError, match="read-only"):
        shared[0] = 2


def test_every_loss_is_silent_where_numpy_may_raise():
    """Exponentials that underflow inside are no business of the caller's."""
    z = np.array([[1e4, -1e4, 0.0], [800.0, 0.0, -800.0]])
    y = np.eye(3)[[1, 0]]
    with np.errstate(all="raise"):
        for f in (flux.softmax, flux.logsoftmax, flux.logsumexp):
            f(z)
        for loss in (losses.logitcrossentropy, losses.logitbinarycrossentropy):
            for agg in (np.mean, np.sum):
                value, (g,) = flux.withgradient(lambda z: loss(z, y, agg=agg), z)  # noqa: B023
                assert np.isfinite(value) and np.isfinite(g).all()
        losses.crossentropy(flux.softmax(z), y)
    assert np.geterr()["under"] == "ignore"


def test_targets_that_do_not_sum_to_one_count_as_they_are():
    x = np.array([[0.0, 1.0]])
    one = losses.logitcrossentropy(x, np.array([[1.0, 0.0]]))
    assert losses.logitcrossentropy(x, np.array([[2.0, 0.0]])) == 2 * one
    assert losses.logitcrossentropy(x, np.array([[0.0, 0.0]])) == 0
