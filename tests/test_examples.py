"""Every example runs, and does what it says."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    """The example of this name, which need not be the name of a module."""
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_derivative(capsys):
    slope = load("01_derivative").main()
    x = 1.5
    assert slope == pytest.approx(np.cos(x) * x**2 + np.sin(x) * 2 * x, rel=1e-14)
    shown = capsys.readouterr().out
    assert shown.count(f"{slope:.12f}") >= 3
    assert "sin(x1)" in shown


def test_line(capsys):
    assert load("02_line").main() < 1e-3
    shown = capsys.readouterr().out
    assert "after one step" in shown and "by least squares" in shown


def test_digits(capsys):
    assert load("digits").main() >= 0.97
    shown = capsys.readouterr().out
    assert "test digits right" in shown and "epoch" in shown


def test_flux_training(capsys):
    before, after = load("flux_training").main(n=600)
    assert after < before
    shown = capsys.readouterr().out
    assert "5 batches of images" in shown
    assert shown.count("[ Info: Epoch") == 4 and shown.count("hello") == 2
    assert shown.count("training\n") == 1 and shown.count("loss(test_x, test_y)") == 1
    assert "stopped early: History(1 steps in 1 epochs" in shown


def test_flux_training_with_an_optimiser_that_owns_its_parameters(capsys):
    before, after = load("flux_training_bound").main()
    assert after < before
    shown = capsys.readouterr().out
    assert shown.count("training\n") == 1 and shown.count("loss(test_x, test_y)") == 1


def test_no_example_is_without_a_test():
    tested = {"01_derivative", "02_line", "digits", "flux_training", "flux_training_bound"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested
