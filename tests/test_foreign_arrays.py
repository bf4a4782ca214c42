"""Arrays that other people own: views, strides, subclasses and containers of all kinds.

They count by their values, and they come out of a gradient as they went in: same bytes, same
flags, same strides.
"""

import array
from collections import namedtuple
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import strategies as st

import tinyflux as flux
from tests.laws import declared, law, operands, samples_of
from tinyflux import Tensor, losses

EVERY = declared()
A = np.arange(12.0).reshape(3, 4) / 7  # which single precision would change


class Column:
    """What pandas and others hand out: no array, but it can be made one."""

    def __init__(self, values):
        self.values = values
        self.asked = 0

    def __array__(self, dtype=None, copy=None):
        self.asked += 1
        return np.array(self.values, dtype=dtype)


class Finalised(np.ndarray):
    """A subclass with ideas of its own about what makes it up."""

    def __array_finalize__(self, obj):
        self.unit = getattr(obj, "unit", "metres")

    def __array_wrap__(self, obj, context=None, return_scalar=False):
        raise AssertionError("the subclass was kept")


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def aligned_badly(a):
    """The same values one byte off their natural place."""
    raw = np.empty(a.nbytes + 1, np.uint8)
    moved = raw[1:].view(a.dtype).reshape(a.shape)
    moved[...] = a
    return moved


def views(tmp_path):
    """(name, array) for every way in which an array can lie in memory."""
    mapped = np.memmap(tmp_path / "array", float, "w+", shape=A.shape)
    mapped[...] = A
    return {
        "plain": A, "rows reversed": A[::-1], "columns reversed": A[:, ::-1], "transposed": A.T,
        "every second row": A[::2], "one column": A[:, 1:2], "Fortran": np.asfortranarray(A),
        "big-endian": A.astype(">f8"), "broadcast": np.broadcast_to(A[0], A.shape),
        "broadcast column": np.broadcast_to(A[:, :1], A.shape),
        "overlapping": np.lib.stride_tricks.as_strided(A, (3, 2), (32, 8)),
        "sliding": np.lib.stride_tricks.sliding_window_view(A[0], 2),
        "from bytes": np.frombuffer(A.tobytes()).reshape(A.shape),
        "from a bytearray": np.ndarray(A.shape, buffer=bytearray(A.tobytes())),
        "memory-mapped": mapped, "read-only": read_only(A), "unaligned": aligned_badly(A),
        "single precision": A.astype(np.float32), "empty": A[:0], "no columns": A[:, :0],
    }  # fmt: skip


def loss_and_gradients(x):
    """A loss of an argument, of data and of a prediction: everything that an array can be."""
    w = Tensor(np.linspace(-1, 1, 2 * x.shape[1]).reshape(x.shape[1], 2))
    found = []
    value, gs = flux.withgradient(lambda x: np.sum(np.tanh(x) * x[::-1] + np.exp(-x)), x)
    found += [value, *gs]
    value, gs = flux.withgradient(lambda: np.sum(np.square(np.matmul(x, w))), [w])
    found += [value, *gs.values()]
    if x.size:
        value, gs = flux.withgradient(lambda p: losses.mse(p, x), np.zeros(x.shape, x.dtype))
        found += [value, *gs, losses.logitcrossentropy(x, np.zeros(len(x), int))]
        layer = flux.Dense(x.shape[1], 2, flux.tanh, init=lambda *shape: np.ones(shape, "f4"))
        value, gs = flux.withgradient(lambda: np.sum(layer(x)), flux.params(layer))
        found += [value, *gs.values()]
    found.append(Tensor(x).data)
    return found


def state(a):
    """What a caller can see of an array."""
    return a.tobytes(), a.flags.writeable, a.strides, a.shape, a.dtype, a.flags.aligned


def test_layout_changes_neither_values_nor_the_array(tmp_path):
    for name, a in views(tmp_path).items():
        before = state(a)
        base = None if a.base is None or not isinstance(a.base, np.ndarray) else state(a.base)
        found = loss_and_gradients(a)
        plain = np.array(a, order="C", dtype=a.dtype.newbyteorder("="))
        for g, h in zip(found, loss_and_gradients(plain), strict=True):
            np.testing.assert_allclose(g, h, rtol=2e-7 if a.dtype == "f4" else 1e-14, err_msg=name)
            assert type(g) is type(h) and np.result_type(g) == np.result_type(h), name
        assert state(a) == before, name
        assert base is None or state(a.base) == base, name


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@law(4)
def test_every_operation_on_every_layout(name, data):
    """Values and gradients of all declared operations, from operands laid out in drawn ways."""
    operation = EVERY[name]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)) if data else sum(map(ord, name)))
    pick = lambda: data.draw(st.sampled_from(LAYOUTS)) if data else rng.choice(LAYOUTS)
    for sample in samples_of(operation)[:2]:
        x = operands(operation, sample.shapes, rng)
        run = lambda *a, s=sample: s.call(operation.public, *a)
        laid = [pick()(a) for a in x]
        before = [state(a) for a in laid]
        (y, back), (z, again) = flux.pullback(run, *x), flux.pullback(run, *laid)
        np.testing.assert_allclose(z, y, rtol=1e-13, atol=1e-13)
        seed = rng.standard_normal(np.shape(y))
        odd = np.asfortranarray(seed)[...] if seed.ndim else seed
        for g, h, a in zip(back(seed), again(odd), laid, strict=True):
            if g is not None:
                np.testing.assert_allclose(h, g, rtol=1e-12, atol=1e-12)
                assert type(h) is np.ndarray and h.dtype.isnative and h.flags.writeable
                assert not np.shares_memory(h, a)
        assert [state(a) for a in laid] == before


def reversed_view(a):
    return np.flip(np.flip(a).copy())


def wide(a):
    """Every second element of an array whose others are nan."""
    if not a.ndim:
        return a
    twice = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan)
    twice[..., ::2] = a
    return twice[..., ::2]


LAYOUTS = [
    reversed_view, wide, lambda a: np.asarray(a, order="F"), read_only, aligned_badly,
    lambda a: np.swapaxes(np.swapaxes(a, 0, -1).copy(), 0, -1) if a.ndim else a,
    lambda a: a.astype(a.dtype.newbyteorder(">")),
]  # fmt: skip


# ------------------------------------------------------------------------------- other kinds


def matrix(a):
    with pytest.warns(PendingDeprecationWarning):
        return np.asmatrix(a)


SAME = {
    "list": A.tolist(), "tuple": tuple(map(tuple, A)), "column": Column(A.tolist()),
    "memoryview": memoryview(A), "subclass": A.view(Finalised), "matrix": None,
    "rows": list(A), "record of one": A.astype([("x", "f8")])["x"], "Tensor": Tensor(A),
}  # fmt: skip


def test_tensors_in_named_tuples_and_given_by_name():
    Pair = namedtuple("Pair", "a b")
    t, shape = Tensor([1.0, 2.0]), Pair(3, 2)
    assert np.concatenate(Pair(t, t)).tolist() == [1, 2, 1, 2]
    assert np.broadcast_to(t, shape).shape == np.histogram2d(t, t, shape)[0].shape == (3, 2)
    assert np.histogram(a=t, bins=2)[0].tolist() == [1, 1]
    (g,) = flux.gradient(lambda x: np.sum(np.stack(Pair(x, t)) * [[1.0], [2.0]]), np.ones(2))
    assert g.tolist() == [1, 1]


@pytest.mark.parametrize("name", SAME)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of np.matrix
def test_containers_count_by_their_values(name):
    given_as = matrix(A) if name == "matrix" else SAME[name]
    x = A + 1
    wanted = flux.withgradient(lambda x: np.sum(x * A) + losses.mse(x, A), x)
    for f in (
        lambda x: np.sum(x * given_as) + losses.mse(x, given_as),
        lambda x: np.sum(np.multiply(given_as, x)) + losses.mse(x, given_as),
    ):
        value, (g,) = flux.withgradient(f, x)
        assert value == wanted[0] and type(g) is np.ndarray
        np.testing.assert_array_equal(g, wanted[1][0])
    if name != "column":  # an object with attributes could be a model: its array is wanted
        value, (g,) = flux.withgradient(lambda a: np.sum(a * a), given_as)
        np.testing.assert_array_equal(g, 2 * A)
        assert type(g) is np.ndarray and value == np.sum(A * A)
    t = Tensor(given_as)
    assert type(t.data) is np.ndarray and not np.shares_memory(t.data, A)
    layer = flux.Dense(4, 2)
    np.testing.assert_array_equal(layer(given_as), layer(A))
    assert type(layer(given_as)) is np.ndarray


def test_numbers_in_a_row():
    x = np.array([1.0, 2.0, 4.0])
    for data in ([3, 4, 5], range(3, 6), array.array("i", [3, 4, 5]), array.array("d", [3, 4, 5])):
        (g,) = flux.gradient(lambda x: np.sum(x * data), x)  # noqa: B023
        np.testing.assert_array_equal(g, [3, 4, 5])
        assert losses.mse(x, data) == losses.mse(x, np.array([3.0, 4, 5]))


def test_a_matrix_multiplies_by_element():
    m = matrix([[1.0, 2.0], [3.0, 4.0]])
    x = np.array([[2.0, 3.0], [4.0, 5.0]])
    for f in (
        lambda x: np.sum(x * m),
        lambda x: np.sum(m * x),
        lambda x: np.sum(np.multiply(m, x)),
    ):
        value, (g,) = flux.withgradient(f, x)
        assert value == np.sum(np.asarray(m) * x)
        np.testing.assert_array_equal(g, np.asarray(m))
    assert type(Tensor(m).data) is np.ndarray and (Tensor(m) * x).tolist() == [[2, 6], [12, 20]]


@pytest.mark.parametrize(
    "use",
    [
        lambda x, m: x * m, lambda x, m: m * x, lambda x, m: np.exp(m) * x,
        lambda x, m: np.add(m, x), lambda x, m: x @ m, lambda x, m: losses.mse(x, m),
        lambda x, m: losses.mse(m, x), lambda x, m: np.where(m > 1, x, 0),
        lambda x, m: np.concatenate([x, m]), lambda x, m: np.stack([m, x]),
    ],
)  # fmt: skip
def test_a_mask_is_never_lost(use):
    """A masked array is refused, wherever it would be read without its mask."""
    m = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], [[True, False], [False, False]])
    with pytest.raises(TypeError, match=r"mask|recorded"):  # or the mask asks for plain values
        flux.gradient(lambda x: np.sum(use(x, m)), np.ones((2, 2)))
    for f in (Tensor, lambda m: flux.gradient(np.sum, m), flux.detach):
        with pytest.raises(TypeError, match="mask"):
            f(m)


@pytest.mark.parametrize(
    "use",
    [
        lambda x, m: x[m > 1], lambda x, m: x[m.astype(int)], lambda x, m: np.sum(x, where=m > 1),
        lambda x, m: np.take(x, m.astype(int)), lambda x, m: np.average(x, weights=m),
        lambda x, m: np.interp(x, [0.0, 1.0, 2.0, 3.0], m.ravel()), lambda x, m: np.full_like(x, m),
        lambda x, m: np.compress(m[0] > 1, x, axis=0), lambda x, m: np.quantile(x, m[0] / 4),
        lambda x, m: np.pad(x, 1, constant_values=m), lambda x, m: x * [m, m],
        lambda x, m: np.bincount(m.astype(int).ravel(), x.ravel()),
    ],
)  # fmt: skip
def test_a_mask_is_not_lost_in_a_keyword_an_index_or_a_list(use):
    m = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], [[True, False], [False, False]])
    with pytest.raises(TypeError, match="masked array"):
        flux.gradient(lambda x: np.sum(use(x, m)), np.ones((2, 2)))


def test_a_mask_is_not_lost_where_a_parameter_is_written_to():
    W, m = Tensor([1.0, 2.0]), np.ma.masked_array([5, 1], [True, False])
    for index, value in ((slice(None), m), (m, 1.0)):
        with pytest.raises(TypeError, match="masked array"):
            W[index] = value
    with pytest.raises(TypeError, match="masked array"):
        Tensor([m / 1, m / 1])
    assert W.tolist() == [1, 2]


@pytest.mark.parametrize(
    "strange",
    [
        None, "text", b"ab", np.array(["a"]), np.array([None]), [Decimal(1)],
        np.array([1.5], object), np.array([Decimal(1)]), {"a": 1}, {1.0},
        np.zeros(1, "M8[s]"), np.zeros(1, "m8[s]"), np.zeros(1, [("a", "f4")]), [[1.0], [1.0, 2.0]],
        object(), np.array(["2020-01-01"], "M8[D]"),
    ],
    ids=lambda v: repr(v)[:30],
)  # fmt: skip
def test_nothing_strange_becomes_an_array_of_objects(strange):
    for use in (
        lambda x: x * strange, lambda x: strange + x, lambda x: np.multiply(strange, x),
        lambda x: np.maximum(x, strange), lambda x: losses.mse(x, strange),
    ):  # fmt: skip
        with pytest.raises((TypeError, flux.NotScalarError), match=r"(?!.*attribute)"):
            flux.gradient(lambda x: np.sum(use(x)), np.ones(1))  # noqa: B023
    with pytest.raises(TypeError):
        Tensor(strange)


def test_operators_of_arrays_and_numbers_of_numpy_give_way():
    """ndarray * Tensor and np.float64 * Tensor are recorded; ndarray *= Tensor is refused."""
    seen = []

    def f(x):
        ones = np.ones(3)
        for y in (
            ones * x, np.float64(2) * x, np.float32(2) - x, np.int64(2) / x, np.ones((2, 3)) @ x,
            np.array(2.0) ** x, np.maximum(ones, x), [1.0, 2.0, 3.0] + x, np.bool_(True) * x,
        ):  # fmt: skip
            seen.append(type(y))
        for update in ("__iadd__", "__imul__", "__isub__", "__itruediv__"):
            with pytest.raises(TypeError, match="Leave out= away"):
                getattr(ones, update)(x)
        np.testing.assert_array_equal(ones, np.ones(3))
        return np.sum(x)

    flux.gradient(f, np.ones(3))
    assert set(seen) == {Tensor}


def test_lists_are_operands_of_second_derivatives_too():
    loss = lambda x: np.sum([[1.0, 2.0]] @ (x * x)) + np.vecdot([3, 1], x * x)
    np.testing.assert_array_equal(flux.hessian(loss, np.ones(2)), [[8, 0], [0, 6]])


def test_a_subclass_is_no_longer_one_inside():
    kinds = []

    def f(x):
        kinds.append(type(x.data))
        y = np.exp(x) * A.view(Finalised)
        kinds.append(type(y.data))
        return np.sum(y)

    (g,) = flux.gradient(f, A.view(Finalised))
    assert kinds == [np.ndarray] * 2 and type(g) is np.ndarray
    np.testing.assert_allclose(g, np.exp(A) * A)
