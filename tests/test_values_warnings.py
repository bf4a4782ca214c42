"""Floating-point errors: the caller's settings count for what the caller wrote, and for no more.

Inside, exponentials underflow, squares of tiny numbers vanish and slopes are infinite; none of it
is heard of, and no setting is changed.
"""

import threading

import numpy as np
import pytest

import tinyflux as flux
from tests.laws import declared, operands, samples_of
from tests.suites import a_third
from tests.test_values_extremes import ACTIVATIONS, awkward

EVERY = declared()
SOFT = [flux.softmax, flux.logsoftmax, flux.logsumexp]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_are_silent(name, dtype):
    """On every normal number whose value fits the type and is a normal number itself."""
    f, fi = getattr(flux, name), np.finfo(dtype)
    x = awkward(dtype)
    x = x[(np.abs(x) < fi.max / 4) & ((np.abs(x) > 8 * fi.tiny) | (x == 0))]
    with np.errstate(all="ignore"):
        y = f(x)
    x = x[(np.abs(y) >= fi.tiny) | (y == 0)]
    with np.errstate(all="raise"):
        value, back = flux.pullback(f, x)
        back(np.ones_like(value))
        hot = flux.compiled(f)
        np.testing.assert_array_equal(hot(x), f(x))


@pytest.mark.parametrize("f", SOFT, ids=lambda f: f.name)
def test_scores_are_silent(f):
    x = np.array([[1e4, -1e4, 0.0], [0.0, -800.0, -745.0]])
    with np.errstate(all="raise"):
        value, back = flux.pullback(f, x)
        back(np.ones_like(value))
        hot = flux.compiled(f)
        np.testing.assert_array_equal(hot(x), value)


@pytest.mark.parametrize("f", [flux.softmax, flux.logsumexp], ids=lambda f: f.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_may_be_further_apart_than_the_type_reaches(f, dtype):
    top = np.finfo(dtype).max
    x = np.array([[top, -top, 0.0]], dtype)
    with np.errstate(all="raise"):
        value, back = flux.pullback(f, x)
        back(np.ones_like(value))
        np.testing.assert_array_equal(flux.compiled(f)(x), value)
    np.testing.assert_array_equal(value, [[1, 0, 0]] if f is flux.softmax else [top])


@pytest.mark.parametrize("name", a_third(EVERY, 2))
def test_rules_are_silent(name):
    """With seeds that overflow and vanish on the way back, in any setting of the caller's."""
    operation = EVERY[name]
    rng = np.random.default_rng(0)
    for sample in samples_of(operation)[:2]:
        x = operands(operation, sample.shapes, rng)
        value, back = flux.pullback(lambda *a, s=sample: s.call(operation.public, *a), *x)
        for size in (0.0, 1e-300, 1e300, np.inf):
            with np.errstate(all="raise"):
                back(np.full(np.shape(value), size))
                assert set(np.geterr().values()) == {"raise"}


def test_what_the_caller_wrote_is_heard():
    for f in (lambda x: x / 0.0, np.log, np.sqrt, lambda x: np.exp(x + 800)):
        with np.errstate(all="raise"), pytest.raises(FloatingPointError):
            flux.gradient(lambda x: f(x), 0.0 if f is not np.sqrt else -1.0)  # noqa: B023
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        assert flux.gradient(np.log, 0.0)[0] == np.inf


def settings_after(f):
    """NumPy's settings after f, whatever it raised."""
    try:
        f()
    except (ValueError, ArithmeticError, LookupError):
        pass
    return np.geterr()


def fail(x):
    raise LookupError(x)


def test_no_setting_is_left_changed():
    """After a value, and after an exception in the function, in a kernel and in a rule."""
    calls = [
        lambda: flux.gradient(np.sqrt, 0.0),
        lambda: flux.gradient(fail, 1.0),
        lambda: flux.softmax(1.0),
        lambda: flux.softplus(np.array([-1e4])),
        lambda: flux.logsumexp(np.full(3, -np.inf)),
        lambda: flux.pullback(np.linalg.inv, np.eye(2))[1](np.ones(3)),
        lambda: flux.withgradient(flux.compiled(lambda x: np.sum(flux.logsoftmax(x))), np.ones(3)),
    ]
    for kind in ("warn", "ignore", "raise"):
        with np.errstate(all=kind):
            before = np.geterr()
            for f in calls:
                assert settings_after(f) == before


def test_settings_of_another_thread_are_its_own():
    """A gradient here does not silence a thread there, nor the other way about."""
    heard, go, done = [], threading.Event(), threading.Event()

    def other():
        with np.errstate(all="raise"):
            go.wait(10)
            try:
                np.float64(1) / np.float64(0)
            except FloatingPointError:
                heard.append(np.geterr()["divide"])
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    def f(x):
        go.set()
        done.wait(10)
        return np.sqrt(x)

    assert flux.gradient(f, 0.0)[0] == np.inf
    thread.join()
    assert heard == ["raise"] and np.geterr()["divide"] == "warn"
