"""Params, Grads and the walk through a model: all by identity."""

import copy
import functools
import pickle
import types
from collections import OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyflux as flux
from tests.suites import either, examples
from tinyflux import Grads, Params, Tensor, gradient, params

thorough = settings(max_examples=examples(60), deadline=None, derandomize=True)
POOL = [Tensor([1.0]) for _ in range(5)]  # equal, but not the same
picks = st.lists(st.integers(0, 4), max_size=8)


def ids(tensors):
    return [id(t) for t in tensors]


def unique(numbers):
    return [POOL[i] for i in dict.fromkeys(numbers)]


# --- Params --------------------------------------------------------------------------------------


@thorough
@given(picks, picks)
def test_params_are_an_ordered_set_by_identity(a, b):
    """Against dict.fromkeys of the numbers."""
    p, q = (Params([POOL[i] for i in numbers]) for numbers in (a, b))
    assert ids(p) == ids(unique(a)) and len(p) == len(set(a))
    assert [t in p for t in POOL] == [i in a for i in range(5)]
    assert ids(p | q) == ids(unique([*a, *b]))
    assert ids(p & q) == ids(unique([i for i in a if i in b]))
    assert ids(p | [POOL[i] for i in b]) == ids(p | q)
    assert (p == q) == (list(dict.fromkeys(a)) == list(dict.fromkeys(b)))
    assert (p != q) != (p == q)
    for i in b:
        p.discard(POOL[i])
    assert ids(p) == ids(unique([i for i in a if i not in b]))


def test_indexing():
    p = Params(POOL)
    assert p[1] is POOL[1] and p[-1] is POOL[4]
    assert type(p[1:3]) is list and ids(p[1:3]) == ids(POOL[1:3])
    with pytest.raises(IndexError):
        p[5]


def test_references_and_no_copies():
    w = Tensor([1.0])
    assert Params([w])[0] is w and Params(w)[0] is w
    assert ids(Params(Params(POOL))) == ids(POOL)
    p = Params(POOL)
    q = p.copy()
    q.discard(POOL[0])
    assert len(p) == 5 and len(q) == 4


def test_names_and_repr():
    m = flux.Dense(2, 3)
    ps = params(m)
    assert repr(ps) == "Params([weight (2, 3), bias (3,)])"
    assert ps.names() == ["weight", "bias"]
    assert repr(Params([m.bias])) == "Params([Tensor (3,)])"
    assert (Params([Tensor(1.0)]) | ps).names() == ["Tensor of shape ()", "weight", "bias"]
    assert (ps & [m.bias]).names() == ["bias"]
    with pytest.raises(TypeError, match=r"a name is 3 \(int\), but it must be"):
        Params([m.bias], names=[3])


@pytest.mark.parametrize("wrong", [np.ones(2), 1.0, "w", None, flux.Dense(1, 1), [1.0]])
def test_what_is_no_parameter(wrong):
    with pytest.raises(TypeError, match=r"Params holds Tensors, got .*write params\(model\)"):
        Params().add(wrong)
    with pytest.raises(TypeError, match="Params holds Tensors"):
        Params([POOL[0], wrong])
    with pytest.raises(TypeError, match="Params holds Tensors"):
        Params(wrong)


def test_a_computed_value_is_no_parameter():
    with pytest.raises(TypeError, match="computed by an operation"):
        gradient(lambda x: Params([x * 2]), 1.0)


def test_params_have_no_hash_and_are_false_when_empty():
    with pytest.raises(TypeError):
        hash(Params())
    assert not Params() and Params(POOL)
    assert Params(POOL) != POOL


def test_params_in_a_loss():
    """The penalty of Flux's pages: the sum of squares over all parameters."""
    ps = Params([Tensor([1.0, 2.0]), Tensor(3.0)])
    gs = gradient(lambda: sum(np.sum(p**2) for p in ps), ps)
    np.testing.assert_array_equal(gs[ps[0]], [2, 4])
    assert gs[ps[1]] == 6


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_params_copied_with_their_model_belong_to_it(remake):
    m = flux.Chain(flux.Dense(2, 3), flux.Dense(3, 1))
    n, ps = remake((m, params(m)))
    assert ids(ps) == ids(params(n)) and ps.names() == params(m).names()
    assert not any(p in params(m) for p in ps)


# --- walking -------------------------------------------------------------------------------------

A, B = Tensor([1.0]), Tensor([2.0])
Pair = namedtuple("Pair", "x y")


@dataclass
class Data:
    w: object
    other: object = None


@dataclass(slots=True)
class Slotted:
    w: object


class Base:
    __slots__ = ("p",)

    def __init__(self):
        self.p = A


class Derived(Base):
    __slots__ = "weight"  # a single name may stand alone

    def __init__(self):
        super().__init__()
        self.weight = B


class Careful:
    """What must not be looked into, and a property that must not be called."""

    shared_by_the_class = Tensor([5.0])

    def __init__(self):
        self._private = A
        self.module = flux
        self.kind = flux.Dense
        self.function = lambda x: x
        self.numbers = [1, 2.0, "text", None, np.ones(3), np.random.default_rng(0)]

    @property
    def property(self):
        raise AssertionError("a property was called")

    def method(self, x):
        return x


def cyclic():
    a, b = types.SimpleNamespace(w=A), types.SimpleNamespace(w=B)
    a.next, b.next = b, a
    return a


def circle():
    a = [A]
    a.append(a)
    return a


@pytest.mark.parametrize(
    "model, names",
    [
        (A, [""]), ([A, B], ["[0]", "[1]"]), ((A, [B]), ["[0]", "[1][0]"]), ([A, A, [A]], ["[0]"]),
        ({"a": A, 3: {"b": B}}, ["['a']", "[3]['b']"]), (OrderedDict(k=A), ["['k']"]),
        (defaultdict(list, k=[A]), ["['k'][0]"]), (UserDict(k=A), ["['k']"]),
        (UserList([A]), ["data[0]"]), (deque([A, B]), ["[0]", "[1]"]),
        (types.MappingProxyType({"k": A}), ["['k']"]), (Derived(), ["p", "weight"]),
        (Pair(A, [B]), ["x", "y[0]"]), (Data(A, [B]), ["w", "other[0]"]), (Slotted(A), ["w"]),
        (types.SimpleNamespace(u=A, v=B), ["u", "v"]), (Careful(), ["_private"]),
        (Careful().method, ["_private"]), (functools.partial(Careful().method), ["[0]._private"]),
        (functools.partial(print, B, end=A), ["[1]", "[2]['end']"]),
        (cyclic(), ["w", "next.w"]), (circle(), ["[0]"]), (flux, []), (flux.Dense, []), (None, []),
        (3, []), ("text", []), (np.ones(2), []), (lambda x: A, []),
        (flux.Chain(flux.Dense(1, 1), print), ["layers[0].weight", "layers[0].bias"]),
    ],
    ids=lambda v: str(v)[:40],
)  # fmt: skip
def test_what_is_found(model, names):
    assert list(params(model)._names.values()) == names


def test_several_models_and_their_order():
    m, n = flux.Dense(1, 1), flux.Dense(1, 2, bias=False)
    assert ids(params(m, n, [m, A])) == ids([m.weight, m.bias, n.weight, A])
    assert params(m, n).names() == ["[0].weight", "[0].bias", "[1].weight"]
    assert len(params()) == 0


def test_nesting_as_deep_as_memory_allows():
    deep = [A]
    for _ in range(either(100_000, 20_000)):
        deep = [deep]
    assert ids(params(deep)) == [id(A)]
    while isinstance(deep[0], list):  # and taken apart without recursion
        deep = deep[0]


def test_freezing_and_thawing():
    m = flux.Chain(flux.Dense(1, 2), flux.Dense(2, 1))
    flux.freeze_(m[0], m[1].bias)
    assert params(m).names() == ["layers[1].weight"]
    before = [t.data.copy() for t in (m[0].weight, m[1].bias)]
    flux.train_(lambda x: np.sum(m(x)), params(m), [np.ones((3, 1))], flux.ADAM(0.1))
    for t, b in zip((m[0].weight, m[1].bias), before, strict=True):
        np.testing.assert_array_equal(t.data, b)
    flux.thaw_(m[0])
    assert params(m).names() == ["layers[0].weight", "layers[0].bias", "layers[1].weight"]
    flux.thaw_(m)
    assert len(params(m)) == 4


# --- Grads ---------------------------------------------------------------------------------------


@pytest.fixture
def gs():
    w, b, unused = Tensor([3.0, 4.0]), Tensor(2.0), Tensor([0.0])
    ps = Params([w, b, unused], ["w", "b", "unused"])
    return gradient(lambda: 0.5 * np.sum(w**2) + 5 * b, ps)


def test_grads_are_a_mapping(gs):
    w, b, unused = gs.params
    assert isinstance(gs, Grads) and len(gs) == 3
    assert ids(gs) == ids(gs.keys()) == ids(gs.params)
    np.testing.assert_array_equal(gs[w], [3, 4])
    assert gs[b] == 5 and gs[unused] is None
    assert w in gs and Tensor([3.0, 4.0]) not in gs and 3 not in gs
    assert gs.get(Tensor(1.0)) is None and gs.get(Tensor(1.0), 7) == 7
    assert [g is v for (_, g), v in zip(gs.items(), gs.values(), strict=True)] == [True] * 3
    assert repr(gs) == "Grads(w: array(2,), b: array(), unused: None)"
    np.testing.assert_array_equal(sum([gs, gs, gs])[w], [9, 12])
    with pytest.raises(TypeError):
        1 + gs


def test_a_gradient_that_was_not_asked_for(gs):
    stranger = Tensor(np.ones((2, 3)))
    with pytest.raises(KeyError) as caught:
        gs[stranger]
    assert isinstance(caught.value, flux.NotAskedError)
    assert str(caught.value) == (
        "no gradient was asked for this array of shape (2, 3); the gradients are those of "
        "Params([w (2,), b (), unused (1,)]). Add it to the parameters given to gradient."
    )
    with pytest.raises(KeyError, match=r"is gs\[W\], not gs\[3\]"):
        gs[3]
    with pytest.raises(KeyError):
        gs[stranger] = np.ones((2, 3))


def test_arithmetic(gs):
    w, b, unused = gs.params
    for found, factor in [
        (2 * gs, 2), (gs * 2, 2), (-gs, -1), (gs / 2, 0.5), (gs + gs, 2), (gs - gs, 0),
        (np.float64(3) * gs, 3), (gs * np.float32(2), 2), (gs + gs / 2 - 2 * gs, -0.5),
        (gs.map(lambda g: g * 4), 4), (gs.copy(), 1),
    ]:  # fmt: skip
        assert isinstance(found, Grads) and ids(found) == ids(gs)
        np.testing.assert_array_equal(found[w], factor * gs[w])
        assert found[b] == factor * gs[b] and found[unused] is None
        assert type(found[w]) is np.ndarray and not np.shares_memory(found[w], gs[w])


def test_a_factor_may_be_differentiated():
    w = Tensor([3.0, 4.0])
    gs = gradient(lambda: np.sum(w**2), [w])
    for f, slope in ((lambda s: np.sum((gs * s)[w]), 14), (lambda s: np.sum((gs / s)[w]), -3.5)):
        assert gradient(f, 2.0) == (slope,)


def test_none_counts_as_zero():
    a, b = Tensor(1.0), Tensor(1.0)
    ps = Params([a, b])
    one, other = gradient(lambda: 3 * a, ps), gradient(lambda: 4 * b, ps)
    for found, wanted in ((one + other, [3, 4]), (one - other, [3, -4]), (other - one, [-3, 4])):
        assert [float(g) for g in found.values()] == wanted


def test_arithmetic_that_makes_no_sense(gs):
    a = Tensor(1.0)
    with pytest.raises(ValueError, match="different parameters"):
        gs + gradient(lambda: a * 1.0, [a])
    for f in (lambda: gs + 3, lambda: gs - 3, lambda: gs + np.float64(3)):
        with pytest.raises(TypeError):
            f()


def test_single_precision_stays_so_that_the_update_takes_it():
    w = Tensor(np.ones(2, np.float32))
    ps = params(w)
    gs = gradient(lambda: np.sum(w * 2), ps)
    for found in (
        gs * np.float64(0.5),
        np.float64(0.5) * gs,
        gs / np.float64(2),
        gs + gs,
        -gs,
        gs.copy(),
    ):
        assert found[w].dtype == np.float32
        flux.update_(flux.SGD(0.1), ps, found)


def test_norm(gs):
    assert gs.norm() == pytest.approx(np.sqrt(9 + 16 + 25), rel=1e-15)
    w = Tensor(np.ones(4, np.float32))
    huge = gradient(lambda: np.sum(w * np.float32(1e30)), params(w))
    assert huge.norm() == pytest.approx(2e30, rel=1e-6)  # its square is beyond single precision
    assert gradient(lambda: 1.0, params(w)).norm() == 0
    for size in (1e200, 1e-200, 5e-324, 1e308):  # nor do they fit into double precision
        far = Grads(params(w), [np.array([size, 0.0])])
        assert far.norm() == pytest.approx(size, rel=1e-15, abs=0)
    assert Grads(params(w), [np.array([np.inf, 1.0])]).norm() == np.inf


def test_setting(gs):
    w, b, unused = gs.params
    mine = np.array([1, 2])
    gs[w] = mine
    mine[0] = 9
    np.testing.assert_array_equal(gs[w], [1, 2])
    assert gs[w].dtype == np.float64
    gs[b], gs[unused] = None, [7.0]
    assert gs[b] is None and gs[unused] == 7
    with pytest.raises(ValueError, match=r"a gradient of shape \(2,\) is wanted, got \(3,\)"):
        gs[w] = np.ones(3)


def test_clipping_in_place_is_what_the_update_sees(gs):
    w, b, _ = gs.params
    np.clip(gs[w], -3.5, 3.5, out=gs[w])
    gs[b] = gs[b] / 5
    flux.update_(flux.SGD(1.0), gs.params, gs)
    np.testing.assert_array_equal(w.data, [0, 0.5])
    assert float(b) == 1


def test_later_changes_of_the_params_do_not_mix_the_gradients_up():
    a, b, c = Tensor(1.0), Tensor(2.0), Tensor(3.0)
    ps = Params([a, b])
    gs = gradient(lambda: 5 * a + 7 * b, ps)
    ps.discard(a)
    ps.add(c)
    assert (gs[a], gs[b]) == (5, 7) and c not in gs and len(gs) == 2


def test_grads_travel_with_their_parameters():
    w = Tensor([1.0])
    gs = gradient(lambda: np.sum(w * 3), params(w))
    for twin, its in (copy.deepcopy((w, gs)), pickle.loads(pickle.dumps((w, gs)))):
        assert its[twin] == 3 and w not in its


def test_grads_compare_by_identity(gs):
    assert gs == gs and gs != gs.copy()


def test_params_inside_a_model_are_named_by_their_place():
    model = {"ps": flux.Params([flux.Tensor(np.ones(2)), flux.Tensor(np.ones(1))])}
    assert flux.params(model).names() == ["['ps'][0]", "['ps'][1]"]


def test_attributes_of_containers_of_ones_own():
    class Blocks(list):
        def __init__(self, *items):
            super().__init__(items)
            self.scale = flux.Tensor([1.0])

    class Named(dict):
        pass

    class Slotted(tuple):
        __slots__ = ()

    class Deep(list):
        __slots__ = ("gain",)

    deep = Deep()
    deep.gain = flux.Tensor([4.0])
    assert flux.params(Slotted([deep])).names() == ["[0].gain"]
    named = Named(first=flux.Tensor([2.0]))
    named.shift = flux.Tensor([3.0])
    assert flux.params(Blocks(named)).names() == ["[0]['first']", "[0].shift", "scale"]
