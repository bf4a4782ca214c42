"""Kill a process that saves, again and again, and look whether a file is ever lost.

    python tests/benchmarks/kills.py 10000 [path]

Every attempt forks this process; the child saves models in a loop, one after the other to the same
path, and is killed (SIGKILL) at a random moment: in every other attempt after its first save has
ended, however slow the machine is. Afterwards the file must load, and be one of the models that
were saved. The same is done with `numpy.savez(path)`, for comparison, a tenth as often.
"""

import os
import signal
import sys
import tempfile
import time

import numpy as np

import tinyflux as flux

SIZES = (3000, 1)


def model(value):
    """All elements have the same value."""
    return {f"a{n}": flux.Tensor(np.full(n, value, "f4")) for n in SIZES}


def load(path):
    """The value that a file holds; an error if it is not one value."""
    m = model(-1)
    flux.load_(path, m)
    (value,) = {x for t in m.values() for x in t.tolist()}
    return value


def savez(path, m):
    """How one saves without a second thought."""
    np.savez(path, **{name: t.data for name, t in m.items()})


def loadz(path):
    """What was saved so."""
    with np.load(path) as stored:
        (value,) = {x for n in SIZES for x in stored[f"a{n}"].tolist()}
    return value


def attempts(n, path, seed=0, save=flux.save, load=load):
    """Kill `n` savers; how many files were lost, saves were made, and files were left over."""
    rng, value, lost, changed, strays = np.random.default_rng(seed), 1.0, 0, 0, 0
    folder = os.path.dirname(path)
    save(path, model(value))
    pause = 4 * timed(lambda: save(path, model(value)))
    for attempt in range(n):
        before = set(os.listdir(folder))
        ended, ends = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                while True:
                    os.write(ends, b"!")
                    value += 1
                    save(path, model(value % 2**20))
            finally:
                os._exit(1)
        os.close(ends)  # should the child die early, the reading ends
        for _ in range(1 + attempt % 2):
            os.read(ended, 1)
        time.sleep(rng.uniform(0, pause))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ended)
        strays += bool(set(os.listdir(folder)) - before)
        try:
            new = load(path)
            changed += new != value
            value = new
        except Exception:
            lost += 1
            os.path.exists(path) and os.unlink(path)
            save(path, model(value))
    save(path, model(value))
    left = len(os.listdir(folder)) - 1
    return {"kills": n, "lost": lost, "saves": changed, "strays": strays, "left": left}


def timed(f, times=20):
    """Seconds that a call takes."""
    began = time.perf_counter()
    for _ in range(times):
        f()
    return (time.perf_counter() - began) / times


def main(n, folder=None):
    with tempfile.TemporaryDirectory(dir=folder) as folder:
        for k, how in ((n, (flux.save, load)), (n // 10, (savez, loadz))):
            began = time.perf_counter()
            place = os.path.join(folder, how[0].__name__)
            os.mkdir(place)
            report = attempts(k, os.path.join(place, "x.npz"), 0, *how)
            seconds = time.perf_counter() - began
            print(
                f"{how[0].__name__:6} killed {report['kills']:,} times in {seconds:.0f} s: "
                f"{report['lost']:,} files lost; {report['saves']:,} times a newer file was there; "
                f"{report['strays']:,} times something was left beside it, at the end "
                f"{report['left']}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1000, *sys.argv[2:])
