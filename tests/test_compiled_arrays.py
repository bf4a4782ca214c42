"""Compiled functions that return arrays, inside of an ordinary gradient: one row of its tape."""

import gc
import inspect
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.compiling import agree, agree_all
from tests.programs import materials, model
from tests.suites import examples
from tinyflux import losses
from tinyflux.compiled import compiled
from tinyflux.errors import CannotCompileError, MutationError

X = np.random.default_rng(0).standard_normal((6, 4))
COPIES = pytest.mark.skipif(
    "copy" not in inspect.signature(np.reshape).parameters, reason="came with NumPy 2.1"
)


def network():
    m = flux.Chain(flux.Dense(4, 8, np.tanh), flux.Dense(8, 3, flux.softmax))
    for t in flux.params(m):
        t.data = t.data.astype(np.float64)
    return m


def test_it_is_one_row_with_the_parameters_as_operands():
    m = network()
    hot, ps = compiled(m), flux.params(m)
    of = lambda f: lambda: np.sum(np.sin(f(X)) ** 2)
    _, back = flux.pullback(of(hot), ps)
    assert len(back.tape) == 4 and "chain(x1, x2, x3, x4, array(6, 4))" in str(back.tape)
    wanted = flux.gradient(of(m), ps)
    agree_all(back(np.float64(1)).values(), wanted.values(), 1e-12)
    entry = hot.latest
    agree_all(flux.gradient(of(hot), ps).values(), wanted.values(), 1e-12)
    assert hot.latest is entry


def test_a_loss_trains_with_a_compiled_model_in_it():
    m, twin = network(), network()
    for a, b in zip(flux.params(m), flux.params(twin), strict=True):
        b.data[...] = a.data
    hot, y = compiled(m), np.arange(6) % 3
    data = [(X[i : i + 3], y[i : i + 3]) for i in range(4)] * 5
    for f, part in ((hot, m), (twin, twin)):
        loss = lambda x, y, f=f: losses.crossentropy(f(x), y)
        flux.train_(loss, flux.params(part), data, flux.ADAM(0.01))
    for a, b in zip(flux.params(m), flux.params(twin), strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-9)


def test_the_pullback_of_a_compiled_function_may_be_called_again():
    m = network()
    hot, rng = compiled(m), np.random.default_rng(1)
    value, back = flux.pullback(hot, X)
    plain, wanted = flux.pullback(m, X)
    agree(value, plain, 1e-12)
    other, other_back = flux.pullback(hot, 2 * X)  # works in memory of its own
    for _ in range(3):
        seed = rng.standard_normal(value.shape)
        agree_all(back(seed), wanted(seed), 1e-12)
        agree_all(other_back(seed), flux.pullback(m, 2 * X)[1](seed), 1e-12)
    agree(other, m(2 * X), 1e-12)


def test_gradients_that_were_handed_out_stay_as_they_are():
    hot = compiled(lambda x: np.tanh(x) * 2)
    value, back = flux.pullback(hot, X)
    (first,) = back(np.ones_like(X))
    kept, before = first.copy(), value.copy()
    back(np.full_like(X, 5.0))
    flux.pullback(hot, X + 1)[1](np.ones_like(X))
    agree(first, kept)
    agree(value, before)


def test_memory_comes_back_when_nobody_can_ask_any_more():
    hot = compiled(network())
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            flux.gradient(lambda x: np.sum(hot(x) ** 2), X)
        assert len(hot.latest.idle) == 1
    finally:
        gc.enable()


def test_outputs_of_all_kinds():
    """Views, an argument itself, constants, whole numbers, and one that does not depend on x."""
    W = flux.Tensor(np.arange(12.0).reshape(4, 3))
    for f in (
        lambda x: (x @ W).T, lambda x: x, lambda x: W.T, lambda x: np.reshape(np.exp(x), (2, 12)),
        lambda x: x[1:3], lambda x: np.stack([x, -x]), lambda x: np.tanh(x)[:, ::-1] * 1.0,
        lambda x: np.argmax(x, axis=1), lambda x: x > 0, lambda x: np.ones(3),
        lambda x: x.astype(np.float32), lambda x: W * 2,
    ):  # fmt: skip
        hot = compiled(f)
        for x in (X, X + 1):
            found, wanted = [
                flux.gradient(lambda x, g=g: np.sum(np.cos(g(x) * 1.0) * x[0, 0]), x)
                for g in (hot, f)
            ]
            agree_all(found, wanted, 1e-12)
            agree(hot(x), f(x), 1e-12)


@settings(max_examples=examples(40), derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_programs(numbers, seed):
    rng, weights, dense = materials(seed)
    f, ps = model(numbers, weights, dense), flux.params(weights, dense)
    hot = compiled(f)
    for _ in range(4):
        given = rng.standard_normal((5, 3)), rng.standard_normal((4, 3)), rng.random(5) < 0.5
        value, back = flux.pullback(lambda: hot(*given), ps)  # noqa: B023
        plain, wanted = flux.pullback(lambda: f(*given), ps)  # noqa: B023
        agree(value, plain, 1e-9)
        for _ in range(2):
            g = rng.standard_normal(plain.shape)
            agree_all(back(g).values(), wanted(g).values(), 1e-8)
        for t in ps:
            t.data += 0.1 * rng.standard_normal(t.shape)


def test_higher_orders():
    f = lambda x: np.tanh(x) ** 2 * x[0]
    hot, x = compiled(f), X[0]
    of = lambda g: lambda x: np.sum(flux.gradient(lambda z: np.sum(g(z) ** 2), x)[0] ** 3)
    agree_all(flux.gradient(of(hot), x), flux.gradient(of(f), x), 1e-12)
    agree(flux.jacobian(hot, x), flux.jacobian(f, x), 1e-12)


@pytest.mark.parametrize("own", [False, True])
def test_draws_are_the_same_on_every_way_back(own):
    """The mask of the value is that of its first and of its second derivative."""
    drop = flux.trainmode_(flux.Dropout(0.5, rng=3 if own else None))
    hot = compiled(lambda x: drop(x**2))
    value, back = flux.pullback(hot, X)
    for k in (1.0, 2.0):
        agree(back(np.full_like(X, k))[0] * X, 2 * k * value, 1e-12)
    for output in (lambda z: hot(z), compiled(lambda z: np.sum(drop(z**2)))):
        kept = []

        def slope(x, output=output, kept=kept):
            (first,) = flux.gradient(lambda z: np.sum(output(z)), x)
            kept.append(np.asarray(getattr(first, "data", first)))
            return np.sum(first**2)

        (second,) = flux.gradient(slope, X)
        agree(second * X, 2 * kept[0] ** 2, 1e-12)
    after = drop(np.ones(1000))
    assert not np.array_equal(after, drop(np.ones(1000)))


def test_what_is_written_to_before_the_way_back_is_noticed():
    W, big = flux.Tensor(np.ones((4, 2))), np.ones((3000, 4))
    hot = compiled(lambda x: np.tanh(x @ W))
    for x, change in (
        (X.copy(), lambda x: x.__setitem__(0, 5.0)),
        (X.copy(), lambda x: W.data.__setitem__(0, 3.0)),
        (big, lambda x: x.fill(2.0)),
    ):

        def loss(w, x=x, change=change):
            y = hot(x) * w
            change(x)
            return np.sum(y)

        with pytest.raises(MutationError, match="written to after"):
            flux.gradient(lambda: loss(W[0, 0]), flux.Params([W]))


@pytest.mark.parametrize("n", [10, 200_000])
def test_arrays_of_others_that_are_changed_between_the_halves_are_noticed(n):
    weights = np.linspace(0.0, 1.0, n)
    hot = compiled(lambda x: np.tanh(x) * x * weights)

    def loss(x):
        y = hot(x)
        weights[:] = 7.0
        return np.sum(y)

    with pytest.raises(MutationError):
        flux.gradient(loss, np.ones(n))
    value, back = flux.pullback(hot, np.ones(n))
    weights[:] = 8.0
    with pytest.raises(MutationError):
        back(value)


def test_a_pullback_records_once_and_copies_are_let_go():
    calls = []

    def f(x):
        calls.append(1)
        return np.tanh(x)

    hot = compiled(f)
    for _ in range(5):
        flux.pullback(hot, X)
        flux.pullback(compiled_sum, X)
    assert len(calls) == 1
    backs = [flux.pullback(hot, X)[1] for _ in range(100)]
    del backs
    gc.collect()
    assert len(hot.latest.idle) <= 16


compiled_sum = compiled(lambda x: np.sum(x))


@pytest.mark.parametrize("form", [lambda a: (a,), lambda a: {"x": a}, lambda a: ((a, a),)])
def test_a_batch_is_let_go_with_the_step(form):
    W = flux.Tensor(np.ones(4))
    hot, kept = compiled(lambda x: np.sum((x[0] if isinstance(x, tuple) else x) * W)), []

    def data():
        for _ in range(5):
            a = np.ones((5, 4))
            kept.append(weakref.ref(a))
            yield form(a)
            del a

    gc.collect()
    gc.disable()
    try:
        flux.train_(hot, flux.Params([W]), data(), flux.SGD(0.1))
        assert not any(ref() is not None for ref in kept[:4])
    finally:
        gc.enable()


def test_threads_may_share_one_pullback():
    m = network()
    _, back = flux.pullback(compiled(m), X)
    seeds = [np.full((6, 3), float(k)) for k in range(16)]
    wanted, found = [back(s)[0] for s in seeds], [None] * 16

    def work(k):
        for _ in range(50):
            found[k] = back(seeds[k])[0]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    agree_all(found, wanted)


def test_a_source_in_two_halves_is_shown_but_not_saved(tmp_path):
    hot = compiled(network())
    flux.gradient(lambda x: np.sum(hot(x)), X)
    assert "return output, partial(quiet.run, backward" in hot.source
    with pytest.raises(CannotCompileError, match="outside of a gradient"):
        hot.save(tmp_path / "step.py")
    hot(X)
    hot.save(tmp_path / "step.py")


LISTS = {
    "times": lambda t: np.sum(t * [0.1, 0.2]),
    "matmul": lambda t: np.sum(t @ [[1.0], [2.0]]),
    "clip": lambda t: np.sum(np.clip(t, [1.5, 2.0], [3.0, 3.5])),
    "power": lambda t: np.sum(t ** [2.0, 3.0]),
    "where": lambda t: np.sum(np.where([True, False], t, 2 * t)),
    "maximum": lambda t: np.sum(np.maximum(t, [1.5, 9.0])),
    "concatenate": lambda t: np.sum(np.concatenate([t, [5.0]]) ** 2),
}


@pytest.mark.parametrize("f", LISTS.values(), ids=LISTS)
def test_plain_lists_are_operands(f):
    t = np.array([1.0, 2.0])
    hot = compiled(f)
    for k in range(3):
        agree(hot(t + k), f(t + k), 1e-12)
        agree_all(flux.gradient(hot, t + k), flux.gradient(f, t + k), 1e-12)


@pytest.mark.parametrize("dtype", ["u1", "i8", "?"])
@pytest.mark.parametrize("power", [2, 2.0, 1.0, 0.5, -1.0])
def test_powers_of_whole_numbers_are_those_of_numpy(power, dtype):
    x = np.array([[1, 0, 20], [3, 1, 1]]).astype(dtype)
    with np.errstate(divide="ignore"):
        if power != 2.0 or dtype != "?":
            agree(compiled(lambda x: x**power)(x), x**power)


@pytest.mark.parametrize("ord", [None, 1, 2, 3])
def test_norms_of_small_whole_numbers_do_not_wrap(ord):
    x = np.array([[200, 100], [17, 255]], "u1")
    agree(compiled(lambda x: np.linalg.norm(x, ord, axis=1))(x), np.linalg.norm(x, ord, 1), 1e-14)


@pytest.mark.parametrize(
    "copied",
    [
        lambda column: np.ravel(column),
        lambda column: column.ravel()[:1],
        lambda column: np.ravel(column, order="F"),
        pytest.param(lambda column: np.reshape(column, (6,), copy=True), marks=COPIES),
        lambda column: column.reshape(6),
        lambda column: column.T,
    ],
)
def test_what_is_computed_from_a_column_is_not_overwritten_with_the_matrix(copied):
    """The matrix is doubled where it stands; a copy of a column is not, and a view must wait."""

    def f(x):
        y = np.tanh(x)
        first = copied(y[:, 0])
        return (2 * y)[:, 0] * 100 + first

    agree(compiled(f)(X), f(X))
    agree_all(flux.gradient(compiled(lambda x: np.sum(f(x) ** 2)), X),
              flux.gradient(lambda x: np.sum(f(x) ** 2), X), 1e-12)  # fmt: skip


@pytest.mark.parametrize("order", ["A", "K"])
def test_an_order_that_goes_by_memory_is_refused(order):
    with pytest.raises(CannotCompileError, match=rf"arrays.py.*order='{order}'.*Say order='C'"):
        compiled(lambda x: np.ravel(np.tanh(x).T, order=order))(X)
