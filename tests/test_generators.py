"""The default generator: one per process, reset by seed_, never np.random's, a new one per fork."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.suites import only
from tests.test_interruption import Raises
from tinyflux import generators
from tinyflux.data import DataLoader, shuffleobs
from tinyflux.datasets import moons
from tinyflux.generators import generator, seed_

ROOT = Path(__file__).resolve().parents[1]


@given(st.integers(0, 2**80))
def test_a_seed_gives_the_same_numbers_every_time(n):
    expected = np.random.default_rng(n).integers(2**60, size=3)
    assert np.array_equal(generator(n).integers(2**60, size=3), expected)
    seed_(n)
    assert np.array_equal(generator().integers(2**60, size=3), expected)
    assert not np.array_equal(generator().integers(2**60, size=3), expected)


def test_a_generator_is_used_as_it_is_and_the_default_stays_the_same():
    rng = np.random.default_rng(0)
    assert generator(rng) is rng
    assert generator() is generator()
    assert generator(np.int64(3)).random() == generator(3).random()


@pytest.mark.parametrize(
    ("rng", "error", "came"),
    [
        (np.random.RandomState(0), TypeError, "RandomState"),
        (np.random, TypeError, "module"),
        (np.random.PCG64(0), TypeError, "PCG64"),
        (True, TypeError, "True (bool)"),
        (np.True_, TypeError, "True"),
        (1.0, TypeError, "1.0 (float)"),
        ("7", TypeError, "'7' (str)"),
        (-1, ValueError, "-1"),
    ],
)
def test_what_is_no_generator_is_named(rng, error, came):
    with pytest.raises(error, match=re.escape(came)):
        generator(rng)
    with pytest.raises(error):
        seed_(rng)


def test_seed_needs_a_number():
    with pytest.raises(TypeError, match="None"):
        seed_(None)


def test_numpy_global_state_is_neither_used_nor_changed():
    def draw():
        return shuffleobs(np.arange(50)).tolist(), moons(5)[0].tolist()

    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    seed_(3)
    first = draw()
    list(DataLoader(np.arange(9), shuffle=True))
    np.random.seed(2)  # noqa: NPY002
    seed_(3)
    assert draw() == first
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_threads_that_ask_first_get_one_default(monkeypatch):
    monkeypatch.setattr(generators, "_default", {})
    ready, found = threading.Barrier(8), []

    def ask():
        ready.wait()
        found.append(generator())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(map(id, found))) == 1


def test_an_exception_at_any_line_locks_nobody_out():
    """Such as the one of Ctrl-C; other threads go on drawing."""
    for k in range(1, 9):
        before = sys.gettrace()
        sys.settrace(Raises(k, KeyboardInterrupt))
        try:
            generator()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        thread = threading.Thread(target=generator, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()


FORK = """
import os, sys, threading
from tinyflux.generators import generator, seed_

def child(work=lambda: None):
    read, write = os.pipe()
    if not (pid := os.fork()):
        import signal
        signal.alarm(20)  # instead of a deadlock
        work()
        os.write(write, repr(generator().random()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.read()
    os.waitpid(pid, 0)
    return number
"""


def forked(code):
    done = subprocess.run(
        [sys.executable, "-c", FORK + code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@needs_fork
@pytest.mark.parametrize("begin", only(["seed_(1)"], ["seed_(1)", "generator()", ""]))
def test_forked_processes_draw_different_numbers(begin):
    code = f"{begin}\nprint(child(), child(child), child(), repr(generator().random()))"
    first, second = forked(code), forked(code)
    assert len(set(first)) == 4
    # A program with a seed repeats itself, forks and all; one without does not.
    assert (first == second) == (begin == "seed_(1)")


@needs_fork
def test_a_child_with_a_seed_of_its_own_draws_from_that():
    code = "seed_(1); print(child(lambda: seed_(5)), child(lambda: seed_(5)))"
    expected = repr(np.random.default_rng(5).random())
    assert forked(code) == [expected, expected]


@needs_fork
def test_fork_while_a_thread_draws_does_not_hang_the_child():
    code = """
seed_(1)
held, done = threading.Event(), threading.Event()
def hold():
    with generator().bit_generator.lock:
        held.set()
        done.wait(30)
thread = threading.Thread(target=hold)
thread.start()
held.wait()
print(len(child()) > 2)
done.set()
thread.join()
"""
    assert forked(code) == ["True"]
