"""The training loop: what one step is, what stops it, and what it says when it is misused."""

import copy
import re
import sys
import time
import types
from functools import partial
from itertools import count, repeat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.suites import either, examples
from tinyflux import history as history_module
from tinyflux.callbacks import phase
from tinyflux.compiled import compiled
from tinyflux.history import TrainingState
from tinyflux.walking import named_tensors

thorough = settings(max_examples=examples(15), deadline=None, derandomize=True)


def model(seed=0):
    """A small model, its parameters and its loss."""
    rng = np.random.default_rng(seed)
    m = flux.Chain(
        flux.Dense(2, 3, flux.tanh, init=flux.glorot_uniform(rng=rng)),
        flux.Dense(3, 1, init=flux.glorot_uniform(rng=rng)),
    )
    return m, flux.params(m), lambda x, y: flux.losses.mse(m(x), y)


def pairs(n, seed=1):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((4, 2)), rng.standard_normal((4, 1))) for _ in range(n)]


def weights(ps):
    return [p.data.copy() for p in ps]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def scalar(value=1.0):
    """One parameter, and the loss w * x."""
    w = flux.Tensor(value)
    return w, flux.params(w), lambda x: w * x


OPTIMISERS = [
    lambda: flux.SGD(0.1),
    lambda: flux.Momentum(0.1),
    lambda: flux.ADAM(0.01),
    lambda: flux.Optimiser(flux.ClipNorm(0.5), flux.ADAMW(0.01)),
]

# --- laws ----------------------------------------------------------------------------------------


def by_train(loss, ps, data, opt):
    return flux.train_(loss, ps, data, opt).losses


def by_single_data(loss, ps, data, opt):
    return [v for d in data for v in flux.train_(loss, ps, [d], opt).losses]


def by_gradient(loss, ps, data, opt):
    values = []
    for d in data:
        value, gs = flux.withgradient(lambda d=d: loss(*d), ps)
        flux.update_(opt, ps, gs)
        values.append(float(value))
    return values


def by_pullback(loss, ps, data, opt):
    values = []
    for d in data:
        value, back = flux.pullback(lambda d=d: loss(*d), ps)
        flux.update_(opt, ps, back(np.ones_like(value)))
        values.append(float(value))
    return values


def by_bound_optimiser(loss, ps, data, opt):
    bound = flux.Optimiser(ps, opt)
    return flux.train_(loss, data, bound).losses


@thorough
@given(st.integers(0, 99), st.integers(1, 6), st.sampled_from(OPTIMISERS))
@pytest.mark.parametrize("way", [by_single_data, by_gradient, by_pullback, by_bound_optimiser])
def test_all_ways_to_train_agree_bit_for_bit(way, seed, n, make):
    runs = []
    for train in (by_train, way):
        _, ps, loss = model(seed)
        runs.append((train(loss, ps, pairs(n, seed), make()), weights(ps)))
    (losses, trained), (other_losses, other_trained) = runs
    assert losses == other_losses
    assert same(trained, other_trained)


@thorough
@given(st.integers(0, 99), st.permutations(range(4)), st.sampled_from(OPTIMISERS[:3]))
def test_order_of_parameters_changes_nothing(seed, order, make):
    results = []
    for places in (range(4), order):
        _, ps, loss = model(seed)
        flux.train_(loss, flux.Params([ps[i] for i in places]), pairs(4, seed), make())
        results.append(weights(ps))
    assert same(*results)


@thorough
@given(st.integers(0, 99))
def test_twice_the_loss_at_half_the_rate_is_the_same_for_sgd(seed):
    results = []
    for factor in (1, 2):
        _, ps, loss = model(seed)
        flux.train_(lambda x, y: factor * loss(x, y), ps, pairs(4, seed), flux.SGD(0.25 / factor))  # noqa: B023
        results.append(weights(ps))
    assert same(*results)


@thorough
@given(st.integers(0, 99), st.sampled_from([0.25, 2, 1024]))
def test_adam_does_not_see_the_scale_of_the_loss(seed, factor):
    """Up to eps, which is left out here; powers of two, so that the bits are the same."""
    results = []
    for k in (1, factor):
        _, ps, loss = model(seed)
        flux.train_(lambda x, y: k * loss(x, y), ps, pairs(4, seed), flux.ADAM(0.01, eps=0.0))  # noqa: B023
        results.append(weights(ps))
    assert same(*results)


def test_epochs_repeat_the_data():
    results = []
    for data, epochs in ((pairs(3), 2), (pairs(3) * 2, 1)):
        _, ps, loss = model()
        flux.train_(loss, ps, data, flux.ADAM(0.01), epochs=epochs)
        results.append(weights(ps))
    assert same(*results)


def test_sgd_step_is_what_the_formula_says():
    _, ps, loss = scalar(3.0)
    history = flux.train_(loss, ps, [2.0], flux.SGD(0.5))
    assert history.losses == [6.0]
    assert float(ps[0]) == 3.0 - 0.5 * 2.0


def test_copies_train_on_alike():
    m, ps, _ = model()
    opt = flux.ADAM(0.01)
    flux.train_(lambda x, y: flux.losses.mse(m(x), y), ps, pairs(3), opt)
    twin, twin_opt = copy.deepcopy((m, opt))
    for one, its_opt in ((m, opt), (twin, twin_opt)):
        flux.train_(lambda x, y: flux.losses.mse(one(x), y), flux.params(one), pairs(3), its_opt)  # noqa: B023
    assert same(weights(ps), weights(flux.params(twin)))


# --- a datum -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "datum, args, kwargs",
    [
        ((1.0, 2.0), (1.0, 2.0), {}),
        ((), (), {}),
        ([1.0, 2.0], ([1.0, 2.0],), {}),
        ({"x": 1.0, "y": 2.0}, (), {"x": 1.0, "y": 2.0}),
        (3.5, (3.5,), {}),
        ("text", ("text",), {}),
        (None, (None,), {}),
    ],
)
def test_how_a_datum_is_passed(datum, args, kwargs):
    w = flux.Tensor(1.0)
    seen = []

    def loss(*a, **k):
        seen.append((a, k))
        return w * 1.0

    flux.train_(loss, flux.params(w), [datum], flux.SGD(0.1))
    assert seen == [(args, kwargs)]


def test_array_datum_is_passed_whole():
    """Two rows must not become two arguments."""
    w, seen = flux.Tensor(1.0), []

    def loss(x):
        seen.append(x.shape)
        return w * 1.0

    flux.train_(loss, flux.params(w), np.ones((2, 3, 4)), flux.SGD(0.1))
    assert seen == [(3, 4), (3, 4)]


def test_named_tuple_is_splatted():
    from collections import namedtuple

    w, pair = flux.Tensor(1.0), namedtuple("pair", "x y")
    history = flux.train_(lambda x, y: w * x * y, flux.params(w), [pair(2.0, 5.0)], flux.SGD(0.1))
    assert history.losses == [10.0]


# --- what ends or leaves out a step --------------------------------------------------------------


@pytest.mark.parametrize("way", [lambda f: f, compiled])
@pytest.mark.parametrize("make", [lambda: flux.ADAM(0.1), lambda: flux.ADAM(0.1, eps=1e-3)])
@pytest.mark.parametrize("unused", [False, True])
def test_a_finite_loss_with_an_infinite_gradient_updates_nothing(way, make, unused):
    w, v = flux.Tensor(np.ones(3)), flux.Tensor(np.ones(2))
    loss = way(lambda x: np.sum(np.sqrt(w * x)) + (0 if unused else np.sum(v)))
    opt, ps = make(), flux.Params([w, v])
    flux.train_(loss, ps, [np.ones(3)], opt)
    kept = [w.data.copy(), v.data.copy(), *opt.state(w).values(), *opt.state(v).values()]
    with pytest.raises(flux.NonFiniteLossError, match=r"gradient of .* is not finite") as caught:
        flux.train_(loss, ps, [np.ones(3) * 0], opt)
    assert caught.value.step == 1 and np.isfinite(caught.value.value)
    now = [w.data, v.data, *opt.state(w).values(), *opt.state(v).values()]
    for before, after in zip(kept, now, strict=True):
        np.testing.assert_array_equal(before, after)


def test_gradients_whose_squares_overflow_are_finite():
    w = flux.Tensor(np.ones(3, "f4"))
    flux.train_(lambda x: np.sum(w * x), [w], [np.full(3, 1e30, "f4")], flux.SGD(1e-30))
    np.testing.assert_allclose(w.data, 0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", OPTIMISERS)
def test_non_finite_loss_raises_before_the_update(bad, make):
    results = []
    for data in ([1.0, 2.0, bad, 3.0], [1.0, 2.0]):
        w, ps, loss = scalar()
        opt = make()
        if bad in data or np.isnan(data).any():
            with pytest.raises(flux.NonFiniteLossError, match="step 3") as caught:
                flux.train_(loss, ps, data, opt)
            assert caught.value.step == 3 and len(caught.value.history) == 2
            assert repr(caught.value.value) == repr(bad)
            assert isinstance(caught.value, FloatingPointError)
        else:
            flux.train_(loss, ps, data, opt)
        results.append((w.data.copy(), opt.state(w)))
    (a, state), (b, untouched) = results
    assert a == b
    assert repr(state) == repr(untouched)


def test_a_loss_beyond_all_floats_counts_as_infinite():
    w = flux.Tensor(1.0)
    with pytest.raises(flux.NonFiniteLossError, match="inf at step 1"):
        flux.train_(lambda x: 10**400, flux.params(w), [1.0], flux.SGD(0.1))
    assert float(w) == 1


def test_steps_of_an_error_count_over_all_epochs():
    w, ps, loss = scalar()
    calls = count(1)
    broken = lambda x: loss(x) if next(calls) < 6 else w * np.nan
    with pytest.raises(flux.NonFiniteLossError) as caught:
        flux.train_(broken, ps, [1.0, 1.0], flux.SGD(0.1), epochs=9)
    assert caught.value.step == 6


def test_loss_without_influence_raises():
    w = flux.Tensor(1.0)
    for prepare in (lambda f: f, compiled):
        with pytest.raises(flux.NoGradientError, match=r"datum 1 .* none of the 1 parameters"):
            flux.train_(prepare(lambda x: x * 2.0), flux.params(w), [1.0], flux.SGD(0.1))


def test_unused_parameter_and_its_state_are_left_alone():
    used, unused = flux.Tensor(1.0), flux.Tensor(5.0)
    opt = flux.ADAM(0.1)
    flux.train_(lambda x: used * x, flux.params(used, unused), [1.0, 1.0], opt)
    assert float(unused) == 5.0
    assert opt.state(unused) == {}
    assert opt.state(used)["t"] == 2


@pytest.mark.parametrize("value", [np.ones(3), None, "text", 1j])
def test_loss_that_is_no_number(value):
    w = flux.Tensor(1.0)
    with pytest.raises(flux.NotScalarError):
        flux.train_(lambda x: value, flux.params(w), [1.0], flux.SGD(0.1))


def test_stop_in_the_loss_ends_before_the_update():
    w, ps, loss = scalar()
    until = lambda x: flux.stop() if x == 3 else loss(x)
    history = flux.train_(until, ps, [1, 2, 3, 4], flux.SGD(1.0), epochs=5)
    assert float(w) == 1 - 1 - 2
    assert (len(history), history.stopped, history.epochs) == (2, True, [0])


def test_stop_in_a_callback_ends_after_the_update():
    w, ps, loss = scalar()
    seen = count(1)
    cb = lambda: next(seen) == 5 and flux.stop()
    history = flux.train_(loss, ps, [1, 2, 3], flux.SGD(1.0), cb=cb, epochs=9)
    assert float(w) == 1 - (1 + 2 + 3 + 1 + 2)
    assert (len(history), history.stopped, history.epochs) == (5, True, [0, 3])


def test_skip_leaves_out_update_and_callbacks():
    w, ps, loss = scalar()
    steps = []
    picky = lambda x: flux.skip() if x == 2 else loss(x)
    history = flux.train_(picky, ps, [1, 2, 3], flux.SGD(1.0), cb=lambda s: steps.append(s.step))
    assert float(w) == 1 - 1 - 3
    assert steps == [1, 3]
    assert len(history) == 2 and not history.stopped


def test_skipping_everything_is_not_empty_data():
    _, ps, _ = scalar()
    assert len(flux.train_(lambda x: flux.skip(), ps, [1, 2], flux.SGD(1.0))) == 0


def test_skip_in_a_callback_says_that_it_is_too_late():
    _, ps, loss = scalar()
    with pytest.raises(RuntimeError, match="already been made"):
        flux.train_(loss, ps, [1.0], flux.SGD(1.0), cb=flux.skip)


@pytest.mark.parametrize("prepare", [lambda f: f, compiled], ids=["eager", "compiled"])
def test_skip_in_the_data_says_that_it_is_too_early(prepare):
    def data():
        yield 1.0
        flux.skip()

    w, ps, loss = scalar()
    with pytest.raises(RuntimeError, match=r"skip\(\) was called by the data, before"):
        flux.train_(prepare(loss), ps, data(), flux.SGD(1.0))
    assert phase.get() is None and float(w) == 0


def test_stop_and_skip_outside_training():
    for f in (flux.stop, flux.skip):
        with pytest.raises(RuntimeError, match="none"):
            f()


@pytest.mark.parametrize("end", ["plain", "stop", "error"])
def test_training_leaves_no_phase_behind(end):
    _, ps, loss = scalar()

    def cb():
        if end != "plain":
            raise flux.callbacks.StopTraining if end == "stop" else KeyError("mine")

    try:
        flux.train_(loss, ps, [1.0], flux.SGD(0.1), cb=cb)
    except KeyError:
        assert end == "error"
    assert phase.get() is None


@pytest.mark.parametrize("where", ["loss", "callback"])
def test_stop_ends_only_the_inner_training(where):
    _, ps, loss = scalar()
    v, inner_ps, inner_loss = scalar()

    def inner():
        h = flux.train_(inner_loss, inner_ps, [1.0] * 5, flux.SGD(0.125), cb=lambda: flux.stop())
        assert h.stopped and len(h) == 1
        assert phase.get() == where

    if where == "loss":
        outer = lambda x: loss(x) if inner() is None else None
        history = flux.train_(outer, ps, [1.0] * 3, flux.SGD(0.1))
    else:
        history = flux.train_(loss, ps, [1.0] * 3, flux.SGD(0.1), cb=inner)
    assert len(history) == 3 and not history.stopped
    assert float(v) == 1 - 3 * 0.125


def test_skip_still_works_after_a_nested_training():
    _, ps, loss = scalar()
    _, inner_ps, inner_loss = scalar()

    def outer(x):
        flux.train_(inner_loss, inner_ps, [1.0], flux.SGD(0.1), cb=lambda: None)
        return flux.skip() if x == 2 else loss(x)

    assert len(flux.train_(outer, ps, [1.0, 2.0, 3.0], flux.SGD(0.1))) == 2


def test_errors_of_loss_callback_and_data_come_through_after_whole_steps():
    def data():
        yield 1.0
        yield 2.0
        raise LookupError("the file is broken")

    w, ps, loss = scalar()
    with pytest.raises(LookupError, match="broken"):
        flux.train_(loss, ps, data(), flux.SGD(1.0))
    assert float(w) == 1 - 1 - 2
    with pytest.raises(ZeroDivisionError):
        flux.train_(loss, ps, [1.0], flux.SGD(1.0), cb=lambda: 1 / 0)
    assert float(w) == -3
    with pytest.raises(ZeroDivisionError):
        flux.train_(lambda x: 1 / 0, ps, [1.0], flux.SGD(1.0))
    assert float(w) == -3


@pytest.mark.parametrize("where", ["loss", "callback", "data"])
def test_interrupt_keeps_the_history(where):
    w, ps, loss = scalar()

    def interrupt():
        raise KeyboardInterrupt

    def data():
        yield from [1.0, 2.0]
        interrupt() if where == "data" else (yield 3.0)

    def interrupted(x):
        return interrupt() if where == "loss" and x == 3 else loss(x)

    def cb(state):
        if where == "callback" and state.step == 3:
            interrupt()

    steps = 3 if where == "callback" else 2
    with pytest.raises(KeyboardInterrupt) as caught:
        flux.train_(interrupted, ps, data(), flux.SGD(1.0), cb=cb)
    assert len(caught.value.history) == steps
    assert re.search(rf"after {steps} steps;.*history", caught.value.__notes__[0])
    assert float(w) == 1 - sum(range(1, steps + 1))
    assert phase.get() is None


# --- callbacks -----------------------------------------------------------------------------------


def test_callbacks_are_called_in_their_order_after_every_update():
    w, ps, loss = scalar()
    calls = []
    callbacks = [
        lambda: calls.append(("a", float(w))),
        lambda state: calls.append(("b", state.step)),
        lambda state=None: calls.append(("c", state)),
        lambda *args: calls.append(("d", args)),
    ]
    flux.train_(loss, ps, [1.0, 2.0], flux.SGD(1.0), cb=callbacks)
    assert calls == [
        ("a", 0.0), ("b", 1), ("c", None), ("d", ()),
        ("a", -2.0), ("b", 2), ("c", None), ("d", ()),
    ]  # fmt: skip


def test_a_callback_that_does_not_say_its_parameters_is_given_none():
    _, ps, loss = scalar()
    seen = {}
    flux.train_(loss, ps, [1.0], flux.SGD(0.1), cb=partial(seen.update, called=True))
    assert seen == {"called": True}


def test_a_method_and_an_object_are_callbacks():
    class Watch:
        def __init__(self):
            self.steps = []

        def __call__(self, state):
            self.steps.append(state.step)

        def look(self):
            self.steps.append("look")

    watch = Watch()
    _, ps, loss = scalar()
    flux.train_(loss, ps, [1.0], flux.SGD(1.0), cb=(watch, watch.look))
    assert watch.steps == [1, "look"]


def test_what_the_state_tells():
    _, ps, loss = scalar()
    opt, states = flux.SGD(1.0), []
    history = flux.train_(loss, ps, [1.0, 2.0], opt, cb=states.append, epochs=2)
    assert all(isinstance(s, TrainingState) for s in states)
    assert [s.epoch for s in states] == [1, 1, 2, 2]
    assert [s.step for s in states] == [1, 2, 3, 4]
    assert [s.loss for s in states] == history.losses
    assert [s.batch for s in states] == [1.0, 2.0, 1.0, 2.0]
    assert [float(s.gradients[ps[0]]) for s in states] == [1.0, 2.0, 1.0, 2.0]
    assert all(s.opt is opt and s.params == ps and s.history is history for s in states)
    assert 0 <= states[0].elapsed <= states[-1].elapsed < 60


@pytest.mark.parametrize("way", [lambda f: f, compiled])
def test_a_parameter_may_be_given_another_array_by_a_callback(way):
    """That one is trained from then on; the old one stays as it was."""
    w, old = flux.Tensor([1.0, 2.0]), []

    def replace(state):
        if state.step == 2:
            old.extend([w.data, w.data.copy()])
            w.data = np.array([10.0, 20.0])

    loss = way(lambda x: np.sum(w * x))
    flux.train_(loss, [w], [1.0] * 4, flux.SGD(0.5), cb=replace)
    np.testing.assert_array_equal(w.data, [9.0, 19.0])
    np.testing.assert_array_equal(*old)


@pytest.mark.parametrize("way", [lambda f: f, compiled])
def test_changed_gradients_of_the_state_change_no_later_step(way):
    """And those that were kept stay as they were."""
    results = []
    for spoils in (False, True):
        w, seen, kept = flux.Tensor(np.ones(3)), [], []
        loss = way(lambda x, w=w: np.sum((w * x) ** 2))

        def look(state, w=w, seen=seen, kept=kept, spoils=spoils):
            seen.append(state.gradients[w].copy())
            kept.append(state.gradients[w])
            if spoils:
                state.gradients[w].fill(100.0)

        data = [np.arange(1.0, 4.0) * k for k in (1, 2, 3)]
        flux.train_(loss, [w], data, flux.Momentum(0.01, 0.9), cb=look)
        for k, g in enumerate(kept):
            np.testing.assert_array_equal(g, 100.0 if spoils else seen[k])
        results.append(np.stack([w.data, *seen]))
    np.testing.assert_array_equal(*results)


def test_the_learning_rate_may_be_changed_by_a_callback():
    w, ps, loss = scalar(0.0)
    opt = flux.SGD(1.0)

    def halve():
        opt.lr /= 2

    flux.train_(loss, ps, [1.0] * 3, opt, cb=halve)
    assert float(w) == -(1 + 0.5 + 0.25)


@pytest.mark.parametrize("way", [lambda f: f, compiled])
def test_an_optimiser_may_be_reset_by_a_callback(way):
    results = []
    for by_hand in (False, True):
        w, opt = flux.Tensor(np.ones(2)), flux.Momentum(0.1)
        loss = way(lambda x, w=w: np.sum(w * x))
        if by_hand:
            for part in ([1.0, 1.0], [1.0]):
                flux.train_(loss, [w], part, opt)
                opt.reset_()
        else:
            flux.train_(loss, [w], [1.0] * 3, opt, cb=lambda s: s.step == 2 and opt.reset_())  # noqa: B023
        results.append(w.data)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("cb", [3, ["text"], [None]])
def test_callback_that_is_no_function(cb):
    _, ps, loss = scalar()
    with pytest.raises(TypeError, match="callback must be a function"):
        flux.train_(loss, ps, [1.0], flux.SGD(1.0), cb=cb)


def test_callback_that_wants_too_much():
    w, ps, loss = scalar()
    with pytest.raises(TypeError, match=r"its one positional argument; .* wants a, b"):
        flux.train_(loss, ps, [1.0], flux.SGD(1.0), cb=lambda a, b: None)
    with pytest.raises(TypeError, match=r"its one positional argument; .* wants state"):
        flux.train_(loss, ps, [1.0], flux.SGD(1.0), cb=lambda *, state: None)
    assert float(w) == 1


@pytest.mark.parametrize(
    "trigger",
    [
        flux.patience(lambda: True, 1),
        flux.early_stopping(lambda: 1.0, 1),
        flux.plateau(lambda: 1.0, 1),
        flux.throttle(flux.throttle(flux.patience(lambda: True, 1), 0), 0),
    ],
)
def test_a_trigger_is_no_callback(trigger):
    w, ps, loss = scalar()
    with pytest.raises(TypeError, match=r"cb=lambda: trigger\(\) and stop\(\)"):
        flux.train_(loss, ps, [1.0], flux.SGD(1.0), cb=trigger)
    assert float(w) == 1
    flux.train_(loss, ps, [1.0], flux.SGD(1.0), cb=lambda: trigger() and flux.stop())


@pytest.mark.parametrize("end", ["plain", "stop", "interrupt", "not finite"])
def test_trailing_call_is_made_up_for_at_the_end(end):
    _, ps, loss = scalar()
    seen = []

    def last(state):
        if state.step == 4 and end == "stop":
            flux.stop()
        if state.step == 4 and end == "interrupt":
            raise KeyboardInterrupt

    look = flux.throttle(lambda s: seen.append(s.step), 3600, trailing=True)
    try:
        data = [1.0] * 4 + [np.nan] * (end == "not finite")
        flux.train_(loss, ps, data, flux.SGD(1.0), cb=[look, last])
    except (KeyboardInterrupt, flux.NonFiniteLossError):
        assert end in ("interrupt", "not finite")
    assert seen == [1, 4]


def test_stop_in_the_made_up_call_counts_as_stopped():
    _, ps, loss = scalar()
    look = flux.throttle(lambda: flux.stop(), 3600, leading=False, trailing=True)
    history = flux.train_(loss, ps, [1.0] * 2, flux.SGD(1.0), cb=look)
    assert history.stopped and len(history) == 2


def test_stop_early_puts_all_back_that_a_model_keeps():
    model = flux.Chain(flux.Dense(2, 3), flux.BatchNorm(3), flux.Dense(3, 1))
    x, scores, seen = np.ones((4, 2), "f4") * np.arange(4)[:, None], iter([3.0, 1.0, 2.0, 2.0]), []

    def score():
        seen.append([t.data.copy() for _, t in named_tensors(model)])
        return next(scores)

    loss = lambda x: np.mean(model(x) ** 2)
    best = flux.stop_early(score, 2, model)
    flux.train_(loss, flux.params(model), [x] * 4, flux.SGD(0.1), cb=best)
    assert len(seen) == 4 and len(seen[0]) > len(flux.params(model))
    for (_, t), kept in zip(named_tensors(model), seen[1], strict=True):
        np.testing.assert_array_equal(t.data, kept)
    moved = [not np.array_equal(a, b) for a, b in zip(seen[1], seen[3], strict=True)]
    assert sum(moved) > 2, "and it was not there already"


class Writing(flux.UpdateRule):
    """A rule that changes the parameter itself."""

    def delta(self, x, g, u):
        u[:] = 0
        x -= g


@pytest.mark.parametrize("n", [1, 2])
def test_a_rule_may_not_write_to_the_parameters(n):
    ps = [flux.Tensor(np.ones(2)) for _ in range(n)]
    with pytest.raises(ValueError, match="read-only") as caught:
        flux.update_(Writing(), ps, {p: np.ones(2) for p in ps})
    assert caught.value.__notes__[0].startswith("This is Writing.delta. It is to leave in u")
    assert all((p.data == 1).all() for p in ps)


@pytest.mark.parametrize("prepare", [lambda f: f, compiled], ids=["eager", "compiled"])
@pytest.mark.parametrize("n", [2, 40_000])
def test_a_parameter_that_becomes_read_only_leaves_a_whole_step(prepare, n):
    a, b = flux.Tensor(np.ones(n)), flux.Tensor(np.ones(n))
    ps, opt, kept = flux.Params([a, b]), flux.ADAM(0.1), []

    def lock(state):
        if state.step == 2:
            b.data.setflags(write=False)
            kept.extend([a.data.copy(), b.data.copy(), opt.state(a), opt.state(b)])

    loss = prepare(lambda x: np.sum(a * a + b * b) * x)
    with pytest.raises(TypeError, match="Parameter 1 is read-only"):
        flux.train_(loss, ps, [1.0] * 4, opt, cb=lock)
    np.testing.assert_equal([a.data, b.data, opt.state(a), opt.state(b)], kept)


def test_stop_early_puts_the_best_parameters_back():
    w = flux.Tensor(4.0)
    watch = flux.stop_early(lambda: abs(float(w)), 2, flux.params(w))
    history = flux.train_(lambda: w * 1.0, flux.params(w), repeat((), 99), flux.SGD(1.0), cb=watch)
    assert history.stopped and len(history) == 6
    assert float(w) == 0


# --- History -------------------------------------------------------------------------------------


def test_history():
    _, ps, loss = scalar(8.0)

    def keep(state):
        state.history.record(square=state.step**2, half=state.step / 2)

    h = flux.train_(loss, ps, [1.0, 3.0], flux.SGD(1.0), epochs=2, cb=keep)
    assert h.losses == [8.0, 21.0, 4.0, 9.0]
    assert h.epochs == [0, 2]
    assert h.epoch_means() == [14.5, 6.5]
    assert h.recorded["square"] == [(1, 1.0), (2, 4.0), (3, 9.0), (4, 16.0)]
    assert h.recorded["half"][0] == (1, 0.5)
    assert len(h) == 4
    assert repr(h) == "History(4 steps in 2 epochs, last loss 9)"
    h.begin_epoch()  # one without a step has no mean
    assert h.epoch_means() == [14.5, 6.5]
    assert all(type(v) is float for v in h.losses)
    assert h.seconds > 0


def test_history_of_nothing():
    h = flux.History()
    assert (len(h), h.epoch_means(), repr(h)) == (0, [], "History(0 steps in 0 epochs)")


def test_history_of_a_stopped_run_says_so():
    _, ps, loss = scalar()
    h = flux.train_(loss, ps, [1.0], flux.SGD(0.0), cb=flux.stop)
    assert repr(h) == "History(1 steps in 1 epochs, last loss 1, stopped)"


def test_seconds_stand_still_when_training_has_ended(monkeypatch):
    """They are the length of the run, not the age of the History."""
    _, ps, loss = scalar()
    h = flux.train_(loss, ps, [1.0], flux.SGD(0.1))
    took = h.seconds
    later = time.perf_counter() + 1000
    monkeypatch.setattr(history_module.time, "perf_counter", lambda: later)
    assert h.seconds == took


class Axes:
    """Takes down what is drawn."""

    def __init__(self):
        self.drawn, self.said = {}, []

    def plot(self, x, y, label, linewidth=None):
        self.drawn[label] = (list(x), list(y))

    def set_xlabel(self, text):
        self.said.append(text)

    def legend(self):
        self.said.append("legend")


def test_plot_draws_the_losses_and_what_was_recorded_over_the_steps(monkeypatch):
    pyplot, made = types.ModuleType("matplotlib.pyplot"), Axes()
    pyplot.subplots = lambda: (None, made)
    monkeypatch.setitem(sys.modules, "matplotlib", types.ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    monkeypatch.setattr(sys.modules["matplotlib"], "pyplot", pyplot, raising=False)
    h = flux.History()
    h.losses = [3.0, 2.0]
    h.record(accuracy=0.5)
    h.losses.append(1.0)
    h.record(accuracy=0.75)
    given = Axes()
    assert h.plot(given) is given and h.plot() is made
    for ax in (given, made):
        assert ax.drawn == {"loss": ([1, 2, 3], [3, 2, 1]), "accuracy": ([2, 3], [0.5, 0.75])}
        assert ax.said == ["step", "legend"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_plot_with_matplotlib():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    _, ps, loss = scalar(8.0)
    h = flux.train_(loss, ps, [1.0, 3.0], flux.SGD(1.0))
    ax = h.plot(figure.subplots())
    (line,) = ax.get_lines()
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1, 2], h.losses)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["loss"]


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "tinyflux-autodiff\[plot\]"'):
        flux.History().plot()


# --- data ----------------------------------------------------------------------------------------


def test_generator_can_be_gone_through_once():
    _, ps, loss = scalar()
    assert len(flux.train_(loss, ps, (x for x in [1.0, 2.0]), flux.SGD(0.1))) == 2


@pytest.mark.parametrize("prepare", [lambda f: f, flux.compiled])
def test_generator_that_runs_dry(prepare):
    _, ps, loss = scalar()
    loss = prepare(loss)
    with pytest.raises(ValueError, match="ran dry after epoch 1: a generator can be gone"):
        flux.train_(loss, ps, (x for x in [1.0]), flux.SGD(0.1), epochs=2)


def test_generator_that_is_used_up():
    _, ps, loss = scalar()
    data = zip([1.0], strict=True)
    list(data)
    with pytest.raises(ValueError, match="this zip yields no datum; has it been used up"):
        flux.train_(lambda x: loss(x), ps, data, flux.SGD(0.1))


def test_endless_data_and_stop():
    _, ps, loss = scalar()
    h = flux.train_(loss, ps, repeat(1.0), flux.SGD(0.1), cb=lambda s: s.step == 7 and flux.stop())
    assert len(h) == 7


def test_data_loader_of_several_epochs_ends_with_a_part():
    w = flux.Tensor(1.0)
    sizes = []
    data = flux.DataLoader((np.ones(5), np.ones(5)), batchsize=2)

    def loss(x, y):
        sizes.append(len(x))
        return w * np.sum(x * y)

    flux.train_(loss, flux.params(w), data, flux.SGD(0.1), epochs=2)
    assert sizes == [2, 2, 1] * 2


@pytest.mark.parametrize("data", [[], (), np.empty((0, 3)), flux.ncycle([], 3)])
def test_data_without_a_datum(data):
    _, ps, loss = scalar()
    for f in (loss, compiled(loss)):
        with pytest.raises(ValueError, match="no datum"):
            flux.train_(f, ps, data, flux.SGD(0.1))


def test_tuple_of_arrays_is_no_data():
    _, ps, loss = scalar()
    X, Y = np.ones((3, 2)), np.ones(3)
    with pytest.raises(TypeError, match=r"shapes \(3, 2\) and \(3,\).*\[\(X, Y\)\].*DataLoader"):
        flux.train_(loss, ps, (X, Y), flux.SGD(0.1))


@pytest.mark.parametrize("data", [{"x": 1}, "text", 3, None])
def test_things_that_are_no_data(data):
    _, ps, loss = scalar()
    with pytest.raises(TypeError, match=f"data is a {type(data).__name__}"):
        flux.train_(loss, ps, data, flux.SGD(0.1))


@pytest.mark.parametrize(
    "datum, how",
    [((1.0,), "tuple of 1 and is splatted"), ([1.0, 2.0], "list and is passed whole"),
     ({"x": 1.0}, "dict of 1 and is passed as keywords")],
)  # fmt: skip
def test_datum_that_does_not_fit_the_loss(datum, how):
    w = flux.Tensor(1.0)
    for loss in (f := lambda x, y: w * x * y, compiled(f)):
        said = f"datum 1 is a {how}.*missing a required argument: 'y'"
        with pytest.raises(TypeError, match=said):
            flux.train_(loss, flux.params(w), [datum], flux.SGD(0.1))


def test_type_error_inside_the_loss_is_not_explained_away():
    w = flux.Tensor(1.0)
    with pytest.raises(TypeError, match=r"^unsupported operand"):
        flux.train_(lambda x: w * (1 + "a"), flux.params(w), [1.0], flux.SGD(0.1))


# --- arguments -----------------------------------------------------------------------------------


def test_a_loss_that_does_not_say_its_parameters():
    """Then an error is what it is."""
    with pytest.raises(TypeError, match=r"^'int' object is not iterable"):
        flux.train_(max, flux.params(flux.Tensor(1.0)), [1], flux.SGD(0.1))


def test_both_forms():
    results = []
    for bound in (False, True):
        w, ps, loss = scalar()
        if bound:
            flux.train_(loss, [1.0, 2.0], flux.ADAM(ps, 0.1))
        else:
            flux.train_(loss, ps, [1.0, 2.0], flux.ADAM(0.1))
        results.append(float(w))
    assert results[0] == results[1] != 1.0


def test_three_arguments_need_an_optimiser_with_parameters():
    _, _, loss = scalar()
    with pytest.raises(TypeError, match=r"this ADAM was made without .*ADAM\(params\(m\)"):
        flux.train_(loss, [1.0], flux.ADAM(0.1))


def test_four_arguments_win_over_the_parameters_of_the_optimiser():
    w, ps, _ = scalar()
    v = flux.Tensor(1.0)
    flux.train_(lambda x: w * x + v * x, ps, [1.0], flux.SGD(flux.params(v), 1.0))
    assert (float(w), float(v)) == (0.0, 1.0)


@pytest.mark.parametrize(
    "opt, what", [(flux.ADAM, "the class ADAM"), (0.1, "a float"), (None, "a NoneType")]
)
def test_optimiser_that_is_none(opt, what):
    _, ps, loss = scalar()
    with pytest.raises(TypeError, match=f"opt must be an optimiser such as .*, got {what}"):
        flux.train_(loss, ps, [1.0], opt)


@pytest.mark.parametrize("args", [(), (1,), (1, 2, 3, 4)])
def test_number_of_arguments(args):
    with pytest.raises(TypeError, match=r"train_\(loss, ps, data, opt\) or"):
        flux.train_(lambda: None, *args)


def test_model_in_the_place_of_parameters():
    m = flux.Dense(1, 1)
    with pytest.raises(TypeError, match=r"must be Params, got Dense; write params\(model\)"):
        flux.train_(lambda x: m(x), m, [1.0], flux.SGD(0.1))
    with pytest.raises(TypeError, match=r"update_: .*got Dense"):
        flux.update_(flux.SGD(0.1), m, {})


@pytest.mark.parametrize("ps", [[], (), flux.Params(), flux.params("no model")])
def test_no_parameters(ps):
    with pytest.raises(flux.NoGradientError, match="no parameters"):
        flux.train_(lambda x: x, ps, [1.0], flux.SGD(0.1))


@pytest.mark.parametrize("epochs", [True, -1, 1.0, "2", None])
def test_epochs_of_the_wrong_kind(epochs):
    _, ps, loss = scalar()
    with pytest.raises(TypeError, match="epochs must be a whole number of at least 0"):
        flux.train_(loss, ps, [1.0], flux.SGD(0.1), epochs=epochs)


def test_no_epochs_at_all():
    w, ps, loss = scalar()
    assert len(flux.train_(loss, ps, [1.0], flux.SGD(0.1), epochs=np.int64(0))) == 0
    assert float(w) == 1


def test_a_repeated_parameter_is_updated_once():
    w = flux.Tensor(1.0)
    flux.train_(lambda x: w * x, [w, w], [1.0], flux.SGD(0.5))
    assert float(w) == 0.5


def test_update_with_a_dict_and_none():
    a, b = flux.Tensor(1.0), flux.Tensor(1.0)
    flux.update_(flux.SGD(0.5), [a, b], {a: np.array(1.0), b: None})
    assert (float(a), float(b)) == (0.5, 1.0)


@pytest.mark.parametrize("known", [0.0, None])
def test_update_refuses_gradients_that_are_not_finite(known):
    model = flux.Chain(flux.Dense(2, 2), flux.Dense(2, 1, bias=False))
    ps, opt = flux.params(model), flux.ADAM()
    before = [p.data.copy() for p in ps]
    gs = {p: np.ones(p.shape, "f4") for p in ps}
    gs[model[0].bias] = known if known is None else np.array([known, 1], "f4")
    gs[model[1].weight] = np.array([[1.0], [np.inf]], "f4")
    with pytest.raises(flux.NonFiniteLossError, match=r"update_: the gradient of \S*1\S* is not"):
        flux.update_(opt, ps, gs)
    for p, old in zip(ps, before, strict=True):
        np.testing.assert_array_equal(p.data, old)
    assert not any(opt.state(p) for p in ps)


def test_update_inside_a_gradient_is_refused():
    w = flux.Tensor(1.0)
    ps = flux.params(w)

    def f():
        flux.update_(flux.SGD(0.1), ps, flux.gradient(lambda: w * w, ps))
        return w * 1.0

    with pytest.raises(TypeError, match="cannot be differentiated"):
        flux.gradient(f, ps)
    assert float(w) == 1


# --- progress ------------------------------------------------------------------------------------


def test_progress_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    w, ps, loss = scalar()
    sentence = r'progress=True needs tqdm: pip install "tinyflux-autodiff\[progress\]"'
    with pytest.raises(ImportError, match=sentence):
        flux.train_(loss, ps, [1.0], flux.SGD(0.1), progress=True)
    assert float(w) == 1 and phase.get() is None


@pytest.mark.parametrize("prepare", [lambda f: f, compiled], ids=["eager", "compiled"])
def test_progress_advances_once_a_step(monkeypatch, prepare):
    class Bar:
        def __init__(self, **options):
            self.options, self.shown, self.steps = options, [], 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.closed = True

        def set_postfix_str(self, text, refresh):
            self.shown.append(text)

        def update(self):
            self.steps += 1

    bars = []
    monkeypatch.setitem(sys.modules, "tqdm", type(sys)("tqdm"))
    auto = type(sys)("tqdm.auto")
    auto.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm.auto", auto)
    _, ps, loss = scalar()
    loss = prepare(loss)
    flux.train_(loss, ps, [1.0, 2.0], flux.SGD(0.0), epochs=2, progress=True)
    for data in iter([1.0]), flux.ncycle(iter([1.0]), 1):
        flux.train_(loss, ps, data, flux.SGD(0.0), progress=True)
    assert [(b.options["total"], b.steps) for b in bars] == [(4, 4), (None, 1), (None, 1)]
    assert all(b.closed for b in bars)
    assert bars[0].shown == ["loss 1", "loss 2"] * 2


# --- types ---------------------------------------------------------------------------------------

OTHERS = [
    2, 2.0, True, np.float32(2), np.float64(2), np.int64(2),
    np.ones(3), np.ones(3, int), np.ones(3, ">f4"),
]  # fmt: skip


@pytest.mark.parametrize("other", OTHERS, ids=repr)
@pytest.mark.parametrize("make", [*OPTIMISERS, lambda: flux.RMSProp(0.01), lambda: flux.ADADelta()])
def test_single_precision_stays(other, make):
    w = flux.Tensor(np.ones(3, np.float32))
    opt = make()
    flux.train_(lambda: np.mean(w * other), flux.params(w), repeat((), either(100, 20)), opt)
    assert w.dtype == np.float32
    assert np.all(np.isfinite(w.data)) and not np.any(w.data == 1)
    for name, value in opt.state(w).items():
        if isinstance(value, np.ndarray) and not name.endswith("scale"):
            assert value.dtype == np.float32


def test_a_model_stays_in_single_precision_whatever_the_data():
    for data in (pairs(3), [(np.ones((4, 2), int), np.ones((4, 1), int))], [([[1, 2]], [[3.0]])]):
        _, ps, loss = model()
        flux.train_(loss, ps, data, flux.ADAM(0.01), epochs=30)
        assert {p.dtype for p in ps} == {np.dtype(np.float32)}


@pytest.mark.parametrize("wrap", [lambda f: f, flux.compiled])
def test_parameters_that_a_callback_adds_and_discards(wrap):
    """From the next step on, each by its own gradient."""
    a, b, c, d = (flux.Tensor([0.0]) for _ in range(4))
    loss = wrap(
        lambda x: np.sum(a) + np.sum(10 * b) + np.sum(100 * c) + np.sum(1000 * d) + np.sum(0 * x)
    )
    ps = flux.Params([a, b, c])
    opt = flux.Momentum(1.0, 0.5)

    def change(state):
        assert state.params is ps
        if state.step == 1:
            ps.discard(a), ps.add(d)
        if state.step == 2:
            ps.add(a)

    flux.train_(loss, ps, [np.zeros(1)] * 3, opt, cb=change)
    assert [t.item() for t in (a, b, c, d)] == [-1 - 1.5, -42.5, -425.0, -2500.0]


@pytest.mark.parametrize("wrap", [lambda f: f, flux.compiled])
def test_a_training_inside_a_loss_is_no_part_of_it(wrap):
    outer, inner = flux.Tensor([3.0]), flux.Tensor([1.0])
    close = wrap(lambda: np.sum((inner - 2) ** 2))

    def loss(x):
        flux.train_(close, flux.params(inner), [()] * 30, flux.SGD(0.25))
        return np.sum((outer - x) ** 2)

    flux.train_(loss, flux.params(outer), [1.0], flux.SGD(0.25))
    assert outer.item() == 2 and inner.item() == pytest.approx(2)


@pytest.mark.parametrize("n", [np.uint8(255), np.int8(127), np.int64(3)])
def test_epochs_of_any_whole_type(n):
    _, ps, loss = scalar()
    assert len(flux.train_(loss, ps, [0.5], flux.SGD(0.0), epochs=n)) == int(n)


def test_an_error_of_a_rule_is_its_own():
    class Angry(flux.UpdateRule):
        def delta(self, x, g, u):
            raise FloatingPointError("the curvature is negative")

    _, ps, loss = scalar()
    with pytest.raises(FloatingPointError, match="curvature") as caught:
        flux.train_(loss, ps, [1.0], Angry())
    assert not isinstance(caught.value, flux.NonFiniteLossError)


def test_data_of_many_shapes_keep_no_more_than_some_programs():
    w = flux.Tensor(np.ones(3))
    loss, kept = flux.compiled(lambda x: np.sum(x @ w)), []
    data = [np.ones((n, 3)) for n in range(1, 30)]
    flux.train_(loss, [w], data, flux.SGD(0.0), cb=lambda s: kept.append(len(s.run.trainers)))
    assert max(kept) == 16
