"""Writing to an operand between the forward and the backward pass changes no gradient.

What a derivative reads and somebody else may write to is copied when it is recorded, so every way
of writing is covered: through the array, an older view, a memoryview, another thread.
"""

import array
import copy
import itertools
import pickle
import threading
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import tinyflux as flux
from tests.laws import arity, declared, operands, samples_of
from tests.suites import a_third
from tinyflux import borrowing
from tinyflux import primitive as primitives
from tinyflux.primitive import Sample, primitive

EVERY = declared()


def gradient_after(change, f, args):
    """The gradients of f(*args), with `change` between the forward and the backward pass."""
    value, back = flux.pullback(f, *args)
    seed = np.ones_like(value)
    change()
    return back(seed)


def cases(operation):
    """(function, arrays) for every sample of an operation."""
    rng = np.random.default_rng(1)
    samples = samples_of(operation)
    if operation.samples is None:
        shapes = [((2, 3), (3,)), ((), (2,)), ((2, 1), (1, 4))]
        samples = [Sample(s[: arity(operation)], lambda f, *a: f(*a)) for s in shapes]
    for sample in samples:
        yield sample.call, operands(operation, sample.shapes, rng)


@pytest.mark.parametrize("name", a_third(EVERY, 1))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_operation_with_every_choice_of_what_is_differentiated(name):
    operation = EVERY[name]
    for call, arrays in cases(operation):
        n = len(arrays)
        for live in itertools.chain(*(itertools.combinations(range(n), k + 1) for k in range(n))):
            given = [a.copy() for a in arrays]

            def f(*moving, call=call, live=live, given=given):
                inner = list(given)
                for i, t in zip(live, moving, strict=True):
                    inner[i] = t
                return call(operation.public, *inner)

            moving = [given[i] for i in live]
            try:
                wanted = gradient_after(lambda: None, f, moving)
            except flux.FluxError:  # not differentiable towards these
                continue

            def spoil(given=given):
                for a in given:
                    a[...] = 7.25

            for found, right in zip(gradient_after(spoil, f, moving), wanted, strict=True):
                np.testing.assert_array_equal(found, right)


def write_slice(b, view, x):
    b[:] = 0


def multiply_into(b, view, x):
    np.multiply(b, 0, out=b)


def older_view(b, view, x):
    view[0] = 9


def through_a_memoryview(b, view, x):
    memoryview(b)[0] = 9.0


def sort(b, view, x):
    b[::-1].sort()


def fill_the_parameter(b, view, x):
    x.data.fill(7)


def resize(b, view, x):
    b.resize(5, refcheck=False)


def another_thread(b, view, x):
    thread = threading.Thread(target=b.fill, args=(0,))
    thread.start()
    thread.join()


WAYS = [write_slice, multiply_into, older_view, through_a_memoryview, sort, fill_the_parameter]
WAYS += [resize, another_thread]


@pytest.mark.parametrize("change", WAYS)
@pytest.mark.parametrize("operation", [np.multiply, np.dot, np.matmul, np.divide, np.hypot])
def test_every_way_of_writing(change, operation):
    results = []
    for happens in (False, True):
        b = np.array([1.0, 2.0, 3.0])
        view = b[:] if change is not resize else None
        x = flux.Tensor(np.ones(3))
        _, back = flux.pullback(lambda b=b, x=x: np.sum(operation(x, b)), [x])
        if happens:
            change(b, view, x)
        results.append(back(1.0)[x])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("kind", [lambda a: array.array("d", a), lambda a: a.view(Own), memoryview])
def test_operands_that_only_have_the_memory_of_an_array(kind):
    b, x = np.array([1.0, 2.0, 3.0]), flux.Tensor(np.ones(3))
    given = kind(b)
    _, back = flux.pullback(lambda: np.sum(np.multiply(x, given)), [x])
    given[0] = 9.0
    np.testing.assert_array_equal(back(1.0)[x], [1.0, 2.0, 3.0])


class Own(np.ndarray):
    """A kind of array with a name of its own."""


@pytest.fixture
def made(monkeypatch):
    """The shapes for whose copies new memory was made."""
    shapes, new = [], np.empty_like
    monkeypatch.setattr(borrowing, "empty_like", lambda a: shapes.append(a.shape) or new(a))
    return shapes


def large_loss(W, x):
    """A loss that reads large arrays of others, and spoils them."""
    y = np.sum((x @ W) ** 2 * W[0, 0])
    x[...] = 7.0
    return y


def slope_of_large_loss(W, x):
    z = x @ W.data
    slope = 2 * x.T @ z * W.data[0, 0]
    slope[0, 0] += np.sum(z**2)
    return slope


def test_the_memory_for_copies_is_used_again_by_the_next_gradient(made):
    rng = np.random.default_rng(0)
    W = flux.Tensor(rng.standard_normal((40, 60)))
    ps = flux.params(W)
    for n, new in ((50, 1), (50, 0), (50, 0), (70, 1), (70, 0), (50, 1)):
        x = rng.standard_normal((n, 40))
        wanted = slope_of_large_loss(W, x)
        made.clear()
        found = flux.gradient(lambda x=x: large_loss(W, x), ps)[W]
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
        assert made == new * [(n, 40)]
    assert len(copy.deepcopy(ps).spare) == len(pickle.loads(pickle.dumps(ps)).spare) == 0
    assert len(ps.copy().spare) == 0 and len(ps.spare) == 1


@pytest.mark.parametrize("view", [np.diagonal, np.transpose, lambda x: np.einsum("ij->ji", x)])
def test_memory_that_something_still_reads_is_not_used_again(view):
    """A recorded value may be a view of the copy from which it was made, and be kept."""
    W = flux.Tensor(np.zeros((60, 60)))
    ps, kept = flux.params(W), []

    def loss():
        kept.append(view(W))
        return np.sum(kept[-1])

    for k in range(4):
        W.data[...] = k
        flux.gradient(loss, ps)
    assert [{*np.ravel(t.data)} for t in kept] == [{0.0}, {1.0}, {2.0}, {3.0}]


def test_threads_share_the_memory_of_their_parameters():
    rng = np.random.default_rng(0)
    W = flux.Tensor(rng.standard_normal((40, 60)))
    ps, wrong = flux.params(W), []
    batches = rng.standard_normal((8, 50, 40))

    def work(x):
        wanted = slope_of_large_loss(W, x)
        for _ in range(50):
            found = flux.gradient(lambda: large_loss(W, x.copy()), ps)[W]
            if not np.allclose(found, wanted, rtol=1e-10):
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(x,)) for x in batches]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_combinations_of_operands_are_not_remembered_for_ever(monkeypatch):
    monkeypatch.setattr(primitives, "MANY", 4)
    x, a = flux.Tensor(np.ones(2)), np.full(2, 3.0)
    for given in itertools.product([x, a], repeat=4):
        f = lambda given=given: np.sum(np.square(np.concatenate(given)) * [1, 2, 3, 4, 5, 6, 7, 8])
        wanted = [2.0 * sum(k + i for k, t in zip((1, 3, 5, 7), given) if t is x) for i in (0, 1)]
        (found,) = flux.gradient(f, flux.Params([x])).values()
        np.testing.assert_array_equal(np.zeros(2) if found is None else found, wanted)
    assert len(primitives.OPERATIONS[np.concatenate].places[0]) <= 4


def test_a_buffer_that_is_used_twice_within_the_loss():
    buffer, W = np.empty((4, 3)), flux.Tensor(np.ones((3, 2)))
    first, second = np.random.default_rng(0).standard_normal((2, 4, 3))

    def loss(buffer):
        np.copyto(buffer, first)
        a = buffer @ W
        np.copyto(buffer, second)
        return np.sum(a * (buffer @ W))

    wanted = flux.gradient(lambda: np.sum((first @ W) * (second @ W)), [W])[W]
    np.testing.assert_array_equal(flux.gradient(lambda: loss(buffer), [W])[W], wanted)


@pytest.mark.parametrize("change", WAYS)
@pytest.mark.parametrize("n", [3, borrowing.SMALL // 8, 10_000])
@pytest.mark.parametrize("read", [np.multiply, np.divide, np.hypot])
def test_every_way_of_writing_within_the_loss(change, n, read):
    b = np.linspace(1.0, 2.0, n).copy()
    view = b[:] if change is not resize else None
    x = flux.Tensor(np.ones(n))

    def loss():
        total = np.sum(read(x, b))
        if happens:
            change(b, view, x)
        return total

    happens = False
    wanted = flux.gradient(loss, [x])[x]
    happens = True
    np.testing.assert_array_equal(flux.gradient(loss, [x])[x], wanted)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: a[::-1], lambda a: a[:, ::2]])
def test_large_arrays_of_every_layout(layout):
    data = layout(np.random.default_rng(0).standard_normal((60, 80)))
    x = flux.Tensor(np.ones(data.shape[1]))

    def loss(change):
        total = np.sum(data @ x)
        data[...] += change
        return total

    wanted = np.sum(data, axis=0)
    np.testing.assert_allclose(flux.gradient(lambda: loss(0.0), [x])[x], wanted, rtol=1e-12)
    found = flux.gradient(lambda: loss(1.0), [x])[x]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_indices_and_labels_that_are_written_to():
    W, index = flux.Tensor(np.arange(12.0).reshape(4, 3)), np.array([0, 0, 2])
    _, back = flux.pullback(lambda: np.sum(W[index] * W[index, [0, 1, 2]]), [W])
    wanted = back(1.0)[W]
    _, back = flux.pullback(lambda: np.sum(W[index] * W[index, [0, 1, 2]]), [W])
    index[:] = 3
    np.testing.assert_array_equal(back(1.0)[W], wanted)


class Column:
    """What NumPy reads by `__array__`, as a column of pandas, and others write to."""

    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a


class Numbers(list):
    """A list of another class."""


Places = namedtuple("Places", "rows")
SHARED = {  # how something else gives the memory of an array as an index
    "Column": Column,
    "memoryview": memoryview,
    "named tuple": lambda a: Places(a),
    "slice": lambda a: slice(a[0:1].reshape(()), None),
    "in a slice": lambda a: (slice(None, a[1:2].reshape(())),),
}


@pytest.mark.parametrize("name", SHARED)
def test_indices_that_only_have_the_memory_of_an_array(name):
    x, places = np.arange(3.0), np.array([0, 2, 1])
    _, back = flux.pullback(lambda x: x[SHARED[name](places)], x)
    wanted = x * 0
    np.add.at(wanted, SHARED[name](places.copy()), 1)
    seed = np.ones(len(x[SHARED[name](places)]))
    places[:] = 1
    np.testing.assert_array_equal(back(seed)[0], wanted)


@pytest.mark.parametrize("kind", [Numbers, lambda a: array.array("l", a)])
def test_indices_of_other_kinds_of_lists(kind):
    x, places = np.arange(3.0), kind([0, 2, 0])
    _, back = flux.pullback(lambda x: x[places], x)
    places[0] = 1
    np.testing.assert_array_equal(back(np.ones(3))[0], [2, 0, 1])


@primitive(lambda g, y, x, *, options: g * np.asarray(options["by"]))
def scaled(x, *, options):
    """x times a factor that stands in a dict."""
    return x * np.asarray(options["by"])


@pytest.mark.parametrize("kind", [np.copy, Column, memoryview])
def test_arrays_in_a_dict_among_the_keywords(kind):
    x, by = np.arange(3.0), np.array([1.0, 2.0, 3.0])
    options = OrderedDict(by=kind(by), rng=np.random.default_rng(0))
    _, back = flux.pullback(lambda x: scaled(x, options=options), x)
    by[:] = 9
    if kind is np.copy:
        options["by"][:] = 9
    np.testing.assert_array_equal(back(np.ones(3))[0], [1, 2, 3])
    assert back.tape.rows[-1][3]["options"]["rng"] is options["rng"]


MASK = np.array([True, False, True])
KEYWORDS = {  # (what is written to, what is computed with it)
    **{
        f"{f.__name__}, where": (MASK, lambda x, m, f=f: f(x, where=m))
        for f in (np.sum, np.mean, np.prod, np.var, np.std, np.nansum, np.nanmean)
    },
    "max, where": (MASK, lambda x, m: np.max(x, where=m, initial=0.0)),
    "var, mean": (np.array([2.0]), lambda x, mean: np.var(x, mean=mean)),
    "prod, initial": (np.array(2.0), lambda x, first: np.prod(x, initial=first)),
    "roll, shift": (np.array([1]), lambda x, n: np.roll(x, n, (0,)) @ [1, 5, 9]),
    "transpose, axes": (np.array([1, 0]), lambda x, a: np.transpose(np.outer(x, [1, 2]), a)[1, 2]),
    "bincount": (np.array([2, 1, 1]), lambda x, n: np.bincount(n, x) @ [1, 2, 3]),
}


@pytest.mark.parametrize("name", KEYWORDS)
def test_keywords_that_are_written_to(name):
    """Also within a gradient of a gradient."""
    given, f = KEYWORDS[name]
    x = np.array([1.0, 3.0, 7.0])
    square = lambda x, a: f(x, a) ** 2
    slope = lambda f: lambda x: np.sum(flux.gradient(f, x)[0] ** 2)
    wanted = [flux.gradient(g, x)[0] for h in [lambda x: square(x, given)] for g in (h, slope(h))]

    def written(x):
        a = given.copy()
        y = square(x, a)
        a[...] = 0
        return y

    np.testing.assert_array_equal(flux.gradient(written, x)[0], wanted[0])
    np.testing.assert_array_equal(flux.gradient(slope(written), x)[0], wanted[1])


def test_operands_that_are_written_to_before_the_way_back_of_a_gradient_inside():
    W, b = flux.Tensor(np.zeros(3)), np.zeros(3)

    def inner(x):
        W.data[:] = b[:] = [1, 2, 3]
        y = np.sum(x * x * b * W)
        W.data[:] = b[:] = 0
        return y

    outer = lambda x: np.sum(flux.gradient(inner, x)[0])
    np.testing.assert_array_equal(flux.gradient(outer, np.ones(3))[0], [2, 8, 18])
    with pytest.raises(flux.MutationError, match=r"multiply: an operand of shape \(3,\)"):
        flux.gradient(lambda: flux.gradient(lambda: inner(W), [W])[W].sum(), [W])


@pytest.mark.parametrize("n", [3, 200])
def test_a_weight_is_written_to_before_the_way_back_of_a_gradient_inside(n):
    """On the way back of the inner one the layer is computed anew from its definition."""
    layer, x = flux.Dense(n, n, flux.relu), np.ones((2, n), "f4")

    def inner():
        y = np.sum(layer(x) ** 2)
        layer.weight.data[...] *= -1
        return y

    with pytest.raises(flux.MutationError, match=rf"dense: an operand of shape \({n}, {n}\)"):
        flux.gradient(
            lambda: np.sum(flux.gradient(inner, [layer.weight])[layer.weight] ** 2), [layer.weight]
        )


def test_layers_and_losses_of_every_kind():
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("f4")
    y = np.abs(np.random.default_rng(1).standard_normal((5, 2))).astype("f4")
    for loss in (flux.losses.mse, flux.losses.huber_loss, flux.losses.logitcrossentropy):
        results = []
        for happens in (False, True):
            flux.seed_(0)
            m = flux.Chain(flux.Dense(3, 4, flux.gelu), flux.Dropout(0.3), flux.Dense(4, 2))
            given, wanted, ps = x.copy(), y.copy(), flux.params(m)
            _, back = flux.pullback(lambda: loss(m(given), wanted), ps)  # noqa: B023
            if happens:
                for a in (given, wanted, *(p.data for p in ps)):
                    a[...] = 3
            results.append(back(1.0))
        for p, q in zip(*(r.values() for r in results), strict=True):
            np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("name", flux.losses.__all__)
def test_losses_of_parameters_themselves(name):
    """What a loss checks and passes on is the parameter's own array still."""
    if name == "label_smoothing":
        loss = lambda p, q: np.sum(flux.losses.label_smoothing(p, 0.1) * q * q)
    else:
        loss = getattr(flux.losses, name)
    numbers = np.array([[0.25, 0.5, 0.75], [0.5, 0.125, 0.25]])
    p, q = ps = [flux.Tensor(numbers), flux.Tensor(numbers[::-1])]
    wanted = flux.gradient(lambda: loss(p, q), ps)
    _, back = flux.pullback(lambda: loss(p, q), ps)
    for t in ps:
        t.data[...] = 0.375
    for found, g in zip(back(1.0).values(), wanted.values(), strict=True):
        np.testing.assert_array_equal(found, g)


@pytest.mark.parametrize("n", [3, 200])
def test_copies_lie_in_memory_as_their_operands_do(n):
    """In another order a product of matrices may end in other bits than the compiled one."""
    seen = []

    @primitive(lambda g, y, a, b: seen.append(b.strides) or g * b, None)
    def times(a, b):
        return a * b

    b = np.ones((n, 2 * n)).T
    flux.gradient(lambda a: np.sum(times(a, b)), np.ones((2 * n, n)))
    flux.pullback(lambda a: np.sum(times(a, b)), np.ones((2 * n, n)))[1](1.0)
    assert seen == [b.strides] * 2


def test_arrays_of_others_stay_writeable():
    b = np.ones(3)
    _, back = flux.pullback(lambda x: np.sum(x * b), np.ones(3))
    assert b.flags.writeable
    back(1.0)
    assert b.flags.writeable


def write_into(t):
    t.data[0] = 7


def add_to(t):
    t.data += 7


def put(t):
    t.data = np.zeros((3, 3))


@pytest.mark.parametrize("write", [write_into, add_to, put])
@pytest.mark.parametrize("f", [np.tanh, np.transpose, lambda x: x * x, lambda x: x @ x, np.abs])
def test_recorded_values_cannot_be_written_to(f, write):
    x, kept = np.full((3, 3), 0.5), []

    def loss(x, write):
        h = f(x)
        y = np.sum(h * h)
        kept.append(h)
        write(h)
        return y

    words = "recorded" if write is put else "read-only"
    for way in (flux.gradient, flux.pullback):
        with pytest.raises((ValueError, flux.RecordingError), match=words):
            way(lambda x: loss(x, write), x)
        with pytest.raises(flux.CannotCompileError, match=r"t\.data"):
            way(flux.compiled(lambda x: loss(x, write)), x)
    value, back = flux.pullback(f, x)
    wanted = back(np.ones((3, 3)))[0]
    value[...] = 7  # is the caller's own
    np.testing.assert_array_equal(back(np.ones((3, 3)))[0], wanted)
    kept.clear()
    _, back = flux.pullback(lambda x: loss(x, lambda h: None), x)
    wanted = back(1.0)[0]
    with pytest.raises((ValueError, flux.RecordingError), match=words):
        write(kept[0])  # there may be a way back yet
    np.asarray(kept[0])[...] = 7  # a copy
    np.testing.assert_array_equal(back(1.0)[0], wanted)


VIEWS = {
    "an index": lambda t: t[:],
    "the transpose": lambda t: t.T,
    "a shape": lambda t: np.reshape(t, -1),
    "a new axis": lambda t: np.expand_dims(t, 0),
    "on request": lambda t: np.asarray(t, copy=False),
}


@pytest.mark.parametrize("name", VIEWS)
def test_recorded_values_cannot_be_written_to_through_a_view(name):
    x, kept = np.full((3, 3), 0.5), []

    def loss(x):
        kept.append(np.exp(x))
        return np.sum(kept[0] ** 2)

    _, back = flux.pullback(loss, x)
    with pytest.raises(ValueError, match="read-only"):
        VIEWS[name](kept[0])[...] = 7
    np.testing.assert_allclose(back(1.0)[0], 2 * np.exp(2 * x), rtol=1e-12)
    assert pickle.loads(pickle.dumps(kept[0], 5)).data.flags.writeable  # it is a leaf


class Array(np.ndarray):
    """As np.memmap, an array of another class."""


@pytest.mark.parametrize("kind", [np.ndarray, Array])
def test_a_kernel_that_returns_an_array_that_it_keeps(kind):
    buffer, x = np.empty(4).view(kind), np.arange(3.0)

    @primitive(lambda g, y: g * y)
    def exponential(x):
        return np.exp(x, out=buffer[:3])

    @primitive(lambda g, y, x: g * 2 * x)
    def square(x):
        return np.multiply(x, x, out=buffer if x.size == 4 else None)

    for f, a in ((exponential, x), (square, np.arange(4.0))):
        twice = lambda x, f=f: np.sum(f(x) * f(2 * x))
        g, compiled = flux.gradient(twice, a)[0], flux.compiled(twice)
        wanted = 3 * np.exp(3 * a) if f is exponential else 16 * a**3
        np.testing.assert_allclose(g, wanted, rtol=1e-12)
        for _ in range(2):
            np.testing.assert_array_equal(flux.gradient(compiled, a)[0], g)


def joint_in(a, b):
    return lambda g, y, arrays, live: [
        np.multiply(g, other, out=out) for other, out in ((arrays[1], a), (arrays[0], b))
    ]


def test_a_rule_that_returns_an_array_that_it_keeps():
    a, b = np.empty((2, 3))
    W, x = flux.Tensor([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 4.0])

    @primitive(lambda g, y, x: np.multiply(g, 2 * x, out=a))
    def square(x):
        return x * x

    @primitive(joint=joint_in(a, b))
    def product(x, y):
        return x * y

    for f in (square, lambda t: product(t, t)):
        loss = lambda k, f=f: np.sum(k * f(W) + x * f(W))
        first = flux.gradient(lambda loss=loss: loss(1.0), flux.params(W))[W]
        second = flux.gradient(lambda loss=loss: loss(5.0), flux.params(W))[W]
        np.testing.assert_array_equal(first, 2 * W.data * (1 + x))
        np.testing.assert_array_equal(second, 2 * W.data * (5 + x))


@pytest.mark.parametrize("n", [3, 100_000])
def test_a_pullback_keeps_arrays_of_any_size(n):
    """Other code runs before the way back, so a copy is taken, and nothing raises."""
    b = np.arange(float(n))
    _, back = flux.pullback(lambda x: np.sum(x * b), np.ones(n))
    wanted = b.copy()
    b[n // 2] = -1.0
    np.testing.assert_array_equal(back(1.0)[0], wanted)
