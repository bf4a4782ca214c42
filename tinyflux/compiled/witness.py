"""Who runs while a function is recorded, and whether it draws random numbers of its own."""

import dis
import gc
import os
import pickle
import random
import sys
import time
from datetime import date

import numpy as np

from ..errors import CannotCompileError
from ..walking import parts
from .guards import Watch
from .trace import HERE, NUMPY, is_users, user_line

STDLIB = os.path.dirname(os.__file__)
CLOCKS = {"time", "perf_counter", "monotonic", "process_time", "thread_time"}
CLOCKS |= {f"{name}_ns" for name in CLOCKS} | {"now", "utcnow", "today"}
TAKERS = {"pop", "popleft", "popitem"}  # methods that take something out
ENVIRONMENT = type(os.environ).__getitem__.__code__
# With one of these names in the code, any attribute may be meant.
DYNAMIC = {"getattr", "hasattr", "vars", "__dict__", "__getattribute__"}
DYNAMIC |= {"attrgetter", "asdict", "astuple", "setattr", "__setattr__"}


class Witness:
    """Sees which code runs in a block, and whether it draws random numbers of its own.

    A profiler written in C cannot be put back once it was replaced: while one is running nothing is
    seen, and then everything that can be reached counts as having run. What others have called when
    garbage is collected may come at any time, and does not count.
    """

    def __init__(self, tape):
        self.tape = tape
        self.codes = {}  # id -> (code, the globals that it runs with)
        self.aside = {id(getattr(f, "__code__", None)) for f in gc.callbacks}
        self.drew = self.clock = None
        self.taken_from = {}  # id -> a container out of which the user's code took something
        self.before = sys.getprofile()
        self.blind = self.before is not None and not callable(self.before)

    def __enter__(self):
        if not self.blind:
            sys.setprofile(self.see)
        return self

    def __exit__(self, *_):
        if not self.blind:
            sys.setprofile(self.before)

    def see(self, frame, event, arg):  # pragma: no cover - no tracer sees a profile function
        """What Python calls whenever a function is called."""
        if not self.tape.mark.open:  # Ctrl-C came just when the block was left
            sys.setprofile(self.before)
        elif id(frame.f_code) in self.aside:
            return
        elif event == "call":
            self.codes[id(frame.f_code)] = frame.f_code, frame.f_globals
        elif event == "c_call":
            self.see_c(frame.f_code.co_filename, arg)

    def see_c(self, file, f):  # pragma: no cover - no tracer sees a profile function
        """Notice functions written in C, called in a file, that give something else every time."""
        owner, name = getattr(f, "__self__", None), getattr(f, "__name__", "")
        if isinstance(owner, random.Random):
            self.drew = "random"
        elif f is os.urandom:
            self.drew = "a generator that was made without a seed"
        elif name in TAKERS and is_users(file):
            self.taken_from[id(owner)] = owner
        elif name in CLOCKS and is_users(file) and "-packages" not in file:  # of logs they may be
            if owner is time or (isinstance(owner, type) and issubclass(owner, date)):
                self.clock = f"{user_line()}: the function reads the clock ({name})"

    def things(self):
        """What the code looked at that nobody gives to it: the environment of the process."""
        return [os.environ._data] if id(ENVIRONMENT) in self.codes else []

    def names(self):
        """The names that the code looks up, attributes and globals; None if it may be any."""
        found = set()
        for code, _ in self.codes.values():
            found.update(code.co_names)
            theirs = code.co_filename.startswith((HERE, NUMPY)) or (
                code.co_filename.startswith(STDLIB) and "site-packages" not in code.co_filename
            )
            if code is parts.__code__ or not (theirs or names_all(code)):
                return None
        return found


def names_all(code):
    """Whether a piece of code has the names of all attributes that it looks up."""
    asks = any(i.opname == "MATCH_CLASS" for i in dis.get_instructions(code))
    return not asks and DYNAMIC.isdisjoint(code.co_names)


def surroundings(*things):
    """All that can be reached from `things`, looked at, and how the random generators stand."""
    watcher = Watch(None)
    watcher.run(things)
    found = [np.random.mtrand._rand, *watcher.generators]
    return watcher, [(g, state_of(g)) for g in found]


def state_of(g):
    """Where a random generator stands, as bytes."""
    if isinstance(g, random.Random):
        return pickle.dumps(g.getstate())
    if isinstance(g, np.random.RandomState):
        return pickle.dumps(g.get_state(False))
    bits = getattr(g, "bit_generator", g)
    spawned = getattr(bits.seed_seq, "n_children_spawned", 0)
    return pickle.dumps((bits.state, spawned))


def refuse_draws(before, witness):
    """Raise if random numbers were drawn, or a clock was read: the same in every call."""
    if witness.clock:
        raise CannotCompileError(
            f"{witness.clock}, which would stand still. Read it before the call and pass the "
            "number as an argument."
        )
    moved = [g for g, state in before if state_of(g) != state]
    what = witness.drew
    if moved:
        what = "np.random" if moved[0] is np.random.mtrand._rand else "a Generator"
    if what:
        raise CannotCompileError(
            f"the function draws from {what}, whose numbers would be the same in every call. Draw "
            "before the call and pass the numbers as an argument, or use a layer such as Dropout."
        )
