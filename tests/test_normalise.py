"""Batch normalisation, and the running statistics that it keeps."""

import copy
import importlib.util
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.compiling import agree, agree_all
from tests.suites import examples
from tinyflux import losses
from tinyflux.errors import CannotCompileError, RecordingError

X = np.random.default_rng(0).standard_normal((6, 4)) * 3 + 1


def double(layer):
    """The layer in double precision, with parameters and statistics of its own."""
    rng = np.random.default_rng(1)
    n = len(layer.mean)
    layer.mean.data, layer.var.data = rng.standard_normal(n), rng.random(n) + 0.5
    for t in flux.params(layer):
        t.data = rng.standard_normal(n)
    return layer


def network(seed=0):
    flux.seed_(seed)
    return flux.Chain(flux.Dense(4, 5), flux.BatchNorm(5, flux.relu), flux.Dense(5, 2))


@settings(max_examples=examples(25), deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3).filter(lambda s: np.prod(s) > 1),
    st.integers(1, 5), st.booleans(), st.floats(0, 1), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_closed_form(shape, n, affine, momentum, seed):
    layer = double(flux.BatchNorm(n, affine=affine, momentum=momentum, eps=0.01))
    x = np.random.default_rng(seed).standard_normal((*shape, n))
    mean, var = layer.mean.data.copy(), layer.var.data.copy()
    scale, shift = (layer.scale.data, layer.shift.data) if affine else (1.0, 0.0)
    in_use = scale * (x - mean) / np.sqrt(var + 0.01) + shift
    np.testing.assert_allclose(layer(x), in_use, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(layer.mean.data, mean)
    rows = x.reshape(-1, n)
    wanted = scale * (x - rows.mean(0)) / np.sqrt(rows.var(0) + 0.01) + shift
    np.testing.assert_allclose(flux.trainmode_(layer)(x), wanted, rtol=1e-11, atol=1e-11)
    follow = lambda old, new: (1 - momentum) * old + momentum * new
    np.testing.assert_allclose(layer.mean.data, follow(mean, rows.mean(0)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer.var.data, follow(var, rows.var(0, ddof=1)), rtol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_gradients(training):
    layer = flux.testmode_(double(flux.BatchNorm(4, np.tanh)), not training)
    flux.gradcheck(lambda x: np.sum(layer(x) ** 2), X)
    ps = flux.params(layer)
    found = flux.gradient(lambda: np.sum(layer(X) ** 2), ps)
    for t in ps:

        def loss(a, t=t):
            t.data = a
            return np.sum(layer(X) ** 2)

        data, direction = t.data, np.cos(np.arange(4.0))
        wanted = (loss(data + 1e-5 * direction) - loss(data - 1e-5 * direction)) / 2e-5
        t.data = data
        np.testing.assert_allclose(np.sum(found[t] * direction), wanted, rtol=1e-7)


def test_it_trains_while_a_gradient_is_taken():
    layer = flux.BatchNorm(4)
    x = X.astype("f4")
    layer(x)
    assert not layer.mean.data.any()
    flux.gradient(lambda: np.sum(layer(x)), flux.params(layer))
    np.testing.assert_allclose(layer.mean.data, 0.1 * x.mean(0), rtol=1e-6)


def test_the_statistics_are_no_parameters_but_are_saved(tmp_path):
    model, other = network(), network(1)
    x, y = X.astype("f4"), np.arange(6) % 2
    loss = lambda x, y: losses.logitcrossentropy(model(x), y)
    flux.train_(loss, flux.params(model), [(x, y)] * 5, flux.ADAM(0.01))
    assert len(flux.params(model)) == 6
    flux.thaw_(model)
    assert len(flux.params(model)) == 6
    flux.save(tmp_path / "m.npz", model)
    flux.load_(tmp_path / "m.npz", other)
    for twin in (other, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin(x), model(x))
        assert twin[1].mean is not model[1].mean


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_compiled_it_is_the_same(dtype):
    found = []
    for wrap in (lambda f: f, flux.compiled):
        model = network()
        if dtype == "f8":
            double(model[1])
            for t in flux.params(model[0], model[2]):
                t.data = t.data.astype("f8")
        loss = wrap(lambda x, y, model=model: losses.mse(model(x), y))
        data = [((X + k).astype(dtype), X[:, :2].astype(dtype)) for k in range(20)]
        history = flux.train_(loss, flux.params(model), data, flux.ADAM(0.01))
        mean, var = model[1].mean.data, model[1].var.data
        found.append([np.array(history.losses), mean, var, model(data[0][0])])
    agree_all(*found, 1e-4 if dtype == "f4" else 1e-9)
    assert len(loss.recordings) == 1, "what changes in every call is no reason to record again"
    assert loss.source.count("moving_average(") == 2


def test_a_compiled_prediction_reads_the_statistics_of_the_day():
    model = network()
    hot, x = flux.compiled(model), X.astype("f4")
    for _ in range(3):
        agree(hot(x), model(x), 1e-6)
        flux.moving_average_(model[1].mean, x.mean(0)[:1].repeat(5))
    assert len(hot.recordings) == 1


def test_inside_a_gradient_and_for_second_derivatives_it_counts_once():
    layer = double(flux.trainmode_(flux.BatchNorm(4)))
    start = layer.mean.data.copy()
    wanted = 0.9 * start + 0.1 * X.mean(0)
    hot = flux.compiled(lambda x: np.sum(layer(x) ** 3))
    first = lambda f: lambda x: np.sum(flux.gradient(lambda z: f(z), x)[0] ** 2)
    found = []
    for f in (lambda x: np.sum(layer(x) ** 3), hot):
        layer.mean.data[...] = start
        found.append(flux.gradient(first(f), X)[0])
        np.testing.assert_allclose(layer.mean.data, wanted, rtol=1e-12)
    agree_all(*[[g] for g in found], 1e-9)


def test_a_saved_step_keeps_its_statistics(tmp_path):
    model, x, y = network(), X.astype("f4"), X[:, :2].astype("f4")
    loss, opt = flux.compiled(lambda x, y: losses.mse(model(x), y)), flux.ADAM(0.01)
    flux.train_(loss, flux.params(model), [(x, y)] * 3, opt)
    loss.save(tmp_path / "step.py", opt)
    mean = model[1].mean.data.copy()

    def loaded():
        spec = importlib.util.spec_from_file_location("step", tmp_path / "step.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    module = loaded()
    history = flux.train_(loss, flux.params(model), [(x, y)] * 3, opt)
    found = [float(module.step(x, y)) for _ in range(3)]
    np.testing.assert_allclose(found, history.losses, rtol=1e-6)
    module.save()
    again = loaded()
    np.testing.assert_array_equal(again.given["model_layers_1_mean"], model[1].mean.data)
    assert not np.array_equal(mean, model[1].mean.data)


def test_a_value_that_is_not_finite_spoils_nothing():
    model, x = network(), X.astype("f4")
    before = model[1].mean.data.copy()
    for loss in (lambda x: np.sum(model(x)), flux.compiled(lambda x: np.sum(model(x)))):
        with pytest.raises(flux.NonFiniteLossError):
            flux.train_(loss, flux.params(model), [(x * np.float32("nan"),)], flux.SGD(0.1))
        np.testing.assert_array_equal(model[1].mean.data, before)


def test_an_outcome_that_is_not_finite_is_not_kept():
    t = flux.buffer(np.float32([3.0, 1.0]))
    for value in (np.array([1e300, 2.0]), np.array([np.nan, 2.0]), np.array([2.0, np.inf])):
        flux.moving_average_(t, value)
        assert t.data.tolist() == [3.0, 1.0]
    flux.moving_average_(t, np.float32([-3e38, 3e38]))


@pytest.mark.parametrize(
    "f",
    [
        lambda x, t, w: (np.sum((w * t) ** 2), flux.moving_average_(t, np.mean(x, axis=0)))[0],
        lambda x, t, w: (flux.moving_average_(t, np.mean(x, axis=0)), np.sum(x * w / t))[1],
        lambda x, t, w: (flux.moving_average_(t, t * 0.5), np.sum(x * w))[1],
    ],
)
def test_a_buffer_that_is_read_and_written_is_refused(f):
    t, w = flux.buffer(np.ones(4)), flux.Tensor(np.ones(4))
    flux.gradient(lambda: f(X, t, w), flux.Params([w]))  # eager can do it
    with pytest.raises(CannotCompileError, match="reads a buffer"):
        flux.compiled(lambda x: f(x, t, w))(X)


@pytest.mark.parametrize("n", [3, 5000])
def test_a_compiled_prediction_follows_statistics_of_any_size(n):
    m = flux.Chain(flux.BatchNorm(n))
    x = np.random.default_rng(0).standard_normal((4, n)).astype("f4") * 3 + 1
    hot = flux.compiled(m)
    hot(x)
    flux.train_(lambda x: np.mean(m(x) ** 2 * 3 - m(x)), flux.params(m), [(x,)] * 5, flux.SGD(0.1))
    agree(hot(x), m(x), 1e-6)
    assert len(hot.recordings) == 1


def test_a_value_that_is_kept_in_an_attribute_is_refused():
    class Notes:
        def __call__(self, x):
            self.last = x * 2
            return np.sum(x)

    notes = Notes()
    with pytest.raises(CannotCompileError, match=r"kept in last.*moving_average_"):
        flux.compiled(notes)(X)


def test_a_value_of_another_thread_is_refused():
    t, errors = flux.buffer(np.zeros(4)), []

    def loss(x):
        def work(value=x * 2):
            try:
                flux.moving_average_(t, value)
            except RecordingError as error:
                errors.append(str(error))

        other = threading.Thread(target=work)
        other.start()
        other.join()
        return np.sum(x)

    flux.gradient(loss, X[0])
    assert len(errors) == 1 and "another thread" in errors[0] and not t.data.any()


READ_ONLY = flux.buffer(np.zeros(4))
READ_ONLY.data.flags.writeable = False


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: flux.BatchNorm(0), TypeError, "positive whole number"),
        (lambda: flux.BatchNorm(4, 3), TypeError, "activation"),
        (lambda: flux.BatchNorm(4, momentum=1.5), ValueError, "momentum"),
        (lambda: flux.BatchNorm(4, eps=np.inf), ValueError, "eps"),
        (lambda: flux.BatchNorm(3)(X), flux.ShapeError, r"BatchNorm\(3\).*\(6, 4\)"),
        (lambda: flux.BatchNorm(4)(X[0]), flux.ShapeError, "wanted"),
        (lambda: flux.trainmode_(flux.BatchNorm(4))(X[:1]), flux.ShapeError, "no variance"),
        (lambda: flux.BatchNorm(4)(X * 1j), TypeError, "complex"),
        (lambda: flux.moving_average_(np.zeros(4), X[0]), TypeError, "buffer"),
        (lambda: flux.moving_average_(flux.Tensor(np.zeros(4)), X[0]), TypeError, "buffer"),
        (lambda: flux.moving_average_(flux.buffer(X[0]), X), ValueError, "shape"),
        (lambda: flux.moving_average_(flux.buffer(X[0]), X[0] * 1j), TypeError, "numbers"),
        (lambda: flux.moving_average_(flux.buffer(X[0]), X[0], 2), ValueError, "momentum"),
        (lambda: flux.buffer(np.zeros(3, int)), TypeError, "buffer"),
        (lambda: flux.moving_average_(READ_ONLY, X[0]), ValueError, "read-only"),
    ],
)
def test_misuse(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_printing():
    assert repr(flux.BatchNorm(4)) == "BatchNorm(4)"
    slow = flux.BatchNorm(4, eps=1e-3, momentum=0.01)
    assert repr(slow) == "BatchNorm(4, eps=0.001, momentum=0.01)"
    assert repr(flux.BatchNorm(4, flux.relu, affine=False)) == "BatchNorm(4, relu, affine=False)"
    assert "8 parameters" in flux.summary(flux.BatchNorm(4))
