"""The losses against their formulas in extended precision; shapes, labels, eps, extremes."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.suites import examples
from tinyflux import losses

thorough = settings(max_examples=examples(25), deadline=None, derandomize=True)
LONG = np.longdouble


def long_log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


def long_huber(p, y, delta=1.0):
    e = np.abs(p - y)
    return np.where(e < delta, e * e / 2, delta * (e - LONG(delta) / 2))


def xlogx(y):
    return np.where(y == 0, 0, y * np.log(np.where(y == 0, 1, y)))


# Each formula before the aggregation; p the prediction, y the target, eps the machine epsilon.
FORMULAS = {
    "mae": lambda p, y, eps: np.abs(p - y),
    "mse": lambda p, y, eps: (p - y) ** 2,
    "msle": lambda p, y, eps: (np.log(p + eps) - np.log(y + eps)) ** 2,
    "huber_loss": lambda p, y, eps: long_huber(p, y),
    "crossentropy": lambda p, y, eps: -np.sum(y * np.log(p + eps), axis=-1),
    "logitcrossentropy": lambda p, y, eps: -np.sum(y * long_log_softmax(p), axis=-1),
    "kldivergence": lambda p, y, eps: np.sum(xlogx(y) - y * np.log(p + eps), axis=-1),
    "binarycrossentropy": lambda p, y, eps: -y * np.log(p + eps) - (1 - y) * np.log(1 - p + eps),
    "logitbinarycrossentropy": lambda p, y, eps: (1 - y) * p + np.log1p(np.exp(-p)),
}
CLASSES = ["crossentropy", "logitcrossentropy", "kldivergence"]
SCORES = ["logitcrossentropy", "logitbinarycrossentropy"]
every = pytest.mark.parametrize("name", FORMULAS)
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
shapes = st.one_of(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 5)),
    st.just((2, 3, 4)),
)


def draw(name, shape, dtype, seed=0):
    """A prediction and a target that go with a loss; some targets are 0 and 1."""
    rng = np.random.default_rng(seed)
    p, y = rng.uniform(0.05, 0.95, (2, *shape))
    y = np.where(rng.random(shape) < 0.3, rng.integers(0, 2, shape), y)
    if name in SCORES:
        p = rng.normal(0, 3, shape)
    return p.astype(dtype), y.astype(dtype)


def loss_of(name):
    return getattr(losses, name)


# --- values --------------------------------------------------------------------------------------


@every
@both
@thorough
@given(shapes, st.integers(0, 99))
def test_values_are_those_of_the_formula(name, dtype, shape, seed):
    loss, eps = loss_of(name), np.finfo(dtype).eps
    p, y = draw(name, shape, dtype, seed)
    wanted = FORMULAS[name](p.astype(LONG), y.astype(LONG), LONG(eps))
    single = loss(p, y, agg=flux.identity)
    assert single.dtype == dtype and single.shape == wanted.shape
    close = {"rtol": 20 * eps, "atol": 20 * eps}
    np.testing.assert_allclose(single, wanted, **close)
    np.testing.assert_allclose(loss(p, y), wanted.mean(), **close)
    np.testing.assert_allclose(loss(p, y, agg=np.sum), wanted.sum(), **close)
    assert loss(p, y).dtype == dtype and np.ndim(loss(p, y)) == 0
    np.testing.assert_array_equal(loss(p, y, agg=lambda e: np.max(e)), single.max())


@every
@thorough
@given(shapes, st.integers(0, 99))
def test_gradients_agree_with_differences(name, shape, seed):
    p, y = draw(name, shape, np.float64, seed)
    y = y * 0.9 + 0.05
    assert flux.gradcheck(loss_of(name), p, y)
    assert flux.gradcheck(lambda p, y: loss_of(name)(p, y, agg=np.sum), p, y)


@every
@both
def test_gradients_keep_the_type_whatever_the_target(name, dtype):
    p, y = draw(name, (4, 3), dtype)
    for target in (
        y,
        y.astype(np.float64),
        y.astype(np.float32),
        y.tolist(),
        (y > 0.5),
        np.ones((4, 3), int),
    ):
        value, (g,) = flux.withgradient(lambda p: loss_of(name)(p, target), p)  # noqa: B023
        assert value.dtype == dtype and g.dtype == dtype


@every
def test_a_perfect_prediction_has_no_slope_along_the_feasible_directions(name):
    """Moving probability from one class to another costs nothing at the first order."""
    y = np.array([[0.2, 0.3, 0.5]])
    p = {"logitcrossentropy": np.log(y), "logitbinarycrossentropy": np.log(y / (1 - y))}.get(
        name, y
    )
    (g,) = flux.gradient(loss_of(name), p, y)[:1]
    if name in ("crossentropy", "kldivergence"):
        g = g - g.mean()
    np.testing.assert_allclose(g, np.zeros_like(y), atol=1e-12)


def test_closed_forms():
    p = np.array([[0.25, 0.75]])
    assert losses.crossentropy(p, np.array([0])) == pytest.approx(np.log(4))
    assert losses.logitcrossentropy(np.log(p), np.array([0])) == pytest.approx(np.log(4))
    assert losses.kldivergence(p, p) == pytest.approx(0, abs=1e-14)
    assert losses.mse([1.0, 2.0], [1.0, 4.0]) == 2
    assert losses.mae([1.0, 2.0], [1.0, 4.0]) == 1
    assert losses.binarycrossentropy([0.25], [1.0]) == pytest.approx(np.log(4))
    assert losses.logitbinarycrossentropy([0.0], [1.0]) == pytest.approx(np.log(2))


def test_numbers_are_predictions_as_well():
    assert losses.mse(3.0, 1.0) == 4
    assert flux.gradient(lambda p: losses.mse(p, 1.0), 3.0) == (4.0,)


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0])
def test_huber(delta):
    e = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 3.0])
    found = losses.huber_loss(e, np.zeros(6), delta=delta, agg=flux.identity)
    np.testing.assert_allclose(found, long_huber(e, 0.0, delta).astype(float))
    (g,) = flux.gradient(lambda e: losses.huber_loss(e, np.zeros(6), delta=delta, agg=np.sum), e)
    np.testing.assert_allclose(g, np.minimum(e, delta))
    for wrong in (0, -1, np.nan):
        with pytest.raises(ValueError, match="delta must be positive"):
            losses.huber_loss(e, e, delta=wrong)


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("agg", [np.mean, np.sum, flux.identity])
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3)])
@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8])
def test_labels_are_one_hot_rows(name, agg, shape, dtype):
    p, _ = draw(name, shape, np.float32)
    labels = np.random.default_rng(0).integers(0, 3, shape[:-1])
    one_hot = np.eye(3)[labels]
    loss = loss_of(name)
    np.testing.assert_array_equal(loss(p, labels.astype(dtype), agg=agg), loss(p, one_hot, agg=agg))
    for y in (labels.astype(dtype), labels.tolist(), one_hot.astype(bool)):
        np.testing.assert_array_equal(loss(p, y), loss(p, one_hot))


@pytest.mark.parametrize("name", CLASSES)
def test_a_single_observation_with_its_label(name):
    p = np.array([0.25, 0.75])
    assert loss_of(name)(p, 1) == loss_of(name)(p, np.int64(1)) == loss_of(name)(p[None], [1])


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "labels, text",
    [
        ([0, 3], "has 3 classes on its last axis, so labels go from 0 to 2; got 3"),
        ([0, -1], "from 0 to 2; got -1"),
        ([0.0, 1.0], r"dtype float64: use y.astype\(int\)"),
        ([True, False], r"dtype bool: use y.astype\(int\)"),
        ([0, 1, 2], r"shape \(2, 3\) and y has \(3,\)"),
        ([[0], [1]], r"shape \(2, 3\) and y has \(2, 1\)"),
        ([[0, 1]] * 2, r"y has \(2, 2\)"),
    ],
)
def test_labels_that_are_refused(name, labels, text):
    for y in (labels, np.array(labels)):
        with pytest.raises(ValueError, match=text):
            loss_of(name)(np.ones((2, 3)) / 3, y)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "labels, text",
    [(["a", "b"], "y is list; an array of numbers"), (None, "y is NoneType")],
)
def test_labels_that_are_no_numbers(name, labels, text):
    with pytest.raises(TypeError, match=text):
        loss_of(name)(np.ones((2, 3)) / 3, labels)


@pytest.mark.parametrize("name", sorted(set(FORMULAS) - set(CLASSES)))
def test_labels_are_for_classes_only(name):
    with pytest.raises(ValueError, match="they must be equal"):
        loss_of(name)(np.full((2, 3), 0.5), np.array([0, 1]))


# --- shapes and kinds ----------------------------------------------------------------------------


@every
@pytest.mark.parametrize(
    "a, b", [((3,), (3, 1)), ((3, 1), (3,)), ((2, 3), (3,)), ((2, 3), (1, 3)), ((), (1,))]
)
def test_different_shapes_are_refused_and_both_are_named(name, a, b):
    for p, y in (
        (np.full(a, 0.5), np.full(b, 0.5)),
        (flux.Tensor(np.full(a, 0.5)), np.full(b, 0.5)),
    ):
        with pytest.raises(ValueError) as caught:
            loss_of(name)(p, y)
        text = f"{name}: yhat has shape {a} and y has {b}; they must be equal"
        assert caught.match("^" + re.escape(text))
        if np.prod(a) == np.prod(b) and not (name in CLASSES and b == a[:-1]):
            assert caught.match(re.escape(f"write y.reshape({a}), or yhat.reshape({b})"))


@every
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_an_empty_batch_is_refused(name, shape):
    with pytest.raises(ValueError, match=rf"{name}: got an empty batch \(shape \({shape[0]}"):
        loss_of(name)(np.ones(shape), np.ones(shape))


@pytest.mark.parametrize("name", CLASSES)
def test_an_empty_batch_with_labels_is_refused(name):
    with pytest.raises(ValueError, match="empty batch"):
        loss_of(name)(np.ones((0, 3)), np.ones(0, int))


@every
def test_targets_of_the_wrong_kind(name):
    p = np.full((2, 3), 0.5)
    for y in (p.astype(complex), p.astype(str), p.astype(object)):
        with pytest.raises(TypeError, match=f"{name}: y has dtype"):
            loss_of(name)(p, y)
    with pytest.raises(TypeError, match=f"{name}: y is a masked array"):
        loss_of(name)(p, np.ma.masked_array(p, p > 0))
    with pytest.raises(TypeError, match=f"{name}: yhat is str"):
        loss_of(name)("text", p)


@every
def test_inputs_are_not_written_to_and_may_be_read_only(name):
    p, y = draw(name, (3, 4), np.float64)
    kept = p.copy(), y.copy()
    p.flags.writeable = y.flags.writeable = False
    value, gradients = flux.withgradient(loss_of(name), p, y)
    assert len(gradients) == 2
    np.testing.assert_array_equal(p, kept[0])
    np.testing.assert_array_equal(y, kept[1])
    for view in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2]):
        np.testing.assert_allclose(loss_of(name)(view(p), view(y)), value, rtol=1e-15)


@every
def test_a_loss_inside_a_gradient_is_recorded_with_a_function_of_ones_own(name):
    p, y = draw(name, (4, 3), np.float64)
    mine = lambda e: np.sum(np.square(e))
    (g,) = flux.gradient(lambda p: loss_of(name)(p, y, agg=mine), p)
    single = loss_of(name)(p, y, agg=flux.identity)
    _, back = flux.pullback(lambda p: loss_of(name)(p, y, agg=flux.identity), p)
    np.testing.assert_allclose(g, back(2 * single)[0], rtol=1e-10, atol=1e-12)


# --- extremes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("dtype, size", [(np.float32, 100), (np.float64, 1e4), (np.float32, 1e30)])
@pytest.mark.parametrize("agg", [np.mean, np.sum])
def test_scores_of_any_size(name, dtype, size, agg):
    """Exact where a logarithm of the probability would be infinite; warnings are errors here."""
    z = np.array([[size, -size], [-size, size], [0, 0], [size, 0]], dtype)
    y = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype)
    value, (g,) = flux.withgradient(lambda z: loss_of(name)(z, y, agg=agg), z)
    long_z, long_y = z.astype(LONG), y.astype(LONG)
    single = {
        "logitcrossentropy": lambda: -np.sum(long_y * long_log_softmax(long_z), axis=-1),
        "logitbinarycrossentropy": lambda: (1 - long_y) * long_z
        + np.maximum(-long_z, 0) + np.log1p(np.exp(-np.abs(long_z))),
    }[name]()  # fmt: skip
    np.testing.assert_allclose(value, agg(single), rtol=1e-6)
    assert np.all(np.isfinite(g)) and np.max(np.abs(g)) <= 1 and g.dtype == dtype


@pytest.mark.parametrize("name", ["crossentropy", "kldivergence", "binarycrossentropy"])
@both
def test_probabilities_of_exactly_0_and_1(name, dtype):
    """Finite by the eps of Flux 0.12; the least probable is as bad as -log(eps)."""
    p, y = np.array([[0, 1]], dtype), np.array([[1, 0]], dtype)
    eps = np.finfo(dtype).eps
    value, (g,) = flux.withgradient(loss_of(name), p, y)[0], flux.gradient(loss_of(name), p, y)[:1]
    np.testing.assert_allclose(value, -np.log(LONG(eps)), rtol=1e-6)
    assert np.all(np.isfinite(g))
    assert abs(loss_of(name)(y, y)) < 2 * eps


@both
def test_eps_is_the_machine_epsilon_unless_told(dtype):
    p, y = np.array([[0, 1]], dtype), np.array([0])
    assert losses.crossentropy(p, y) == losses.crossentropy(p, y, eps=np.finfo(dtype).eps)
    np.testing.assert_allclose(losses.crossentropy(p, y, eps=0.5), -np.log(0.5), rtol=1e-6)
    for name in ("msle", "kldivergence", "binarycrossentropy"):
        p, y = draw(name, (2, 3), dtype)
        found = loss_of(name)(p, y, eps=0.25)
        np.testing.assert_allclose(found, FORMULAS[name](p, y, 0.25).mean(), rtol=1e-5)
        assert found.dtype == dtype


def test_zero_targets_count_as_zero():
    """0 log 0 is 0 in the entropy of the target."""
    value = losses.kldivergence(np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]]))
    assert value == pytest.approx(np.log(2))


@pytest.mark.parametrize("of", [losses.binarycrossentropy, losses.logitbinarycrossentropy])
@pytest.mark.parametrize("wrap", [lambda f: f, flux.compiled])
def test_labels_of_two_classes_lie_from_0_to_1(of, wrap):
    """With -1 and 1 the loss would fall for ever, and look fine."""
    w = flux.Tensor(np.zeros(3))
    loss = wrap(lambda x, y: of(flux.sigmoid(x @ w), y))
    x, y = np.ones((4, 3)), np.array([0.0, 1.0, 0.25, 1.0])
    flux.train_(loss, [w], [(x, y)], flux.SGD(0.1))
    before = w.data.copy()
    for bad, said in [(2 * y - 1, r"got -1.*\(y \+ 1\) / 2"), (255 * y, "got 255")]:
        with pytest.raises(ValueError, match=f"{of.__name__}: y goes from 0 to 1, {said}"):
            flux.train_(loss, [w], [(x, bad)], flux.SGD(0.1))
    assert (w.data == before).all() and (y == [0, 1, 0.25, 1]).all()


# --- softer targets ------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.1, 0.5])
@both
def test_label_smoothing(alpha, dtype):
    y = np.eye(4, dtype=dtype)[[0, 2]]
    soft = losses.label_smoothing(y, alpha)
    assert soft.dtype == dtype
    np.testing.assert_allclose(soft, y * (1 - alpha) + alpha / 4, rtol=1e-6)
    np.testing.assert_allclose(soft.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(losses.label_smoothing(y.T, alpha, axis=0), soft.T)
    np.testing.assert_allclose(losses.label_smoothing(y[None], alpha), soft[None])
    two = losses.label_smoothing(np.array([0, 1], dtype), alpha, axis=None)
    np.testing.assert_allclose(two, [alpha / 2, 1 - alpha / 2], rtol=1e-6)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, np.nan])
def test_label_smoothing_with_a_wrong_alpha(alpha):
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        losses.label_smoothing([[0.0, 1.0]], alpha)


def test_label_smoothing_of_a_number():
    with pytest.raises(ValueError, match="use axis=None for two classes"):
        losses.label_smoothing(1.0, 0.1)
    assert losses.label_smoothing(1.0, 0.2, axis=None) == pytest.approx(0.9)
