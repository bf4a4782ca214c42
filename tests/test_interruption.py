"""All or nothing: whatever is raised at whatever line of a step, all that is kept is whole.

A tracing function raises at the k-th executed line of the package, for every k. Afterwards the
parameters and what the optimiser remembers are those after some whole step, no tape is open, and
a training that goes on gives the same bits as one that was not disturbed.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

import tinyflux as flux
from tests.suites import either, only
from tinyflux import losses
from tinyflux.callbacks import phase
from tinyflux.compiled import compiled
from tinyflux.tape import open_tape

HOUSE = str(Path(flux.__file__).parent)
DATA = [np.random.default_rng(i).standard_normal((2, 6, 3)).astype("f4") for i in range(4)]
STEPS = [(x, y[:, :2]) for x, y in DATA]


class Noisy(flux.Momentum):
    """A rule of a user's: it makes arrays of its own, and is not written down."""

    def delta(self, x, g, u, v, lr, rho):
        v *= rho
        v += g * lr
        np.copyto(u, np.sign(v) * np.abs(v) + 0 * x)


class Raises:
    """Raises at the k-th executed line of the package; counts them."""

    def __init__(self, k, kind):
        self.left, self.kind = k, kind

    def __call__(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(HOUSE):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise self.kind("injected")
        return self


def eager(model):
    return lambda x, y: losses.mse(model(x), y)


def hot(model):
    return compiled(eager(model))


OPTIMISERS = {
    "ADAM": lambda: flux.ADAM(0.1),
    "a chain with a clip": lambda: flux.Optimiser(flux.Momentum(0.1), flux.ClipNorm(0.1)),
    "a rule of one's own": lambda: Noisy(0.1),
}


class Training:
    """A small network, its optimiser, and the state after every whole step."""

    def __init__(self, way, make):
        flux.seed_(1)
        self.model = flux.Chain(flux.Dense(3, 4, np.tanh), flux.Dropout(0.2), flux.Dense(4, 2))
        self.ps, self.opt = flux.params(self.model), OPTIMISERS[make]()
        self.loss = way(self.model)

    def run(self, steps=STEPS):
        return flux.train_(self.loss, self.ps, steps, self.opt)

    def state(self):
        kept = [p.data.tobytes() for p in self.ps]
        for p in self.ps:
            kept += [(k, np.asarray(v).tobytes()) for k, v in self.opt.state(p).items()]
        return kept


def whole_states(way, make):
    """The states after 0, 1, 2, ... steps."""
    training = Training(way, make)
    states = [training.state()]
    flux.train_(
        training.loss,
        training.ps,
        STEPS,
        training.opt,
        cb=lambda: states.append(training.state()),
    )
    return states


def lines_of(way, make):
    """How many lines of the package a training executes."""
    counter = Raises(0, None)
    training = Training(way, make)
    before = sys.gettrace()
    sys.settrace(counter)
    try:
        training.run()
    finally:
        sys.settrace(before)
    return -counter.left


def check(way, make, kind, k, states):
    """Raise at line k, and look at what is left."""
    training = Training(way, make)
    errors, before = np.geterr(), sys.gettrace()
    profile = sys.getprofile()
    sys.settrace(Raises(k, kind))
    history = None
    try:
        history = training.run()
    except kind as error:
        history = getattr(error, "history", None)
    finally:
        sys.settrace(before)
    assert training.state() in states, f"half a step, after line {k}"
    done = states.index(training.state())
    assert open_tape.get() is None and phase.get() is None, f"line {k}"
    assert np.geterr() == errors
    if history is not None:
        assert len(history) == done
    assert flux.gradient(lambda a: a * a, 3.0) == (6.0,)
    assert sys.getprofile() is profile
    if done:  # the random numbers of the step that was lost are gone
        return
    training = Training(way, make)
    training.run()
    assert training.state() == states[-1]


def unused(training):
    """The training, with a parameter among the others that the loss does not depend on."""
    training.ps.add(flux.Tensor([1.0]), "unused")
    return training


def test_the_history_goes_with_the_steps_where_a_parameter_is_not_used():
    counter = Raises(0, None)
    whole = unused(Training(eager, "ADAM"))
    assert len(traced(counter, whole)) == len(STEPS)
    for k in range(-counter.left // 2, -counter.left * 3 // 4, 3):  # within a step
        training = unused(Training(eager, "ADAM"))
        history = traced(Raises(k, KeyboardInterrupt), training)
        assert len(history) == training.opt.state(training.ps[0]).get("t", 0), f"line {k}"


def traced(tracer, training):
    """The history of a training that a tracer follows, and may interrupt."""
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        return training.run()
    except KeyboardInterrupt as error:
        return error.history
    finally:
        sys.settrace(before)


def every(way, make, kinds, stride):
    states, lines = whole_states(way, make), lines_of(way, make)
    assert lines > 500
    for kind in kinds:
        for k in range(1, lines + 1, stride):
            check(way, make, kind, k, states)


KINDS = (KeyboardInterrupt, MemoryError, RuntimeError)


@pytest.mark.parametrize("make", only(["ADAM"], OPTIMISERS))
@pytest.mark.parametrize("way", [eager, hot])
def test_all_or_nothing_at_many_lines(way, make):
    kind = KINDS[list(OPTIMISERS).index(make)]
    every(way, make, [kind], either(101, 307) if way is eager else either(1501, 3001))


@pytest.mark.slow
@pytest.mark.parametrize("make", OPTIMISERS)
def test_all_or_nothing_at_every_line(make):
    every(eager, make, KINDS[:1], 1 if make == "ADAM" else 5)


@pytest.mark.slow
@pytest.mark.parametrize("make", OPTIMISERS)
def test_all_or_nothing_while_compiling(make):
    every(hot, make, KINDS[:1], 29)
