"""What a recording relied on: plain values, arrays and objects that the function can reach.

A number, a flag or a layer that the function takes from its closure, its globals or an attribute
may be changed after it was recorded. All of them are watched: `watch(f)` returns a check that is
true as long as nothing has changed, compiled to one expression each, so that it costs microseconds.
"""

import builtins
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import numpy as np

from ..primitive import Operation
from ..tensor import Tensor

PLAIN = (int, float, complex, str, bytes, bool, type(None), np.generic, np.dtype)
OURS = ("tinyflux", "numpy", "scipy", "builtins")
MISSING = object()


class Watch:
    """Collects checks, each the text of an expression over bound objects."""

    def __init__(self):
        self.checks, self.bound, self.seen, self.generators = [], {}, set(), []
        self.kept = []

    def name(self, thing):
        """A name for an object in the text of the checks."""
        name = f"o{len(self.bound)}"
        self.bound[name] = thing
        return name

    def expect(self, place, value):
        """Add the check that the expression `place` still gives `value`; look into `value`."""
        name = self.name(value)
        if isinstance(value, PLAIN):
            kind = self.name(type(value))
            self.checks.append(
                f"({place} is {name} or type({place}) is {kind} and {place} == {name})"
            )
        else:
            self.checks.append(f"{place} is {name}")
            self.look_into(value)

    def look_into(self, thing):
        """Watch the parts of an object."""
        if isinstance(thing, (*PLAIN, type, ModuleType, BuiltinFunctionType, Operation, np.ufunc)):
            return
        if id(thing) in self.seen:
            return
        self.seen.add(id(thing))
        self.kept.append(thing)
        if isinstance(thing, Tensor):
            self.checks.append(f"{self.name(thing)}.data is {self.name(thing.data)}")
        elif isinstance(thing, FunctionType):
            self.function(thing)
        elif isinstance(thing, MethodType):
            self.look_into(thing.__self__)
            self.look_into(thing.__func__)
        elif isinstance(thing, np.random.Generator):
            self.generators.append(thing)
        elif isinstance(thing, (tuple, frozenset)):
            for part in thing:
                self.look_into(part)
        elif isinstance(thing, list):
            self.sequence(thing)
        elif isinstance(thing, dict):
            self.mapping(thing)
        elif not isinstance(thing, np.ndarray):
            self.instance(thing)

    def sequence(self, thing):
        name = self.name(thing)
        self.checks.append(f"len({name}) == {len(thing)}")
        for i, part in enumerate(thing):
            self.expect(f"{name}[{i}]", part)

    def mapping(self, thing):
        name = self.name(thing)
        self.checks.append(f"len({name}) == {len(thing)}")
        for key, part in thing.items():
            self.expect(f"{name}.get({self.name(key)})", part)

    def instance(self, thing):
        attributes = getattr(thing, "__dict__", None)
        if isinstance(attributes, dict):
            self.mapping(attributes)
        for kind in type(thing).__mro__:
            if kind.__module__.split(".")[0] not in OURS:
                for part in vars(kind).values():
                    if isinstance(part, FunctionType):
                        self.look_into(part)
                    elif isinstance(part, PLAIN) and not isinstance(part, (str, type(None))):
                        pass

    def function(self, f):
        """Watch what a function takes from outside."""
        if (f.__module__ or "").split(".")[0] in OURS:
            return
        if hasattr(f, "__wrapped__"):
            self.look_into(f.__wrapped__)
        self.expect(f"{self.name(f)}.__code__", f.__code__)
        self.expect(f"{self.name(f)}.__defaults__", f.__defaults__)
        for cell in f.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            self.expect(f"{self.name(cell)}.cell_contents", content)
        scope = self.name(f.__globals__)
        for name in names_in(f.__code__):
            value = f.__globals__.get(name, MISSING)
            if value is not MISSING and not hasattr(builtins, name):
                self.expect(f"{scope}.get({name!r})", value)
                if isinstance(value, ModuleType) and value.__name__.split(".")[0] not in OURS:
                    self.module(value, f.__code__)

    def module(self, module, code):
        """The attributes of a module of the user's that a function names."""
        name = self.name(vars(module))
        for key in names_in(code):
            value = vars(module).get(key, MISSING)
            if isinstance(value, (*PLAIN, FunctionType, np.ndarray)):
                self.expect(f"{name}.get({key!r})", value)


def names_in(code):
    """All names that a function and those inside it look up by name."""
    names = dict.fromkeys(code.co_names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            names.update(dict.fromkeys(names_in(const)))
    return list(names)


def watch(f):
    """(check, generators): whether all is as it is now, and the random generators in reach."""
    watcher = Watch()
    watcher.look_into(f)
    lines = ["def check():", " try:"]
    for i in range(0, len(watcher.checks), 50):
        lines.append(f"  if not ({' and '.join(watcher.checks[i : i + 50])}): return False")
    lines += ["  return True", " except Exception: return False"]
    scope = dict(watcher.bound)
    exec("\n".join(lines), scope)
    return scope["check"], watcher.generators
