"""gradient, pullback, jacobian and hessian: values, nesting, ownership, depth, memory, errors."""

import asyncio
import contextvars
import copy
import gc
import inspect
import math
import pickle
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.suites import either, examples
from tinyflux import gradient, hessian, jacobian, pullback, withgradient
from tinyflux import tape as tape_module
from tinyflux.primitive import OPERATIONS, primitive
from tinyflux.tape import open_tape
from tinyflux.tensor import wrapped

thorough = settings(max_examples=examples(150), deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def _nothing_stays_open():
    yield
    assert open_tape.get() is None


# --- random programs -----------------------------------------------------------------------------
# A program is a list of steps; each picks an operation and earlier values by their numbers.

SMOOTH = {  # on complex numbers as well, and tame on whatever comes in
    "sin": np.sin, "cos": np.cos, "negative": np.negative, "tanh": lambda a: np.tanh(0.5 * a),
    "exp": lambda a: np.exp(0.1 * np.sin(a)), "arctan": lambda a: np.arctan(0.1 * np.sin(a)),
    "square": lambda a: np.square(np.sin(a)), "log": lambda a: np.log(2.0 + np.sin(a)),
    "cosh": lambda a: np.cosh(np.sin(a)), "sqrt": lambda a: np.sqrt(2.0 + np.cos(a)),
    "reciprocal": lambda a: 1 / (2.0 + np.sin(a)), "sum": np.sum,
    "mean0": lambda a: np.mean(a, axis=0), "sum1": lambda a: np.sum(a, axis=-1, keepdims=True),
    "transpose": np.transpose, "double": lambda a: np.concatenate([a, a], axis=-1),
    "roll": lambda a: np.roll(a, 1), "rows": lambda a: a[::-1], "pick": lambda a: a[[0, 0]],
    "cumsum": lambda a: np.cumsum(a, axis=-1) * 0.3, "tall": lambda a: np.reshape(a, (-1, 1)),
}  # fmt: skip
PAIRED = {
    "add": np.add, "subtract": np.subtract, "multiply": lambda a, b: np.sin(a) * b,
    "divide": lambda a, b: a / (2.0 + np.cos(b)), "matmul": lambda a, b: 0.3 * (a @ b),
    "where": lambda a, b: np.where(np.arange(3) < 1, a, b), "stack": lambda a, b: np.stack([a, b]),
    "outer": lambda a, b: 0.3 * np.outer(a, b),
    "einsum": lambda a, b: np.einsum("...i,...i->...", a, b),
}  # fmt: skip

steps = st.lists(
    st.tuples(st.sampled_from([*SMOOTH, *PAIRED, *PAIRED]), st.integers(0, 99), st.integers(0, 99)),
    min_size=1,
    max_size=14,
)
leaf_shapes = st.lists(
    st.sampled_from([(), (3,), (2, 3), (3, 3), (1, 3), (3, 1)]), min_size=1, max_size=3
)


def run(program, leaves):
    """The sum of the last values of a program; a step whose shapes do not fit is left out."""
    values = list(leaves)
    for name, i, j in program:
        a, b = values[i % len(values)], values[j % len(values)]
        try:
            new = SMOOTH[name](a) if name in SMOOTH else PAIRED[name](a, b)
        except (ValueError, IndexError, TypeError):
            continue
        if np.size(new) <= 40 and np.ndim(new) <= 4:
            values.append(new)
    total = 0.0
    for k, value in enumerate(values[-4:]):
        total = total + np.sum(value * (1.0 + 0.1 * k))
    return total


@thorough
@given(steps, leaf_shapes, st.integers(0, 2**32 - 1))
def test_random_programs_agree_with_the_complex_step(program, shapes, seed):
    rng = np.random.default_rng(seed)
    x = [rng.uniform(-1, 1, shape) for shape in shapes]
    value, found = withgradient(lambda *a: run(program, a), *x)
    np.testing.assert_allclose(value, run(program, x), rtol=1e-12)
    for _ in range(2):
        direction = [rng.standard_normal(a.shape) for a in x]
        moved = [a + 1e-30j * d for a, d in zip(x, direction, strict=True)]
        wanted = np.imag(run(program, moved)) / 1e-30
        got = sum(np.sum(g * d) for g, d in zip(found, direction, strict=True) if g is not None)
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


@settings(thorough, max_examples=examples(25))
@given(steps, leaf_shapes, st.integers(0, 2**32 - 1))
def test_second_order_of_random_programs_agrees_with_the_complex_step(program, shapes, seed):
    """The product of Hessian and vector: the derivative of the gradient along a direction."""
    rng = np.random.default_rng(seed)
    x = [rng.uniform(-1, 1, shape) for shape in shapes]
    v = [rng.standard_normal(a.shape) for a in x]

    def slope(*a):
        found = gradient(lambda *b: run(program, b), *a)
        return sum((np.sum(g * d) for g, d in zip(found, v, strict=True) if g is not None), 0.0)

    found = gradient(slope, *x)
    h = 1e-5  # central differences of the gradient, whose law stands above
    for k, a in enumerate(x):
        if a.ndim:
            direction = rng.standard_normal(a.shape)
            ends = [slope(*x[:k], a + s * h * direction, *x[k + 1 :]) for s in (1, -1)]
            got = 0.0 if found[k] is None else np.sum(found[k] * direction)
            np.testing.assert_allclose(got, (ends[0] - ends[1]) / (2 * h), rtol=2e-5, atol=1e-5)


@settings(thorough, max_examples=examples(20))
@given(steps, leaf_shapes, st.integers(0, 2**32 - 1))
def test_both_forms_and_a_second_pull_agree_bit_for_bit(program, shapes, seed):
    rng = np.random.default_rng(seed)
    x = [rng.uniform(-1, 1, shape) for shape in shapes]
    leaves = [flux.Tensor(a) for a in x]
    value, back = pullback(lambda *a: run(program, a), *x)
    found = [back(np.ones_like(value)), back(np.ones_like(value))]
    found.append(gradient(lambda: run(program, leaves), flux.Params(leaves)).values())
    for gs in found[1:]:
        for g, h in zip(found[0], gs, strict=True):
            np.testing.assert_array_equal(g, h)


# --- reuse ---------------------------------------------------------------------------------------


class Scalar:
    """A number that knows its derivatives by summing over all paths: slow, short, independent."""

    def __init__(self, value, parents=()):
        self.value, self.parents = value, parents

    def __add__(self, other):
        return Scalar(self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __sub__(self, other):
        return Scalar(self.value - other.value, ((self, 1.0), (other, -1.0)))

    def __mul__(self, other):
        return Scalar(self.value * other.value, ((self, other.value), (other, self.value)))

    def towards(self, x):
        if self is x:
            return 1.0
        return sum((slope * parent.towards(x) for parent, slope in self.parents), 0.0)


arithmetic = st.lists(
    st.tuples(st.sampled_from("+-*"), st.integers(0, 30), st.integers(0, 30)),
    min_size=1,
    max_size=9,
)


@thorough
@given(arithmetic, st.lists(st.integers(-3, 3), min_size=1, max_size=3))
def test_diamonds_agree_with_the_sum_over_all_paths(program, inputs):
    """Whole numbers, so that the agreement is exact."""

    def compute(values):
        values = list(values)
        for sign, i, j in program:
            a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
            values.append(a + b if sign == "+" else a - b if sign == "-" else a * b)
        return values[-1]

    leaves = [Scalar(float(v)) for v in inputs]
    out = compute(leaves)
    if abs(out.value) > 2**40:
        return
    found = gradient(lambda *a: compute(a), *map(float, inputs))
    wanted = [out.towards(leaf) for leaf in leaves]
    assert [0.0 if g is None else float(g) for g in found] == wanted


def test_one_leaf_many_times():
    (g,) = gradient(lambda x: sum([x] * 1000), 1.0)
    assert g == 1000


def test_same_array_as_two_arguments():
    a = np.array([1.0, 2.0])
    x, y = gradient(lambda x, y: np.sum(x * x * y), a, a)
    np.testing.assert_array_equal(x, 2 * a * a)
    np.testing.assert_array_equal(y, a * a)


# --- nesting -------------------------------------------------------------------------------------


def d(f):
    return lambda x: gradient(f, x)[0]


def test_perturbations_are_not_confused():
    assert d(lambda x: x * d(lambda y: x + y)(x))(5.0) == 1
    assert d(lambda x: x * d(lambda y: x * y)(2.0))(5.0) == 10
    assert d(lambda x: d(lambda y: x * y * y)(x))(3.0) == 12  # 2 x y at y = x: d(2 x^2) = 4 x
    assert d(lambda x: x * d(lambda x: x * x)(x * 3))(2.0) == 24
    assert d(lambda x: d(lambda y: x)(x) is None and x)(1.0) == 1


@pytest.mark.parametrize("n", range(1, 5))
def test_order_n_of_a_power(n):
    f = lambda x: x**6
    for _ in range(n):
        f = d(f)
    assert f(2.0) == math.perm(6, n) * 2.0 ** (6 - n)


THIRD = [(np.sin, lambda x: -np.cos(x)), (np.exp, np.exp), (np.log, lambda x: 2 / x**3)]


@pytest.mark.parametrize("f, third", THIRD)
def test_third_order(f, third):
    np.testing.assert_allclose(d(d(d(f)))(0.7), third(0.7), rtol=1e-13)


def test_gradient_inside_gradient_with_params():
    a, b = flux.Tensor(3.0), flux.Tensor(2.0)
    gs = gradient(lambda: gradient(lambda: a**2 * b, flux.params(a))[a], flux.params(a, b))
    assert (float(gs[a]), float(gs[b])) == (4.0, 6.0)
    gs = gradient(lambda: a * gradient(lambda: a * b, flux.params(b))[b], flux.params(a))
    assert float(gs[a]) == 6.0


def test_gradient_penalty_of_a_model():
    """The norm of an input gradient, differentiated towards the weights, as in a WGAN."""
    m = flux.Chain(flux.Dense(3, 4, flux.tanh), flux.Dense(4, 1))
    for p in flux.params(m):
        p.data = p.data.astype(np.float64)
    x, ps = np.ones((2, 3)), flux.params(m)

    def penalty():
        (g,) = gradient(lambda x: np.sum(m(x)), x)
        return np.sum(np.square(g))

    gs = gradient(penalty, ps)
    weight, h = m[0].weight, 1e-6
    weight.data[1, 2] += h
    high = penalty()
    weight.data[1, 2] -= 2 * h
    low = penalty()
    np.testing.assert_allclose(gs[weight][1, 2], (high - low) / (2 * h), rtol=1e-6)


def test_fused_operations_at_second_order():
    """dense and mse have a fast path at first order; the second goes through their definitions."""
    x, y, w = np.ones((2, 3)), np.zeros((2, 1)), np.full((3, 1), 0.5)
    found = hessian(lambda w: flux.losses.mse(np.tanh(x @ w), y), w)
    t, s = np.tanh(1.5), 1 - np.tanh(1.5) ** 2
    np.testing.assert_allclose(found, np.full((3, 1, 3, 1), 2 * s * s - 4 * t * t * s), rtol=1e-12)


def test_pullback_inside_a_gradient():
    assert d(lambda x: pullback(lambda y: y * x, x)[0])(3.0) == 6
    assert d(lambda x: pullback(lambda y: y**3, x)[1](x)[0])(2.0) == 36  # d(3 x^2 x)


def test_value_inside_a_gradient_is_recorded():
    assert d(lambda x: withgradient(lambda y: y**2 * x, x)[0])(3.0) == 27


@pytest.mark.parametrize(
    "f", [lambda x: x**3, lambda x: x + 1.0, np.exp, lambda x: np.sum(x * np.ones(3))]
)
def test_pullback_from_outside_can_be_differentiated_towards_its_seed(f):
    _, back = pullback(f, 2.0)
    slope = back(1.0)[0]
    assert d(lambda s: back(s)[0] * s)(5.0) == 10 * slope


def test_parameters_of_an_inner_gradient_are_constants_around_it():
    w = flux.Tensor(2.0)

    def f(x):
        gradient(lambda: w * x, flux.params(w))
        assert type(w * 2.0) is not flux.Tensor
        return x * w

    assert d(f)(1.0) == 2


def test_inner_gradient_towards_other_things_does_not_see_the_outer_ones():
    def f(x):
        inner = flux.Tensor(2.0)
        gs = gradient(lambda: inner * 3.0, flux.params(inner))
        assert type(gs[inner]) is np.ndarray
        return x * gs[inner]

    assert d(f)(1.0) == 3


# --- jacobian, hessian ---------------------------------------------------------------------------


def test_jacobian_shapes_and_values():
    a, b = np.arange(2.0), np.arange(3.0)
    ja, jb = jacobian(np.outer, a, b)
    np.testing.assert_array_equal(ja, np.einsum("ik,j->ijk", np.eye(2), b))
    np.testing.assert_array_equal(jb, np.einsum("i,jk->ijk", a, np.eye(3)))


def test_jacobian_of_numbers_and_of_nothing():
    assert jacobian(lambda x: x**2, 3.0) == (6.0,)
    assert jacobian(lambda x: np.ones(2), 3.0) == (None,)
    assert jacobian(lambda x, y: x * np.ones(2), 3.0, 1.0)[1] is None
    assert jacobian(lambda x: x[:0], np.ones(3))[0].shape == (0, 3)


def test_jacobian_towards_params():
    w, unused = flux.Tensor([1.0, 2.0]), flux.Tensor(0.0)
    js = jacobian(lambda: w**2, flux.params(w, unused))
    np.testing.assert_array_equal(js[w], [[2, 0], [0, 4]])
    assert js[unused] is None


def test_jacobian_of_something_else():
    with pytest.raises(flux.NotScalarError, match="returned None; an array"):
        jacobian(lambda x: None, 1.0)


def test_hessian_closed_forms():
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((3, 3)), rng.uniform(0.5, 1, 3)
    np.testing.assert_allclose(hessian(lambda x: x @ A @ x, x), A + A.T, rtol=1e-12)
    np.testing.assert_allclose(hessian(lambda x: np.sum(x**3), x), np.diag(6 * x), rtol=1e-12)
    p = np.exp(x) / np.sum(np.exp(x))
    np.testing.assert_allclose(hessian(flux.logsumexp, x), np.diag(p) - np.outer(p, p), rtol=1e-12)
    found = hessian(np.prod, x)
    wanted = np.prod(x) / np.outer(x, x) * (1 - np.eye(3))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


def test_hessian_shapes():
    assert hessian(lambda x: x**3, 2.0) == 12
    assert hessian(lambda x: np.sum(np.sin(x)), np.ones((2, 3))).shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(hessian(np.sum, np.ones(2)), np.zeros((2, 2)))
    np.testing.assert_array_equal(hessian(lambda x: 1.0, np.ones(2)), np.zeros((2, 2)))
    for f in (np.sum, lambda x: 1.0, flux.relu, lambda x: x**2):  # with a slope that stays, or none
        x = np.ones(2 if f is np.sum else (), np.float32)
        found = hessian(f, x)
        assert found.dtype == np.float32 and found.shape == x.shape * 2


# --- ownership -----------------------------------------------------------------------------------

VIEWS = [
    lambda x, y: x, lambda x, y: x + y, lambda x, y: x.T, lambda x, y: np.concatenate([x, y]),
    lambda x, y: np.broadcast_to(x, (2, 3, 3)), lambda x, y: x[::2], lambda x, y: x + x + y,
    lambda x, y: x.reshape(9) + y.reshape(9), lambda x, y: np.stack([x, y])[0],
    lambda x, y: np.sum(x) + np.sum(y),
]  # fmt: skip


@pytest.mark.parametrize("f", VIEWS)
def test_returned_arrays_share_memory_with_nothing(f):
    x, y = np.ones((3, 3)), np.ones((3, 3))
    value, back = pullback(f, x, y)
    seed = np.ones_like(value)
    mine = [g for g in (*back(seed), *back(seed)) if g is not None]
    for i, g in enumerate(mine):
        assert type(g) is np.ndarray and g.flags.writeable
        assert not any(np.shares_memory(g, other) for other in [*mine[i + 1 :], x, y, seed])


def test_gradients_survive_the_next_step():
    m = flux.Chain(flux.Dense(2, 3, flux.relu), flux.Dense(3, 1))
    ps, opt = flux.params(m), flux.Momentum(0.1)
    loss = lambda: flux.losses.mse(m(np.ones((4, 2))), np.ones((4, 1)))
    first = gradient(loss, ps)
    kept = [g.copy() for g in first.values()]
    for _ in range(3):
        flux.update_(opt, ps, gradient(loss, ps))
    for g, k in zip(first.values(), kept, strict=True):
        np.testing.assert_array_equal(g, k)


def test_changed_gradients_do_not_come_back():
    _, back = pullback(lambda x: np.sum(x * 2.0), np.ones(3))
    back(1.0)[0][:] = 7
    np.testing.assert_array_equal(back(1.0)[0], [2, 2, 2])


def test_a_parameter_as_the_result():
    p = flux.Tensor(np.ones(3))
    value, back = pullback(lambda: p, flux.params(p))
    assert type(value) is np.ndarray and not np.shares_memory(value, p.data)
    np.testing.assert_array_equal(back(np.arange(3.0))[p], [0, 1, 2])


def test_arguments_are_neither_copied_into_a_parameter_nor_written_to():
    x = np.ones(3)
    x.flags.writeable = False
    np.testing.assert_array_equal(gradient(lambda x: np.sum(x**2), x)[0], [2, 2, 2])


# --- depth ---------------------------------------------------------------------------------------


def chain(n):
    def f(x):
        for _ in range(n):
            x = -x
        return x

    return f


@pytest.mark.slow
def test_a_million_operations_under_the_usual_recursion_limit():
    assert sys.getrecursionlimit() <= 3000
    gc.disable()
    try:
        value, back = pullback(chain(1_000_000), 1.0)
        assert back(1.0)[0] == value == 1
        middle = weakref.ref(back.rows[500_000][4])
        del back
        assert middle() is None
    finally:
        gc.enable()


def test_a_deep_chain_on_a_small_stack():
    found = []
    size = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(
            target=lambda: found.append(gradient(chain(either(100_000, 20_000)), 1.0))
        )
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    assert found == [(1.0,)]


def test_deep_nesting_of_sums_of_lists():
    (g,) = gradient(lambda x: np.sum(np.stack([x] * 2000)), np.ones(2))
    np.testing.assert_array_equal(g, [2000, 2000])


# --- memory --------------------------------------------------------------------------------------


class Watched:
    """Weak references to what passed through, while the garbage collector sleeps."""

    def __init__(self):
        self.refs = []

    def __call__(self, t):
        self.refs.append(weakref.ref(t))
        return t

    def alive(self):
        assert self.refs
        return sum(r() is not None for r in self.refs)


@pytest.fixture
def watch():
    gc.collect()
    gc.freeze()  # what there is by now need not be looked at in every test
    gc.disable()
    yield Watched()
    gc.enable()


@primitive(lambda g, y: 1 / 0, samples=())
def broken(x):
    """A rule that raises."""
    return np.array(x)


W = flux.Tensor(np.ones(3))
PS = flux.params(W)


def raising(x):
    raise LookupError(x)


def train(loss):
    flux.train_(loss, PS, [()] * 3, flux.ADAM(1e-3), cb=lambda state: None)


@pytest.mark.parametrize(
    "call",
    [
        lambda w: gradient(lambda: np.sum(w(np.exp(W))), PS),
        lambda w: gradient(lambda x: np.sum(w(np.exp(x))), np.ones(3)),
        lambda w: gradient(lambda: raising(w(W * 2.0)), PS),
        lambda w: gradient(lambda: np.sum(broken(w(W * 2.0))), PS),
        lambda w: gradient(lambda: w(np.exp(W)), PS),
        lambda w: gradient(lambda: w(np.exp(W)) @ np.ones(4), PS),
        lambda w: gradient(lambda x: gradient(lambda y: w(np.exp(y)) * y, x)[0], 1.0),
        lambda w: hessian(lambda x: np.sum(w(np.exp(x))), np.ones(2)),
        lambda w: train(lambda: np.sum(w(np.exp(W)))),
        lambda w: train(lambda: np.sum(w(np.exp(W))) * np.nan),
    ],
)
def test_everything_in_between_is_freed_at_once(call, watch):
    """Also after an exception in the function, in a rule, in the engine."""
    try:
        call(watch)
    except (LookupError, ZeroDivisionError, ValueError, flux.FluxError):
        pass
    assert watch.alive() == 0


def test_kept_values_and_gradients_do_not_keep_the_tape(watch):
    kept = [withgradient(lambda: np.sum(watch(np.exp(W))), PS) for _ in range(5)]
    assert len(kept) == 5 and watch.alive() == 0


def test_kept_loss_tensor_does_not_keep_the_tape(watch):
    losses = []

    def f():
        losses.append(np.sum(watch(np.exp(W))))
        return losses[-1]

    gradient(f, PS)
    assert len(losses) == 1 and watch.alive() == 0


def test_a_pullback_keeps_its_tape_until_it_is_dropped(watch):
    _, back = pullback(lambda: np.sum(watch(np.exp(W))), PS)
    assert watch.alive() == 1
    back(1.0)
    assert watch.alive() == 1
    del back
    assert watch.alive() == 0


def test_training_leaves_nothing_to_collect():
    m = flux.Chain(flux.Dense(2, 3, flux.relu), flux.Dropout(0.5), flux.Dense(3, 2))
    loss = lambda x, y: flux.losses.logitcrossentropy(m(x), y)
    data = [(np.ones((4, 2)), np.zeros(4, int))]
    train = lambda: flux.train_(loss, flux.params(m), data, flux.ADAM(), cb=lambda s: None)
    train()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            train()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [type(o) for o in gc.garbage if (type(o).__module__ or "").startswith("tinyflux")]
        assert ours == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


# --- exceptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(1, 9))
def test_an_exception_at_any_operation_leaves_a_clean_state(k):
    calls = iter(range(1, 99))

    def f(x):
        for g in (np.sin, np.cos, np.exp, np.tanh) * 2:
            if next(calls) == k:
                raise LookupError("mine")
            x = g(x)
        return x

    with pytest.raises(LookupError, match="mine"):
        gradient(f, 1.0)
    assert open_tape.get() is None
    assert gradient(lambda x: x * x, 3.0) == (6.0,)


def test_an_exception_in_an_inner_gradient_leaves_the_outer_one_whole():
    def f(x):
        try:
            gradient(lambda y: raising(x * y), x)
        except LookupError:
            pass
        return x * x

    assert gradient(f, 3.0) == (6.0,)


def test_an_exception_in_a_rule_shows_the_rule():
    with pytest.raises(ZeroDivisionError) as caught:
        gradient(lambda x: np.sum(broken(x)), np.ones(2))
    assert caught.traceback[-1].name == "<lambda>"


def test_a_generator_that_is_left_in_the_middle_of_a_gradient():
    def values():
        yield gradient(lambda x: x * x, 1.0)
        yield None

    g = values()
    next(g)
    assert open_tape.get() is None
    g.close()


# --- threads and tasks ---------------------------------------------------------------------------


def job(seed):
    rng = np.random.default_rng(seed)
    m = flux.Chain(flux.Dense(3, 4, flux.tanh, init=flux.glorot_uniform(rng=rng)), flux.Dense(4, 1))
    m[1].weight.data[...] = rng.standard_normal((4, 1))
    x = rng.standard_normal((5, 3))
    gs = [gradient(lambda: np.sum(m(x) ** 2), flux.params(m)).values() for _ in range(5)]
    return [g.tobytes() for g in gs[-1]]


def test_threads_are_bit_equal_to_one_after_the_other():
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(job, range(64))) == [job(i) for i in range(64)]


def test_threads_share_parameters_for_reading():
    m = flux.Dense(3, 2, flux.relu)
    x = np.ones((4, 3), np.float32)
    one = gradient(lambda: np.sum(m(x)), flux.params(m)).values()
    with ThreadPoolExecutor(8) as pool:
        again = lambda _: gradient(lambda: np.sum(m(x)), flux.params(m)).values()
        for gs in pool.map(again, range(50)):
            for g, h in zip(gs, one, strict=True):
                np.testing.assert_array_equal(g, h)


def test_a_thread_inside_a_gradient_has_a_tape_of_its_own():
    def f(x):
        with ThreadPoolExecutor(1) as pool:
            inner = pool.submit(gradient, lambda y: y * y, 3.0).result()
        assert inner == (6.0,) and type(inner[0]) is np.ndarray
        return x * inner[0]

    assert gradient(f, 1.0) == (6.0,)


@pytest.mark.parametrize(
    "use", [lambda y: np.exp(y), lambda y: gradient(lambda z: z * y, 2.0), np.asarray]
)
@pytest.mark.parametrize("handed", [lambda x: x, lambda x: x * 2.0])
def test_a_recorded_value_in_another_thread_is_refused(use, handed):
    """There its gradient would be lost unnoticed."""

    def f(x):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(use, handed(x)).result()

    with pytest.raises(flux.RecordingError):
        gradient(f, 1.0)


def test_tasks_interleave():
    async def task(k):
        found = []
        for _ in range(5):
            await asyncio.sleep(0)
            found.append(float(gradient(lambda x: x**k, 2.0)[0]))
        return found

    async def main():
        return await asyncio.gather(*(task(k) for k in range(1, 9)))

    assert asyncio.run(main()) == [[k * 2.0 ** (k - 1)] * 5 for k in range(1, 9)]


def test_a_task_begun_inside_a_gradient_does_not_inherit_its_tape():
    """A task runs in a copy of the context in which it was made."""
    w = flux.Tensor(3.0)
    made = []

    def f():
        made.append(contextvars.copy_context())
        return w * w

    gradient(f, flux.params(w))
    assert type(made[0].run(lambda: w * 2.0)) is not flux.Tensor
    inner = made[0].run(lambda: flux.pullback(lambda x: np.exp(x) * x, 0.0))
    assert type(inner[0]) is np.float64 and inner[1](1.0) == (1.0,)
    assert made[0].run(tape_module.recording) is None


# --- what is returned and what is refused --------------------------------------------------------


def test_gradients_have_shape_and_dtype_of_their_arguments():
    x = [np.ones((2, 1), np.float32), np.ones(3), np.longdouble(2), np.float64(1.5)]
    found = gradient(lambda a, b, c, d: np.sum(a * b * c * d), *x)
    assert all(type(g) is np.ndarray for g in found)
    assert [(g.shape, g.dtype) for g in found] == [(a.shape, a.dtype) for a in x]


def test_what_has_no_influence_gives_none():
    assert gradient(lambda x, y: x, 1.0, 2.0) == (1.0, None)
    assert gradient(lambda x: 3.0, 1.0) == (None,)
    assert gradient(lambda x: 3, 1.0) == (None,)
    assert gradient(lambda x: np.sum(x > 0), np.ones(2)) == (None,)
    assert gradient(lambda x: flux.Tensor(3.0), 1.0) == (None,)
    assert gradient(lambda x: x * flux.detach(x), 3.0) == (3.0,)
    w, unused = flux.Tensor(1.0), flux.Tensor(2.0)
    gs = gradient(lambda: w * 3.0, flux.params(w, unused))
    assert gs[w] == 3 and gs[unused] is None


def test_values_are_plain():
    value, _ = withgradient(lambda x: x * x, 3.0)
    assert value == 9 and not isinstance(value, flux.Tensor)
    assert withgradient(lambda x: 3.0, 1.0) == (3.0, (None,))


def test_lists_numbers_and_leaves_are_arguments():
    np.testing.assert_array_equal(gradient(lambda x: np.sum(x * x), [1.0, 2.0])[0], [2, 4])
    assert gradient(lambda x: x * x, 3) == (6.0,)
    a = flux.Tensor(3.0)
    assert gradient(lambda x: x * a, a) == (3.0,)  # only what came in as an argument counts


def test_a_list_of_tensors_counts_as_params():
    a, b = flux.Tensor(1.0), flux.Tensor(2.0)
    gs = gradient(lambda: a * b, [a, b])
    assert isinstance(gs, flux.Grads) and (float(gs[a]), float(gs[b])) == (2.0, 1.0)


@pytest.mark.parametrize(
    "f, text",
    [
        (lambda x: None, r"returned None; did you forget `return`\?"),
        (lambda x: x * np.ones(3), r"shape \(3,\).*\.sum\(\) or \.mean\(\), or use jacobian"),
        (lambda x: x * np.ones(1), r"array of shape \(1,\)"),
        (lambda x: x * np.ones((1, 1)), r"array of shape \(1, 1\)"),
        (lambda x: np.ones(2), r"array of shape \(2,\)"),
        (lambda x: [x], "returned a list; one real number"),
        (lambda x: (x, x), "returned a tuple"),
        (lambda x: "text", "returned a str"),
        (lambda x: 1j, "returned a complex"),
        (lambda x: x * 1j, "number of dtype complex128"),
        (lambda x: np.float16(1), "number of dtype float16"),
    ],
)  # fmt: skip
def test_what_is_no_loss(f, text):
    with pytest.raises(flux.NotScalarError, match=text):
        gradient(f, 1.0)


def test_pullback_of_several_results():
    with pytest.raises(flux.NotScalarError, match="returned a tuple"):
        pullback(lambda x: (x, x), 1.0)


@pytest.mark.parametrize(
    "x, text",
    [
        (np.arange(3), r"argument 1: got dtype int64.*x\.astype\(np\.float32\)"),
        (np.int64(3), "got dtype int64"),
        (True, "got dtype bool"),
        (np.ones(2, np.float16), "got dtype float16.*65504"),
        (1j, "complex numbers are not supported"),
        (None, "got None"),
        ("text", "got dtype <U4"),
        ([[1.0], [1.0, 2.0]], "do not form an array"),
        (np.ma.masked_array([1.0], [True]), r"masked array.*\.filled"),
    ],
)
def test_what_is_no_argument(x, text):
    with pytest.raises(TypeError, match=text):
        gradient(lambda x: 1.0, x)


def test_the_place_of_a_wrong_argument_is_named():
    with pytest.raises(TypeError, match="argument 2: got dtype int64"):
        gradient(lambda x, y: x, 1.0, np.arange(2))


def test_a_model_as_argument_and_no_argument_at_all():
    m = flux.Dense(1, 1)
    with pytest.raises(TypeError, match=r"argument 1 is a Dense.*params\(model\)"):
        gradient(lambda m: 1.0, m)
    with pytest.raises(TypeError, match="with respect to what"):
        gradient(lambda: 1.0)


def test_seeds():
    value, back = pullback(lambda x: x * np.ones(3), 2.0)
    assert value.shape == (3,)
    assert back([1, 2, 3]) == (6.0,)
    with pytest.raises(ValueError, match=r"seed has shape \(\), the value has \(3,\)"):
        back(1.0)
    _, back = pullback(lambda x: x + 1.0, 1.0)
    assert back(2.0) == back(np.float32(2)) == back(2) == back(flux.Tensor(2.0)) == (2.0,)


def test_seed_does_not_widen_the_gradient():
    _, back = pullback(lambda x: x * 2, np.ones(2, np.float32))
    assert back(np.ones(2))[0].dtype == np.float32


def test_frozen_parameters_get_no_gradient():
    m = flux.Chain(flux.Dense(2, 2), flux.Dense(2, 1))
    flux.freeze_(m[0])
    gs = gradient(lambda: np.sum(m(np.ones((1, 2)))), flux.params(m))
    assert m[0].weight not in gs and gs[m[1].bias] == 1
    with pytest.raises(flux.NotAskedError):
        gs[m[0].weight]


def test_tape_prints_as_a_program():
    _, back = pullback(lambda a, b: np.sum(a @ b, axis=0), np.ones((2, 3)), np.ones((3, 4)))
    text = str(back.tape)
    assert "matmul(x1, x2)" in text and "sum(x3, axis=0)" in text and "(4,) float64" in text
    mask = np.ones((2, 3)) > 0
    _, back = pullback(lambda a: np.sum(np.where(mask, a, 0.0) * np.ones(3)), np.ones((2, 3)))
    text = str(back.tape)  # what is no Tensor: arrays by their shape, numbers as they are
    assert "where(array(2, 3), x1, 0.0)" in text and "multiply(x2, array(3,))" in text


def test_a_rule_may_be_declared_by_a_user():
    @primitive(lambda g, y, x: g * 3 * x * x, samples=[])
    def cube(x):
        """x cubed."""
        return x * x * x

    assert gradient(cube, 2.0) == (12.0,)
    assert d(d(cube))(2.0) == 12
    assert cube(2.0) == 8


@primitive(lambda g, y, x: g * np.where(x > 0, 1, 0.1))
def relu(x):
    """A function with the name of one of tinyflux."""
    return np.where(x > 0, x, 0.1 * x)


def test_operations_of_one_name_do_not_get_in_each_others_way():
    for operation in (flux.relu, relu, flux.logsumexp):
        assert pickle.loads(pickle.dumps(operation)) is operation
        assert copy.deepcopy(operation) is operation
    assert relu not in OPERATIONS.values() and OPERATIONS["relu"] is flux.relu
    for operation in OPERATIONS.values():
        assert pickle.loads(pickle.dumps(operation)) is operation


@pytest.mark.parametrize("f", [np.tanh, np.exp, flux.softmax, np.sqrt, np.cumsum])
def test_the_value_of_a_pullback_may_be_written_to(f):
    x, seed = np.array([0.5, 1.0, 2.0]), np.array([1.0, -2.0, 3.0])
    value, back = pullback(f, x)
    wanted = back(seed)[0]
    value[:] = 7.0
    np.testing.assert_array_equal(back(seed)[0], wanted)


@pytest.mark.parametrize(
    "call, error, said",
    [
        (lambda x: np.reshape(x, 6, order="A"), ValueError, "order 'A' depends.*write order='C'"),
        (lambda x: np.ravel(x, order="K"), ValueError, "order 'K' depends"),
        (lambda x: np.pad(x, 2, mode="symmetric", reflect_type="odd"), ValueError, "reflect_type"),
        (lambda x: np.nan_to_num(x * 1, copy=False), TypeError, "copy=False writes"),
        (lambda x: np.take_along_axis(x, x > 1, 1), IndexError, "must be whole numbers"),
        (lambda x: np.linalg.norm(x, "nuc"), ValueError, "ord='nuc' has no derivative rule"),
    ],
)
def test_calls_that_have_no_derivative_say_so(call, error, said):
    with pytest.raises(error, match=said):
        gradient(lambda x: np.sum(call(x)), np.asfortranarray(np.arange(6.0).reshape(2, 3)))


@pytest.mark.skipif(np.__version__ < "2.1", reason="NumPy itself cannot do it")
@pytest.mark.parametrize("shift, axis", [(np.uint8(1), None), (np.array([1, 2], "u2"), (0, 1))])
def test_roll_by_an_unsigned_number(shift, axis):
    x, g = np.arange(12.0).reshape(2, 2, 3)
    found = gradient(lambda x: np.sum(np.roll(x, shift, axis) * g), x)[0]
    back = np.roll(g, -shift.astype(int), axis)
    np.testing.assert_array_equal(found, back)


def test_activations_of_ones_own():
    @primitive(lambda g, y: g * (1 - y * y))
    def local(x):
        out = np.tanh(x)  # is no parameter
        return out

    @primitive(lambda g, y: g * (1 - y.astype(float) ** 2))
    def wide(x, out=None):
        return np.tanh(x, out=out)

    x, m = np.ones((4, 3), "f4"), flux.Dense(3, 2, np.tanh)
    ps, loss = flux.params(m), lambda: np.sum(m(x))
    wanted = gradient(loss, ps).values()
    for m.activation in (local, wide):
        found = gradient(loss, ps).values()
        assert [g.dtype for g in found] == ["f4", "f4"]
        for g, h in zip(found, wanted, strict=True):
            np.testing.assert_allclose(g, h, rtol=1e-6)


def test_slips_in_a_primitive_of_ones_own_are_explained():
    with pytest.raises(TypeError, match="primitive: there is no rule"):
        primitive()

    @primitive
    def bare(x):
        return x * 2

    with pytest.raises(TypeError, match="The rules go into parentheses"):
        bare(np.ones(3))
    double = lambda g, y: 2 * g
    of = lambda kernel: lambda x: np.sum(primitive(double)(kernel)(x))
    assert gradient(of(lambda x: 2 * float(x)), 3.0) == (2,)
    with pytest.raises(TypeError, match=r"<lambda>: its kernel returned \(array.*array is wanted"):
        gradient(of(lambda x: (x, x)), np.ones(2))
    for rule in (lambda g, y: 1.0, lambda g, y, x, *, k: g):
        with pytest.raises((AttributeError, TypeError)) as caught:
            gradient(lambda x: np.sum(primitive(rule)(np.copy)(x)), np.ones(2))  # noqa: B023
        assert caught.value.__notes__ == ["This came up in a rule of copy, or with its result."]


def test_out_is_refused_by_our_own_functions_too():
    buffer = np.zeros(3)
    with pytest.raises(flux.RecordingError, match=r"relu\(\.\.\., out="):
        gradient(lambda x: np.sum(flux.relu(x, out=buffer)), np.ones(3))
    assert not buffer.any()
    assert flux.relu(np.ones(3), out=buffer) is buffer


def test_signatures_are_those_of_the_functions():
    assert str(inspect.signature(flux.softmax)) == "(x, *, axis=-1)"
    assert str(inspect.signature(flux.swish)) == "(x)"


def test_a_rule_that_returns_what_does_not_fit_is_named():
    @primitive(lambda g, y, x: np.ones(7))
    def odd(x):
        return x * 2

    with pytest.raises(ValueError, match="reshape") as caught:
        gradient(lambda x: np.sum(odd(x)), np.ones(3))
    assert caught.value.__notes__ == ["This came up in a rule of odd, or with its result."]
    W = wrapped(np.array([1, 2]))
    with pytest.raises(TypeError, match="an array of int64 has no gradient"):
        gradient(lambda: np.sum(W * 0.4), [W])


@pytest.mark.skipif(not hasattr(np, "cumulative_sum"), reason="since NumPy 2.1")
def test_cumulative_sums_of_a_table_want_an_axis():
    for f in (np.cumulative_sum, np.cumulative_prod):
        with pytest.raises(ValueError, match="along which axis"):
            gradient(lambda x, f=f: np.sum(f(x)), np.ones((2, 2)))


def test_no_power_of_a_matrix_is_the_unit():
    found = gradient(lambda x: np.sum(np.linalg.matrix_power(x, 0) * x), np.eye(2))[0]
    np.testing.assert_array_equal(found, np.eye(2))


def test_equal_elements_have_no_standard_deviation_to_change():
    for x in (np.full(3, 0.1), np.full((100, 2), 0.7, "f4"), np.full((3, 3), 1e300)):
        assert not gradient(np.std, x)[0].any()
        assert not gradient(lambda x: np.sum(np.std(x, axis=0, where=x > 0)), x)[0].any()


def test_elements_that_are_left_out_get_nothing_of_an_infinite_slope():
    only = lambda x: np.sum(np.sqrt(np.sum(x, axis=1, where=np.array([True, False]))))
    np.testing.assert_array_equal(gradient(only, np.array([[0.0, 5.0]]))[0], [[np.inf, 0]])
    on = gradient(lambda x: np.sum(np.sqrt(np.diagonal(x))), np.array([[0.0, 5.0], [1.0, 4.0]]))[0]
    np.testing.assert_array_equal(on, [[np.inf, 0], [0, 0.25]])
    for f in (lambda x: np.maximum(x, 0), lambda x: np.clip(x, 0, 9)):
        slope = gradient(lambda x, f=f: np.sum(np.sqrt(f(x))), np.array([-1.0, 1.0]))[0]
        np.testing.assert_array_equal(slope, [0, 0.5])


def test_the_jacobian_of_nothing_is_keyed_like_any_other():
    p = flux.Tensor(np.ones(3, "f4"))
    found = jacobian(lambda: p[:0] * 1, [p])
    assert found[p].shape == (0, 3) and found[p].dtype == np.float32


def test_gradcheck_tells_right_from_wrong():
    assert flux.gradcheck(lambda x: np.sum(np.sin(x) ** 2), np.linspace(-1, 1, 5))

    @primitive(lambda g, y, x: g * 2.9 * x * x, samples=[])
    def wrong(x):
        """A wrong rule."""
        return x * x * x

    exact = flux.gradcheck(lambda x: x[0] ** 2 + 0 * x[1], np.zeros(2), atol=0)
    assert exact and exact.error == 0
    report = flux.gradcheck(lambda x: np.sum(wrong(x)), np.ones(2))
    assert not report and "the gradient is wrong" in str(report)
    assert str(flux.gradcheck(np.sum, np.ones(0))) == "gradcheck: there is no entry to compare"
    with pytest.raises(TypeError, match="dtype float32; use float64"):
        flux.gradcheck(np.sum, np.ones(2, np.float32))


def test_gradcheck_of_a_model_leaves_it_as_it_was():
    x = np.linspace(-1, 1, 8).reshape(4, 2)
    m = flux.Dense(2, 3, flux.tanh, init=lambda *shape: np.ones(shape))
    ps, before = flux.params(m), m.weight.data.copy()
    loss = lambda: np.sum(m(x) ** 2)
    assert flux.gradcheck(loss, ps)
    report = flux.gradcheck(lambda: loss() + float(m.bias.data[1]), ps)
    assert not report and "wrong; the worst is bias at (1,)" in str(report)
    calls = iter([loss, loss])  # what comes after these fails
    with pytest.raises(StopIteration):
        flux.gradcheck(lambda: next(calls)(), ps)
    np.testing.assert_array_equal(m.weight.data, before)
    with pytest.raises(TypeError, match="weight has dtype float32; use float64"):
        flux.gradcheck(loss, flux.params(flux.Dense(2, 3)))


def test_settings_of_numpy_apply_to_the_function_and_not_to_the_rules():
    """An infinite slope is a value, also where the user lets NumPy raise."""
    with np.errstate(all="raise"):
        assert gradient(np.sqrt, 0.0) == (np.inf,)
        with pytest.raises(FloatingPointError):
            gradient(lambda x: x / 0.0, 1.0)
    assert np.geterr()["divide"] == "warn"


def test_a_tape_shows_arrays_by_their_shape_and_numbers_as_they_are():
    _, back = flux.pullback(lambda x: np.sum(x * np.ones((2, 3)) + 0.5), np.ones(3))
    lines = str(back.tape).splitlines()
    assert [line.split("  ")[0].rstrip() for line in lines] == [
        "x1 = Tensor",
        "x2 = multiply(x1, array(2, 3))",
        "x3 = add(x2, 0.5)",
        "x4 = sum(x3)",
    ]


def test_a_parameter_in_a_keyword_counts_by_its_value_and_a_recorded_one_is_refused():
    w, x = flux.Tensor(2.0), flux.Tensor([1.0, 3.0])
    assert np.sum(x, initial=w) == 6.0
    with pytest.raises(flux.RecordingError):
        gradient(lambda: np.sum(x, initial=w), [w, x])
    np.testing.assert_array_equal(gradient(lambda: np.sum(x, initial=w), [x])[x], [1.0, 1.0])


def test_a_model_that_is_copied_within_the_loss_has_parameters_of_its_own():
    model, x = flux.Dense(2, 3), np.ones((4, 2), "f4")

    def loss():
        target = copy.deepcopy(model)
        return np.mean((model(x) - target(x) - 1) ** 2)

    np.testing.assert_allclose(flux.gradient(loss, flux.params(model))[model.bias], -2 / 3)
