"""Makes a recording: the function is run once, on a tape that tracks everything.

Together with it comes the check that says whether it still holds; what could not be repeated, or
would be frozen, is refused here.
"""

import functools
import re
import traceback
from pathlib import Path

import numpy as np

from ..checks import misfit_of
from ..errors import CannotCompileError, FluxError, NotScalarError
from ..generators import generator
from ..gradient import depending_on, walk
from ..gradient_seeds import one_like
from ..params import Params
from ..tensor import Tensor, wrapped
from ..walking import named_tensors, parts, reachable
from .arguments import (
    argument_names,
    closure,
    containers,
    has_attributes,
    identifier,
    is_data,
    mapped,
)
from .guards import watch
from .likeness import likeness
from .recording import Recording
from .trace import TracingTape, is_users, recorded_on
from .witness import Witness, refuse_draws, surroundings

SETTERS = {"errstate", "seterr"}
RESULTS = (Tensor, np.ndarray, np.number, np.bool_, int, float, complex)


def recording_of(f, name, args, kwargs, wanted, before=None, again=False):
    """Run the function once, writing down all that it does; `before`, if that is the same.

    If it counts, it is run `again`: what it does must not depend on that.
    """
    tape = TracingTape(training=wanted is not None)
    arguments, things = tape.arguments, [f]

    def given(a, path):
        if not is_data(a):
            things.append(a)
            return a
        t = wrapped(np.asarray(a), tape.mark)
        arguments.append((t, re.sub(r"\W+", "_", path).strip("_")))
        return t

    names = argument_names(f, args)
    inner = [mapped(a, given, n) for a, n in zip(args, names)]
    inner_kw = {k: mapped(v, given, k) for k, v in kwargs.items()}
    things += [c if has_attributes(c) else type(c) for c in containers((args, kwargs))]
    around, states = surroundings(*things, generator(None))
    witness = Witness(tape)
    output, towards, gradients, seed = recorded_on(
        tape, run_once, f, name, inner, inner_kw, wanted, tape, witness
    )
    refuse_draws(states, witness)
    witness.blind |= tape.rows.elsewhere
    tape.refuse_read_and_written()
    inside = closure(f)
    check, outside, kept = watch(things, witness, tape)
    refuse_kept(inside, tape, kept, name)
    if sets_errors(witness):
        changed = check.changed
        check = functools.partial(under_the_same_errors, np.geterr(), check)
        check.changed = changed
    alike = likeness(tape, seed, [output, gradients, [mark for _, mark in towards]], outside)
    if before is not None and before.alike == alike:
        before.check = check
        return before
    labels = {id(t): identifier(n) for n, t in named_tensors(inside)}
    labels.update({id(a): identifier(n) for n, a in named_arrays(inside)})
    if isinstance(wanted, Params):
        labels.update({id(t): identifier(n) for n, t in zip(wanted.names(), wanted)})
    made = Recording(
        name, tape, output, gradients, towards, arguments, labels, check, outside, seed
    )
    made.alike = alike
    counted = None if again else around.counted()
    if counted and (
        around.overwritten(made.reads)
        or recording_of(f, name, args, kwargs, wanted, made, again=True) is not made
    ):
        raise CannotCompileError(
            f"{name} changes {counted}, and its result depends on that; in a compiled function it "
            "would happen once. Count before the call and pass the number as an argument."
        )
    return made


def run_once(f, name, args, kwargs, wanted, tape, witness):
    """What the function returns, what gradients are taken towards, and the gradients.

    For an array the gradient of the output has to be given: the `seed`, the last that is
    returned; None for a number, whose seed is 1.
    """
    with witness:
        try:
            output = f(*args, **kwargs)
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
            # What was called wrongly has not run at all: Python's own sentence is enough.
            if not isinstance(error, FluxError) and not misfit_of(f, args, kwargs):
                error.add_note(while_recording(name, error))
            raise
        tape.refuse_failed()
        if not isinstance(output, RESULTS):
            raise NotScalarError(
                f"{name} returned {type(output).__name__}; a compiled function "
                "returns one array or number"
            )
        towards = towards_which(wanted, tape, tape.arguments)
        gradients, seed = [], None
        array = np.ndim(getattr(output, "_array", output)) != 0
        if wanted is not None and (not array or isinstance(wanted, tuple)):
            grads = {}
            if type(output) is Tensor and array:
                seed = grads[id(output)] = wrapped(np.ones_like(output._array))
            elif type(output) is Tensor:  # a value, so that all that it meets is recorded
                grads[id(output)] = tape.constant(np.asarray(one_like(output)))
            np.seterr(all="ignore")  # in the context of this recording
            walk(depending_on({id(t) for t, _ in towards}, tape.rows), grads, record=True)
            gradients = [grads.get(id(t)) for t, _ in towards]
        elif isinstance(wanted, (Params, str)):
            one_like(output)  # raises: not a number
    return output, towards, gradients, seed


def towards_which(wanted, tape, arguments):
    """Pairs (Tensor, how it is told from others) that gradients are taken for.

    `wanted` are Params, "arguments", or the numbers of arguments beside which all Tensors count
    that the function meets; None for none at all.
    """
    if wanted is None:
        return []
    if isinstance(wanted, Params):
        return [(t, t) for t in wanted]
    moving = [(t, i) for i, (t, _) in enumerate(arguments) if t.dtype.kind == "f"]
    if wanted == "arguments":
        return moving
    moving = [(t, i) for t, i in moving if i in wanted]
    return moving + [(t, t) for t in tape.leaves()]


def named_arrays(*things):
    """The plain arrays that can be reached, with their paths."""
    for path, item in reachable(*things):
        if not isinstance(item, Tensor):
            for name, part in parts(path, item):
                if type(part) is np.ndarray:
                    yield name.removeprefix("."), part


def refuse_kept(inside, tape, also, name):
    """Raise if a value was kept for later: it would stay as it is now."""
    kept = [path for path, t in reachable(inside) if type(t) is Tensor and t.mark is tape.mark]
    kept += also
    if kept:
        raise CannotCompileError(
            f"compiled {name}: a recorded value was kept in {kept[0]}, where it would stay as it "
            "is now. For a running mean use moving_average_(array, value); return what else you "
            "need."
        )


def sets_errors(witness):
    """Whether code of the user's may have said which floating-point errors are silenced."""
    for code, _ in witness.codes.values():
        if is_users(code.co_filename) and not SETTERS.isdisjoint(code.co_names):
            return True
        if code.co_name == "inner" and not is_users(code.co_filename):  # @np.errstate(...)
            return True
    return witness.blind


def under_the_same_errors(errors, check):
    """A check that fails, too, if the settings outside changed, to which those inside add."""
    return np.geterr() == errors and check()


def with_place(error, f):
    """The error, with the line at which the function begins if it does not name one."""
    code = getattr(getattr(f, "__func__", f), "__code__", None)
    if code is not None and not re.match(r"[^ ]+:\d+: ", str(error)):
        place = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
        error.add_note(f"The function begins at {place}.")
    return error


def while_recording(name, error):
    """The line of the user's, and the remedy if what is well in eager cannot be compiled."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
    return (
        f"{where}this happened while {name} was recorded to be compiled, where values stand for "
        "those of every call. If it is well without, leave this part outside of compiled, or use "
        "functions of NumPy whose result has a fixed shape."
    )
