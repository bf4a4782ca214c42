"""Memory: which values stand where, in a buffer of their own or in one that is free again."""

import numpy as np

from .blocks import find_runs
from .nodes import function_of, is_elementwise, is_view

# These reduce as `add.reduce(x, axis=...)`, which is quicker than `sum(x, axis=...)`.
REDUCTIONS = {np.sum: "add", np.max: "maximum", np.min: "minimum", np.amax: "maximum",
              np.amin: "minimum", np.prod: "multiply"}  # fmt: skip
WITH_OUT = {np.mean, np.cumsum, np.cumprod, np.clip, np.take, np.var, np.std}
OURS_WITH_OUT = {"cast", "join", "scatter", "place", "cleared"}


def is_reduction(node):
    """Whether a node is a plain reduction over axes."""
    return function_of(node) in REDUCTIONS and not set(node.params) - {"axis", "keepdims"}


def is_opaque(node):
    """Whether a node calls a kernel that may return one of its operands, or a view of it."""
    f = function_of(node)
    if isinstance(f, str):
        return f not in OURS_WITH_OUT and f != "getitem"
    return not isinstance(f, np.ufunc) and (f.__module__ or "").split(".")[0] != "numpy"


def read_on_the_way_back(program):
    """What the second half reads of the first; it may run several times for one run of that."""
    outputs = [node.output for node in program.nodes]
    first = outputs.index(program.results[0]) + 1 if program.results[0] in outputs else 0
    made = set(outputs[:first])
    return [v for node in program.nodes[first:] for v in node.operands if v in made]


class Memory:
    """Where the values of a program stand, and how long they are needed.

    Attributes
    ----------
    roots : dict
        Value -> the Value in whose memory it stands (a view), or itself.
    bound : set of Value
        The views that are made once, because what they look into stays where it is.
    stored : dict
        Value -> the name of its buffer, as long as it is needed.
    runs : list of Run
        What is done block by block.
    """

    def __init__(self, program):
        self.results = program.results
        self.roots, self.bound, self.stored = {}, set(), {}
        self.free = {}  # (shape, dtype) -> names of buffers that nobody needs
        self.patterns = {}  # Value -> an array that is laid out as its memory
        self.last = {}  # root -> number of the last node that reads it
        for i, node in enumerate(program.nodes):
            self.follow(node)
            for v in node.operands:
                self.last[self.root(v)] = i
        end = len(program.nodes)
        kept = [v for v in program.results if v is not None]
        kept += [v for node in program.nodes if is_opaque(node) for v in node.operands]
        if program.seed is not None:
            kept += read_on_the_way_back(program)
        self.last.update(dict.fromkeys(map(self.root, kept), end))
        self.runs = find_runs(program, self)
        self.blocks = {v: (run.rows, *v.shape[1:]) for run in self.runs for v in run.local}
        for run in self.runs:  # what every block reads is needed until the last of them
            for v in {self.root(v) for v in run.operands() if not run.is_sliced(v)}:
                self.last[v] = max(self.last.get(v, 0), run.stop - 1)

    def shape(self, value):
        """The shape of the buffer of a value: that of a block, if it lives only within a run."""
        return self.blocks.get(value, value.shape)

    def root(self, value):
        """The Value in whose memory `value` stands."""
        return self.roots.get(value, value)

    def follow(self, node):
        """Note whether the output of a node is a view, as far as that is known before it runs."""
        x = node.operands[0] if node.operands else None
        if not is_view(node):
            return
        pattern = self.pattern(x)
        if pattern is None:  # it stands somewhere else in every run: a view or a copy
            self.roots[node.output] = self.root(x)
            return
        looked = node.operation.kernel(pattern, **node.params)
        if isinstance(looked, np.ndarray):
            if looked.size == 0 or np.may_share_memory(looked, pattern):
                self.roots[node.output] = self.root(x)
                self.patterns[node.output] = looked
                self.bound.add(node.output)

    def pattern(self, value):
        """An array laid out as the memory of `value`; None if it is not the same in every run."""
        if value not in self.patterns:
            if value.given == "parameter":
                self.patterns[value] = value.tensor._array
            elif isinstance(value.const, np.ndarray):
                self.patterns[value] = value.const
            elif value.node is not None and self.has_out(value.node):
                self.patterns[value] = np.empty(value.shape, value.dtype)
        return self.patterns.get(value)

    def has_out(self, node):
        """Whether a node writes its output into memory that is given to it."""
        out, f = node.output, function_of(node)
        if out.shape == () or out is self.results[0]:
            return False  # a number, or what is handed to the caller, is made anew
        known = f in WITH_OUT or f in OURS_WITH_OUT or is_reduction(node)
        return isinstance(f, np.ufunc) or known

    def is_overwritten(self, node, i):
        """The operand whose memory the output of node `i` takes over, or None."""
        out = node.output
        if is_elementwise(node):
            for v in node.operands:
                fits = v in self.stored and self.shape(v) == self.shape(out)
                if fits and v.dtype == out.dtype and self.last[v] == i:
                    return v
        return None

    def take(self, out):
        """The name of a free buffer that fits, or None."""
        names = self.free.get((self.shape(out), out.dtype))
        return names.pop() if names else None

    def release(self, node, i):
        """Give back the memory of operands that are not needed any more."""
        for root in dict.fromkeys(map(self.root, node.operands)):
            if self.last.get(root) == i and root in self.stored:
                names = self.free.setdefault((self.shape(root), root.dtype), [])
                names.append(self.stored.pop(root))
