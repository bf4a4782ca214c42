"""Element types: nothing silently becomes wider, narrower or something else; no count wraps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.laws import declared, operands, samples_of
from tests.suites import a_third, examples
from tinyflux import losses

thorough = settings(max_examples=examples(30), deadline=None, derandomize=True)
OTHERS = [
    2, 2.0, True, np.float32(2), np.float64(2), np.int64(2), np.uint8(2), np.array(2.0), np.ones(3),
    np.ones(3, int), np.ones(3, bool), np.ones(3, ">f4"), np.ones(3, ">f8"), np.ones(3, np.float16),
    [1.0, 2.0, 3.0], [1, 2, 3],
]  # fmt: skip


def arrays_of(state):
    """The moments in the state of an optimiser, which are shaped as the parameter."""
    return [a for a in state.values() if np.shape(a) == (3,)]


@pytest.mark.parametrize("other", OTHERS, ids=repr)
@pytest.mark.parametrize("rule", [flux.ADAM, flux.Momentum, flux.RMSProp, flux.ADAMW])
def test_single_precision_stays_in_training(other, rule):
    """Whatever it is multiplied with: parameter, gradient and state of the optimiser."""
    W, opt = flux.Tensor(np.ones(3, np.float32)), rule(1e-3)
    loss = lambda: np.mean(np.square(W * other) - np.sin(other + W))
    (g,) = flux.gradient(loss, [W]).values()
    assert g.dtype == np.float32
    flux.train_(loss, [W], [()] * 5, opt)
    assert W.data.dtype == np.float32 and not np.any(W.data == 1)
    assert all(a.dtype == np.float32 for a in arrays_of(opt.state(W)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("data", [np.float64, np.float32, np.float16, np.int64, np.uint8, ">f8"])
def test_a_layer_computes_in_the_type_of_its_parameters(dtype, data):
    m = flux.Chain(flux.Dense(3, 4, flux.tanh), flux.Dropout(0.5), flux.Dense(4, 2))
    for p in flux.params(m):
        p.data = p.data.astype(dtype)
    x, y = np.ones((5, 3), data), np.ones((5, 2), data)
    assert m(x).dtype == dtype
    for loss in (losses.mse, losses.mae, losses.logitcrossentropy, losses.logitbinarycrossentropy):
        value, gs = flux.withgradient(lambda: loss(m(x), y), flux.params(m))  # noqa: B023
        assert value.dtype == dtype and all(g.dtype == dtype for g in gs.values())


def test_step_counts_are_whole_numbers_of_python():
    """After a million steps beta**t has vanished, and the correction with it."""
    W, opt = flux.Tensor(np.ones(3, np.float32)), flux.ADAM(1e-3)
    g, m, v = (np.full(3, c, np.float32) for c in (0.5, 0.25, 0.75))
    opt.load_state_(W, {**opt.state(W), "m": m.copy(), "v": v.copy(), "t": 1_000_000}, W.data)
    flux.update_(opt, [W], {W: g})
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    np.testing.assert_allclose(W.data, 1 - 1e-3 * m / (np.sqrt(v) + 1e-8), rtol=2e-7)
    assert opt.state(W)["t"] == 1_000_001 and type(opt.state(W)["t"]) is int


EVERY = declared()


@pytest.mark.parametrize("name", a_third(EVERY))
def test_gradients_have_the_type_of_their_operand(name):
    """Operands of different types, each of which gets its own back, whatever the result is."""
    operation = EVERY[name]
    if operation.body is not None and operation.joint is not None:
        return  # what is fused gets operands of one type, from the layer or loss that it is part of
    rng = np.random.default_rng(0)
    for sample in samples_of(operation)[:2]:
        x = operands(operation, sample.shapes, rng)
        for types in ([np.float32, np.float64], [np.float64, np.float32]):
            mixed = [a.astype(types[i % 2]) for i, a in enumerate(x)]
            value, back = flux.pullback(lambda *a, s=sample: s.call(operation.public, *a), *mixed)
            if np.result_type(value).kind != "f":
                continue
            for g, a in zip(back(np.ones_like(value)), mixed, strict=True):
                assert g is None or (g.dtype == a.dtype and g.shape == a.shape), name


def test_longdouble_keeps_its_digits():
    x = np.longdouble(1) + np.finfo(np.longdouble).eps
    value, (g,) = flux.withgradient(lambda x: x * x, x)
    assert value == x * x and g == 2 * x and g.dtype == np.longdouble
    t = flux.Tensor(np.array([x]))
    assert t.dtype == np.longdouble and flux.gradient(lambda: np.sum(t * t), [t])[t][0] == 2 * x


def test_no_constant_of_ours_is_shorter_than_a_longdouble():
    two, x = np.longdouble(2), np.longdouble(7) / 3
    for f, slope in (
        (np.log2, 1 / (x * np.log(two))), (np.log10, 1 / (x * np.log(5 * two))),
        (np.exp2, np.exp2(x) * np.log(two)), (flux.logcosh, np.tanh(x)),
        (lambda x: flux.losses.mse(np.stack([x, x, x]), np.zeros(3)), 2 * x),
        (lambda x: np.linalg.norm(np.stack([x, 2 * x]), 3), np.cbrt(np.longdouble(9))),
        (lambda x: np.sum(np.bincount([0, 1, 0], np.stack([x, x, x])) ** 2), 10 * x),
    ):  # fmt: skip
        np.testing.assert_allclose(flux.gradient(f, x)[0], slope, rtol=4 * np.finfo(x).eps)
    np.testing.assert_allclose(flux.logcosh(x), np.log(np.cosh(x)), rtol=4 * np.finfo(x).eps)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint64, ">i2"])
def test_labels_do_not_wrap(dtype):
    """200 classes: a label fits, or it was wrong before it came here."""
    z = np.random.default_rng(0).standard_normal((4, 200)).astype(np.float32)
    most = min(np.iinfo(dtype).max, 199)
    labels = np.array([0, 1, most, most - 1], dtype)
    rows = np.eye(200, dtype=np.float32)[labels.astype(int)]
    for loss in (losses.logitcrossentropy, losses.crossentropy, losses.kldivergence):
        p = z if loss is losses.logitcrossentropy else flux.softmax(z)
        assert loss(p, labels) == loss(p, rows)
    with pytest.raises(ValueError, match="labels go from 0 to 199; got"):
        losses.logitcrossentropy(z, np.array([0, 1, 2, 200]).astype(np.int8))  # -56 by now
    with pytest.raises(ValueError, match="labels go from 0 to 199; got 200"):
        losses.logitcrossentropy(z, np.array([0, 1, 2, 200], np.uint8))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8])
def test_masks_and_counts_of_small_integers_do_not_wrap(dtype):
    """300 ones of one byte each: as targets, as a factor, as an index, as a prediction."""
    ones = np.ones((300, 1), dtype)
    x = np.full((300, 1), 2.0, np.float32)
    for loss, wanted in [(losses.mse, 1), (losses.mae, 1), (losses.huber_loss, 0.5)]:
        assert loss(x, ones) == wanted
        assert flux.gradient(lambda x: loss(x, ones, agg=np.sum), x)[0].sum() == 300 * (  # noqa: B023
            2 if loss is losses.mse else 1
        )
    assert flux.gradient(lambda x: np.sum(x * ones), x)[0].sum() == 300
    assert flux.gradient(lambda x: np.sum(np.where(ones, x, 0)), x)[0].sum() == 300
    if dtype is not bool:
        assert losses.mse(ones * 100, np.full((300, 1), -100, np.int16)) == 40000
        assert losses.mae(ones * 100, np.full((300, 1), -100, np.int8)) == 200


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4"])
def test_the_smallest_integer_as_an_exponent_does_not_wrap(dtype):
    b = np.array([np.iinfo(dtype).min, 3], dtype)
    x = np.array([1 - 1e-9, 2.0])
    wanted = b * x ** (b - 1.0)
    for f in (lambda x: np.sum(x**b), flux.compiled(lambda x: np.sum(x**b))):
        np.testing.assert_allclose(flux.gradient(f, x)[0], wanted, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "u8"])
def test_knots_of_small_integers_do_not_wrap(dtype):
    """np.interp computes in float64, and so do its slopes."""
    low, high = np.array([-100, 100]).astype(dtype) if dtype == "i1" else np.array([0, 1], dtype)
    x, knots, heights = np.array([0.25]), np.array([low, high]), np.array([high, low])
    f = lambda x, xp, fp: np.sum(np.interp(x, xp, fp))
    wanted = flux.gradient(f, x, knots.astype(float), heights.astype(float))
    for arrays in ((x, knots, heights), (x, knots, heights * 1.0), (x, knots * 1.0, heights)):
        live = [i for i, a in enumerate(arrays) if a.dtype == float]

        def g(*moving, arrays=arrays, live=live):
            full = dict(enumerate(arrays)) | dict(zip(live, moving, strict=True))
            return f(*(full[i] for i in range(3)))

        for i, d in zip(live, flux.gradient(g, *(arrays[i] for i in live)), strict=True):
            np.testing.assert_array_equal(d, wanted[i])


def test_complex_knots_are_refused():
    with pytest.raises(TypeError, match="interp: got dtype complex128; real numbers are wanted"):
        flux.gradient(lambda x: np.interp(x, [0.0, 1.0], [1j, 2.0]), 0.5)


def test_an_average_by_small_integers_has_the_type_of_numpy():
    x, w = np.arange(3, dtype=np.float32), np.array([100, 100, 200], np.uint8)
    wanted = np.average(x, weights=w, returned=True)
    for i in range(2):
        value, _ = flux.pullback(lambda x: np.average(x, weights=w, returned=True)[i], x)  # noqa: B023
        assert value == wanted[i] and value.dtype == wanted[i].dtype == np.float32


@pytest.mark.parametrize("f", [np.sum, np.prod, np.mean, np.cumsum, np.nansum, np.std])
def test_a_sum_in_whole_numbers_has_no_gradient(f):
    """Each element would be cut off: the slope is 0 and not 1."""
    with pytest.raises(flux.NotDifferentiableError, match=f"{f.__name__} with dtype=int64"):
        flux.gradient(lambda x: 1.0 * np.sum(f(x, dtype=np.int64)), np.array([1.5, 2.5]))
    assert np.sum(flux.Tensor([1.5, 2.5]), dtype=int) == 3  # outside of a gradient, as NumPy


def test_half_precision_is_data_and_never_overflows_in_a_sum():
    """A loss of numbers of float16 is computed in float32; a leaf of it is refused."""
    x = np.full((300, 300), 300, np.float16)
    for loss, wanted in [(losses.mse, 9e4), (losses.mae, 300), (losses.huber_loss, 299.5)]:
        value = loss(x, np.zeros_like(x))
        assert value.dtype == np.float32 and value == wanted
        w = flux.Tensor(np.ones(300, np.float32))
        value, gs = flux.withgradient(lambda: loss(x * w, np.zeros_like(x)), [w])  # noqa: B023
        assert value == pytest.approx(wanted) and gs[w].dtype == np.float32
        assert np.isfinite(gs[w]).all()
    (g,) = flux.gradient(lambda w: np.sum(x * w), np.ones(300, np.float32))
    np.testing.assert_array_equal(g, 9e4)
    many = np.zeros(70_000, np.float16)
    np.testing.assert_allclose(flux.softmax(many), 1 / 70_000, rtol=1e-3)
    np.testing.assert_allclose(flux.logsoftmax(many), -np.log(70_000), rtol=1e-6)
    np.testing.assert_allclose(flux.logsumexp(many), np.log(70_000), rtol=1e-6)
    with pytest.raises(TypeError, match="float16 overflows at 65504"):
        flux.Tensor(x)


@thorough
@given(st.sampled_from(["f4", "f8", "g"]), st.sampled_from(["<", ">"]), st.booleans())
def test_byte_order_is_no_type_of_its_own(kind, order, leaf):
    if kind == "g":
        order = "="
    a = np.linspace(-1, 1, 6).reshape(2, 3).astype(np.dtype(kind).newbyteorder(order))
    x = flux.Tensor(a) if leaf else a
    value, (g,) = flux.withgradient(lambda x: np.sum(np.sin(x) * x), x)
    native = a.astype(a.dtype.newbyteorder("="))
    wanted, (h,) = flux.withgradient(lambda x: np.sum(np.sin(x) * x), native)
    assert g.dtype == h.dtype and g.dtype.isnative and value == wanted
    np.testing.assert_array_equal(g, h)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_a_parameter_in_the_other_byte_order_is_trained_alike(kind):
    def trained(way, order):
        W, V = flux.Tensor(np.zeros((2, 3), kind)), flux.Tensor(np.ones((2, 3), kind))
        W.data = np.linspace(-1, 1, 6).reshape(2, 3).astype(np.dtype(kind).newbyteorder(order))
        opt, ps = flux.Momentum(0.1), flux.Params([W, V])
        loss = lambda: np.sum(np.sin(W) * W + V * W)
        for _ in range(3):
            if way == "by hand":
                flux.update_(opt, ps, flux.gradient(loss, ps))
            else:
                flux.train_(flux.compiled(loss) if way == "hot" else loss, ps, [()] * 2, opt)
        assert W.data.dtype.newbyteorder("=") == kind
        return [W.data.tolist(), V.data.tolist()]

    for way in ("eager", "hot", "by hand"):
        assert trained(way, ">") == trained(way, "<"), way
