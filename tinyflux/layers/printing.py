"""How layers print: `repr` is one line that reads as the constructor, `str` one line a layer."""

from ..checks import brief
from ..walking import named_tensors


def constructor(layer, *args, **options):
    """`Name(args, key=value)`, with functions by their names, and no option that is the default."""
    usual = getattr(type(layer).__init__, "__kwdefaults__", None) or {}
    given = [text(a) for a in args]
    given += [f"{k}={text(v)}" for k, v in options.items() if k not in usual or v != usual[k]]
    return f"{type(layer).__name__}({', '.join(given)})"


def text(value):
    """A value as it would be typed."""
    name = getattr(value, "__name__", None)
    if name and callable(value):
        return name.strip("<>")  # "lambda"
    if type(value).__repr__ is object.__repr__:
        return f"{type(value).__name__}()"
    try:
        return repr(value)
    except (ValueError, RecursionError):  # nested too deeply, or an integer of 5000 digits
        return brief(value)


def summary(model):
    """The model layer by layer, with its parameters counted in one column.

    Examples
    --------
    >>> import tinyflux as flux
    >>> print(flux.summary(flux.Chain(flux.Dense(784, 32, flux.sigmoid), flux.Dense(32, 10))))
    Chain(
      Dense(784, 32, sigmoid),  # 25_120 parameters
      Dense(32, 10),            # 330 parameters
    )                           # 25_450 parameters, 4 arrays, 99.4 KiB
    """
    lines = list(outline(model, 0, ""))
    width = max(len(line) for line, _ in lines)
    tensors = parameters(model)
    size = sum(t._array.nbytes for t in tensors)
    frozen = sum(t.size for t in tensors if not getattr(t, "trainable", True))
    total = f"{len(tensors)} arrays, {size / 1024:.1f} KiB"
    if frozen:
        total += f", {frozen:_} of them frozen"
    shown = []
    for i, (line, n) in enumerate(lines):
        note = f"  # {n:_} parameters" if n else ""
        if i == len(lines) - 1:
            note = f"{note or '  # no parameters'}, {total}"
        shown.append(f"{line:{width}}{note}".rstrip())
    return "\n".join(shown)


def parameters(model):
    """The Tensors of a model, frozen ones too; buffers are none of them."""
    return [t for _, t in named_tensors(model) if getattr(t, "trainable", True) is not None]


def outline(layer, depth, name):
    """Lines (text, number of parameters); a container shows what is in it."""
    pad, end = "  " * depth, "," if depth else ""
    n = sum(t.size for t in parameters(layer))
    inside = getattr(layer, "layers", None)
    if not isinstance(inside, (tuple, list)):
        yield f"{pad}{name}{text(layer)}{end}", n
        return
    yield f"{pad}{name}{type(layer).__name__}(", 0
    names = getattr(layer, "names", None) or [None] * len(inside)
    for key, part in zip(names, inside, strict=True):
        yield from outline(part, depth + 1, f"{key}=" if key else "")
    yield f"{pad}){end}", 0 if depth else n
