"""Files of checkpoints: never lost, never believed when they are damaged or forged."""

import errno
import io
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import tinyflux as flux
from tests.suites import a_third, either, only
from tinyflux import saving
from tinyflux.saving import files, npz, tree

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ["npz", "safetensors"]


def model(value=None):
    """Two small layers; all elements are `value`."""
    m = flux.Chain(flux.Dense(3, 2), flux.Dense(2, 1, bias=False))
    for t in flux.params(m):
        t.data[...] = np.arange(t.size).reshape(t.shape) + 0.5 if value is None else value
    return m


def saved(form):
    """The bytes of a small checkpoint."""
    if form == "safetensors":
        pytest.importorskip("safetensors")
    extra = {"mask": np.array([True, False]), "t": 3, "names": ["a", "b"]}
    parts = saving.FORMATS[f".{form}"].write(*tree.pack({**contents(), "extra": extra}))
    return b"".join(bytes(p) for p in parts)


def contents():
    m = model()
    return {"model": {n: t.data for n, t in zip(flux.params(m).names(), flux.params(m))}}


EXPECTED = {name: a.tobytes() for name, a in contents()["model"].items()}


@pytest.fixture
def outcome(monkeypatch):
    """What comes of loading these bytes: "refused", "equal", or something that must not be."""
    live = model()
    arrays = [t.data for t in flux.params(live)]

    def outcome_of(data, form):
        monkeypatch.setattr(saving, "read_whole", lambda path, limit: bytes(data))
        for a in arrays:
            a.fill(-1)
        try:
            extra = flux.load_(f"x.{form}", live)
        except flux.CheckpointError:
            assert all((a == -1).all() for a in arrays)
            return "refused"
        same = [a.tobytes() for a in arrays] == list(EXPECTED.values())
        extra["mask"] = extra["mask"].tolist()
        extra_same = extra == {"mask": [True, False], "t": 3, "names": ["a", "b"]}
        return "equal" if same and extra_same else "different"

    return outcome_of


def resealed(data, form="npz"):
    """A forger writes the right digest."""
    if form == "npz":
        return data[:-64] + sha256(data[:-64]).hexdigest().encode()
    at = data.find(b'"tinyflux":"') + 12
    return data[:at] + sha256(data[:at] + data[at + 64 :]).hexdigest().encode() + data[at + 64 :]


# --- damaged --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_whole_files_load(outcome, form):
    data = saved(form)
    assert outcome(data, form) == outcome(resealed(data, form), form) == "equal"
    assert resealed(data, form) == data and 800 < len(data) < 4096


@pytest.mark.parametrize("form", FORMATS)
def test_cut_off_at_every_byte(outcome, form):
    data = saved(form)
    step = either(1, 5)
    assert {outcome(data[:n], form) for n in range(0, len(data), step)} == {"refused"}
    assert {outcome(data[n:], form) for n in range(1, len(data), step)} == {"refused"}
    assert outcome(b"\0" + data, form) == outcome(data + b"\0", form) == "refused"


@pytest.mark.parametrize("form", FORMATS)
def test_every_flipped_bit(outcome, form):
    """In the quick suite one bit of every byte."""
    data = bytearray(saved(form))
    for i in range(len(data)):
        for bit in either(range(8), [5 * i % 8]):
            data[i] ^= 1 << bit
            assert outcome(data, form) == "refused", (i, bit)
            data[i] ^= 1 << bit


@pytest.mark.slow
def test_every_flipped_bit_of_a_file_with_the_right_digest(outcome):
    """So not a bit of the zip archive and of the .npy headers is left out of the comparison."""
    data = bytearray(saved("npz"))
    for i in range(len(data) - 64):
        for bit in range(8):
            data[i] ^= 1 << bit
            assert outcome(resealed(bytes(data)), "npz") == "refused", (i, bit)
            data[i] ^= 1 << bit


def mutations(data, n, seed):
    """Random changes: some bytes overwritten, blocks cut out, doubled, exchanged, set to 0."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        new = bytearray(data)
        a, b = sorted(rng.integers(0, len(data), 2))
        kind = rng.integers(6)
        if kind == 0:
            for at in rng.integers(0, len(data), rng.integers(2, 9)):
                new[at] = rng.integers(256)
        elif kind == 1:
            del new[a : b + 1]
        elif kind == 2:
            new[a:a] = data[a : b + 1]
        elif kind == 3:
            new = bytearray(data[b:] + data[a:b] + data[:a])
        elif kind == 4:
            new[a : b + 1] = bytes(b + 1 - a)
        else:
            new[a : a + 4] = struct.pack("<L", rng.choice([0, 1, 2**31, 2**32 - 1]))
        yield bytes(new)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("n", [either(3000, 300), pytest.param(100_000, marks=pytest.mark.slow)])
def test_random_changes(outcome, form, n):
    data = saved(form)
    for new in mutations(data, n, n):
        assert outcome(new, form) == ("equal" if new == data else "refused")


@pytest.mark.parametrize("form", FORMATS)
def test_random_changes_with_the_right_digest_raise_nothing_else(outcome, form):
    """A forger may write other values into a file; more must not come of it."""
    for new in mutations(saved(form), either(3000, 300), 1):
        assert outcome(resealed(new, form), form) in ("refused", "equal", "different")


# --- forged ---------------------------------------------------------------------------------------


def forged(change):
    """A file whose manifest was changed, with the right checksums everywhere."""
    manifest, own = tree.pack({**contents(), "extra": {}})
    whole = json.loads(manifest)
    text = change(whole)
    text = json.dumps(whole if text is None else text) if not isinstance(text, bytes) else text
    text = text if isinstance(text, bytes) else text.encode()
    members = [(tree.Spec(n, a.dtype.str, a.shape), npz.raw(a)) for n, a in own.items()]
    return sealed(text, members)


def entry(**fields):
    """Change the entry of the first array."""

    def change(whole):
        name, dtype, shape = whole["arrays"][0]
        new = {"name": name, "dtype": dtype, "shape": shape, **fields}
        whole["arrays"][0] = [new["name"], new["dtype"], new["shape"]]

    return change


def setting(**fields):
    return lambda whole: whole.update(fields)


def content(change):
    return lambda whole: change(whole["content"])


MANIFESTS = {
    "another version": (setting(version=2), "it has format 2, .* a later version of tinyflux"),
    "no version": (setting(version=None), "it has format None"),
    "not ours": (setting(format="x"), "not one of tinyflux"),
    "a list": (lambda whole: [1], "not one of tinyflux"),
    "object": (entry(dtype="|O"), r"no array of numbers: '\|O'"),
    "nested dtype": (entry(dtype="f4,(1000000,1000000)f4"), "no array of numbers"),
    "dtype no string": (entry(dtype=["<f4"]), "malformed"),
    "string dtype": (entry(dtype="<U9"), "no array of numbers"),
    "negative": (entry(shape=[-1, -6]), "no array of numbers"),
    "128 GiB": (entry(shape=[2**20, 2**15]), "longer than it is"),
    "overflow": (entry(shape=[2**62, 2**62, 4]), "longer than it is"),
    "overflow to 0": (entry(shape=[2**63, 2]), "no array of numbers"),
    "empty and huge": (entry(shape=[0, 2**62, 2**62]), "not what they should be"),
    "float": (entry(shape=[3.0, 2]), "no array of numbers"),
    "bool": (entry(shape=[True, 6]), "no array of numbers"),
    "30,000 axes": (entry(shape=[1] * 30_000), "no array of numbers"),
    "same name": (entry(name="layers[0].bias"), "the same name"),
    "a path": (entry(name="../../x"), "is not what they should be|not what they should"),
    "NUL": (entry(name="a\0b"), "no array of numbers"),
    "1 MB long": (entry(name="a" * 10**6), "longer than it is|malformed|not what they should"),
    "20,000 arrays": (
        setting(arrays=[[f"a{i}", "<f4", [9]] for i in range(20_000)]),
        "longer than",
    ),
    "no arrays": (setting(arrays=[]), "something in it that should not|not what they should"),
    "missing": (lambda whole: whole.pop("arrays") and None, "malformed"),
    "deep": (lambda whole: b"[" * 10**6, "malformed"),
    "deep dicts": (lambda whole: b'{"a":' * 10**6, "malformed"),
    "not ASCII": (lambda whole: json.dumps(whole).encode() + b"\xff", "malformed"),
    "not JSON": (lambda whole: b"import os", "malformed"),
    "key twice": (lambda whole: json.dumps(whole)[:-1].encode() + b',"format":1}', "comes twice"),
    "long": (lambda whole: b" " * (2**24 + 1), "too many|more than"),
    "huge number": (lambda whole: b"9" * 10**6, "malformed|not one of"),
    "model a list": (content(setting(model=[])), "malformed|does not use"),
    "array twice": (
        content(lambda c: c["model"].update({"layers[1].weight": {"$array": 0}})),
        "does not have",
    ),
    "array 9": (content(setting(extra={"a": {"$array": 9}})), "does not have"),
    "array -1": (content(setting(extra={"a": {"$array": -1}})), "does not have"),
    "array True": (content(setting(extra={"a": {"$array": True}})), "does not have"),
    "no extra": (content(lambda c: [c.pop("extra")] and None), "malformed"),
    "extra a number": (content(setting(extra=5)), "malformed"),
    "weight a number": (
        content(lambda c: c["model"].update({"layers[0].bias": 5})),
        "malformed|does not use",
    ),
}


@pytest.mark.parametrize("name", a_third(MANIFESTS))
def test_forged_manifests(tmp_path, name):
    change, said = MANIFESTS[name]
    (tmp_path / "x.npz").write_bytes(forged(change))
    m = model(7.0)
    tracemalloc.start()
    with pytest.raises(flux.CheckpointError, match=f"(?s)^load_: .*x.npz was refused.*({said})"):
        flux.load_(tmp_path / "x.npz", m)
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()
    assert all(np.all(t.data == 7) for t in flux.params(m))


CHECKPOINTS = {
    "no states": (lambda c: c["optimiser"].clear(), "does not use"),
    "no state": (lambda c: c["optimiser"].pop("still"), "the state of still: KeyError|'still'"),
    "a number": (lambda c: c["optimiser"]["weight"].update(m=5), "does not use"),
    "negative": (lambda c: c["optimiser"]["weight"].update(t=-1), "is -1"),
    "other rule": (lambda c: c["rules"][0].__setitem__(0, "exec"), "exec in the file, got ADAM"),
    "other field": (lambda c: c["rules"][0][1].update(_ps=1, __class__=2), "the optimiser: ADAM"),
    "bad value": (lambda c: c["rules"][0][1].update(lr=-1), "lr must be a finite number >= 0"),
    "no generators": (lambda c: c.pop("generators"), "malformed"),
    "no default": (lambda c: c["generators"].pop("(default)"), "default.: not in the file"),
    "other kind": (lambda c: c["generators"].update({"(default)": {}}), "no state of a PCG64"),
    "order": (lambda c: c["loader"].update(next=99), "number of batches"),
    "no loader": (lambda c: c.update(loader=[]), "does not use|the loader: "),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_forged_checkpoints(tmp_path, monkeypatch, name):
    change, said = CHECKPOINTS[name]
    m, opt = flux.Dense(1, 1), flux.ADAM()
    m.still = flux.Tensor([1.0])  # without a state: the loss does not depend on it
    loader = flux.DataLoader(np.ones((4, 1)), np.ones((4, 1)), shuffle=True)
    flux.train_(lambda x, y: flux.losses.mse(m(x), y), flux.params(m), loader, opt)
    original = npz.pieces

    def pieces(manifest, members):
        whole = json.loads(manifest)
        change(whole["content"])
        return original(json.dumps(whole).encode(), members)

    with monkeypatch.context() as patch:
        patch.setattr(npz, "pieces", pieces)
        flux.save(tmp_path / "x.npz", m, opt, loader)
    before = opt.state(m.weight), repr(opt), repr(loader.state())
    with pytest.raises(flux.CheckpointError, match=f"(?s){said}"):
        flux.load_(tmp_path / "x.npz", m, opt, loader)
    assert repr((opt.state(m.weight), repr(opt), repr(loader.state()))) == repr(before)


@pytest.mark.parametrize(
    ("kind", "path"), [("MT19937", ("state", "pos")), ("Philox", ("buffer_pos",))]
)
@pytest.mark.parametrize("pos", [-1, 10**6])
def test_a_random_state_that_reads_outside_of_its_memory(tmp_path, kind, path, pos):
    m = [flux.Tensor([1.0]), np.random.Generator(getattr(np.random, kind)(0))]
    state = inner = m[1].bit_generator.state
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = pos
    good = m[1].bit_generator
    m[1] = type("Fake", (), {"bit_generator": type("B", (), {"state": state})})
    found = saving.content.generators_of
    try:
        saving.content.generators_of = lambda _: {**found([]), "[1]": m[1]}
        flux.save(tmp_path / "x.npz", m[:1], flux.SGD())
    finally:
        saving.content.generators_of = found
    with pytest.raises(flux.CheckpointError, match=rf"generator \[1\].*{path[-1]} is not in 0"):
        flux.load_(tmp_path / "x.npz", [m[0], np.random.Generator(good)], flux.SGD())


def sealed(text, members):
    """A file of this manifest and these members, with the right checksums everywhere."""
    return resealed(b"".join(map(bytes, npz.pieces(text, members))) + bytes(64))


@pytest.mark.parametrize(
    ("data", "dtype", "precision", "said"),
    [
        (b"\1\0\1", "|b1", tree.PRECISION, None),
        (b"\1\2\1", "|b1", tree.PRECISION, "neither 0 nor 1"),
        (bytes(3), "|b1", tree.PRECISION + 1, None),
        (bytes(3 * np.longdouble(0).nbytes), np.dtype("g").str, tree.PRECISION, None),
        (bytes(3 * np.longdouble(0).nbytes), np.dtype("g").str, 1, "another form on this machine"),
    ],
)
def test_arrays_that_are_not_what_they_seem(tmp_path, data, dtype, precision, said):
    spec = tree.Spec("extra/a", dtype, (3,))
    manifest, own = tree.pack({**contents(), "extra": {"a": np.zeros(3, dtype)}})
    whole = json.loads(manifest)
    whole["precision"] = precision
    members = [(tree.Spec(n, a.dtype.str, a.shape), npz.raw(a)) for n, a in own.items()]
    members[-1] = (spec, memoryview(data))
    (tmp_path / "x.npz").write_bytes(sealed(json.dumps(whole).encode(), members))
    if said is None:
        assert flux.load_(tmp_path / "x.npz", model())["a"].tobytes() == data
    else:
        with pytest.raises(flux.CheckpointError, match=said):
            flux.load_(tmp_path / "x.npz", model())


def test_something_behind_the_end(outcome):
    data = saved("npz")
    for more in (data[-64 - 18 : -64], data[-64:], b"x"):
        assert outcome(resealed(data[:-64] + more + data[-64:]), "npz") == "refused"
        assert outcome(resealed(data[:-82] + more + data[-82:]), "npz") == "refused"


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


def zipped(write):
    """A zip archive that is not ours, with our seal."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        write(z)
        z.comment = b"tinyflux 1 sha256 " + bytes(64)
    return resealed(file.getvalue())


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def members(*pairs, **options):
    def write(z):
        for name, data in pairs:
            z.writestr(name, data, **options)

    return write


GOOD = [("tinyflux.json", tree.pack({**contents(), "extra": {}})[0])]
GOOD += [(f"{n}.npy", npy(a)) for n, a in contents()["model"].items()]
ARCHIVES = {
    "as zipfile writes it": members(*GOOD),
    "compressed": members(*GOOD, compress_type=zipfile.ZIP_DEFLATED),
    "a bomb": members(("tinyflux.json", b"\0" * 10**7), compress_type=zipfile.ZIP_DEFLATED),
    "pickle": members(*GOOD, ("x.npy", npy(np.array([Canary()], object)))),
    "bare pickle": members(("tinyflux.json", __import__("pickle").dumps(Canary()))),
    "empty": members(),
    "a path": members(("../../x.npy", npy(np.ones(3))), ("/etc/x", b"")),
    "30,000 members": members(*((f"{i}", b"") for i in range(30_000))),
}


@pytest.mark.parametrize("name", only([*ARCHIVES][:-1], ARCHIVES))
def test_other_archives(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("x.npz").write_bytes(zipped(ARCHIVES[name]))
    for seal in (True, False):
        with pytest.raises(flux.CheckpointError, match=r"x\.npz was refused"):
            flux.load_("x.npz", model())
        assert os.listdir() == ["x.npz"]
        if seal:
            np.savez("x.npz", np.array([Canary()], object), **contents()["model"])


def test_a_million_members_are_refused_at_once(tmp_path):
    """A list of a million entries, each of them the smallest possible."""
    data = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 0, 0) * 10**6
    data += b"PK\5\6" + bytes(16) + struct.pack("<H", 82) + b"tinyflux 1 sha256 "
    (tmp_path / "x.npz").write_bytes(resealed(data + bytes(64)))
    began = time.process_time()
    with pytest.raises(flux.CheckpointError):
        flux.load_(tmp_path / "x.npz", model())
    assert time.process_time() - began < 2


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 10, b"\x93NUMPY", b"PK\3\4", b"\xff" * 8])
def test_what_is_no_checkpoint(outcome, form, data):
    if form == "safetensors":
        pytest.importorskip("safetensors")
    assert outcome(data, form) == outcome(data * 100, form) == "refused"


def test_safetensors_of_others(tmp_path):
    st = pytest.importorskip("safetensors.numpy")
    data = st.save(contents()["model"])
    headers = [
        {"__metadata__": {"tinyflux": "0" * 64 + "{}"}},
        {"__metadata__": {"tinyflux": "0" * 64}},
        {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
         "__metadata__": {"tinyflux": "0" * 64 + GOOD[0][1].decode()}},
    ]  # fmt: skip
    forged = [json.dumps(h, separators=(",", ":")).encode() for h in headers]
    forged = [resealed(struct.pack("<Q", len(h)) + h, "safetensors") for h in forged]
    good = saved("safetensors")
    longer = bytearray(good + b"1234")
    for content in [data, *forged, struct.pack("<Q", 2**60) + good[8:], bytes(longer)]:
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(flux.CheckpointError, match="was refused"):
            flux.load_(tmp_path / "x.safetensors", model())


@pytest.mark.parametrize(
    "other", [np.zeros((2, 3), "f4"), np.zeros((3, 2), "i4"), np.zeros(6, "f4")]
)
def test_safetensors_whose_arrays_are_not_those_of_the_manifest(tmp_path, other):
    st = pytest.importorskip("safetensors.numpy")
    stored = {**contents()["model"], "layers[0].weight": other}
    text = {"tinyflux": "0" * 64 + GOOD[0][1].decode()}
    data = resealed(st.save(stored, text), "safetensors")
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(flux.CheckpointError, match=r"layers\[0\].weight is not what the manifest"):
        flux.load_(tmp_path / "x.safetensors", model())
    more = resealed(st.save({**contents()["model"], "more": other}, text), "safetensors")
    (tmp_path / "x.safetensors").write_bytes(more)
    with pytest.raises(flux.CheckpointError, match="arrays that its manifest does not use"):
        flux.load_(tmp_path / "x.safetensors", model())


def test_files_that_are_too_large(tmp_path):
    big = np.zeros(2**24 + 1, "f4")
    flux.save(tmp_path / "x.npz", flux.Tensor([1.0]), big=big)
    with pytest.raises(flux.CheckpointError, match=r"67,109,975 bytes, more than .* limit="):
        flux.load_(tmp_path / "x.npz", flux.Tensor([1.0]))
    extra = flux.load_(tmp_path / "x.npz", flux.Tensor([1.0]), limit=2**27)
    assert extra["big"].shape == big.shape
    with open(tmp_path / "huge.npz", "wb") as f:
        f.truncate(2**40)
    with pytest.raises(flux.CheckpointError, match="more than"):
        flux.load_(tmp_path / "huge.npz", flux.Tensor([1.0]))


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    flux.save(tmp_path / "x.npz", model())
    real = os.fstat

    def fstat(fd):
        found = real(fd)
        with open(tmp_path / "x.npz", "ab") as f:
            f.write(b"more")
        return found

    monkeypatch.setattr(files.os, "fstat", fstat)
    with pytest.raises(flux.CheckpointError, match="changed while it was read"):
        flux.load_(tmp_path / "x.npz", model())
    if os.path.exists("/dev/zero"):
        os.symlink("/dev/zero", tmp_path / "z.npz")
        with pytest.raises(flux.CheckpointError):
            flux.load_(tmp_path / "z.npz", model())


def test_files_that_are_not_there(tmp_path):
    for f in (flux.load_, flux.save):
        with pytest.raises(FileNotFoundError):
            f(tmp_path / "a" / "x.npz", model())
        (tmp_path / "dir.npz").mkdir(exist_ok=True)
        with pytest.raises(IsADirectoryError):
            f(tmp_path / "dir.npz", model())
    assert os.listdir(tmp_path) == ["dir.npz"] and os.listdir(tmp_path / "dir.npz") == []


WATCHED = """
import sys, json, hashlib, struct, zlib
import numpy as np, tinyflux as flux
own, other = sys.argv[1:]
if own.endswith("safetensors"):
    import safetensors
model, opt = flux.Dense(2, 2), flux.ADAM()
loader = flux.DataLoader(np.ones((3, 2)), shuffle=True)
flux.save(own, model, opt, loader, x=[np.ones(2), {}])
events = []
hook = lambda event, args: events.append((event, str(args[0]) if args else "")) if on else None
on = False
sys.addaudithook(hook)
found = {}
for path in (own, other):
    for _ in range(2):
        on = True
        try:
            flux.load_(path, model, opt, loader)
        except flux.CheckpointError:
            assert path == other
        on = False
    found[path] = events[:]
    events.clear()
print(json.dumps(found))
"""


@pytest.mark.parametrize("form", FORMATS)
def test_loading_opens_one_file_and_runs_nothing(tmp_path, form):
    if form == "safetensors":
        pytest.importorskip("safetensors")
    own, strange = tmp_path / f"own.{form}", tmp_path / f"strange.{form}"
    if form == "npz":
        strange.write_bytes(zipped(ARCHIVES["pickle"]))
    else:
        with strange.open("wb") as file:
            np.savez(file, np.array([Canary()], object))
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(own), str(strange)], capture_output=True, text=True,
        cwd=ROOT, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    for path, events in json.loads(done.stdout).items():
        opened = {argument for event, argument in events if event == "open"}
        other = {
            event
            for event, _ in events
            if not event.startswith(("object.", "sys._getframe", "builtins.id"))
        }
        assert opened == {str(path)} and other <= {"open", "import"}, events
        imported = {argument for event, argument in events if event == "import"}
        assert not imported - {"json.decoder", "json.scanner", "_json"}, imported


# --- written whole or not at all ------------------------------------------------------------------


def failing(monkeypatch, name, k, error, short=False):
    """Let the k-th call of a function of `os` fail, after a part of the work has been done."""
    real, calls = getattr(os, name), iter(range(1, 10**9))

    def fake(*args, **kwargs):
        if next(calls) == k:
            if short and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(files.os, name, fake)


ERRORS = [
    *(OSError(n, os.strerror(n)) for n in (errno.ENOSPC, errno.EIO, errno.EINTR)),
    KeyboardInterrupt(),
    MemoryError(),
]


@pytest.mark.parametrize(
    "error", only([ERRORS[0], ERRORS[3]], ERRORS), ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_at_every_write(tmp_path, monkeypatch, form, error):
    if form == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"x.{form}"
    flux.save(path, model(1.0))
    old, failures = path.read_bytes(), 0
    for name in ("write", "fsync", "replace", "open", "urandom"):
        for k in range(1, 100):
            with monkeypatch.context() as patch:
                failing(patch, name, k, error, short=True)
                try:
                    flux.save(path, model(2.0))
                except type(error) as raised:
                    assert raised is error
                else:
                    break
            renamed = (name, k) in (("fsync", 2), ("open", 2))  # only the folder is left
            assert (path.read_bytes() == old) != renamed
            assert os.listdir(tmp_path) == [path.name]
            path.write_bytes(old)
            failures += 1
        flux.load_(path, m := model())
        assert all(np.all(t.data == 2) for t in flux.params(m))
        path.write_bytes(old)
    assert failures > (10 if form == "npz" else 7)


def test_the_error_says_that_nothing_is_lost(tmp_path, monkeypatch):
    failing(monkeypatch, "fsync", 1, OSError(errno.ENOSPC, "No space left"))
    with pytest.raises(OSError, match="No space") as caught:
        flux.save(tmp_path / "x.npz", model())
    assert caught.value.__notes__ == [f"save: {tmp_path / 'x.npz'} is as it was before"]
    assert os.listdir(tmp_path) == []


LIMITED = """
import resource, os, sys, tinyflux as flux, numpy as np
m = flux.Tensor(np.zeros(1000))
flux.save(sys.argv[1], m)
old = open(sys.argv[1], "rb").read()
for limit in (0, 100, 4000, len(old) - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        flux.save(sys.argv[1], flux.Tensor(np.ones(1000)))
    except OSError as error:
        print(error.errno, open(sys.argv[1], "rb").read() == old, len(os.listdir()))
"""


def test_a_real_limit_of_the_system(tmp_path):
    pytest.importorskip("resource")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", LIMITED, "x.npz"], capture_output=True, text=True,
        cwd=tmp_path, env=env, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stderr, done.stdout) == ("", f"{errno.EFBIG} True 1\n" * 4)


def test_partial_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(files.os, "write", lambda fd, data: real(fd, data[:7]))
    flux.save(tmp_path / "x.npz", model(2.0))
    flux.load_(tmp_path / "x.npz", m := model())
    assert np.all(m[0].weight.data == 2)


posix = pytest.mark.skipif(os.name != "posix", reason="permissions and locks of Unix")


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_permission_bits(tmp_path, umask):
    path = tmp_path / "x.npz"
    before = os.umask(umask)
    try:
        flux.save(path, model())
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
        for mode in (0o600, 0o664, 0o640):
            path.chmod(mode)
            flux.save(path, model())
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


@posix
def test_a_private_file_is_never_readable_by_others(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    flux.save(path, model())
    path.chmod(0o600)
    modes, real = [], os.write

    def write(fd, data):
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return real(fd, data)

    def opened(place, flags, mode=0o777, real=os.open):
        if flags & os.O_CREAT:
            modes.append(mode)
        return real(place, flags, mode)

    monkeypatch.setattr(files.os, "write", write)
    monkeypatch.setattr(files.os, "open", opened)
    flux.save(path, model())
    assert set(modes) == {0o600}


def test_without_locks_files_are_whole_as_well(tmp_path, monkeypatch):
    """On Windows: no locks, no folders to sync; nothing of others is removed."""
    monkeypatch.setattr(files, "fcntl", None)
    stray = tmp_path / ".x.npz.0123abcd.tmp"
    stray.write_bytes(b"half")
    path = tmp_path / "x.npz"
    for value in (1.0, 2.0):
        flux.save(path, model(value))
        flux.load_(path, m := model())
        assert np.all(m[0].weight.data == value)
    failing(monkeypatch, "replace", 1, PermissionError(errno.EACCES, "somebody reads it"))
    with pytest.raises(PermissionError, match="somebody reads it"):
        flux.save(path, model(3.0))
    flux.load_(path, m := model())
    assert np.all(m[0].weight.data == 2)
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, stray.name])


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_folders_that_cannot_be_synced(tmp_path, monkeypatch, system):
    """Some file systems know no such thing (EINVAL), and neither does Windows."""
    synced = []

    def fsync(fd):
        synced.append(fd)
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(files.os, "fsync", fsync)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "name", system)
        files._sync(str(tmp_path))
    assert len(synced) == (system == "posix")


@posix
def test_symbolic_links_are_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    link = tmp_path / "a" / "link.npz"
    link.symlink_to("../b/real.npz")
    for value in (1.0, 2.0):  # at first it points to nothing
        flux.save(link, model(value))
        assert link.is_symlink() and not (tmp_path / "b/real.npz").is_symlink()
        flux.load_(tmp_path / "b/real.npz", m := model())
        assert np.all(m[0].weight.data == value)
    assert os.listdir(tmp_path / "a") == ["link.npz"]
    assert os.listdir(tmp_path / "b") == ["real.npz"]
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    os.mkfifo(tmp_path / "pipe.npz")  # never try this with a device: a mistake would replace it
    for name in ("loop.npz", "pipe.npz"):
        with pytest.raises(OSError, match=r"Too many levels|no ordinary file"):
            flux.save(tmp_path / name, model())
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe.npz").st_mode)


@posix
def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    flux.save(path, model())
    old = path.read_bytes()
    monkeypatch.setattr(files.os, "access", lambda place, how: how != os.W_OK)  # root may always
    with pytest.raises(PermissionError):
        flux.save(path, model(2.0))
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["x.npz"]


@posix
def test_what_killed_savers_leave_is_removed_and_nothing_else(tmp_path):
    import fcntl

    stray = tmp_path / ".x.npz.0123abcd.tmp"
    others = [".y.npz.0123abcd.tmp", ".x.npz.0123abcd.tmp2", "x.npz.0123abcd.tmp",
              ".x.npz.0123ABCD.tmp", ".xxnpz.0123abcd.tmp", "..x.npz.0123abcd.tmp"]  # fmt: skip
    for name in [stray.name, *others]:
        (tmp_path / name).write_bytes(b"half")
    living = tmp_path / ".x.npz.ffffffff.tmp"
    with open(living, "wb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        flux.save(tmp_path / "x.npz", model())
        assert sorted(os.listdir(tmp_path)) == sorted(["x.npz", living.name, *others])
    flux.save(tmp_path / "x.npz", model())
    assert sorted(os.listdir(tmp_path)) == sorted(["x.npz", *others])


@posix
def test_a_saver_that_is_taken_for_a_stray_begins_again(tmp_path, monkeypatch):
    """Somebody cleans up between the creation of the file and its lock."""
    real, calls = files._lock, []

    def lock(fd, wait=True):
        if wait and len(calls) < 3:
            calls.append(fd)
            (name,) = (n for n in os.listdir(tmp_path) if n.endswith(".tmp"))
            os.unlink(tmp_path / name)
        return real(fd, wait)

    monkeypatch.setattr(files, "_lock", lock)
    flux.save(tmp_path / "x.npz", model(2.0))
    flux.load_(tmp_path / "x.npz", m := model())
    assert np.all(m[0].weight.data == 2) and len(calls) == 3
    assert os.listdir(tmp_path) == ["x.npz"]


def test_many_savers_and_a_reader_at_once(tmp_path):
    """What is read is always whole, and of one of the savers."""
    path, errors, done = tmp_path / "x.npz", [], threading.Event()
    flux.save(path, model(0.0))

    def work(value):
        try:
            m = model(value)
            for _ in range(15):
                flux.save(path, m)
        except BaseException as error:
            errors.append(error)

    def read():
        m = model()
        while not done.is_set():
            flux.load_(path, m)
            if len({x for t in flux.params(m) for x in t.data.ravel().tolist()}) > 1:
                errors.append("torn")

    savers = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    reader = threading.Thread(target=read)
    for t in [reader, *savers]:
        t.start()
    for t in savers:
        t.join()
    done.set()
    reader.join()
    assert errors == [] and os.listdir(tmp_path) == ["x.npz"]


HURRIED = """
import os, signal, sys, time, tinyflux as flux

def left():
    "Files that are open, and have no name any more."
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return [name for p in links if os.path.islink(p) and "x.npz" in (name := os.readlink(p))]

def interrupt(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
path, m, interrupted = sys.argv[1], flux.Dense(3, 2), 0
flux.save(path, m)
begun = time.perf_counter()
flux.save(path, m)
usual = time.perf_counter() - begun
for k in range(500):
    try:
        signal.setitimer(signal.ITIMER_REAL, usual * (0.02 + k % 97 / 97))
        flux.save(path, m)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
print(interrupted > 100, left())
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux tells what is open")
def test_an_interrupt_at_any_moment_leaves_no_file_open(tmp_path):
    env, path = {**os.environ, "PYTHONPATH": str(ROOT)}, str(tmp_path / "x.npz")
    done = subprocess.run(
        [sys.executable, "-B", "-c", HURRIED, path], capture_output=True, text=True,
        env=env, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stderr, done.stdout) == ("", "True []\n")


SAVER = """
import sys, numpy as np, tinyflux as flux
for i in range(1, 10**6):
    flux.save(sys.argv[1], [flux.Tensor(np.full(5000, float(i))), flux.Tensor([float(i)])])
    if i == 1:
        print("begun", flush=True)
"""


def test_killed_at_any_moment_the_file_is_whole(tmp_path):
    """The same ten thousand times: tests/benchmarks/kills.py."""
    path, rng, strays = tmp_path / "x.npz", np.random.default_rng(0), 0
    for _ in range(either(3, 1)):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE, cwd=ROOT
        )
        with saver:
            saver.stdout.readline()
            time.sleep(rng.uniform(0, 0.03))
            saver.kill()
        assert saver.returncode in (-signal.SIGKILL, 1)
        found = [flux.Tensor(np.zeros(5000)), flux.Tensor([0.0])]
        flux.load_(path, found)
        assert len({*found[0].data, *found[1].data}) == 1
        strays += len(os.listdir(tmp_path)) - 1
    flux.save(path, found)
    assert os.listdir(tmp_path) == ["x.npz"]


@posix
def test_forty_kills_of_forked_savers(tmp_path):
    sys.path.insert(0, str(ROOT / "tests/benchmarks"))
    try:
        import kills
    finally:
        sys.path.pop(0)
    n = either(40, 20)
    report = kills.attempts(n, str(tmp_path / "x.npz"), seed=0)
    assert report["lost"] == 0 and report["left"] == 0 and report["saves"] >= n // 2
