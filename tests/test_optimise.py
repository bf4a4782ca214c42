"""Every update rule against its textbook recurrence, in every way it can be run."""

import copy
import gc
import inspect
import pickle
import weakref
from functools import partial
from itertools import chain
from operator import setitem

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.suites import either, examples
from tinyflux import optimise as opts
from tinyflux.optimise import (
    ADAM,
    ADAMW,
    SGD,
    ClipNorm,
    ClipValue,
    Momentum,
    Optimiser,
    RMSProp,
    WeightDecay,
    groups,
    plan,
)
from tinyflux.optimise.rule import UpdateRule
from tinyflux.optimise.writing import in_one_pass, straight


class Key:
    """Stands for a Tensor: weakly referenced, with elementwise `==` and no truth value."""

    def __init__(self, data):
        self.data = data

    def __eq__(self, other):
        return self.data == getattr(other, "data", other)

    __hash__ = object.__hash__


def stepped(opt, keys, gradients):
    opt.step_(keys, [k.data for k in keys], gradients)


# --- the textbook: each yields the amount to subtract, given (x, g)


def textbook_sgd(o, z):
    _, g = yield
    while True:
        _, g = yield o.lr * g


def textbook_momentum(o, v):
    _, g = yield
    while True:
        v = o.rho * v - o.lr * g
        _, g = yield -v


def textbook_nesterov(o, v):
    _, g = yield
    while True:
        step = -(o.rho**2 * v - (1 + o.rho) * o.lr * g)
        v = o.rho * v - o.lr * g
        _, g = yield step


def textbook_rmsprop(o, acc):
    _, g = yield
    while True:
        acc = o.rho * acc + (1 - o.rho) * g**2
        _, g = yield o.lr * g / (np.sqrt(acc) + o.eps)


def textbook_adagrad(o, acc):
    _, g = yield
    while True:
        acc = acc + g**2
        _, g = yield o.lr * g / (np.sqrt(acc) + o.eps)


def textbook_adadelta(o, acc):
    d = acc
    _, g = yield
    while True:
        acc = o.rho * acc + (1 - o.rho) * g**2
        step = g * np.sqrt(d + o.eps) / np.sqrt(acc + o.eps)
        d = o.rho * d + (1 - o.rho) * step**2
        _, g = yield step


def moments(o, z):
    """Yield t, m, v, the corrected ones, x and g; takes the step it is sent on."""
    m = v = z
    t, step = 0, None
    while True:
        x, g = yield step
        t += 1
        b1, b2 = o.beta
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step = yield t, x, g, m, v, m / (1 - b1**t), v / (1 - b2**t)


def by_moments(rule):
    """A textbook rule from a function of (o, memory, t, x, g, m, v, m corrected, v corrected)."""

    def textbook(o, z):
        inner, memory, step = moments(o, z), {"zero": z}, None
        next(inner)
        while True:
            x, g = yield step
            step = rule(o, memory, *inner.send((x, g)))
            inner.send(step)

    return textbook


def adam(o, memory, t, x, g, m, v, mhat, vhat):
    return o.lr * mhat / (np.sqrt(vhat) + o.eps)


def adamw(o, memory, t, x, *rest):
    return adam(o, memory, t, x, *rest) + o.lr * o.decay * x


def radam(o, memory, t, x, g, m, v, mhat, vhat):
    b2 = o.beta[1]
    top = 2 / (1 - b2) - 1
    rho = top - 2 * t * b2**t / (1 - b2**t)
    if rho <= 4:
        return o.lr * mhat
    r = np.sqrt((rho - 4) * (rho - 2) * top / ((top - 4) * (top - 2) * rho))
    return o.lr * r * mhat / (np.sqrt(vhat) + o.eps)


def adamax(o, memory, t, x, g, m, v, mhat, vhat):
    memory["u"] = np.maximum(o.beta[1] * memory.get("u", memory["zero"]), np.abs(g))
    return o.lr * mhat / (memory["u"] + o.eps)


def oadam(o, memory, *args):
    before = memory.get("s", memory["zero"])
    memory["s"] = adam(o, memory, *args)
    return 2 * memory["s"] - before


def amsgrad(o, memory, t, x, g, m, v, mhat, vhat):
    memory["top"] = np.maximum(memory.get("top", memory["zero"]), v)
    return o.lr * m / (np.sqrt(memory["top"]) + o.eps)


def nadam(o, memory, t, x, g, m, v, mhat, vhat):
    b1, b2 = o.beta
    ahead = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return o.lr * ahead / (np.sqrt(b2 * vhat) + o.eps)


def adabelief(o, memory, t, x, g, m, v, mhat, vhat):
    b2 = o.beta[1]
    memory["s"] = b2 * memory.get("s", memory["zero"]) + (1 - b2) * (g - m) ** 2
    return o.lr * m / (np.sqrt(memory["s"]) + o.eps)


TEXTBOOK = {
    opts.SGD: textbook_sgd,
    opts.Momentum: textbook_momentum,
    opts.Nesterov: textbook_nesterov,
    opts.RMSProp: textbook_rmsprop,
    opts.ADAGrad: textbook_adagrad,
    opts.ADADelta: textbook_adadelta,
    opts.ADAM: by_moments(adam),
    opts.ADAMW: by_moments(adamw),
    opts.RADAM: by_moments(radam),
    opts.AdaMax: by_moments(adamax),
    opts.OADAM: by_moments(oadam),
    opts.AMSGrad: by_moments(amsgrad),
    opts.NADAM: by_moments(nadam),
    opts.AdaBelief: by_moments(adabelief),
}
RULES = list(TEXTBOOK)
named = pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)


class Oracle:
    """A textbook rule in longdouble."""

    def __init__(self, opt, x):
        self.x = x.astype(np.longdouble)
        self.rule = TEXTBOOK[type(opt)](opt, np.zeros_like(self.x))
        next(self.rule)

    def step(self, g):
        self.x = self.x - self.rule.send((self.x, g.astype(np.longdouble)))


def test_every_rule_is_in_the_table():
    rules = {c for c in vars(opts).values() if isinstance(c, type) and issubclass(c, UpdateRule)}
    modifiers = {Optimiser, WeightDecay, ClipValue, ClipNorm, opts.ExpDecay, opts.InvDecay}
    assert rules - modifiers - {UpdateRule} == set(RULES)
    assert opts.Descent is SGD


TOLERANCE = {"f4": (1e-4, 1e-5), "f8": (1e-12, 1e-13), "g": (1e-12, 1e-13)}


@named
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_textbook(rule, dtype):
    rng = np.random.default_rng(1)
    opt = rule()
    if hasattr(opt, "decay"):
        opt.decay = 0.1
    keys = [Key(rng.standard_normal(s).astype(dtype)) for s in [(3, 4), (5,), (), (0, 2)]]
    oracles = [Oracle(opt, k.data) for k in keys]
    for _ in range(50):
        gradients = [rng.standard_normal(k.data.shape).astype(dtype) for k in keys]
        stepped(opt, keys, gradients)
        for oracle, g in zip(oracles, gradients, strict=True):
            oracle.step(g)
    for k, oracle in zip(keys, oracles, strict=True):
        assert k.data.dtype == dtype
        np.testing.assert_allclose(k.data, oracle.x, *TOLERANCE[dtype])


@named
def test_hyper_parameters_may_change_in_mid_training(rule):
    rng = np.random.default_rng(2)
    opt, key = rule(), Key(rng.standard_normal(7))
    oracle = Oracle(opt, key.data)
    new = {"lr": 0.02, "beta": (0.8, 0.95), "rho": 0.7, "eps": 1e-3, "decay": 0.05}
    for t in range(200):
        if t == 60:
            for name in opt.fields:
                setattr(opt, name, new[name])
        if t == 130 and "beta" in opt.fields:
            opt.beta = (0.95, 0.9)
        g = rng.standard_normal(7)
        stepped(opt, [key], [g])
        oracle.step(g)
    np.testing.assert_allclose(key.data, oracle.x, rtol=1e-12, atol=1e-12)


@named
@pytest.mark.parametrize("clipped", [False, True])
def test_decays_of_any_size(rule, clipped):
    """Those of 0 as well, where nothing is remembered; and in a chain that works on copies."""
    rng = np.random.default_rng(4)
    for decay in (0.0, 1e-4, 0.5, 0.999):
        opt, key = rule(), Key(rng.standard_normal(5))
        for name, value in {"beta": (decay, decay), "rho": decay, "eps": 1e-3}.items():
            if name in opt.fields:
                setattr(opt, name, value)
        oracle = Oracle(opt, key.data)
        whole = Optimiser(opts.ClipNorm(1e9), opt) if clipped else opt
        for _ in range(40):
            g = rng.standard_normal(5)
            stepped(whole, [key], [g])
            oracle.step(g)
        np.testing.assert_allclose(key.data, oracle.x, rtol=1e-12, atol=1e-12)


ADAMS = {"lr": 0.001, "beta": (0.9, 0.999), "eps": 1e-8}
DEFAULTS = {  # of Flux 0.12
    SGD: {"lr": 0.1},
    Momentum: {"lr": 0.01, "rho": 0.9},
    opts.Nesterov: {"lr": 0.001, "rho": 0.9},
    RMSProp: {"lr": 0.001, "rho": 0.9, "eps": 1e-8},
    opts.ADAGrad: {"lr": 0.1, "eps": 1e-8},
    opts.ADADelta: {"rho": 0.9, "eps": 1e-8},
    opts.ADAMW: {**ADAMS, "decay": 0.0},
    opts.OADAM: {**ADAMS, "beta": (0.5, 0.9)},
}


@named
def test_defaults(rule):
    opt = rule()
    assert {name: getattr(opt, name) for name in opt.fields} == DEFAULTS.get(rule, ADAMS)


class Mean(UpdateRule):
    """A rule as a user writes it: x -= lr * m, m = 0.7 * m + g, with a moment that fades."""

    lr: opts.fields.Rate = 0.1
    moments = ("m",)

    def fade(self, m):
        return (0.7 * m,)

    def constants(self, t, n, m):
        return 1 / m, self.lr * m

    def delta(self, x, g, u, m, new, rate):
        m += g * new
        np.multiply(m, rate, out=u)


@pytest.mark.parametrize(
    "make",
    [
        Mean,
        lambda: Optimiser(opts.ClipNorm(1e9), Mean()),
        lambda: Optimiser(Mean(), SGD(1.0), opts.ClipValue(1e9)),
    ],
)
def test_a_rule_of_ones_own_may_fade(make):
    rng = np.random.default_rng(0)
    opt, key, m = make(), Key(rng.standard_normal(6)), 0.0
    x = key.data.astype(np.longdouble)
    for _ in range(200):
        g = rng.standard_normal(6)
        stepped(opt, [key], [g])
        m = 0.7 * m + g
        x = x - 0.1 * m
    np.testing.assert_allclose(key.data, x, rtol=1e-12, atol=1e-12)


@named
def test_a_scale_that_is_loaded_counts(rule):
    """Half the arrays at twice the scale are the same state."""
    keys = [Key(np.ones(3)) for _ in range(2)]
    one, two = rule(), rule()
    for g in (1.0, 2.0):
        stepped(one, keys[:1], [np.full(3, g)])
        stepped(two, keys[1:], [np.full(3, g)])
    state = two.state(keys[1])
    scale = state.get("scale", np.ones(len(rule.moments)))
    halves = {name: state[name] / 2 for name in rule.moments}
    two.load_state_(keys[1], {**state, **halves, "scale": scale * 2}, keys[1].data)
    stepped(one, keys[:1], [np.full(3, 3.0)])
    stepped(two, keys[1:], [np.full(3, 3.0)])
    np.testing.assert_allclose(keys[0].data, keys[1].data, rtol=1e-14)
    for bad in (0.0, -1.0, np.inf, np.nan):
        if rule.moments:
            with pytest.raises(ValueError, match="positive"):
                two.load_state_(keys[1], {**state, "scale": scale * bad}, keys[1].data)


@named
def test_state_is_the_textbook_moments(rule):
    opt, key = rule(), Key(np.zeros(2))
    for g in (1.0, 2.0):
        stepped(opt, [key], [np.full(2, g)])
    state = opt.state(key)
    assert state["t"] == state["step"] == 2
    moment = dict(zip(rule.moments, state.get("scale", np.ones(9)), strict=False))
    if "m" in state:
        b1 = opt.beta[0]
        np.testing.assert_allclose(state["m"] * moment["m"], (1 - b1) * (b1 + 2))
    if "v" in state and "beta" in opt.fields:
        b2 = opt.beta[1]
        np.testing.assert_allclose(state["v"] * moment["v"], (1 - b2) * (b2 + 4))


# --- the ways of running it


def run(opt, arrays, steps=5, seed=3, together=True):
    rng = np.random.default_rng(seed)
    keys = [Key(a) for a in arrays]
    for _ in range(steps):
        gradients = [rng.standard_normal(a.shape).astype(a.dtype) for a in arrays]
        if together:
            stepped(opt, keys, gradients)
        else:
            for key, g in zip(keys, gradients, strict=True):
                stepped(opt, [key], [g])
    return [k.data for k in keys]


CHAIN = [*RULES, lambda: Optimiser(WeightDecay(0.1), ClipValue(0.5), ADAM(), Momentum(), SGD())]


@settings(max_examples=examples(60), deadline=None)
@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=5),
    block=st.integers(1, 8),
    make=st.sampled_from(CHAIN),
)
def test_blocks_and_groups_change_no_bit(sizes, block, make):
    start = [np.linspace(-1, 1, n, dtype="f4") for n in sizes]
    with pytest.MonkeyPatch.context() as patch:
        results = []
        for size, together in [(block, True), (block, False), (10**6, True), (10**6, False)]:
            patch.setattr(groups, "BLOCK", size)
            results.append(run(make(), [a.copy() for a in start], together=together))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.tobytes() == b.tobytes()


@named
def test_two_passes_in_one_change_the_last_bits_alone(rule, monkeypatch):
    start = np.linspace(-1, 1, 50, dtype="f8").reshape(5, 10)
    (plain,) = run(rule(), [start.copy()], steps=80)
    monkeypatch.setattr(plan, "LARGE", 20)
    monkeypatch.setattr(groups, "BLOCK", 7)
    (fused,) = run(rule(), [start.copy()], steps=80)
    np.testing.assert_allclose(fused, plain, rtol=1e-12, atol=1e-13)


def test_large_parameters_take_fewer_passes(monkeypatch):
    monkeypatch.setattr(plan, "LARGE", 20)
    for rule, passes in [(SGD(), 1), (Momentum(), 2), (ADAM(), 7)]:
        key = Key(np.ones(30))
        prepared = rule.prepare([key], [key.data])
        names = [call[0].__name__ for call in prepared.plan.lanes[0].template]
        assert len([name for name in names if name != "negative"]) == passes


@pytest.mark.parametrize("make", [ADAM, lambda: Optimiser(ADAMW(), ClipNorm(1.0))])
@pytest.mark.parametrize("size", [7, 40_000])
def test_what_is_written_to_begins_at_a_line_of_the_cache(make, size):
    """Where it does not, a product of two arrays takes twice as long."""
    keys = [Key(np.ones(size, "f4")), Key(np.ones((3, 5), "f4"))]
    for lane in make().prepare(keys, [key.data for key in keys]).plan.lanes:
        arrays = [*chain(*lane.group.moments), lane.out, *lane.inputs]
        work = [u for _, stages in lane.blocks for links in stages for _, _, u, *_ in links]
        for a in [*arrays, work[0]]:
            assert a is None or a.ctypes.data % 64 == 0


def test_a_rule_may_write_to_its_numbers():
    class Doubling(SGD):
        def delta(self, x, g, u, lr):
            lr *= 2
            np.multiply(g, lr, out=u)

    key, opt = Key(np.zeros(2)), Doubling(0.5)
    for n in range(3):
        stepped(opt, [key], [np.ones(2)])
        np.testing.assert_array_equal(key.data, -(n + 1.0))


def test_numbers_are_those_of_the_step():
    key, opt = Key(np.zeros(2)), SGD(0.5)
    for lr in (0.5, 0.5, 0.25, 0.5):
        opt.lr, before = lr, key.data.copy()
        stepped(opt, [key], [np.ones(2)])
        np.testing.assert_array_equal(key.data, before - lr)


def test_parameters_are_gathered_only_for_rules_that_look_at_them():
    class Own(SGD):
        def delta(self, x, g, u, lr):
            np.multiply(x + g, lr, out=u)

    keys = [Key(np.ones(2)), Key(np.ones(3))]
    clipped = Optimiser(SGD(), ClipNorm(1.0))
    for rule, looks in [(ADAM(), False), (clipped, False), (ADAMW(), True), (Own(), True)]:
        (lane,) = rule.prepare(keys, [key.data for key in keys]).plan.lanes
        assert lane.gathers is looks


def test_two_calls_become_one_only_where_nobody_reads_what_is_left_out():
    x, y, u, c = np.ones(3), np.ones(3), np.empty(3), np.array(0.5)
    product, total = (np.multiply, x, c, u), (np.add, y, u, y)
    names = lambda calls, work=(u,): [call[0] for call in in_one_pass(calls, [*work])]
    (fused,) = names([product, total])
    assert "dger" in fused.__name__
    for later in [(np.sqrt, u, y), (partial(np.maximum, out=y), x, u), (setitem, y, ..., u)]:
        assert names([product, total, later]) == [np.multiply, np.add, later[0]]
    for later in [(np.sqrt, x, u), (partial(np.maximum, out=u), x, x), (setitem, u, ..., x)]:
        assert names([product, total, later]) == [fused, later[0]]
    assert names([product, total], work=()) == [np.multiply, np.add]  # not a work array
    assert names([(np.multiply, x, y, u), total]) == [np.multiply, np.add]  # no number
    assert names([product, (np.add, u, y, y)]) == [np.multiply, np.add]
    short = np.ones(3, "f2")
    assert len(names([(np.multiply, short, c, u), (np.add, short, u, short)])) == 2


def test_vectors_are_added_in_pieces_for_one_thread():
    key, g = Key(np.ones(150_000)), np.arange(150_000.0)
    g.flags.writeable = False
    opt = SGD(0.5)
    stepped(opt, [key], [g])
    np.testing.assert_array_equal(key.data, 1 - 0.5 * g)
    (lane,) = opt.prepare([key], [key.data]).plan.lanes
    added = [call[2] for call in lane.filled(g) if "ger" in call[0].__name__]
    assert sum(map(len, added)) == 150_000 and max(map(len, added)) <= 32768


def misaligned(a):
    """A copy of an array that begins at an odd address."""
    raw = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    return raw


@named
def test_large_parameters_at_odd_addresses(rule, monkeypatch):
    monkeypatch.setattr(plan, "LARGE", 20)
    start = np.linspace(-1, 1, 30)
    odd = misaligned(start)
    assert not odd.flags.aligned
    (moved,), (wanted,) = run(rule(), [odd]), run(rule(), [start.copy()])
    np.testing.assert_allclose(moved, wanted, rtol=1e-12, atol=1e-13)
    assert moved is odd


LAYOUTS = {
    "fortran": lambda a: np.asfortranarray(a),
    "strided": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
}


@named
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", [5, 10**6])
def test_layouts_change_no_bit(rule, layout, block, monkeypatch):
    monkeypatch.setattr(groups, "BLOCK", block)
    a = np.random.default_rng(0).standard_normal((4, 6))
    arrays = [LAYOUTS[layout](a.copy()), a.copy()]
    odd, plain = run(rule(), arrays), run(rule(), [a.copy(), a.copy()])
    np.testing.assert_array_equal(odd[0], plain[0])
    assert odd[0] is arrays[0]


def test_gradients_of_any_layout():
    a, g = np.zeros((3, 4)), np.arange(12.0).reshape(4, 3).T
    for block in (2, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(groups, "BLOCK", block)
            x = a.copy()
            stepped(SGD(1.0), [Key(x)], [g])
            np.testing.assert_array_equal(x, -g)


def test_the_array_of_a_key_may_be_replaced():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 3))
    one, two = Key(a.copy()), Key(a.copy())
    opt = ADAM(0.1)
    for t in range(6):
        g = rng.standard_normal((4, 3))
        if t == 3:
            two.data = np.asfortranarray(two.data)
        if t == 5:
            two.data = two.data.copy()
        stepped(opt, [one, two], [g, g])
    np.testing.assert_array_equal(one.data, two.data)
    one.data = one.data.astype("f4")
    stepped(opt, [one, two], [g.astype("f4"), g])
    np.testing.assert_allclose(one.data, two.data, rtol=1e-5)
    assert opt.state(one)["m"].dtype == "f4"
    two.data = np.zeros(3)
    with pytest.raises(ValueError, match="reset_"):
        stepped(opt, [two], [two.data])


@named
@pytest.mark.parametrize("block", [3, 10**6])
def test_nothing_else_is_written_to(rule, block, monkeypatch):
    monkeypatch.setattr(groups, "BLOCK", block)
    base = np.ones(20)
    gradients = [np.full(8, 2.0), np.full((2, 2), 3.0)]
    for g in gradients:
        g.flags.writeable = False
    keys = [Key(base[4:12]), Key(np.ones((2, 2)))]
    for _ in range(3):
        stepped(rule(), keys, gradients)
    assert (base[:4] == 1).all() and (base[12:] == 1).all() and (base[4:12] < 1).all()
    assert (gradients[0] == 2).all() and (gradients[1] == 3).all()


@named
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g", ">f4"])
def test_dtype_stays(rule, dtype):
    key = Key(np.ones(3, dtype))
    for _ in range(3):
        stepped(rule(), [key], [np.ones(3, dtype)])
    assert key.data.dtype == dtype and np.isfinite(key.data).all() and (key.data < 1).all()


@pytest.mark.slow
@named
def test_both_landscapes(rule):
    def quadratic(x):
        return (x**2 * [1.0, 20.0]).sum(), 2 * x * [1.0, 20.0]

    def rosenbrock(x):
        a, b = x
        value = (1 - a) ** 2 + 100 * (b - a * a) ** 2
        return value, np.array([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)])

    for f in either((quadratic, rosenbrock), (rosenbrock,)):
        opt, key = rule(), Key(np.array([-1.2, 1.0]))
        if "lr" in opt.fields:
            opt.lr = 5e-4 if rule in (SGD, Momentum, opts.Nesterov, opts.RADAM) else 0.02
        first = f(key.data)[0]
        for _ in range(1500):
            stepped(opt, [key], [f(key.data)[1]])
        slow = rule in (opts.ADADelta, opts.RADAM)
        assert f(key.data)[0] < first * (0.9 if slow else 0.2)


# --- state: whose it is, and for how long


def test_missing_gradients_leave_state_alone():
    a, b, c = (Key(np.ones(3)) for _ in range(3))
    opt, g = ADAM(0.1), np.ones(3)
    stepped(opt, [a, b, c], [g, g, g])
    before = opt.state(b)
    stepped(opt, [a, c], [g, g])
    assert opt.state(b)["t"] == 1 and opt.state(a)["t"] == 2
    np.testing.assert_array_equal(opt.state(b)["m"], before["m"])
    stepped(opt, [a, b, c], [g, g, g])
    assert (opt.state(a)["t"], opt.state(b)["t"]) == (3, 2)
    lone = Key(np.ones(3))
    for _ in range(2):
        stepped(opt, [lone], [g])
    np.testing.assert_array_equal(lone.data, b.data)


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=12))
def test_any_selections_of_parameters_in_any_order(selections):
    rng = np.random.default_rng(0)
    opt, keys = ADAM(0.1), [Key(np.ones(i + 1)) for i in range(4)]
    alone, copies = [ADAM(0.1) for _ in keys], [Key(np.ones(i + 1)) for i in range(4)]
    for chosen in selections:
        order = sorted(chosen, key=lambda i: (i * 7) % 4)
        gradients = [rng.standard_normal(i + 1) for i in order]
        stepped(opt, [keys[i] for i in order], gradients)
        for i, g in zip(order, gradients, strict=True):
            stepped(alone[i], [copies[i]], [g])
    for one, other in zip(keys, copies, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_state_dies_with_its_key_without_the_garbage_collector():
    opt = ADAM()
    keys = [Key(np.ones(5)) for _ in range(3)]
    arrays = [weakref.ref(k.data) for k in keys]
    gc.disable()
    try:
        stepped(opt, keys, [np.ones(5)] * 3)
        assert len(opt._stepper._entries) == 3
        del keys[1]
        assert len(opt._stepper._entries) == 2 and arrays[1]() is None
        stepped(opt, keys, [np.ones(5)] * 2)
        assert [opt.state(k)["t"] for k in keys] == [2, 2]
        gone = weakref.ref(opt)
        del opt
        assert gone() is None
        del keys
        assert all(a() is None for a in arrays)
    finally:
        gc.enable()


def test_a_key_may_die_with_its_optimiser():
    """A rule that holds the last reference to a parameter ends after its optimiser has ended."""
    opt, key = Optimiser(SGD()), Key(np.ones(2))
    stepped(opt, [key], [np.ones(2)])
    gone, opt[0]._anchor = weakref.ref(key), key
    del key, opt
    assert gone() is None  # pytest fails a test whose weak references could not say so


def test_what_a_dying_key_calls_may_copy_the_optimiser():
    opt, key, copies = ADAM(), Key(np.ones(2)), []
    look = lambda _: copies.append(copy.deepcopy(opt))
    first = weakref.ref(key, look)
    stepped(opt, [key], [np.ones(2)])
    last = weakref.ref(key, look)
    del key
    assert [len(c._stepper._entries) for c in copies] == [0, 0]
    assert first() is last() is None


def test_a_new_key_never_finds_old_state():
    opt, keep = ADAM(), Key(np.ones(2))
    for _ in range(300):
        key = Key(np.ones(2))
        assert opt.state(key) == {}
        stepped(opt, [keep, key], [np.ones(2)] * 2)
        assert opt.state(key)["t"] == 1
        del key
    assert opt.state(keep)["t"] == 300 and len(opt._stepper._entries) == 1


def test_two_models_take_turns_without_planning_anew():
    opt = ADAM()
    one, two = ([Key(np.ones(3)) for _ in range(2)] for _ in range(2))
    for keys in (one, two):
        stepped(opt, keys, [np.ones(3)] * 2)
    plans = list(opt._stepper._plans.values())
    for keys in (one, two, one):
        stepped(opt, keys, [np.ones(3)] * 2)
    assert all(p is q for p, q in zip(plans, opt._stepper._plans.values(), strict=True))


@named
def test_resume_is_bit_identical(rule):
    def training(opt, keys, steps, rng):
        for _ in range(steps):
            stepped(opt, keys, [rng.standard_normal(k.data.shape).astype("f4") for k in keys])

    make = {0: rule, 1: lambda: Optimiser(opts.ExpDecay(0.5, 4), rule(), WeightDecay(0.1))}
    for kind in make.values():
        opt, keys = kind(), [Key(np.ones((2, 3), "f4")), Key(np.ones(4, "f4"))]
        rng = np.random.default_rng(0)
        training(opt, keys, 7, rng)
        states = [opt.state(k) for k in keys]
        again, other = kind(), [Key(k.data.copy()) for k in keys]
        for key, state in zip(other, states, strict=True):
            again.load_state_(key, state, key.data)
        later = copy.deepcopy(rng)
        training(opt, keys, 7, rng)
        training(again, other, 7, later)
        assert len({id(group) for _, group in again._stepper._entries.values()}) == 1
        for a, b in zip(keys, other, strict=True):
            assert a.data.tobytes() == b.data.tobytes()
            for name, value in opt.state(a).items():
                np.testing.assert_array_equal(value, again.state(b)[name])


def test_state_gives_copies_and_load_checks():
    opt, key = ADAM(), Key(np.ones(3))
    stepped(opt, [key], [np.ones(3)])
    state = opt.state(key)
    state["m"][:] = 77
    assert (opt.state(key)["m"] != 77).all()
    with pytest.raises(ValueError, match="'v'"):
        opt.load_state_(key, {"m": state["m"], "t": 1}, key.data)
    with pytest.raises(ValueError, match="'m'"):
        opt.load_state_(key, {**state, "m": np.ones(2)}, key.data)
    with pytest.raises(ValueError, match=r"'m' must be an array of shape \(\)"):
        opt.load_state_(Key(np.ones(())), {"t": 1}, np.ones(()))
    assert opt.state(key)["t"] == 1
    opt.load_state_(key, {"m": np.full(3, 0.1), "v": np.full(3, 0.001), "t": 1}, key.data)
    twin, other = ADAM(), Key(np.ones(3))
    stepped(twin, [other], [np.ones(3)])
    key.data[:] = other.data
    for o, k in ((opt, key), (twin, other)):
        stepped(o, [k], [np.ones(3)])
    np.testing.assert_allclose(key.data, other.data, rtol=1e-13)
    opt.load_state_(key, {}, key.data)
    assert opt.state(key) == {}
    twin.reset_()
    assert twin.state(other) == {}


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("make", [ADAM, lambda: Optimiser(SGD(), Optimiser(Momentum(), ADAM()))])
def test_model_and_optimiser_are_copied_together(clone, make):
    keys, opt = [Key(np.ones(3)), Key(np.ones(2))], make()
    gradients = [np.arange(3.0), np.arange(2.0)]
    for _ in range(3):
        stepped(opt, keys, gradients)
    keys2, opt2 = clone((keys, opt))
    for o, k in ((opt, keys), (opt2, keys2)):
        stepped(o, k, gradients)
        assert o.state(k[0])["t"] == o.state(k[0])["step"] == 4
    for a, b in zip(keys, keys2, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
        assert a.data is not b.data and opt2.state(a) == {}
    assert repr(opt2) == repr(opt)


def test_shallow_copy_is_independent():
    opt, key = ADAM(), Key(np.ones(3))
    stepped(opt, [key], [np.ones(3)])
    other = copy.copy(opt)
    stepped(other, [key], [np.ones(3)])
    assert (opt.state(key)["t"], other.state(key)["t"]) == (1, 2)


# --- all or nothing


@pytest.mark.parametrize(
    "gradients",
    [
        [np.ones(3)],
        [np.ones(3), np.ones(3), np.ones(3)],
        [np.ones(3), np.ones((2, 1))],
        [np.ones(1), np.ones(2)],
        [np.ones(3), np.ones(2, "f4")],
    ],
)
def test_a_mismatch_changes_nothing(gradients):
    keys, opt = [Key(np.ones(3)), Key(np.ones(2))], ADAM()
    with pytest.raises(ValueError, match="radient"):
        stepped(opt, keys, gradients)
    assert all((k.data == 1).all() for k in keys)
    stepped(opt, keys, [np.ones(3), np.ones(2)])
    before = [(k.data.copy(), opt.state(k)) for k in keys]
    with pytest.raises(ValueError, match="radient"):
        stepped(opt, keys, gradients)
    for key, (data, state) in zip(keys, before, strict=True):
        np.testing.assert_array_equal(key.data, data)
        for name, value in opt.state(key).items():
            np.testing.assert_array_equal(value, state[name])


def test_keys_and_arrays_that_cannot_be_updated():
    a, b = Key(np.ones(2)), Key(np.ones(2))
    opt, g = SGD(), np.ones(2)
    with pytest.raises(ValueError, match="different"):
        stepped(opt, [a, a], [g, g])
    with pytest.raises(ValueError, match="arrays"):
        opt.step_([a, b], [a.data], [g])
    stepped(opt, [a, b], [g, g])
    with pytest.raises(ValueError, match="arrays"):
        opt.step_([a, b], [a.data], [g])
    for wrong, what in ((np.ones(2, int), "int64"), (np.ones(2, complex), "complex")):
        with pytest.raises(TypeError, match=what):
            stepped(opt, [Key(wrong)], [wrong])
    b.data = np.ones(2)
    b.data.flags.writeable = False
    before = a.data.copy()
    with pytest.raises(TypeError, match="read-only"):
        stepped(opt, [a, b], [g, g])
    np.testing.assert_array_equal(a.data, before)
    with pytest.raises(TypeError, match=r"Parameter 1 is .*; wanted a writeable array"):
        opt.prepare([a, Key(0)], [a.data, [1.0, 1.0]])
    stepped(opt, [], [])


def test_numpy_stays_silent_inside_and_loud_outside():
    key = Key(np.ones(3, "f4"))
    g = np.array([1e-30, 1e30, 3e38], "f4")
    with np.errstate(all="raise"):
        for rule in RULES:
            stepped(rule(), [key], [g])
        with pytest.raises(FloatingPointError):
            np.float32(1e-30) * np.float32(1e-30)


def test_faded_moments_are_flushed_and_no_parameter_notices(monkeypatch):
    rng = np.random.default_rng(0)
    gradients = [rng.standard_normal(64).astype("f4") for _ in range(3)]

    def train(rule):
        opt, key = rule(), Key(np.ones(64, "f4"))
        for g in gradients + [np.zeros(64, "f4")] * 2000:
            stepped(opt, [key], [g])
        return key.data, opt.state(key)

    for rule in either(RULES, [ADAM, Momentum, opts.ADADelta]):
        flushed, state = train(rule)
        with monkeypatch.context() as patch:
            patch.setattr(plan, "FLUSH", 10**9)
            plain, _ = train(rule)
        assert flushed.tobytes() == plain.tobytes()
        tiny = np.finfo("f4").tiny
        for m in (state[name] for name in rule.moments):
            assert not ((m != 0) & (np.abs(m) < tiny)).any()


def test_moments_that_count_in_a_denominator_are_not_flushed():
    """With eps = 0 the smallest root of a mean square is a divisor like any other."""
    opt, key = RMSProp(0.1, eps=0.0), Key(np.ones(3, "f4"))
    for _ in range(150):
        stepped(opt, [key], [np.full(3, 1e-17, "f4")])
    assert opt.state(key)["acc"].all()
    assert not np.isnan(key.data).any()


@pytest.mark.parametrize("rule", [rule for rule in RULES if "eps" in rule.fields])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("eps", [0, 1e-50])
def test_without_a_gradient_nothing_moves_whatever_eps(rule, dtype, eps):
    """0 / 0 would be nan, and the square of what is tiny is 0 as well."""
    opt, key = rule(eps=eps), Key(np.ones(3, dtype))
    for _ in range(10):
        stepped(opt, [key], [np.array([0.0, 1e-24, 1.0], dtype)])
    assert key.data[0] == 1 and key.data[2] <= 1
    assert abs(key.data[1] - 1) <= 1 - key.data[2] + np.finfo(dtype).eps


def test_radam_divides_by_no_square_at_first_even_if_that_is_infinite():
    opt, keys = opts.RADAM(1.0), [Key(np.zeros(1, "f4")), Key(np.zeros(1))]
    for key in keys:
        stepped(opt, [key], [np.full(1, 1e30, key.data.dtype)])
    assert keys[0].data == np.float32(keys[1].data) == np.float32(-1e30)


def test_a_prepared_step_follows_the_arrays_that_it_is_given():
    """Large parameters are read where they stand; another array is another gradient."""
    large, small = Key(np.ones(50_000)), Key(np.ones(3))
    opt, keys = SGD(0.5), [large, small]
    prepared = opt.prepare(keys, [k.data for k in keys])
    for g in (1.0, 2.0, 2.0):
        gradients = [np.full(50_000, g), np.full(3, g)]
        for _ in range(2):
            prepared.run(gradients, gathered=True)
    np.testing.assert_array_equal(large.data, np.full(50_000, 1 - 0.5 * 2 * 5))
    np.testing.assert_array_equal(small.data, np.full(3, 1 - 0.5 * 2 * 5))


def test_a_prepared_step_offers_places_of_the_type_of_the_gradient():
    """Half precision is updated in single precision: its gradients are converted on the way."""
    keys = [Key(np.ones(2, d)) for d in ("f2", "f4", "f2")]
    places = SGD(0.5).prepare(keys, [k.data for k in keys]).places
    assert places[0] is None and places[2] is None
    assert places[1] is None or places[1].dtype == np.float32


@pytest.mark.parametrize("dtype", ["f2", ">f4", ">f8"])
def test_gradients_without_a_place_are_read_where_they_are(dtype):
    keys = [Key(np.zeros(2, dtype)), Key(np.zeros(3, "f4"))]
    prepared = SGD(1.0).prepare(keys, [k.data for k in keys])
    gradients = [np.empty_like(k.data) if at is None else at
                 for k, at in zip(keys, prepared.places, strict=True)]  # fmt: skip
    for value in (1.0, 2.0):
        for g in gradients:
            g[...] = value
        prepared.run(gradients, gathered=True)
    assert [k.data.tolist() for k in keys] == [[-3.0] * 2, [-3.0] * 3]


@pytest.mark.parametrize("n", [5, 60, 400])
@pytest.mark.parametrize("rule", [SGD, ADAM])
def test_gradients_may_have_the_memory_of_parameters(rule, n):
    """A large one is updated block by block: it is not to be read where it was changed."""
    both = np.random.default_rng(0).standard_normal((2, n, n))
    for turn in (lambda a, b: (a.T, b[::-1]), lambda a, b: (b, a), lambda a, b: (a, b)):
        a, b, c, d = map(Key, (*both.copy(), *both.copy()))
        stepped(rule(), [a, b], turn(a.data, b.data))
        stepped(rule(), [c, d], [g.copy() for g in turn(c.data, d.data)])
        np.testing.assert_array_equal([a.data, b.data], [c.data, d.data])


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("n", [1, 2])
def test_arrays_of_other_classes_count_as_plain_ones_and_masks_are_refused(n):
    class Odd(np.ndarray):
        def __array_ufunc__(self, *args, **kwargs):
            raise AssertionError("nobody is to ask")

    for odd in (np.matrix(np.ones((2, 3))), np.ones((2, 3)).view(Odd)):
        keys = [Key(np.ones((2, 3))) for _ in range(n)]
        stepped(SGD(0.5), keys, [odd] * n)
        assert all((k.data == 0.5).all() for k in keys)
        keys = [Key(odd.copy()) for _ in range(n)]
        stepped(SGD(0.5), keys, [np.ones((2, 3))] * n)
        assert all((k.data.view(np.ndarray) == 0.5).all() for k in keys)
    masked = np.ma.masked_array(np.ones(3), [True, False, False])
    key = Key(np.ones(3))
    with pytest.raises(TypeError, match="gradient 0: got a masked array, whose mask"):
        stepped(SGD(), [key], [masked])
    with pytest.raises(TypeError, match="Parameter 0: got a masked array"):
        stepped(SGD(), [Key(masked)], [np.ones(3)])
    assert (key.data == 1).all()


def test_moments_of_half_precision_are_put_back_in_single_precision():
    key, opt = Key(np.ones(2, "f2")), opts.Momentum()
    opt.load_state_(key, {"v": np.array([0.1, 3.0], "f4"), "t": 1}, key.data)
    kept = opt.state(key)["v"]
    assert kept.dtype == np.float32 and kept[0] == np.float32(0.1)


def test_a_rule_that_is_written_down_is_made_of_ufuncs():
    """What a call returns is not known while the calls are being collected."""

    class Sorting(SGD):
        @straight
        def delta(self, x, g, u, lr):
            np.multiply(np.sort(g), lr, out=u)

    key, opt = Key(np.ones(2)), Sorting()
    with pytest.raises(TypeError, match=r"a rule that is written down calls np\.sort: use ufuncs"):
        stepped(opt, [key], [np.ones(2)])
    assert (key.data == 1).all()


def test_a_rule_of_ones_own_that_is_not_finished():
    class Returning(SGD):
        def delta(self, x, g, u, lr):
            return lr * g

    class NoDelta(UpdateRule):
        lr: float = 0.1

    class NoClip(UpdateRule):
        elementwise = False

    class NoTuple(UpdateRule):
        def constants(self, t, n):
            return 0.5

    class Silent(UpdateRule):
        def delta(self, x, g, u):
            u = g * 0.1  # noqa: F841  (another array of that name)

    with pytest.raises(TypeError, match=r"OneWord\.moments is 'v' \(str\); write \('v',\)"):
        type("OneWord", (UpdateRule,), {"moments": "v"})
    key = Key(np.ones(3))
    for rule, said in [
        (NoTuple(), r"NoTuple\.constants returned 0\.5 \(float\); wanted a tuple"),
        (Silent(), r"Silent\.delta left nothing \(or nan\) in u\. It is to leave in u"),
        (Returning(), r"Returning\.delta left nothing.* returned array.*leave in u"),
        (NoDelta(), r"NoDelta has no delta\(self, x, g, u"),
        (Optimiser(NoClip(), SGD()), r"NoClip is not elementwise, but has no clip_\(self, arrays"),
    ]:
        with pytest.raises(TypeError, match=said):
            stepped(rule, [key], [np.ones(3)])
        assert (key.data == 1).all() and rule.state(key) == {}


def test_plans_are_bounded():
    opt = SGD(0.1)
    for _ in range(40):
        key = Key(np.ones(2))
        stepped(opt, [key], [np.ones(2)])
        keep = [key]
    assert len(keep) == 1 and len(opt._stepper._plans) <= 16
    keys = [Key(np.ones(1)) for _ in range(40)]
    for key in keys:
        stepped(opt, [key], [np.ones(1)])
    assert len(opt._stepper._plans) <= 16


# --- hyper-parameters

NAN = float("nan")
BAD = {
    "lr": [-0.1, NAN, float("inf"), "0.1", None, True, [0.1]],
    "rho": [1.0, -0.1, NAN],
    "beta": [0.9, (0.9, 1.0), (0.9,), (-0.1, 0.9), ("a", "b"), (NAN, 0.9)],
    "eps": [-1e-8, NAN],
    "decay": [-1.0, NAN],
    "threshold": [0, -1.0, NAN],
    "whole": [1],
    "decay_step": [0, 1.5],
    "start": [-1],
    "clip": [2.0],
    "gamma": [-1.0],
}
MODIFIERS = [WeightDecay, ClipValue, ClipNorm, opts.ExpDecay, opts.InvDecay]


@pytest.mark.parametrize("field, value", [(f, v) for f, values in BAD.items() for v in values])
def test_bad_hyper_parameters(field, value):
    rules = [rule for rule in [*RULES, *MODIFIERS] if field in rule.fields]
    assert rules
    for rule in rules:
        needed = {"threshold": 1.0} if "threshold" in rule.fields else {}
        opt, sentence = rule(**needed), f"^{rule.__name__}: {field} must be .*got"
        before = getattr(opt, field)
        with pytest.raises((ValueError, TypeError), match=sentence):
            setattr(opt, field, value)
        assert getattr(opt, field) == before
        with pytest.raises((ValueError, TypeError), match=sentence):
            rule(**needed | {field: value})


def test_constructors():
    assert repr(ADAM()) == "ADAM(lr=0.001)"
    assert repr(ADAM(0.01, (0.8, 0.9), 1e-6)) == "ADAM(lr=0.01, beta=(0.8, 0.9), eps=1e-06)"
    assert repr(opts.ADAMW(0.01, (0.8, 0.9), 0.1)) == "ADAMW(lr=0.01, beta=(0.8, 0.9), decay=0.1)"
    assert repr(opts.OADAM()) == "OADAM(lr=0.001)" and opts.OADAM().beta == (0.5, 0.9)
    assert repr(ClipNorm(1, whole=True)) == "ClipNorm(threshold=1.0, whole=True)"
    assert ADAM(np.float32(0.5)).lr == 0.5 and ADAM(np.array(1)).lr == 1 and ADAM(0).lr == 0
    assert ADAM(beta=[0.5, 0.6]).beta == (0.5, 0.6)
    assert str(inspect.signature(Momentum)) == "(lr=0.01, rho=0.9)"
    assert SGD(0.1) != SGD(0.1) and len({SGD(), SGD()}) == 2
    for wrong in (lambda: ADAM(0.1, (0.9, 0.9), 0, 1), lambda: ADAM(eta=0.1), lambda: ClipNorm()):
        with pytest.raises(TypeError, match=r"(ADAM|ClipNorm)\("):
            wrong()
    with pytest.raises(AttributeError, match="lr, beta, eps"):
        ADAM().eta = 0.1
    with pytest.raises(TypeError, match="lr must"):
        ADAM(np.ones(3))


def test_an_optimiser_may_own_its_parameters():
    ps = [Key(np.ones(2)), Key(np.ones(3))]
    opt = ADAM(ps, 0.5, eps=1e-6)
    assert opt.ps is ps and (opt.lr, opt.eps) == (0.5, 1e-6)
    assert ADAM(0.5).ps is None
    assert all(a is b for a, b in zip(SGD(iter(ps)).ps, ps, strict=True))
    chain = Optimiser(ps, ClipValue(1.0), SGD())
    assert chain.ps is ps and len(chain) == 2
    assert ClipNorm(ps, 2.0).threshold == 2


def test_a_rate_of_zero_moves_nothing():
    for rule in RULES:
        if "lr" in rule.fields:
            key = Key(np.ones(3))
            stepped(rule(lr=0), [key], [np.ones(3)])
            assert (key.data == 1).all()
