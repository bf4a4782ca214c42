"""`Compiled`: a function that is recorded once and then runs as NumPy source."""

import functools
import warnings
from collections import OrderedDict
from types import MethodType

import numpy as np

from ..borrowing import written_to
from ..checks import brief, misfit_of
from ..errors import CannotCompileError, miscalled
from ..gradient import Pullback, as_params, own_leaf
from ..grads import Grads
from ..ops.random import once_more
from ..params import Params
from ..primitive import Operation
from ..tape import recording
from ..tensor import Tensor
from .arguments import matcher, signature
from .making import recording_of, with_place
from .recording import copies
from .trace import leaves

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
        given = () if ps is not None else args
        given = tuple(own_leaf(a, i, None)._array for i, a in enumerate(given))
        try:
            value, found, give_back = self.lend(given, {}, "arguments" if ps is None else ps)
        except TypeError:
            if misfit := misfit_of(self.f, given, {}):
                raise miscalled(misfit, ps) from None
            raise
        found = copies(found)
        give_back()
        return value, tuple(found) if ps is None else Grads(ps, found)

    def as_operation(self, tape, args, kwargs):
        """Inside an ordinary gradient it is one row, whose gradients the program computes."""
        positions = [i for i, a in enumerate(args) if tape.tracks(a)]
        moving = [t for t in leaves((args, kwargs)) if tape.tracks(t)]
        if len(moving) > len(positions):  # inside a container: recorded row by row
            return self.f(*args, **kwargs)
        given = [a._array if i in positions else a for i, a in enumerate(args)]
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

    # --------------------------------------------------------------------------- finding

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
            try:
                entry = recording_of(self.f, self.__name__, args, kwargs, wanted, entry)
            except CannotCompileError as error:
                raise with_place(error, self.f)  # noqa: B904 - it is the same error
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


def refuse_changed(name, operands, now):
    """Raise if an operand is not what it was when the function ran: it was copied then."""
    for t, before in zip(operands, now):
        array = t._array if type(t) is Tensor else t
        if before is t or before is array:  # nothing was copied
            continue
        if before.tobytes() != np.asarray(array).tobytes():
            raise written_to(name, before.shape)
