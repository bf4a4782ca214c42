"""Blocks: runs of elementwise rows over large arrays, done a few rows at a time.

A chain of calls over arrays that are larger than the cache fetches each of them from memory anew.
Done for 32 rows, then for the next 32, all stays in the cache, and what only the chain itself
reads needs no more memory than one block.
"""

from typing import NamedTuple

import numpy as np

from .nodes import is_elementwise

LARGE = 1 << 20  # bytes of an array; below it blocks were no quicker in any measurement
BLOCK = 1 << 17  # bytes of a block of it
SHORTEST = 3  # calls


class Run(NamedTuple):
    """Nodes `start` to `stop`, whose outputs all have the same shape of `length` rows."""

    start: int
    stop: int
    length: int
    rows: int
    members: list
    local: set  # the values that nothing outside the run reads

    def operands(self):
        """The values that the run reads."""
        return dict.fromkeys(v for node in self.members for v in node.operands)

    def is_sliced(self, value):
        """Whether a value goes through the run block by block; if not, each block reads all."""
        shape, out = value.shape, self.members[0].output.shape
        return len(shape) == len(out) and shape[0] == self.length


def find_runs(program, memory):
    """The runs of a program that are worth it."""
    runs, start, nodes = [], 0, program.nodes
    while start < len(nodes):
        stop, members = extent(nodes, start, memory)
        if len(members) >= SHORTEST:
            runs.append(run_of(program, start, stop, members))
        start = max(stop, start + 1)
    return runs


def extent(nodes, start, memory):
    """(stop, members) of the longest run from node `start` on; views in between only get a name."""
    first, members, stop = nodes[start], [], start
    for k in range(start, len(nodes)):
        node = nodes[k]
        if joins(node, first, memory):
            members.append(node)
            stop = k + 1
        elif not members or node.output not in memory.bound or node.output is memory.results[0]:
            break
    return stop, members


def joins(node, first, memory):
    """Whether a node can be done block by block together with the first of a run."""
    shape = first.output.shape
    if not is_elementwise(node) or not memory.has_out(node) or node.output.shape != shape:
        return False
    same = node.origin.silenced == first.origin.silenced
    size = np.prod(shape) * first.output.dtype.itemsize
    return same and size >= LARGE and rows_of(first) < shape[0] and all(
        aligned(v, memory) or (v.shape != shape and v.shape[:1] != shape[:1])
        for v in node.operands
    )  # fmt: skip


def aligned(v, memory):
    """Whether the rows of an operand stand where nothing else of the run is written."""
    root = memory.root(v)
    return root is v or root.node is None


def rows_of(node):
    """How many rows of the output of a node make a block."""
    out = node.output
    return max(1, BLOCK // max(1, int(np.prod(out.shape[1:])) * out.dtype.itemsize))


def run_of(program, start, stop, members):
    """The run, with what is local to it."""
    inside = {id(node) for node in members}
    outside = {v for node in program.nodes if id(node) not in inside for v in node.operands}
    outside.update(program.results)
    local = {node.output for node in members} - outside
    length = members[0].output.shape[0]
    return Run(start, stop, length, rows_of(members[0]), members, local)
