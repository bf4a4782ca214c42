"""How an operation is declared, found and recorded.

There are four forms, and each is one statement that says everything about its operation:

`rule(np.exp, lambda g, y: g * y)`
    a NumPy function and the derivative towards each array operand: `g` is the gradient of the
    output, `y` the output, then come the operands. A rule that needs no operand leaves them out.
`composed(np.std)(lambda x, axis=None: ...)`
    a NumPy function written in terms of others; it needs no rule.
`primitive(rule, ...)`
    above a kernel of ours, for what NumPy lacks.
`fused(kernel, joint)`
    above a definition in NumPy terms: a faster way to compute the same, and all its slopes at once.

Arrays are positional, everything else (axis, keepdims, ...) is keyword. Rules are plain NumPy, so
they run on arrays (the backward pass) and on Tensors (the derivative of the derivative) alike;
only those of a fused operation need not, because its definition is differentiated instead.
No rule needs to care about broadcasting, dtypes or accumulation: `gradient.py` does, once.

What runs when an operation is called is `Operation.__call__`; NumPy's own functions reach it
through `protocols.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any, NamedTuple

import numpy as np
from numpy import generic, ndarray

from .borrowing import ALONE, SMALL, kept
from .checks import as_operand, shown
from .errors import foreign, out_refused
from .holding import ATOMS, held
from .tape import open_tape
from .tensor import Mark, Tensor, new

OPERATIONS: dict[Any, Operation] = {}  # every declaration, by its NumPy function, or by name
IN_PLACE: dict[Any, Operation] = {}  # those that can overwrite their input, as in `dense`
PLAIN: set[Any] = set()  # the NumPy functions without a gradient, see `without_gradient`


# Types of operands that are used as they are, like arrays; anything else is converted.
ORDINARY = {float, int, bool, type(None), *(np.float32, np.float64, np.bool_, np.int64)}


# What is known of an operand, see `Places`.
LIVE, LENT, BOTH = 0b01, 0b10, 0b11
MANY = 1000  # so many combinations of it are remembered

NO_MARK = Mark()  # what no value has: in the place of the tape's where none is open


class Sample(NamedTuple):
    """Shapes of operands, and how to call the function on arrays of these shapes."""

    shapes: tuple
    call: Callable


def sample(*shapes, by=None, **params):
    """A sample input: operands of these shapes, called with `params`, or by `by(f, *arrays)`."""
    return Sample(shapes, by or (lambda f, *arrays: f(*arrays, **params)))


class Operation:
    """A declared operation: callable on arrays and Tensors alike.

    Attributes
    ----------
    name : str
    public : callable
        What a user calls: a NumPy function, or the operation itself.
    kernel : callable
        Computes the output from plain arrays.
    rules : tuple of callables or None
        The derivative towards each operand; None where there is no gradient.
    joint : callable or None
        Instead of `rules`: `joint(g, y, arrays, live, **params)` gives one gradient for each
        position in `live`, for operands that share work or whose number varies.
    body : callable or None
        For `fused`: the definition; for `composed`: all there is.
    needs : tuple of tuples, optional
        For each operand, the positions of those that its derivative reads; None: of all, unless
        no rule takes operands at all.
    places : tuple of Places
        What follows from it, for a tape that keeps what rules read; that also keeps what is read
        when they are recorded, as what is fused is computed from its body then; and that keeps
        nothing (`Tape.keeps`).
    samples, domain
        Inputs for the laws: a list of `sample(...)` (None: elementwise, any broadcast shapes), and
        the interval (or one per operand, or functions of rng and shape) to draw the values from.
    """

    def __init__(
        self,
        public,
        kernel,
        rules=(),
        *,
        joint=None,
        body=None,
        needs=None,
        samples=None,
        domain=(-2.0, 2.0),
        doc=None,
    ):
        self.name = public if isinstance(public, str) else public.__name__
        self.public = self if isinstance(public, str) else public
        self.kernel = kernel
        self.rules = tuple(rules)
        self.joint = joint
        self.body = body
        self.samples = samples
        self.domain = domain
        self.__doc__ = doc
        self.__name__ = self.name
        self._short = tuple(r is not None and takes_no_operand(r) for r in self.rules)
        plain = all(r is None or short for r, short in zip(self.rules, self._short))
        needs = () if needs is None and plain and joint is None else needs
        again = needs if body is None else None
        self.places = Places(needs), Places(again), Places(())
        if samples is None and self._short == (True,) and takes_out(kernel):
            IN_PLACE[self.public] = self

    def __call__(self, *operands, **params):
        """Compute the output; record it if a gradient flows to one of the operands."""
        tape = open_tape.get()
        mark, sources = (NO_MARK, ()) if tape is None else (tape.mark, tape.sources)
        arrays, key, live = [], 1, ()
        for t in operands:
            kind = type(t)
            if kind is Tensor:
                a = t._array
                if t.mark is mark:
                    known = LIVE if a.base is None else BOTH  # a view of somebody's array
                elif id(t) in sources:
                    known = BOTH
                elif t.mark is None or not t.mark.open:
                    known = LENT
                else:
                    raise foreign(self.name)
            elif kind is ndarray and (tape is None or not t.dtype.hasobject):
                a, known = t, LENT
            elif kind in ORDINARY:
                a, known = t, 0
            else:
                a = as_operand(t, self.name)
                known = LENT if type(a) is ndarray else 0
            arrays.append(a)
            key = 4 * key + known
        if tape is not None:
            live, copied = self.places[tape.keeps][key]
        if live:
            for value in params.values():
                if type(value) not in FIXED:
                    params = self.settled(params, tape)
                    break
            for i in copied:
                a = arrays[i]
                arrays[i] = a.copy("K") if a.nbytes <= SMALL else kept(tape, a)
        try:
            y = self.kernel(*arrays, **params)
        except Exception:
            if live and tape.tracing:
                tape.failed(self)
            raise
        if not live:
            return y
        if type(y) is ndarray:
            if y is arrays[0]:  # a view tells that it may be somebody else's memory
                y = y.view()
        elif not isinstance(y, (ndarray, generic)):
            y = as_output(y, self.name)
        output = new(Tensor)
        output._array = y
        output.mark = tape.mark
        tape.rows.append((self, operands, arrays, params, output, live))
        return output

    def settled(self, params, tape):
        """The parameters of a call that is recorded, with copies of the arrays in them."""
        if "out" in params:
            raise out_refused(self.name)
        own = {k: held(v) for k, v in params.items()}
        return params if tape.tracing else own

    def __repr__(self):
        return self.name

    def __reduce__(self):
        if self.public is self:  # like a function: by the name that it has in its module
            return self.__qualname__
        late = self.public not in OPERATIONS
        return _find, ((self.name, self.public.__module__) if late else self.public,)

    def pull(self, g, y, arrays, live, params):
        """The gradients towards the operands at the positions `live`."""
        if self.joint is not None:
            return self.joint(g, y, arrays, live, **params)
        found = []
        for i in live:
            r = self.rules[i]
            if r is None:
                found.append(None)
            elif self._short[i]:
                found.append(r(g, y, **params))
            else:
                found.append(r(g, y, *arrays, **params))
        return found

    @property
    def __signature__(self):  # what `help` and `inspect` show, as of the function it stands for
        from inspect import signature

        return signature(self.body or self.kernel)

    @cached_property
    def names(self):
        """The names of the parameters of the NumPy function, in order."""
        from inspect import signature

        try:
            return tuple(signature(self.public).parameters)
        except ValueError:  # pragma: no cover - NumPy 2.0 does not say it of what is written in C
            return tuple(f"x{i + 1}" for i in range(len(self.rules)))

    @cached_property
    def renamed(self):
        """The parameters of NumPy to which the body of a composed operation gives other names."""
        from inspect import signature

        parameters = signature(self.body).parameters.values()
        ours = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        return {a: b for a, b in zip(self.names, ours, strict=False) if a not in ours}

    def from_call(self, args, kwargs):
        """A NumPy call `f(*args, **kwargs)` as (array operands, keyword parameters)."""
        n = len(self.rules)
        if len(args) > n:
            kwargs = {**dict(zip(self.names[n:], args[n:], strict=False)), **kwargs}
        elif len(args) < n:
            kwargs = dict(kwargs)
            missing = [k for k in self.names[len(args) : n] if k not in kwargs]
            if missing:
                raise TypeError(f"{self.name}: the operand {missing[0]!r} is missing")
            args += tuple(kwargs.pop(k) for k in self.names[len(args) : n])
        if not kwargs:
            return args[:n], kwargs
        if kwargs.get("out") is not None:
            raise out_refused(self.name)
        if Tensor in map(type, kwargs.values()):  # asarray raises if a gradient would be lost
            kwargs = {k: np.asarray(v) if type(v) is Tensor else v for k, v in kwargs.items()}
        return args[:n], {k: v for k, v in kwargs.items() if k != "out"}


# Types of parameters that nobody can write to.
FIXED = {*ATOMS, Operation}


def as_output(y, name):
    """A number of Python's that a kernel has returned, as NumPy has it."""
    if isinstance(y, (bool, int, float)):
        return np.asarray(y)[()]
    raise TypeError(f"{name}: its kernel returned {shown(y)}, where an array is wanted")


def takes_no_operand(r):
    """Whether a rule is written in the gradient and the output alone."""
    code = getattr(r, "__code__", None)
    return code is not None and code.co_argcount == 2 and not code.co_flags & 0x04


class Places(dict):
    """What is known of each operand of a call -> (live, copied): the positions that matter.

    The key is a 1, and then two bits for each operand: LENT, where somebody else may write to its
    array; LIVE, where a gradient flows to it. `live` are the positions of these, `copied` those of
    the lent ones that are read on the way back, when they may have changed.

    >>> dense = Places(((1,), (0,), ()))  # the derivative towards x reads the weight, ...
    >>> dense[0b_1_01_11_11]  # x is recorded, weight and bias are parameters
    ((0, 1, 2), (1,))
    """

    def __init__(self, needs):
        self.needs = needs  # see `Operation`; empty: no derivative reads any

    def __missing__(self, key):
        digits, needs = f"{key:b}"[1:], self.needs
        live = tuple(i for i, known in enumerate(digits[1::2]) if known == "1")
        lent = [i for i, known in enumerate(digits[::2]) if known == "1"]
        read = lent if needs is None else {i for k in live for i in needs[k]} if needs else ()
        if len(self) == MANY:  # combinations of the operands of `concatenate` and the like
            self.clear()
        self[key] = found = live, tuple(i for i in lent if i in read)
        return found


def takes_out(kernel):
    """Whether a kernel can write its result into `out=`."""
    code = getattr(kernel, "__code__", None)
    return isinstance(kernel, np.ufunc) or (code is not None and "out" in code.co_varnames)


# ------------------------------------------------------------------------------- declaring


def rule(function, *rules, **extra):
    """Declare the derivative of a NumPy function (a ufunc of SciPy by its dotted name)."""
    if isinstance(function, str):
        module, _, name = function.rpartition(".")
        operation = Operation(name, None, rules, **extra)
        operation.kernel = operation.public = late(module, name)
        OPERATIONS[name, module] = operation
    else:
        operation = OPERATIONS[function] = Operation(function, function, rules, **extra)
    return operation


def composed(function, **extra):
    """Declare a NumPy function as a composition of others: `@composed(np.std)` above its body."""

    def declare(body):
        OPERATIONS[function] = Operation(function, function, body=body, **extra)
        return body

    return declare


def primitive(*rules, **extra):
    """Declare a kernel of ours with its rules; the docstring of the kernel documents it.

    Parameters
    ----------
    *rules : callable or None
        One per operand: `rule(g, y)`, or `rule(g, y, *operands)` with the keywords of the call,
        gives dL/d(operand), where `g` is dL/dy and `y` the output; in the shape of the operand, or
        of the output. None: no gradient.
    **extra
        `joint`, `needs`, `samples`, `domain`: see the attributes of `Operation`.

    Returns
    -------
    callable
        A decorator. The operation that it makes takes arrays by position and all else by keyword.
        The kernel returns an array (or a number of NumPy's), and leaves its operands as they are.

    Raises
    ------
    TypeError
        Without rules, or without the parentheses behind `@primitive`.

    Notes
    -----
    docs/operations.md has an example, and the way to declare the derivative of a NumPy function.
    """
    if not rules and "joint" not in extra:
        raise TypeError("primitive: there is no rule; wanted one for each operand, or joint=")

    def declare(kernel):
        if not hasattr(kernel, "__name__"):
            raise TypeError(
                f"primitive: {shown(kernel)} came where a function is decorated. The rules go into "
                "parentheses: @primitive(lambda g, y, x: ...)"
            )
        operation = Operation(kernel.__name__, kernel, rules, doc=kernel.__doc__, **extra)
        return entered(operation, kernel)

    return declare


def fused(kernel, joint, **extra):
    """Declare, above a definition in NumPy terms, a kernel and a joint rule that are faster."""

    def declare(body):
        operation = Operation(
            body.__name__, kernel, joint=joint, body=body, doc=body.__doc__, **extra
        )
        return entered(operation, body)

    return declare


def entered(operation, f):
    """An operation that stands in the place of `f`; those of tinyflux are found by their name."""
    operation.__module__, operation.__qualname__ = f.__module__, f.__qualname__
    if f.__module__.startswith(__package__ + "."):
        OPERATIONS[operation.name] = operation
    else:
        operation.kernel = keeping_nothing(operation.kernel)
    return operation


def keeping_nothing(kernel):
    """A kernel of somebody else's, with a copy of the result where it may have kept that itself."""

    @wraps(kernel)
    def own(*operands, **params):
        y = kernel(*operands, **params)
        kept = type(y) is ndarray and (y.base is not None or sys.getrefcount(y) > ALONE)
        return y.copy("K") if kept else y

    return own


def without_gradient(*functions):
    """Declare NumPy functions whose results are plain arrays, even of recorded values."""
    PLAIN.update(functions)


def late(module, name):
    """A function that imports itself when it is first called (SciPy is slow to import)."""

    def call(*args, **kwargs):
        __import__(module)
        return getattr(sys.modules[module], name)(*args, **kwargs)

    call.__name__, call.__module__ = name, module
    return call


def _find(key):
    return OPERATIONS[key]


# ------------------------------------------------------------------------------- fitting


def fitted(d, x):
    """A gradient as a rule returns it, in the shape and dtype of its operand."""
    if d.shape != x.shape:
        d = unbroadcast(d, x.shape)
    if x.dtype.kind not in "fc" and type(d) is ndarray:
        raise TypeError(f"an array of {x.dtype} has no gradient; floating-point numbers are wanted")
    return d if d.dtype is x.dtype else d.astype(x.dtype, copy=False)


def unbroadcast(g, shape):
    """`g` summed over the axes along which an operand of `shape` was broadcast."""
    extra = g.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1
    )
    return np.reshape(np.sum(g, axis=axes), shape)
