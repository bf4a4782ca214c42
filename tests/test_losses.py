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


def long_focal(p, eps, gamma=2):
    return (1 - p) ** gamma * -np.log(p + eps)


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
    "poisson_loss": lambda p, y, eps: p - y * np.log(p),
    "hinge_loss": lambda p, y, eps: np.maximum(0, 1 - p * y),
    "squared_hinge_loss": lambda p, y, eps: np.maximum(0, 1 - p * y) ** 2,
    "focal_loss": lambda p, y, eps: np.sum(-y * (1 - p) ** 2 * np.log(p + eps), axis=-1),
    "binary_focal_loss": lambda p, y, eps: long_focal(y * p + (1 - y) * (1 - p), eps),
    "siamese_contrastive_loss": lambda p, y, eps: (1 - y) * p**2 + y * np.maximum(0, 1 - p) ** 2,
}
CLASSES = ["crossentropy", "logitcrossentropy", "kldivergence", "focal_loss"]
MARGINS = ["hinge_loss", "squared_hinge_loss"]
# Their smallest value is elsewhere.
BIASED = [*MARGINS, "focal_loss", "binary_focal_loss", "siamese_contrastive_loss"]
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
    if name in SCORES + MARGINS:
        p = rng.normal(0, 3, shape)
    if name in MARGINS:
        y = np.where(y > 0.5, 1.0, -1.0)
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
        (y > 0.5) | (name in MARGINS),
        np.ones((4, 3), int),
    ):
        value, (g,) = flux.withgradient(lambda p: loss_of(name)(p, target), p)  # noqa: B023
        assert value.dtype == dtype and g.dtype == dtype


@pytest.mark.parametrize("name", sorted(set(FORMULAS) - set(BIASED)))
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
    [
        (["a", "b"], r"y is \['a', 'b'\] \(list\); an array of numbers .*onehotbatch\(y, names\)"),
        (None, r"y is None \(NoneType\); an array of numbers is wanted$"),
    ],
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
    with pytest.raises(TypeError, match=f"{name}: y: got a masked array"):
        loss_of(name)(p, np.ma.masked_array(p, p > 0))
    with pytest.raises(TypeError, match=f"{name}: yhat is 'text' .* write .astype.float."):
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


@pytest.mark.parametrize(
    "name",
    ["crossentropy", "kldivergence", "binarycrossentropy", "focal_loss", "binary_focal_loss"],
)
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
    for name in ("msle", "kldivergence", "binarycrossentropy", "focal_loss", "binary_focal_loss"):
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


# --- margins, overlaps, focus --------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [-1.0, np.inf, np.nan])
@pytest.mark.parametrize("loss", [losses.focal_loss, losses.binary_focal_loss])
def test_a_focus_that_is_refused(loss, gamma):
    with pytest.raises(ValueError, match=r"gamma is .* must be a finite number of at least 0"):
        loss([[0.25, 0.75]], [[0.0, 1.0]], gamma=gamma)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 3.5])
@both
def test_focus(gamma, dtype):
    """Finite with its slopes where a prediction is exactly 0 or 1; without gamma, cross-entropy."""
    p, y = np.array([[0, 1], [1, 0], [0.25, 0.75]], dtype), np.array([[0, 1]] * 3, dtype)
    eps = np.finfo(dtype).eps
    close = {"rtol": 20 * eps, "atol": 20 * eps}
    both = np.where(y > 0, p, 1 - p).astype(LONG)
    for loss, truth in [
        (losses.binary_focal_loss, long_focal(both, LONG(eps), gamma)),
        (losses.focal_loss, np.sum(y * long_focal(p.astype(LONG), LONG(eps), gamma), axis=-1)),
    ]:
        value, (g,) = flux.withgradient(lambda p: loss(p, y, gamma=gamma), p)  # noqa: B023
        np.testing.assert_allclose(value, truth.mean(), **close)
        assert np.isfinite(g).all() and value.dtype == g.dtype == dtype
        (again,) = flux.gradient(flux.compiled(lambda p: loss(p, y, gamma=gamma)), p)  # noqa: B023
        np.testing.assert_allclose(again, g, **close)
        label = np.array([0.0, 1.0])
        assert flux.gradcheck(lambda p: loss(p, label, gamma=gamma), [0.2, 0.8])  # noqa: B023
    for focal, plain in [
        (losses.focal_loss, losses.crossentropy),
        (losses.binary_focal_loss, losses.binarycrossentropy),
    ]:
        np.testing.assert_allclose(focal(p, y, gamma=0), plain(p, y), **close)
    sure = losses.binary_focal_loss(np.ones(1, dtype), np.ones(1), gamma=gamma)
    assert abs(sure) <= eps


@pytest.mark.parametrize("way", [flux.identity, flux.compiled])
@pytest.mark.parametrize("agg", [np.mean, np.sum])
def test_without_eps_0_log_0_is_0_as_well(way, agg):
    p = np.array([[0.0, 1.0], [1.0, 0.0]])
    for loss in (losses.crossentropy, losses.kldivergence, losses.binarycrossentropy):
        f = way(lambda q: loss(q, p, agg=agg, eps=0))  # noqa: B023
        with np.errstate(divide="ignore"):
            value, (g,) = flux.withgradient(f, p)
        assert value == 0 and np.isfinite(g).all()
    with np.errstate(divide="ignore"):
        assert losses.crossentropy([[0.0, 1.0]], [[1.0, 0.0]], eps=0) == np.inf


def test_probabilities_a_little_above_1_are_1():
    """As they come out of a softmax in single precision."""
    p = np.array([[0.0, 1.0000001]], np.float32)
    for loss in (losses.focal_loss, losses.binary_focal_loss):
        value, (g,) = flux.withgradient(lambda p: loss(p, [[0, 1]], gamma=0.5), p)  # noqa: B023
        assert abs(value) < 1e-6 and np.isfinite(g).all()
    one, above = np.ones(2, np.float32), np.full(2, 1.0000001, np.float32)
    for loss in (losses.binarycrossentropy, losses.binary_focal_loss):
        for way in (flux.identity, flux.compiled):
            value, (g,) = flux.withgradient(way(lambda p: loss(p, [0.0, 1.0])), above)  # noqa: B023
            np.testing.assert_allclose(value, loss(one, [0.0, 1.0]), rtol=1e-6)
            assert np.isfinite(g).all()


@pytest.mark.parametrize("margin", [0, 0.5, 2.0])
def test_pairs(margin):
    d, y = np.array([0.0, 0.25, 1.0, 3.0] * 2), np.repeat([0.0, 1.0], 4)
    wanted = np.where(y == 0, d**2, np.maximum(margin - d, 0) ** 2)
    loss = lambda d: losses.siamese_contrastive_loss(d, y, margin=margin, agg=np.sum)
    assert loss(d) == wanted.sum()
    (g,) = flux.gradient(loss, d)
    np.testing.assert_allclose(g, np.where(y == 0, 2 * d, -2 * np.maximum(margin - d, 0)))


WHOLE = {
    "dice_coeff_loss": lambda p, y: 1 - (2 * (p * y).sum() + 1) / ((p**2 + y**2).sum() + 1),
    "tversky_loss": lambda p, y: (
        1 - ((p * y).sum() + 1)
        / ((p * y + LONG(0.7) * (1 - y) * p + LONG(0.3) * y * (1 - p)).sum() + 1)
    ),
}  # fmt: skip
overlaps = pytest.mark.parametrize("name", WHOLE)


@overlaps
@both
@thorough
@given(shapes, st.integers(0, 99))
def test_overlaps_are_those_of_the_formula(name, dtype, shape, seed):
    p, y = draw(name, shape, dtype, seed)
    value, gradients = flux.withgradient(loss_of(name), p, y)
    close = 20 * np.finfo(dtype).eps
    wanted = WHOLE[name](p.astype(LONG), y.astype(LONG))
    np.testing.assert_allclose(value, wanted, rtol=close, atol=close)
    assert value.dtype == dtype and all(g.dtype == dtype for g in gradients)
    p, y = draw(name, shape, np.float64, seed)
    assert flux.gradcheck(loss_of(name), p, y * 0.9 + 0.05)


@overlaps
def test_overlaps_at_their_ends(name):
    loss, mask = loss_of(name), np.array([[1, 0], [1, 1]])
    assert loss(mask, mask) == 0 and loss(0 * mask, 0 * mask) == 0
    assert 0 < loss(1 - mask, mask) < 1
    assert loss(mask, mask.astype(bool)) == loss(mask.tolist(), mask.tolist()) == 0
    with pytest.raises(ValueError, match=f"{name}: yhat has shape .* they must be equal"):
        loss(mask, mask[:1])
    with pytest.raises(ValueError, match=f"{name}: got an empty batch"):
        loss(np.ones((0, 2)), np.ones((0, 2)))
    with pytest.raises(ValueError, match=f"{name}: yhat goes from 0 to 1, got 3.0"):
        loss(3.0 * mask, mask)
    with pytest.raises(ValueError, match=f"{name}: y goes from 0 to 1, got -1"):
        loss(mask, 2 * mask - 1)


def test_parameters_of_the_overlaps():
    p, y = np.array([1.0, 0.5, 0.0]), np.array([1.0, 0.0, 1.0])
    assert losses.dice_coeff_loss(p, y, smooth=0) == pytest.approx(1 - 2 / 3.25)
    assert losses.tversky_loss(p, y, beta=0) == pytest.approx(1 - 2 / 3)  # what is missed alone
    assert losses.tversky_loss(p, y, beta=1) == pytest.approx(1 - 2 / 2.5)
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="tversky_loss: beta"):
            losses.tversky_loss(p, y, beta=wrong)


@pytest.mark.parametrize("wrap", [lambda f: f, flux.compiled])
@pytest.mark.parametrize(
    "loss, p, y, text",
    [
        (losses.hinge_loss, 3.0, 0.0, r"y is -1 or 1, got 0.0; of labels 0 and 1 2 \* y - 1"),
        (losses.squared_hinge_loss, 3.0, 2.0, "y is -1 or 1, got 2.0"),
        (losses.poisson_loss, -3.0, 1.0, "yhat must not be negative, got -3.0; make rates"),
        (losses.poisson_loss, 3.0, -1.0, r"y must not be negative, got -1.0(\n|$)"),
        (losses.siamese_contrastive_loss, 3.0, -1.0, "y goes from 0 to 1, got -1"),
        (losses.focal_loss, 3.0, 1.0, "yhat goes from 0 to 1, got 3"),
        (losses.focal_loss, 1.01, 1.0, "yhat goes from 0 to 1, got 1.01"),
        (losses.binary_focal_loss, 3.0, 1.0, "yhat goes from 0 to 1, got 3"),
        (losses.binary_focal_loss, 0.5, -1.0, "y goes from 0 to 1, got -1"),
    ],
)
def test_what_is_out_of_range_is_refused(wrap, loss, p, y, text):
    """The loss would fall for ever, or teach nothing, and look fine."""
    f, good = wrap(loss), np.array([0.5, 1.0])
    assert np.isfinite(f(good, np.array([1.0, 1.0])))
    with pytest.raises(ValueError, match=f"{loss.__name__}: {text}"):
        f(np.array([0.5, p]), np.array([1.0, y]))


def test_nothing_counted_at_a_rate_of_0():
    """0 log 0 is 0; something counted there costs infinitely much."""
    rate, count = np.array([0.0, 2.0]), np.array([0.0, 3.0])
    value, (g,) = flux.withgradient(lambda p: losses.poisson_loss(p, count, agg=np.sum), rate)
    assert value == pytest.approx(2 - 3 * np.log(2))
    np.testing.assert_allclose(g, [1, -0.5])
    with np.errstate(divide="ignore"):
        assert losses.poisson_loss([0.0], [1.0]) == np.inf


@pytest.mark.parametrize("dtype, size", [(np.float32, 100), (np.float64, 1e4), (np.float64, 1e150)])
def test_margins_of_scores_of_any_size(dtype, size):
    z, y = np.array([size, -size, 0, 1], dtype), np.array([-1, -1, 1, 1])
    for loss, power in [(losses.hinge_loss, 1), (losses.squared_hinge_loss, 2)]:
        value, (g,) = flux.withgradient(lambda z: loss(z, y, agg=np.sum), z)  # noqa: B023
        np.testing.assert_allclose(value, (1 + size) ** power + 1, rtol=1e-6)
        wanted = {1: [1, 0, -1, 0], 2: [2 * (1 + size), 0, -2, 0]}[power]
        np.testing.assert_allclose(g, wanted, rtol=1e-6)


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
