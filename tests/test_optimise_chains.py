"""Chains, decays, clips and schedules."""

import math
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import pytest

import tinyflux as flux
from tinyflux.optimise import (
    ADAM,
    SGD,
    ClipNorm,
    ClipValue,
    ExpDecay,
    InvDecay,
    Momentum,
    Optimiser,
    Scheduler,
    WeightDecay,
    groups,
    schedules,
)


class Key:
    def __init__(self, data):
        self.data = data


def moved(opt, gradients, start=0.0, steps=1):
    """How far parameters at `start` are moved by the last of some steps."""
    keys = [Key(np.full(np.shape(g), float(start))) for g in gradients]
    for _ in range(steps):
        before = [k.data.copy() for k in keys]
        opt.step_(keys, [k.data for k in keys], [np.asarray(g, float) for g in gradients])
    return [b - k.data for b, k in zip(before, keys, strict=True)]


# --- the algebra of chains


def test_a_chain_hands_on_and_subtracts_the_last_output():
    (step,) = moved(Optimiser(SGD(0.5), ClipValue(1.0), SGD(0.1)), [[4.0, -1.0]])
    np.testing.assert_allclose(step, [0.1, -0.05])
    (step,) = moved(Optimiser(ClipValue(1.0), SGD(0.5), SGD(0.1)), [[4.0, -1.0]])
    np.testing.assert_allclose(step, [0.05, -0.05])


def test_empty_and_nested_chains():
    np.testing.assert_array_equal(moved(Optimiser(), [[4.0, -1.0]])[0], [4.0, -1.0])
    assert Optimiser() and len(Optimiser()) == 0
    flat = Optimiser(SGD(0.5), ClipValue(1.0), ADAM(0.1))
    inner = Optimiser(Optimiser(), ClipValue(1.0), Optimiser(ADAM(0.1)))
    nested = Optimiser(Optimiser(SGD(0.5)), inner)
    gradients = [np.arange(3.0), np.arange(4.0).reshape(2, 2)]
    for a, b in zip(moved(flat, gradients, 1, 9), moved(nested, gradients, 1, 9), strict=True):
        np.testing.assert_array_equal(a, b)


def test_modifiers_alone_are_subtracted():
    np.testing.assert_array_equal(moved(ClipValue(1.0), [[4.0, -0.5, -9]])[0], [1.0, -0.5, -1])
    np.testing.assert_allclose(moved(WeightDecay(0.5), [[4.0]], start=2.0)[0], [5.0])
    np.testing.assert_allclose(moved(ClipNorm(1.0), [[3.0, 4.0]])[0], [0.6, 0.8])


def test_a_chain_is_a_sequence():
    a, b, c = SGD(), ADAM(), ClipValue(1.0)
    chain = Optimiser(a, b)
    chain.append(c)
    chain.insert(0, WeightDecay(0.1))
    assert list(chain)[1:] == [a, b, c] and chain[2] is b and chain[-1] is c and len(chain) == 4
    assert list(chain[1:3]) == [a, b] and isinstance(chain[1:], Optimiser)
    assert repr(chain[:2]) == "Optimiser(WeightDecay(decay=0.1), SGD(lr=0.1))"
    for wrong in (0.1, ADAM, chain, Optimiser(chain)):
        with pytest.raises(TypeError, match="Optimiser: got"):
            chain.append(wrong)
    with pytest.raises(AttributeError, match="lr"):
        chain.lr = 0.1


def test_a_rule_added_in_mid_training_leaves_the_others_their_moments():
    key, g = Key(np.zeros(3)), np.ones(3)
    inner = Optimiser(Momentum(0.1))
    opt = Optimiser(inner)
    opt.step_([key], [key.data], [g])
    v = opt.state(key)["v"]
    inner.insert(0, ADAM())
    state = opt.state(key)
    np.testing.assert_array_equal(state["1.v"], v)
    assert not state["0.m"].any()
    opt.step_([key], [key.data], [g])
    opt.append(WeightDecay(0.1))
    opt.step_([key], [key.data], [g])
    assert opt.state(key)["t"] == 3 and opt.state(key)["0.m"].all()


def test_the_same_rule_in_two_optimisers_shares_no_state():
    adam, key = ADAM(), Key(np.zeros(2))
    one, two = Optimiser(adam), Optimiser(SGD(), adam)
    one.step_([key], [key.data], [np.ones(2)])
    assert one.state(key)["t"] == 1 and two.state(key) == {} and adam.state(key) == {}


# --- clips


@pytest.mark.parametrize("block", [2, 10**6])
def test_clip_norm_per_array_and_whole(block, monkeypatch):
    monkeypatch.setattr(groups, "BLOCK", block)
    gradients = [np.array([3.0, 4.0]), np.full((2, 2), 6.0), np.array(0.1)]
    per = moved(ClipNorm(1.0), gradients)
    np.testing.assert_allclose(per[0], [0.6, 0.8])
    np.testing.assert_allclose(per[1], 0.5)
    np.testing.assert_allclose(per[2], 0.1)
    length = math.sqrt(25 + 144 + 0.01)
    for step, g in zip(moved(ClipNorm(2.0, whole=True), gradients), gradients, strict=True):
        np.testing.assert_allclose(step, g * 2 / length)
    for step, g in zip(moved(ClipNorm(14.0, whole=True), gradients), gradients, strict=True):
        np.testing.assert_array_equal(step, g)


@pytest.mark.parametrize("block", [2, 10**6])
def test_clip_norm_anywhere_in_a_chain(block, monkeypatch):
    monkeypatch.setattr(groups, "BLOCK", block)
    gradients = [np.array([3.0, 4.0, 0.0]), np.array([0.3, 0.4])]
    chain = Optimiser(SGD(2.0), WeightDecay(1.0), ClipNorm(1.0), SGD(0.5), ClipNorm(0.25), SGD(2.0))
    first, second = moved(chain, gradients, start=0.0)
    np.testing.assert_allclose(first, [0.3, 0.4, 0.0])
    np.testing.assert_allclose(second, [0.3, 0.4])
    kept = Optimiser(ADAM(), ClipNorm(1e9), SGD(1.0))
    for a, b in zip(moved(kept, gradients, 1, 5), moved(ADAM(), gradients, 1, 5), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", [ADAM, SGD, lambda: Optimiser(ClipValue(1.0), ADAM())])
@pytest.mark.parametrize("size", [2, 200_000])
def test_gradients_that_are_not_finite_are_refused(bad, make, size):
    keys, g = [Key(np.ones(size)), Key(np.ones(size))], np.arange(1.0, size + 1)
    refused(make(), keys, [g, np.where(g == 2, bad, g)], [g, g], "gradient 1 is not finite")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_clip_norm_refuses_a_norm_that_is_not_finite(whole, late):
    clip = ClipNorm(1.0, whole)
    opt = Optimiser(SGD(1.0), clip) if late else Optimiser(clip, ADAM())
    keys, g = [Key(np.ones(2)), Key(np.ones(2))], np.array([1.0, 2.0])
    which = "all gradients" if whole else "gradient 1"
    refused(opt, keys, [g, np.array([1.7e308, 1.7e308])], [g, g], f"the norm of {which}")


def refused(opt, keys, gradients, before, message):
    """That nothing is changed by a step which raises, after one that did not."""
    opt.step_(keys, [k.data for k in keys], before)
    kept = [(k.data.copy(), opt.state(k)) for k in keys]
    with pytest.raises(FloatingPointError, match=message):
        opt.step_(keys, [k.data for k in keys], gradients)
    for key, (data, state) in zip(keys, kept, strict=True):
        np.testing.assert_array_equal(key.data, data)
        for name, value in opt.state(key).items():
            np.testing.assert_array_equal(value, state[name])


def test_clip_norm_where_squares_overflow():
    g = np.array([3e30, 4e30], "f4")
    key = Key(np.zeros(2, "f4"))
    ClipNorm(1.0).step_([key], [key.data], [g])
    np.testing.assert_allclose(key.data, [-0.6, -0.8], rtol=1e-6)
    np.testing.assert_array_equal(g, np.array([3e30, 4e30], "f4"))


# --- decays


@pytest.mark.parametrize("parameters", [1, 3])
def test_exp_decay_factors(parameters):
    gradients = [np.ones(2)] * parameters
    for opt, expected in [
        (ExpDecay(0.5, 2), [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
        (ExpDecay(0.5, 1), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625]),
        (ExpDecay(0.5, 2, start=3), [1, 1, 1, 0.5, 0.5, 0.25]),
        (ExpDecay(0.5, 2, start=4), [1, 1, 1, 1, 1, 0.5]),
        (ExpDecay(0.1, 1, clip=0.05), [0.1, 0.05, 0.05, 0.05, 0.05, 0.05]),
        (ExpDecay(), [1] * 6),
        (ExpDecay(decay_step=1), [0.1, 0.01, 0.001, 1e-4, 1e-4, 1e-4]),
    ]:
        for n, factor in enumerate(expected, 1):
            opt.reset_()
            for step in moved(opt, gradients, steps=n):
                np.testing.assert_allclose(step, factor, rtol=1e-12)


@pytest.mark.parametrize("parameters", [1, 3])
def test_inv_decay_factors(parameters):
    for n in range(1, 5):
        for step in moved(InvDecay(0.5), [np.ones(2)] * parameters, steps=n):
            np.testing.assert_allclose(step, 1 / (1 + 0.5 * n), rtol=1e-12)
    assert InvDecay().gamma == 0.001


def test_decays_count_calls_also_for_parameters_that_come_late():
    opt, early, late = Optimiser(SGD(1.0), ExpDecay(0.5, 2)), Key(np.zeros(1)), Key(np.zeros(1))
    g = np.ones(1)
    for _ in range(3):
        opt.step_([early], [early.data], [g])
    opt.step_([early, late], [early.data, late.data], [g, g])
    assert late.data == -0.25


# --- schedules

S = schedules
TABLE = [
    (S.Constant(0.1), [0.1, 0.1, 0.1]),
    (S.Step(1.0, 0.5, 2), [1, 1, 0.5, 0.5, 0.25]),
    (S.Step(1.0, 0.5, [1, 2]), [1, 0.5, 0.5, 0.25, 0.25, 0.25]),
    (S.Exp(1.0, 0.5), [1, 0.5, 0.25]),
    (S.Poly(1.0, 2, 4), [1, 0.5625, 0.25, 0.0625]),
    (S.Inv(1.0, 1.0, 2), [1, 1 / 4, 1 / 9]),
    (S.Triangle(1.0, 0.0, 2), [0, 1, 0, 1, 0]),
    (S.Triangle(0.0, 1.0, 4), [0, 0.5, 1, 0.5, 0]),
    (S.Sin(1.0, 3.0, 2), [1, 3, 1, 3]),
    (S.CosAnneal(0.0, 1.0, 4), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 1]),
    (S.CosAnneal(0.0, 1.0, 2, restart=False), [1, 0.5, 0, 0.5, 1]),
    (S.OneCycle(6, 1.0, 0.0, 0.0, 0.5), [0, 0.25, 0.75, 1, 0.75, 0.25]),
    (S.Loop(S.Exp(1.0, 0.5), 2), [1, 0.5, 1, 0.5, 1]),
    (S.Sequence((S.Constant(3.0), 2), (S.Exp(1.0, 0.5), 2)), [3, 3, 1, 0.5, 0.25]),
]


@pytest.mark.parametrize("schedule, values", TABLE, ids=lambda s: type(s).__name__)
def test_schedules(schedule, values):
    np.testing.assert_allclose([schedule(t) for t in range(1, len(values) + 1)], values, atol=1e-7)
    np.testing.assert_allclose(list(islice(schedule, len(values))), values, atol=1e-7)
    again = pickle.loads(pickle.dumps(schedule))
    assert repr(again).startswith(type(schedule).__name__) and again(2) == schedule(2)


def test_schedules_that_end_and_bad_ones():
    assert S.OneCycle(8, 1.0)(1) == 1 / 25
    for schedule, last in ((S.Poly(1.0, 1, 4), 4), (S.OneCycle(8, 1.0), 8)):
        with pytest.raises(ValueError, match=f"ends at step {last}"):
            schedule(last + 1)
    for make, args in ((S.Step, (1, 0.5, 0)), (S.Step, (1, 0.5, [])), (S.Sin, (0, 1, 0))):
        with pytest.raises(ValueError, match="must be"):
            make(*args)


def test_schedules_without_a_value():
    class Mine(S.Schedule):
        """One that has forgotten its formula."""

    with pytest.raises(NotImplementedError):
        Mine()(1)
    for kind in (S.Triangle, S.Sin, partial(S.CosAnneal, restart=False)):
        with pytest.raises(ValueError, match=f"no finite value at step {10**9}"):
            kind(0.0, 1.0, period=1e-320)(10**9)  # the angle is beyond all floats


def test_scheduler_sets_a_field():
    chain = Optimiser(ClipValue(1.0), SGD(99.0))
    advance = Scheduler(chain[1], S.Exp(1.0, 0.5))
    assert repr(advance).startswith("<Scheduler of 'lr' of ") and ", t = 1: Exp(" in repr(advance)
    rates = []
    for _ in range(3):
        rates.append(chain[1].lr)
        advance()
    assert rates == [1, 0.5, 0.25]
    momentum = Momentum()
    Scheduler(momentum, lambda t: 0.5, field="rho")
    assert momentum.rho == 0.5


@pytest.mark.parametrize("schedule", [S.OneCycle(4, 1.0), S.Poly(1.0, 1, 4)])
def test_a_schedule_may_end_with_the_training(schedule):
    w = flux.Tensor([1.0])
    loss, opt = lambda x: np.sum(w * x), SGD()
    history = flux.train_(loss, flux.params(w), [1.0] * 4, opt, cb=Scheduler(opt, schedule))
    assert len(history) == 4 and opt.lr == schedule(4)
    with pytest.raises(ValueError, match="ends at step 4; got step 5"):
        flux.train_(loss, flux.params(w), [1.0] * 5, opt, cb=Scheduler(opt, schedule))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_parameters_take_the_same_steps(dtype):
    """BLAS does their last two passes in one, with one rounding less."""
    rng = np.random.default_rng(0)
    n = 140_001
    start, gs = rng.standard_normal(n).astype(dtype), rng.standard_normal((5, n)).astype(dtype)
    large, parts = Key(start.copy()), [Key(p.copy()) for p in np.array_split(start, 3)]
    one, many = ADAM(0.01), ADAM(0.01)
    for g in gs:
        kept = g.copy()
        one.step_([large], [large.data], [g])
        many.step_(parts, [p.data for p in parts], np.array_split(g, 3))
        np.testing.assert_array_equal(g, kept)
    together = np.concatenate([p.data for p in parts])
    assert not np.array_equal(large.data, start)
    np.testing.assert_allclose(large.data, together, rtol=0, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("wrap", [lambda f: f, flux.compiled])
def test_a_clip_leaves_the_gradients_of_callbacks_alone(wrap):
    W, seen = flux.Tensor(np.ones(3)), []
    opt = Optimiser(ClipNorm(1.0), SGD(0.1))
    loss = wrap(lambda x: np.sum(W * x) * 100)
    flux.train_(
        loss, flux.Params([W]), [np.ones(3)] * 2, opt, cb=lambda s: seen.append(s.gradients[W])
    )
    np.testing.assert_array_equal(seen, np.full((2, 3), 100.0))
    np.testing.assert_allclose(W.data, 1 - 0.2 / np.sqrt(3))


@pytest.mark.parametrize("wrap", [lambda f: f, flux.compiled])
def test_a_chain_that_a_callback_changes_is_followed_at_once(wrap):
    W, opt = flux.Tensor(np.ones(1)), Optimiser(SGD(1.0))
    inner = Optimiser(opt)

    def cb(state):
        if state.step == 2:
            opt.append(ClipValue(0.01))

    flux.train_(wrap(lambda x: np.sum(W * x)), flux.Params([W]), [np.ones(1)] * 6, inner, cb=cb)
    np.testing.assert_allclose(W.data, 1 - 2 - 4 * 0.01)


def test_one_rule_twice_in_a_chain_has_moments_of_its_own_in_each_place():
    finals = []
    for twice in (True, False):
        rule, w = Momentum(0.1), flux.Tensor([1.0])
        opt = Optimiser(rule, rule if twice else Momentum(0.1))
        for step in range(6):
            if step == 3:
                opt.append(SGD(1.0))
            opt.step_([w], [w.data], [2 * w.data])
        finals.append(w.item())
    assert finals[0] == finals[1]


def test_threads_may_share_an_optimiser():
    opt = Momentum(0.1)
    ready = threading.Barrier(4)

    def train(seed):
        w = flux.Tensor(np.full(50_000, float(seed)))
        ready.wait()
        flux.train_(lambda x: np.sum(w * w) * x, [w], [0.1] * 20, opt)
        return w.data[0]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(train, range(4)))
    w = flux.Tensor(np.full(50_000, 1.0))
    flux.train_(lambda x: np.sum(w * w) * x, [w], [0.1] * 20, Momentum(0.1))
    np.testing.assert_allclose(found, w.data[0] * np.arange(4), rtol=1e-12)
