"""A program without the rows that look for 0 times infinity, which nearly never find any.

`cleared` puts 0 in the place of nan where no gradient comes in (see `ops/singular.py`). Without it
the nan would reach a gradient of the parameters, and those are looked at before every update. So a
training loop runs a program without these rows, and the whole one when a nan turns up.
"""

import copy

import numpy as np

from .nodes import function_of, is_event, is_view, replace_values
from .program import Node

# What becomes nan if an operand is nan.
PASSES_ON = {
    *(np.add, np.subtract, np.multiply, np.divide, np.negative, np.square, np.sqrt, np.exp),
    *(np.matmul, np.sum, "cast", "join", "scatter"),
}


def unchecked(program):
    """Return the program without its `cleared` rows; None where it has none, or cannot do without.

    It cannot where it would draw or write twice, and where a nan might be lost on the way.
    """
    if program.seed is not None or any(map(is_event, program.nodes)):
        return None
    found, new = set(), {}  # what may be nan now; output of a row that goes -> its operand
    for node in program.nodes:
        if function_of(node) == "cleared":
            new[node.output] = node.operands[0]
            found.add(node.output)
        elif not found.isdisjoint(node.operands):
            if function_of(node) not in PASSES_ON and not is_view(node):
                return None
            found.add(node.output)
    if not new or program.results[0] in found:
        return None
    less = copy.copy(program)
    less.nodes = []
    for node in program.nodes:
        if node.output in new:
            new[node.output].name = new[node.output].name or node.output.name
            continue
        twin = Node(node.operation, node.operands, node.params, node.origin)
        twin.output, node.output.node = node.output, twin
        less.nodes.append(twin)
    replace_values(less, new)
    less.passes = [*program.passes, ("unchecked", len(less.nodes))]
    return less
