"""`Compiled`: a function that is recorded once and then runs as NumPy source."""

import functools
import re
import traceback
import warnings
from collections import OrderedDict
from pathlib import Path
from types import MethodType

import numpy as np

from ..borrowing import written_to
from ..checks import brief
from ..errors import CannotCompileError, FluxError, NotScalarError
from ..generators import generator
from ..gradient import Pullback, as_params, depending_on, own_leaf, walk
from ..grads import Grads
from ..ops.random import once_more
from ..params import Params
from ..primitive import Operation
from ..seeds import one_like
from ..tape import recording
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
    matcher,
    signature,
)
from .guards import watch
from .likeness import likeness
from .recording import Recording, copies
from .trace import TracingTape, is_users, leaves, recorded_on
from .witness import Witness, random_states, refuse_draws

SETTERS = {"errstate", "seterr"}
KEPT = 16  # recordings, by signature; the one that was not used for the longest time goes
CHANGING = (
    "compiled {} was recorded {} times, once for each signature, which takes far longer than a "
    "call. Give numbers that change from call to call as arrays, np.asarray(number), and pad what "
    "has another shape each time."
)
AGAIN = 100  # recordings that were made again for something outside of the function
OUTSIDE = (
    "compiled {} was recorded again {} times, because something outside of it that it may read had "
    "changed, now {}; that takes far longer than a call. Pass it as an argument, a number as "
    "np.asarray(number)."
)


class Methods:
    """The compiled methods of one object; a copy of the object begins with none."""

    PLACE = "__compiled__"  # in the `__dict__` of the object
    walked_as_a_list = True  # nothing in it is part of a model

    def __init__(self, owner=None):
        self.owner, self.made = owner, {}

    def __iter__(self):
        return iter(())

    def __reduce__(self):
        return Methods, ()


class Compiled:
    """A function compiled to NumPy source; made by `compiled`."""

    def __init__(self, f):
        if not callable(f):
            raise TypeError(f"compiled: a function is wanted, got {brief(f)}")
        functools.update_wrapper(self, f, updated=())
        self.__name__ = getattr(f, "__name__", type(f).__name__.lower())
        self.f = f
        self.recordings: OrderedDict = OrderedDict()
        self.dropped = 0  # how many of them made room for others
        self.again = 0  # how many were made again, because something outside had changed
        self.latest = None
        self.without_dict: OrderedDict = OrderedDict()  # see `methods_of`

    def __get__(self, thing, kind=None):
        """As a method: each object has a compiled function of its own."""
        if thing is None:
            return self
        methods = self.methods_of(thing)
        made = methods.get(self)
        if made is None:
            made = methods[self] = Compiled(MethodType(self.f, thing))
        return made

    def methods_of(self, thing):
        """The compiled methods of an object, by what stands in its class.

        They hold the object, so they live in it, or it would never be freed; for those without a
        `__dict__` only some are kept.
        """
        scope = getattr(thing, "__dict__", None)
        if type(scope) is dict:
            found = scope.get(Methods.PLACE)
            if found is None or found.owner is not thing:  # a copy of another object
                found = scope[Methods.PLACE] = Methods(thing)
            return found.made
        found = self.without_dict.setdefault(id(thing), Methods(thing))
        self.without_dict.move_to_end(id(thing))
        if len(self.without_dict) > KEPT:
            self.without_dict.popitem(last=False)
        return found.made

    def __reduce__(self):  # what was recorded is not copied, and not stored
        return Compiled, (self.f,)

    # --------------------------------------------------------------------------- calling

    def __call__(self, *args, **kwargs):
        tape = recording()
        if tape is None:
            entry, arguments = self.find(args, kwargs, None)
            output, bound = entry.run(arguments)
            entry.give_back(bound)
            return output
        if tape.tracing:
            return self.f(*args, **kwargs)
        return self.as_operation(tape, args, kwargs)

    def lend(self, args, kwargs, wanted):
        """(value, gradients, give_back): the gradients are lent until `give_back()`."""
        entry, arguments = self.find(args, kwargs, wanted)
        value, bound = entry.run(arguments)
        return value, bound[1], functools.partial(entry.give_back, bound)

    def withgradient(self, args):
        """(value, gradient) as from `withgradient(f, *args)`."""
        ps = as_params(args)
        if ps is None:
            args = tuple(own_leaf(a, i, None).data for i, a in enumerate(args))
            value, found, give_back = self.lend(args, {}, "arguments")
        else:
            value, found, give_back = self.lend((), {}, ps)
        found = copies(found)
        give_back()
        return value, tuple(found) if ps is None else Grads(ps, found)

    def pullback(self, args):
        """(value, back) as from `pullback(f, *args)`: one row of an ordinary tape."""
        pull = Pullback(self, args, careful=True)
        return pull.value, pull

    def as_operation(self, tape, args, kwargs):
        """Inside an ordinary gradient it is one row, whose gradients the program computes."""
        positions = [i for i, a in enumerate(args) if tape.tracks(a)]
        moving = [t for t in leaves((args, kwargs)) if tape.tracks(t)]
        if len(moving) > len(positions):  # inside a container: recorded row by row
            return self.f(*args, **kwargs)
        given = [a.data if i in positions else a for i, a in enumerate(args)]
        before = [len(signature(given[:i], {})[1]) for i in positions]  # arrays, not arguments
        entry, arguments = self.find(given, kwargs, tuple(before))
        generators = entry.generators()
        value, slopes = entry.with_slopes(arguments)
        if not entry.moves:
            return value
        mark = tape.mark
        known = [t for t in entry.wanted if not isinstance(t, int)]
        where = {t if isinstance(t, int) else id(t): k for k, t in enumerate(entry.wanted)}
        numbers = [where.get(i) for i in before] + [where[id(t)] for t in known]
        # Arrays of others as well: the way back reads them once more.
        others = [a for a in leaves((args, kwargs)) if type(a) is np.ndarray] + entry.reads
        operands = (*(args[i] for i in positions), *known, *others)

        def joint(g, y, now, live):
            # Recorded in turn, as f itself is. (With `tape` here, tape and row would hold each
            # other, until a garbage collection.)
            again = type(g) is Tensor or getattr(recording(), "mark", None) is mark
            if again or entry.source.halves:
                refuse_changed(self.__name__, operands, now)
            if not again:
                found = slopes(g)
                if found is not None:
                    return [None if numbers[i] is None else found[numbers[i]] for i in live]
            slopes_now = [self.slope_towards(i, args, kwargs, g, generators) for i in positions]
            f = lambda: self.f(*args, **kwargs)
            slopes_now += once_more(generators, Pullback, f, (Params(known),))(g).values()
            return [slopes_now[i] for i in live]

        return Operation(self, lambda *_: value, joint=joint)(*operands)

    def slope_towards(self, i, args, kwargs, g, generators):
        """The gradient towards one argument, recorded row by row."""
        f = lambda a: self.f(*args[:i], a, *args[i + 1 :], **kwargs)
        return once_more(generators, Pullback, f, (args[i],))(g)[0]

    # --------------------------------------------------------------------------- recording

    def find(self, args, kwargs, wanted):
        """The recording for this call, made if there is none, and its arguments."""
        entry = self.latest
        if entry is not None and entry.fits(args, kwargs, wanted) and entry.check():
            return entry, args
        try:
            key, arguments = signature(args, kwargs)
        except RecursionError:
            raise TypeError(
                f"compiled {self.__name__}: an argument is nested too deeply, or contains itself"
            ) from None
        asked = tuple(wanted.by_id) if isinstance(wanted, Params) else wanted
        entry = self.recordings.get((key, asked))
        if entry is None or not entry.check():
            if entry is not None:
                self.count_again(entry)
            entry = self.record(args, kwargs, wanted, entry)
            entry.asked, entry.matches = asked, matcher(args, kwargs)
            self.recordings[key, asked] = entry
            if len(self.recordings) > KEPT:
                self.recordings.popitem(last=False)
                self.dropped += 1
                if self.dropped == KEPT:
                    warnings.warn(CHANGING.format(self.__name__, 2 * KEPT), stacklevel=3)
        else:
            self.recordings.move_to_end((key, asked))
        self.latest = entry
        return entry, arguments

    def count_again(self, entry):
        """Say once that what is outside changes so often that calls take long."""
        self.again += 1
        if self.again == AGAIN:
            said = OUTSIDE.format(self.__name__, AGAIN, entry.check.changed())
            warnings.warn(said, stacklevel=4)

    def record(self, args, kwargs, wanted, before=None):
        """Run the function once, writing down all that it does; `before`, if that is the same."""
        tape = TracingTape(training=wanted is not None)
        arguments, things = tape.arguments, [self.f]

        def given(a, path):
            if not is_data(a):
                things.append(a)
                return a
            t = wrapped(np.asarray(a), tape.mark)
            arguments.append((t, re.sub(r"\W+", "_", path).strip("_")))
            return t

        names = argument_names(self.f, args)
        inner = [mapped(a, given, n) for a, n in zip(args, names)]
        inner_kw = {k: mapped(v, given, k) for k, v in kwargs.items()}
        things += [c if has_attributes(c) else type(c) for c in containers((args, kwargs))]
        states, witness = random_states(*things, generator(None)), Witness(tape)
        output, towards, gradients, seed = recorded_on(
            tape, self.run_once, inner, inner_kw, wanted, tape, witness
        )
        refuse_draws(states, witness)
        witness.blind |= tape.rows.elsewhere
        tape.refuse_read_and_written()
        inside = closure(self.f)
        check, outside, kept = watch(things, witness, tape)
        refuse_kept(inside, tape, kept, self.__name__)
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
            self.__name__, tape, output, gradients, towards, arguments, labels, check, outside, seed
        )
        made.alike = alike
        return made

    def run_once(self, args, kwargs, wanted, tape, witness):
        """What the function returns, what gradients are taken towards, and the gradients.

        For an array the gradient of the output has to be given: the `seed`, the last that is
        returned; None for a number, whose seed is 1.
        """
        with witness:
            try:
                output = self.f(*args, **kwargs)
            except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
                if not isinstance(error, FluxError):
                    error.add_note(while_recording(self.__name__, error))
                raise
            tape.refuse_failed()
            if isinstance(output, (tuple, list, dict)) or output is None:
                raise NotScalarError(
                    f"{self.__name__} returned {type(output).__name__}; a compiled function "
                    "returns one array or number"
                )
            towards = self.towards(wanted, tape, tape.arguments)
            gradients, seed = [], None
            array = np.ndim(getattr(output, "data", output)) != 0
            if wanted is not None and (not array or isinstance(wanted, tuple)):
                grads = {}
                if type(output) is Tensor and array:
                    seed = grads[id(output)] = wrapped(np.ones_like(output.data))
                elif type(output) is Tensor:  # a value, so that all that it meets is recorded
                    grads[id(output)] = tape.constant(np.asarray(one_like(output)))
                np.seterr(all="ignore")  # in the context of this recording
                walk(depending_on({id(t) for t, _ in towards}, tape.rows), grads, record=True)
                gradients = [grads.get(id(t)) for t, _ in towards]
            elif isinstance(wanted, (Params, str)):
                one_like(output)  # raises: not a number
        return output, towards, gradients, seed

    def towards(self, wanted, tape, arguments):
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

    # --------------------------------------------------------------------------- looking

    @property
    def source(self):
        """The NumPy source of the latest signature."""
        if self.latest is None:
            raise CannotCompileError(f"{self.__name__} has not been called yet; call it once first")
        return self.latest.shown.source.text

    def explain(self):
        """Print a table: rows after each pass, and the memory that is laid out."""
        self.source  # noqa: B018  (raises if there is none)
        entry = self.latest.shown
        print(entry.source.title)
        for name, rows in entry.program.passes:
            print(f"  {name:15} {rows:5} rows")
        buffers = entry.source.buffers
        size = sum(int(np.prod(shape)) * dtype.itemsize for _, shape, dtype in buffers)
        print(f"  {'buffers':15} {len(buffers):5}, {size} bytes; in place: "
              f"{entry.source.in_place} rows")  # fmt: skip
        for run in entry.source.memory.runs:
            print(f"  {'block by block':15} {len(run.members):5} rows in one loop, over blocks "
                  f"of {run.rows} of {run.length}")  # fmt: skip

    def save(self, path, opt=None):
        """Write the latest signature as a module that needs NumPy alone.

        Parameters
        ----------
        path : str or path
            Ends in .py; the arrays are stored beside it, in an .npz of the same name.
        opt : optimiser, optional
            For a training step: with which `step(x, y)` of the module updates its parameters, going
            on from what the optimiser remembers now. For a prediction there is `step(x)`.

        Notes
        -----
        The module takes arrays of the shapes and types of the latest call, and refuses others. Like
        `train_` it updates nothing with gradients that are not finite.
        """
        from .saving import save

        self.source  # noqa: B018  (raises if there is none)
        if not self.latest.check():
            raise CannotCompileError(
                f"save: {self.latest.check.changed()} has changed since {self.__name__} was called "
                "for the last time; call it once more (in training: train one more step), and save "
                "then"
            )
        save(self.latest, path, opt)

    def __str__(self):
        return self.source if self.latest is not None else repr(self)

    def __repr__(self):
        return f"compiled({self.__name__})"


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


def while_recording(name, error):
    """The line of the user's, and the remedy if what is well in eager cannot be compiled."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
    return (
        f"{where}this happened while {name} was recorded to be compiled, where values stand for "
        "those of every call. If it is well without, leave this part outside of compiled, or use "
        "functions of NumPy whose result has a fixed shape."
    )


def refuse_changed(name, operands, now):
    """Raise if an operand is not what it was when the function ran: small ones were copied then."""
    for t, before in zip(operands, now):
        array = t.data if type(t) is Tensor else t
        if before is t or before is array:  # nothing was copied
            continue
        if before.tobytes() != np.asarray(array).tobytes():
            raise written_to(name, before.shape)
