"""Tensor: what it is made from, and that it is an array outside a gradient and one value inside."""

import array
import copy
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyflux as flux
from tests.suites import examples, only
from tinyflux import Tensor

thorough = settings(max_examples=examples(40), deadline=None, derandomize=True)


def inside(f, x):
    """What f(x) is while a gradient towards x is taken."""
    seen = []

    def loss(x):
        seen.append(f(x))
        return np.sum(x)

    flux.gradient(loss, x)
    return seen[0]


# --- made from -----------------------------------------------------------------------------------


@thorough
@given(hnp.arrays(st.sampled_from(["f4", "f8", "g", ">f4", ">f8"]), hnp.array_shapes(min_dims=0)))
def test_a_tensor_is_a_copy_of_its_array(a):
    for given_array in (a, a.T, a[..., ::-1] if a.ndim else a):
        t = Tensor(given_array)
        np.testing.assert_array_equal(t.data, given_array)
        assert type(t.data) is np.ndarray and not np.shares_memory(t.data, given_array)
        assert t.dtype == given_array.dtype.newbyteorder("=") and t.dtype.isnative
        assert (t.shape, t.ndim, t.size) == (given_array.shape, given_array.ndim, given_array.size)
        assert t.data.flags.c_contiguous and t.data.flags.writeable and t.trainable


@pytest.mark.parametrize(
    "data",
    [1.5, np.float64(1.5), [1.5], (1.5, 2.0), [[1.0, 2.0]] * 2, array.array("d", [1.0, 2.0])],
)
def test_numbers_and_lists(data):
    t = Tensor(data)
    np.testing.assert_array_equal(t.data, data)
    assert t.dtype == np.float64 and t.data.flags.writeable


def test_a_tensor_from_a_tensor_and_from_a_subclass_and_from_read_only_memory():
    t = Tensor(np.ones(3, np.float32))
    again = Tensor(t)
    assert again.dtype == np.float32 and not np.shares_memory(again.data, t.data)
    assert type(Tensor(np.ones(2).view(type("Mine", (np.ndarray,), {}))).data) is np.ndarray
    view = np.broadcast_to(np.float64(3), (2, 2))
    assert Tensor(view).data.flags.writeable and np.all(Tensor(view).data == 3)


@pytest.mark.parametrize(
    "data, text",
    [
        (1, r"dtype int64.*integers have no gradient: use x.astype\(np.float32\) or write 2.0"),
        ([1, 2], "dtype int64"),
        (np.ones(2, np.uint8), "dtype uint8; wanted real floating-point numbers"),
        (True, "dtype bool"),
        (1j, "dtype complex128.*pass real and imaginary parts as two arrays"),
        (np.ones(2, np.float16), "dtype float16.*65504"),
        (None, "got None"),
        ({}, "got {}"),
        ("text", "dtype <U4"),
        (np.zeros(1, "M8[s]"), "dtype datetime64"),
        (np.zeros(1, [("a", "f4")]), "wanted real floating-point numbers"),
        (np.ma.masked_array([1.0], [True]), r"masked array, whose mask would be lost; use .filled"),
        ([[1.0], [1.0, 2.0]], "the lists do not form an array"),
    ],
)
def test_what_is_refused(data, text):
    with pytest.raises(TypeError, match=f"^Tensor: .*{text}"):
        Tensor(data)


# --- outside a gradient: an array ----------------------------------------------------------------

BINARY = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod,
    operator.floordiv, operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne,
]  # fmt: skip
PLAIN = BINARY[6:]
OTHERS = [
    2, 2.0, True, np.float32(2), np.float64(2), np.int64(2), np.array(2.0), np.ones(3),
    np.ones(3, int), np.ones(3, ">f4"), np.ones((2, 1)), [1.0, 2.0, 3.0],
]  # fmt: skip
other = pytest.mark.parametrize("other", OTHERS, ids=repr)


def as_array(x):
    return np.asarray(x) if isinstance(x, list) else x


@pytest.mark.parametrize("op", BINARY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", only([np.float32], [np.float32, np.float64]))
@other
def test_operators_outside_a_gradient_are_those_of_the_array(op, dtype, other):
    a = np.array([1.0, 2.5, 3.0], dtype)
    t = Tensor(a)
    of_arrays = np.power if op is operator.pow else op  # whose dtypes have varied with NumPy's age
    for got, wanted in [
        (op(t, other), of_arrays(a, as_array(other))),
        (op(other, t), of_arrays(as_array(other), a)),
        (op(t, t), of_arrays(a, a)),
    ]:
        assert type(got) is type(wanted) and got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("op", BINARY, ids=lambda f: f.__name__)
@other
def test_operators_inside_a_gradient_record_and_never_give_an_array_of_objects(op, other):
    a = np.array([1.0, 2.5, 3.0])
    kind = np.ndarray if op in PLAIN else Tensor
    for f, wanted in [
        (lambda x: op(x, other), op(a, as_array(other))),
        (lambda x: op(other, x), op(as_array(other), a)),
        (lambda x: op(x, x), op(a, a)),
    ]:
        got = inside(f, a)
        assert type(got) is kind
        data = got.data if kind is Tensor else got
        assert data.dtype == wanted.dtype and data.dtype != object
        np.testing.assert_array_equal(data, wanted)


def test_matmul_from_both_sides():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    for left, right in [
        (Tensor(a), b),
        (a, Tensor(b)),
        (a.tolist(), Tensor(b)),
        (Tensor(a), Tensor(b)),
    ]:
        assert type(left @ right) is np.ndarray
        np.testing.assert_array_equal(left @ right, a @ b)
    assert type(inside(lambda x: a @ x, b)) is Tensor
    assert type(inside(lambda x: a.tolist() @ x, b)) is Tensor


@pytest.mark.parametrize("op", [operator.neg, operator.pos, abs], ids=lambda f: f.__name__)
def test_unary_operators(op):
    a = np.array([-1.0, 2.0])
    assert type(op(Tensor(a))) is np.ndarray and type(inside(op, a)) is Tensor
    np.testing.assert_array_equal(op(Tensor(a)), op(a))


METHODS = {
    "sum": [(), (0,), {"axis": -1, "keepdims": True}], "mean": [(), (1,)], "prod": [(), (0,)],
    "max": [(), (0,)], "min": [(), {"axis": 1}], "var": [(), {"axis": 0, "ddof": 1}],
    "std": [(), (0,)], "cumsum": [(), (1,)], "cumprod": [(0,)], "argmax": [(), (0,)],
    "argmin": [(1,)], "argsort": [(), (0,)], "any": [(), (0,)], "all": [()], "round": [(), (1,)],
    "ravel": [(), ("F",)], "flatten": [(), ("F",)], "squeeze": [()], "swapaxes": [(0, 1)],
    "diagonal": [(), (1,)], "trace": [(), (1,)], "repeat": [(2,), (2, 0)],
    "take": [([0, 1],), ([0], 1)], "dot": [(np.ones(3),)], "clip": [(0.1, 0.4), (None, 0.3)],
    "sort": [(), (0,)], "reshape": [(3, 2), ((3, 2),), (-1,), (6, 1)],
    "transpose": [(), (1, 0), ((1, 0),), (None,)], "astype": [(np.float32,), (int,), (bool,)],
    "copy": [()],
}  # fmt: skip
CALLS = [(name, call) for name, calls in METHODS.items() for call in calls]


def test_a_list_of_its_numbers_is_made_where_no_gradient_is_lost():
    assert Tensor([[1.0, 2.0]]).tolist() == [[1.0, 2.0]]
    x = Tensor([3.0])  # no gradient is taken for it
    assert flux.gradient(lambda y: y * x.tolist()[0], 2.0) == (3.0,)
    with pytest.raises(flux.RecordingError, match="its gradient would be lost"):
        flux.gradient(lambda x: np.sum(x * x.tolist()), np.ones(2))
    with pytest.raises(AttributeError, match=r"use functions of NumPy, or detach\(t\)\.flat"):
        flux.gradient(lambda x: x.flat[0], np.ones(2))


@pytest.mark.parametrize("name, call", CALLS, ids=lambda v: str(v)[:30])
def test_methods_are_those_of_the_array(name, call):
    args, kwargs = ((), call) if isinstance(call, dict) else (call, {})
    a = np.random.default_rng(0).random((2, 3))
    kept = a.copy()
    wanted = getattr(a, name)(*args, **kwargs)
    if name == "sort":  # of an array it works in place; of a Tensor it returns the result
        wanted = np.sort(kept, *(args or (-1,)))
    for got in (
        getattr(Tensor(kept), name)(*args, **kwargs),
        inside(lambda x: getattr(x, name)(*args, **kwargs), kept),
    ):
        if isinstance(got, Tensor):
            got = got.data
        np.testing.assert_array_equal(got, wanted)
        assert np.shape(got) == np.shape(wanted)
    assert not isinstance(getattr(Tensor(kept), name)(*args, **kwargs), Tensor)


def test_shapes_of_a_single_element():
    t = Tensor([3.0])
    assert t.reshape(()).shape == t.reshape().shape == () and t.reshape((1, 1)).shape == (1, 1)
    assert t.item() == 3 and t.numpy() is t.data


def test_attributes_of_arrays():
    a = np.arange(6.0).reshape(1, 2, 3)
    t = Tensor(a)
    np.testing.assert_array_equal(t.T, a.T)
    np.testing.assert_array_equal(t.mT, a.mT)
    with pytest.raises(AttributeError, match=r"no 'tobytes' of its own; use t.data.tobytes$"):
        t.tobytes
    with pytest.raises(AttributeError, match=r"use t.data.searchsorted, or np.searchsorted\(t\)"):
        t.searchsorted
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        t.colour
    with pytest.raises(AttributeError):
        t.colour = 1
    assert not hasattr(t, "__array_interface__") and not isinstance(t, np.ndarray)


def test_functions_of_numpy_outside_a_gradient():
    a = np.arange(1.0, 5.0).reshape(2, 2)
    t = Tensor(a)
    for f in (
        np.exp,
        np.sum,
        np.fft.fft,
        np.sort,
        np.unique,
        np.add.reduce,
        np.isnan,
        np.linalg.pinv,
    ):
        assert type(f(t)) is type(f(a))
        np.testing.assert_array_equal(f(t), f(a))
    assert np.add(t, 1, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.stack([t, a])[0], a)
    assert np.exp(t, out=(out := np.empty((2, 2)))) is out
    np.testing.assert_array_equal(np.asarray(t, np.float32), a)
    assert np.asarray(t) is t.data and np.array(t) is not t.data
    np.testing.assert_array_equal(t, a)


def test_data_may_be_written_outside_a_gradient():
    t = Tensor(np.zeros(3))
    t[0] = 1.0
    t[1:] = Tensor([2.0, 3.0])
    t.data += 1
    np.testing.assert_array_equal(t.data, [2, 3, 4])


# --- as a Python object --------------------------------------------------------------------------


def test_numbers():
    t = Tensor(2.5)
    assert (float(t), int(t), bool(t), t.item(), f"{t:.3f}", f"{t}") == (
        2.5,
        2,
        True,
        2.5,
        "2.500",
        "2.5",
    )
    assert inside(lambda x: (float(x), int(x), bool(x), f"{x:.1f}"), 2.5) == (2.5, 2, True, "2.5")
    assert type(float(t)) is float and type(t.item()) is float


@pytest.mark.parametrize("f", [float, int, bool, Tensor.item, lambda t: f"{t:.2f}"])
def test_several_elements_are_no_number(f):
    with pytest.raises((TypeError, ValueError)):
        f(Tensor([1.0, 2.0]))


def test_length_and_iteration():
    t = Tensor(np.arange(6.0).reshape(3, 2))
    assert len(t) == 3 and [row.tolist() for row in t] == [[0, 1], [2, 3], [4, 5]]
    assert all(type(row) is np.ndarray for row in t)
    assert [type(row) for row in inside(list, t.data)] == [Tensor] * 3
    assert 5.0 in t and 7.0 not in t
    for f in (len, list):
        with pytest.raises(TypeError):
            f(Tensor(1.0))


def test_equality_is_by_element_and_hash_by_identity():
    t, u = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    assert (t == u).tolist() == [True, True] and (t != 1).tolist() == [False, True]
    assert hash(t) == hash(t) and {t: 1, u: 2}[t] == 1 and len({t, u, t}) == 2
    assert t in {t} and u not in {t}


def test_repr():
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.])"
    assert repr(Tensor(np.float32(2))) == "Tensor(2., dtype=float32)"
    assert repr(Tensor(np.ones((2, 2)))) == "Tensor([[1., 1.],\n        [1., 1.]])"
    assert inside(lambda x: repr(x * 2), 1.0) == "Tensor(2., recorded)"
    assert str(Tensor(1.0)) == "Tensor(1.)"


@pytest.mark.parametrize("how", ["copy", "deepcopy", 2, 3, 4, 5])
def test_copies_and_pickles(how):
    t = Tensor(np.arange(3, dtype=np.float32))
    t.trainable = False
    made = getattr(copy, how)(t) if isinstance(how, str) else pickle.loads(pickle.dumps(t, how))
    np.testing.assert_array_equal(made.data, t.data)
    assert made.dtype == np.float32 and made.trainable is False
    assert not np.shares_memory(made.data, t.data)
    made.data[0] = 5
    assert t.data[0] == 0


def test_tied_weights_stay_tied():
    t = Tensor([1.0])
    for a, b in (copy.deepcopy([t, t]), pickle.loads(pickle.dumps([t, t]))):
        assert a is b and a is not t


def test_a_recorded_value_is_not_copied_or_pickled_unnoticed():
    for f in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(flux.RecordingError, match="cannot be copied or pickled"):
            inside(lambda x: f(x * 2), 1.0)  # noqa: B023
    kept = inside(lambda x: x * 2, 1.5)  # but afterwards it is a value like any other
    assert float(copy.deepcopy(kept)) == 3


# --- inside a gradient ---------------------------------------------------------------------------


def test_in_place_operators_rebind():
    def f(x):
        before = y = x * 1.0
        y += 1
        y *= 2
        y -= x
        y /= 4
        assert y is not before
        np.testing.assert_array_equal(before.data, [1, 2])
        return np.sum(y * before)

    (g,) = flux.gradient(f, np.array([1.0, 2.0]))
    np.testing.assert_allclose(g, [1.0, 1.5])  # of (x + 2) x / 4


def test_assigning_to_elements_is_refused_with_the_remedy():
    def assign(x):
        x[0] = 1.0

    for f in (assign, lambda x: assign(x * 2), lambda x: assign(Tensor([1.0]))):
        with pytest.raises(flux.RecordingError, match=r"np.where\(mask, v, t\)"):
            inside(f, np.ones(2))


@pytest.mark.parametrize(
    "f",
    [
        np.asarray, np.array, Tensor.numpy, Tensor, lambda x: np.array([x[0], x[1]]),
        lambda x: np.asarray(x * 2), lambda x: np.vectorize(lambda v: 2 * v)(x),
        lambda x: np.random.default_rng(0).normal(x), lambda x: np.testing.assert_array_equal(x, x),
    ],
)  # fmt: skip
def test_a_recorded_value_becomes_no_plain_array_unnoticed(f):
    with pytest.raises(flux.RecordingError, match=r"Use detach\(t\)"):
        inside(f, np.ones(2))


def test_detach_cuts_on_purpose():
    (g,) = flux.gradient(lambda x: np.sum(x * flux.detach(x)), [3.0, 4.0])
    np.testing.assert_array_equal(g, [3, 4])
    assert type(inside(lambda x: flux.detach(x * 2), 1.0)) is np.ndarray
    t = Tensor([1.0])
    assert not np.shares_memory(flux.detach(t), t.data)
    np.testing.assert_array_equal(flux.detach([1, 2]), [1, 2])


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.exp(x, out=np.empty(2)), lambda x: np.sum(x, out=np.empty(())),
        lambda x: np.add(x, 1, np.empty(2)), lambda x: operator.iadd(np.ones(2), x),
        lambda x: np.exp(np.ones(2), out=x), lambda x: x.sum(out=np.empty(())),
        lambda x: np.cumsum(x, out=np.empty(2)), lambda x: np.clip(x, 0, 1, out=np.empty(2)),
        lambda x: np.concatenate([x, x], out=np.empty(4)),
    ],
)  # fmt: skip
def test_out_is_refused(f):
    with pytest.raises(flux.RecordingError, match=r"\(\.\.\., out=\.\.\.\): .*Leave out= away"):
        inside(f, np.ones(2))


@pytest.mark.parametrize(
    "f, name",
    [
        (lambda x: np.fft.fft(x), "fft.fft"), (lambda x: np.add.outer(x, x), r"add\.outer"),
        (lambda x: np.add.at(np.ones(2), [0], x[0]), r"add\.at"),
        (lambda x: np.add(x, 1, where=np.array([True, False])), "add with where"),
        (lambda x: np.add.reduceat(x, [0]), r"add\.reduceat"),
    ],
)  # fmt: skip
def test_a_function_without_a_rule_names_itself(f, name):
    with pytest.raises(flux.NotDifferentiableError, match=rf"^{name} has no derivative rule"):
        inside(f, np.ones(2))


@pytest.mark.parametrize(
    "named, plain",
    [(lambda a, b: np.dot(a, b=b), np.dot), (lambda a, b: np.outer(a=a, b=b), np.outer),
     (lambda a, b: np.linalg.solve(a, b=b), np.linalg.solve)],
)  # fmt: skip
def test_operands_may_be_given_by_name(named, plain):
    a, b = np.arange(4.0).reshape(2, 2) + np.eye(2), np.ones((2, 2))
    found = flux.gradient(lambda a, b: np.sum(np.sin(named(a, b))), a, b)
    wanted = flux.gradient(lambda a, b: np.sum(np.sin(plain(a, b))), a, b)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_missing_operand_is_named():
    """`np.where(t)` alone gives indices, through which no gradient flows."""
    for f, name in ((lambda x: np.where(x), "x2?"), (lambda x: np.where(x, x), "y|x3")):
        with pytest.raises(TypeError, match=f"where: the operand '({name})' is missing"):
            flux.pullback(f, np.eye(2))


@pytest.mark.parametrize(
    "f, g",
    [(np.add.reduce, np.sum), (np.multiply.reduce, np.prod), (np.maximum.reduce, np.max),
     (np.minimum.reduce, np.min), (np.add.accumulate, np.cumsum),
     (np.multiply.accumulate, np.cumprod)],
)  # fmt: skip
def test_methods_of_ufuncs(f, g):
    x = np.array([[1.0, 2.0], [3.0, 5.0]])
    for axis in (0, 1):
        found, wanted = (flux.gradient(lambda x: np.sum(h(x, axis=axis) ** 2), x) for h in (f, g))  # noqa: B023
        np.testing.assert_array_equal(*found, *wanted)
    np.testing.assert_array_equal(inside(f, x).data, f(x))


def test_the_left_operand_may_be_a_scalar_of_numpy_that_is_rebound():
    def f(x):
        total = np.float64(2)
        total += x
        total *= np.ones(2)
        assert type(total) is Tensor
        return np.sum(total)

    assert flux.gradient(f, 1.0) == (2.0,)


def test_masked_and_strange_operands():
    with pytest.raises(TypeError, match="mask"):
        inside(lambda x: x * np.ma.masked_array([1.0, 2.0], [True, False]), np.ones(2))
    with pytest.raises(TypeError):
        inside(lambda x: x * None, np.ones(2))
    with pytest.raises(TypeError):
        inside(lambda x: x + "text", np.ones(2))


def test_other_arrays_count_by_their_values():
    """Lists, ranges and array.array are taken as NumPy takes them; int and bool data are fine."""
    x = np.array([1.0, 2.0])
    for data in (
        [3, 4],
        (3, 4),
        range(3, 5),
        array.array("d", [3, 4]),
        np.array([3, 4]),
        np.array([3, 4], ">i2"),
    ):
        np.testing.assert_array_equal(flux.gradient(lambda x: np.sum(x * data), x)[0], [3, 4])  # noqa: B023


def test_a_value_kept_from_a_gradient_is_a_constant_afterwards():
    kept = inside(lambda x: x * 3, 2.0)
    assert float(kept) == 6 and type(kept + 1) is not Tensor
    assert flux.gradient(lambda x: x * kept, 5.0) == (6.0,)
    with pytest.raises(TypeError, match="leaves"):
        flux.Params([kept])
