"""How the package is built: floors, imports, side effects, flags of the interpreter, size."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tinyflux as flux
from tests.suites import only

HOUSE = Path(flux.__file__).parent
FLOORS = [
    ["errors", "checks", "alignment", "atomic", "quiet"],
    ["tensor", "tape", "borrowing", "holding", "generators", "threads"],
    ["primitive", "gradient_seeds", "walking", "params", "grads", "targets"],
    ["protocols", "ops"],
    ["operators"],
    ["gradient"],
    [
        "jacobian",
        "compiled",
        "activations",
        "losses",
        "margins",
        "initialise",
        "optimise",
        "data",
        "saving",
        "callbacks",
    ],
    ["layers"],
    ["train", "train_arguments", "history", "progress", "testing", "datasets"],
    ["__init__"],
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}


def name_of(path):
    """The dotted name of a module below `tinyflux`; a package goes by its folder."""
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(HOUSE.rglob("*.py"))}


def imports_of(name):
    """The modules of the house that a module imports, anywhere in its text."""
    path = MODULES[name]
    package = path.relative_to(HOUSE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [n.name.split(".")[1:] for n in node.names if n.name.startswith("tinyflux.")]
            yield from (".".join(t) for t in targets)
        elif isinstance(node, ast.ImportFrom):
            source = (node.module or "").split(".") if node.module else []
            if node.level:
                source = [*package[: len(package) - node.level + 1], *source]
            elif source[0] != "tinyflux":
                continue
            else:
                source = source[1:]
            for alias in node.names:
                inner = ".".join([*source, alias.name])
                yield inner if inner in MODULES else ".".join(source) or "__init__"


GRAPH = {name: sorted(set(imports_of(name)) - {name}) for name in MODULES}


def room(name):
    return name.split(".")[0]


def test_the_parser_sees_the_imports():
    assert {"tensor", "errors"} <= set(GRAPH["operators"])
    assert {"errors", "layers.printing"} <= set(GRAPH["layers.chain"])
    assert "ops.elementwise" in GRAPH["ops"] and "layers" in GRAPH["__init__"]


def test_every_room_has_a_floor():
    assert {room(name) for name in MODULES} == set(FLOOR)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downward(name):
    """Never upstairs; within a floor it is the test below that keeps order."""
    upward = [other for other in GRAPH[name] if FLOOR[room(other)] > FLOOR[room(name)]]
    assert upward == []


def test_no_import_goes_in_a_circle():
    done, order = set(), []

    def visit(name, path):
        assert name not in path, f"a circle: {' -> '.join([*path, name])}"
        if name not in done:
            for other in GRAPH[name]:
                visit(other, [*path, name])
            done.add(name)
            order.append(name)

    for name in MODULES:
        visit(name, [])
    assert len(order) == len(MODULES)


def test_only_numpy_is_imported_when_a_module_is_loaded():
    """SciPy and the extras are imported in the functions that use them."""
    known = {*sys.stdlib_module_names, "numpy", "tinyflux"}
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            found = []
            if isinstance(node, ast.Import):
                found = [n.name for n in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module]
            strange = [f for f in found if f.split(".")[0] not in known]
            assert strange == [], f"{name} imports {strange}"


def test_the_engine_can_be_read_in_an_evening():
    engine = "tensor tape borrowing primitive protocols operators gradient params".split()
    lines = [line for n in engine for line in MODULES[n].read_text(encoding="utf-8").splitlines()]
    assert sum(bool(line.strip()) for line in lines) <= 1450  # "some 1,400", as the README says


# --- in a fresh interpreter ----------------------------------------------------------------------


def run(code, *flags):
    """What a fresh interpreter prints; it must end well and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True, text=True, timeout=120, cwd=HOUSE.parent, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_import_loads_numpy_and_nothing_else():
    code = """
import sys, json, numpy
before = set(sys.modules)
import tinyflux
print(json.dumps(sorted({m.split(".")[0] for m in set(sys.modules) - before})))
"""
    loaded = set(json.loads(run(code))) - set(sys.stdlib_module_names)
    assert loaded - {"numpy"} == {"tinyflux"}


def test_import_changes_nothing_outside():
    code = """
import os, sys, locale, logging, random, signal, threading, warnings
import numpy as np

def look():
    state = np.random.get_state()
    return dict(
        geterr=np.geterr(), printing=np.get_printoptions(), random=random.getstate(),
        np_random=(state[0], state[1].tolist(), *state[2:]), environment=dict(os.environ),
        filters=[str(f) for f in warnings.filters], recursion=sys.getrecursionlimit(),
        signals=[signal.getsignal(s) for s in signal.valid_signals()], cwd=os.getcwd(),
        threads=[t.name for t in threading.enumerate()], locale=locale.setlocale(locale.LC_ALL),
        hooks=(sys.excepthook, sys.displayhook, sys.unraisablehook, sys.gettrace()),
        path=list(sys.path), handlers=list(logging.getLogger().handlers),
    )

before = look()
import tinyflux as flux
after = look()
m = flux.Chain(flux.Dense(2, 3, flux.relu), flux.Dropout(0.5), flux.Dense(3, 1))
loss = lambda x, y: flux.losses.mse(m(x), y)
data = flux.DataLoader((np.ones((8, 2)), np.ones((8, 1))), batchsize=4, shuffle=True)
flux.train_(loss, flux.params(m), data, flux.ADAM(0.01), epochs=3)
trained = look()
print([k for k in before if before[k] != after[k] or before[k] != trained[k]])
"""
    assert run(code) == "[]\n"


WORK = """
import numpy as np, tinyflux as flux
flux.seed_(0)
m = flux.Chain(flux.Dense(2, 8, flux.tanh), flux.Dense(8, 2))
x = np.random.default_rng(0).standard_normal((64, 2))
y = (x[:, 0] * x[:, 1] > 0).astype(int)
loss = lambda x, y: flux.losses.logitcrossentropy(m(x), y)
history = flux.train_(loss, flux.params(m), [(x, y)], flux.ADAM(0.05), epochs=150)
print(history.losses[-1] < 0.2, str(flux.gradient(lambda x: flux.gradient(np.sin, x)[0], 0.0)))
"""


FLAGS = [(), ("-W", "error"), ("-O",), ("-OO",), ("-X", "dev"), ("-I",)]


@pytest.mark.parametrize("flags", only([("-I",)], FLAGS))
def test_it_works_under_the_flags_of_the_interpreter(flags):
    if flags == ("-I",):
        code = f"import sys; sys.path.insert(0, {str(HOUSE.parent)!r})\n{WORK}"
    else:
        code = WORK
    assert run(code, *flags) == "True (array(-0.),)\n"


def test_everything_at_once_brings_no_modules():
    code = """
from tinyflux import *
print(sorted(name for name, value in globals().items() if type(value) is type(losses)))
print(Dense(1, 1, bias=False))
"""
    assert (
        run(code)
        == "['__builtins__', 'datasets', 'losses', 'schedules']\nDense(1, 1, bias=False)\n"
    )


def test_import_is_quick():
    """A fifth to a third of what NumPy takes; a ratio, with a margin for busy machines."""
    code = """
import time
begun = time.perf_counter()
import numpy
between = time.perf_counter()
import tinyflux
print((time.perf_counter() - between) / (between - begun))
"""
    assert any(float(run(code)) < 0.75 for _ in range(5))
