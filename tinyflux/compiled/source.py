"""From a program to NumPy source: names, memory, and a line for every node.

The text has two parts. `bind` is run once: it lays out the memory and makes the views. `step`,
inside it, is run on every call: straight-line NumPy with `out=`, a comment behind each line. Its
second half, `backward`, computes the gradients, in a context in which NumPy keeps silent.
"""

import builtins
import keyword
import re
from types import ModuleType

import numpy as np

from ..alignment import aligned
from .calls import spelling
from .memory import Memory, is_opaque
from .nodes import is_number, is_view

# What the text may import from NumPy, and so must not be called by an argument.
NUMPYS = {n for n, f in vars(np).items() if callable(f) or isinstance(f, ModuleType)}
WORDS = {*keyword.kwlist, *dir(builtins), *NUMPYS, "bind", "step", "backward", "quiet", "Context"}
LARGE = 1 << 16  # bytes of a buffer that begins at a line of the cache
PLAIN = (type(None), bool, int, float, str)
NUMBERS = (bool, int, float, np.number, np.bool_)
NAME = re.compile(r"(?<![\w.'])\w+\b(?!=)")  # no attribute, no text, no `out` of `out=x`
QUIET = [
    ("quiet = Context()", "for the way back: an infinite slope is a value"),
    ("quiet.run(seterr, all='ignore')", ""),
]


class Source:
    """The text of a program, and what has to be given to its `bind`.

    Attributes
    ----------
    text : str
    given : dict of str to object
        Arguments of `bind`: parameters, constants, kernels of ours.
    gradients : list of str or None
        The other arguments of `bind`: for each gradient the name of the array that it goes into.
    buffers : list of (str, shape, dtype)
    in_place : int
        How many rows write over one of their operands.
    halves : bool
        Whether `step` returns (output, back), for an output whose gradient `back` has to be given.
    """

    def __init__(self, program, title, names=()):
        self.program, self.title = program, title
        self.names, self.given, self.imports = {}, {}, set()
        self.taken = set(WORDS)
        self.setup, self.lines, self.buffers = [], [], []
        self.in_place = 0
        self.origins = {}  # number of a line of the text -> where it came from
        wanted = list(zip(program.results[1:], names))
        self.gradients = [None if v is None else self.fresh(name) for v, name in wanted]
        self.homes = {}  # Value -> the names of where it has to stand
        for (v, _), place in zip(wanted, self.gradients):
            if v is not None:
                self.homes.setdefault(v, []).append(place)
        self.memory = Memory(program)
        self.write_all()
        self.text = self.layout()

    # --------------------------------------------------------------------------- names

    def fresh(self, wanted):
        """An identifier like `wanted` that is not taken."""
        base = re.sub(r"\W+", "_", wanted, flags=re.ASCII).strip("_") or "t"
        base = f"t{base}" if base[0].isdigit() else base
        name, k = base, 2
        while name in self.taken:
            name, k = f"{base}_{k}", k + 1
        self.taken.add(name)
        return name

    def numpy(self, name):
        """The name of a NumPy function in the text, imported at its top."""
        self.imports.add(name)
        return name

    def give(self, wanted, thing):
        """The name under which `bind` gets an object."""
        key = ("given", id(thing))
        if key not in self.names:
            self.names[key] = self.fresh(wanted)
            self.given[self.names[key]] = thing
        return self.names[key]

    def name(self, value):
        """The name of a Value in the text."""
        if value.given is None and value.node is None:
            return self.constant(value.const)
        if value not in self.names:
            self.names[value] = self.fresh(value.name or self.derived(value) or "t")
            if value.given == "parameter":
                self.given[self.names[value]] = value.tensor._array
        return self.names[value]

    def derived(self, value):
        """A name for a view, from the name of what it looks at."""
        if value.node is None or not is_view(value.node):
            return ""
        of, kind = value.node.operands[0], value.node.operation.name
        suffix = {"transpose": "T", "reshape": "flat", "ravel": "flat", "getitem": "part"}
        return f"{self.name(of)}_{suffix.get(kind, kind)}"

    def constant(self, const):
        """A constant: plain ones as they are, arrays and objects by a name."""
        if is_plain(const):
            return plain(const)
        if isinstance(const, np.generic):
            return self.give(f"c_{const:.6g}" if is_number(const) else "constant", const)
        name = self.program.names.get(id(const), "constant")
        if isinstance(const, np.ndarray) and not const.flags.writeable:
            name = told_by_value(const) or name
        return self.give(name, const)

    def as_array(self, const, dtype):
        """A plain number as an array without axes, which NumPy handles three times faster."""
        with np.errstate(all="ignore"):
            number = dtype.type(const)
        key = (dtype, repr(number))
        if key not in self.names:
            shown = const.item() if isinstance(const, np.generic) else const
            if not isinstance(shown, (int, float)):  # longdouble has no plain form
                return self.constant(const)
            self.names[key] = self.fresh(f"c_{shown:.6g}")
            array = f"{self.numpy('array')}({plain(shown)}, {dtype.name!r})"
            self.setup.append((f"{self.names[key]} = {array}", "constant"))
        return self.names[key]

    def literal(self, value):
        """A parameter as text, or the name of a constant."""
        if is_plain(value):
            return plain(value)
        if isinstance(value, (np.integer, np.bool_)):
            return repr(value.item())
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            inner = ", ".join(map(self.literal, value))
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        if isinstance(value, list):
            return f"[{', '.join(map(self.literal, value))}]"
        if isinstance(value, type) and issubclass(value, NUMBERS):
            value = np.dtype(value)
        if isinstance(value, np.dtype):
            name = value.name if value.isnative else value.str
            return f"{self.numpy('dtype')}({name!r})"
        if isinstance(value, slice):
            return f"slice({', '.join(map(self.literal, (value.start, value.stop, value.step)))})"
        return "..." if value is Ellipsis else self.constant(value)

    def index(self, value):
        """What stands between the brackets of x[...]."""
        if isinstance(value, tuple) and value:
            return ", ".join(map(self.index, value)) + ("," if len(value) == 1 else "")
        if not isinstance(value, slice):
            return self.literal(value)
        ends = ["" if v is None else self.literal(v) for v in (value.start, value.stop, value.step)]
        return ":".join(ends if ends[2] else ends[:2])

    # --------------------------------------------------------------------------- memory

    def target(self, node, i):
        """The name under which the output of a node is written."""
        out, memory = node.output, self.memory
        if out in self.homes:
            self.names[out] = self.homes[out].pop(0)
            return self.names[out]
        over = memory.is_overwritten(node, i)
        if over is not None:
            self.in_place += 1
            memory.stored[out] = memory.stored.pop(over)
            return self.rename(out, self.name(over))
        name, free = self.name(out), memory.take(out)
        if free is None:
            shape = memory.shape(out)
            large = np.prod(shape) * out.dtype.itemsize >= LARGE
            make = self.give("aligned", aligned) if large else self.numpy("empty")
            made = f"{make}({self.literal(shape)}, {out.dtype.name!r})"
            self.setup.append((f"{name} = {made}", ""))
            self.buffers.append((name, shape, out.dtype))
        else:
            self.setup.append((f"{name} = {free}", "memory used again"))
        memory.stored[out] = free or name
        return name

    def rename(self, out, name):
        """Write over what is called `name`; the output is called so too, if it has no own name."""
        if not out.name or out.name in (name, re.sub(r"_\d+$", "", name)):
            self.names[out] = name
        else:
            self.setup.append((f"{self.name(out)} = {name}", "in place"))
        return self.name(out)

    # --------------------------------------------------------------------------- lines

    def write_all(self):
        """A line for every node; those behind the output belong to the way back."""
        for v in self.program.arguments:
            self.name(v)
        nodes, output = self.program.nodes, self.program.results[0]
        self.turn = first = 0
        starts = {run.start for run in self.memory.runs}
        ends = {run.stop - 1: run for run in self.memory.runs}
        for i, node in enumerate(nodes):
            first = len(self.lines) if i in starts else first
            self.write(node, i)
            self.memory.release(node, i)
            if i in ends:
                self.lines[first:] = self.in_blocks(ends[i], self.lines[first:])
            if node.output is output:
                self.turn = len(self.lines)
        if not self.homes:
            self.turn = len(self.lines)
        for v, places in self.homes.items():
            for place in places:
                self.lines.append((f"{place}[...] = {self.name(v)}", "result", ()))

    def write(self, node, i):
        """One node as a line or two; a view that stays where it is belongs to the setup."""
        out, (line, note, silenced) = node.output, node.origin
        has_out = self.memory.has_out(node)
        code = spelling(self, node, has_out)
        if out in self.memory.bound:
            self.setup.append((f"{self.name(out)} = {code}", "view"))
            return
        if has_out:
            target = self.target(node, i)
            codes = code if isinstance(code, list) else [code]
            codes = [c.replace("{out}", target) for c in codes]
        else:
            codes = [f"{self.name(out)} = {code}"]
        self.lines += [(c, f"{line}  {note}".strip(), silenced) for c in codes]

    def in_blocks(self, run, lines):
        """The lines of a run inside a loop over its blocks."""
        i, silenced = self.fresh("i"), lines[0][2]
        used = {word for code, *_ in lines for word in NAME.findall(code)}
        parts = {}  # name of an array -> the name of its rows of this block
        made = [f"for {i} in range(0, {run.length}, {run.rows}):"]
        for v in dict.fromkeys([*run.operands(), *(node.output for node in run.members)]):
            name = self.name(v) if run.is_sliced(v) else None
            whole = v in run.local and run.length % run.rows == 0  # a block as it is
            if name not in used or name in parts or whole:
                continue
            rows = f":{run.length} - {i}" if v in run.local else f"{i}:{i} + {run.rows}"
            parts[name] = self.fresh(f"{name}_rows")
            made.append(f"    {parts[name]} = {name}[{rows}]")
        made = [(code, "block by block" if k == 0 else "", silenced) for k, code in enumerate(made)]
        for code, *rest in lines:
            inner = NAME.sub(lambda m: parts.get(m.group(), m.group()), code)
            made.append((f"    {inner}", *rest))
        return made

    # --------------------------------------------------------------------------- the text

    def layout(self):
        """The whole text."""
        arguments = [self.name(v) for v in self.program.arguments]
        returned = self.returned()
        forward, backward = self.lines[: self.turn], self.lines[self.turn :]
        lines = [(f"def step({', '.join(arguments)}):", "", ())]
        lines += [(f"    {code}", *rest) for code, *rest in with_silence(self, forward)]
        self.halves = bool(backward) and self.program.seed is not None
        if backward:
            handed = ["backward", *handed_on(arguments, forward, backward)]
            self.imports.add("seterr")
        if self.halves:
            returned += f", partial(quiet.run, {', '.join(handed)})"
            handed.append(self.name(self.program.seed))
        elif backward:
            lines.append((f"    quiet.run({', '.join(handed)})", "", ()))
        lines += [(f"    return {returned}", "", ())]
        if backward:
            lines += [("", "", ()), (f"def backward({', '.join(handed[1:])}):", "", ())]
            lines += [(f"    {code}", note, ()) for code, note, _ in backward]
        lines += [("", "", ()), ("return step", "", ())]
        setup = [*(QUIET if backward else []), *self.setup]
        places = [place for place in self.gradients if place is not None]
        head = [f'"""{self.title}"""', ""]
        head += ["from contextvars import Context"] * bool(backward)
        head += ["from functools import partial"] * self.halves + [""] * bool(backward)
        head += [f"from numpy import {', '.join(sorted(self.imports))}", ""] * bool(self.imports)
        head += ["", f"def bind({', '.join([*self.given, *places])}):"]
        body = with_comments([(code, note) for code, note in setup])
        body += [""] * bool(setup)
        first = len(head) + len(body) + 1
        self.origins = {first + k: note for k, (_, note, _) in enumerate(lines) if note}
        body += with_comments([(code, note) for code, note, _ in lines])
        return "\n".join([*head, *(f"    {line}".rstrip() for line in body), ""])

    def returned(self):
        """The output, as something that belongs to the caller alone."""
        output = self.program.results[0]
        name = self.name(output)
        if output.node is not None and not is_view(output.node) and not is_opaque(output.node):
            return name
        return f"{self.give('copied', np.array)}({name})[()]"


def is_plain(value):
    """Whether a value is a number of Python's (a member of an enum counts), a string or None."""
    return isinstance(value, PLAIN) and not isinstance(value, np.generic)


def plain(const):
    """A number, a string or None as text."""
    if isinstance(const, float) and not np.isfinite(const):
        return f"float('{float(const)}')"
    kind = next(kind for kind in PLAIN if isinstance(const, kind))
    return kind.__repr__(const)


def told_by_value(const):
    """A name for an array of which all elements are 0 or 1, and for a number; None for others."""
    if const.ndim == 0 and const.dtype.kind in "fiu":
        return f"c_{const:.6g}"
    for number, called in ((0, "zeros"), (1, "ones")):
        if np.all(const == number):
            return f"{called}_{'x'.join(map(str, const.shape))}"
    return None


def with_silence(s, lines):
    """The lines, those within one `with np.errstate(...)` of the user's under such a header."""
    made, before = [], ()
    for code, note, silenced in lines:
        if silenced and silenced != before:
            kinds = ", ".join(f"{k}={v!r}" for k, v in silenced)
            made.append((f"with {s.numpy('errstate')}({kinds}):", "", ()))
        made.append((f"    {code}" if silenced else code, note, ()))
        before = silenced
    return made


def handed_on(arguments, forward, backward):
    """What `step` computes and `backward` reads, other than what stands in the memory of both."""
    assigned = [m.group(1) for code, *_ in forward if (m := re.match(r"(\w+) = ", code))]
    read = {word for code, *_ in backward for word in re.findall(r"\w+", code)}
    return [name for name in dict.fromkeys([*arguments, *assigned]) if name in read]


def with_comments(lines):
    """Lines with their comments in one column."""
    width = min(60, max((len(code) for code, note in lines if note), default=0))
    return [f"{code:{width}}  # {note}" if note else code for code, note in lines]
