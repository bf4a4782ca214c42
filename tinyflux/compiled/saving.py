"""Writing a recording into a module that needs NumPy alone."""

import inspect
import io
import textwrap
from pathlib import Path

import numpy as np

from ..errors import CannotCompileError
from ..optimise.groups import renewed
from ..optimise.rule import UpdateRule
from ..optimise.stepping import prefixes
from ..saving.content import state_of
from ..saving.files import write_whole
from .kinds import PLAIN, globals_in

HOUSE = __name__.rpartition(".compiled.")[0] + "."

LOADING = """
with np.load(Path(__file__).with_suffix(".npz"), allow_pickle=False) as file:
    stored = dict(file)
{given}
"""

FITTING = '''
recorded = {recorded}


def _fitting(**arguments):
    """The arguments as arrays, if they are of the shapes and types of the recording."""
    arrays = {{name: np.asarray(value) for name, value in arguments.items()}}
    for name, array in arrays.items():
        shape, dtype = recorded[name]
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"{{name}} has shape {{array.shape}} and dtype {{array.dtype}}; this module was "
                f"recorded for shape {{shape}} and dtype {{dtype}}"
            )
    return arrays.values()
'''

# Names begin with a line where arguments could hide them: no argument is called so.
PREDICTION = '''
_compute = bind(**given)


def step({arguments}):
    """Compute the prediction."""
    return _compute(*_fitting({passed}))
'''

TRAINING = '''
slopes = {slopes}
parameters = {{name: given[name] for name in slopes}}
gradients = {{name: np.empty_like(array) for name, array in parameters.items()}}
_compute = bind(**given, **{{slopes[name]: g for name, g in gradients.items()}})


def step({arguments}):
    """Compute the loss, and update the parameters once; returns the loss."""
    return _trained(_compute(*_fitting({passed})))


def _trained(loss):
    """The loss, after the update."""
    if not all(np.isfinite(g).all() for g in gradients.values()):
        raise FloatingPointError(f"the loss is {{loss}}, and a gradient is not finite")
    with np.errstate(all="ignore"):
        update()
    return loss


def save(path=Path(__file__).with_suffix(".npz")):
    """Store the arrays (and what the optimiser remembers) where this module reads them."""
    path = str(path).removesuffix(".npz") + ".npz"
    beside = Path(path + ".tmp")  # whatever happens, the file is the old one or the new one
    try:
        with open(beside, "wb") as file:
            np.savez(file, **{{**stored, **state()}})
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
'''


def save(recording, path, opt=None):
    """Write `path` (a .py file) and, beside it, the arrays (.npz)."""
    path = Path(path)
    if path.suffix != ".py":
        raise ValueError(f"save: a path that ends in .py is wanted, got {path}")
    source = recording.source
    training = any(source.gradients)
    refuse_unsavable(recording, training, opt)
    arrays, plain, helpers = sorted_out(source.given)
    stored = {n + ":": a for n, a in arrays.items()}  # so that none is called like another entry
    given = {n: f"stored[{n + ':'!r}]" for n in arrays} | {n: repr(v) for n, v in plain.items()}
    given = "".join(f"    {n!r}: {v},\n" for n, v in (given | functions(source.given)).items())
    names = [source.names[v] for v in recording.program.arguments]
    shown = {"arguments": ", ".join(names), "passed": ", ".join(f"{n}={n}" for n in names)}
    like = {n: (v.shape, str(v.dtype)) for n, v in zip(names, recording.program.arguments)}
    text = [
        *opening(recording, helpers, training),
        LOADING.format(given="given = {\n" + given + "}"),
    ]
    text.append(FITTING.format(recorded=like))
    if training:
        called = {id(v.tensor): source.names[v] for v in recording.program.parameters}
        moving = [(t, d) for t, d in zip(recording.wanted, source.gradients) if d is not None]
        lines, state = update_source(opt, [(called[id(t)], t) for t, _ in moving])
        slopes = {called[id(t)]: d for t, d in moving}
        text += [TRAINING.format(slopes=slopes, **shown), *lines]
        stored |= state
    else:
        text.append(PREDICTION.format(**shown))
    content = io.BytesIO()
    np.savez(content, **stored)
    write_whole(str(path.with_suffix(".npz")), [content.getbuffer()])
    write_whole(str(path), ["\n".join(text).encode()])


def refuse_unsavable(recording, training, opt):
    """Raise for what a module that needs NumPy alone cannot do, and for a missing optimiser."""
    if recording.source.halves:
        raise CannotCompileError(
            "save: the latest call stood inside of a gradient; call it once outside of a gradient, "
            "and save then"
        )
    if recording.draws:
        raise CannotCompileError(
            "save: the function draws random numbers (as Dropout does in training), which a module "
            "that needs NumPy alone could not go on drawing. Save a prediction, for which no "
            "gradient is taken, or leave the random layer out: flux.testmode_(model)."
        )
    if training and opt is None:
        raise TypeError(
            "save: this is a training step; give the optimiser with which it is to update: "
            "save(path, opt)"
        )


def opening(recording, helpers, training):
    """The lines of the module up to the end of `bind`."""
    head, _, rest = recording.source.text.partition('"""\n')[2].partition("\n\ndef bind")
    return [
        f'"""{recording.title}: NumPy source, written by tinyflux; it needs NumPy alone."""',
        *("", "from __future__ import annotations", ""),
        *(("import os", "from math import sqrt") if training else ()),
        *("from pathlib import Path", "", "import numpy as np"),
        *(head.strip(), "", *helpers, "", "def bind" + rest.rstrip(), ""),
    ]


def functions(given):
    """What the functions among what the source is given are called in the module."""
    found = {n: f for n, f in given.items() if callable(f)}
    return {n: "np.array" if f is np.array else f.__name__ for n, f in found.items()}


def sorted_out(given):
    """(arrays by name, plain values by name, source texts of kernels)."""
    arrays, plain, helpers = {}, {}, []
    for name, value in given.items():
        if isinstance(value, (np.ndarray, np.generic)):
            # The update works on flat views, BLAS in the byte order of the machine.
            arrays[name] = np.asarray(value, value.dtype.newbyteorder("="), order="C")
        elif isinstance(value, PLAIN):
            plain[name] = value
        elif inspect.isfunction(value) and (value.__module__ or "").startswith(HOUSE):
            helpers.append(kernel_source(value))
        elif value is not np.array:
            raise CannotCompileError(f"save: {name} ({value!r}) is not made of NumPy alone")
    return arrays, plain, helpers


def kernel_source(f):
    """The source of a kernel, if it uses NumPy alone."""
    text = textwrap.dedent(inspect.getsource(f))
    text = text[text.index("def ") :]
    outside = [n for n in globals_in(f.__code__) if n in f.__globals__ and n != "np"]
    inner = [
        kernel_source(f.__globals__[n]) for n in outside if inspect.isfunction(f.__globals__[n])
    ]
    others = [n for n in outside if not inspect.isfunction(f.__globals__[n])]
    values = [f"{n} = {f.__globals__[n]!r}" for n in others if isinstance(f.__globals__[n], PLAIN)]
    if len(values) < len(others):
        raise CannotCompileError(f"save: {f.__name__} uses more than NumPy ({', '.join(others)})")
    return "\n\n".join([*inner, *values, text])


# ------------------------------------------------------------------------------- the update


def update_source(opt, tensors):
    """(lines of source that update the parameters, arrays of state)."""
    leaves = opt.leaves()
    if not all(leaf.elementwise for leaf in leaves):
        raise CannotCompileError(
            "save: ClipNorm, which needs all gradients at once, cannot be part of a saved step; "
            "give save an optimiser with ClipValue in its place, or with none"
        )
    lines, written = [MADE, "", "", kernel_source(renewed)], set()
    for leaf in leaves:
        lines += rule_source(type(leaf), written)
    fields = [(type(leaf).__name__, {n: getattr(leaf, n) for n in leaf.fields}) for leaf in leaves]
    lines += ["", "", "rules = ["]
    lines += [f"    made({name}, {values!r})," for name, values in fields]
    lines += ["]"]
    state = {}
    for name, t in tensors:
        kept = state_of(opt, t)
        for k, (prefix, leaf) in enumerate(zip(prefixes(leaves), leaves)):
            for m in leaf.moments:
                array = kept.get(prefix + m)
                stored = np.zeros(t.shape, t.dtype.newbyteorder("=")) if array is None else array
                state[f"{name}:{k}:{m}"] = stored
            ones = np.ones(len(leaf.moments))
            state[f"{name}:{k}:scales"] = kept.get(prefix + "scale", ones)
        state[f"{name}:t"] = np.array(kept.get("t", 0))
    state["calls"] = np.array(opt._stepper.calls)
    moments = [list(leaf.moments) for leaf in leaves]
    scratch = [leaf.scratch for leaf in leaves]
    lines += [UPDATE.format(moments=moments, scratch=scratch)]
    return lines, state


UPDATE = '''

moments = [
    {{name: [stored[f"{{name}}:{{k}}:{{m}}"].copy() for m in names] for name in parameters}}
    for k, names in enumerate({moments})
]
scales = [
    {{name: tuple(stored[f"{{name}}:{{k}}:scales"].tolist()) for name in parameters}}
    for k in range(len(rules))
]
steps = {{name: int(stored[name + ":t"]) for name in parameters}}
calls = int(stored["calls"])


def update():
    """One step of the optimiser, in place."""
    global calls
    calls += 1
    for name, x in parameters.items():
        x, g = x.reshape(-1), gradients[name].reshape(-1)
        steps[name] += 1
        for k, (rule, scratch) in enumerate(zip(rules, {scratch})):
            u = np.empty_like(x)
            work = [np.empty_like(x) for _ in range(scratch)]
            own, new = [m.reshape(-1) for m in moments[k][name]], rule.fade(*scales[k][name])
            if new:
                new, factors = renewed(new)
                for m, by in zip(own, factors):
                    if by != 1:
                        m *= np.asarray(by, x.dtype)
            scales[k][name] = new or scales[k][name]
            numbers = np.array(rule.constants(steps[name], calls, *new), x.dtype)
            numbers = [numbers[i, ...] for i in range(len(numbers))]
            rule.delta(x, g, u, *own, *work, *numbers)
            g = u
        x -= g


def state():
    """What the optimiser remembers, by name."""
    found = {{name + ":t": np.array(t) for name, t in steps.items()}}
    for k, of in enumerate(moments):
        for name, arrays in of.items():
            found[f"{{name}}:{{k}}:scales"] = np.array(scales[k][name])
            for m, array in zip({moments}[k], arrays):
                found[f"{{name}}:{{k}}:{{m}}"] = array
    return {{**found, "calls": np.array(calls)}}
'''


def rule_source(kind, written):
    """The classes of an update rule: their numbers and their formulas."""
    if kind is UpdateRule or kind in written:
        return []
    written.add(kind)
    base = kind.__mro__[1]
    lines = rule_source(base, written)
    lines += ["", "", f"class {kind.__name__}({base.__name__}):"]
    for method, f in vars(kind).items():
        if inspect.isfunction(f) and not method.startswith("_"):
            text = textwrap.dedent(inspect.getsource(f)).rstrip()
            lines += ["", textwrap.indent(text[text.index("def ") :], "    ")]
    return lines


MADE = '''

class UpdateRule:
    """What all rules share."""

    def fade(self, *scales):
        return ()


def made(kind, numbers):
    """A rule with these hyper-parameters."""
    rule = kind()
    vars(rule).update(numbers)
    return rule
'''
