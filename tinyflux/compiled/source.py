"""From a program to NumPy source: names, memory, and one line for every node.

The text has two parts. `bind` is run once: it lays out the memory and makes the views. `step`,
inside it, is run on every call: straight-line NumPy with `out=`, a comment behind each line.
"""

import builtins
import keyword
import re

import numpy as np

from .passes import function_of, is_elementwise, is_view

# These take their output as the last positional argument, which is quicker than by name; those
# with two operands that NumPy wants to have named, and the others, get `out=`.
NAMED_OUT = {np.maximum, np.minimum, np.fmax, np.fmin}
REDUCTIONS = {np.sum: "add", np.max: "maximum", np.min: "minimum", np.amax: "maximum",
              np.amin: "minimum", np.prod: "multiply"}  # fmt: skip
WITH_OUT = {np.mean, np.cumsum, np.cumprod, np.clip, np.take, np.concatenate, np.var, np.std}


class Source:
    """The text of a program, and what has to be given to its `bind`.

    Attributes
    ----------
    text : str
    given : dict of str to object
        Arguments of `bind`: parameters, places for the gradients, constants, kernels of ours.
    lines : list of (str, str)
        For each line of the step: its code and where it came from.
    buffers : list of (str, shape, dtype)
    """

    def __init__(self, program, title, gradients=()):
        self.program = program
        self.names, self.given, self.imports = {}, {}, set()
        self.taken = set(keyword.kwlist) | set(dir(builtins)) | {"step", "bind"}
        self.setup, self.lines, self.buffers = [], [], []
        self.in_place = 0
        self.places = {}  # result Value -> name of where it has to stand
        for value, name in gradients:
            if value is not None:
                self.places.setdefault(value, self.fresh(name))
        self.placed = set()  # the result Values that are computed right there
        self.roots = {}  # Value -> the Value whose memory it looks into
        self.stored = {}  # root Value -> name of its buffer
        self.write_all()
        self.text = self.layout(title)

    # --------------------------------------------------------------------------- names

    def fresh(self, wanted):
        """An identifier like `wanted` that is not taken."""
        base = re.sub(r"\W+", "_", wanted).strip("_") or "t"
        base = f"t{base}" if base[0].isdigit() else base
        name, k = base, 2
        while name in self.taken:
            name, k = f"{base}_{k}", k + 1
        self.taken.add(name)
        return name

    def numpy(self, dotted):
        """The name of a NumPy function in the text, imported at its top."""
        head = dotted.split(".")[0]
        self.imports.add(head)
        return dotted

    def name(self, value):
        """The name of a Value in the text."""
        if value not in self.names:
            if value.const is not None or (value.given is None and value.node is None):
                self.names[value] = self.constant(value.const)
            else:
                self.names[value] = self.fresh(value.name or self.derived(value) or "t")
                if value.given == "parameter":
                    self.given[self.names[value]] = value.tensor.data
        return self.names[value]

    def derived(self, value):
        """A name for a view, from the name of what it looks at."""
        if value.node is None or not is_view(value.node):
            return ""
        suffix = {"transpose": "T", "reshape": "flat", "ravel": "flat"}
        kind = value.node.operation.name
        return f"{self.name(value.node.operands[0])}_{suffix.get(kind, kind)}"

    def constant(self, const):
        """A constant: small numbers as they are, arrays by a name."""
        if const is None or isinstance(const, (bool, int, float, str)):
            return repr(const)
        ones = isinstance(const, np.ndarray) and const.size and np.all(const == 1)
        name = self.fresh("ones" if ones else "constant")
        self.given[name] = const
        return name

    def as_array(self, value, dtype):
        """A plain number as an array of one element, which NumPy handles three times faster."""
        key = (type(value.const), repr(value.const), dtype)
        if key not in self.names:
            self.imports.add("array")
            shown = value.const.item() if isinstance(value.const, np.generic) else value.const
            self.names[key] = self.fresh(f"c_{shown:.6g}")
            self.setup.append((f"{self.names[key]} = array({shown!r}, {dtype.name!r})", "constant"))
        return self.names[key]

    # --------------------------------------------------------------------------- memory

    def plan(self):
        """When each piece of memory is read for the last time."""
        self.last = {}
        for i, node in enumerate(self.program.nodes):
            self.roots[node.output] = node.output
            if is_view(node):
                self.roots[node.output] = self.roots.get(node.operands[0], node.operands[0])
            for v in node.operands:
                self.last[self.roots.get(v, v)] = i
        for v in self.program.results:
            if v is not None:
                self.last[self.roots.get(v, v)] = len(self.program.nodes)
        self.free = {}

    def release(self, node, i):
        """Give back the memory of operands that are not needed any more."""
        for root in {self.roots.get(v, v) for v in node.operands}:
            if self.last.get(root) == i and root in self.stored:
                name = self.stored.pop(root)
                self.free.setdefault((root.shape, root.dtype), []).append(name)

    def memory_for(self, node, i):
        """The name under which the output of a node is written."""
        out = node.output
        if out in self.places:
            self.names[out] = self.places[out]
            return self.places[out]
        if is_elementwise(node):
            for v in node.operands:
                fits = v in self.stored and v.shape == out.shape and v.dtype == out.dtype
                if fits and self.last[v] == i and self.roots.get(v) is v:
                    self.stored[out] = self.stored.pop(v)
                    self.in_place += 1
                    return self.rename(out, self.name(v), "in place")
        name = self.name(out)
        pool = self.free.get((out.shape, out.dtype))
        if pool:
            self.stored[out] = pool.pop()
            self.setup.append((f"{name} = {self.stored[out]}", "memory used again"))
            return name
        self.imports.add("empty")
        self.setup.append((f"{name} = empty({out.shape}, {out.dtype.name!r})", "buffer"))
        self.buffers.append((name, out.shape, out.dtype))
        self.stored[out] = name
        return name

    def rename(self, out, name, why):
        """Write over what is called `name`; the output is called so too, if it has no own name."""
        own = re.sub(r"_\d+$", "", name)
        if not out.name or out.name in (name, own):
            self.names[out] = name
        else:
            self.setup.append((f"{self.name(out)} = {name}", why))
        return self.name(out)

    def fixed(self, value):
        """Whether the memory of a Value is the same in every run."""
        root = self.roots.get(value, value)
        return root in self.stored or root in self.places or root.given == "parameter" or (
            isinstance(root.const, np.ndarray))  # fmt: skip

    # --------------------------------------------------------------------------- lines

    def write_all(self):
        """A line for every node."""
        for v in self.program.arguments:
            self.name(v)
        self.plan()
        for i, node in enumerate(self.program.nodes):
            self.write(node, i)
            self.release(node, i)
        for v, place in self.places.items():
            if v not in self.placed:
                self.imports.add("copyto")
                self.lines.append((f"copyto({place}, {self.name(v)})", "result"))

    def write(self, node, i):
        """One node as one line."""
        out = node.output
        code = self.code(node)
        if is_view(node):
            self.view(node, code)
            return
        elif "{out}" in code:
            target = self.memory_for(node, i)
            line = code.format(out=target)
            if out in self.places:
                self.placed.add(out)
        else:
            line = f"{self.name(out)} = {code}"
        self.lines.append((line, comment(node)))

    def view(self, node, code):
        """A view: made once if its memory stays where it is, else in every step."""
        name, (source,) = self.name(node.output), node.operands[:1]
        if self.fixed(source):
            self.setup.append((f"{name} = {code}", "view"))
        else:
            self.lines.append((f"{name} = {code}", comment(node)))

    def code(self, node):
        """The call of a node, with `{out}` where its output goes."""
        f = function_of(node)
        args = [self.name(v) if not is_number(v) else None for v in node.operands]
        if isinstance(f, np.ufunc) and f is not np.matmul:
            return self.ufunc(f, node, args)
        args = [a if a is not None else self.constant(v.const) for a, v in zip(args, node.operands)]
        if f is np.matmul:
            return self.product(node, args)
        if f in REDUCTIONS and not set(node.params) - {"axis", "keepdims"}:
            name = self.numpy(f"{REDUCTIONS[f]}") + ".reduce"
            params = {"axis": None, **node.params}
            given = "".join(f", {k}={v!r}" for k, v in params.items())
            return f"{name}({args[0]}{given}{self.out(node, named=True)})"
        if node.operation.name == "cast":
            if self.is_new(node):
                return f"{args[0]}.astype({node.output.dtype.name!r})"
            self.imports.add("copyto")
            return f"copyto({{out}}, {args[0]}, 'unsafe')"
        if f is np.transpose and node.params.get("axes") is None:
            return f"{args[0]}.T"
        if f in (np.reshape, np.ravel) and node.params.get("order", "C") == "C":
            return f"{args[0]}.reshape({node.output.shape})"
        if node.operation.name == "getitem":
            return f"{args[0]}[{self.literal(node.params['index'])}]"
        if node.operation.name in ("alias", "detach"):
            return f"{args[0]}[...]"
        return self.call(f, node, args)

    def ufunc(self, f, node, args):
        """np.f(a, b, out), numbers as arrays of one element."""
        dtypes = [v.dtype for v in node.operands if not is_number(v) and v.dtype.kind == "f"]
        for k, v in enumerate(node.operands):
            if args[k] is None:
                weak = isinstance(v.const, (int, float)) or v.dtype in dtypes
                same = len(set(dtypes)) == 1 and weak and not isinstance(v.const, bool)
                args[k] = self.as_array(v, dtypes[0]) if same else self.constant(v.const)
        name = f.__name__ if hasattr(np, f.__name__) else None
        if name is None:
            name = self.fresh(f.__name__)
            self.given[name] = f
        else:
            self.numpy(name)
        return f"{name}({', '.join(args)}{self.out(node, named=f in NAMED_OUT)})"

    def product(self, node, args):
        """A product of matrices: np.dot up to two axes, where it is quicker."""
        flat = all(0 < len(v.shape) <= 2 for v in node.operands)
        same = len({v.dtype for v in (*node.operands, node.output)}) == 1
        name = self.numpy("dot" if flat and same else "matmul")
        return f"{name}({args[0]}, {args[1]}{self.out(node)})"

    def out(self, node, named=False):
        """The text for the output argument."""
        if self.is_new(node):
            return ""
        return ", out={out}" if named else ", {out}"

    def is_new(self, node):
        """Whether the output is made anew: a number, or what is handed to the caller."""
        return node.output.shape == () or node.output is self.program.results[0]

    def call(self, f, node, args):
        """Any other function, as it was called."""
        params = dict(node.params)
        if isinstance(f, str):
            name = self.fresh(f) if f not in self.given else f
            self.given[name] = node.operation.kernel
        elif f in WITH_OUT or getattr(np, f.__name__, None) is f:
            name = self.numpy(f.__name__)
        elif getattr(np.linalg, f.__name__, None) is f:
            name = self.numpy(f"linalg.{f.__name__}")
        else:
            name = self.fresh(f.__name__)
            self.given[name] = f
        shown = [*args, *(f"{k}={self.literal(v)}" for k, v in params.items())]
        if f in WITH_OUT and not self.is_new(node):
            shown.append("out={out}")
        return f"{name}({', '.join(shown)})"

    def literal(self, value):
        """A parameter as text, or the name of a constant."""
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)
        if isinstance(value, (tuple, list)) and not any(isinstance(v, np.ndarray) for v in value):
            inner = ", ".join(self.literal(v) for v in value)
            return f"({inner},)" if isinstance(value, tuple) else f"[{inner}]"
        if isinstance(value, np.dtype):
            return repr(value.name)
        if isinstance(value, slice):
            return f"slice({value.start}, {value.stop}, {value.step})"
        if value is Ellipsis:
            return "..."
        return self.constant(value)

    def copied(self, name):
        """A copy for the caller, of what is not his."""
        self.given.setdefault("copied", np.array)
        return f"copied({name})[()]"

    # --------------------------------------------------------------------------- the text

    def layout(self, title):
        """The whole text."""
        output = self.program.results[0]
        mine = output.node is not None and not is_view(output.node)
        returned = self.name(output) if mine else self.copied(self.name(output))
        places = dict.fromkeys(self.places.values())
        given = ", ".join([*self.given, *places])
        head = [f'"""{title}"""', ""]
        if self.imports:
            head += [f"from numpy import {', '.join(sorted(self.imports))}", ""]
        body = [f"def bind({given}):"]
        width = max((len(code) for code, _ in self.setup), default=0)
        body += [f"    {code:{min(width, 60)}}  # {note}" for code, note in self.setup]
        arguments = ", ".join(self.name(v) for v in self.program.arguments)
        body += ["", f"    def step({arguments}):"]
        width = max((len(code) for code, _ in self.lines), default=0)
        self.first_line = len(head) + len(body) + 1
        body += [f"        {code:{min(width, 60)}}  # {note}" for code, note in self.lines]
        body += [f"        return {returned}", "", "    return step", ""]
        return "\n".join(head + body)


def is_number(value):
    """Whether an operand is a plain number."""
    return isinstance(value.const, (int, float, np.generic)) and not isinstance(value.const, bool)


def comment(node):
    """Where a line came from: the user's line and the operation or rule."""
    return f"{node.line}  {node.note}".strip()
