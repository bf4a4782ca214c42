"""How many threads BLAS may use: handed on to threadpoolctl, which is an extra."""

import sys
import types

import numpy as np
import pytest

import tinyflux as flux


def test_the_number_is_handed_on(monkeypatch):
    module, asked = types.ModuleType("threadpoolctl"), []
    module.threadpool_limits = asked.append
    monkeypatch.setitem(sys.modules, "threadpoolctl", module)
    assert flux.set_threads_(2) is None
    flux.set_threads_(np.int64(1))
    for n in (0, 1.5, "2", None):
        with pytest.raises((TypeError, ValueError), match="n"):
            flux.set_threads_(n)
    assert asked == [2, 1]


def test_it_is_what_blas_uses():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(None):  # puts back what was set
        flux.set_threads_(1)
        assert {p["num_threads"] for p in threadpoolctl.threadpool_info()} <= {1}


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(ImportError, match=r'pip install "tinyflux-autodiff\[threads\]"'):
        flux.set_threads_(1)
