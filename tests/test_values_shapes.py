"""Shapes: whatever NumPy broadcasts, reduces, indexes, joins and multiplies, and gradients of them.

The oracles are NumPy itself: copies spread out by hand, np.add.at, sums over the axes that were
broadcast.
"""

import itertools
import warnings
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyflux as flux
from tests.suites import examples
from tinyflux.ops.nn import dense

thorough = settings(max_examples=examples(40), deadline=None, derandomize=True)
SHAPES = [(), (1,), (3,), (1, 3), (2, 1), (2, 3), (4, 1, 3), (0,), (0, 3), (1, 0), (2, 0, 1)]
PAIRED = [
    np.add, np.subtract, np.multiply, np.divide, np.power, np.maximum, np.minimum, np.arctan2,
    np.hypot, np.logaddexp, np.remainder, np.fmax,
]  # fmt: skip


def gradients(f, *x, seed=1.0):
    """The gradients of the sum of seed * f."""
    value, back = flux.pullback(f, *x)
    return back(np.broadcast_to(seed, np.shape(value)))


def summed(g, shape):
    """g summed over the axes along which an array of this shape was spread out."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@pytest.mark.parametrize("f", PAIRED, ids=lambda f: f.__name__)
def test_every_pair_of_shapes(f):
    """As if the operands had been spread out beforehand, and the gradients summed afterwards."""
    rng = np.random.default_rng(0)
    for s, t in itertools.product(SHAPES, SHAPES):
        a, b = rng.uniform(1, 2, s), rng.uniform(1, 2, t)
        try:
            shape = np.broadcast_shapes(s, t)
        except ValueError:
            with pytest.raises(ValueError, match="broadcast"):
                gradients(f, a, b)
            continue
        found = gradients(f, a, b)
        wide = gradients(f, *(np.broadcast_to(c, shape).copy() for c in (a, b)))
        for g, w, c in zip(found, wide, (a, b), strict=True):
            assert type(g) is np.ndarray and g.shape == c.shape and g.dtype == c.dtype
            np.testing.assert_allclose(g, summed(w, c.shape), rtol=1e-13)


def test_an_empty_axis_against_one_of_length_one():
    found = gradients(np.add, np.ones((4, 0)), np.ones((4, 1)))
    np.testing.assert_array_equal(found[0], np.zeros((4, 0)))
    np.testing.assert_array_equal(found[1], np.zeros((4, 1)))


@thorough
@given(hnp.mutually_broadcastable_shapes(num_shapes=3, min_side=0, max_dims=4, max_side=3))
def test_three_operands_of_one_operation(shapes):
    rng = np.random.default_rng(0)
    mask, a, b = (rng.standard_normal(s) for s in shapes.input_shapes)
    g, h = gradients(lambda a, b: np.where(mask > 0, a, b), a, b)
    kept = np.broadcast_to(mask > 0, shapes.result_shape).astype(float)
    np.testing.assert_array_equal(g, summed(kept, a.shape))
    np.testing.assert_array_equal(h, summed(1 - kept, b.shape))


@thorough
@given(hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=3), st.integers(0, 2))
def test_what_is_added_without_effect_changes_no_gradient(shape, extra):
    x = np.random.default_rng(0).uniform(1, 2, shape)
    wide = (2,) * extra + shape
    (plain,) = gradients(np.exp, x)
    for f, factor in [
        (lambda x: np.exp(x + 0 * np.ones(wide)), 2**extra),
        (lambda x: np.broadcast_to(np.exp(x), wide), 2**extra),
        (lambda x: np.exp(np.broadcast_to(x, wide)), 2**extra),
        (lambda x: np.exp(x.reshape((1,) * extra + shape)), 1),
    ]:
        np.testing.assert_allclose(gradients(f, x)[0], factor * plain, rtol=1e-14)


# ------------------------------------------------------------------------------- reductions

REDUCTIONS = [
    np.sum, np.mean, np.max, np.min, np.prod, np.std, np.var, np.ptp, np.cumsum, np.cumprod,
    np.sort, np.nansum, np.nanmean, np.median,
]  # fmt: skip


@pytest.mark.parametrize("f", REDUCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0), (3,), (2, 3), (1, 1), (2, 1, 3)])
def test_reductions_over_every_axis(f, shape):
    """Where NumPy has a value there is a gradient, of the shape of the operand; else its error."""
    x = np.random.default_rng(0).uniform(1, 2, shape)
    axes = [None, 0, -1, 1, 5, (), (0,), (0, -1)]
    for axis, keepdims in itertools.product(axes, [{}, {"keepdims": True}]):
        if f in (np.cumsum, np.cumprod, np.sort) and (keepdims or isinstance(axis, tuple)):
            continue
        run = lambda x, axis=axis, keepdims=keepdims: f(x, axis=axis, **keepdims)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of the mean of nothing
            try:
                wanted = run(x)
            except ValueError as error:
                with pytest.raises(type(error)):
                    gradients(run, x)
                continue
            value, back = flux.pullback(run, x)
        np.testing.assert_array_equal(value, wanted)
        (g,) = back(np.ones_like(value))
        assert g.shape == shape and np.isfinite(g).all()
        if f is np.sum:
            np.testing.assert_array_equal(g, np.ones(shape))
        if f is np.mean and x.size:
            np.testing.assert_allclose(g, np.full(shape, np.size(wanted) / x.size))


@pytest.mark.parametrize("f", [np.sum, np.mean, np.max, np.prod, np.std, np.var])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), ()])
def test_reductions_agree_with_differences(f, axis):
    x = np.random.default_rng(0).permutation(np.arange(24.0)).reshape(2, 3, 4) / 8 + 0.5
    weights = np.random.default_rng(1).standard_normal(np.shape(f(x, axis=axis)))
    assert flux.gradcheck(lambda x: np.sum(f(x, axis=axis) * weights), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_over_many_rows(dtype):
    """A million ones, along either axis, and the gradient of a bias over as many rows."""
    n = 1_000_000
    x = np.ones((n, 2), dtype)
    for f, of_axis in [(np.mean, 1), (np.sum, n)]:
        np.testing.assert_array_equal(f(x, axis=0), of_axis)
    bias = flux.Tensor(np.zeros(2, dtype))
    w = flux.Tensor(np.ones((2, 2), dtype))
    gs = flux.gradient(lambda: np.sum(dense(x, w, bias)), flux.params(w, bias))
    np.testing.assert_allclose(gs[bias], n, rtol=1e-6)
    np.testing.assert_allclose(gs[w], n, rtol=1e-6)
    assert gs[w].dtype == gs[bias].dtype == dtype


def test_variance_of_large_numbers_takes_two_passes():
    x = 1e8 + np.array([0.0, 1.0, 2.0])
    value, (g,) = flux.withgradient(np.var, x)
    assert value == 2 / 3
    np.testing.assert_allclose(g, np.array([-2, 0, 2]) / 3, rtol=1e-15)
    np.testing.assert_allclose(flux.gradient(np.std, x)[0], g / 2 / np.sqrt(2 / 3), rtol=1e-14)


# ------------------------------------------------------------------------------- indexing

INDICES = [
    1, -1, np.int64(2), slice(None, None, -1), slice(3, 0, -2), slice(2, 2), None, ..., (..., None),
    (None, slice(1, 3)), (1, 2), (slice(None), 1), [0, 0, 1], ([0, 0], [1, 1]), ([0, 1], slice(1)),
    (np.array([[0, 1], [1, 0]]), 2), (np.arange(4) % 2 == 0, slice(None)), np.eye(4, 3, dtype=bool),
    (slice(1, None), [2, 2]), ([3], None, [0]), np.zeros((0,), int), np.array(2), (np.True_,),
    np.zeros((4, 3), bool), (slice(None), np.array([True, False, True])), ((1, 1),),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=lambda i: str(i).replace("\n", "")[:40])
def test_indexing(index):
    """What was picked out is added up where it came from."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3))
    seed = rng.standard_normal(x[index].shape)
    wanted = np.zeros_like(x)
    np.add.at(wanted, index, seed)
    value, back = flux.pullback(lambda x: x[index], x)
    np.testing.assert_array_equal(value, x[index])
    np.testing.assert_array_equal(back(seed)[0], wanted)


@thorough
@given(st.data())
def test_indexing_of_any_kind(data):
    x = np.random.default_rng(0).standard_normal(
        data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    )
    arrays = hnp.integer_array_indices(x.shape)
    index = data.draw(st.one_of(hnp.basic_indices(x.shape, allow_newaxis=True), arrays))
    seed = np.random.default_rng(1).standard_normal(x[index].shape)
    wanted = np.zeros_like(x)
    np.add.at(wanted, index, seed)
    (g,) = gradients(lambda x: x[index], x, seed=seed)
    np.testing.assert_array_equal(g, wanted)


# ------------------------------------------------------------------------------- joining


@pytest.mark.parametrize("join", [np.stack, np.concatenate, np.hstack, np.vstack])
def test_the_same_array_twice(join):
    for shape in [(3,), (2, 3), (0, 3), (2, 0)]:
        (g,) = gradients(lambda x: join([x, 2 * x, x]), np.ones(shape))
        np.testing.assert_array_equal(g, np.full(shape, 4.0))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sizes", [(1, 3, 2), (0, 2), (2, 0, 1)])
def test_parts_of_unequal_length_get_what_is_theirs(axis, sizes):
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 4) if axis == 0 else (4, n)) for n in sizes]
    weights = rng.standard_normal(np.concatenate(parts, axis).shape)
    found = gradients(lambda *x: np.concatenate(x, axis) * weights, *parts)
    for g, w in zip(found, np.split(weights, np.cumsum(sizes)[:-1], axis), strict=True):
        np.testing.assert_array_equal(g, w)


def test_a_single_number_twice():
    (g,) = gradients(lambda x: np.stack([x, x]), np.float64(1))
    assert g.shape == () and g == 2


def test_parts_of_a_split_that_nobody_uses():
    x = np.arange(12.0).reshape(6, 2)
    for parts, used, rows in [(3, 1, [2, 3]), ([1, 1, 4], 2, [1, 2, 3]), ([1, 1, 4], 1, [])]:
        value, back = flux.pullback(lambda x: np.split(x, parts)[used], x)  # noqa: B023
        wanted = np.zeros_like(x)
        wanted[rows] = 1
        np.testing.assert_array_equal(back(np.ones_like(value))[0], wanted)


# ------------------------------------------------------------------------------- products

PRODUCTS = [
    ((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((2, 1, 3, 4), (5, 4, 2)),
    ((0,), (0,)), ((2, 0), (0, 3)), ((0, 2), (2, 3)), ((2, 0), (0,)), ((0,), (0, 3)),
    ((0, 3, 4), (4, 2)), ((1, 1), (1, 1)), ((2, 3, 4), (1, 4, 1)),
]  # fmt: skip


@pytest.mark.parametrize("s, t", PRODUCTS)
def test_products_of_matrices(s, t):
    """Against sums of products of numbers, by einsum on what was spread out by hand."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(s), rng.standard_normal(t)
    seed = rng.standard_normal((a @ b).shape)
    found = gradients(np.matmul, a, b, seed=seed)
    left = a if a.ndim > 1 else a[None]
    right = b if b.ndim > 1 else b[:, None]
    g = seed.reshape(np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
                     + (left.shape[-2], right.shape[-1]))  # fmt: skip
    wide = np.einsum("...ik,...jk->...ij", g, right), np.einsum("...ki,...kj->...ij", left, g)
    for got, want, c, m in zip(found, wide, (a, b), (left, right), strict=True):
        assert got.shape == c.shape
        wanted = summed(want, m.shape) if want.ndim > 2 else want
        np.testing.assert_allclose(got, wanted.reshape(c.shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows, n_in, n_out", [(0, 2, 3), (3, 0, 2), (3, 2, 0), (1, 1, 1)])
def test_dense_with_nothing_in_it(rows, n_in, n_out):
    x, w, b = np.ones((rows, n_in)), np.ones((n_in, n_out)), np.ones(n_out)
    gs = gradients(lambda x, w, b: dense(x, w, b), x, w, b)
    assert [g.shape for g in gs] == [a.shape for a in (x, w, b)]
    np.testing.assert_array_equal(gs[1], np.full(w.shape, rows))
    np.testing.assert_array_equal(gs[2], np.full(n_out, rows))


def test_infinities_and_nan_pass_through_products_as_in_numpy():
    """0 times infinity is nan in BLAS as well; what is not touched by it stays finite."""
    a, b = np.array([[np.inf, 1.0], [2.0, 3.0]]), np.array([[0.0, 1.0], [4.0, 5.0]])
    with np.errstate(invalid="ignore"):
        value, back = flux.pullback(np.matmul, a, b)
    assert np.isnan(value[0, 0]) and value[0, 1] == np.inf
    np.testing.assert_array_equal(value[1], [12, 17])
    g, h = back(np.array([[0.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_array_equal(g, [[0, 0], [1, 9]])
    assert np.isnan(h[0]).all()  # 0 of the first row times its infinity
    np.testing.assert_array_equal(h[1], [3, 3])


def test_memory_that_is_used_again_does_not_poison_a_product():
    """What a compiled step has left in its buffers is overwritten, not scaled with 0."""
    layer = flux.Dense(3, 2)
    ps = flux.params(layer)
    loss = lambda x: np.sum(layer(x) ** 2)
    hot = flux.compiled(loss)
    x = np.ones((4, 3), np.float32)
    value, gs = flux.withgradient(lambda: loss(x), ps)
    with np.errstate(all="ignore"):
        flux.withgradient(lambda: hot(np.full_like(x, np.nan)), ps)
    again, found = flux.withgradient(lambda: hot(x), ps)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    for g, h in zip(found.values(), gs.values(), strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-6)


def test_the_deviation_from_a_given_mean():
    """Of equal elements, too: they may be far from that mean."""
    for x in (np.array([3.0, 3.0]), np.array([3.0, 4.0])):
        (g,) = flux.gradient(lambda x: np.std(x, mean=np.array([0.0])), x)
        np.testing.assert_allclose(g, x / (2 * np.std(x, mean=[0.0])), rtol=1e-14)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3)])
@pytest.mark.parametrize("spacing", [2.0, (3,), (1, 3), (4, 3)], ids=str)
def test_trapezoids_of_spacings_of_every_shape(shape, spacing):
    rng = np.random.default_rng(0)
    y = rng.standard_normal(shape)
    dx = spacing if spacing == 2.0 else rng.uniform(1, 2, spacing)
    for axis in range(-y.ndim, y.ndim):
        f = lambda y: np.trapezoid(y, dx=dx, axis=axis)  # noqa: B023
        try:
            wanted = f(y)
        except ValueError:
            with pytest.raises(ValueError, match="broadcast"):
                flux.pullback(f, y)
            continue
        value, back = flux.pullback(f, y)
        np.testing.assert_array_equal(value, wanted)
        rest = rng.standard_normal(shape)
        (g,) = back(np.ones_like(value))
        np.testing.assert_allclose(np.sum(g * rest), np.sum(f(rest)), rtol=1e-12)


def test_nothing_is_taken_away_and_put_in():
    x = np.arange(3.0)
    for f in (lambda x: np.delete(x, []), lambda x: np.insert(x, [], x[:0])):
        value, back = flux.pullback(f, x)
        np.testing.assert_array_equal(value, x)
        np.testing.assert_array_equal(back(np.ones(3))[0], [1, 1, 1])
    value, back = flux.pullback(lambda x: np.quantile(x, []), x)
    assert value.shape == (0,)
    np.testing.assert_array_equal(back(value)[0], [0, 0, 0])


X = np.arange(6.0).reshape(2, 3)
REFUSED = {  # what NumPy refuses, though something could be made of it
    "average of another length": lambda x: np.average(x, axis=1, weights=np.ones(1)),
    "average without axis": lambda x: np.average(x, weights=np.ones(3)),
    "average of 0": lambda x: np.average(x[0, :2], weights=[1.0, -1.0]),
    "bincount": lambda x: np.bincount([0, 1, 1], x[0, :1]),
    "take_along_axis": lambda x: np.take_along_axis(x, np.array([0, 0, 1]), 0),
    "take_along_axis, flat": lambda x: np.take_along_axis(x, np.array([[0, 1]]), None),
    "tensordot": lambda x: np.tensordot(x, x[0], ((1,), (1,))),
    "norm of rows": lambda x: np.linalg.norm(x, "fro", axis=1),
    "norm over three axes": lambda x: np.linalg.norm(x[None], np.inf),
    "norm over no axes": lambda x: np.linalg.norm(x, axis=()),
    "vector_norm": lambda x: np.linalg.vector_norm(x, axis=2),
    "full_like": lambda x: np.full_like(x[0], x),
    "clip, both kinds of bounds": lambda x: np.clip(x, 0, 1, min=3),
    "take, out of range": lambda x: np.take(x, [2], 0, None),
    "trace of another type": lambda x: np.linalg.trace(x, dtype="no type"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_numpy_refuses_is_refused(name):
    for f in (REFUSED[name], lambda x: flux.pullback(REFUSED[name], x)):
        with pytest.raises((ValueError, TypeError, IndexError, ZeroDivisionError)):
            f(X)


def test_arguments_that_have_no_rule_are_not_passed_over():
    for f in (
        lambda x: np.take(x, [0], 0, np.empty((1, 3))),
        lambda x: np.ptp(x, 0, np.empty(3)),
        lambda x: np.trace(x, dtype=np.float32),
        lambda x: np.linalg.trace(x, dtype=np.float32),
        lambda x: np.concatenate([x, x], dtype=np.float32),
    ):
        with pytest.raises(TypeError, match="argument"):
            flux.pullback(f, X)


def test_a_named_tuple_is_a_tuple():
    Pair = namedtuple("Pair", "first second")
    for f, wanted in (
        (lambda x: np.reshape(x, Pair(3, 2)), np.ones((2, 3))),
        (lambda x: np.sum(x, axis=Pair(0, 1)), np.ones((2, 3))),
        (lambda x: x[Pair(0, 1)], [[0, 1, 0], [0, 0, 0]]),
    ):
        value, back = flux.pullback(f, X)
        np.testing.assert_array_equal(value, f(X))
        np.testing.assert_array_equal(back(np.ones_like(value))[0], wanted)


def test_the_norm_of_nothing():
    """The largest of no elements is 0, as in NumPy; the smallest is refused."""
    empty = np.zeros(0)
    value, (g,) = flux.withgradient(lambda x: np.linalg.norm(x, np.inf), empty)
    assert value == 0 and g.shape == (0,)
    with pytest.raises(ValueError, match="zero-size"):
        flux.gradient(lambda x: np.linalg.norm(x, -np.inf), empty)
