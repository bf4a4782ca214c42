"""Derivatives: record what a function does, then walk the tape backwards.

`Pullback` does the recording, `walk` the walking; everything else is built from these two.
A gradient inside a gradient records on the same tape: its own rows are those from where it began,
and its backward pass runs the rules on Tensors, so that it is recorded in turn.
"""

from contextvars import copy_context
from threading import get_ident

import numpy as np

from .borrowing import written_to
from .checks import as_callable, as_number, is_compiled, misfit_of, real_array
from .errors import NotScalarError, RecordingError, miscalled
from .gradient_seeds import brief_type, fitting_seed, one_like
from .grads import Grads
from .params import Params
from .primitive import fitted, primitive
from .quiet import QUIET
from .tape import FOR_GOOD, FOR_ONCE, Tape, open_tape, recording
from .tensor import Tensor, wrapped


@primitive(lambda g, y: g, samples=())
def alias(x):
    """x itself, as a value of its own on the tape: the argument of a gradient inside another."""
    return x


# ------------------------------------------------------------------------------- the public names


def gradient(f, *args):
    """The gradient of a function that returns one number.

    Parameters
    ----------
    f : callable
        Returns a real number: `f()` in the first form, `f(*args)` in the second.
    *args
        Either one `Params` (or list of Tensors), or arrays and numbers.

    Returns
    -------
    Grads or tuple of numpy.ndarray
        `gradient(f, ps)` maps each parameter to dL/dp, with the parameter's shape and dtype.
        `gradient(f, *args)` gives one array per argument. None where there is no influence.

    Raises
    ------
    NotScalarError
        If `f` returns an array, nothing, or a complex number.
    TypeError
        For arrays of integers, complex numbers or objects (a whole number of Python's counts as a
        float), and if `f` does not take the arguments with which it is called.

    See Also
    --------
    withgradient : the value as well.
    jacobian : for functions that return arrays.

    Notes
    -----
    Reverse mode: one forward and one backward pass, whatever the number of parameters. The two
    forms are those of Flux 0.12 (Zygote). Gradients may be nested to any depth. `f` runs in a copy
    of the caller's context, so context variables that it sets end with it.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.gradient(lambda x: x**3, 2.0)
    (array(12.),)
    >>> flux.gradient(lambda x: flux.gradient(lambda y: y**3, x)[0], 2.0)
    (array(12.),)
    """
    return withgradient(f, *args)[1]


def withgradient(f, *args):
    """The value and the gradient: `(f(...), gradient(f, ...))` in one pass.

    Takes what `gradient` takes.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.withgradient(lambda x, y: x * y, 2.0, 5.0)
    (np.float64(10.0), (array(5.), array(2.)))
    """
    if is_compiled(f) and recording() is None:
        return f.withgradient(args)
    as_callable(f, "gradient: f")
    pull = Pullback(f, args)
    value = pull.value[()] if type(pull.value) is np.ndarray else pull.value  # and no view
    return value, pull(one_like(pull.output))


def pullback(f, *args):
    """The value of a function, and how to pull a gradient back through it.

    Parameters
    ----------
    f, *args
        As for `gradient`, but `f` may return an array of any shape.

    Returns
    -------
    value : number or numpy.ndarray
    back : callable
        `back(seed)` is the product of `seed` (shaped like the value) with the Jacobian: a tuple or
        Grads as from `gradient`. It may be called again; `back.tape` prints as a program.

    Raises
    ------
    NotScalarError
        If `f` returns no array, or several.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> value, back = flux.pullback(np.square, np.array([1.0, 2.0]))
    >>> value, back(np.array([1.0, 10.0]))
    (array([1., 4.]), (array([ 2., 40.]),))
    """
    pull = Pullback(as_callable(f, "pullback: f"), args, keeps=FOR_GOOD)
    out = pull.output
    if not isinstance(out, (int, float)) and not is_numeric(out):
        raise NotScalarError(f"the function returned {brief_type(out)}; an array is wanted")
    return pull.value, pull


# ------------------------------------------------------------------------------- recording


def is_numeric(out):
    """Whether what a function returned is an array of real numbers."""
    dtype = getattr(out, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind in "fiub"


class Pullback:
    """One recorded call of `f`: its value, its rows, and the walk back through them."""

    __slots__ = ("begin", "output", "ps", "rows", "tape", "value", "wanted")

    def __init__(self, f, args, keeps=FOR_ONCE):
        self.ps = as_params(args)
        outer = recording()
        if outer is not None and outer.thread != get_ident():
            outer = None  # another thread's, whose context was copied: a tape has one owner
        if outer is None:
            self.tape = tape = Tape(keeps, None if self.ps is None else self.ps.spare)
            try:  # a context is left for certain, whatever exception comes, and when
                self.output = out = copy_context().run(self.record, f, args, None)
            finally:
                tape.close()
            self.rows = tape.rows
        else:
            self.tape, before = outer, outer.sources
            outer.keeps = outer.keeps or FOR_GOOD  # recorded, the way back reads more
            try:
                self.output = out = self.record(f, args, outer)
            finally:
                outer.sources = before
            self.rows = outer.rows[self.begin :]
        self.value = out
        if outer is None and type(out) is Tensor:  # a copy, for the way back may read it
            self.value = np.array(out._array) if type(out._array) is np.ndarray else out._array

    def record(self, f, args, outer):
        """What `f` returns, its rows on the tape."""
        tape = self.tape
        if outer is None:
            open_tape.set(tape)
        if self.ps is not None:
            self.wanted, args = self.ps.by_id, ()
        else:
            args = [own_leaf(a, i, outer) for i, a in enumerate(args)]
            if outer is None:  # used in another thread they raise, as all that is recorded does
                for t in args:
                    t.mark = tape.mark
            self.wanted = {id(t): t for t in args}
        self.begin = len(tape.rows)  # what makes an argument lies before the function
        tape.sources = tape.sources | self.wanted if outer is not None else self.wanted
        try:
            return f(*args)
        except ValueError as error:
            if type(error.__cause__) is RecordingError:  # NumPy has put words of its own above it
                raise error.__cause__ from error
            raise
        except TypeError:
            if misfit := misfit_of(f, args, {}):
                raise miscalled(misfit, self.ps) from None
            raise

    def __call__(self, seed):
        """The gradients, for `seed` as the gradient of the output."""
        if type(self.output) is Tensor:
            seed = fitting_seed(seed, self.output)
        found = self.pull(seed)
        return tuple(found) if self.ps is None else Grads(self.ps, found)

    def pull(self, seed):
        """The gradients of the wanted Tensors, in order, each an array of its own."""
        out = self.output
        if type(out) is not Tensor:
            return [None] * len(self.wanted)
        grads = {id(out): seed}
        if open_tape.get() is self.tape:
            walk(depending_on(self.wanted, self.rows), grads, record=True)
        elif type(seed) is Tensor:
            walk(self.rows, grads)
        else:
            QUIET.copy().run(walk, self.rows, grads)
            self.tape.give_back()
        return owned([grads.get(key) for key in self.wanted], seed)


def as_params(args):
    """The Params of `gradient(f, ps)`, or None for `gradient(f, *args)`."""
    if len(args) == 1:
        ps = args[0]
        if isinstance(ps, Params):
            return ps
        if isinstance(ps, (list, tuple)) and ps and all(isinstance(p, Tensor) for p in ps):
            return Params(ps)
    if not args:
        raise TypeError(
            "with respect to what? gradient(f, params(model)) or gradient(f, x, y) is wanted"
        )
    return None


def own_leaf(a, i, outer):
    """Argument `a` as a Tensor of its own, so that nothing else is mistaken for it."""
    if outer is not None and outer.tracks(a):
        return alias(a)
    if hasattr(a, "__dict__") and not isinstance(a, (Tensor, np.ndarray, np.generic)):
        raise TypeError(
            f"gradient: argument {i + 1} is a {type(a).__name__}; arrays and numbers are wanted. "
            "For the parameters of a model: gradient(lambda: loss(x, y), params(model))"
        )
    if type(a) is int:
        a = as_number(a, f"gradient: argument {i + 1}")
    array = real_array(a, f"gradient: argument {i + 1}")
    return wrapped(array.view())  # a view: somebody else's memory


# ------------------------------------------------------------------------------- walking back


def walk(rows, grads, record=False):
    """Pull the gradients in `grads` (id of Tensor -> array) back through `rows`.

    The first contribution to a Tensor is borrowed as it comes, the second makes a new array, and
    into that further ones are added in place. With `record` the rules get the Tensors themselves
    in the place of their arrays, so that what they compute is recorded in turn.
    """
    made = set()  # the ids whose array was made here
    tape = recording() if record else None
    tracing = tape is not None and tape.tracing
    outer = tape.rows.rule if tracing else None
    for operation, operands, arrays, params, output, live in reversed(rows):
        g = grads.pop(id(output), None)
        if g is None:
            continue
        if tracing:
            tape.going_back(operation, output, g)
        if operation.body is None:
            try:
                y = output if record else output._array
                pulled = operation.pull(g, y, arrays, live, params)
                pulled = [d if d is None else fitted(d, arrays[i]) for i, d in zip(live, pulled)]
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                error.add_note(f"This came up in a rule of {operation.name}, or with its result.")
                raise
        elif tracing:
            pulled = operation.joint(g, output, tape.lifted(arrays), live, **params)
        elif record or type(g) is Tensor:
            pulled = through_body(operation, g, arrays, params, live)
        else:  # fused: shapes and dtypes are as they should be
            pulled = operation.joint(g, output._array, arrays, live, **params)
        for i, d in zip(live, pulled):
            key = id(operands[i])
            old = grads.get(key)
            if old is None:
                if d is not None:
                    grads[key] = d
            elif d is None:
                continue
            elif key in made and type(old) is np.ndarray and type(d) is np.ndarray:
                np.add(old, d, out=old)
            else:
                grads[key] = old + d
                made.add(key)
    if tracing:
        tape.rows.rule = outer


def depending_on(wanted, rows):
    """The rows that depend on the Tensors with these ids, with Tensors in the place of arrays."""
    active = set(wanted)
    found = []
    for operation, operands, arrays, params, output, moving in rows:
        live = [i for i in moving if id(operands[i]) in active]
        if live:
            active.add(id(output))
            arrays = list(arrays)  # of what is not recorded they are kept: it may have changed
            for i in moving:
                t = operands[i]
                if t._array is not arrays[i] and t._array.tobytes() != arrays[i].tobytes():
                    raise written_to(operation.name, t.shape)
                arrays[i] = t
            found.append((operation, operands, arrays, params, output, live))
    return found


def through_body(operation, g, operands, params, live):
    """The gradients of a fused operation from its definition, where they are recorded in turn."""

    def body(*moving):
        full = list(operands)
        for i, t in zip(live, moving):
            full[i] = t
        return operation.body(*full, **params)

    return Pullback(body, tuple(operands[i] for i in live))(g)


def owned(found, seed):
    """The gradients as arrays that belong to the caller alone.

    A rule makes a new array, or it passes on the one it was given, or a view of it. By the end no
    one else holds what it was given, unless that was the seed or went to several places.
    """
    seen = {id(seed)}
    for i, g in enumerate(found):
        if type(g) is np.ndarray and g.base is None and id(g) not in seen:
            seen.add(id(g))
        elif g is not None and type(g) is not Tensor:
            found[i] = np.array(g)
    return found
