"""save and load_: all comes back to the last bit, training goes on as if nothing had been."""

import copy
import itertools
import json
import os
import subprocess
import sys
import zipfile
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyflux as flux
from tests.restored import bits, chain, data, everything
from tests.suites import either, examples
from tinyflux import saving
from tinyflux.generators import generator

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ["npz", "safetensors"]


@pytest.fixture(params=FORMATS)
def path(request, tmp_path):
    """Where to save, in either format."""
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"saved.{request.param}"


# --- round trips ----------------------------------------------------------------------------------

KINDS = "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split()
ODD = ["c8", "c16", np.longdouble, np.clongdouble]


def round_trip(path, **extra):
    flux.save(path, flux.Tensor([1.0]), **extra)
    return flux.load_(path, flux.Tensor([2.0]))


@settings(max_examples=examples(60), derandomize=True)
@given(st.data(), st.sampled_from(KINDS + ODD), st.sampled_from("<>"), st.sampled_from("CF"))
def test_an_array_comes_back_to_the_last_bit(tmp_path_factory, d, kind, order, layout):
    dtype = np.dtype(kind).newbyteorder(order)
    a = d.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4)))
    a = np.asarray(a, order=layout)
    for form in FORMATS[: 1 + ("safetensors" in sys.modules and kind in KINDS)]:
        (back,) = round_trip(tmp_path_factory.getbasetemp() / f"x.{form}", a=a).values()
        assert bits(back) == bits(a)
        assert back.dtype.isnative and back.flags.writeable and back.flags.c_contiguous


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_every_kind_of_number_comes_back(path, kind):
    """Signed zeros, subnormal numbers, infinities, quiet and signalling NaN with their payloads."""
    words = np.random.default_rng(0).integers(0, 2**62, 1000).astype(f"u{kind[1]}")
    info = np.finfo(kind)
    special = np.array([-0.0, 0.0, info.smallest_subnormal, -info.tiny, np.inf, -np.inf], kind)
    nan = np.array(np.nan, kind).view(words.dtype) + np.arange(-3, 4).astype(words.dtype)
    a = np.concatenate([words.view(kind), special, nan.view(kind)])
    assert bits(round_trip(path, a=a)["a"]) == bits(a)
    if kind != "f2":
        there, back = flux.Tensor(a), flux.Tensor(np.zeros_like(a))
        flux.save(path, there, allow_nan=True)
        flux.load_(path, back)
        assert bits(there.data) == bits(back.data) == bits(a)


# Characters of every kind; all there are take Hypothesis seconds to look up.
WORDS = st.text("aB0_ $.['\"\\\n\0\x7fé\ud800\u200b語😀")
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner),
    max_leaves=20,
)


@settings(max_examples=examples(50), derandomize=True)
@given(TREES)
def test_extras_come_back(tmp_path_factory, tree):
    back = round_trip(tmp_path_factory.getbasetemp() / "tree.npz", tree=tree)
    assert repr(back) == repr({"tree": tree})


def test_what_becomes_plain(path):
    back = round_trip(
        path, a=(1, (2.5,)), b=np.float32(0.1), c=np.int64(7), d=np.True_, e=flux.Tensor([3.0]),
        f=[{"x": np.arange(3)[::-1]}], g=2**200, h="\ud800 é", i=np.str_("s"), j=float("-inf"),
    )  # fmt: skip
    assert back["a"] == [1, [2.5]] and back["b"] == float(np.float32(0.1))
    assert [back[k] for k in "cdghij"] == [7, True, 2**200, "\ud800 é", "s", -np.inf]
    assert type(back["c"]) is int and type(back["d"]) is bool
    assert back["e"].tolist() == [3.0] and back["f"][0]["x"].tolist() == [2, 1, 0]


LOOP: list = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "extra x is|x is <object"),
        (len, "x is <built-in"),
        ({1: 2}, r"x has the key 1 \(int\); wanted a str"),
        ({"$array": 0}, r"x has the key '\$array'"),
        ([{"y": {2}}], r"x\['0'\]\['y'\] is \{2\}"),
        (np.array(["a"]), "x is an array of <U1; .*tolist"),
        (np.array([None]), "x is an array of object"),
        (np.zeros(2, "i4,i4"), "x is an array of"),
        (np.ma.zeros(2), "x: got a masked array"),
        (flux.History(), "history.losses"),
        (LOOP, "too deep, or contains itself"),
        ("x" * 2**24, "make arrays of long lists"),
    ],
)
def test_extras_that_cannot_be_saved_are_refused(tmp_path, value, said):
    with pytest.raises((TypeError, ValueError), match=said):
        flux.save(tmp_path / "x.npz", flux.Tensor([1.0]), x=value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [np.longdouble(1) / 3 * np.ones(2), np.ones(2, "c16")])
def test_what_safetensors_cannot_hold_is_refused(tmp_path, value):
    pytest.importorskip("safetensors")
    with pytest.raises(
        TypeError, match=r"save: extra/x .* cannot be in a .safetensors file; .*npz"
    ):
        flux.save(tmp_path / "x.safetensors", flux.Tensor([1.0]), x=value)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for f in (flux.save, flux.load_):
        (tmp_path / "x.safetensors").write_bytes(b"0")
        with pytest.raises(ImportError, match=r'pip install "tinyflux-autodiff\[safetensors\]"'):
            f(tmp_path / "x.safetensors", flux.Tensor([1.0]))


def test_numpy_and_zipfile_read_it(tmp_path):
    """Two readers that know nothing of us."""
    model = chain()
    flux.save(tmp_path / "x.npz", model, epoch=3, best=np.arange(4)[::2])
    with zipfile.ZipFile(tmp_path / "x.npz") as z, np.load(tmp_path / "x.npz") as stored:
        assert z.testzip() is None
        assert all(i.compress_type == zipfile.ZIP_STORED for i in z.infolist())
        text = json.loads(stored["tinyflux.json"])
        names = [name for name in stored.files if name != "tinyflux.json"]
        assert names == [*flux.params(model).names(), "extra/best"]
        for t, name in zip(flux.params(model), names):
            assert bits(stored[name]) == bits(t.data)
    assert text["content"]["extra"]["epoch"] == 3 and text["version"] == 1


def test_the_safetensors_package_reads_it(tmp_path):
    st = pytest.importorskip("safetensors.numpy")
    model = chain()
    flux.save(tmp_path / "x.safetensors", model)
    stored = st.load_file(tmp_path / "x.safetensors")
    assert {n: bits(a) for n, a in stored.items()} == {
        name: bits(t.data) for name, t in zip(flux.params(model).names(), flux.params(model))
    }


def test_equal_contents_are_equal_files(path, tmp_path):
    flux.save(path, chain())
    first = path.read_bytes()
    flux.save(path, chain())
    assert path.read_bytes() == first


@pytest.mark.parametrize("form", FORMATS)
def test_files_of_earlier_versions_are_read_for_ever(form):
    if form == "safetensors":
        pytest.importorskip("safetensors")
    model, opt = flux.Chain(flux.Dense(2, 3), flux.Dense(3, 1)), flux.ADAM()
    extra = flux.load_(ROOT / f"tests/saved/version_1.{form}", model, opt)
    assert extra == {"epoch": 3, "name": "one"}
    for k, t in enumerate(flux.params(model)):
        assert np.array_equal(t.data.ravel(), np.arange(t.size, dtype="f4") / 8 + k)
        assert opt.state(t)["t"] == 1 and np.all(opt.state(t)["m"] == k - 1)
    assert opt.lr == 0.25


# --- what is in it --------------------------------------------------------------------------------


class Net:
    """A model of the user's own, with state that is not trained."""

    def __init__(self, fill):
        self.W = flux.Tensor(np.full((2, 2), fill))
        self.layers = {"a": [flux.Dense(2, 2)], "b": flux.Dense(2, 2)}
        self.mean = np.full(2, fill)
        self.running = {"var": np.full(2, fill), "n": [np.array(int(fill))]}
        self._cache = np.full(2, fill)
        self.constant = np.zeros(2)
        self.constant.flags.writeable = False
        self.names = np.array(["a", "b"])

    def __call__(self, x):
        return x


def filled(model, value):
    for t in flux.params(model):
        t.data[...] = value
    return model


def tied():
    layer = flux.Dense(2, 2)
    return flux.Chain(layer, layer, flux.Dense(2, 2, bias=False))


MODELS = [
    lambda: chain(),
    tied,
    lambda: flux.Dense(2, 3),
    lambda: flux.Tensor(np.ones((2, 2))),
    lambda: [flux.Tensor([1.0]), (flux.Tensor(np.ones((2, 0))),), deque([flux.Tensor([3.0, 4.0])])],
    lambda: {"a": flux.Tensor(1.0), "b": {0: flux.Tensor([2.0])}},
    lambda: SimpleNamespace(a=flux.Dense(1, 1), file=flux.Dense(2, 2)),
    lambda: flux.params(chain()),
    lambda: flux.Params([flux.Tensor([1.0]), flux.Tensor([1.0])]),
    lambda: flux.compiled(chain()),
    lambda: Net(1.0),
    lambda: flux.Chain(*(flux.Dense(1, 1) for _ in range(300))),
]


@pytest.mark.parametrize("make", MODELS)
def test_whatever_params_walks_can_be_saved(path, make):
    there, back = filled(make(), 0.5), filled(make(), 0.0)
    for k, t in enumerate(flux.params(there)):
        t.data += k
    flux.save(path, there)
    assert flux.load_(path, back) == {}
    assert [bits(t.data) for t in flux.params(back)] == [bits(t.data) for t in flux.params(there)]


def test_names_are_those_of_params(tmp_path):
    model = Net(1.0)
    flux.save(tmp_path / "x.npz", model)
    with np.load(tmp_path / "x.npz") as stored:
        names = stored.files
    plain = ["mean", "running['var']", "running['n'][0]"]
    assert names == ["tinyflux.json", *flux.params(model).names(), *plain]


def test_state_that_is_not_trained(path):
    there, back = Net(1.0), Net(2.0)
    flux.freeze_(there)
    flux.save(path, there)
    flux.load_(path, back)
    assert [*back.mean, *back.running["var"], *back.running["n"]] == [1, 1, 1, 1, 1]
    assert back.W.tolist() == there.W.tolist() and back.W.trainable
    assert back._cache.tolist() == [2, 2]


def test_arrays_are_written_in_place_in_their_own_layout(path):
    there, back = flux.Tensor(np.arange(6.0).reshape(2, 3)), flux.Tensor(np.zeros((2, 3)))
    mine = back.data = np.zeros((2, 3), ">f8", order="F")
    flux.save(path, there)
    flux.load_(path, back)
    assert back.data is mine and mine.flags.f_contiguous and mine.dtype == ">f8"
    assert mine.tolist() == there.tolist()
    flux.save(path, back)
    flux.load_(path, there)
    assert there.tolist() == mine.tolist()


class Alike:
    def __repr__(self):
        return "k"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({Alike(): flux.Tensor([1.0]), Alike(): flux.Tensor([2.0])}, "two Tensors .*called .k"),
        (lambda x: x, "there are no Tensors in"),
        (flux.relu, "there are no Tensors in"),
        ({SimpleNamespace: 1, object(): flux.Tensor([1.0])}, "called otherwise in the next"),
        (SimpleNamespace(**{"a\n": flux.Tensor([1.0])}), "cannot be the name of an entry"),
    ],
)
def test_models_that_cannot_be_saved(tmp_path, model, said):
    with pytest.raises(ValueError, match=said):
        flux.save(tmp_path / "x.npz", model)


@pytest.mark.parametrize(
    ("args", "error", "said"),
    [
        ((flux.Dense(1, 1), "x.npz"), TypeError, "path is Dense.* path first"),
        ((b"x.npz", flux.Dense(1, 1)), TypeError, "path is b'x.npz'"),
        (("x", flux.Dense(1, 1)), ValueError, "must end in .npz or .safetensors, got 'x'"),
        (("x.npz.gz", flux.Dense(1, 1)), ValueError, "must end in"),
        (("x.npz", flux.Dense(1, 1), flux.ADAM), TypeError, "opt is .* wanted an optimiser"),
        (("x.npz", flux.Dense(1, 1), None, [1]), TypeError, "loader is .* wanted a DataLoader"),
    ],
)
def test_arguments_of_the_wrong_kind(args, error, said):
    for f in (flux.save, flux.load_):
        with pytest.raises(error, match=f"^{f.__name__}: .*{said}"):
            f(*args)
    assert not os.path.exists("x.npz")


def test_a_file_is_of_one_moment(path, monkeypatch):
    """Another thread may go on with the model while it is written."""
    model, whole = flux.Tensor([1.0]), saving.write_whole
    change = lambda path, pieces: (model.data.fill(2.0), whole(path, pieces))
    monkeypatch.setattr(saving, "write_whole", change)
    flux.save(path, model)
    flux.load_(path, model)
    assert model.item() == 1


def test_nan_is_saved_only_on_purpose(path):
    model = flux.Dense(1, 2)
    flux.save(path, model)
    before = path.read_bytes()
    model.weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"weight of the model has NaN; .* allow_nan=True"):
        flux.save(path, model)
    assert path.read_bytes() == before
    flux.save(path, model, allow_nan=True)
    back = flux.Dense(1, 2)
    flux.load_(path, back)
    assert bits(back.weight.data) == bits(model.weight.data)
    model.weight.data[0, 0] = np.inf
    flux.save(path, model)


def test_a_nan_in_a_forged_file_is_refused(path, monkeypatch):
    monkeypatch.setattr(saving, "has_nan", lambda a: False)
    flux.save(path, flux.Tensor([np.nan]))
    with pytest.raises(flux.CheckpointError, match="Tensor: holds NaN"):
        flux.load_(path, flux.Tensor([0.0]))


# --- all or nothing -------------------------------------------------------------------------------


def trained(opt=None, steps=7, seed=0, rng=1):
    """A model after some steps, its optimiser and its loader, in the middle of an epoch."""
    model, opt = chain(seed, rng), flux.ADAM(0.01) if opt is None else opt
    loader = flux.DataLoader(data(), batchsize=8, shuffle=True)
    train(model, opt, loader, steps)
    return model, opt, loader


def train(model, opt, loader, steps, then=()):
    """Train for a number of steps, over as many epochs as that takes; `then` says what at which."""
    do = {**dict(then), steps: flux.stop}
    flux.train_(
        lambda x, y: flux.losses.mse(model(x), y), flux.params(model), loader, opt,
        epochs=steps, cb=lambda state: do.get(state.step, int)(),
    )  # fmt: skip


def test_all_differences_are_listed_and_nothing_is_changed(path):
    model, opt, loader = trained()
    flux.save(path, model, opt, loader)
    other = flux.Chain(
        flux.Dense(3, 7), flux.Dropout(0.2, rng=np.random.Generator(np.random.MT19937(0))),
        flux.Dense(8, 2), flux.Dense(8, 2, bias=False), flux.Dense(2, 2),
    )  # fmt: skip
    other[3].weight.data = other[3].weight.data.astype("f8")
    other_loader = flux.DataLoader(data(20), batchsize=4, rng=3)
    before = everything(other, opt, other_loader)
    with pytest.raises(flux.CheckpointError) as caught:
        flux.load_(path, other, flux.Momentum(), other_loader)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[0].endswith("does not fit; nothing was changed:")
    assert lines[1:-1] == [
        "layers[2].weight: not in the file",
        "layers[2].bias: not in the file",
        "layers[4].weight: not in the file",
        "layers[4].bias: not in the file",
        "layers[3].bias: not in the model",
        "layers[0].weight: float32 (3, 8) in the file, float32 (3, 7) in the model",
        "layers[0].bias: float32 (8,) in the file, float32 (7,) in the model",
        "layers[3].weight: float32 (8, 2) in the file, float64 (8, 2) in the model",
        "the optimiser: ADAM in the file, got Momentum",
        "the loader: the state is from a loader with another number of batches and number of "
        "observations and batchsize and rng than DataLoader((float32(20, 3), float32(20, 2)), "
        "batchsize=4); it can only be restored into one that was made alike",
        "the generators: layers[1].rng: not in the file",
    ]
    assert lines[-1] == "the generators: layers[2].rng: not in the model"
    assert everything(other, opt, other_loader) == before


def test_parts_that_are_not_in_the_file(path):
    model, opt, loader = trained()
    flux.save(path, model)
    before = everything(model, opt, loader)
    with pytest.raises(flux.CheckpointError) as caught:
        flux.load_(path, model, opt, loader)
    assert "the optimiser: the file is not a checkpoint" in str(caught.value)
    assert "the loader: its position is not in the file" in str(caught.value)
    assert everything(model, opt, loader) == before
    flux.save(path, model, opt, loader)
    flux.load_(path, model)  # the weights alone
    flux.load_(path, model, opt)
    assert everything(model, opt, loader) == before


def test_one_part_that_does_not_fit_leaves_the_others(path):
    """The loader would fit, and draws from a generator of its own; so would the optimiser."""
    model, opt, loader = chain(), flux.ADAM(), flux.DataLoader(*data(), shuffle=True, rng=1)
    train(model, opt, loader, 7)
    flux.save(path, model, opt, loader)
    train(model, opt, loader, 2)
    opt.lr = 0.5
    for wrong in ("model", "optimiser", "loader"):
        args = [model, opt, loader]
        if wrong == "model":
            args[0] = [*model, flux.Tensor([1.0])]
        elif wrong == "optimiser":
            args[1] = flux.Optimiser(flux.ClipNorm(1.0), opt)
        else:
            args[2] = flux.DataLoader(*data(), shuffle=True)
        before = everything(model, opt, loader), loader.rng.bit_generator.state
        with pytest.raises(flux.CheckpointError):
            flux.load_(path, *args)
        assert (everything(model, opt, loader), loader.rng.bit_generator.state) == before, wrong


def test_moments_of_another_dtype_are_no_state_of_the_rule():
    opt, W = flux.Momentum(), flux.Tensor(np.ones(2, "f4"))
    rules = saving.content.rules_of(opt)
    for dtype, wrong in (("f4", []), ("f8", ["the optimiser: the state of W is not that of"])):
        state = {"W": {"v": np.ones(2, dtype), "t": 1, "step": 1}}
        found = saving.restoring.of_optimiser(rules, state, opt, {"W": W})
        assert [line[: len(w)] for line, w in zip(found, wrong, strict=True)] == wrong
    assert opt.state(W) == {}


def test_a_read_only_array_is_found_before_anything_is_written(path):
    model = flux.Chain(flux.Dense(1, 1), flux.Dense(1, 1))
    flux.save(path, filled(model, 2.0))
    filled(model, 1.0)[1].bias.data.flags.writeable = False
    with pytest.raises(flux.CheckpointError, match=r"layers\[1\].bias: .* is read-only"):
        flux.load_(path, model)
    assert [t.data.item() for t in flux.params(model)] == [1, 1, 1, 1]


def test_a_commit_that_fails_half_way_is_undone(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    model, opt, loader = trained(flux.Momentum(0.1), rng=1)
    flux.save(path, model, opt, loader)
    train(model, opt, loader, 1)
    opt.lr = 0.5
    old, real, calls = everything(model, opt, loader), type(opt).load_state_, itertools.count(1)

    def load_state_(self, *args):
        if self is opt and next(calls) == 2:
            raise KeyboardInterrupt
        real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(type(opt), "load_state_", load_state_)
        with pytest.raises(KeyboardInterrupt):
            flux.load_(path, model, opt, loader)
    assert next(calls) > 3 and everything(model, opt, loader) == old
    flux.load_(path, model, opt, loader)
    assert everything(model, opt, loader) != old


def interrupted(f, k):
    """Call `f` with Ctrl-C at the k-th line that is run in `tinyflux`; whether it came."""
    count = itertools.count(1)

    def tracer(frame, event, arg):
        if "tinyflux" not in frame.f_code.co_filename:
            return None
        if event == "line" and next(count) == k:
            raise KeyboardInterrupt
        return tracer

    old = sys.gettrace()
    sys.settrace(tracer)
    try:
        f()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(old)
    return False


def lines_of(f):
    """How many lines a call runs."""
    n = 0

    def tracer(frame, event, arg):
        nonlocal n
        n += event == "line"
        return tracer if "tinyflux" in frame.f_code.co_filename else None

    old = sys.gettrace()
    sys.settrace(tracer)
    try:
        f()
    finally:
        sys.settrace(old)
    return n


# Where it comes in the moment between the opening of a file and its `with`, Python closes it later.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_loading_leaves_the_old_or_the_new(tmp_path):
    path = tmp_path / "x.npz"
    model, opt, loader = trained(flux.Momentum(0.1), rng=1)
    flux.save(path, model, opt, loader)
    train(model, opt, loader, 1)
    opt.lr = 0.5
    old = everything(model, opt, loader)
    load = lambda: flux.load_(path, model, opt, loader)
    original = pickle_of(model, opt, loader)
    n = lines_of(load)
    new = everything(model, opt, loader)
    assert old != new and n > 1000
    seen = set()
    for k in [*range(1, n - 450, 97), *range(n - 450, n + 2, 3), 10**9]:
        put_back(original, model, opt, loader)
        assert everything(model, opt, loader) == old
        came = interrupted(load, k)
        now = everything(model, opt, loader)
        assert now in (old, new), k
        seen.add((came, now == new))
    assert {(True, False), (False, True)} <= seen


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_loading_weights(tmp_path):
    path, model = tmp_path / "x.npz", [flux.Tensor([1.0]) for _ in range(5)]
    flux.save(path, filled(model, 2.0))
    seen = set()
    for k in range(1, 9000, either(1, 7)):
        filled(model, 1.0)
        came = interrupted(lambda: flux.load_(path, model), k)
        (value,) = {t.item() for t in model}
        seen.add((came, value))
        if not came:
            break
    assert seen >= {(True, 1.0), (False, 2.0)}


def pickle_of(model, opt, loader):
    """Copies of all that a checkpoint restores."""
    return copy.deepcopy(
        ([t.data for t in flux.params(model)], [opt.state(t) for t in flux.params(model)], opt.lr,
         loader.state(), generator().bit_generator.state, model[2].rng.bit_generator.state)
    )  # fmt: skip


def put_back(kept, model, opt, loader):
    arrays, states, opt.lr, place, default, own = kept
    for t, a, s in zip(flux.params(model), arrays, states):
        t.data[...] = a
        opt.load_state_(t, s, t.data)
    loader.restore_(place)
    generator().bit_generator.state, model[2].rng.bit_generator.state = default, own


@pytest.mark.filterwarnings("ignore:unclosed file")  # it closes itself if close() does not come
def test_ctrl_c_while_saving_leaves_the_old_or_the_new(tmp_path):
    path = tmp_path / "x.npz"
    model = flux.Dense(2, 1)
    save = lambda: flux.save(path, model)
    flux.save(path, filled(model, 1.0))
    old = path.read_bytes()
    filled(model, 2.0)
    n = lines_of(save)
    new = path.read_bytes()
    seen = set()
    for k in [*range(1, n, either(1, 4)), n, n + 1]:
        path.write_bytes(old)
        came = interrupted(save, k)
        assert path.read_bytes() in (old, new), k
        if not came or path.read_bytes() == old:
            seen.add(came)
        # It may have come in the very line that removes the file; then the next save does.
        if len(os.listdir(tmp_path)) > 1:
            save()
        assert os.listdir(tmp_path) == ["x.npz"], k
    assert seen == {True, False}


# --- resumed training -----------------------------------------------------------------------------

OPTIMISERS = {
    "ADAM": lambda: flux.ADAM(0.01),
    "SGD": lambda: flux.SGD(0.1),
    "ADAMW": lambda: flux.ADAMW(0.01, decay=0.1),
    "AMSGrad": lambda: flux.AMSGrad(0.01),
    "chain": lambda: flux.Optimiser(
        flux.ClipNorm(1.0), flux.WeightDecay(1e-3), flux.Optimiser(flux.ADAM(0.01)),
        flux.ExpDecay(0.5, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("steps", [7, 13, 14])  # in mid-epoch, before the last batch, at the end
def test_resumed_training_is_bit_identical(tmp_path, name, steps):
    """Dropout with the default generator and with one of its own, shuffled data."""
    path = tmp_path / "run.npz"
    model, opt = chain(), OPTIMISERS[name]()
    loader = flux.DataLoader(data(), batchsize=8, shuffle=True)
    train(model, opt, loader, steps + 17, {steps: lambda: flux.save(path, model, opt, loader)})
    expected = everything(model, opt, loader)

    model, opt, loader = trained(OPTIMISERS[name](), 4, seed=9, rng=8)  # all of it different
    flux.load_(path, model, opt, loader)
    train(model, opt, loader, 17)
    assert everything(model, opt, loader) == expected


RUN = """
import sys, hashlib, numpy as np, tinyflux as flux
from tests import restored as t
model, opt = t.chain(int(sys.argv[1])), flux.ADAM(0.01)
loader = flux.DataLoader(t.data(), batchsize=8, shuffle=True, rng=int(sys.argv[1]))
keep = flux.checkpoint(sys.argv[2], model, opt, loader, every=5)
keep.resume_()
loss = lambda x, y: flux.losses.mse(model(x), y)
def cb(state):
    if keep.step + state.step % 5 == int(sys.argv[3]):
        raise SystemExit  # like a power cut: nobody is told
flux.train_(loss, flux.params(model), loader, opt, epochs=4 - keep.epoch, cb=[cb, keep])
print(hashlib.sha256(repr(t.everything(model, opt, loader)).encode()).hexdigest(), keep.step)
"""


def run(*args):
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, args)], capture_output=True, text=True, cwd=ROOT,
        check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_resumed_training_is_bit_identical_in_a_new_process(tmp_path):
    whole = run(0, tmp_path / "whole.npz", 10**6)
    assert whole.endswith(" 28\n")
    assert run(0, tmp_path / "cut.npz", 13) == ""
    assert run(1, tmp_path / "cut.npz", 10**6) == whole  # although it begins with another seed
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "cut.npz").read_bytes()


def test_hyper_parameters_are_part_of_a_checkpoint(path):
    model = flux.Dense(1, 1)
    opt = flux.Optimiser(flux.ClipNorm(1.0, whole=True), flux.ADAM(0.1, (0.8, 0.9)))
    opt[1].lr = 0.05
    flux.save(path, model, opt)
    again = flux.Optimiser(flux.ClipNorm(2.0), flux.ADAM())
    flux.load_(path, model, again)
    assert repr(again) == repr(opt) and again[1].beta == (0.8, 0.9)


@pytest.mark.parametrize("before, after", [("f4", "f8"), ("f8", "f4")])
def test_a_parameter_that_was_converted_since_its_last_update(path, before, after):
    model, opt, loader = trained()

    def convert(kind):
        for p in flux.params(model[0]):
            p.data = p.data.astype(kind)

    def converted():  # the moments follow with the next update
        convert(after)
        flux.save(path, model, opt, loader)

    convert(before)
    train(model, opt, loader, 5, {2: converted})
    expected = everything(model, opt, loader)
    flux.load_(path, model, opt, loader)
    train(model, opt, loader, 3)
    assert everything(model, opt, loader) == expected


def test_a_loader_alone_comes_with_the_random_state(path):
    model, _, loader = trained()
    flux.save(path, model, loader=loader)
    rest, drawn = [x.tolist() for x, _ in loader], generator().random()
    list(loader)
    flux.seed_(77)
    flux.load_(path, model, loader=loader)
    assert ([x.tolist() for x, _ in loader], generator().random()) == (rest, drawn)


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_all_bit_generators(path, kind):
    make = lambda seed: flux.Chain(
        flux.Dense(1, 1), flux.Dropout(0.5, rng=np.random.Generator(getattr(np.random, kind)(seed)))
    )
    there, back, opt = make(1), make(2), flux.SGD()
    there[1].rng.random(7, dtype="f4")
    flux.save(path, there, opt)
    flux.load_(path, back, opt)
    draw = lambda m: m[1].rng.random(1000, dtype="f4").tolist()
    assert draw(there) == draw(back)


# --- the callback ---------------------------------------------------------------------------------


def watched(tmp_path, monkeypatch, n=10, epochs=2, cb=(), **options):
    """The steps and epochs at which a run is saved."""
    saves = []
    monkeypatch.setattr(
        "tinyflux.callbacks.keeping.save",
        lambda path, *_, step, epoch, **extra: saves.append((Path(path).name, step, epoch)),
    )
    W = flux.Tensor([1.0])
    loader = flux.DataLoader(np.ones((n, 1)))
    name = options.pop("path", "x.npz")
    use = loader if options.pop("known", True) else None
    keep = flux.checkpoint(tmp_path / name, W, loader=use, **options)
    try:
        flux.train_(
            lambda x: np.sum(W * x), flux.params(W), loader, flux.SGD(1e-3),
            epochs=epochs, cb=[*cb, keep],
        )  # fmt: skip
    except KeyboardInterrupt:
        pass
    return saves


def test_every_so_many_steps_and_at_the_end(tmp_path, monkeypatch):
    saves = watched(tmp_path, monkeypatch, every=4)
    assert [s[1:] for s in saves] == [(4, 0), (8, 0), (12, 1), (16, 1), (20, 2)]
    saves = watched(tmp_path, monkeypatch, every=6, known=False)
    assert [s[1:] for s in saves] == [(6, 0), (12, 1), (18, 1), (20, 2)]
    assert [s[1] for s in watched(tmp_path, monkeypatch, every=100)] == [20]


def test_every_so_many_seconds(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    tick = lambda: now.__setitem__(0, now[0] + 1)
    saves = watched(tmp_path, monkeypatch, seconds=7, cb=[tick])
    assert [s[1] for s in saves] == [7, 14, 20]
    saves = watched(tmp_path, monkeypatch, seconds=7, every=10, cb=[tick])
    assert [s[1] for s in saves] == [7, 10, 17, 20]


def test_fields_in_the_path(tmp_path, monkeypatch):
    saves = watched(tmp_path, monkeypatch, every=8, path="e{epoch}-{step:03}.npz")
    assert [s[0] for s in saves] == ["e0-008.npz", "e1-016.npz", "e2-020.npz"]


def stopper(at, error=None):
    left = itertools.count(1)

    def cb():
        if next(left) == at:
            if error:
                raise error
            flux.stop()

    return cb


def test_after_stop_it_saves_and_after_ctrl_c_it_does_not(tmp_path, monkeypatch):
    saves = watched(tmp_path, monkeypatch, every=4, cb=[stopper(7)])
    assert [s[1:] for s in saves] == [(4, 0), (7, 0)]
    saves = watched(tmp_path, monkeypatch, every=4, cb=[stopper(7, KeyboardInterrupt)])
    assert [s[1:] for s in saves] == [(4, 0)]
    try:
        raise KeyboardInterrupt  # a new run while an old one's Ctrl-C is being dealt with
    except KeyboardInterrupt:
        saves = watched(tmp_path, monkeypatch, every=15)
    assert [s[1] for s in saves] == [15, 20]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, TypeError, "say every=..., a number of steps, or seconds"),
        ({"every": 0}, ValueError, "every is 0"),
        ({"every": 1, "extra": {}}, TypeError, "checkpoint: extra is"),
        ({"every": 1, "path": "a{loss}.npz"}, ValueError, "only {epoch} and {step}"),
        ({"every": 1, "path": "a{}.npz"}, ValueError, "only {epoch} and {step}"),
        ({"every": 1, "path": 5}, TypeError, "path is 5"),
        ({"every": 1, "path": "x.pth"}, ValueError, "checkpoint: the path must end in .npz"),
        ({"every": 1, "path": "no/x.npz"}, FileNotFoundError, "there is no such folder: 'no'"),
        ({"every": 1, "opt": 3}, TypeError, "checkpoint: opt is 3"),
        ({"every": 1, "opt": flux.DataLoader([1])}, TypeError, "wanted an optimiser"),
        ({"every": 1, "loader": [1]}, TypeError, "checkpoint: loader is"),
    ],
)
def test_callback_arguments(options, error, said):
    path = options.pop("path", "x.npz")
    with pytest.raises(error, match=said):
        flux.checkpoint(path, flux.Tensor([1.0]), **options)


def test_extras_of_the_callback(tmp_path):
    W = flux.Tensor([1.0])
    keep = flux.checkpoint(tmp_path / "x.npz", W, every=2, extra=lambda: {"n": W.tolist()})
    assert not keep.resume_()
    flux.train_(lambda x: np.sum(W * x), flux.params(W), [1.0] * 3, flux.SGD(0.0), cb=keep)
    assert flux.load_(tmp_path / "x.npz", W) == {"n": [1.0], "step": 3, "epoch": 1}
    taken = flux.checkpoint(tmp_path / "y.npz", W, every=1, extra=lambda: {"epoch": 1, "opt": 2})
    with pytest.raises(ValueError, match=r"extra returned \['epoch', 'opt'\], names that are"):
        flux.train_(lambda x: np.sum(W * x), flux.params(W), [1.0], flux.SGD(0.0), cb=taken)
    with pytest.raises(ValueError, match="which file of"):
        flux.checkpoint(tmp_path / "{step}.npz", W, every=2).resume_()


def test_a_schedule_goes_on_where_it_was(tmp_path):
    """The count of the Scheduler is an extra, and the checkpoint stands behind it."""

    def go(name, stopped=10**6):
        flux.seed_(0)
        model, opt = flux.Dense(1, 1), flux.SGD(0.1)
        loader = flux.DataLoader(np.ones((8, 1)), batchsize=2)
        advance = flux.Scheduler(opt, flux.schedules.Exp(0.1, decay=0.7))
        path, extra = tmp_path / name, lambda: {"t": advance.t}
        keep = flux.checkpoint(path, model, opt, loader, every=3, extra=extra)
        if keep.resume_():
            advance.t = keep.extras["t"]
        ends, step = [], keep.step

        def once_per_epoch(state):
            if loader.ended:
                ends.append(step + state.step)

        loss = lambda x: np.sum((model(x) - 3) ** 2)
        cb = [stopper(stopped, SystemExit), advance, once_per_epoch, keep]
        try:
            left = 3 - keep.epoch
            flux.train_(loss, flux.params(model), loader, opt, epochs=left, cb=cb)
        except SystemExit:
            return ends
        return ends, opt.lr, advance.t, model.weight.tolist(), model.bias.tolist()

    whole = go("whole.npz")
    assert whole[0] == [4, 8, 12]
    assert go("cut.npz", stopped=8) == [4]
    assert go("cut.npz") == ([8, 12], *whole[1:])  # from step 6, in the middle of an epoch


def test_a_checkpoint_before_the_first_step_resets_the_count(tmp_path):
    w = flux.Tensor([1.0])
    opt = flux.Optimiser(flux.ADAM(0.1), flux.InvDecay(0.5))
    flux.save(tmp_path / "x.npz", w, opt)
    runs = []
    for _ in range(2):
        flux.load_(tmp_path / "x.npz", w, opt)
        runs.append(flux.train_(lambda x: np.sum(w * w) * x, [w], [1.0] * 5, opt).losses)
    assert runs[0] == runs[1] and opt.state(w)["step"] == 5


def test_names_of_arrays_that_collide(tmp_path):
    class Key:
        def __repr__(self):
            return "K"

    class Model:
        def __init__(self):
            self.weight = flux.Tensor([1.0])
            self.stats = {Key(): np.ones(2), Key(): np.zeros(2)}

        def __call__(self, x):
            return x

    with pytest.raises(ValueError, match=r"two arrays of the model are called stats\[K\]"):
        flux.save(tmp_path / "x.npz", Model())
    assert not list(tmp_path.iterdir())


def test_resuming_from_a_file_of_save_changes_nothing(tmp_path):
    w = flux.Tensor([1.0])
    flux.save(tmp_path / "x.npz", w)
    w.data[...] = 2
    with pytest.raises(flux.CheckpointError, match="the extras: there is no 'step' in the file"):
        flux.checkpoint(tmp_path / "x.npz", w, every=1).resume_()
    assert w.item() == 2


def test_the_order_of_a_large_loader_counts_among_what_a_file_may_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyflux.saving.ROOM", 2**13)
    w, loader = flux.Tensor([1.0]), flux.DataLoader(np.zeros(20_000, "u1"), shuffle=True)
    next(iter(loader))
    flux.save(tmp_path / "x.npz", w, loader=loader)
    again = flux.DataLoader(np.zeros(20_000, "u1"), shuffle=True)
    flux.load_(tmp_path / "x.npz", w, loader=again)
    assert (again.state()["order"] == loader.state()["order"]).all()


def test_a_batch_that_stop_left_unused_is_not_counted_as_used(tmp_path):
    w, loader = flux.Tensor([1.0]), flux.DataLoader(np.arange(4.0), batchsize=1)
    keep = flux.checkpoint(tmp_path / "x.npz", w, loader=loader, every=2)

    def loss(x):
        if x[0] == 3:
            flux.stop()
        return np.sum(w * x)

    flux.train_(loss, [w], loader, flux.SGD(0.0), cb=keep)
    assert keep.step == 2 and flux.load_(tmp_path / "x.npz", w, loader=loader)["step"] == 2
    assert [float(x[0]) for x in loader] == [2, 3]


def test_a_loss_that_is_not_finite_leaves_the_latest_file_as_it_is(tmp_path):
    x = np.array([1.0, 1.0, 1.0, np.nan])
    w, loader = flux.Tensor([1.0]), flux.DataLoader(x, batchsize=1)
    keep = flux.checkpoint(tmp_path / "x.npz", w, loader=loader, every=2)
    with pytest.raises(flux.NonFiniteLossError):
        flux.train_(lambda x: np.sum(w * x), [w], loader, flux.SGD(0.0), cb=keep)
    assert keep.step == 2 and flux.load_(tmp_path / "x.npz", w, loader=loader)["step"] == 2
    assert [float(x[0]) for x in loader][:1] == [1]


@pytest.mark.parametrize("end", [flux.stop, stopper(1, KeyboardInterrupt)])
def test_steps_that_were_not_saved_are_counted_all_the_same(tmp_path, end):
    w, loader = flux.Tensor([1.0]), flux.DataLoader(np.ones(10), batchsize=1)
    keep, calls = flux.checkpoint(tmp_path / "x.npz", w, loader=loader, every=5), itertools.count(1)

    def loss(x):
        if next(calls) == 19:
            end()
        return np.sum(w * x)

    try:
        flux.train_(loss, [w], loader, flux.SGD(0.0), epochs=2, cb=keep)
    except KeyboardInterrupt:
        pass
    assert (keep.step, keep.epoch) == (15, 1)
    flux.train_(loss, [w], loader, flux.SGD(0.0), cb=keep)
    assert (keep.step, keep.epoch) == (28, 2)


@pytest.mark.parametrize("end", [None, flux.stop, stopper(1, KeyboardInterrupt)])
def test_a_call_that_a_throttle_makes_up_for_saves_what_is_there_then(tmp_path, end):
    w, calls, loader = flux.Tensor([0.0]), itertools.count(1), flux.DataLoader(np.ones(6))
    path, extra = tmp_path / "{step}.npz", lambda: {"made": -w.item()}
    late = flux.throttle(
        flux.checkpoint(path, w, loader=loader, every=1, extra=extra),
        3600, leading=False, trailing=True,
    )  # fmt: skip

    def loss(x):
        if next(calls) == 5 and end:
            end()
        return np.sum(w * x)

    def the_hour_is_over(state):
        if state.step == 3:
            late._opens = 0.0

    try:
        flux.train_(loss, [w], loader, flux.SGD(1.0), cb=[the_hour_is_over, late])
    except KeyboardInterrupt:
        pass
    files = {p.name: flux.load_(p, w, loader=loader) for p in tmp_path.iterdir()}
    assert files.keys() == ({"3.npz"} if end else {"3.npz", "6.npz"})
    for name, kept in files.items():
        flux.load_(tmp_path / name, w, loader=loader)
        assert kept["made"] == kept["step"] == loader.state()["next"]


def test_a_field_that_is_a_tuple_comes_back_as_one(tmp_path):
    class Two(flux.UpdateRule):
        rates: tuple = (0.5, 0.25)

        def constants(self, t, n):
            return self.rates + (1.0,)

    w, opt = flux.Tensor([1.0]), Two((0.1, 0.2))
    flux.save(tmp_path / "x.npz", w, opt)
    opt.rates = (1.0, 2.0)
    flux.load_(tmp_path / "x.npz", w, opt)
    assert opt.rates == (0.1, 0.2) and type(opt.rates) is tuple


def test_an_epoch_whose_last_step_was_saved_is_finished(tmp_path):
    w = flux.Tensor([1.0])
    keep = flux.checkpoint(tmp_path / "x.npz", w, every=2)
    flux.train_(lambda x: np.sum(w * x), [w], [1.0] * 4, flux.SGD(0.0), epochs=2, cb=keep)
    assert (keep.step, keep.epoch) == (8, 2)
    assert flux.load_(tmp_path / "x.npz", w) == {"step": 8, "epoch": 2}


@pytest.mark.skipif(os.name != "posix", reason="folders are not brought to the disk")
def test_a_folder_that_may_be_written_to_but_not_read(tmp_path, monkeypatch):
    opened = os.open

    def refusing(path, *args, **kwargs):
        if path == str(tmp_path):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing)
    flux.save(tmp_path / "x.npz", flux.Tensor([1.0]))
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
