"""How a recorded program could go wrong, and that it does not: nothing is silently stale."""

import _thread
import collections
import copy
import cProfile
import ctypes
import enum
import functools
import gc
import itertools
import linecache
import math
import operator
import os
import pickle
import random
import re
import threading
import time
import traceback
import tracemalloc
import types
import warnings
import weakref
from array import array as Numbers
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from datetime import datetime

import numpy as np
import pytest

import tinyflux as flux
from tests.compiling import agree, agree_all, steady
from tests.suites import a_third, only
from tinyflux import losses
from tinyflux.compiled import compiled
from tinyflux.compiled.likeness import Content
from tinyflux.errors import CannotCompileError, NonFiniteLossError, NotScalarError, RecordingError
from tinyflux.primitive import primitive

X = np.random.default_rng(0).standard_normal((6, 4))
Y = np.arange(6) % 3
TEMPERATURE = 2.0
WEIGHT = flux.Tensor(np.ones(4))
CONFIG = types.SimpleNamespace(rate=1.0, nested={"deep": [1.0, 2.0]})


def follows(f, change, *args):
    """A compiled `f` gives what `f` gives, before and after `change()`."""
    hot = compiled(f)
    before = f(*args)
    agree(hot(*args), before)
    entry = hot.latest
    agree(hot(*args), before)
    assert hot.latest is entry, "without a change nothing is recorded again"
    change()
    after = f(*args)
    assert not np.array_equal(after, before), "the change is to be seen"
    agree(hot(*args), after)
    agree(hot(*args), after)
    return hot


def same_with_seed(f, hot, *args):
    """Both draw the same, beginning at one seed."""
    found = []
    for g in (f, hot):
        flux.seed_(5)
        found.append(g(*args))
    agree(*found)


# --------------------------------------------------------------------------- K1: signatures


@pytest.mark.parametrize(
    "args",
    [
        (X[:2],), (X[0],), (X.astype("f4"),), (X.astype(">f8"),), (X[::2],), (X.T.copy().T,),
        (np.array(2.0),), (2.0,), (np.float64(2),), (np.float32(2),), (3,), (True,), (X[:0],),
        (X, 2.0), (X, None), (X, X), ([X, X][0], X[0]), (np.broadcast_to(1.0, (6, 4)),),
    ],
    ids=lambda args: " ".join(f"{type(a).__name__}{np.shape(a)}" for a in args),
)  # fmt: skip
def test_every_signature_has_its_own_recording(args):
    def f(x, y=None):
        return np.tanh(x) * 2 if y is None else np.tanh(x) * y

    hot = compiled(f)
    for again in ((X,), args, (X,), args):
        wanted = f(*again)
        agree(hot(*again), wanted)
        agree(hot(*(a.copy() if isinstance(a, np.ndarray) else a for a in again)), wanted)


def test_keywords_and_containers():
    def f(x, *, scale=1.0, more=(), table=None):
        y = x * scale
        for a in more:
            y = y + a
        return y + (0 if table is None else sum(k * v for k, v in table.items()))

    hot = compiled(f)
    for kwargs in (
        {}, {"scale": 2.0}, {"scale": X}, {"scale": 2.0}, {"more": (X, X)}, {"more": [X, 1.0]},
        {"more": [X, 2.0]}, {"table": {2: X}}, {"table": {3: X}}, {"table": {2: X, 3: X}}, {},
    ):  # fmt: skip
        agree(hot(X, **kwargs), f(X, **kwargs))
    with pytest.raises(TypeError):
        hot(X, X)
    hot = compiled(lambda x, b, a: x * b - a)  # in whatever order they are given
    for kwargs in ({"b": X, "a": 2 * X}, {"a": X, "b": 2 * X}, {"b": 3 * X, "a": X}):
        agree(hot(X, **kwargs), X * kwargs["b"] - kwargs["a"])


def test_nesting_of_arguments_counts():
    def f(pairs):
        return sum(a * (k + 1) + b for k, (a, b) in enumerate(pairs))

    def g(tree):
        return tree[0] + (tree[1][0] if isinstance(tree[1], tuple) else tree[1])

    for h, inputs in (
        (f, [[(X, X)], [(X, X), (X, X)]]), (g, [(X, (X[0],)), (X, X[0])]),
        (lambda d: d.get("a", 1.0) * 3 + d.get("b", 0.0), [{"a": X}, {"b": X}, {"a": X, "b": X}]),
        (lambda t: sum(len(p) * p[0] for p in t), [([X, 2 * X], [X]), ([X], [2 * X, X])]),
    ):  # fmt: skip
        hot = compiled(h)
        for tree in (*inputs, *inputs):
            agree(hot(tree), h(tree))


class Percent(float):
    """Prints less than it is."""

    __repr__ = lambda self: f"{float(self):.0%}"


class Short(str):
    __slots__ = ()
    __repr__ = lambda self: "text"


@pytest.mark.parametrize("two", [(Percent(0.101), Percent(0.102)), (Short("a"), Short("aa"))])
def test_numbers_and_texts_count_by_their_values_however_they_print(two):
    f = lambda x, k: x * (k if isinstance(k, float) else len(k))
    hot = compiled(f)
    for k in (*two, *two):
        agree(hot(X, k), f(X, k))


def test_a_list_or_dict_of_a_class_of_ones_own_stays_one(monkeypatch):
    class Settings(dict):
        __getattr__ = dict.__getitem__

    chain = Layers([np.tanh, np.sin])
    chain.scale = 3.0
    f = lambda x, settings, chain, counts: chain(x * settings.rate) + counts["none"] + counts["a"]
    hot = compiled(f)
    for rate in (2.0, X[0], 3.0):
        given = Settings(rate=rate), chain, collections.Counter("aab")
        agree(hot(X, *given), f(X, *given))
    assert len(chain) == 2 and chain[0] is np.tanh
    f = lambda x, chain: chain(x)
    hot, other = compiled(f), Layers([np.tanh, np.sin])
    for scale in (2.0, 3.0):
        other.scale = scale
        for given in (chain, other):
            agree(hot(X, given), f(X, given))
    plain = Layers([np.cos])
    follows(f, lambda: monkeypatch.setattr(Layers, "scale", 5.0), X, plain)


def test_where_an_argument_stands_counts():
    def f(x, pair=None, **named):
        return x if pair is None else 2 * x

    hot = compiled(f)
    for _ in range(2):
        agree(hot(X, {"a": X}), 2 * X)
        agree(hot(X, a=X), X)
    named = compiled(lambda x, d: 2 * x if type(next(iter(d))) is bool else x)
    for key in (1, True, 1.0):
        agree(named(X, {key: 0.0}), 2 * X if key is True else X)
        keys = (key, "a"), (0.0, "b")
        agree(compiled(lambda x, d: x)(X, dict.fromkeys(keys, X)), X)


def test_strides_and_read_only_arguments():
    hot = compiled(lambda x: np.sum(x.reshape(-1) * np.arange(24.0)) + x[0] @ x[1])
    wide = np.zeros((6, 8))
    wide[:, ::2] = X
    fixed = X.copy()
    fixed.flags.writeable = False
    hot(X)
    first = hot.latest
    for x in (X, wide[:, ::2], np.asfortranarray(X), fixed, X[::-1][::-1]):
        agree(hot(x), np.sum(X.reshape(-1) * np.arange(24.0)) + X[0] @ X[1], 1e-14)
    assert len(hot.recordings) == 1 and hot.latest is first


def test_subclasses_of_arrays():
    hot = compiled(lambda x: x * x)
    agree(hot(np.ones((2, 2))), np.ones((2, 2)))
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1.0, 2.0], [3.0, 4.0]])
    agree(hot(matrix), np.asarray(matrix) ** 2)
    with pytest.raises(TypeError, match="mask"):
        hot(np.ma.masked_array(np.ones((2, 2)), mask=np.eye(2)))


# --------------------------------------------------------------------------- K2: branches

BRANCHES = {
    "bool": lambda x: x if np.sum(x) > 0 else -x,
    "float": lambda x: x * float(np.sum(x)),
    "int": lambda x: x * int(np.sum(x)),
    "item": lambda x: x * np.max(x).item(),
    "tolist": lambda x: x * x[0].tolist()[0],
    "asarray": lambda x: x * np.asarray(x * 2),
    "array": lambda x: np.sum(np.array([x, x])),
    "list of values": lambda x: np.sum(np.array([x[0, 0], x[0, 1]])),
    "while": lambda x: halved(x),
    "max": lambda x: max(x[0, 0], x[0, 1]),
    "sorted": lambda x: sorted([x[0, 0], x[0, 1]])[0],
    "math": lambda x: x * math.sqrt(np.sum(x * x)),
    "argmax": lambda x: [1.0, 2.0, 3.0, 4.0][int(np.argmax(x[0]))] * x,
    "index": lambda x: [1.0, 2.0, 3.0, 4.0][np.argmax(x[0])] * x,
    "range": lambda x: sum(x * i for i in range(np.argmax(x[0]))) + x,
    "in": lambda x: x if 0.0 in x else -x,
    "any": lambda x: x if (x > 100).any() else -x,
    "and": lambda x: x if x[0, 0] > 0 and x[0, 1] > 0 else -x,
    "not": lambda x: -x if not np.sum(x) else x,
    "allclose": lambda x: x if np.allclose(x, 0) else -x,
    "nonzero": lambda x: np.sum(np.nonzero(x)[0]) * x,
    "mask": lambda x: x[x > 0],
    "one argument": lambda x: np.sum(np.where(x > 0)[0]) * x,
    "into an array": lambda x: np.multiply(x, 2, out=np.empty((6, 4))),
    "assignment": lambda x: [a := np.zeros((6, 4)), a.__setitem__(0, x[0]), a][-1],
    "lookup": lambda x: np.arange(4.0)[np.argmax(x, axis=1)],
    "dict": lambda x: {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}[np.argmax(x[0])] * x,
    "round": lambda x: round(x[0, 0]) * x,
    "format": lambda x: float(f"{x[0, 0]:.3f}") * x,
    "in a set": lambda x: x * (5 if np.argmax(x) in {0, 1} else 1),
    "get": lambda x: x * {0: 1.0, 2: 5.0}.get(np.argmax(x), 7.0),
    "distinct": lambda x: x * len(set(np.sign(x[0] - 2))),
    "remembered": lambda x: x * remembered(np.argmax(x)),
    "keyword": lambda x: np.all(x > 0, where=x > 1) * x,
    "slice": lambda x: np.sum(x[: np.argmax(x[0]) + 1]) * x,
    "copy": lambda x: copy.copy(x) * 2,
    "deepcopy": lambda x: copy.deepcopy([x])[0] * 2,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)) * 2,
    "copied parameter": lambda x: copy.deepcopy(WEIGHT) * x,
    "bincount": lambda x: np.sum(np.bincount(np.argmax(x, axis=0), minlength=4)) * x,
    "weighted": lambda x: np.sum(np.bincount(np.argmax(x, axis=0), x[0], minlength=4)) * x,
    "data": lambda x: x * np.sum(x.data),
    "data of a parameter": lambda x: x * np.sum(WEIGHT.data),
    "set": lambda x: x if np.argmax(x[0]) in {0, 1} else -x,
    "fill": lambda x: [a := np.zeros(4), a.fill(x[0, 0]), a * x][-1],
}  # fmt: skip
BARE = ("one argument", "into an array", "fill")


def raised(x, f, error):
    try:
        return f(x)
    except error:
        return 2 * x


BRANCHES |= {
    "caught": lambda x: raised(np.zeros((4, 4)) * x[:4], np.linalg.cholesky, np.linalg.LinAlgError),
    "nested": lambda x: raised(
        0 * x[:4], lambda z: flux.gradient(lambda a: np.sum(np.linalg.inv(a)), z)[0], ValueError
    ),
}


@functools.lru_cache
def remembered(k):
    return 2.0 if k == 21 else 1.0


def halved(x):
    while np.sum(np.abs(x)) > 1:
        x = x / 2
    return x


@pytest.mark.parametrize("name", BRANCHES)
def test_what_depends_on_a_value_is_refused(name):
    f = BRANCHES[name]
    f(X)  # it is fine in itself
    for hot in (compiled(f), compiled(lambda x: np.sum(f(x)))):
        with pytest.raises((CannotCompileError, TypeError, KeyError, ValueError)) as caught:
            hot(X)
        if name in BARE:
            notes = getattr(caught.value, "__notes__", [])
            assert name == "into an array" or "test_compiled_failures.py:" in notes[0]
        else:
            assert isinstance(caught.value, CannotCompileError)
            said = str(caught.value)
            assert "test_compiled_failures.py:" in said
            assert said.endswith("eave this part outside of compiled.") or "order=" in said
            for how, remedy in (
                ("bool(", "np.where"),
                ("a copy", ".copy()"),
                ("int(", "Tensor(a)[t]"),
            ):
                assert f": {how}" not in said or remedy in said


@pytest.mark.parametrize("same", [np.array_equal, np.allclose])
def test_a_flag_of_pythons_is_a_value(same):
    f = lambda x: np.sum(x) * same(x, Y[:4] + 0.5) + same(x, X[0])
    hot = compiled(f)
    for x in (X[0], Y[:4] + 0.5, X[1]):
        agree(hot(x), f(x))
        agree_all(flux.gradient(hot, x), [np.full(4, float(same(x, Y[:4] + 0.5)))])


def test_elements_of_an_array_of_objects_are_watched():
    held = np.empty(1, object)
    held[0] = [2.0]
    hot = compiled(lambda x: x * held[0][0])
    agree(hot(X), X * 2)
    held[0][0] = 3.0
    agree(hot(X), X * 3)


def test_new_elements_of_an_array_of_objects_are_seen():
    held = np.array([float("2.5")], object)
    hot = compiled(lambda x: x * (held[0] + 1))
    agree(hot(X), X * 3.5)
    for rate in ("3.5", "4.5"):  # the last one where the first one stood in memory
        held[0] = float(rate)
    agree(hot(X), X * 5.5)


def test_what_has_changed_is_told():
    scale = types.SimpleNamespace(rate=2.0)
    hot = compiled(lambda x: x * scale.rate)
    hot(X)
    assert hot.latest.check.changed() == "something", "nothing has"
    del scale.rate
    assert hot.latest.check.changed() == "scale.rate"


def test_contents_of_constants_are_compared_by_value():
    a, b = np.ones(2), np.array([1.0, None], object)
    assert Content(a) == Content(a.copy()) and Content(a) != Content(a.astype("f4"))
    assert Content(b) == Content(b) and Content(b) != Content(b.copy()) and Content(a) != 1.0


def test_arguments_and_parameters_as_keys():
    W, scale = flux.Tensor(np.ones(4)), np.array(1)
    rates = {W: 2.0}
    hot = compiled(lambda x: np.sum(x * W) * rates[W] * len({W, W}))
    agree(hot(X), np.sum(X) * 2, 1e-14)
    with pytest.raises(CannotCompileError, match="hash"):
        compiled(lambda k: k * (2 if k in {1, 2} else 3))(scale)


def test_a_refused_function_leaves_nothing_behind():
    refuse = [True]
    hot = compiled(lambda x: x * float(np.sum(x)) if refuse[0] else x * 2)
    with pytest.raises(CannotCompileError):
        hot(X)
    agree(flux.gradient(lambda x: np.sum(x * x), X)[0], 2 * X)  # no tape is left open
    refuse[0] = False
    agree(hot(X), 2 * X)


def test_methods_that_only_arrays_have_are_refused_without_bad_advice():
    with pytest.raises((AttributeError, CannotCompileError)) as caught:
        compiled(lambda x: x.nonzero())(X)
    assert "t.data" not in str(caught.value)


# --------------------------------------------------------------------------- K3: constants


class Model:
    """Something that a user would write."""

    strength = 0.5
    shared = {"power": 2}

    def __init__(self):
        self.weight = flux.Tensor(np.ones((4, 2)))
        self.scale, self.on, self.kind, self.offset = 2.0, True, "tanh", np.array(1.0)
        self.parts, self.options, self.chosen = [1.0, 2.0], {"a": 1.0}, {1, 2}
        self.inner = CONFIG
        self.f = np.tanh

    @property
    def doubled(self):
        return 2 * self.scale

    @staticmethod
    def helper(x):
        return x * TEMPERATURE

    def __call__(self, x):
        h = self.f(x @ self.weight) * self.scale + self.offset
        h = h * self.strength if self.on else h
        h = h + self.parts[1] * self.options["a"] + sum(self.chosen) + self.doubled
        return self.helper(h) ** self.shared["power"] * self.inner.nested["deep"][0]

    def loss(self, x):
        return np.sum(self(x))


def set_attribute(m, name, value):
    return lambda: setattr(m, name, value)


DEEP = lambda: CONFIG.nested["deep"]
CHANGES = {
    "float": lambda m: set_attribute(m, "scale", 3.0),
    "flag": lambda m: set_attribute(m, "on", False),
    "0-d array replaced": lambda m: set_attribute(m, "offset", np.array(3.0)),
    "0-d array in place": lambda m: lambda: m.offset.__setitem__((), 3.0),
    "function": lambda m: set_attribute(m, "f", np.sin),
    "list element": lambda m: lambda: m.parts.__setitem__(1, 5.0),
    "list replaced": lambda m: set_attribute(m, "parts", [1.0, 7.0]),
    "dict element": lambda m: lambda: m.options.update(a=4.0),
    "set": lambda m: lambda: m.chosen.add(9),
    "class attribute": lambda m: lambda: setattr(Model, "strength", Model.strength + 1),
    "dict of the class": lambda m: lambda: Model.shared.update(power=Model.shared["power"] + 1),
    "hidden class attribute": lambda m: set_attribute(m, "strength", -3.0),
    "object inside": lambda m: lambda: DEEP().__setitem__(0, DEEP()[0] + 1),
    "weight rebound": lambda m: set_attribute(m, "weight", flux.Tensor(3 * np.ones((4, 2)))),
    "data rebound": lambda m: set_attribute(m.weight, "data", 3 * np.ones((4, 2))),
    "data in place": lambda m: lambda: m.weight.data.fill(0.3),
    "global": lambda m: lambda: globals().update(TEMPERATURE=TEMPERATURE + 1),
    "method": lambda m: set_attribute(m, "helper", lambda x: x * 7),
    "method of the class": lambda m: lambda: setattr(Model, "helper", staticmethod(np.sin)),
}  # fmt: skip


HOW = ["call", "method", "closure", "argument", "gradient", "training"]


@pytest.mark.parametrize("how", only(["gradient", "training"], HOW))
@pytest.mark.parametrize("name", a_third(CHANGES))
def test_a_changed_constant_is_seen(name, how, monkeypatch):
    for key in ("strength", "helper"):
        monkeypatch.setattr(Model, key, vars(Model)[key])
    monkeypatch.setattr(Model, "shared", dict(Model.shared))
    m = Model()
    change = CHANGES[name](m)
    if how == "call":
        follows(m, change, X)
    elif how == "method":
        follows(m.loss, change, X)
    elif how == "closure":
        follows(lambda x: np.mean(m(x)), change, X)
    elif how == "argument":
        follows(lambda model, x: np.mean(model(x)), change, m, X)
    elif how == "gradient":
        hot = compiled(m.loss)
        for _ in range(2):
            agree_all(flux.gradient(hot, X), flux.gradient(m.loss, X), 1e-12)
            change()
    else:  # in the middle of an epoch
        ends = []
        for prepare in (lambda f: f, compiled):
            monkeypatch.undo()
            monkeypatch.setattr(Model, "shared", dict(Model.shared))
            monkeypatch.setattr(Model, "helper", Model.__dict__["helper"])
            monkeypatch.setattr(Model, "strength", 0.5)
            monkeypatch.setitem(globals(), "TEMPERATURE", 2.0)
            monkeypatch.setitem(CONFIG.nested, "deep", [1.0, 2.0])
            m = Model()
            change = CHANGES[name](m)
            if name == "weight rebound":  # then the loss depends on no parameter
                change = CHANGES["float"](m)
            step = lambda s, change=change: change() if s.step == 2 else None
            h = flux.train_(
                prepare(lambda x, m=m: losses.mse(m(x), x[:, :2])), flux.params(m), [(X,)] * 4,
                flux.SGD(1e-6), cb=step,
            )  # fmt: skip
            ends.append(h.losses)
        agree(*ends, 1e-12)


def test_defaults_closures_and_globals():
    rate = 1.0

    def f(x, *, k=[2.0], scale=rate):  # noqa: B006
        inner = lambda y: y * rate * k[0] * scale
        return inner(x)

    def change_cell():
        nonlocal rate
        rate = 4.0

    follows(f, change_cell, X)
    follows(f, lambda: f.__kwdefaults__["k"].__setitem__(0, 7.0), X)
    follows(f, lambda: f.__kwdefaults__.update(scale=9.0), X)

    def g(x, scale=2.0):
        return x * scale

    follows(g, lambda: setattr(g, "__defaults__", (3.0,)), X)
    follows(g, lambda: setattr(g, "__code__", (lambda x, scale: x - scale).__code__), X)
    table = {"scale": 5.0}
    p = functools.partial(lambda x, options: x * options["scale"], options=table)
    follows(p, lambda: table.update(scale=6.0), X)


class Space:
    """Constants in a class, as some people keep them."""

    rate = 2.0


class Slotted:
    """Attributes without a dict."""

    __slots__ = ("rate",)

    def __init__(self):
        self.rate = 2.0


class Layers(list):
    """A list that is a layer."""

    scale = 1.0

    def __call__(self, x):
        for f in self:
            x = f(x)
        return x * self.scale


@functools.lru_cache
def cached():
    return TEMPERATURE


def test_further_places_for_constants(monkeypatch):
    monkeypatch.setattr(Space, "rate", 2.0)
    follows(lambda x: x * Space.rate, lambda: setattr(Space, "rate", 3.0), X)
    slotted = Slotted()
    follows(lambda x: x * slotted.rate, set_attribute(slotted, "rate", 3.0), X)
    chain = Layers([np.tanh, np.sin])
    follows(chain, lambda: chain.append(np.cos), X)
    follows(chain, lambda: chain.__setitem__(0, np.exp), X)
    follows(chain, set_attribute(chain, "scale", 2.0), X)
    follows(chain, set_attribute(chain, "scale", 3.0), X)
    many = [float(i) for i in range(100)]
    follows(lambda x: x * many[50], lambda: many.__setitem__(50, -1.0), X)
    follows(lambda x: x * many[50] / (many[51] - 51.5), lambda: many.__setitem__(50, -2.0), X)
    order = {"a": np.tanh, "b": np.square}
    follows(
        lambda x: Layers(order.values())(x), lambda: order.update(a=order.pop("a")), X
    )  # the same keys and values in another order
    zero = [0.0]
    follows(lambda x: np.arctan2(0 * x, zero[0]), lambda: zero.__setitem__(0, -0.0), abs(X))
    named = {"rate": 2.0}
    follows(
        lambda x: x * getattr(slotted, "rate") * named.get("more", 1.0),  # noqa: B009
        lambda: named.update(more=3.0),
        X,
    )
    thing = types.SimpleNamespace()
    follows(lambda x: x * getattr(thing, "rate", 1.0), set_attribute(thing, "rate", 3.0), X)
    follows(lambda x: x * 2 if hasattr(thing, "on") else x, set_attribute(thing, "on", True), X)
    module = types.ModuleType("settings_of_a_user")
    module.rate, module.space = 2.0, Space
    follows(lambda x: x * module.rate, set_attribute(module, "rate", 3.0), X)
    follows(lambda x: x * module.space.rate, lambda: setattr(Space, "rate", 9.0), X)
    monkeypatch.setitem(__import__("sys").modules, "settings_of_a_user", module)

    def imports(x):
        from settings_of_a_user import rate

        return x * rate

    follows(imports, set_attribute(module, "rate", 8.0), X)
    follows(lambda x: abs(x), lambda: monkeypatch.setitem(globals(), "abs", np.sin), X)
    monkeypatch.delitem(globals(), "abs")
    variable = ContextVar("variable", default=2.0)
    follows(lambda x: x * variable.get(), lambda: variable.set(3.0), X)


class Kind(type):
    """A class of classes, with constants of its own."""

    rate = 2.0
    doubled = property(lambda cls: 2 * cls.rate)


class OfKind(metaclass=Kind):
    pass


class Hidden:
    """A slot whose name Python spells in another way."""

    __slots__ = ("__rate",)

    def __init__(self):
        self.set(2.0)

    def set(self, rate):
        self.__rate = rate

    def __call__(self, x):
        return x * self.__rate


class Listed:
    """Slots that are told once."""

    __slots__ = iter(["rate"])


class Rate(float):
    """A number with more to it."""


class Level(enum.IntEnum):
    low = 1


def in_place(a, name, value):
    """Give an array another shape or type where it stands, as NumPy still allows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        setattr(a, name, value)


def test_places_for_constants_that_are_not_in_a_dict(monkeypatch):
    follows(lambda x: x * OfKind.rate, lambda: monkeypatch.setattr(Kind, "rate", 3.0), X)
    doubled = property(lambda cls: 7.0)
    follows(lambda x: x * OfKind.doubled, lambda: monkeypatch.setattr(Kind, "doubled", doubled), X)
    hidden, listed = Hidden(), Listed()
    follows(hidden, lambda: hidden.set(3.0), X)
    listed.rate = 2.0
    follows(lambda x: x * listed.rate, set_attribute(listed, "rate", 3.0), X)
    for listed.rate in (np.float32(0), 0j):
        f = lambda x: x * (2 if np.signbit(np.real(listed.rate)) else 1)
        follows(f, set_attribute(listed, "rate", -listed.rate), X)
    rate = Rate(2.0)
    rate.decay = Level.low.decay = 0.5
    follows(lambda x: x * rate * rate.decay, set_attribute(rate, "decay", 0.25), X)
    follows(lambda x: x * Level.low.decay, set_attribute(Level.low, "decay", 0.25), X)
    number = ctypes.c_double(2.0)
    follows(lambda x: x * number.value, set_attribute(number, "value", 3.0), X)
    record = np.array([(2.0, 3)], [("rate", "f8"), ("n", "i4")])[0]
    follows(lambda x: x * record["rate"].item(), lambda: record.__setitem__("rate", 5.0), X)
    table = np.ones((6, 4))
    follows(lambda x: x * len(table), lambda: in_place(table, "shape", (4, 6)), X)
    follows(lambda x: x * table.dtype.num, lambda: in_place(table, "dtype", np.int64), X)


def test_a_generic_function_learns_another_type():
    @functools.singledispatch
    def times(k, x):
        return x * 2

    follows(lambda x: times(1, x), lambda: times.register(int, lambda k, x: x * 3), X)


def test_names_that_are_given_later(monkeypatch):
    """What was missing while it was recorded was relied on as well."""

    def in_the_globals(x):
        try:
            return x * GIVEN_LATER
        except NameError:
            return x + 1

    add = lambda: monkeypatch.setitem(globals(), "GIVEN_LATER", 3.0)
    follows(in_the_globals, add, X)

    def in_the_closure(x):
        try:
            return x * later
        except NameError:
            return x + 1

    def fill():
        nonlocal later
        later = 3.0

    def empty():
        nonlocal later
        del later

    follows(in_the_closure, fill, X)
    follows(in_the_closure, empty, X)
    later = 4.0
    follows(in_the_closure, empty, X)


class Base:
    """Something to inherit from."""

    rate = 1.0

    def scaled(self, x):
        return x * self.rate


class Guessing:
    """Has a default for every attribute."""

    def __getattr__(self, name):
        return 2.0


class Empty:
    """A slot that is filled later."""

    __slots__ = ("later",)


def with_attributes(x):
    return x * with_attributes.rate


with_attributes.rate = 2.0


def or_more(thing):
    """Reads an attribute that is given later."""

    def f(x):
        try:
            return x * thing.later
        except AttributeError:
            return x + 1

    return f


def test_attributes_that_are_given_later():
    class Heir(Base):
        """Has nothing of its own yet."""

    class More(Base):
        rate = 7.0

    heir, guessing = Heir(), Guessing()
    scaled = lambda x: heir.scaled(x)
    follows(scaled, set_attribute(Heir, "rate", 9.0), X)
    follows(scaled, set_attribute(heir, "__class__", More), X)
    follows(scaled, set_attribute(More, "scaled", lambda self, x: x * 3), X)
    del More.rate, More.scaled
    follows(scaled, set_attribute(More, "__bases__", (Heir,)), X)
    follows(lambda x: x * guessing.rate, set_attribute(guessing, "rate", 5.0), X)
    module, plain = types.ModuleType("module_of_a_user"), lambda x: x
    for thing in (types.SimpleNamespace(), Base(), More, module, plain, Empty()):
        follows(or_more(thing), set_attribute(thing, "later", 5.0), X)


@pytest.mark.parametrize("name", ["lambda", "None", "two words"])
def test_attributes_that_cannot_be_written_with_a_dot(name):
    thing = types.SimpleNamespace(**{name: 2.0})
    follows(lambda x: x * vars(thing)[name], set_attribute(thing, name, 3.0), X)


def test_attributes_of_functions(monkeypatch):
    set_rate = lambda f, value: lambda: monkeypatch.setattr(f, "rate", value, False)
    follows(with_attributes, set_rate(with_attributes, 3.0), X)
    follows(lambda x: x * with_attributes.rate, set_rate(with_attributes, 4.0), X)
    follows(lambda x: with_attributes(x), set_rate(with_attributes, 5.0), X)
    inner = compiled(lambda x: x * 2)
    inner.rate = 2.0
    follows(lambda x: inner(x) * inner.rate, set_rate(inner, 3.0), X)
    follows(or_more(inner), lambda: setattr(inner, "later", 3.0), X)
    hot = compiled(lambda x: x * hot.rate)
    for hot.rate in (2.0, 3.0):
        agree(hot(X), X * hot.rate)
        entry = hot.latest
        hot(X)
        assert hot.latest is entry


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("remember", [functools.cache, functools.lru_cache(maxsize=8)])
def test_a_cache_that_is_cleared(remember, used_before, monkeypatch):
    rate = [2.0]
    helper = remember(lambda: rate[0])
    helper()
    follows(
        lambda x: x * helper(),
        lambda: (helper.cache_clear(), rate.append(rate.pop() + 1), used_before and helper()),
        X,
    )
    table = remember(lambda: {"rate": 2.0})
    table()
    follows(lambda x: x * table()["rate"], lambda: table().update(rate=3.0), X)


TABLE_OF_RATES = {"rate": 2.0}
VALUES, GET = TABLE_OF_RATES.values(), functools.partial(TABLE_OF_RATES.get, "rate")
BY_RATE = np.frompyfunc(lambda a: a * TABLE_OF_RATES["rate"], 1, 1)


@pytest.mark.parametrize(
    "read",
    [
        lambda view=types.MappingProxyType(TABLE_OF_RATES): view["rate"],
        lambda get=TABLE_OF_RATES.get: get("rate"),
        *(lambda: sum(VALUES), lambda: float(BY_RATE(1.0)), lambda: GET()),
    ],
)
def test_what_objects_written_in_c_hold(read, monkeypatch):
    follows(lambda x: x * read(), lambda: monkeypatch.setitem(TABLE_OF_RATES, "rate", 3.0), X)


class Point:
    __match_args__ = ("rate",)

    def __init__(self, rate):
        self.rate = rate


RATE_OF = operator.attrgetter("rate")


def matched(point):
    match point:
        case Point(rate):
            return rate


@pytest.mark.parametrize("read", [lambda p: RATE_OF(p), matched])
def test_attributes_whose_names_the_code_does_not_have(read):
    point = Point(2.0)
    follows(lambda x: x * read(point), set_attribute(point, "rate", 3.0), X)


def test_globals_by_name():
    scope = {}
    exec("RATE = 2.0\ndef f(x): return x * globals()['RATE']", scope)
    follows(scope["f"], lambda: scope.update(RATE=3.0), X)


def test_keys_and_bytes():
    key = Base()
    table = {key: 1}
    follows(lambda x: x * sum(k.rate for k in table), set_attribute(key, "rate", 3.0), X)
    numbers = Numbers("d", [1.0, 2.0])
    for held in (numbers, bytearray(b"ab"), memoryview(numbers)):
        follows(lambda x, held=held: x * held[0], lambda held=held: held.__setitem__(0, 9), X)
        held[0] = 1


def test_small_arrays_from_outside_are_seen_whatever_is_made_of_them():
    scale, weights = np.array(2.0), np.ones(4)
    follows(lambda x: x * scale, lambda: scale.fill(3.0), X)
    follows(lambda x: x * float(scale), lambda: scale.fill(4.0), X)
    follows(lambda x: x * np.mean(weights**2), lambda: weights.fill(3.0), X)
    follows(lambda x: x * weights, lambda: weights.fill(4.0), X)
    follows(lambda x: x if weights[0] > 4.5 else -x, lambda: weights.fill(5.0), X)
    loss = lambda x: np.sum(np.tanh(x) * weights)
    hot = compiled(loss)
    entries = []
    for k in (1.0, 2.0):  # the way back reads it anew as well
        weights.fill(k)
        agree_all(flux.gradient(hot, X), flux.gradient(loss, X), 1e-12)
        entries.append(hot.latest)
    assert entries[0] is entries[1]


@pytest.mark.parametrize("rows", [3, 3000])
def test_arrays_from_outside_are_read_anew_where_they_meet_an_argument(rows):
    table = np.ones((rows, 4))
    hot, entries = compiled(lambda x: x @ table.T), []
    for k in (1.0, 2.0):
        table.fill(k)
        agree(hot(X), X @ table.T)
        entries.append(hot.latest)
    assert entries[0] is entries[1]


Pair = collections.namedtuple("Pair", "weights other")


@pytest.mark.parametrize("rows", [4, 4000])
def test_what_is_computed_from_an_array_that_also_meets_an_argument(rows):
    """Once for its rows, which read it anew, and once for a number that was frozen."""
    x = np.arange(4.0 * rows).reshape(rows, 4)
    base = np.ones(2 * rows)
    table, pair = {"w": np.ones(rows)}, Pair(np.ones(rows), None)
    layer = types.SimpleNamespace(w=np.ones(rows), views=(base[:rows], base[rows:]))
    w, s, of = table["w"], np.array(2.0), lambda w: lambda x: np.sum(x.T * w) / np.sum(w)
    for f, array in (
        (of(w), w), (lambda x: np.average(x, axis=0, weights=w), w), (of(base[:rows]), base),
        (lambda x: x * s if s > 1 else -x * s, s), (lambda x: x * w[0] if w[0] > 5 else x, w),
        (lambda x: of(table["w"])(x), w), (lambda x: of(layer.w)(x), layer.w),
        (lambda x: of(pair.weights)(x), pair.weights),
        (lambda x: of(layer.views[0])(x) * np.mean(layer.views[1]), base),
    ):  # fmt: skip
        array.fill(2)
        hot = follows(f, lambda a=array: a.put(0, 8.0), x)
        array.fill(0.5)
        agree(hot(x), f(x))


def test_an_index_from_outside_is_read_anew_on_the_way_back():
    """Where ones are put among zeros, whatever the values are."""
    mask, order = np.array([True, False, True, True]), np.array([0, 2, 2])
    for f in (lambda x: np.sum(x[:, mask]), lambda x: np.sum(x[:, order[1:]])):
        hot = compiled(f)
        for _ in range(3):
            agree_all(flux.gradient(hot, X), flux.gradient(f, X))
            mask[:], order[:] = np.roll(mask, 1), (order + 1) % 4


def test_a_batch_that_is_refilled_in_its_place():
    """What a layer makes of it, here float32, is frozen, so that it has to be seen."""
    batch, layer = np.ones((1000, 4)), flux.Dense(4, 2)
    loss = lambda: np.mean(layer(batch) ** 2)
    hot, ps = compiled(loss), flux.params(layer)
    for k in range(5):
        batch[:] = k
        agree(hot(), loss())
        agree_all(flux.gradient(hot, ps).values(), flux.gradient(loss, ps).values(), 1e-6)
    big = np.ones((1200, 1000))  # one of more than is looked at as a whole
    follows(lambda x: x if big[0, 0] < 5 else -x, lambda: big.fill(9), X)
    follows(lambda x: x * np.mean(big), lambda: np.copyto(big, 3), X)
    follows(lambda x: x * np.mean(big[::2, ::2]), lambda: np.copyto(big, 4), X)


@pytest.mark.parametrize("calls", [0, 150])
def test_a_refill_of_a_large_array_is_seen_later_too(calls):
    big = np.ones(5000)
    part = np.asfortranarray(np.ones((200, 100)))[::2]
    f = lambda x: x * (np.mean(big) + np.mean(part))
    hot = compiled(f)
    for _ in range(calls):
        hot(X)
    for array in (big, part):
        array[...] = 2 * array
        agree(hot(X), f(X))
        entry = hot.latest
    hot(X)
    assert hot.latest is entry


OUTSIDE = types.SimpleNamespace(
    small=np.ones(4), big=np.ones(5000), rates=[1.0], k=1.0, table={"a": {"b": 1.0}}
)
CHANGING = {
    "OUTSIDE.small": (
        lambda x: x * OUTSIDE.small / np.sum(OUTSIDE.small),
        lambda k: OUTSIDE.small.put(0, k),
    ),
    "OUTSIDE.big": (lambda x: x * np.mean(OUTSIDE.big), lambda k: OUTSIDE.big.fill(k)),
    "OUTSIDE.rates[0]": (
        lambda x: x * OUTSIDE.rates[0],
        lambda k: OUTSIDE.rates.__setitem__(0, float(k)),
    ),
    "OUTSIDE.rates": (lambda x: x * len(OUTSIDE.rates), lambda k: OUTSIDE.rates.append(1.0)),
    "OUTSIDE.k": (lambda x: x * OUTSIDE.k, lambda k: setattr(OUTSIDE, "k", float(k))),
    "OUTSIDE.table['a']['b']": (
        lambda x: x * OUTSIDE.table["a"]["b"],
        lambda k: OUTSIDE.table["a"].update(b=float(k)),
    ),
    "Guessing.rate": (
        lambda x, thing=Guessing(): x * thing.rate,  # noqa: B008
        lambda k: setattr(CHANGING["Guessing.rate"][0].__defaults__[0], "rate", float(k)),
    ),
    "RATE_THAT_CHANGES": (
        lambda x: x * RATE_THAT_CHANGES,
        lambda k: globals().update(RATE_THAT_CHANGES=float(k)),
    ),
    "Heavy['rate']": (lambda x: x * Heavy.rate, lambda k: setattr(Heavy, "rate", float(k))),
}
RATE_THAT_CHANGES = 1.0


class Heavy:
    """A constant in a class."""

    rate = 1.0


@pytest.mark.parametrize("name", only([*CHANGING][:1], CHANGING))
def test_what_changes_outside_in_every_call_is_named(name):
    f, change = CHANGING[name]
    hot = compiled(f)
    words = rf"recorded again 100 times.*, now {re.escape(name)};.*as an argument"
    with pytest.warns(UserWarning, match=words) as caught:
        for k in range(103):
            change(k)
            agree(hot(X), f(X))
    assert len(caught) == 1 and caught[0].filename == __file__
    assert len(hot.recordings) == 1


def test_counters_that_the_function_does_not_read_make_no_new_recording():
    class Trainer:
        def __init__(self):
            self.weight, self.seen, self.log = flux.Tensor(np.ones(4)), 0, []

        def loss(self, x):
            return np.sum(x * self.weight)

    trainer, hot = Trainer(), None
    hot = compiled(trainer.loss)
    step = 0
    for step in range(5):
        hot(X)
        first = first if step else hot.latest  # noqa: F821
        trainer.seen += 1
        trainer.log.append(step)
    assert hot.latest is first


# --------------------------------------------------------------------------- K4: models


def test_modes_and_rates():
    flux.seed_(0)
    drop = flux.Dropout(0.5)
    m = flux.Chain(flux.Dense(4, 64), drop, flux.Dense(64, 3))
    loss = lambda x, y: losses.logitcrossentropy(m(x), y)
    hot, ps = compiled(loss), flux.params(m)

    def same():
        flux.seed_(5)
        value, wanted = flux.withgradient(lambda: loss(X, Y), ps)
        flux.seed_(5)
        found, grads, give_back = hot.lend((X, Y), {}, ps)
        agree(found, value, 1e-6)
        agree_all(grads, wanted.values(), 1e-5)
        give_back()
        same_with_seed(loss, hot, X, Y)
        return found

    seen = [same()]
    drop.p = 0.1
    seen.append(same())
    drop.p = 0.5
    agree(same(), seen[0])
    flux.testmode_(m)
    seen.append(same())
    flux.trainmode_(m)
    agree(same(), seen[0])
    flux.testmode_(m, "auto")
    drop.rng = np.random.default_rng(3)
    hot.lend((X, Y), {}, ps)[2]()
    drop.axis = 0
    drop.rng = None
    seen.append(same())
    assert len({float(s) for s in seen}) == 4


def test_surgery_on_a_model():
    m = flux.Chain(flux.Dense(4, 8, np.tanh), flux.Dense(8, 3))
    f = lambda x: m(x)
    follows(f, lambda: setattr(m, "layers", (*m.layers, flux.softmax)), X)
    follows(f, lambda: setattr(m.layers[0], "activation", flux.relu), X)
    follows(f, lambda: setattr(m.layers[1], "bias", flux.Tensor(np.ones(3, "f4"))), X)
    follows(f, lambda: setattr(m.layers[1], "bias", None), X)
    follows(f, lambda: setattr(m.layers[1].weight, "data", np.ones((8, 3), "f4")), X)
    other = flux.glorot_uniform(4, 8)
    follows(lambda x: m[0](x), lambda: setattr(m.layers[0], "weight", flux.Tensor(other)), X)


def test_freezing_and_other_parameters():
    m = flux.Chain(flux.Dense(4, 8, np.tanh), flux.Dense(8, 3))
    loss = lambda x, y: losses.logitcrossentropy(m(x), y)
    hot = compiled(loss)
    for change in (lambda: None, lambda: flux.freeze_(m[0]), lambda: flux.thaw_(m)):
        change()
        ps = flux.params(m)
        wanted = flux.gradient(lambda: loss(X, Y), ps)
        _, grads, give_back = hot.lend((X, Y), {}, ps)
        agree_all(grads, wanted.values(), 1e-6)
        give_back()
    penalty = lambda: sum(np.sum(p**2) for p in flux.params(m))
    follows(penalty, lambda: flux.freeze_(m[0]))


# --------------------------------------------------------------------------- K5: random numbers

LEGACY, OWN, OTHER = np.random.RandomState(0), np.random.default_rng(0), random.Random(0)
HOLDER = types.SimpleNamespace(rng=np.random.default_rng(0))


@functools.cache
def own_generator():
    return np.random.default_rng(0)


own_generator()
DRAW = functools.partial(random.random)
DRAWS = {
    "np.random": lambda x: x * np.random.rand(4),  # noqa: NPY002
    "RandomState": lambda x: x * LEGACY.rand(4),
    "Generator": lambda x: x + OWN.normal(size=4),
    "in an object": lambda x: x * HOLDER.rng.random(),
    "random": lambda x: x * random.random(),
    "own random": lambda x: x * OTHER.gauss(0, 1),
    "partial": lambda x: x * DRAW(),
    "remembered": lambda x: x * own_generator().random(),
    "behind a view": lambda x, view=types.MappingProxyType({"g": OWN}): x * view["g"].random(),
    "spawned": lambda x: x * OWN.spawn(1)[0].normal(),
    "unseeded": lambda x: x * np.random.default_rng().random(),
    "ours": lambda x: x @ flux.glorot_uniform(4, 4),
    "a new layer": lambda x: flux.Dense(4, 4)(x),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWS)
def test_draws_of_the_users_own_are_refused(name):
    with pytest.raises(CannotCompileError, match="draws from"):
        compiled(DRAWS[name])(X)
    loss = lambda x: np.sum(DRAWS[name](x))
    with pytest.raises(CannotCompileError, match="draws from"):
        flux.gradient(compiled(loss), X)


def numbers():
    while True:
        yield 2.0


class Cycling:
    """Asks an iterator in an attribute."""

    def __init__(self):
        self.rates = itertools.cycle([1.0, 2.0])

    def __call__(self, x):
        return x * next(self.rates)


ENDLESS, COUNTING, QUEUE, STACK = numbers(), itertools.count(), deque([1.0, 2.0]), [1.0, 2.0]
PAIRS, SETTINGS = zip([1.0], [2.0]), {"a": 1.0}
USES_UP = {
    "generator": lambda x: x * next(ENDLESS), "count": lambda x: x * next(COUNTING),
    "deque": lambda x: x * QUEUE.popleft(), "list": lambda x: x * STACK.pop(),
    "dict": lambda x: x * SETTINGS.pop("a"), "zip": lambda x: x * sum(a for a, _ in PAIRS),
    "cycle": Cycling(),
}  # fmt: skip


@pytest.mark.parametrize("kind", USES_UP)
def test_what_is_used_up_is_refused(kind):
    with pytest.raises(CannotCompileError, match=rf"takes from [\w.]+ \({kind}\)"):
        compiled(USES_UP[kind])(X)


def test_what_a_function_uses_up_of_its_own_is_not_refused(tmp_path):
    def f(x):
        mine = [1.0, 2.0]
        log.write("called")
        return x * mine.pop() * next(iter(mine)) * sum(a for a, _ in zip([1.0], [2.0]))

    with open(tmp_path / "log", "w") as log:
        agree(compiled(f)(X), f(X))


class Annealing:
    """Counts its calls, as a number whose weight grows is annealed."""

    kept = 0

    def __init__(self):
        self.step, self.counts, self.rows = 0, {"calls": 0}, [0]
        self.sums = np.zeros(4)

    def attribute(self, x):
        self.step += 1
        return x * min(1.0, self.step / 10)

    def item(self, x):
        self.counts["calls"] += 1
        return x / self.counts["calls"]

    def element(self, x):
        self.rows[0] += 1
        return x * self.rows[0]

    def new(self, x):
        self.given = getattr(self, "given", 0) + 1
        return x * self.given

    def new_item(self, x):
        self.counts["x"] = self.counts.get("x", 0) + 1
        return x * self.counts["x"]

    def of_the_class(self, x):
        type(self).kept += 1
        return x * self.kept

    def of_a_subclass(self, x):
        Slow.kept += 1
        return x * Slow.kept

    def array(self, x):
        self.sums += 1
        return x * self.sums

    def number_of_an_array(self, x):
        self.sums[0] += 1
        return x * float(self.sums[0])

    def only_counts(self, x):
        self.step += 1
        self.sums[1] += 1
        self.counts["more"] = 1
        return x * 2


class Slow(Annealing):
    pass


COUNTERS = ["attribute", "item", "element", "new", "new_item", "of_the_class", "of_a_subclass"]
COUNTERS += ["array", "number_of_an_array"]


@pytest.mark.parametrize("name", COUNTERS)
def test_a_result_that_depends_on_what_is_counted_is_refused(name):
    for x in (X, X[:2]):
        with pytest.raises(CannotCompileError, match=r"changes .+ result depends on that"):
            compiled(getattr(Annealing(), name))(x)


def test_what_is_refused_names_a_line():
    for f in (Annealing().attribute, USES_UP["list"], DRAWS["own random"], lambda x: bool(x[0, 0])):
        with pytest.raises(CannotCompileError) as caught:
            compiled(f)(X)
        told = "".join(traceback.format_exception_only(caught.value))
        assert re.search(r"test_compiled_failures.py:\d+", told), told


def test_what_only_counts_is_not_refused():
    hot = compiled(Annealing().only_counts)
    for x in (X, X[:2], X):
        agree(hot(x), 2 * x)


def test_a_list_that_is_emptied_is_not_refused():
    rows = [1.0]

    def f(x):
        rows.clear()
        return 2 * x

    agree(compiled(f)(X), 2 * X)


def test_counting_draws_no_number_twice():
    drop, counts = flux.trainmode_(flux.Dropout(0.5)), [0]

    def f(x):
        counts[0] += 1
        return drop(x)

    hot, found = compiled(f), []
    for g in (f, hot):
        flux.seed_(1)
        found.append([g(X) for _ in range(3)])
    agree_all(*found)


@pytest.mark.parametrize(
    "read",
    [time.time, time.perf_counter_ns, datetime.now, datetime.today, time.monotonic],
)
def test_clocks_are_refused(read):
    def f(x):
        read()
        return x

    with pytest.raises(CannotCompileError, match="reads the clock"):
        compiled(f)(X)


def test_clocks_of_a_log_are_not_refused():
    scope = {"time": time}
    exec(compile("def log(): time.time()", "/lib/site-packages/logs.py", "exec"), scope)

    def f(x):
        scope["log"]()
        return x * 2

    agree(compiled(f)(X), 2 * X)


def test_the_environment_of_the_process_is_watched(monkeypatch):
    for f in (
        lambda x: x * float(os.environ["TINYFLUX_RATE"]),
        lambda x: x * float(os.getenv("TINYFLUX_RATE", "1")),
        lambda x: x * ("TINYFLUX_RATE" in os.environ),
    ):
        hot = compiled(f)
        for rate in ("2", "3"):
            monkeypatch.setenv("TINYFLUX_RATE", rate)
            agree(hot(X), f(X))


def test_a_seeded_generator_of_its_own_gives_the_same_as_eager():
    f = lambda x: x * np.random.default_rng(3).random(4)
    agree(compiled(f)(X), f(X))


def test_draws_advance_the_default_generator_as_in_eager():
    """Also one whose result is not used, so that the next one is the same."""
    drop = flux.trainmode_(flux.Dropout(0.5))

    def f(x):
        drop(x)
        return drop(x) + drop(x)

    hot, found = compiled(f), []
    for g in (f, hot):
        flux.seed_(1)
        found.append([g(X) for _ in range(3)] + [flux.Dropout(0.5).p, flux.glorot_uniform(2, 2)])
    agree_all(*found)


# --------------------------------------------------------------------------- K6: side effects


def test_side_effects_happen_once():
    seen = []

    def f(x):
        seen.append(x.shape)
        return x * 2

    hot = compiled(f)
    for _ in range(3):
        agree(hot(X), 2 * X)
    assert seen == [(6, 4)]


class Keeper:
    """Keeps what it has computed, in all the places that there are."""

    total, values = 0.0, []

    def __init__(self):
        self.mean = self.pair = 0.0

    def in_itself(self, x):
        self.mean = 0.9 * self.mean + 0.1 * np.mean(x)

    def by_name(self, x):
        setattr(self, "more", x * 2)  # noqa: B010

    def in_a_tuple(self, x):
        self.pair = (x * 2, 1)

    def in_the_class(self, x):
        Keeper.total = np.sum(x)

    def in_a_list(self, x):
        self.values.append(np.sum(x))

    def the_argument(self, x):
        self.mean = x


def note(v):
    CONFIG.kept = v


def note_globally(v):
    global KEPT
    KEPT = v


def noter():
    last = None

    def inner(v):
        nonlocal last
        last = v

    return lambda x: inner(x * 2)


noted = noter()


def in_a_default(x, seen=[]):  # noqa: B006
    seen.append(x * 2)


KEEPING = [
    *(f for name, f in vars(Keeper).items() if "_" in name and name[0] != "_"),
    *(lambda _, x: note(x * 2), lambda _, x: note_globally(x * 2)),
    *(lambda _, x: noted(x), lambda _, x: in_a_default(x)),
]


@pytest.mark.parametrize("keep", KEEPING)
def test_a_value_that_is_kept_is_refused_wherever_it_is_kept(keep, monkeypatch):
    monkeypatch.setattr(Keeper, "total", 0.0)
    monkeypatch.setattr(Keeper, "values", [])
    monkeypatch.setattr(CONFIG, "kept", 0.0, raising=False)
    monkeypatch.setitem(globals(), "KEPT", 0.0)
    keeper = Keeper()
    with pytest.raises(CannotCompileError, match="a recorded value was kept in"):
        compiled(lambda x: [keep(keeper, x), np.sum(x)][1])(X)
    in_a_default.__defaults__[0].clear()


# --------------------------------------------------------------------------- K7, K8: memory


def test_what_was_returned_stays():
    m = flux.Dense(4, 4, np.tanh)
    hot = compiled(lambda x: m(x))
    loss, ps = compiled(lambda: np.sum(m(X) ** 2)), flux.params(m)
    kept = [hot(X), *flux.gradient(loss, ps).values()]
    copies = [a.copy() for a in kept]
    m.weight.data += 1
    others = [hot(X + 1), *flux.gradient(loss, ps).values()]
    agree_all(kept, copies)
    for a, b in zip(kept, others, strict=True):
        assert not np.array_equal(a, b)


def test_one_array_as_two_arguments_and_arrays_that_share_memory():
    W = flux.Tensor(np.ones((4, 4)))

    def f(x, y):
        return (x * 2) @ W - y / 3 + np.sum(x * y, axis=0)

    hot = compiled(f)
    for x, y in ((X, X), (X[:4], W.data), (W.data, W.data), (X[:5], X[1:]), (X[::-1], X)):
        before = x.copy(), y.copy(), W.data.copy()
        agree(hot(x, y), f(x, y), 1e-12)
        agree_all((x, y, W.data), before)
    loss = lambda x, y: np.sum(f(x, y) ** 2)
    agree_all(flux.gradient(compiled(loss), X, X), flux.gradient(loss, X, X), 1e-12)


def test_an_output_goes_in_again():
    step, x, y = compiled(lambda x: np.tanh(x) + x.T[:4, :4].sum() / 9), X, X
    for _ in range(5):
        x, y = step(x), step.f(y)
        agree(x, y)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x, lambda x: x.T, lambda x: x[1:], lambda x: x.reshape(-1), lambda x: W_OUT,
        lambda x: W_OUT.T, lambda x: TABLE, lambda x: 2.0, lambda x: np.tanh(x).T,
        lambda x: np.einsum("ij->ji", np.tanh(x)), lambda x: flux.detach(x), lambda x: +x,
    ],
)  # fmt: skip
def test_a_returned_view_is_a_copy(f):
    hot, x = compiled(f), X.copy()
    first = hot(x)
    wanted = np.array(f(x).data if isinstance(f(x), flux.Tensor) else f(x))
    agree(first, wanted)
    if isinstance(first, np.ndarray):
        first.fill(7)
        agree(hot(x), wanted)


W_OUT, TABLE = flux.Tensor(np.ones((2, 3))), np.ones(3)


def test_no_argument_name_gets_in_the_way():
    names = "add dot empty array step bind backward quiet copyto Context seterr tanh maximum t np"
    for name in names.split():
        f = eval(f"lambda {name}: N.sum(N.tanh({name} @ {name}.T) + 1) / 3", {"N": np})
        agree_all(flux.gradient(compiled(f), X), flux.gradient(f, X), 1e-12)


def test_no_name_gets_in_the_way_block_by_block():
    x = np.linspace(-1, 1, 1 << 18).reshape(1024, 256)
    for name in ("out", "T", "dtype", "float64"):
        f = eval(f"lambda {name}: N.maximum(N.tanh({name}) * 2 + 1, {name}) * 3", {"N": np})
        hot = compiled(f)
        agree(hot(x), f(x))
        assert hot.latest.source.memory.runs


def test_a_function_may_be_called_anything(tmp_path):
    f = lambda x: np.sum(x)
    for name in ('a"""b', "a\\", "a\nb", "\0", "'", "übung", "\ud800"):
        f.__name__ = name
        hot = compiled(f)
        agree(hot(X), np.sum(X))
        hot.save(tmp_path / "step.py")
        compile((tmp_path / "step.py").read_bytes(), "step.py", "exec")


# --------------------------------------------------------------------------- K9: threads, errors


def test_threads_share_a_compiled_function():
    m = flux.Chain(flux.Dense(4, 16, flux.gelu), flux.Dense(16, 3))
    hot = compiled(lambda x, y: losses.logitcrossentropy(m(x), y))
    ps, rng = flux.params(m), np.random.default_rng(0)
    inputs = [(rng.standard_normal((6, 4)), rng.integers(0, 3, 6)) for _ in range(200)]

    def work():
        found = []
        for x, y in inputs:
            value, grads, give_back = hot.lend((x, y), {}, ps)
            found.append((value, [g.copy() for g in grads]))
            give_back()
        return found

    wanted, results = work(), {}
    threads = [threading.Thread(target=lambda k=k: results.update({k: work()})) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 8
    for found in results.values():
        for (a, gs), (b, hs) in zip(found, wanted, strict=True):
            agree(a, b)
            agree_all(gs, hs)


def test_what_other_threads_compute_for_it():
    """In a context of theirs they are refused; in a copied one what they read is watched."""
    rates = [2.0]
    scaled = lambda x: x * rates[0]

    def f(x):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(copy_context().run, scaled, x).result()

    def alone(x):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(scaled, x).result()

    follows(f, lambda: rates.__setitem__(0, 3.0), X)
    with pytest.raises(RecordingError, match="another thread"):
        compiled(alone)(X)


def test_threads_may_record_at_once():
    hot, barrier, found = compiled(lambda x: np.sum(np.tanh(x))), threading.Barrier(8), []

    def work(n):
        barrier.wait()
        found.append((hot(X[:n]), np.sum(np.tanh(X[:n]))))

    threads = [threading.Thread(target=work, args=(k % 6 + 1,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 8
    for a, b in found:
        agree(a, b)


def test_an_error_in_the_middle_leaves_nothing_half_done():
    m = flux.Dense(4, 3)
    loss = lambda x, y: losses.logitcrossentropy(m(x), y)
    hot, ps = compiled(loss), flux.params(m)
    wanted = flux.gradient(lambda: loss(X, Y), ps).values()
    for bad in (np.full(6, 3), np.full(6, -1)):
        hot.lend((X, Y), {}, ps)[2]()
        with pytest.raises(ValueError, match="labels go from 0 to 2"):
            hot.lend((X, bad), {}, ps)
        for _ in range(2):
            _, grads, give_back = hot.lend((X, Y), {}, ps)
            agree_all(grads, wanted, 1e-6)
            give_back()


def test_the_traceback_shows_the_emitted_line_and_the_users():
    hot = compiled(lambda x, y: losses.logitcrossentropy(x, y) * 2)
    hot(X, Y)
    with pytest.raises(ValueError) as caught:
        hot(X, Y + 5)
    text = "".join(traceback.format_exception(caught.value))
    assert "one_hot1 = one_hot(y, k=4" in text
    line = test_the_traceback_shows_the_emitted_line_and_the_users.__code__.co_firstlineno + 1
    assert f"from test_compiled_failures.py:{line}" in text
    linecache.checkcache()
    assert linecache.getlines(hot.latest.filename)


def test_floating_point_errors_are_as_in_eager():
    """Forward as the user has set it, backward in silence, a `with np.errstate` inside kept."""
    zero, one = np.zeros(3), np.ones(3)
    log, root = compiled(lambda x: np.sum(np.log(x))), compiled(lambda x: np.sum(np.sqrt(x)))
    log(one), root(one)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        log(zero)
    with np.errstate(all="raise"):
        with pytest.raises(FloatingPointError):
            log(zero)
        agree(flux.gradient(root, zero)[0], np.full(3, np.inf))

    def quiet(x):
        with np.errstate(divide="ignore"):
            y = np.log(x)
        return np.sum(np.exp(y)) + np.sum(1 / x)

    hot = compiled(quiet)
    with pytest.warns(RuntimeWarning) as seen:
        hot(zero)
    assert [str(w.message) for w in seen].count("divide by zero encountered in log") == 0
    assert "divide" in str(seen[0].message)
    with np.errstate(all="ignore"):
        agree(hot(zero), np.inf)
    infinite = np.full((2, 3), -np.inf)
    agree(compiled(flux.logsumexp)(infinite), flux.logsumexp(infinite))  # silent in both


def test_settings_inside_that_equal_those_outside_are_kept():
    def quiet(x):
        with np.errstate(divide="ignore"):
            return np.log(x)

    for f in (quiet, np.errstate(divide="ignore")(lambda x: np.log(x))):
        hot = compiled(f)
        for settings in ("ignore", "raise", "raise", "ignore"):
            with np.errstate(all=settings):
                agree(hot(np.zeros(3)), np.full(3, -np.inf))
        agree(hot(np.zeros(3)), np.full(3, -np.inf))
        entry = hot.latest
        agree(hot(np.zeros(3)), np.full(3, -np.inf))
        assert hot.latest is entry


def test_nothing_is_left_of_an_error_while_recording():
    hot = compiled(lambda x: x @ np.ones((4, 2)))
    hot(X)
    for bad, words in ((X[:, :3], "matmul"), (X[0, :2], "matmul")):
        with pytest.raises(ValueError, match=words):
            hot(bad)
        agree(hot(X), X @ np.ones((4, 2)))


# --------------------------------------------------------------------------- K10: who is who


class Scaled:
    def __init__(self, k):
        self.k, self.weight = k, flux.Tensor(np.full(4, k))

    def __call__(self, x):
        return np.sum(x * self.weight) * self.k

    @compiled
    def loss(self, x):
        return np.sum(x * self.weight) * self.k


def test_two_models_share_a_class():
    a, b = Scaled(1.0), Scaled(2.0)
    made = [(compiled(f), m) for m in (a, b) for f in (m, m.__call__)]
    for _ in range(3):
        for hot, m in made:
            agree(hot(X), m(X))
        agree(a.loss(X), a(X))
        agree(b.loss(X), b(X))
        b.k, b.weight.data[0] = b.k + 1, 5.0


def test_a_method_compiled_in_the_class_trains():
    m = Scaled(1.0)
    agree(flux.gradient(m.loss, X)[0], np.broadcast_to(m.weight.data, X.shape), 1e-12)
    h = flux.train_(m.loss, flux.params(m), [(X,)] * 3, flux.SGD(0.1))
    assert h.losses[2] < h.losses[0]


def test_what_was_recorded_is_no_part_of_the_model():
    m = Scaled(2.0)
    m.step = compiled(lambda x: m(x) * 2)
    m.loss(X), m.step(X)
    assert len(flux.params(m)) == 1 and flux.params(m)[0] is m.weight
    for other in (
        copy.deepcopy(Scaled(2.0)),
        copy.deepcopy(m),
        pickle.loads(pickle.dumps(b := Scaled(2.0))),
    ):
        other.k = 5.0
        agree(other.loss(X), other(X))
    del m.step
    b.loss(X)
    other = pickle.loads(pickle.dumps(b))
    other.weight.data *= 3
    agree(other.loss(X), other(X))
    agree(b.loss(X), b(X))


class Based(Scaled):
    @compiled
    def loss(self, x):
        return super().loss(x) + 100


class Compact:
    """Neither a `__dict__`, nor weak references, nor a hash."""

    __slots__ = ("k",)
    __hash__ = None

    def __init__(self, k):
        self.k = k

    @compiled
    def times(self, x):
        return x * self.k


def test_a_method_calls_the_one_that_it_overrides():
    m = Based(2.0)
    for _ in range(3):
        agree(m.loss(X), m(X) + 100)
        agree(super(Based, m).loss(X), m(X))


def test_a_copy_computes_with_its_own_attributes():
    a = Scaled(2.0)
    a.loss(X)
    b = copy.copy(a)
    b.k = 5.0
    for _ in range(2):
        agree(b.loss(X), b(X))
        agree(a.loss(X), a(X))


def test_the_method_of_a_class_is_replaced():
    class Changed(Scaled):
        loss = Scaled.loss

    a = Changed(2.0)
    agree(a.loss(X), a(X))
    Changed.loss = compiled(lambda self, x: self.k * x)
    agree(a.loss(X), 2 * X)


def test_a_compiled_method_hides_no_attribute_of_another_name():
    def rate(self, x):
        return x * self.rate

    class Rated:
        def __init__(self):
            self.rate = 3.0

        def forward(self, x):
            return -x

        loss, fast = compiled(rate), compiled(forward)

    m = Rated()
    for _ in range(3):
        agree(m.loss(X), 3 * X)
        agree(m.fast(X), -X)
    assert m.rate == 3 and len(m.fast.recordings) == 1 and type(m.forward) is types.MethodType


def test_objects_with_slots_have_compiled_methods():
    some = [Compact(float(k)) for k in range(20)]
    for _ in range(2):
        for m in some:
            agree(m.times(X), X * m.k)
        agree(some[-1].times(X), X * 19)
        assert len(some[-1].times.recordings) == 1
    assert len(Compact.times.without_dict) == 16


def test_an_object_goes_with_its_compiled_methods():
    m = Scaled(2.0)
    m.loss(X)
    gone = weakref.ref(m)
    del m
    gc.collect()
    assert gone() is None


# --------------------------------------------------------------------------- K11: training


def test_nan_stop_skip_and_throttle_are_as_in_eager():
    ends = []
    for prepare in (lambda f: f, compiled):
        W = flux.Tensor(np.ones(4))
        loss = prepare(lambda x, W=W: np.sum((x @ W) ** 2) / 100)
        seen = []
        cb = lambda s, seen=seen: (seen.append(s.loss), flux.stop() if s.step == 4 else None)
        history = flux.train_(loss, [W], [(X,)] * 10, flux.SGD(0.1), cb=cb)
        bad = X.copy()
        bad[0, 0] = np.nan
        with pytest.raises(NonFiniteLossError) as caught:
            flux.train_(loss, [W], [(X,), (bad,), (X,)], flux.SGD(0.1))
        ends.append([history.losses, history.stopped, W.data, str(caught.value), seen])
    assert ends[0][1:2] + ends[0][3:4] == ends[1][1:2] + ends[1][3:4]
    for k in (0, 2, 4):
        agree(ends[1][k], ends[0][k], 1e-12)

    skip_now = [False]

    def loss(x):
        if skip_now[0]:
            flux.skip()
        return np.sum(x @ W)

    W = flux.Tensor(np.ones(4))
    hot, toggle = compiled(loss), lambda s: skip_now.__setitem__(0, s.step == 2)
    history = flux.train_(hot, [W], [(X,)] * 3, flux.SGD(0.1), cb=toggle)
    assert len(history.losses) == 2


def test_a_loss_without_influence_is_told_as_in_eager():
    W = flux.Tensor(np.ones(4))
    for end, bad in ((1.0, flux.errors.NoGradientError), (np.nan, NonFiniteLossError)):
        said = []
        for prepare in (lambda f: f, compiled):
            loss = prepare(lambda x, end=end: np.sum(x) * end)
            with pytest.raises(bad) as caught:
                flux.train_(loss, [W], [(X,)], flux.SGD(0.1))
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_wrong_shapes_are_told_as_in_eager():
    m = flux.Chain(flux.Dense(4, 8), flux.Dense(8, 3))
    loss = lambda x, y: losses.logitcrossentropy(m(x), y)
    hot = compiled(loss)
    hot(X, Y)
    for bad in ((X[:, :3], Y), (X, Y[:4]), (X, Y[:, None]), (X, np.ones((6, 2)))):
        errors = []
        for f in (loss, hot):
            with pytest.raises(ValueError) as caught:
                f(*bad)
            errors.append((type(caught.value), str(caught.value)))
        assert errors[0] == errors[1]


# --------------------------------------------------------------------------- K13: memory, time


def grown(f, n=1000):
    """Bytes that stay allocated per call."""
    for _ in range(30):
        f()
    tracemalloc.start()
    try:
        f()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(n):
            f()
        return (tracemalloc.get_traced_memory()[0] - before) / n
    finally:
        tracemalloc.stop()


def test_steady_calls_keep_no_memory():
    m = flux.Chain(flux.Dense(4, 8, flux.relu), flux.Dropout(0.5), flux.Dense(8, 3))
    hot, ps = compiled(lambda x, y: losses.logitcrossentropy(m(x), y)), flux.params(m)

    def step():
        hot.lend((X, Y), {}, ps)[2]()

    assert grown(step) < 3
    assert grown(lambda: hot(X, Y)) < 3
    assert len(hot.recordings) == 2
    assert all(len(entry.idle) == 1 for entry in hot.recordings.values())


def test_the_cache_is_bounded_and_forgets_what_was_not_used_for_long():
    hot, lines = compiled(lambda x: x * 2), len(linecache.cache)
    hot(np.ones(3))
    used = hot.latest
    with pytest.warns(UserWarning, match="recorded 32 times, once for each signature") as caught:
        for n in range(4, 60):
            hot(np.ones(n))
            hot(np.ones(3))
            assert hot.latest is used
    assert len(caught) == 1
    assert len(hot.recordings) <= 16
    gc.collect()
    assert len(linecache.cache) <= lines + 20


def test_a_network_of_ten_layers_compiles_quickly():
    layers = [flux.Dense(16, 16, flux.gelu) for _ in range(10)]
    m = flux.Chain(*layers, flux.Dense(16, 3))
    x = np.ones((32, 16), "f4")
    took = []
    for _ in range(5):
        hot = compiled(lambda x, y: losses.logitcrossentropy(m(x), y))
        begun = time.perf_counter()
        hot.lend((x, np.zeros(32, int)), {}, flux.params(m))
        took.append(time.perf_counter() - begun)
    print(f"ten layers: {1000 * min(took):.0f} ms")
    assert min(took) < 0.5


# --------------------------------------------------------------------------- inside a gradient


def test_inside_an_ordinary_gradient_it_is_one_row():
    W = flux.Tensor(np.ones((4, 4)))
    loss = lambda x: np.mean(np.tanh(x @ W) ** 2)
    hot, ps = compiled(loss), flux.Params([W])
    agree(
        flux.gradient(lambda: 3 * hot(X) + np.sum(W), ps)[W],
        flux.gradient(lambda: 3 * loss(X) + np.sum(W), ps)[W],
        1e-12,
    )
    agree_all(
        flux.gradient(lambda x: hot(x * 2), X), flux.gradient(lambda x: loss(x * 2), X), 1e-12
    )
    _, back = flux.pullback(lambda x: hot(x) * 2, X)
    assert len(back.tape) == 2
    entry = hot.latest
    flux.gradient(lambda x: hot(x) * 2, X)
    assert hot.latest is entry


def test_inside_a_gradient_with_arguments_of_all_kinds():
    def f(scale, x, pair, more=None):
        y = np.sum(scale * np.tanh(x) * pair[0] + pair[1])
        return y if more is None else y * np.sum(more)

    hot = compiled(f)
    for run in (
        lambda x, g=None: g(2.0, x, (X, X)), lambda x, g=None: g(2.0, X, (X, x)),
        lambda x, g=None: g(x, X, (1.0, X)), lambda x, g=None: g(2.0, X, [x, 1], more=x),
        lambda x, g=None: g(np.float64(2), x, (x, 3), more=X),
        lambda x, g=None: g(np.sum(x), x * x, (X, 3)),
    ):  # fmt: skip
        for x in (X, 2 * X):
            found = flux.withgradient(lambda x: run(x, g=hot) ** 2, x)  # noqa: B023
            wanted = flux.withgradient(lambda x: run(x, g=f) ** 2, x)  # noqa: B023
            agree(found[0], wanted[0], 1e-12)
            agree_all(found[1], wanted[1], 1e-12)


def test_higher_orders_through_a_compiled_function():
    f = lambda x: np.sum(np.tanh(x) ** 3)
    hot = compiled(f)
    of = lambda g: lambda x: np.sum(flux.gradient(lambda z: g(z), x)[0] ** 2)
    agree_all(flux.gradient(of(hot), X), flux.gradient(of(f), X), 1e-12)
    x = X[0, :3]
    agree(flux.hessian(lambda z: hot(z), x), flux.hessian(f, x), 1e-12)
    agree(
        flux.jacobian(compiled(lambda x: np.tanh(x) * x[0]), x),
        flux.jacobian(lambda x: np.tanh(x) * x[0], x),
        1e-12,
    )


def test_what_was_changed_before_a_second_derivative_is_refused():
    W, batch = flux.Tensor(np.ones(4)), np.ones(4)
    for change in (lambda: W.data.fill(3), lambda: batch.fill(3)):
        W.data[:] = batch[:] = 1
        hot = compiled(lambda x, y: np.sum(np.tanh(x * W) * y))
        _, back = flux.pullback(lambda x: hot(x, batch) * 1.0, X)  # noqa: B023
        of_back = lambda s: np.sum(back(s)[0] ** 2)  # noqa: B023
        before, first = flux.gradient(of_back, 1.0)[0], back(1.0)
        agree(before, 2 * np.sum((1 - np.tanh(X) ** 2) ** 2), 1e-12)
        change()
        with pytest.raises(flux.errors.MutationError, match="written to"):
            flux.gradient(of_back, 1.0)
        agree_all(back(1.0), first)  # this one was computed at once


def test_zero_upstream_kills_an_infinite_slope_of_a_compiled_number():
    W = flux.Tensor(np.zeros(2))
    f = lambda x: np.sqrt(np.sum(x + W))
    hot, zero = compiled(f), np.zeros(2)
    where = lambda g: lambda x: np.where(np.sum(x) > 0, g(x), 0.0)
    agree_all(flux.gradient(where(hot), zero), [zero])
    agree(flux.gradient(lambda: where(hot)(zero), flux.Params([W]))[W], zero)
    agree_all(flux.gradient(where(hot), zero + 1), flux.gradient(where(f), zero + 1), 1e-15)
    undefined = lambda g: lambda x: 0 * g(x * np.nan)
    agree_all(flux.gradient(undefined(hot), zero), flux.gradient(undefined(f), zero))


def test_draws_inside_an_ordinary_gradient():
    """The gradient is that of the value; the second one is that of the first."""
    drop = flux.trainmode_(flux.Dropout(0.5))
    f = lambda x: np.sum(drop(x) ** 2)
    hot = compiled(f)
    for g in (f, hot):
        flux.seed_(3)
        value, (slope,) = flux.withgradient(lambda x: g(x) + 1, X)  # noqa: B023
        agree(np.sum(slope * X) / 2 + 1, value, 1e-12)
    second = []
    for g in (f, hot):
        flux.seed_(3)
        inner = lambda x, g=g: flux.gradient(lambda z: g(z), x)[0]
        second.append(flux.gradient(lambda x, inner=inner: np.sum(inner(x) ** 2), X)[0])
    agree(*second, 1e-12)


@pytest.mark.parametrize("make", [lambda: flux.Dropout(0.5), lambda: flux.BatchNorm(4)])
def test_layers_in_a_gradient_inside_a_compiled_function_are_in_training(make):
    for outer in (
        lambda f, x: flux.gradient(f, x)[0],
        lambda f, x: flux.withgradient(f, x)[1][0],
        lambda f, x: flux.pullback(f, x)[1](2.0)[0],
    ):
        found = []
        for as_it_is in (lambda f: f, compiled):
            flux.seed_(5)
            layer = make()
            g = as_it_is(lambda x: outer(lambda z: np.sum(layer(z) ** 3), x))  # noqa: B023
            found.append([g(X), g(X), *(t.data for _, t in flux.walking.named_tensors(layer))])
        for a, b in zip(*found, strict=True):
            agree(a, b, 1e-6)
    drop = flux.Dropout(0.5)
    f = lambda x: flux.gradient(lambda z: np.sum(drop(z)), x)[0] + drop(x)
    same_with_seed(f, compiled(f), X)  # behind the gradient it is in use again


def test_compiled_inside_compiled():
    W = flux.Tensor(np.ones(4))
    state = types.SimpleNamespace(k=2.0)
    inner = compiled(lambda x: np.tanh(x @ W) * state.k)
    follows(lambda x: np.sum(inner(x)) + 1, set_attribute(state, "k", 3.0), X)
    outer = compiled(lambda x: np.sum(inner(x)) + 1)
    outer(X)
    first = outer.latest
    inner(X[:2])
    outer(X)
    assert outer.latest is first


def test_a_gradient_inside_a_compiled_function_sees_the_parameters():
    W = flux.Tensor(np.ones((4, 3)))

    def loss(x):
        (slope,) = flux.gradient(lambda z: np.sum((z @ W) ** 2) + np.sum(W**2), x)
        (of_w,) = flux.gradient(lambda w: np.sum((x @ w) ** 2), W)
        return np.mean(slope**2) + np.sum(of_w**3) * 1e-3

    hot, ps = compiled(loss), flux.Params([W])
    for _ in range(3):
        value, wanted = flux.withgradient(lambda: loss(X), ps)
        found, (g,), give_back = hot.lend((X,), {}, ps)
        agree(found, value, 1e-12)
        agree(g, wanted[W], 1e-12)
        give_back()
        W.data += 0.5
    assert re.search(r"# test_compiled_failures.py:\d+  mean\n", hot.source)  # not "rule of ..."


def test_a_rule_that_returns_a_plain_array():
    """What goes on from it is a plain array as well, which has no name of its own."""

    @primitive(lambda g, y: np.full(y.shape, 3.0))
    def tripled(x):
        return 3 * x

    f = lambda x: np.sum(tripled(np.sin(x)))
    agree_all(flux.gradient(compiled(f), X), flux.gradient(f, X), 1e-12)


def test_a_gradient_of_a_network_inside_a_compiled_function():
    """The gradient it begins with, a plain array, meets rules that are written with methods."""
    net = flux.Chain(flux.Dense(3, 4, flux.tanh), flux.Dense(4, 2))
    ps, ones = flux.params(net), np.ones((len(X), 2), "f4")

    def of_inputs(x):
        return np.mean(flux.gradient(lambda z: np.sum(net(z)), x)[0] ** 2)

    def of_parameters(x):
        found = flux.gradient(lambda: np.sum(net(x) ** 2), ps).values()
        return sum(np.sum(g**2) for g in found)

    def pulled_back(x):
        return np.sum(flux.pullback(net, x)[1](ones)[0] ** 2)

    for loss in (of_inputs, of_parameters, pulled_back):
        hot = compiled(loss)
        for x in (X[:, :3].astype("f4"), 2 * X[:, :3].astype("f4")):
            found, wanted = (flux.withgradient(lambda: f(x), ps) for f in (hot, loss))  # noqa: B023
            agree(found[0], wanted[0], 1e-5)
            agree_all(found[1].values(), wanted[1].values(), 1e-4)
            agree_all(flux.gradient(hot, x), flux.gradient(loss, x), 1e-4)


# --------------------------------------------------------------------------- shapes of programs


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.tanh(x).T.reshape(-1) * 2, lambda x: np.tanh(x)[0, 0] * x,
        lambda x: np.ravel(np.tanh(x), order="F") + 1, lambda x: np.tanh(x).T.reshape(6, 4) + x,
        lambda x: np.broadcast_to(np.tanh(x), (2, 6, 4)).reshape(-1) + 1,
        lambda x: np.tanh(x)[True] + 1, lambda x: np.einsum("ij->ji", np.tanh(x)) * np.sin(x).T,
        lambda x: np.clip(x, -np.inf, 0.5) * np.inf, lambda x: np.minimum(x, np.nan),
        lambda x: x.astype(np.float32) * np.float64(0.1), lambda x: x.astype(int) + 0.5,
        lambda x: np.tanh(x)[np.arange(3000) % 6] + np.tanh(x)[np.arange(3000) * 5 % 6],
        lambda x: np.tanh(x) + np.tanh(x).T[:4, :4].max(0) * np.tanh(x)[::-1],
        lambda x: x * 0.1 * 3 * 7, lambda x: (x * 1e300) * 1e300 * 1e-300,
        lambda x: np.sum(x, axis=()),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_programs_with_a_trap(f):
    hot = compiled(f)
    for k in range(3):
        agree(hot(X + k), f(X + k))
    loss = lambda x: np.sum(np.sin(f(x)))
    hot = compiled(loss)
    for k in range(3):
        agree_all(flux.gradient(hot, X + k), flux.gradient(loss, X + k), 1e-12)


def test_numbers_that_python_has_no_form_for():
    f = lambda x: x * np.longdouble(2) + np.longdouble("0.1")
    agree(compiled(f)(X.astype("g")), f(X.astype("g")))


def test_an_enum_is_a_number():
    f = lambda x: np.sum(x * Size.TWO, axis=Size.ONE)
    agree(compiled(f)(X), f(X), 1e-14)


class Size(enum.IntEnum):
    """Names for numbers."""

    ONE = 1
    TWO = 2


def test_a_third_order_through_a_computed_index():
    """What was picked is placed, and what was placed is picked."""
    square = lambda x: np.sum(x[np.argmax(x, axis=0), np.arange(4)] ** 4)
    slope = lambda x: np.sum(flux.gradient(square, x)[0] ** 2)
    hot = compiled(lambda x: flux.gradient(slope, x)[0])
    for x in (X, -X):
        top = x == x.max(axis=0)
        agree(hot(x), np.where(top, 96 * x**5, 0), 1e-12)
        agree(flux.gradient(lambda x: np.sum(hot(x)), x)[0], np.where(top, 480 * x**4, 0), 1e-12)


def test_the_sign_of_a_determinant_follows_the_argument():
    f = lambda x: np.linalg.slogdet(x)[0] * np.sum(x)
    hot = compiled(f)
    for x in (X[:4], X[[1, 0, 2, 3]]):
        agree(hot(x), f(x), 1e-12)
        agree_all(flux.gradient(hot, x), flux.gradient(f, x), 1e-12)


def test_a_kernel_of_the_users_that_returns_its_operand():
    """What such a kernel returns may stand in memory that would be used again."""

    @primitive(lambda g, y: g, samples=())
    def looked_at(x):
        if float(np.sum(x)) > 1e9:
            raise ValueError
        return x[::-1][::-1]

    def f(x):
        a = np.tanh(x)
        b = looked_at(a)
        c = np.sin(x) * 2
        d = np.cos(c) + 1
        return b + c * d

    hot = compiled(f)
    for k in range(3):
        agree(hot(X + k), f(X + k))
    out = compiled(lambda x: looked_at(np.tanh(x)))
    first = out(X)
    kept = first.copy()
    out(X + 1)
    agree(first, kept)


@pytest.mark.parametrize("way", ["written into", "without influence"])
def test_a_kernel_of_the_users_that_cannot_be_written_down(way):
    """It is called as it is, in every run."""

    def written(x):
        return np.multiply(x, 3, out=np.empty((6, 4)))

    def constant(x):
        return np.full((6, 4), 3.0)

    kernel = written if way == "written into" else constant
    rule = (lambda g, y: 3 * g) if way == "written into" else None
    operation = primitive(rule, samples=())(kernel)
    f = lambda x: np.sum(operation(np.tanh(x)) * np.sin(x))
    hot = compiled(f)
    for k in range(3):
        agree(hot(X + k), f(X + k))
        agree_all(flux.gradient(hot, X + k), flux.gradient(f, X + k), 1e-12)
    assert f"{kernel.__name__}(" in hot.source


def test_without_a_line_of_the_users_there_is_no_line_to_name():
    """A thread that runs nothing but a layer of ours."""
    layer, x = flux.Dense(4, 2), X.astype("f4")
    hot = compiled(layer)
    _thread.start_new_thread(hot, (x,))
    for _ in range(1000):
        if hot.latest is not None and hot.latest.idle:
            break
        time.sleep(0.01)
    assert "# dense\n" in hot.source
    agree(hot(x), layer(x))


def test_explain_counts_what_stands_in_the_source(capsys):
    hot = compiled(lambda x: np.sum(np.tanh(x * 2) + 1))
    hot(X)
    assert hot.explain() is None
    said = capsys.readouterr().out
    buffers = re.findall(r"empty\(\(6, 4\), 'float64'\)", hot.source)
    size = len(buffers) * X.nbytes
    assert hot.source.count("(t, t)") == 1 and hot.source.count("(t, c_1, t)") == 1
    assert f"{len(buffers)}, {size} bytes; in place: 2 rows" in said


def test_rows_print_as_calls():
    hot = compiled(lambda x: np.sum(np.tanh(x) * 2))
    hot(X)
    rows = [repr(node) for node in hot.latest.program.nodes]
    assert rows[0].endswith(" = tanh(x)") and any("multiply(" in row for row in rows)


@pytest.mark.parametrize(
    "result",
    [lambda x: (x, x), lambda x: [x], lambda x: {}, lambda x: None, lambda x: "f8"],
)
def test_what_is_not_one_array_is_refused(result):
    with pytest.raises(NotScalarError, match="a compiled function returns one array or number"):
        compiled(result)(X)


@pytest.mark.parametrize("way", [lambda f: f, compiled])
@pytest.mark.parametrize("result", [1j, np.array(["text"])])
def test_a_pullback_of_what_is_no_real_number_is_refused(way, result):
    with pytest.raises(NotScalarError, match=r"the function returned a .*; an array is wanted"):
        flux.pullback(way(lambda x: result), X)


def test_an_array_is_no_loss():
    W = flux.Tensor(np.ones(3))
    ps, words = flux.params(W), "the function returned an array of shape"
    with pytest.raises(NotScalarError, match=words):
        flux.gradient(compiled(lambda: W * 2), ps)
    with pytest.raises(NotScalarError, match=words):
        flux.gradient(compiled(lambda x: x * 2), np.ones(2))
    with pytest.raises(NotScalarError, match=words):
        flux.train_(compiled(lambda x: W * x), ps, [1.0], flux.SGD(0.1))
    np.testing.assert_array_equal(W.data, 1)


def test_it_prints_as_its_source():
    hot = compiled(np.square)
    assert repr(hot) == str(hot) == "compiled(square)"
    hot(X)
    assert repr(hot) == "compiled(square)" and str(hot) == hot.source


def test_under_a_profiler_everything_in_reach_counts():
    """One written in C is left in its place: what runs is not seen then."""
    rates = {"used": 2.0}

    def check():
        follows(lambda x: x * rates["used"], lambda: rates.update(used=3.0), X)
        with pytest.raises(CannotCompileError, match=r"np\.random"):
            compiled(lambda x: x * np.random.rand())(X)  # noqa: NPY002

    profile = cProfile.Profile()
    profile.runcall(check)
    assert any("follows" in str(entry.code) for entry in profile.getstats())


COLLECTED = [0]


def count_collections(phase, info):
    COLLECTED[0] += 1


def test_collecting_garbage_while_it_is_recorded_does_not_count():
    gc.callbacks.append(count_collections)
    try:
        hot = compiled(lambda x: np.sum(x * (gc.collect() >= 0)))
        once = steady(hot)
        for _ in range(3):
            hot(np.ones(3))
            once()
            gc.collect()
    finally:
        gc.callbacks.remove(count_collections)
    assert COLLECTED[0]


def test_an_error_on_the_way_back_names_the_line_of_the_user():

    @primitive(None, samples=())
    def positive(x):
        if np.min(x) < 0:
            raise ValueError("negative")
        return x * 1.0

    square = primitive(lambda g, y, x: 2 * g * positive(x), samples=())(lambda x: x * x)
    hot = compiled(lambda x: np.sum(square(x)))
    agree(flux.gradient(hot, abs(X))[0], 2 * abs(X))
    with pytest.raises(ValueError, match=r"^negative") as caught:
        flux.gradient(hot, X)
    assert "test_compiled_failures.py:" in caught.value.__notes__[0]
    assert "rule of" in caught.value.__notes__[0]


def test_an_error_before_the_first_line_is_said_to_come_from_none():
    """A handler of a signal may raise at any moment, at the call itself, too."""
    hot = compiled(np.tanh)
    hot(X)

    def handler():
        raise TimeoutError

    with pytest.raises(TimeoutError) as caught:
        hot.latest.guarded(handler, ())
    assert caught.value.__notes__ == ["in the compiled tanh"]


@pytest.mark.parametrize("who", ["train_", "update_"])
def test_training_is_no_part_of_a_compiled_function(who):
    """It would be done once, when the function is recorded, and never again."""
    inner = flux.Tensor([1.0])

    def f(x):
        if who == "train_":
            flux.train_(lambda: np.sum(inner**2), [inner], [()], flux.SGD(0.25))
        else:
            flux.update_(flux.SGD(0.25), [inner], {inner: np.ones(1)})
        return np.sum(x * inner)

    with pytest.raises(CannotCompileError, match=f"{who} cannot be part of a compiled function"):
        compiled(f)(np.ones(1))
    assert inner.item() == 1
