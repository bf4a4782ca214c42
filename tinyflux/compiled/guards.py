"""What a recording relied on: plain values, arrays and objects that the function can reach.

A number, a flag or a layer that the function takes from its closure, its globals or an attribute
may be changed after it was recorded. `Watch` goes through all that the code which ran (see
`witness.py`) can reach, and says what of each has to stay as it is; of that `check.py` makes one
function, so that asking costs microseconds.
"""

import array
import builtins
import functools
import gc
import io
import operator
import random
import sys
import weakref
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from types import (
    CellType,
    CodeType,
    FrameType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)

import numpy as np

from ..checks import is_compiled
from ..errors import CannotCompileError
from ..primitive import Operation
from ..tensor import Tensor
from .check import Check, Large
from .kinds import LIBRARIES, OURS, STANDARD, globals_in, is_in_c, is_plain, is_written, root

SMALL = 16384  # bytes; arrays up to this are compared as a whole
LONG = 32  # elements; longer lists of plain values are compared as a whole
MISSING = object()
RANDOM = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)


class Watch(Check):
    """Goes through objects and adds to a check what holds of each now.

    Parameters
    ----------
    witness : Witness or None
        What ran; None stands for everything, to be searched for generators.
    recorded : callable, optional
        Whether a Tensor is a value of the recording. `kept` says where such were found.
    """

    def __init__(self, witness, recorded=lambda t: False):
        super().__init__()
        everything = witness is None or witness.blind
        self.ran = None if everything else set(witness.codes)
        self.names = None if everything else witness.names()
        self.recorded, self.kept = recorded, []
        self.searches = witness is None  # for generators only
        self.asks = False  # whether something was met that looks up names the code does not have
        self.seen, self.todo, self.generators, self.arrays = {}, [], [], []
        self.contents = []  # pairs (small array, its bytes)
        self.numbers = []  # pairs (place, number); of dicts and objects how many parts
        self.used_up = [] if witness is None else [*witness.taken_from.values()]

    def run(self, things, witness=None):
        """Go through all that can be reached from `things` and from the code that ran."""
        self.todo.extend(things)
        for code, scope in list(witness.codes.values()) if witness else ():
            if self.is_users(scope.get("__name__")):
                self.look_up(code, scope)
        while self.todo:
            self.look_into(self.todo.pop())

    def expect(self, place, value):
        """Add the check that the expression `place` still gives `value`; look into `value`."""
        if value is None or value is True or value is False:
            self.checks.append(f"{place} is {value}")
        elif is_plain(value):
            name = self.label(value)
            same = f"type({place}) is {self.label(type(value))} and {place} == {name}"
            if isinstance(value, (float, complex, np.inexact)) and value == 0:
                same += f" and repr({place}) == {repr(value)!r}"  # 0.0 and -0.0 are equal
            self.checks.append(f"({place} is {name} or {same})")
            if isinstance(value, (int, float)):
                self.numbers.append((place, value))
        else:
            self.places.setdefault(id(value), place)
            if isinstance(value, Tensor) and self.recorded(value):
                self.kept.append(self.told(place))
            self.checks.append(f"{place} is {self.label(value)}")
            self.todo.append(value)

    def expect_parts(self, thing, place, pairs):
        """Add checks for pairs (key, part) of a container that is called `place`."""
        pairs = list(pairs)
        if len(pairs) > LONG and all(is_plain(part) for _, part in pairs):
            kinds, copy = [type(part) for _, part in pairs], thing.copy()
            values = f"{place}.values()" if isinstance(thing, dict) else place
            self.checks.append(f"{place} == {self.label(copy)}")
            self.checks.append(f"list(map(type, {values})) == {self.label(kinds)}")
            return
        for key, part in pairs:
            shown = repr(key) if type(key) in (str, int) else self.label(key)
            of_dict = isinstance(thing, dict)
            self.expect(f"{place}.get({shown})" if of_dict else f"{place}[{shown}]", part)

    def look_into(self, thing):
        """Watch the parts of an object."""
        if is_plain(thing) or id(thing) in self.seen:
            return
        self.seen[id(thing)] = thing  # kept, so that its id stays its own
        if is_compiled(thing):  # what counts is its function
            self.todo.append(thing.f)
            own, name = vars(type(thing)(thing.f)), self.label(thing)
            self.checks.append(f"len(vars({name})) == {len(vars(thing))}")
            for key in sorted(n for n in vars(thing).keys() - own if self.mentions(n)):
                self.expect(f"vars({name}).get({key!r})", vars(thing)[key])
            return
        method = next((m for kinds, m in HOW if isinstance(thing, kinds)), Watch.instance)
        method(self, thing)
        if isinstance(thing, CONTAINERS) and type(thing).__module__ != "builtins":
            self.instance(thing)

    # ------------------------------------------------------------------------- kinds of objects

    def tensor(self, t):
        """A parameter may be changed in place, but not be put in another array."""
        if self.recorded(t):
            self.kept.append("a tuple or a set")  # others were told before
        name = self.label(t)
        self.checks.append(f"{name}._array is {self.label(t._array)}")
        if self.mentions("trainable") and hasattr(t, "trainable"):
            self.expect(f"{name}.trainable", t.trainable)

    def array(self, a):
        """The rows read it anew, but what else was computed from it nobody can see."""
        self.arrays.append(a)
        name = self.label(a)
        self.checks.append(f"{name}.shape == {a.shape} and {name}.dtype is {self.label(a.dtype)}")
        if a.nbytes <= SMALL:
            self.contents.append((a, a.tobytes()))
            self.checks.append(f"{name}.tobytes() == {self.label(self.contents[-1][1])}")
        elif not self.searches:
            self.checks.append(f"{self.label(Large(a).unchanged)}()")
        if a.dtype.hasobject:
            self.label(a.copy())  # its bytes are the places of its elements: they stay theirs
            self.todo.extend(a.flat)

    def generator(self, g):
        self.generators.append(g)

    def operation(self, operation):
        rules = (*operation.rules, operation.joint, operation.body)
        self.todo += [f for f in (operation.kernel, *rules) if f is not None]

    def method(self, m):
        self.todo += [m.__self__, m.__func__]

    def partial(self, p):
        self.todo += [p.func, p.args, p.keywords]

    def sequence(self, thing):
        """A list or deque: its length and its elements."""
        name = self.label(thing)
        self.checks.append(f"len({name}) == {len(thing)}")
        self.expect_parts(thing, name, enumerate(thing))

    def group(self, thing):
        """What cannot be changed itself: a tuple."""
        self.todo.extend(thing)

    def a_set(self, thing):
        self.checks.append(f"{self.label(thing)} == {self.label(frozenset(thing))}")
        self.todo.extend(thing)

    def mapping(self, thing):
        """A dict: its keys in their order, and what they stand for."""
        name = self.label(thing)
        self.numbers.append((f"len({name})", len(thing)))
        self.checks.append(f"[*{name}] == {self.label([*thing])}")
        self.todo.extend(thing)
        self.expect_parts(thing, name, thing.items())

    def reference(self, r):
        self.expect(f"{self.label(r)}()", r())

    def variable(self, v):
        self.expect(f"{self.label(v)}.get({self.label(MISSING)})", v.get(MISSING))

    def octets(self, thing):
        """What holds bytes, and can be changed."""
        self.checks.append(f"bytes({self.label(thing)}) == {self.label(bytes(thing))}")

    def cached(self, f):
        """What a function remembers, until its cache is cleared: then it counts from 0 again."""
        now, counts = self.label(f), f.cache_info()[:2]
        same = f"all(map({self.label(operator.ge)}, {now}.cache_info()[:2], {self.label(counts)}))"
        self.checks.append(same)
        links = "_lru_list_elem"  # stand in the dict of a cache of limited size
        for part in gc.get_referents(f):
            first = next(iter(part.values()), None) if isinstance(part, dict) else None
            its_own = f.cache_info().maxsize is None or type(first).__name__ == links
            self.todo += part.values() if its_own and isinstance(part, dict) else [part]

    def module(self, module):
        """The attributes of a module of the user's that the code names."""
        if self.is_users(module.__name__):
            self.attributes(vars(module), self.label(vars(module)))

    def kind(self, kind):
        """A class of the user's: its attributes, and those of its methods that ran."""
        if not self.is_users(kind.__module__):
            return
        scope = self.label(vars(kind))
        self.places[id(self.bound[scope])] = kind.__name__
        for name, part in vars(kind).items():
            part = getattr(part, "__func__", getattr(part, "fget", getattr(part, "func", part)))
            if isinstance(part, FunctionType) and not self.has_run(part):
                continue
            if not name.startswith("__") or isinstance(part, FunctionType):
                if isinstance(part, FunctionType) or self.mentions(name):
                    self.expect(f"{scope}.get({name!r})", vars(kind)[name])
                    self.todo.append(part)
        self.todo += [*kind.__bases__, type(kind)]
        self.checks.append(f"len({scope}) == {len(vars(kind))}")
        self.numbers.append((f"len({scope})", len(vars(kind))))
        self.checks.append(f"{self.label(kind)}.__mro__ is {self.label(kind.__mro__)}")

    def instance(self, thing):
        """Any other object: its attributes and its class."""
        self.todo.append(type(thing))
        scope = getattr(thing, "__dict__", None)
        if self.is_users(type(thing).__module__):
            self.checks.append(f"type({self.label(thing)}) is {self.label(type(thing))}")
        if scope is not None:
            self.attributes(scope, self.label(thing), type(thing))
            self.todo.append(scope.get("__wrapped__"))
        for kind in type(thing).__mro__:
            for slot, part in vars(kind).items():
                if isinstance(part, MemberDescriptorType) and self.mentions(slot):
                    shown = f"getattr({self.label(thing)}, {slot!r}, {self.label(MISSING)})"
                    self.expect(shown, getattr(thing, slot, MISSING))
        if isinstance(thing, (operator.attrgetter, operator.methodcaller)):
            self.asks = True
        if type(type(thing)).__module__ == "_ctypes":
            self.octets(thing)
        if is_in_c(type(thing)):  # a view of a dict, a method of a generator, ...
            inside = gc.get_referents(thing)
            self.todo += [p for p in inside if p is not scope and not isinstance(p, RUNNING)]

    def iterator(self, thing):
        """What gives something else every time: it would be asked once."""
        code = getattr(thing, "gi_code", None)
        asked = self.names is not None if code is None else id(code) in (self.ran or ())
        if asked and is_in_c(type(thing)) and not isinstance(thing, io.IOBase):
            self.used_up.append(thing)
        self.instance(thing)

    def refuse_used_up(self):
        """Raise if the function took something from what others hold, as from an iterator."""
        for thing in self.used_up:
            if id(thing) in self.seen:
                name = self.told(self.places.get(id(thing), self.label(thing)))
                raise CannotCompileError(
                    f"the function takes from {name} ({type(thing).__name__}), which would happen "
                    "once. Take before the call and pass what was taken as an argument."
                )

    def overwritten(self, arrays):
        """Whether one of the arrays has changed since it was looked at."""
        changed = {id(a) for a, content in self.contents if a.tobytes() != content}
        return any(id(a) in changed or id(a.base) in changed for a in arrays)

    def counted(self):
        """A place where a number or an array has changed since it was looked at; or None."""
        for place, value in self.numbers:
            try:
                now = eval(place, dict(self.bound))
            except Exception:  # it is not there any more
                continue
            if type(now) is type(value) and now != value == value:
                return self.told(place)
        for a, content in self.contents:
            if a.tobytes() != content:
                return self.told(self.places.get(id(a), self.label(a)))
        return None

    def attributes(self, scope, owner, kind=None):
        """The attributes in a `__dict__` that the code names; that none hides one of the class."""
        place = owner if kind is None else f"vars({owner})"
        self.numbers.append((f"len({place})", len(scope)))
        named = scope if self.names is None else self.names.intersection(scope)
        for name in sorted(named, key=str):
            direct = kind is not None and is_written(name) and not hasattr(kind, name)
            shown = f"{owner}.{name}" if direct else f"{place}.get({name!r})"
            self.expect(shown, scope[name])
        if self.names is None or kind is None or root(kind.__module__) not in LIBRARIES:
            self.checks.append(f"len({place}) == {len(scope)}")  # none was added
        if self.names is not None and kind is not None:
            users = [k for k in kind.__mro__ if self.is_users(k.__module__)]
            for name in sorted(self.names.intersection(n for k in users for n in vars(k))):
                if name not in scope and not name.startswith("__"):
                    self.checks.append(f"{name!r} not in {place}")

    def function(self, f):
        """Watch what a function takes from outside."""
        if hasattr(f, "__wrapped__"):
            self.todo.append(f.__wrapped__)
        if not self.is_users(f.__module__):
            if root(f.__module__) in STANDARD and self.has_run(f):
                self.todo.extend(f.__closure__ or ())
            return
        name = self.label(f)
        self.attributes(vars(f), name, FunctionType)
        if not self.has_run(f):
            return
        self.checks.append(f"{name}.__code__ is {self.label(f.__code__)}")
        for place in ("__defaults__", "__kwdefaults__"):
            self.expect(f"{name}.{place}", getattr(f, place))
        for variable, cell in zip(f.__code__.co_freevars, f.__closure__ or ()):
            self.places[id(cell)] = variable
            try:
                self.expect(f"{self.label(cell)}.cell_contents", cell.cell_contents)
            except ValueError:  # not filled yet: two cells are equal if both are empty
                self.checks.append(f"{self.label(cell)} == {self.label(CellType())}")
        self.look_up(f.__code__, f.__globals__)

    def look_up(self, code, scope):
        """The globals that a piece of code names, and modules that it imports itself."""
        if id(code) in self.seen:
            return
        self.seen[id(code)] = code
        place = self.label(scope)
        self.places[id(scope)] = "globals"
        for name in list(scope) if "globals" in code.co_names else globals_in(code):
            if name in scope:
                self.expect(f"{place}.get({name!r})", scope[name])
                continue
            self.checks.append(f"{name!r} not in {place}")
            if not hasattr(builtins, name) and name in sys.modules:
                self.todo.append(sys.modules[name])

    # ------------------------------------------------------------------------- what ran

    def has_run(self, f):
        """Whether a function ran while it was recorded."""
        return self.ran is None or id(f.__code__) in self.ran

    def is_users(self, name):
        """Whether a module is the user's: not NumPy's, Python's or ours.

        Where it is not known what ran, all would be gone through: other packages do not count.
        """
        package = root(name)
        if self.ran is None:
            file = getattr(sys.modules.get(package), "__file__", None) or ""
            return package not in OURS | STANDARD and "-packages" not in file
        return package not in OURS | STANDARD

    def mentions(self, name):
        """Whether the code that ran has this name in it."""
        return self.names is None or name in self.names


HOW = (
    (Tensor, Watch.tensor), ((np.ndarray, np.void), Watch.array), (RANDOM, Watch.generator),
    (Operation, Watch.operation), (FunctionType, Watch.function), (MethodType, Watch.method),
    (functools.partial, Watch.partial), ((list, deque), Watch.sequence), (tuple, Watch.group),
    ((set, frozenset), Watch.a_set), (dict, Watch.mapping), (ModuleType, Watch.module),
    (type, Watch.kind), (weakref.ref, Watch.reference), (ContextVar, Watch.variable),
    ((array.array, bytearray, memoryview), Watch.octets),
    (functools._lru_cache_wrapper, Watch.cached), (Iterator, Watch.iterator),
)  # fmt: skip
CONTAINERS = (list, deque, tuple, set, frozenset, dict, functools.partial)
RUNNING = (CodeType, FrameType)


def watch(things, witness, tape):
    """(check, arrays in reach, kept): whether all that it relied on is as it is now.

    And in which places a value of the recording was kept for later.

    Parameters
    ----------
    things : iterable
        The function, and its arguments other than arrays.
    witness : Witness
    tape : TracingTape
    """
    given, mark = {id(t) for t, _ in tape.arguments}, tape.mark
    watcher = Watch(witness, lambda t: t.mark is mark or id(t) in given)
    things = [*things, *tape.leaves(), *witness.things()]
    watcher.run(things, witness)
    if watcher.asks and watcher.names is not None:
        watcher = Watch(witness, watcher.recorded)
        watcher.names = None
        watcher.run(things, witness)
    watcher.refuse_used_up()
    return watcher.compiled(), watcher.arrays, watcher.kept
