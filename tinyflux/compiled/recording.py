"""A recording: what was written down in one call of a function, ready to be run again."""

import copy
import functools
import weakref
from threading import Lock

import numpy as np

from ..generators import generator
from ..params import Params
from .emitted import Emitted
from .nodes import is_draw
from .passes import run_passes
from .program import Program, Value
from .unchecked import unchecked

WAITING = 16  # bound copies that are kept for the next call


def copies(gradients):
    """The gradients as arrays of the caller's own; None stays None."""
    return [None if g is None else g.copy() for g in gradients]


def scaled(gradients, g):
    """The gradients times a number; None if it is 0 and one of them is not finite."""
    if g == 0 and not all(d is None or np.isfinite(d).all() for d in gradients):
        return None
    return [None if d is None else d * g for d in gradients]


class Recording(Emitted):
    """One recorded signature: its program as source, and copies of it that are ready to run."""

    def __init__(
        self, title, tape, output, gradients, towards, arguments, names, check, outside, seed
    ):
        self.check = check
        self.wanted = [mark for _, mark in towards]
        program = Program(names, {id(a) for a in outside})
        for t, name in arguments:
            program.argument(t, name)
        if seed is not None:
            program.seed = program.bring(seed, Value(seed._array, "d_output", given="argument"))
        program.add_tape(tape)
        program.name_slopes(tape.slopes)
        program.results = [program.value(output)]
        program.results += [None if g is None else program.value(g) for g in gradients]
        program.forget()
        run_passes(program)
        if gradients and program.results[0].node is not None:
            program.results[0].name = "loss" if seed is None else "output"
        known = {id(t): name for t, name in arguments} | names
        super().__init__(program, title, [f"d_{known.get(id(t), 'parameter')}" for t, _ in towards])
        self.idle = []  # bound copies that no thread is running
        self.draws = [node.params["rng"] for node in program.nodes if is_draw(node)]
        self.moves = any(v is not None for v in program.results[1:])  # whether a gradient flows
        self.asked, self.matches, self.alike = None, None, None
        consts = [v.const for node in program.nodes for v in node.operands]
        arrays = {id(a): a for a in consts if isinstance(a, np.ndarray) and a.flags.writeable}
        self.reads = [*arrays.values()]  # arrays of others, other than the arguments
        self.trusts = False  # whether it was the unchecked source that ran last

    def fits(self, args, kwargs, wanted):
        """Whether a call has this signature: quick, for calls with arrays alone."""
        asked = tuple(wanted.by_id) if type(wanted) is Params else wanted
        return asked == self.asked and self.matches(args, kwargs)

    @functools.cached_property
    def unchecked(self):
        """A quicker source for training loops, or None: see `unchecked.py`."""
        program = unchecked(self.program)
        return None if program is None else Emitted(program, self.title, self.places)

    @property
    def shown(self):
        """What ran last."""
        return self.unchecked if self.trusts else self

    def give_back(self, bound):
        """Keep a copy for the next call, unless there are many."""
        if len(self.idle) < WAITING:
            self.idle.append(bound)

    def run(self, arguments):
        """(output, the copy that computed it), which is to be given back when it has been read."""
        try:
            bound = self.idle.pop()  # atomic: two threads never get the same copy
        except IndexError:
            bound = self.bind()
        self.trusts = False
        return self.guarded(bound[0], arguments), bound

    def with_slopes(self, arguments):
        """(output, slopes): `slopes(g)` are the gradients towards all that is `wanted`.

        None where 0 meets infinity: it takes the steps to tell what is 0 then.
        """
        output, bound = self.run(arguments)
        if not self.source.halves:
            found = copies(bound[1])
            self.give_back(bound)
            return output, lambda g: scaled(found, g)
        (output, back), turns = output, Lock()

        def slopes(g):
            with turns:
                self.guarded(back, (g,))
                return copies(bound[1])

        # What lies between the two halves stays in this copy, until nobody can ask any more.
        weakref.finalize(slopes, self.give_back, bound).atexit = False
        return output, slopes

    def generators(self):
        """Copies of the generators from which it draws, by the ids of these."""
        return {id(g): copy.deepcopy(g) for g in map(generator, self.draws)}
