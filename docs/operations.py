"""Writes docs/operations.md from the declarations: `python docs/operations.py`."""

import inspect
from pathlib import Path

import tinyflux as flux
from tinyflux.primitive import OPERATIONS, PLAIN

HERE = Path(__file__).parent
TITLES = {
    "elementwise": "Elementwise",
    "reduce": "Reductions",
    "products": "Products of matrices and tensors",
    "linalg": "Linear algebra",
    "shape": "Shape",
    "join": "Joining and splitting",
    "index": "Indexing",
    "nn": "Softmax and its relatives",
    "activations": "Activations",
}


def page():
    """The text of the page: the introduction, and a list for each family."""
    families = {}
    for operation in OPERATIONS.values():
        name = called(operation)
        if name is not None:
            families.setdefault(home(operation), []).append(name)
    families["index"].append("x[...]")
    parts = [(HERE / "operations_head.md").read_text()]
    for family, title in TITLES.items():
        parts.append(f"## {title}\n\n{listed(families[family])}\n")
    parts.append("## Without a gradient: the result is a plain array\n")
    parts.append(listed(dotted(f) for f in PLAIN) + "\n")
    return "\n".join(parts)


def listed(names):
    """Names in alphabetical order, as code."""
    return ", ".join(f"`{name}`" for name in sorted(set(names), key=str.lower))


def home(operation):
    """The file in which an operation is declared: that of its rule or its definition."""
    written = operation.body or operation.joint or next(filter(None, operation.rules), None)
    return inspect.getmodule(written).__name__.rpartition(".")[2]


def called(operation):
    """What a user calls an operation; None for one that only serves others."""
    if operation.public is not operation:
        return dotted(operation.public)
    return f"flux.{operation.name}" if getattr(flux, operation.name, None) is operation else None


def dotted(function):
    """np.exp, np.linalg.inv, scipy.special.erf."""
    module = getattr(function, "__module__", None) or "numpy"  # a ufunc of NumPy has none
    return f"{module.replace('numpy', 'np')}.{function.__name__}"


if __name__ == "__main__":
    (HERE / "operations.md").write_text(page())
