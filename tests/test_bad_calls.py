"""Every argument of everything public, replaced by everything odd.

Each call must end in a result that is right, or in an error that says which argument of what is
wrong; a call that fails changes nothing at all. `bad_values.py` has the values, `good_calls.py` the
calls. All of them together are made in a process of its own, which may crash or hang or eat up the
memory; a share of them, another one for each argument, is made here.
"""

import faulthandler
import inspect
import re
import signal
import subprocess
import sys
import warnings
from fractions import Fraction
from functools import cache
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

import tinyflux as flux
from tests.suites import either
from tinyflux.checks import brief

from .bad_values import VALUES, Endless, Hostile
from .good_calls import CALLS, World, surroundings

SECONDS = 2  # what no call may take
MEMORY = 4 << 30  # bytes that all calls together may have at a time
SHARE = 8  # one in so many is made in the process of the tests

# --- one call ------------------------------------------------------------------------------------


class Hangs(BaseException):
    """A call that did not end."""


def alarmed(signum, frame):
    raise Hangs


@cache
def good_arguments(name):
    """The arguments of a row, as they are written down."""
    given = inspect.signature(CALLS[name]).parameters.values()
    return {p.name: p.default for p in given if p.default is not p.empty and p.name[0] != "_"}


def attempt(name, world, changed):
    """(result, None) or (None, what was raised)."""
    given = {**good_arguments(name), **changed}
    given = {k: v(world) if type(v) is attrgetter else v for k, v in given.items()}
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            return CALLS[name](world, **given), None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (Exception, Hangs) as error:
        return None, error


# --- what an error has to say --------------------------------------------------------------------

RIGHT = (TypeError, ValueError, LookupError, OverflowError, flux.FluxError, FloatingPointError)

# The words of accidents, which nobody has foreseen.
ACCIDENTS = re.compile(
    r"has no attribute|'NoneType'|truth value|subscriptable|object is not callable|unhashable|"
    r"no identity|unsupported operand|not supported between|object is not iterable|has no len|"
    r"cannot unpack|too many values|not enough values|must be real number|an integer is required|"
    r"cannot be interpreted|unexpected keyword|Exceeds the limit|recursion"
)

# How an error may call an argument, besides by the name of the function or its own.
ALSO = (
    r"\b(gradients?|Gradient|Parameter|parameters?|state|label|data|datum|Dense|activation|mse)\b"
)

# Functions of the user's: what they raise when we call them is theirs to explain.
FUNCTIONS = {
    "f",
    "loss",
    "cb",
    "log",
    "predicate",
    "schedule",
    "collate",
    "distance",
    "init",
    "agg",
}
CALLABLE = {"class", "five arguments", "raises", "nothing back", "text back", "model", "mock"}
# The same where the argument goes straight into a function of the user's.
STRAIGHT = {"compiled", "compiled keyword", "compiled withgradient", "Grads +", "Grads -", "tanh"}
# Parameters: another form of the call, in which the function takes no arguments.
FORMS = {(name, what) for name in ("pullback", "jacobian") for what in ("[Tensor]", "Params")}

# Nobody can keep as many elements, as NumPy says at once.
TOO_MANY = {"huge view", "long range"}
# Of values that are not finite, or soon will not be, NumPy says what it always says.
EXTREME = {
    "Decimal 1e400",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "longdouble",
    "nans",
    "infs",
    "huge",
    "5000 digits",
}
SAID_OF_EXTREMES = re.compile(r"(overflow|invalid value|divide by zero|underflow) encountered in")


def fault(name, argument, what, error):
    """What is wrong with an error, or None."""
    text = f"{type(error).__name__}: {error}"
    users = (
        (name, what) in FORMS or name in STRAIGHT or (argument in FUNCTIONS and what in CALLABLE)
    )
    if isinstance(error, Hostile) or (users and isinstance(error, (*RIGHT, ArithmeticError))):
        return None
    if what == "Grads" and "Grads map parameters" in text:
        return None  # says so itself, whoever asks
    if isinstance(error, (Hangs, Endless)):
        return f"hangs ({text})"
    if isinstance(error, MemoryError):
        return None if what in TOO_MANY else text
    if isinstance(error, RuntimeWarning) and SAID_OF_EXTREMES.match(str(error)):
        return None if what in EXTREME or name == "Grads /" else text
    if isinstance(error, (UserWarning, ImportError)) and re.search("batchsize is|needs tqdm", text):
        return None
    if not isinstance(error, RIGHT) or isinstance(error, (AttributeError, Warning)):
        return f"not a documented exception: {text}"
    if ACCIDENTS.search(text):
        return f"an accident: {text}"
    names = {argument, *re.findall(r"\w\w+", name)}
    if not any(re.search(rf"\b{re.escape(n)}\b", text) for n in names) and not re.search(
        ALSO, text
    ):
        return f"names neither function nor argument: {text}"
    return None


# --- what a result has to be ---------------------------------------------------------------------

# Their results are not numbers, or are whatever came.
ANYTHING = re.compile(
    r"identity|tanh|onecold|DataLoader|batch|unbatch|chunk|ncycle|splitobs|shuffleobs|detach|Chain\[|"
    r"Params|Grads|train_|early|plateau|throttle|compiled|.*: the function returned|"
    r"Loop|Sequence|Dense$|generator|.*mode_|update_|load_state_|restore_|seed_"
)


def numeric(result):
    """Whether it is a number, or a plain array of numbers."""
    array = type(result) is np.ndarray or isinstance(result, np.generic)
    return result.dtype.kind in "fiub" if array else isinstance(result, (int, float))


def plain(value):
    """What an ordinary user would have written for a bad value; None if there is no such thing."""
    if isinstance(value, flux.Tensor):
        return value.data.copy()
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        kind = value.dtype.kind
        if value.size > 1000 or kind not in "fiub":
            return None
        return np.array(value.view(np.ndarray), np.float64 if kind == "f" else value.dtype)
    if isinstance(value, np.generic) and value.dtype.kind in "fiu":
        return value.item() if value.dtype.itemsize <= 8 else None
    return float(value) if isinstance(value, Fraction) else None


def alike(a, b):
    """Whether two results are equal, as far as can be told of numbers of different precision."""
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(alike, a, b))
    if not (numeric(a) and numeric(b)):
        return True
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-2, atol=1e-5, equal_nan=True)


def misfit(name, argument, value, result, good, world):
    """What is wrong with a result, or None."""
    if ANYTHING.match(name) or argument == "agg":
        return None
    if numeric(good) and not numeric(result):
        return f"returned {type(result).__name__}: {brief(result)}"
    ordinary = plain(value)
    if ordinary is None:
        return None
    wanted, error = attempt(name, world, {argument: ordinary})
    if error is None and not alike(result, wanted):
        return f"returned {brief(result)}, but for {brief(ordinary)} {brief(wanted)}"
    return None


# --- what must not have changed ------------------------------------------------------------------


def fingerprint(value):
    """A bad value as something that can be compared."""
    if isinstance(value, np.ndarray):
        seen = value.view(np.ndarray)
        content = repr(seen) if seen.dtype.hasobject or seen.size > 1000 else seen.tobytes()
        return seen.shape, seen.strides, seen.dtype.str, seen.flags.writeable, content
    if isinstance(value, flux.Tensor):
        return fingerprint(value.data), value.trainable
    if isinstance(value, (flux.Grads, flux.Params)):
        return [fingerprint(t) for pair in (value, getattr(value, "values", list)()) for t in pair]
    try:
        return repr(value)
    except (Hostile, ValueError, RecursionError):
        return None


def bits(result):
    """A result as something that can be compared to the last bit."""
    if isinstance(result, (tuple, list)):
        return [bits(r) for r in result]
    if isinstance(result, (np.ndarray, np.generic)):
        return result.dtype.str, result.shape, result.tobytes()
    text = repr(result)
    return type(result) if " at 0x" in text else text


def name_changes(name):
    """Whether what a row calls changes something, by its name: a trailing underscore, mostly."""
    return re.search(r"_( |$)|_:|=$|add|discard|insert|append|record|seed|Scheduler|compiled", name)


class Row:
    """All bad calls of one callable."""

    def __init__(self, name):
        self.name, self.count, self.found = name, 0, []
        self.good, error = attempt(name, self.renew(), {})
        assert error is None, f"the good call of {name} fails: {error!r}"
        self.wanted = bits(self.good)

    def renew(self):
        """A new world, in the place of one that has changed."""
        self.world = World()
        self.before, self.outside = self.world.state(), surroundings()
        return self.world

    def run(self, share):
        """Make every call, or one in `share`, another one for each argument; collect what fails."""
        for k, argument in enumerate(good_arguments(self.name)):
            self.renew()
            for what in list(VALUES)[(k + len(self.name)) % share :: share]:
                wrong = self.call(argument, what)
                if wrong:
                    self.found.append(f"{self.name}({argument} = {what}): {wrong}")
            again, error = attempt(self.name, self.world, {})
            if error is not None or bits(again) != self.wanted:
                self.found.append(f"after {self.name}({argument} = ...) a good call differs")
        return self

    def call(self, argument, what):
        """Make one bad call; return what is wrong with it."""
        self.count += 1
        value = VALUES[what]()
        seen = fingerprint(value)
        result, error = attempt(self.name, self.world, {argument: value})
        changed = self.world.state() != self.before
        moved = surroundings() != self.outside
        try:
            drawn = error is None and (self.name == "seed_" or (argument, what) == ("rng", "None"))
            if moved and not drawn:
                return "changed the state of the process"
            if error is None:
                return misfit(self.name, argument, value, result, self.good, self.world)
            if fingerprint(value) != seen:
                return "changed the value"
            if changed and "cb" not in argument:  # a callback comes after the update
                return f"changed something, though it failed with {type(error).__name__}: {error}"
            return fault(self.name, argument, what, error)
        finally:
            if changed or moved or (error is None and name_changes(self.name)):
                self.renew()


# --- all of them ---------------------------------------------------------------------------------


def main(names):
    """All calls of some rows, with little memory and a watch on each argument."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, alarmed)
    count = 0
    for name in names or CALLS:
        faulthandler.dump_traceback_later(60 * SECONDS, exit=True)
        row = run(name)
        count += row.count
        print(*row.found, sep="\n")
    print(f"{count} calls")


def run(name, share=1):
    """The calls of one row, from a known state of the process."""
    flux.seed_(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = Row(name).run(share)
    return row


if __name__ == "__main__":
    main(sys.argv[1:])


needs_alarm = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm clock here")


@pytest.fixture
def alarm():
    """A call that hangs is interrupted, if only Python hangs."""
    before = signal.signal(signal.SIGALRM, alarmed)
    yield
    signal.signal(signal.SIGALRM, before)


@needs_alarm
@pytest.mark.parametrize("name", CALLS)
def test_a_share_of_the_bad_calls(name, alarm):
    found = run(name, either(SHARE, 9 * SHARE)).found
    assert not found, "\n".join(found)


def test_they_are_many():
    arguments = sum(len(good_arguments(name)) for name in CALLS)
    assert len(VALUES) >= 60 and arguments * (len(VALUES) // SHARE) >= 4000


# Without arguments, or made by the library alone.
NOT_CALLED = {"iris", "stop", "skip", "TrainingState", "UpdateRule", "Split", "Schedule"}
# What it changes is the whole process, or files, for which there are tests of their own.
NOT_CALLED |= {"set_threads_", "save", "load_", "checkpoint"}


def test_everything_public_is_called():
    known = {re.findall(r"\w+", name)[0] for name in CALLS} | NOT_CALLED
    public = {**vars(flux), **{name: getattr(flux.losses, name) for name in flux.losses.__all__}}
    public |= {name: getattr(flux.datasets, name) for name in flux.datasets.__all__}
    public |= {kind.__name__: kind for kind in flux.schedules.Schedule.__subclasses__()}
    for name, thing in public.items():
        error = isinstance(thing, type) and issubclass(thing, Exception)
        if callable(thing) and not error and name[0] != "_":
            assert {name, thing.__name__} & known, f"{name} has no row in good_calls.py"


@needs_alarm
@pytest.mark.slow
def test_all_bad_calls_in_processes_of_their_own():
    names = list(CALLS)
    run = [sys.executable, "-X", "faulthandler", "-m", "tests.test_bad_calls"]
    parts = [
        subprocess.Popen(
            [*run, *names[k::2]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for k in range(2)
    ]
    ends = [part.communicate(timeout=600) for part in parts]
    for part, (out, err) in zip(parts, ends, strict=True):
        assert part.returncode == 0, (out[-2000:], err[-4000:])
        found = [line for line in out.splitlines() if line.strip()][:-1]
        assert not found, "\n".join(found)
    assert sum(int(re.search(r"(\d+) calls", out)[1]) for out, _ in ends) >= 4000
