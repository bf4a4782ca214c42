"""A compiled step or prediction, saved as a module, does the same where there is no tinyflux."""

import subprocess
import sys

import numpy as np
import pytest

import tinyflux as flux

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
OPTIMISERS = [
    lambda: flux.ADAM(0.01),
    lambda: flux.Optimiser(flux.WeightDecay(0.01), flux.ADAMW(0.01, (0.9, 0.99), 0.1)),
    lambda: flux.SGD(0.1),
    lambda: flux.Optimiser(flux.ExpDecay(0.5, 2), flux.Momentum(0.1)),
    lambda: flux.RADAM(),
    lambda: flux.AdaBelief(),
]


def run(folder, code):
    """Run code in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("make", OPTIMISERS, ids=lambda make: type(make()).__name__)
def test_saved_step_goes_on_as_tinyflux_does(make, tmp_path):
    flux.seed_(1)
    rng = np.random.default_rng(0)
    model = flux.Chain(flux.Dense(8, 16, flux.sigmoid), flux.Dense(16, 3))
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
    with pytest.raises(flux.CannotCompileError, match="clip"):
        hot.save(tmp_path / "step.py", flux.Optimiser(flux.ClipNorm(1.0), flux.SGD(0.1)))
    assert list(tmp_path.iterdir()) == []


def test_pullback_of_a_compiled_loss():
    W = flux.Tensor([1.0, 2.0])
    hot = flux.compiled(lambda: np.sum(W**2))
    value, back = flux.pullback(hot, flux.params(W))
    assert value == 5.0
    np.testing.assert_array_equal(back(3.0)[W], [6.0, 12.0])
    x = np.array([1.0, 2.0])
    value, back = flux.pullback(flux.compiled(np.square), x)  # an array: recorded as usual
    np.testing.assert_array_equal(back(np.ones(2))[0], 2 * x)
