"""In other people's processes: threads, tasks, forks, flags, copies, and the same bits everywhere.

What needs an interpreter of its own runs in one, several checks together. Whatever forks does so
there, under an alarm, and never in the process of the tests.
"""

import asyncio
import contextvars
import copy
import cProfile
import hashlib
import importlib
import io
import multiprocessing
import os
import pdb
import pickle
import platform
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tinyflux as flux
from tests.test_interruption import Raises
from tinyflux.callbacks import phase
from tinyflux.optimise import plan
from tinyflux.tape import open_tape

ROOT = Path(__file__).resolve().parents[1]
X = np.random.default_rng(0).standard_normal((32, 8)).astype("f4")
Y = np.arange(32) % 3


class Work:
    """A small network with its optimiser and data: everything that a training consists of."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        init = flux.glorot_uniform(rng=rng)
        self.model = flux.Chain(
            flux.Dense(8, 16, flux.tanh, init=init),
            flux.Dropout(0.25, rng=rng),
            flux.Dense(16, 3, init=init),
        )
        self.opt = flux.Optimiser(flux.WeightDecay(1e-3), flux.ADAM(0.01))
        self.loader = flux.DataLoader((X, Y), batchsize=8, shuffle=True, rng=seed)

    def loss(self, x, y):
        return flux.losses.logitcrossentropy(self.model(x), y)

    def train(self, epochs=2, **more):
        return flux.train_(
            self.loss, flux.params(self.model), self.loader, self.opt, epochs=epochs, **more
        )

    def bits(self):
        ps = flux.params(self.model)
        moments = [np.asarray(v).tobytes() for p in ps for v in self.opt.state(p).values()]
        return [p.data.tobytes() for p in ps] + moments


def trained(seed):
    w = Work(seed)
    w.train()
    return w.bits()


def in_threads(jobs):
    """What the jobs return, each in a thread of its own; all begin at once."""
    ready = threading.Barrier(len(jobs))

    def begin(job):
        ready.wait(20)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(begin, jobs))


def run(code, *flags, **env):
    """What a fresh interpreter prints; it must end well and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True, text=True, timeout=300, cwd=ROOT, env={**os.environ, **env},
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- threads -------------------------------------------------------------------------------------


def test_trainings_in_threads_are_bit_equal_to_one_after_the_other():
    jobs = [lambda seed=seed: trained(seed) for seed in range(8)]
    assert in_threads(jobs) == [job() for job in jobs]


@pytest.mark.slow
def test_32_threads_with_200_models_each():
    """And a shared compiled function, with another number of rows in each thread."""
    hot = flux.compiled(lambda x: np.sum(flux.tanh(x) ** 2))

    def job(k):
        found = hashlib.sha256()
        for seed in range(200):
            found.update(b"".join(trained(1000 * k + seed)))
            found.update(flux.gradient(hot, X[: k % 12 + 1])[0].tobytes())
        return found.hexdigest()

    assert in_threads([lambda k=k: job(k) for k in range(32)]) == [job(k) for k in range(32)]


def test_others_may_predict_while_one_trains():
    """No error, no value from anybody's tape, and the training is what it would be alone."""
    w, done, before = Work(1), threading.Event(), np.geterr()

    def train():
        try:
            return w.train(epochs=30)
        finally:
            done.set()

    def predict():
        count = 0
        while not done.is_set() or not count:
            y, (g,) = w.model(X), flux.gradient(lambda x: np.sum(w.model(x)), X[:4])
            assert type(y) is type(g) is np.ndarray and y.shape == (32, 3)
            assert np.isfinite(y).all() and np.isfinite(g).all()
            count += 1
        return count

    w.model[1].p = 0  # its Generator would be shared, and who draws first is not determined
    counts = in_threads([train, predict, predict])[1:]
    alone = Work(1)
    alone.model[1].p = 0
    alone.train(epochs=30)
    assert min(counts) > 0 and w.bits() == alone.bits() and np.geterr() == before


def test_a_worker_goes_on_after_an_error():
    """Nothing of a task that failed is left in its thread, which serves for the next one."""

    def fails(x):
        raise LookupError("mine")

    def state():
        return open_tape.get(), phase.get(), np.geterr()

    tasks = [
        lambda: flux.gradient(lambda x: fails(x * x), 1.0),
        lambda: flux.gradient(lambda x: flux.gradient(lambda y: fails(x * y), x)[0], 1.0),
        lambda: flux.compiled(lambda x: fails(x * x))(X),
        lambda: Work().train(cb=fails),
        lambda: flux.train_(fails, [flux.Tensor(1.0)], [1.0], flux.SGD()),
        lambda: flux.gradient(lambda x: X @ x, X),
    ]
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(state).result()
        for task in tasks:
            with pytest.raises((LookupError, ValueError)):
                pool.submit(task).result()
            assert pool.submit(state).result() == before
            assert pool.submit(flux.gradient, lambda x: x * x, 3.0).result() == (6.0,)
            assert pool.submit(trained, 0).result() == trained(0)


def test_threads_pull_the_same_tape():
    w = Work()
    w.model[1].p = 0
    ps = flux.params(w.model)
    _, back = flux.pullback(lambda: w.loss(X, Y), ps)
    alone = [g.tobytes() for g in back(1.0).values()]
    for found in in_threads([lambda: back(1.0)] * 8):
        assert [g.tobytes() for g in found.values()] == alone


def test_stop_ends_the_training_of_its_own_thread():
    def job(k):
        return lambda: len(Work(k).train(epochs=4, cb=lambda s: s.step == k and flux.stop()))

    assert in_threads([job(k) for k in (3, 5, 99, 11)]) == [3, 5, 16, 11]


def test_a_training_may_be_begun_in_a_thread_by_another():
    """Also from its loss and its callback; the inner one sees neither tape nor phase."""

    def inside():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(trained, 3).result()

    found = []
    loss = lambda w, x: found.append(inside()) or w * x
    w = flux.Tensor(1.0)
    flux.train_(lambda x: loss(w, x), [w], [2.0], flux.SGD(0.5), cb=lambda: found.append(inside()))
    assert found == [trained(3)] * 2 and float(w) == 0


def test_a_thread_begun_inside_a_gradient_is_outside_of_it():
    """So a layer behaves there as in use."""
    drop = flux.Dropout(1.0)

    def f(x):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(drop, np.ones(3)).result().tolist() == [1, 1, 1]
        return np.sum(drop(x) + x)

    assert flux.gradient(f, np.ones(2))[0].tolist() == [1, 1]


def test_a_copied_context_takes_the_tape_along():
    """Who runs part of a loss in the context of the loss, in other threads, gets its gradient."""

    def f(x):
        contexts = [contextvars.copy_context() for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            parts = [pool.submit(c.run, lambda k=k: x * k) for k, c in enumerate(contexts)]
            return sum(p.result() for p in parts)

    assert flux.gradient(f, 1.0) == (6.0,)


def test_gradients_in_copied_contexts_do_not_disturb_one_another():
    """Two threads with the context of a loss: one begins its own gradient while the other ends."""
    one_in, two_in, one_out = (threading.Event() for _ in range(3))
    found = {}

    def one():
        def inner(y):
            one_in.set()
            two_in.wait(10)
            return y * y

        found["one"] = flux.gradient(inner, 3.0)
        one_out.set()

    def two():
        def inner(y):
            two_in.set()
            one_out.wait(10)
            return y * y

        one_in.wait(10)
        found["two"] = flux.gradient(inner, 3.0)

    def f(x):
        with ThreadPoolExecutor(2) as pool:
            for work in (one, two):
                pool.submit(contextvars.copy_context().run, work)
        return x * 1.0

    assert flux.gradient(f, 1.0) == (1.0,)
    assert found == {"one": (6.0,), "two": (6.0,)}


def test_settings_of_numpy_belong_to_their_thread():
    """One that lets NumPy raise trains as one that does not, and neither notices the other."""

    def loud():
        with np.errstate(all="raise"):
            return trained(5), np.geterr()["divide"]

    def silent():
        return trained(5), np.geterr()["divide"]

    bits = trained(5)
    assert in_threads([loud, silent, loud]) == [(bits, "raise"), (bits, "warn"), (bits, "raise")]


# --- tasks and generators ------------------------------------------------------------------------


def test_tasks_that_train_step_by_step_do_not_mix():
    """They hand over at every await: between gradient and update, between two steps."""

    async def train(seed):
        w = Work(seed)
        ps = flux.params(w.model)
        for _ in range(3):
            for x, y in w.loader:
                await asyncio.sleep(0)
                gs = flux.gradient(lambda x=x, y=y: w.loss(x, y), ps)
                await asyncio.sleep(0)
                flux.update_(w.opt, ps, gs)
        return w.bits()

    async def both(seeds):
        return await asyncio.gather(*map(train, seeds))

    wanted = [asyncio.run(train(seed)) for seed in range(4)]
    assert asyncio.run(both(range(4))) == wanted


def test_tasks_that_train_in_threads():
    async def main():
        return await asyncio.gather(*(asyncio.to_thread(trained, k) for k in range(4)))

    assert asyncio.run(main()) == [trained(k) for k in range(4)]


def test_a_coroutine_is_no_loss():
    made = []

    async def loss(x):
        return x

    with pytest.raises(flux.NotScalarError, match="coroutine"):
        flux.gradient(lambda x: made.append(loss(x)) or made[0], 1.0)
    made[0].close()


def test_a_generator_that_outlives_its_gradient():
    """Begun inside, it goes on outside: on plain values, and without a tape."""

    def values(x):
        yield x * x
        assert open_tape.get() is None
        yield x * x
        yield flux.gradient(lambda y: y**3, 1.0)

    made = []

    def f(x):
        made.append(values(x))
        return next(made[0])

    assert flux.gradient(f, 3.0) == (6.0,)
    assert type(next(made[0])) is not flux.Tensor and next(made[0]) == (3.0,)


def test_a_generator_of_data_stops_the_training_and_stays_its_owners():
    """It goes on where the training has left it."""

    def data():
        yield from (1.0, 2.0)
        flux.stop()

    w, numbers = flux.Tensor(0.0), iter(range(10))
    history = flux.train_(lambda x: w * x, [w], data(), flux.SGD(1.0))
    assert history.stopped and float(w) == -3
    flux.train_(
        lambda x: w * x, [w], numbers, flux.SGD(1.0), cb=lambda s: s.step == 4 and flux.stop()
    )
    assert next(numbers) == 4


# --- tools that look on --------------------------------------------------------------------------


def profiled(f):
    profile = cProfile.Profile()
    return profile.runcall(f)


def traced(f):
    before = sys.gettrace()
    sys.settrace(lambda *args: traced_by)
    try:
        return f()
    finally:
        sys.settrace(before)


def traced_by(frame, event, arg):
    return traced_by


def debugged(f):
    """With a debugger that stops in the loss, looks at a recorded value, and steps on."""
    said = io.StringIO()
    commands = io.StringIO("p x\np x * 2\nnext\nwhere\nnext\ncontinue\n")
    debugger = pdb.Pdb(stdin=commands, stdout=said, nosigint=True, readrc=False)
    debugger.use_rawinput = False

    def loss(x):
        debugger.set_trace()
        y = x * x
        return y + 1

    before = sys.gettrace()
    try:
        assert flux.gradient(loss, 3.0) == (6.0,)
    finally:
        sys.settrace(before)
    assert "Tensor(3., recorded)" in said.getvalue() and "Tensor(6., recorded)" in said.getvalue()
    return f()


@pytest.mark.parametrize("tool", [profiled, traced, debugged])
def test_tools_that_look_on_change_no_bit(tool):
    assert tool(lambda: trained(0)) == trained(0)


# --- copies --------------------------------------------------------------------------------------

COPIES = {"deepcopy": copy.deepcopy}
for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
    COPIES[f"pickle {protocol}"] = lambda o, p=protocol: pickle.loads(pickle.dumps(o, p))


class Tied:
    """Encodes and decodes with the same weight; the bias is shared by two layers."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.inner, self.outer = flux.Dense(8, 8), flux.Dense(8, 8, np.tanh)
        self.inner.weight.data[...] = rng.standard_normal((8, 8)) / 3
        self.outer.weight, self.outer.bias = self.inner.weight, self.inner.bias
        self.drop = flux.Dropout(0.5, rng=rng)
        self.again = {"by name": self.inner.weight}

    def __call__(self, x):
        return self.outer(self.drop(self.inner(x))) @ self.again["by name"]


@pytest.mark.parametrize("how", COPIES)
def test_model_optimiser_and_data_copied_together_train_on_alike(how):
    m, opt = Tied(), flux.ADAM(0.01)
    loader = flux.DataLoader(X, batchsize=8, shuffle=True, rng=1)
    ps = flux.params(m)
    train = lambda m, ps, opt, data: flux.train_(lambda x: np.mean((m(x) - x) ** 2), ps, data, opt)
    train(m, ps, opt, loader)
    m2, ps2, opt2, loader2 = COPIES[how]((m, ps, opt, loader))
    assert len(ps2) == len(ps) == 2 and list(ps2) == list(flux.params(m2))
    assert m2.inner.weight is m2.outer.weight is m2.again["by name"] is ps2[0]
    assert m2.inner.weight is not m.inner.weight
    assert not any(np.shares_memory(a.data, b.data) for a in ps for b in ps2)
    one, other = train(m, ps, opt, loader), train(m2, ps2, opt2, loader2)
    assert one.losses == other.losses
    for a, b in zip(ps, ps2, strict=True):
        assert a.data.tobytes() == b.data.tobytes()
        assert repr(opt.state(a)) == repr(opt2.state(b)) and opt2.state(a) == {}


@pytest.mark.parametrize("how", COPIES)
def test_what_training_hands_out_can_be_copied(how):
    w, states = Work(), []
    history = w.train(cb=lambda state: states.append(state))
    history2, hot = COPIES[how](history), COPIES[how](flux.compiled(np.sum))
    assert history2.losses == history.losses and history2.seconds == history.seconds
    assert hot(X) == pytest.approx(float(X.sum()))
    state = COPIES[how](states[-1])
    assert (state.epoch, state.step, state.loss) == (2, 8, history.losses[-1])
    assert state.history.losses == history.losses
    twin = [state.gradients[p] for p in state.params]
    assert [g.tobytes() for g in twin] == [g.tobytes() for g in states[-1].gradients.values()]
    assert state.opt.state(state.params[0])["t"] == 8


def test_tied_weights_are_updated_once_with_the_sum():
    w = flux.Tensor(np.ones(2))
    for ps in ([w, w], flux.Params([w]) | flux.Params([w]), flux.params({"a": w, "b": [w]})):
        w.data[...] = 1
        flux.train_(lambda: np.sum(w * 2) + np.sum(w * 3), ps, [()], flux.SGD(1.0))
        assert w.data.tolist() == [-4, -4]


# --- import --------------------------------------------------------------------------------------


def test_the_same_import_again_changes_nothing():
    w = flux.Tensor(np.ones(2))
    again = importlib.reload(flux)
    assert again is flux and isinstance(w, flux.Tensor)
    assert flux.gradient(lambda: np.sum(w * w), flux.params(w))[w].tolist() == [2, 2]


TWICE = """
import sys
import numpy as np
import tinyflux as old
for name in [n for n in sys.modules if n.split(".")[0] == "tinyflux"]:
    del sys.modules[name]
import tinyflux as new

assert new.Tensor is not old.Tensor
w, v = old.Tensor([1.0, 2.0]), new.Tensor([3.0])
mixed = [
    lambda: new.Params([w]),
    lambda: new.gradient(lambda: np.sum(w**2), old.params(w)),
    lambda: new.gradient(lambda x: np.sum(w * x), np.ones(2)),
    lambda: new.gradient(lambda x: np.sum(old.relu(x)), np.ones(2)),
    lambda: new.gradient(lambda x: np.sum(old.Dense(2, 3)(x)), np.ones(2)),
    lambda: new.train_(lambda: np.sum(w**2), old.params(w), [()], new.SGD(0.1)),
    lambda: new.train_(lambda: np.sum(w**2), new.params(w), [()], new.SGD(0.1)),
    lambda: new.update_(new.SGD(0.1), [w], {w: np.ones(2)}),
    lambda: new.train_(lambda: old.stop(), [v], [()], new.SGD(0.1)),
]
for k, f in enumerate(mixed):
    try:
        f()
    except (TypeError, ValueError, RuntimeError):
        continue
    raise AssertionError(k)
assert w.data.tolist() == [1, 2] and v.data.tolist() == [3]
for flux in (old, new):
    assert flux.gradient(lambda x: np.sum(flux.relu(x)), np.ones(2))[0].tolist() == [1, 1]
"""


def test_two_copies_of_the_package_do_not_mix_unnoticed():
    run(TWICE)


# --- the flags of the interpreter ----------------------------------------------------------------

EVERYTHING = """
import copy, pickle, sys, tempfile, os
import numpy as np, tinyflux as flux
flux.seed_(0)
m = flux.Chain(flux.Dense(4, 8, flux.relu), flux.Dropout(0.1), flux.Dense(8, 3))
x, y = np.random.default_rng(0).standard_normal((60, 4)), np.arange(60) % 3
ps, opt = flux.params(m), flux.Optimiser(flux.ClipNorm(1.0), flux.ADAM(0.01))
loader = flux.DataLoader((x, y), batchsize=16, shuffle=True)
loss = lambda x, y: flux.losses.logitcrossentropy(m(x), y)
cb = [flux.throttle(lambda s: None, 0.0, trailing=True), flux.stop_early(lambda s: s.loss, 99, ps)]
for f in (loss, flux.compiled(loss)):
    history = flux.train_(f, ps, loader, opt, cb=cb, epochs=3)
    assert len(history) == 12, history
    value, gs = flux.withgradient(lambda: f(x, y), ps)
    assert gs.norm() > 0
for skip in (flux.skip, flux.stop):
    flux.train_(lambda x, y: skip(), ps, loader, opt)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "a.npz")
    flux.save(path, m, opt)
    flux.load_(path, m, opt)
    hot = flux.compiled(lambda x: m(x))
    hot(x[:2])
    hot.save(os.path.join(folder, "net.py"))
copy.deepcopy((m, opt)), pickle.loads(pickle.dumps((m, opt, loader)))
_, back = flux.pullback(lambda a: np.sum(np.sin(a)) * a[0], np.ones(3))
assert "sin" in str(back.tape) and repr(m) and str(m)
flux.hessian(lambda a: np.sum(a**3), np.ones(2)), flux.jacobian(np.sin, np.ones(2))
flux.gradcheck(lambda a: np.sum(np.tanh(a)), np.ones(2))
for bad in (lambda: flux.gradient(lambda x: None, 1.0), lambda: m(np.ones((2, 5)))):
    try:
        bad()
    except (TypeError, ValueError) as error:
        assert str(error)
    else:
        raise SystemExit("not refused")
print("done", float(history.losses[-1]) < 2)
"""


@pytest.mark.slow
def test_everything_is_clean_under_strict_flags():
    """And where NumPy raises whatever it can; `-OO` leaves neither assertions nor docstrings."""
    code = f"import numpy as np\nwith np.errstate(all='raise'):\n    exec({EVERYTHING!r})"
    for optimise in [(), ("-OO",)]:
        flags = ("-W", "error", "-X", "dev", *optimise)
        assert run(code, *flags, PYTHONHASHSEED="random") == "done True\n"


# --- forks and other processes -------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

FORK = """
import os, signal, sys, threading, warnings
from concurrent.futures import ThreadPoolExecutor
import numpy as np, tinyflux as flux
from tinyflux.generators import generator
from tinyflux.tape import open_tape
warnings.filterwarnings("ignore", "This process .* is multi-threaded")

def child(work):
    "What work() says in a forked process, as bytes; an alarm instead of a deadlock."
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        status = 1
        try:
            os.write(write, work())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, "the child did not end well"
    return said

flux.seed_(1)
m = flux.Chain(flux.Dense(300, 300, flux.relu), flux.Dense(300, 10))
x, y = np.random.default_rng(0).standard_normal((400, 300)).astype("f4"), np.arange(400) % 10
ps, opt = flux.params(m), flux.ADAM(0.001)
loss = lambda x, y: flux.losses.logitcrossentropy(m(x), y)
hot = flux.compiled(loss)

def step(f=loss):
    flux.train_(f, ps, [(x, y)], opt)
    return sum(float(np.abs(p.data).sum()) for p in ps).hex().encode()

step(), step(hot)
"""

MANY_FORKS = """
for k in range({n}):
    f = (loss, hot)[k % 2]
    assert child(lambda: step(f)) == step(f)  # the same step in the child and in the parent
"""

FORKS = """
# while another thread is inside a gradient, and holds the default generator
inside, leave = threading.Event(), threading.Event()
def wait(x):
    with generator().bit_generator.lock:
        inside.set()
        leave.wait(30)
    return x * x
with ThreadPoolExecutor(1) as pool:
    other = pool.submit(flux.gradient, wait, 3.0)
    inside.wait(30)
    def look():
        assert open_tape.get() is None
        drop = flux.gradient(lambda: np.sum(flux.Dropout(0.5)(np.ones(99)) * m[0].bias.data[0]), ps)
        assert flux.gradient(lambda x: x * x, 3.0) == (6.0,)
        return step()
    assert len(child(look)) > 5
    leave.set()
    assert other.result() == (6.0,)

# inside a gradient, where both go on
def f(x):
    y = x * x
    assert child(lambda: repr(flux.gradient(lambda z: z * y, 2.0)).encode())
    if not (pid := os.fork()):
        signal.alarm(20)
        f.is_child = True
    else:
        assert os.waitpid(pid, 0)[1] == 0
    return y * x
f.is_child = False
g = flux.gradient(f, 2.0)
if f.is_child:
    os._exit(g != (12.0,))
assert g == (12.0,)

# masks of workers
drop = flux.Dropout(0.5)
mask = lambda: flux.gradient(lambda x: np.sum(drop(x)), np.ones(64))[0].tobytes()
seeded = lambda: flux.seed_(7) or mask()
np.random.seed(3)
before = np.random.get_state()[1].tobytes()
masks = [child(mask) for _ in range(4)] + [mask()]
assert len(set(masks)) == 5
assert len({child(seeded) for _ in range(2)} | {seeded()}) == 1
assert np.random.get_state()[1].tobytes() == before
print("done")
"""


@pytest.mark.slow
@needs_fork
def test_forks_after_training_in_a_gradient_and_beside_one():
    code = FORK + MANY_FORKS.format(n=2) + FORKS
    assert run(code, OPENBLAS_NUM_THREADS="2") == "done\n"


@needs_fork
@pytest.mark.slow
def test_a_hundred_forks():
    assert run(FORK + MANY_FORKS.format(n=100), OPENBLAS_NUM_THREADS="2") == ""


POOLS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np, tinyflux as flux

X = np.random.default_rng(0).standard_normal((32, 8)).astype("f4")

def step(things):
    m, opt = things
    loss = lambda x: np.mean((m(x) - 1) ** 2)
    history = flux.train_(loss, flux.params(m), [X] * 5, opt)
    return m, opt, history

if __name__ == "__main__":
    flux.seed_(0)
    m, opt = flux.Chain(flux.Dense(8, 4, flux.tanh), flux.Dense(4, 2)), flux.ADAM(0.01)
    step((m, opt))
    for kind in sys.argv[1:]:
        with ProcessPoolExecutor(1, multiprocessing.get_context(kind)) as pool:
            m2, opt2, history = pool.submit(step, (m, opt)).result(60)
        m, opt, here = step((m, opt))
        assert here.losses == history.losses
        for a, b in zip(flux.params(m), flux.params(m2)):
            assert a.data.tobytes() == b.data.tobytes()
            assert repr(opt.state(a)) == repr(opt2.state(b))
        m, opt = m2, opt2
    print("done")
"""


@pytest.mark.slow
def test_models_travel_to_other_processes_and_back(tmp_path):
    path = tmp_path / "pools.py"
    path.write_text(POOLS)
    kinds = {"spawn", "forkserver"} & {*multiprocessing.get_all_start_methods()}
    done = subprocess.run(
        [sys.executable, str(path), *kinds], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


# --- signals and memory that runs out ------------------------------------------------------------

RULES = [
    flux.SGD, flux.Momentum, flux.Nesterov, flux.RMSProp, flux.ADAM, flux.RADAM, flux.AdaMax,
    flux.OADAM, flux.ADAGrad, flux.ADADelta, flux.AMSGrad, flux.NADAM, flux.ADAMW, flux.AdaBelief,
]  # fmt: skip


def updates(rule):
    """Steps of a rule alone and in chains; of parameters large and small, of both precisions."""
    chains = [
        rule, lambda: flux.Optimiser(flux.WeightDecay(0.1), rule()),
        lambda: flux.Optimiser(flux.ClipNorm(1.0), rule(), flux.ExpDecay(0.5, 1)),
        lambda: flux.Optimiser(flux.ClipValue(0.1), rule(), flux.InvDecay()),
    ]  # fmt: skip
    for make in chains:
        for dtype in "fd":
            ps = [flux.Tensor(np.ones(n, dtype)) for n in (3, 140_000, 2)]
            opt = make()
            for _ in range(2):
                flux.update_(opt, ps, {p: np.full(p.shape, 0.1, dtype) for p in ps})


@pytest.mark.parametrize("rule", RULES)
def test_no_python_runs_in_the_middle_of_an_update(rule, monkeypatch):
    """Between two lines of Python a signal may raise; a step is half done then."""
    entered, real = [], plan.at_once

    def watch(frame, event, arg):
        if event == "call":
            entered.append(frame.f_code.co_name)

    def watched(calls):
        before = sys.getprofile()
        sys.setprofile(watch)
        try:
            real(calls)
        finally:
            sys.setprofile(before)

    monkeypatch.setattr(plan, "at_once", watched)
    updates(rule)
    assert set(entered) == {"at_once"}


def test_the_best_parameters_come_back_all_or_none():
    """Whatever line of the package the interrupt comes at."""
    k, ended = 0, False
    while not ended:
        k += 1
        ps = [flux.Tensor(np.zeros(2)) for _ in range(4)]
        best = flux.stop_early(lambda ps=ps: float(ps[0].data[0]), 9, ps)
        best()
        for p in ps:
            p.data += 1
        before = sys.gettrace()
        sys.settrace(Raises(k, KeyboardInterrupt))
        try:
            best.flush()
            ended = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert len({p.data[0] for p in ps}) == 1
    assert k > 2 and ps[0].data[0] == 0


def test_the_best_score_is_that_of_the_parameters_that_come_back():
    """Also where an interrupt came while they were kept."""
    k, ended = 0, False
    while not ended:
        k += 1
        p = flux.Tensor(np.zeros(2))
        best = flux.stop_early(lambda p=p: -float(p.data[0]), 9, [p])
        best()
        p.data += 1
        before = sys.gettrace()
        sys.settrace(Raises(k, KeyboardInterrupt))
        try:
            best()
            ended = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        p.data += 1
        best.flush()
        np.testing.assert_array_equal(p.data, -best.best)
    assert k > 2 and best.best == -1


INTERRUPTED = """
import signal, time
from itertools import count, repeat
import numpy as np, tinyflux as flux

def whole(make):
    "Ctrl-C many times, at whatever moment: all parameters and moments are of one step."
    ps = [flux.Tensor(np.zeros(n)) for n in (3, 200_000, 1, 50)]
    opt = flux.Momentum(1.0, 0.0)
    loss = make(lambda: sum(np.sum(p) for p in ps))
    seen = set()
    flux.train_(loss, ps, [()], opt)
    begun = time.perf_counter()
    flux.train_(loss, ps, [()] * 4, opt)
    steps, usual = 5, time.perf_counter() - begun
    for k in count():
        if k >= 200:
            if len(seen) > 1:
                break
            usual *= 1.5  # the machine is busier than it was: no step ever ended in the time
        done = 0
        try:
            signal.setitimer(signal.ITIMER_REAL, usual * (0.02 + k % 97 / 97))
            flux.train_(loss, ps, repeat(()), opt)
        except KeyboardInterrupt as stopped:
            done = len(getattr(stopped, "history", ()))
        t = {opt.state(p)["t"] for p in ps}
        assert len(t) == 1, t
        (t,) = t
        assert all((p.data == -t).all() for p in ps), [set(p.data.tolist()) for p in ps]
        assert steps + done <= t <= steps + done + 1, (steps, done, t)
        seen.add(t - steps)
        steps = t
    assert flux.gradient(lambda x: x * x, 3.0) == (6.0,)

def interrupt(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
whole(lambda f: f)
whole(flux.compiled)
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no such timer here")
def test_a_real_signal_at_any_moment_leaves_a_whole_step():
    assert run(INTERRUPTED, OPENBLAS_NUM_THREADS="1") == "done\n"


OUT_OF_MEMORY = """
import resource
import numpy as np, tinyflux as flux

m = flux.Chain(flux.Dense(100, 1000, flux.relu), flux.Dense(1000, 1))
ps, opt = flux.params(m), flux.ADAM(0.01)
loss = lambda x: np.mean((m(x) - 1) ** 2)
small = np.ones((10, 100), "f4")
big = np.broadcast_to(np.float32(1), (200_000, 100))
hot = flux.compiled(loss)
for f in (loss, hot):
    flux.train_(f, ps, [small], opt)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 400 * 2**20, resource.RLIM_INFINITY))
bits = lambda: [p.data.tobytes() for p in ps] + [repr(opt.state(p)) for p in ps]
for f in (loss, hot, loss, hot):
    before = bits()
    try:
        flux.train_(f, ps, [big], opt)
    except MemoryError:
        pass
    else:
        raise SystemExit("there was memory enough")
    assert bits() == before
    flux.train_(f, ps, [small], opt)
    assert bits() != before
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory can be limited so on Linux")
def test_a_batch_too_large_for_the_memory_leaves_everything_as_it_was():
    assert run(OUT_OF_MEMORY) == "done\n"


# --- the same bits -------------------------------------------------------------------------------

BITS = """
import gc, hashlib, os, sys
import numpy as np, tinyflux as flux
way, path = os.environ["WAY"], os.environ["KEPT"]
if os.environ.get("NO_GC"):
    gc.disable()
flux.seed_(3)
m = flux.Chain(flux.Dense(8, 16, flux.gelu), flux.Dropout(0.2), flux.Dense(16, 3))
ps, opt = flux.params(m), flux.Optimiser(flux.ClipNorm(1.0, whole=True), flux.ADAMW(0.01))
rng = np.random.default_rng(0)
x, y = rng.standard_normal((48, 8)).astype("f4"), np.arange(48) % 3
loader = flux.DataLoader((x, y), batchsize=20, shuffle=True)
loss = lambda x, y: flux.losses.logitcrossentropy(m(x), y) + 1e-3 * sum(np.sum(p**2) for p in ps)
loss = flux.compiled(loss) if way.startswith("compiled") else loss
if way == "resumed":
    flux.load_(path, m, opt)
epochs = int(os.environ["EPOCHS"]) * (1 if way in ("first", "resumed") else 2)
flux.train_(loss, ps, loader, opt, epochs=epochs)
if way == "first":
    flux.save(path, m, opt)
digest = hashlib.sha256()
for p in ps:
    digest.update(p.data.tobytes())
    digest.update(repr(opt.state(p)).encode())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_a_thousand_steps_give_the_same_bits_in_every_process(tmp_path):
    """Whatever the order of sets, the addresses, the collector; also when they were interrupted."""
    epochs, kept = "167", str(tmp_path / "kept.npz")  # of three steps; twice

    def begin(way, **env):
        env = {**os.environ, "EPOCHS": epochs, "WAY": way, "KEPT": kept, **env}
        return subprocess.Popen(
            [sys.executable, "-c", BITS], env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )

    def end(process):
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return said

    hot = [begin("compiled", PYTHONHASHSEED="1"), begin("compiled", NO_GC="1")]
    once = [begin("eager", PYTHONHASHSEED="0", NO_GC="1")]
    once.append(begin("eager", PADDING="x" * 9999))
    first = begin("first", PYTHONHASHSEED="random")
    assert len(set(map(end, hot))) == 1
    end(first)
    resumed = begin("resumed", PYTHONHASHSEED="77")
    assert len({*map(end, once), end(resumed)}) == 1


@pytest.mark.parametrize("offset", [4, 8, 12, 32])
def test_the_place_of_an_array_in_memory_changes_no_bit(offset):
    """However it is aligned; parameters as well as data."""
    ends = []
    for shift in (0, offset):
        w = Work()
        for p in flux.params(w.model):
            p.data = moved(p.data, shift)
        flux.train_(w.loss, flux.params(w.model), [(moved(X, shift), Y)] * 20, w.opt)
        ends.append([p.data.tobytes() for p in flux.params(w.model)])
    assert ends[0] == ends[1]


def moved(a, shift):
    """The same array, that many bytes behind a multiple of 64."""
    room = np.empty(a.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + shift
    new = room[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    new[...] = a
    assert new.ctypes.data % 64 == shift
    return new


def test_the_order_of_the_axes_in_memory_changes_little():
    values = []
    for a in (X, np.asfortranarray(X), X[::-1][::-1], np.repeat(X, 2, 1)[:, ::2]):
        w = Work()
        w.model[1].p = 0
        flux.train_(w.loss, flux.params(w.model), [(a, Y)] * 5, flux.SGD(0.1))
        values.append(np.concatenate([p.data.ravel() for p in flux.params(w.model)]))
    for v in values[1:]:
        np.testing.assert_allclose(v, values[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_exceptions_come_back_from_other_processes(protocol):
    """As they are, pickled on their way."""
    made = [kind("why") for kind in vars(flux).values() if kind_of_error(kind)]
    made += [flux.NonFiniteLossError("why", 3, np.nan), wrong_shape()]
    assert len(made) > 10
    for error in made:
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is type(error) and str(again) == str(error)
        assert repr(vars(again)) == repr(vars(error))


def kind_of_error(kind):
    return isinstance(kind, type) and issubclass(kind, flux.FluxError) and kind != flux.ShapeError


def wrong_shape():
    with pytest.raises(flux.ShapeError) as caught:
        flux.Chain(flux.Dense(4, 3), flux.Dense(2, 1))(np.ones((5, 4)))
    assert "layer 1 of Chain" in str(caught.value)
    return caught.value


# --- the processor -------------------------------------------------------------------------------


def test_parameters_without_gradient_do_not_slow_adam_down():
    """Moments fade into the numbers below the normal ones, with which processors are slow."""
    opt, w = flux.ADAM(1e-3), flux.Tensor(np.ones(20_000, "f4"))
    g = np.random.default_rng(0).standard_normal(20_000).astype("f4")
    opt.step_([w], [w.data], [g])
    zero, times = np.zeros_like(g), []
    for _ in range(2000):
        begun = time.perf_counter()
        opt.step_([w], [w.data], [zero])
        times.append(time.perf_counter() - begun)
    early, late = min(times[50:350]), min(times[-300:])
    assert late < 2.5 * early  # 6 to 30 times as long without the flush
    state = opt.state(w)
    assert not ((state["m"] != 0) & (np.abs(state["m"]) < np.finfo("f4").tiny)).any()


FLUSHED = """
import ctypes, mmap, os
if os.environ["FLUSH"]:  # the flags that a library compiled for speed sets: DAZ and FTZ
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes([0x0F, 0xAE, 0x17, 0xC3]))  # ldmxcsr [rdi]; ret
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    flags = ctypes.c_uint32(0x1F80 | 0x8040)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(start)(ctypes.addressof(flags))
import warnings
warnings.filterwarnings("ignore", "The value of the smallest subnormal")  # older NumPy tells
import numpy as np, tinyflux as flux
flushed = float(np.float32(1e-30) * np.float32(1e-10)) == 0
flux.seed_(0)
m = flux.Chain(flux.Dense(4, 16, flux.tanh), flux.Dense(16, 3))
x, y = np.random.default_rng(0).standard_normal((32, 4)).astype("f4"), np.arange(32) % 3
loss = lambda x, y: flux.losses.logitcrossentropy(m(x), y)
history = flux.train_(loss, flux.params(m), [(x, y)], flux.ADAM(0.01), epochs=1200)
extremes = np.array([-1e3, -88, -1e-40, 0, 88, 1e3], "f4")
for f in (flux.sigmoid, flux.softmax, flux.softplus, flux.gelu, flux.logsoftmax, flux.logsumexp):
    assert np.isfinite(f(extremes)).all()
    assert np.isfinite(flux.gradient(lambda a: np.sum(f(a)), extremes)[0]).all()
print(flushed, history.losses[-1])
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="flags of this processor"
)
def test_a_processor_that_flushes_small_numbers():
    plain = run(FLUSHED, "-W", "error", FLUSH="").split()
    flushed = run(FLUSHED, "-W", "error", FLUSH="1").split()
    assert (plain[0], flushed[0]) == ("False", "True")
    assert float(flushed[1]) == pytest.approx(float(plain[1]), rel=1e-5)


# --- BLAS and counting ---------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", [lambda f: f, flux.compiled])
def test_a_bad_batch_leaves_nothing_in_the_next(prepare):
    """Memory that is used again holds nan then; 0 times that would be nan."""
    m = flux.Chain(flux.Dense(8, 16, flux.relu), flux.Dense(16, 3))
    f, ps = prepare(lambda x: np.sum(m(x) ** 2)), flux.params(m)
    step = lambda x: flux.withgradient(lambda: f(x), ps)
    good = lambda: [np.asarray(v).tobytes() for v in (step(X)[0], *step(X)[1].values())]
    before = good()
    for bad in (np.nan, np.inf, 1e30):
        with np.errstate(all="ignore"):
            step(np.full_like(X, bad))
        assert good() == before
    with np.errstate(all="ignore"):
        value, _ = flux.withgradient(
            lambda a: np.sum(a @ np.zeros((2, 2))), np.full((2, 2), np.inf)
        )
    assert np.isnan(value)  # 0 times infinity, as NumPy has it


def test_products_over_nothing_are_zero():
    a, b = flux.gradient(lambda a, b: np.sum(a @ b), np.ones((2, 0)), np.ones((0, 3)))
    assert a.shape == (2, 0) and b.shape == (0, 3)
    value, gs = flux.withgradient(lambda a: np.sum((a @ np.ones((0, 3)) + 1) ** 2), np.ones((2, 0)))
    assert value == 6 and gs[0].shape == (2, 0)


def test_counters_do_not_run_over():
    """Steps count as Python's integers do, and the powers of a long training fade to 0."""
    opt, w = flux.ADAM(0.1), flux.Tensor(np.ones(2, "f4"))
    g = np.ones(2, "f4")
    opt.load_state_(w, {"m": g, "v": g, "t": 2**40, "step": 2**40}, w.data)
    with np.errstate(all="raise"):
        for _ in range(3):
            opt.step_([w], [w.data], [g])
    assert opt.state(w)["t"] == opt.state(w)["step"] == 2**40 + 3
    np.testing.assert_allclose(w.data, 1 - 3 * 0.1, rtol=1e-5)
