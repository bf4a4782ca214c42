"""A program as source that runs."""

import linecache
import weakref
from itertools import count

from ..alignment import aligned
from .source import Source


class Emitted:
    """The source of a program, compiled by Python; `bind` makes copies of it that can run.

    Attributes
    ----------
    source : Source
    filename : str
        Under which tracebacks find its lines.
    """

    numbers = count(1)

    def __init__(self, program, title, places):
        title = "".join(c if c.isprintable() and c not in '"\\' else "_" for c in title)
        self.program, self.title, self.places = program, title, places
        shown = ", ".join(f"{v.name} {v.shape} {v.dtype}" for v in program.arguments)
        self.source = Source(program, f"{title}({shown})", places)
        self.filename = f"<compiled {title} {next(self.numbers)}>"
        self.code = compile(self.source.text, self.filename, "exec")
        lines = self.source.text.splitlines(keepends=True)
        linecache.cache[self.filename] = (len(self.source.text), None, lines, self.filename)
        weakref.finalize(self, linecache.cache.pop, self.filename, None)

    def bind(self, places=None):
        """A copy with memory of its own: (step, the gradients in order).

        `places` may say where the gradients are to stand, None in it to leave that open.
        """
        scope: dict = {}
        exec(self.code, scope)
        bind = scope.pop("bind")  # or the two would hold one another, until a garbage collection
        values = self.program.results[1:]
        places = list(places or [None] * len(values))
        named: dict = {}
        for i, v in enumerate(values):
            if v is not None:
                place = aligned(v.shape, v.dtype) if places[i] is None else places[i]
                places[i] = named[self.source.gradients[i]] = place
        return bind(**self.source.given, **named), places

    def guarded(self, step, arguments):
        """The result of a bound step; an error gets a note that says where it comes from."""
        try:
            return step(*arguments)
        except Exception as error:
            error.add_note(self.explain(error))
            raise

    def explain(self, error):
        """Which line of the user's the failing line of the source came from."""
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self.filename:
                origin = self.source.origins.get(trace.tb_lineno)
                if origin:
                    return f"in the compiled {self.title}, from {origin}"
            trace = trace.tb_next
        return f"in the compiled {self.title}"
