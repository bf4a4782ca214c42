"""A compiled step or prediction, saved as a module, does the same where there is no tinyflux."""

import os
import subprocess
import sys
from enum import IntEnum
from unittest.mock import Mock

import numpy as np
import pytest

import tinyflux as flux
from tests.compiling import agree
from tests.suites import only
from tinyflux import losses
from tinyflux.compiled.saving import kernel_source
from tinyflux.ops.nn import needs_axes

ALONE = """
import sys
sys.modules["tinyflux"] = None  # whoever imports it gets an ImportError
import numpy as np
import prediction, training
data = np.load("data.npz")
before = prediction.step(data["x"])
losses = [float(training.step(data["x"], data["y"])) for _ in range(5)]
training.save()
trained = {"p" + name: p for name, p in training.parameters.items()}
np.savez("out.npz", before=before, losses=losses, **trained)
"""
ONCE_MORE = """
import training, numpy as np
x = np.load("x.npy")
np.save("losses.npy", [training.step(x) for _ in range(4)])
"""
OPTIMISERS = [
    lambda: flux.ADAM(0.01),
    lambda: flux.Optimiser(flux.WeightDecay(0.01), flux.ADAMW(0.01, (0.9, 0.99), 0.1)),
    lambda: flux.SGD(0.1),
    lambda: flux.Optimiser(flux.ExpDecay(0.5, 2), flux.Momentum(0.1)),
    lambda: flux.RADAM(),
    lambda: flux.AdaBelief(),
]


def run(folder, code, *args):
    """Run code in a process of its own."""
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("end", ["raise OSError('disk full')", "os._exit(0)"])
def test_a_module_that_cannot_be_saved_whole_stays_as_it_was(end, tmp_path, monkeypatch):
    """Neither by its own `save` nor by that of the compiled function."""
    W, opt, path = flux.Tensor(np.ones(3)), flux.SGD(0.1), tmp_path / "training.py"
    hot = flux.compiled(lambda x: np.sum(W * x))
    flux.train_(hot, flux.params(W), [np.ones(3)], opt)
    hot.save(path, opt)
    before = path.read_bytes(), path.with_suffix(".npz").read_bytes()
    code = f"""
import os, numpy as np, training
def half(file, **arrays):
    file = file if hasattr(file, "write") else open(file, "wb")
    file.write(b"half of it")
    file.flush()
    {end}
np.savez = half
try:
    training.save()
except OSError:
    pass
"""
    run(tmp_path, code)
    flux.train_(hot, flux.params(W), [np.ones(3)], opt)
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        hot.save(path, opt)
    assert (path.read_bytes(), path.with_suffix(".npz").read_bytes()) == before
    left = {p.name for p in tmp_path.iterdir()} - {"__pycache__", "training.py", "training.npz"}
    assert left == ({"training.npz.tmp"} if "exit" in end else set())


@pytest.mark.parametrize(
    "make", only(OPTIMISERS[:1], OPTIMISERS), ids=lambda make: type(make()).__name__
)
@pytest.mark.parametrize("n", [16, 1000])  # and with buffers of more than 64 KiB
def test_saved_step_goes_on_as_tinyflux_does(make, n, tmp_path):
    flux.seed_(1)
    rng = np.random.default_rng(0)
    model = flux.Chain(flux.Dense(8, n, flux.sigmoid), flux.Dense(n, 3))
    x, y = rng.standard_normal((20, 8)).astype("f4"), rng.integers(0, 3, 20)
    hot = flux.compiled(lambda x, y: flux.losses.logitcrossentropy(model(x), y))
    ps, opt = flux.params(model), make()
    flux.train_(hot, ps, [(x, y)] * 7, opt)
    hot.save(tmp_path / "training.py", opt)
    use = flux.compiled(model)
    before = use(x)
    use.save(tmp_path / "prediction.py")
    np.savez(tmp_path / "data.npz", x=x, y=y)

    history = flux.train_(hot, ps, [(x, y)] * 5, opt)
    run(tmp_path, ALONE)
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(found["before"], before)
    assert found["losses"].tolist() == history.losses
    for name, p in zip(ps.names(), ps, strict=True):
        key = "p" + name.replace("[", "_").replace("].", "_")
        np.testing.assert_array_equal(found[key], p.data)

    more = flux.train_(hot, ps, [(x, y)] * 5, opt)  # from where the module stored itself
    run(tmp_path, ALONE)
    assert np.load(tmp_path / "out.npz")["losses"].tolist() == more.losses


class Axis(IntEnum):
    """Names for the axes, as some people have them."""

    ROWS = 0
    COLUMNS = 1


PREDICTIONS = {
    "view": lambda x: x.T, "concatenation": lambda x: np.concatenate([x, 2 * x], axis=1),
    "kernel": lambda x: np.linalg.slogdet(x[:3])[1], "type": lambda x: np.sum(x, dtype=np.float64),
    "type of Python": lambda x: np.cumsum(x, dtype=float), "complex": lambda x: np.abs(x * 2j),
    "enum": lambda x: np.cumsum(x, axis=Axis.COLUMNS) * Axis.COLUMNS + 3 * Axis.ROWS,
    "labels": lambda x: losses.logitcrossentropy(x, np.argmax(x, axis=1)),
    "infinite": lambda x: np.clip(x, 0.1, None),
}  # fmt: skip
EACH = """
import importlib, sys
sys.modules["tinyflux"] = None
import numpy as np
x = np.load("x.npy")
np.savez("out.npz", **{name: importlib.import_module(name).step(x) for name in sys.argv[1:]})
"""


def test_saved_predictions_are_those_of_the_function(tmp_path):
    x = np.random.default_rng(0).standard_normal((5, 3))
    np.save(tmp_path / "x.npy", x)
    names = [f"p{k}" for k in range(len(PREDICTIONS))]
    for name, f in zip(names, PREDICTIONS.values(), strict=True):
        hot = flux.compiled(f)
        agree(hot(x), f(x), 1e-15)
        hot.save(tmp_path / f"{name}.py")
    run(tmp_path, EACH, *names)
    found = np.load(tmp_path / "out.npz")
    for name, f in zip(names, PREDICTIONS.values(), strict=True):
        agree(found[name], f(x), 1e-15)


@pytest.mark.parametrize("collect", [flux.params, flux.Params])
def test_parameters_without_a_name_and_without_a_gradient(collect, tmp_path):
    W, V, b = flux.Tensor(np.ones((3, 1))), flux.Tensor([1.0]), flux.Tensor([0.0])
    hot = flux.compiled(lambda x, y: losses.mse((x @ W) * (V > 0) + b, y))
    data, opt = [(np.ones((4, 3)), np.full((4, 1), 5.0))], flux.Momentum(0.1)
    ps = collect([W, V, b])
    flux.train_(hot, ps, data, opt)
    hot.save(tmp_path / "training.py", opt)
    run(tmp_path, "import numpy as np, training\n"
        "value = training.step(np.ones((4, 3)), np.full((4, 1), 5.0))\n"
        "np.savez('out.npz', *training.parameters.values(), value=value)")  # fmt: skip
    value = flux.train_(hot, ps, data, opt).losses[0]
    with np.load(tmp_path / "out.npz") as out:
        assert float(out["value"]) == value and len(out.files) == 3
        np.testing.assert_array_equal(out["arr_0"], W.data)
        np.testing.assert_array_equal(out["arr_1"], b.data)
    assert V.data == 1


def test_kernels_that_need_more_than_numpy_are_refused(tmp_path):
    from scipy.special import erf

    hot = flux.compiled(lambda x: erf(x) * 2)
    hot(np.ones(3))
    with pytest.raises(flux.CannotCompileError, match=r"save: erf.* NumPy"):
        hot.save(tmp_path / "step.py")
    assert list(tmp_path.iterdir()) == []


def test_random_layers_are_saved_for_use_only(tmp_path):
    drop = flux.trainmode_(flux.Dropout(0.5))
    hot = flux.compiled(lambda x: drop(x) * 2)
    hot(np.ones(3))
    with pytest.raises(flux.CannotCompileError, match=r"draws random numbers.*testmode_"):
        hot.save(tmp_path / "step.py")
    assert list(tmp_path.iterdir()) == []
    flux.testmode_(drop)
    hot(np.ones(3))
    hot.save(tmp_path / "step.py")


# What the module uses itself, and what is no name elsewhere.
NAMES = {
    "of the module": "np, compute, update, fitting, given, stored, parameters, gradients, loss",
    "odd": "lambda_, class_, _1, _, __, bind, Path, steps, x_0, x, slopes, recorded, out",
}


def total(file, *args):
    """A number that depends on all, on each in another way."""
    return sum(np.sum(file * k * a) for k, a in enumerate(ravel(args), 1))


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_no_name_of_an_argument_hides_one_of_the_module(names, tmp_path):
    calls = flux.Tensor(np.ones(2))
    scope = {"file": calls, "total": total}  # `file` is also what NumPy calls an argument
    exec(f"def f({names}): return total(file, {names})", scope)
    f, n = scope["f"], len(names.split(", "))
    args = [np.full(2, float(k)) for k in range(n)]
    if ", x," in names:
        args[names.split(", ").index("x")] = (np.ones(2), 3 * np.ones(2))
    hot, opt = flux.compiled(f), flux.SGD(0.001)
    hot(*args)
    hot.save(tmp_path / "prediction.py")
    value = hot(*args)
    flux.train_(hot, flux.Params([calls]), [tuple(args)], opt)
    hot.save(tmp_path / "training.py", opt)
    np.savez(tmp_path / "x.npz", *ravel(args))
    run(tmp_path, "import numpy as np, prediction, training\n"
        "x = [*np.load('x.npz').values()]\n"
        "a, b, c = prediction.step(*x), training.step(*x), training.step(*x)\n"
        "training.save(); np.savez('out.npz', a=a, b=b, c=c)")  # fmt: skip
    with np.load(tmp_path / "out.npz") as out:
        assert float(out["a"]) == value
        losses = flux.train_(hot, flux.Params([calls]), [tuple(args)] * 2, opt).losses
        assert [float(out["b"]), float(out["c"])] == losses


def ravel(items):
    """The arrays in a list of arrays and tuples."""
    for item in items:
        yield from item if isinstance(item, tuple) else (item,)


def test_what_cannot_be_saved_says_so(tmp_path):
    W = flux.Tensor([[1.0, 2.0]])
    hot = flux.compiled(lambda x: np.sum(x @ W))
    with pytest.raises(flux.CannotCompileError, match="not been called"):
        hot.save(tmp_path / "step.py")
    flux.train_(hot, flux.params(W), [np.ones((3, 1))], flux.SGD(0.1))
    with pytest.raises(ValueError, match=r"ends in \.py"):
        hot.save(tmp_path / "step.txt", flux.SGD(0.1))
    with pytest.raises(TypeError, match="give the optimiser"):
        hot.save(tmp_path / "step.py")
    with pytest.raises(flux.CannotCompileError, match="ClipNorm"):
        hot.save(tmp_path / "step.py", flux.Optimiser(flux.ClipNorm(1.0), flux.SGD(0.1)))
    assert list(tmp_path.iterdir()) == []


def test_what_has_changed_since_the_latest_call_is_not_saved_as_it_was(tmp_path):
    layer, scale = flux.Dense(3, 2), [2.0]
    hot, x = flux.compiled(lambda x: layer(x) * scale[0]), np.ones((4, 3), "f4")
    for place, change in (
        (r"scale\[0\]", lambda: scale.__setitem__(0, 3.0)),
        (r"layer.weight.data|Dense.weight.data", lambda: setattr(layer.weight, "data", x[:3, :2])),
    ):
        hot(x)
        layer.weight.data[...] = 2  # in place: the file gets what stands there now
        hot.save(tmp_path / "prediction.py")
        change()
        with pytest.raises(flux.CannotCompileError, match=rf"save: ({place}) has changed since"):
            hot.save(tmp_path / "prediction.py")


def test_pullback_of_a_compiled_loss():
    W = flux.Tensor([1.0, 2.0])
    hot = flux.compiled(lambda: np.sum(W**2))
    value, back = flux.pullback(hot, flux.params(W))
    assert value == 5.0
    np.testing.assert_array_equal(back(3.0)[W], [6.0, 12.0])
    x = np.array([1.0, 2.0])
    value, back = flux.pullback(flux.compiled(lambda x, y: np.sum(x**2) + 0 * y.size), x, x)
    assert value == 5.0 and back(3.0)[1] is None
    np.testing.assert_array_equal(back(3.0)[0], [6.0, 12.0])
    value, back = flux.pullback(flux.compiled(np.square), x)  # an array: recorded as usual
    np.testing.assert_array_equal(back(np.ones(2))[0], 2 * x)


def test_a_saved_step_moves_weights_in_fortran_order(tmp_path):
    layer = flux.Dense(30, 30, bias=False)
    layer.weight.data = np.asfortranarray(layer.weight.data)
    hot, opt = flux.compiled(lambda x: np.mean(np.square(layer(x)))), flux.ADAM(0.01)
    x = np.ones((4, 30), "f4")
    flux.train_(hot, flux.params(layer), [x], opt)
    hot.save(tmp_path / "training.py", opt)
    code = "import training, numpy as np; print([float(training.step(x)) for x in [%s] * 4])"
    code %= "np.ones((4, 30), 'f4')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    losses = flux.train_(hot, flux.params(layer), [x] * 4, opt).losses
    np.testing.assert_allclose(eval(done.stdout), losses, rtol=1e-5)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", [">f4", ">f8", "f8"])
def test_a_saved_step_of_parameters_that_were_converted(kind, tmp_path):
    """Into another type, which the moments have from the next update on, or another byte order."""
    model, x = flux.Dense(3, 2), np.linspace(-1, 1, 12).reshape(4, 3)
    hot = flux.compiled(lambda x: np.mean(np.square(model(x) - 1)))
    ps, opt = flux.params(model), flux.ADAM(0.01)
    flux.train_(hot, ps, [x] * 2, opt)
    for p in ps:
        p.data = p.data.astype(kind)
    flux.train_(hot, ps, [x], flux.SGD(0.0))  # the call that is saved
    hot.save(tmp_path / "training.py", opt)
    np.save(tmp_path / "x.npy", x)
    run(tmp_path, ONCE_MORE)
    losses = flux.train_(hot, ps, [x] * 4, opt).losses
    digits = 1e-6 if kind == ">f4" else 1e-12
    np.testing.assert_allclose(np.load(tmp_path / "losses.npy"), losses, rtol=digits)
    assert losses[-1] < losses[0]


def test_a_step_that_scatters_into_places_that_stay_can_be_saved(tmp_path):
    E, rows = flux.Tensor(np.arange(12.0).reshape(4, 3)), np.array([0, 2, 2])
    hot = flux.compiled(lambda x: np.sum(np.diag(x @ E[rows]) ** 2))
    x, opt = np.ones((3, 3)), flux.SGD(0.01)
    flux.train_(hot, [E], [(x,)], opt)
    hot.save(tmp_path / "training.py", opt)
    run(tmp_path, "import numpy as np, training\ntraining.step(np.ones((3, 3)))\n"
        "np.savez('out.npz', *training.parameters.values())")  # fmt: skip
    flux.train_(hot, [E], [(x,)], opt)
    agree(np.load(tmp_path / "out.npz")["arr_0"], E.data)


def test_a_kernel_that_needs_more_than_numpy_is_named():
    with pytest.raises(flux.CannotCompileError, match=r"save: needs_axes uses more .*Tensor"):
        kernel_source(needs_axes)
