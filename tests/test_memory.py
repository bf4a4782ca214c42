"""Memory: freed by counting references, at once; flat over a long run; no depth is too deep."""

import copy
import gc
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import tinyflux as flux
from tests.suites import only
from tinyflux.tape import open_tape

X = np.random.default_rng(0).standard_normal((32, 8)).astype("f4")
Y = np.arange(32) % 3


def network():
    """A small model, its parameters and a loss of it."""
    flux.seed_(0)
    m = flux.Chain(flux.Dense(8, 16, flux.relu), flux.Dropout(0.5), flux.Dense(16, 3))
    return m, flux.params(m), lambda x, y: flux.losses.logitcrossentropy(m(x), y)


@pytest.fixture
def asleep():
    """The garbage collector does nothing meanwhile."""
    gc.collect()
    gc.freeze()  # what there is by now need not be looked at again and again
    gc.disable()
    yield
    gc.enable()


# --- depth ---------------------------------------------------------------------------------------

DEEP = 100_000


def chain(x, n=DEEP):
    for _ in range(n):
        x = -x
    return x


def wide(x):
    """One leaf in many places."""
    total = x
    for _ in range(DEEP):
        total = total + x
    return total


def failing(x):
    raise LookupError(float(chain(x)))


def dropped():
    """The tape of a chain is freed without ever having been walked."""
    _, back = flux.pullback(chain, 1.0)
    middle = weakref.ref(back.rows[DEEP // 2][4])
    del back
    return middle() is None


def raised():
    with pytest.raises(LookupError):
        flux.gradient(failing, 1.0)
    return open_tape.get() is None


def inner():
    return flux.gradient(lambda x: flux.gradient(lambda y: chain(y * y, 20_000), x)[0], 3.0)


def trained():
    w = flux.Tensor(1.0)
    flux.train_(lambda: chain(w), [w], [()], flux.SGD(0.5))
    return float(w)


def stacked():
    (g,) = flux.gradient(lambda x: np.sum(np.stack([x] * 20_000)), np.ones(2))
    return g.tolist()


DEPTHS = {
    "a chain that is dropped": (dropped, True),
    "a chain that raises": (raised, True),
    "one leaf in many places": (lambda: flux.gradient(wide, 1.0), (DEEP + 1.0,)),
    "one operation with many operands": (stacked, [20_000, 20_000]),
    "a second derivative": (inner, (2.0,)),
    "training": (trained, 0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", DEPTHS)
def test_nothing_is_too_deep_for_a_small_stack(what):
    """100,000 operations in a thread with 256 KiB; neither C nor Python recurses."""
    work, wanted = DEPTHS[what]
    found, limit = [], sys.getrecursionlimit()
    size = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: found.append(work()))
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    assert found == [wanted] and sys.getrecursionlimit() == limit


@pytest.mark.slow
def test_a_million_operations_and_their_second_derivative(asleep):
    (g,) = flux.gradient(lambda x: chain(x, 1_000_000), 1.0)
    assert g == 1
    square = lambda x: flux.gradient(lambda y: chain(y * y, 300_000), x)[0]
    assert flux.gradient(square, 3.0) == (2.0,)
    assert gc.collect() == 0


# --- freed at once -------------------------------------------------------------------------------


def test_a_loss_that_is_kept_keeps_no_tape(asleep):
    """Neither as it was inside, nor as it came out, nor with its gradients or its state."""
    _, ps, loss = network()
    kept, tapes = [], []

    def watched(x, y):
        tapes.append(weakref.ref(open_tape.get().mark))
        kept.append(loss(x, y))
        return kept[-1]

    kept.append(flux.withgradient(lambda: watched(X, Y), ps))
    kept.append(flux.gradient(lambda: watched(X, Y), ps))
    flux.train_(watched, ps, [(X, Y)] * 3, flux.ADAM(), cb=lambda state: kept.append(state))
    values = [k for k in kept if type(k) is flux.Tensor]
    assert len(values) == len(tapes) == 5
    arrays = [weakref.ref(t) for t in values]
    assert not any(t.mark.open for t in values)
    del values, kept[:]
    assert not any(r() for r in (*tapes, *arrays))


def test_a_number_that_is_kept_keeps_no_array(asleep):
    """Also where it was taken out of a large array by an index that makes a view."""
    seen = []

    def f(x):
        y = x * 2
        seen.append(weakref.ref(y.data))
        return y[..., 0]

    value, _ = flux.withgradient(f, np.ones(1000))
    assert value == 2 and seen[0]() is None


def test_thousands_of_losses_are_thousands_of_numbers():
    w, kept = flux.Tensor(np.ones(1000)), []

    def step():
        value, _ = flux.withgradient(lambda: np.sum(np.exp(w * 2.0)), [w])
        kept.append(value)

    step()
    tracemalloc.start()
    try:
        for _ in range(1000):
            step()
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown < 1000 * 100  # a tape holds 16,000 bytes and more


def test_a_compiled_function_takes_its_memory_with_it(asleep):
    """The buffers at once; the program, whose rows refer to one another, with the collector."""
    _, ps, loss = network()
    hot, given = flux.compiled(loss), {id(p.data) for p in ps}
    flux.train_(hot, ps, [(X, Y)] * 2, flux.ADAM())
    hot(X, Y)
    recordings = [weakref.ref(r) for r in hot.recordings.values()]
    programs = [weakref.ref(r.program) for r in hot.recordings.values()]
    given |= {id(a) for r in hot.recordings.values() for a in r.source.given.values()}
    bound = [copy for r in hot.recordings.values() for copy in r.idle]
    buffers = [weakref.ref(b) for b in arrays_of(bound) if id(b) not in given]
    assert len(recordings) == 2 and len(buffers) > 5
    del hot, bound
    assert not any(r() for r in recordings) and not any(b() is not None for b in buffers)
    gc.collect()
    assert not any(p() for p in programs)


def arrays_of(bound):
    """The arrays of bound copies of a program: those in the cells of their functions."""
    cells = [c.cell_contents for step, _ in bound for c in step.__closure__ or ()]
    return [c for c in cells if isinstance(c, np.ndarray)]


def test_an_activation_keeps_nothing_of_the_size_of_its_array(asleep):
    tracemalloc.start()
    try:
        before = traced()
        for n in range(5):
            flux.relu(np.ones((1, 500_000 + n), np.float32))
        assert traced() - before < 1 << 18
    finally:
        tracemalloc.stop()


def test_model_and_optimiser_are_freed_at_once(asleep):
    m, ps, loss = network()
    opt = flux.Optimiser(flux.WeightDecay(0.1), flux.ADAM())
    flux.train_(loss, ps, [(X, Y)] * 3, opt, cb=lambda state: None)
    gone = [weakref.ref(o) for o in (m, opt, *ps, *(p.data for p in ps), m[0])]
    del m, ps, loss, opt
    assert [r() for r in gone] == [None] * len(gone)


def test_parameters_that_come_and_go_find_no_state_of_others():
    """Python gives an id to the next object at once; state goes by the object, not by its id."""
    opt, ids = flux.ADAM(0.1), set()
    for _ in range(1000):
        w = flux.Tensor(np.ones(2))
        ids.add(id(w))
        assert opt.state(w) == {}
        gs = flux.gradient(lambda w=w: np.sum(w * 3.0), [w])
        flux.update_(opt, [w], gs)
        assert opt.state(w)["t"] == 1 and w.data[0] == pytest.approx(0.9)
    assert len(ids) < 1000  # so ids were used again
    del w, gs
    assert opt._stepper._entries == {}


def test_grads_hold_their_parameters():
    """So no other parameter can take the place of one that was deleted."""
    gs = flux.gradient(lambda: 1.0, [flux.Tensor(np.ones(2))])
    kept = weakref.ref(next(iter(gs)))
    others = [flux.Tensor(np.ones(2)) for _ in range(100)]
    assert kept() in gs and not any(o in gs for o in others)


# --- flat ----------------------------------------------------------------------------------------


def eager(loss, ps, opt):
    return lambda: flux.train_(loss, ps, [(X, Y)], opt)


def hot(loss, ps, opt):
    loss = flux.compiled(loss)
    return lambda: flux.train_(loss, ps, [(X, Y)], opt)


def with_callbacks(loss, ps, opt):
    seen = flux.throttle(lambda state: None, 0, trailing=True)
    best = flux.stop_early(lambda state: state.loss, 10**6, ps)
    return lambda: flux.train_(loss, ps, [(X, Y)], opt, cb=[seen, best])


def by_hand(loss, ps, opt):
    def step():
        value, back = flux.pullback(lambda: loss(X, Y), ps)
        flux.update_(opt, ps, back(1.0))
        return value

    return step


def that_fails(loss, ps, opt):
    bad = X.copy()
    bad[0] = np.nan

    def step():
        for work in (lambda: loss(bad, Y), lambda: loss(X[:, :5], Y), lambda: loss(X, Y + 9)):
            with pytest.raises((flux.FluxError, ValueError)):
                flux.train_(work, ps, [()], opt)

    return step


def copied(loss, ps, opt):
    def step():
        twins, other = copy.deepcopy((ps, opt))
        flux.update_(other, twins, {p: np.ones_like(p.data) for p in twins})

    return step


WAYS = [eager, hot, with_callbacks, by_hand, that_fails, copied]


@pytest.mark.parametrize("way", only([eager, hot], WAYS))
def test_a_long_run_is_flat(way, asleep):
    """Without the garbage collector, which finds nothing afterwards either."""
    _, ps, loss = network()
    step, times = way(loss, ps, flux.ADAM()), 50 if way is that_fails else 150
    for _ in range(20):
        step()
    tracemalloc.start()
    try:
        step()
        before = traced()
        for _ in range(times):
            step()
        found = gc.collect()
        grown = traced() - before
    finally:
        tracemalloc.stop()
    assert found == 0 and grown < 20 * times


def traced():
    """Bytes in use; a collection also empties the lists of free tuples that Python keeps."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_a_history_is_all_that_grows(asleep):
    _, ps, loss = network()
    data, opt = [(X, Y)] * 200, flux.ADAM()
    flux.train_(loss, ps, data, opt)
    tracemalloc.start()
    try:
        flux.train_(loss, ps, data, opt)
        before = traced()
        history = flux.train_(loss, ps, data, opt)
        grown = traced() - before
    finally:
        tracemalloc.stop()
    assert len(history) == 200 and grown < 200 * 45  # a float in a list


@pytest.mark.slow
def test_the_process_does_not_grow(asleep):
    """What the operating system says, over 20,000 steps, with new shapes all the time."""
    resource = pytest.importorskip("resource")
    _, ps, loss = network()
    opt = flux.ADAM()

    def run(n):
        for k in range(n):
            rows = k % 31 + 1
            flux.train_(loss, ps, [(X[:rows], Y[:rows])], opt)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = run(3000)
    assert run(20_000) - before < 2048  # KiB
