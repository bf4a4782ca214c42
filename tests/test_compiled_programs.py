"""Compiled equals eager on random programs, and on training step by step."""

import gc
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.compiling import agree, agree_all, poison, steady
from tests.programs import materials, program
from tests.suites import a_third, examples, only
from tinyflux import losses
from tinyflux.compiled import compiled

programs = st.lists(st.integers(0, 10_000), min_size=1, max_size=27)


@pytest.fixture(scope="module")
def no_garbage_collection():
    """Hypothesis watches the collector: its code would count as having run while recording."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module", params=["whole arrays", "block by block"])
def blocks(request):
    """The second time every run of two elementwise rows is done two rows at a time, or three."""
    module, kept = import_module("tinyflux.compiled.blocks"), {}
    if request.param == "block by block":
        kept = {k: getattr(module, k) for k in ("LARGE", "BLOCK", "SHORTEST")}
        module.LARGE, module.BLOCK, module.SHORTEST = 1, 50, 2
    yield
    for k, value in kept.items():
        setattr(module, k, value)


def test_large_elementwise_runs_are_blocked_and_need_less_memory(capsys):
    x = np.random.default_rng(0).standard_normal((1030, 512)).astype("f4")
    hot = compiled(lambda x: np.mean(np.exp(-(np.tanh(x) ** 2)) * x))
    value, (slope,) = flux.withgradient(hot, x)
    wanted, (plain,) = flux.withgradient(hot.f, x)
    assert value == wanted
    np.testing.assert_array_equal(slope, plain)
    assert "for i in range(0, 1030, 64):" in hot.source
    sizes = [shape[0] for _, shape, _ in hot.latest.source.buffers]
    assert 64 in sizes
    hot.explain()
    assert "rows in one loop, over blocks of 64 of 1030" in capsys.readouterr().out


@settings(max_examples=examples(30), derandomize=True, deadline=None)
@given(programs, st.integers(0, 2**32 - 1))
@pytest.mark.usefixtures("no_garbage_collection", "blocks")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_programs(numbers, seed):
    rng, weights, dense = materials(seed)
    loss, ps = program(numbers, weights, dense), flux.params(weights, dense)
    hot, trained = compiled(loss), compiled(loss)
    once, once_trained = steady(hot), steady(trained)
    for k in range(20):
        x, c = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
        given = (x, c, rng.integers(0, 3, 5), rng.random(5) < 0.5)
        if k % 4 == 0:
            value, wanted = flux.withgradient(lambda: loss(*given), ps)  # noqa: B023
            found, grads, give_back = trained.lend(given, {}, ps)
            agree(found, value, 1e-9)
            agree_all(grads, wanted.values(), 1e-8)
            give_back()
            once_trained()
        agree(hot(*given), loss(*given), 1e-9)
        once()
        poison(hot)
        poison(trained)
        for t in ps:
            t.data += 0.1 * rng.standard_normal(t.shape)


# --------------------------------------------------------------------------- training


class Normalised:
    """A layer that a user would write: normalisation over the features, in plain NumPy."""

    def __init__(self, n):
        self.scale, self.shift = flux.Tensor(np.ones(n, "f4")), flux.Tensor(np.zeros(n, "f4"))
        self.eps = 1e-5

    def __call__(self, x):
        x = x - np.mean(x, axis=-1, keepdims=True)
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps) * self.scale + (
            self.shift
        )


class Tied:
    """An autoencoder whose decoder is the encoder's transpose."""

    def __init__(self):
        self.weight, self.unused = flux.Tensor(flux.glorot_uniform(4, 6)), flux.Tensor([1.0])

    def __call__(self, x):
        x = x.astype(np.float32)
        return np.tanh(x @ self.weight) @ self.weight.T


def dense(f, *more):
    return flux.Chain(flux.Dense(4, 8, f), *more, flux.Dense(8, 8, f), flux.Dense(8, 4))


def frozen():
    m = dense(np.tanh)
    flux.freeze_(m[0])
    return m


def mse(m):
    return lambda x, y: losses.mse(m(x), x)


def classes(m):
    return lambda x, y: losses.logitcrossentropy(m(x), y)


def onehot(m):
    table = flux.Tensor(np.eye(4, dtype="f4"))
    return lambda x, y: losses.logitcrossentropy(m(x), table[y])


def penalised(m):
    """With a penalty on the slope towards the input: a gradient inside the loss."""

    def loss(x, y):
        (slope,) = flux.gradient(lambda x: np.sum(m(x) ** 2), x.astype(np.float32))
        return losses.mse(m(x), x) + 0.1 * np.mean(slope**2)

    return loss


SETTINGS = {
    **{f.__name__: (lambda f=f: dense(f), mse) for f in (flux.relu, flux.sigmoid, np.tanh)},
    "gelu": (lambda: dense(flux.gelu), classes),
    "relu on labels": (lambda: dense(flux.relu), classes),
    "tanh on one-hot": (lambda: dense(np.tanh), onehot),
    "dropout": (lambda: dense(flux.relu, flux.Dropout(0.4), flux.Dropout(0.2, axis=1)), mse),
    "own generator": (lambda: dense(np.tanh, flux.Dropout(0.4, rng=3)), classes),
    "normalised": (lambda: dense(flux.relu, Normalised(8)), classes),
    "penalised": (lambda: dense(np.tanh), penalised),
    "tied": (Tied, mse),
    "frozen": (frozen, mse),
}
# Sums over a batch that NumPy adds up in pairs, and the compiled step by a product with ones.
NEAR = {"normalised": 1e-4, "penalised": 1e-4}


@pytest.mark.parametrize(
    "batch", only([(8, 3)], [(8, 3), (1,)]), ids=["last one short", "one by one"]
)
@pytest.mark.parametrize("name", a_third(SETTINGS))
def test_training_is_the_same_step_by_step(name, batch):
    """Parameters and losses bit for bit after each of 50 steps."""
    make, build = SETTINGS[name]
    rng = np.random.default_rng(0)
    sizes = [batch[i % len(batch)] for i in range(50)]
    data = [(rng.standard_normal((n, 4)), rng.integers(0, 4, n)) for n in sizes]

    def train(prepare):
        flux.seed_(1)
        m = make()
        ps, history = flux.params(m), []
        keep = lambda state: history.append([t.data.copy() for t in ps])
        h = flux.train_(prepare(build(m)), ps, data, flux.ADAM(0.01), cb=keep)
        return h.losses, history, ps

    wanted, eager, _ = train(lambda loss: loss)
    found, steps, ps = train(compiled)
    assert len(steps) == 50
    rtol = NEAR.get(name, 0)
    agree(found, wanted, rtol)
    for a, b in zip(steps, eager, strict=True):
        agree_all(a, b, rtol)
    if name == "tied":
        assert ps[1].data == 1.0  # unused: it has no gradient and stays


def test_the_gradient_of_an_unused_parameter_is_none():
    m = Tied()
    ps = flux.params(m)
    loss = compiled(lambda: np.sum(np.tanh(m.weight)))
    assert flux.gradient(loss, ps)[m.unused] is None
    agree(flux.gradient(loss, ps)[m.weight], 1 - np.tanh(m.weight.data) ** 2, 1e-6)


@pytest.mark.parametrize("opt", [lambda: flux.SGD(0.1), lambda: flux.ADAM(0.01)])
def test_without_callbacks_training_is_the_same_too(opt):
    """This is the way on which the gradients are written to where the optimiser reads them."""
    rng = np.random.default_rng(0)
    data = [(rng.standard_normal((n, 4)), rng.integers(0, 4, n)) for n in (8, 8, 3)]
    ends = []
    for prepare in (lambda loss: loss, compiled):
        flux.seed_(1)
        m = dense(flux.relu, flux.Dropout(0.3))
        h = flux.train_(prepare(classes(m)), flux.params(m), data, opt(), epochs=10)
        ends.append([h.losses, *(t.data for t in flux.params(m))])
    agree_all(*ends)


def test_two_parameters_with_one_gradient_are_both_updated():
    """d(a + b) is the same array for both: each of them gets it."""
    a, b = flux.Tensor(np.ones(3)), flux.Tensor(np.zeros(3))
    ps = flux.Params([a, b])
    loss = compiled(lambda x: np.sum((a + b) * x))
    flux.train_(loss, ps, [(np.arange(3.0),)] * 4, flux.SGD(0.5))
    agree(a.data, 1 - 2 * np.arange(3.0))
    agree(b.data, -2 * np.arange(3.0))
    assert not np.shares_memory(*flux.gradient(compiled(lambda: np.sum(a + b)), ps).values())


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * np.float32(2.0**-100) * np.float32(2.0**-100),
        lambda x: x / np.float32(2.0**100) / np.float32(2.0**100),
        lambda x: x / np.float32(2) * np.float32(1e-45),
        lambda x: x * np.float32(2.0**-100) * np.float32(3e-10),
        lambda x: x * np.float32(4) * np.float32(1e38),
        lambda x: x / np.float32(4) / np.float32(3),
        lambda x: x * np.float32(1) / np.float32(1),
        lambda x: np.float32(2) / x / np.float32(2),
        lambda x: -(x / np.float32(-0.5)) * np.float32(-2),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_factors_at_the_ends_of_the_range(f):
    x = np.float32([1e30, 1.5, -0.0, 1e-30, np.inf, -np.inf, np.nan, 0.1, 3e-38])
    agree(compiled(f)(x), f(x))
