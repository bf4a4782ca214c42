"""What the passes leave in the source, and that the gradients are those of the eager way."""

import numpy as np
import pytest
from scipy.special import expit

import tinyflux as flux
from tinyflux.alignment import aligned
from tinyflux.ops.nn import beside

ROWS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
MODEL = flux.Chain(flux.Dense(6, 5, flux.relu), flux.Dense(5, 1))


def squares(x):
    return np.mean(MODEL(x) ** 2)


def above(x):
    return np.sum(np.square(MODEL[0](x) * (x[:, :5] > 0.1)))


def tops(x):
    return np.sum(np.max(MODEL[0](x), axis=1) ** 2)


def sums(x):
    return np.sum(np.sum(MODEL[0](x), axis=0) ** 2)


def factors(x):
    return np.sum(np.tanh(MODEL(x) * 3.0 / 4.0))


def means(x):
    return np.mean(np.exp(MODEL(x)))


def borrowed(x):
    return np.sum(expit(MODEL(x)))


@pytest.mark.parametrize(
    "f, x, there, gone",
    [
        (squares, ROWS[:1], ["d_layers_0_bias[...] = ", "multiply(h1_T, d_h2_flat"], ["ones_1"]),
        (squares, ROWS, ["d_layers_0_bias)", "mask[...] = "], []),
        (squares, ROWS, ["maximum(h1, zeros_40x5, "], ["maximum(h1, c_0"]),
        (above, ROWS, ["mask[...] = ", "mask_2[...] = "], []),
        (tops, ROWS, ["maximum.reduce(t, axis=0"], ["maximum.reduce(h1"]),
        (sums, ROWS, ["ones_40.dot("], ["add.reduce(h1"]),
        (factors, ROWS, ["multiply(h2, c_0_75, "], ["divide("]),
        (means, ROWS, ["exp("], ["broadcast_to"]),
        (borrowed, ROWS, ["expit("], ["import expit"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_a_pass_writes_down(f, x, there, gone):
    hot, ps = flux.compiled(f), flux.params(MODEL)
    value, found = flux.withgradient(lambda: f(x), ps)
    loss = flux.compiled(lambda: f(x))
    for way in (lambda: flux.withgradient(loss, ps), lambda: flux.withgradient(loss, ps)):
        got, gradients = way()
        np.testing.assert_allclose(got, value, rtol=1e-6)
        for p in ps:
            if found[p] is None:
                assert gradients[p] is None
            else:
                np.testing.assert_allclose(gradients[p], found[p], rtol=1e-5, atol=1e-6)
    flux.train_(hot, ps, [x], flux.SGD(0.0))
    assert all(text in hot.source for text in there), hot.source
    assert not any(text in hot.source for text in gone), hot.source


@pytest.mark.parametrize("value", [0.0, -0.0, np.inf, -np.inf, np.nan])
def test_masks_treat_odd_numbers_as_eager(value):
    x = np.full((4, 3), value, np.float32)
    f = lambda a, g: np.sum(flux.relu(a) * g)
    with np.errstate(all="ignore"):
        want = flux.gradient(f, x, x)
        got = flux.withgradient(flux.compiled(f), x, x)[1]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "shape, there",
    [((4, 3), "zeros_4x3"), ((300, 64), "zeros_64"), ((9000, 2), "c_0, "), ((9000,), "zeros_9000")],
)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bounds_are_arrays_where_that_is_quicker(shape, there, kind):
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 0.3, -2.0], kind)
    a = np.resize(odd, (2, *shape))[0]
    for f in (
        lambda a: np.tanh(np.maximum(a, 0)),
        lambda a: np.tanh(np.maximum(0.0, np.minimum(a, 0.25))),
        lambda a: np.tanh(np.maximum(np.minimum(a, -0.0), kind(0))),
    ):
        hot, g = flux.compiled(f), np.ones(shape, kind)
        with np.errstate(all="ignore"):
            want, back = flux.pullback(f, a)
            got, hot_back = flux.pullback(hot, a)
            assert f(a).tobytes() == hot(a).tobytes() == want.tobytes() == got.tobytes()
            np.testing.assert_array_equal(hot_back(g), back(g), strict=True)
        if a.nbytes <= 1 << 16 or there != "zeros_9000":
            assert there in hot.source


def test_large_memory_begins_at_a_line_of_the_cache():
    model = flux.Chain(flux.Dense(64, 300, np.tanh), flux.Dense(300, 3))
    hot = flux.compiled(lambda x: np.sum(model(x) ** 2))
    flux.train_(hot, flux.params(model), [np.ones((64, 64), np.float32)], flux.SGD(0.1))
    assert "= aligned((64, 300), 'float32')" in hot.source and "= empty((64, 3), " in hot.source
    for shape in [(64, 300), (7,), ()]:
        for dtype in ["float32", np.dtype(bool), np.longdouble]:
            a = aligned(shape, dtype, np.zeros)
            assert a.shape == shape and a.dtype == dtype and not a.any()
            assert a.flags.c_contiguous and a.ctypes.data % 64 == 0
    assert aligned((0, 3), "float32").shape == (0, 3)


def test_a_bound_is_never_as_large_as_a_large_array():
    a = np.linspace(-1, 1, 200_000, dtype=np.float32).reshape(2, -1)
    hot = flux.compiled(lambda a: np.tanh(np.maximum(a, 0)))
    np.testing.assert_array_equal(hot(a), np.tanh(np.maximum(a, 0)), strict=True)
    assert "zeros" not in hot.source
    assert beside(a.shape) == beside((1, 8193), 8) == ()
    assert beside((9, 8192), 8) == (8192,)


def test_bounds_that_change_the_type_stay_numbers():
    a = np.array([-1.0, 2.0], np.float32)
    for bound in (np.float64(0.5), 0.5, np.array([0.5])):
        f = lambda a, bound=bound: np.exp(np.maximum(a, bound))
        np.testing.assert_array_equal(flux.compiled(f)(a), f(a), strict=True)
    f = lambda k: np.exp(np.maximum(k, 2) * 1.5)
    np.testing.assert_array_equal(flux.compiled(f)(np.arange(5)), f(np.arange(5)), strict=True)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.longdouble])
def test_numbers_keep_their_type_and_their_warnings(kind):
    f = lambda x: -((np.sum(x) + 1) * 2 - 3) / 7
    x = np.array([0.1, 0.2, 0.7], kind)
    got, (found,) = flux.withgradient(flux.compiled(f), x)
    assert got == f(x) and type(got) is type(f(x)) is kind
    np.testing.assert_array_equal(found, flux.gradient(f, x)[0])
    far = np.array([np.finfo(kind).max], kind)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        flux.compiled(f)(far)
    with np.errstate(over="ignore"):
        assert flux.compiled(f)(far) == -np.inf


@pytest.mark.parametrize("x", [[[0.0]], [[2.0]], [[np.inf]], [[np.nan]]])
def test_products_with_a_single_number(x):
    x, row, column = np.array(x), np.array([[np.nan, np.inf, -0.0, 3.0]]), np.ones((3, 1))
    with np.errstate(all="ignore"):
        for f in (
            lambda x: x @ row,
            lambda x: row.T @ x,
            lambda x: column @ x[0],
            lambda x: x[0] @ row,
            lambda x: x @ x,
        ):
            np.testing.assert_array_equal(flux.compiled(f)(x), f(x), strict=True)


@pytest.mark.parametrize("n", [1, 20_000])
def test_a_weight_that_is_nan_is_seen_through_a_zero(n):
    layer = flux.Dense(1, n)
    layer.weight.data[...] = np.nan
    x = np.zeros((1, 1), np.float32)
    assert np.isnan(layer(x)).all() and np.isnan(flux.compiled(layer)(x)).all()
    narrow = flux.Dense(1, 1)
    narrow.weight.data[...] = 0
    with np.errstate(invalid="ignore"):
        assert np.isnan(narrow(np.full((3, 1), np.inf))).all()


def test_whole_numbers_wrap_as_silently_as_in_eager():
    with np.errstate(all="raise"):
        for f, x in (
            (lambda x: np.multiply(np.max(x), 2), np.array([100], np.int8)),
            (lambda x: np.negative(np.max(x)), np.array([1], np.uint8)),
            (lambda x: np.subtract(x[0], x[1]), np.array([1, 2], np.uint8)),
            (lambda x: np.add(np.sum(x), 1), np.array([2**63 - 1])),
        ):
            hot = flux.compiled(f)
            assert f(x) == hot(x) == hot(x)


def test_a_constant_that_does_not_fit_warns_in_every_call():
    x = np.ones(3, np.float32)
    for far in (1e300, 10**300):
        hot = flux.compiled(lambda x, far=far: x * far)
        for _ in range(3):
            with pytest.warns(RuntimeWarning, match="overflow encountered in cast"):
                assert np.isinf(hot(x)).all()
    assert np.isinf(flux.compiled(lambda x: x * np.inf)(x)).all()
