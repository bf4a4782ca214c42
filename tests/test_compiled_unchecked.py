"""A training loop runs without the rows that look for 0 times infinity, until it meets one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.programs import materials, program
from tests.suites import examples
from tinyflux import losses
from tinyflux.compiled import compiled
from tinyflux.compiled.unchecked import PASSES_ON
from tinyflux.errors import NonFiniteLossError

X = np.random.default_rng(0).standard_normal((6, 4))


def normalised(x):
    return (x - np.mean(x, axis=1, keepdims=True)) / np.sqrt(
        np.var(x, axis=1, keepdims=True) + 1e-5
    )


def trained(loss, data, *shapes, rate=0.01):
    """The losses, and the parameters at the end, with `loss(x, *parameters)`."""
    ps = flux.Params([flux.Tensor(np.full(s, 0.5)) for s in shapes])
    f = lambda x: loss(x, *ps)
    found = []
    for g in (f, compiled(f)):
        for t in ps:
            t.data[...] = 0.5
        history = flux.train_(g, ps, [(x,) for x in data], flux.SGD(rate))
        found.append((history.losses, [t.data.copy() for t in ps]))
    (wanted, ends), (losses_, found_ends) = found
    np.testing.assert_allclose(losses_, wanted, rtol=1e-9)
    for a, b in zip(found_ends, ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    return g


def test_where_nothing_is_infinite_the_rows_are_not_run():
    hot = trained(lambda x, w: np.sum(normalised(x @ w) ** 3), [X, X + 1], (4, 4))
    assert "cleared" not in hot.source
    assert len(hot.recordings) == 1
    hot(X)
    assert "cleared" in compiled_gradient(hot)


def compiled_gradient(hot):
    flux.gradient(hot, X)
    return hot.source


ZEROS = X * (X > 0)
TRAPS = {
    "the root of 0": lambda x, w: np.sum(np.where(x > 0, np.sqrt(x * w), 0.0)),
    "the logarithm of 0": lambda x, w: np.sum(np.where(x > 0, np.log(np.abs(x * w)), 0.0)),
    "a quotient by 0": lambda x, w: np.sum(np.where(x > 0, w / x, 0.0) * 1e-3),
    "a root, then a product": lambda x, w: np.mean(np.where(x > 0, np.sqrt(x * w), 0.0) @ X.T),
}


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_where_something_is_they_are(name):
    """From the step on in which it happens; a step is never half done."""
    data = [np.abs(X) + 0.1, np.abs(X) + 0.2, ZEROS, np.abs(X) + 0.1, ZEROS]
    hot = trained(TRAPS[name], data, (4,))
    assert "cleared" in hot.source


def test_a_gradient_that_is_not_finite_all_the_same_is_refused():
    W = flux.Tensor(np.zeros(3))
    big = np.full(3, 1e300)
    loud = lambda: np.sum(W * big) * 1e200  # its gradient overflows, and there is nothing to check
    for loss in (lambda: np.sum(np.sqrt(W)), compiled(lambda: np.sum(np.sqrt(W))), compiled(loud)):
        with pytest.raises(NonFiniteLossError, match="gradient"):
            flux.train_(loss, flux.Params([W]), [()], flux.SGD(0.1))
        assert not W.data.any()


def test_what_draws_is_not_run_twice():
    drop = flux.Dropout(0.5)
    found = []
    for wrap in (lambda f: f, compiled):
        flux.seed_(4)
        W = flux.Tensor(np.ones(4))

        def loss(x, W=W):
            z = drop(x) * W
            return np.sum(np.where(z > 0, np.sqrt(z), 0.0))

        loss = wrap(loss)
        history = flux.train_(loss, flux.Params([W]), [(ZEROS,)] * 4, flux.SGD(0.01))
        found.append([*history.losses, *W.data])
    np.testing.assert_allclose(*found, rtol=1e-12)
    assert "cleared" in loss.source


def test_what_is_said_to_pass_nan_on_does():
    a = np.array([1.0, np.nan, 3.0])
    for f in PASSES_ON - {np.matmul, np.sum} - {f for f in PASSES_ON if isinstance(f, str)}:
        for args in [(a, np.zeros(3)), (np.zeros(3), a)] if f.nin == 2 else [(a,)]:
            with np.errstate(all="ignore"):
                assert np.isnan(f(*args)[1]), f
    assert np.isnan(np.zeros((2, 3)) @ a).all() and np.isnan(np.sum(a))


@settings(max_examples=examples(25), derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_programs_train_the_same(numbers, seed):
    rng, weights, dense = materials(seed)
    loss, ps = program(numbers, weights, dense), flux.params(weights, dense)
    whole = lambda *d: loss(*d) * 1e-3 + np.sum(weights[0] ** 2)
    start = [t.data.copy() for t in ps]
    data = []
    for k in range(4):
        x, c = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
        x[rng.random((5, 3)) < 0.3 * (k % 2)] = 0.0
        data.append((x, c, rng.integers(0, 3, 5), rng.random(5) < 0.5))
    found = []
    for f in (whole, compiled(whole)):
        for t, a in zip(ps, start, strict=True):
            t.data[...] = a
        try:
            history = flux.train_(f, ps, data, flux.SGD(1e-3))
            found.append((history.losses, [t.data.copy() for t in ps]))
        except NonFiniteLossError as error:
            found.append((error.step, [t.data.copy() for t in ps]))
    (one, ends), (two, other_ends) = found
    np.testing.assert_allclose(two, one, rtol=1e-8)
    for a, b in zip(ends, other_ends, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-10)


def test_losses_of_classes_stay_the_same():
    model = flux.Chain(flux.Dense(4, 8, flux.softmax), flux.Dense(8, 3))
    loss = compiled(lambda x, y: losses.logitcrossentropy(model(x), y))
    flux.train_(loss, flux.params(model), [(X.astype("f4"), np.arange(6) % 3)] * 3, flux.ADAM())
    assert "cleared" not in loss.source
