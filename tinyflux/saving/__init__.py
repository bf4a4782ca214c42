"""Saving and loading: weights, and checkpoints from which training goes on as if nothing had been.

`tree.py` says what can be saved and `content.py` what is, `npz.py` and `safe.py` lay it out in
bytes, `files.py` writes them so that no file is ever lost, and `restoring.py` puts them back.
"""

from __future__ import annotations

import os
from typing import Any

from ..checks import as_flag, as_integer, shown
from ..errors import CheckpointError
from ..optimise.rule import UpdateRule
from . import npz, safe
from .content import arrays_of, content_of
from .files import read_whole, write_whole
from .restoring import has_nan, problems
from .restoring import write as put_back
from .tree import pack, unpack

__all__ = ["load_", "save"]

FORMATS: dict[str, Any] = {".npz": npz, ".safetensors": safe}
SHOWN = 500  # differences in a message
ROOM = 2**26  # bytes for extras


def save(
    path: str | os.PathLike[str],
    model: Any,
    opt: UpdateRule | None = None,
    loader: Any = None,
    *,
    allow_nan: bool = False,
    **extra: Any,
) -> None:
    """Write a model to a file; with its optimiser, a checkpoint to go on from.

    Parameters
    ----------
    path : str or Path
        Ends in `.npz`, or in `.safetensors` (needs the extra `safetensors`). An existing file is
        replaced.
    model : object
        Whatever `params` takes: a layer, a Chain, a list, a dict, an object of yours, a Tensor.
    opt : an optimiser, optional
        Then its state and hyper-parameters are saved too, and the random state of tinyflux and of
        the layers.
    loader : DataLoader, optional
        Then its position in the epoch is saved too, and the random states.
    allow_nan : bool
        True saves a model with NaN in it, and lets the file be loaded.
    **extra
        What else is to be kept: numbers, strings, arrays, lists and dicts of them.

    Raises
    ------
    ValueError
        If there is NaN in the model, no array in it, or a path that ends otherwise.
    TypeError
        For anything that cannot be saved.
    OSError
        If the file cannot be written.

    Notes
    -----
    If it raises, or is killed, the file is what it was before. Saved are the Tensors of the model,
    also frozen ones, under their names in `params(model)`, and the writeable arrays of numbers in
    public attributes of the model and its layers, such as running means. What is no array is not
    saved: train and test mode, `trainable`, a number that a layer counts. `docs/saving.md` tells
    what is in the file.

    Examples
    --------
    >>> import tempfile, tinyflux as flux
    >>> folder = tempfile.TemporaryDirectory()
    >>> model, again = flux.Dense(3, 2), flux.Dense(3, 2)
    >>> flux.save(folder.name + "/dense.npz", model, epoch=7)
    >>> flux.load_(folder.name + "/dense.npz", again)
    {'epoch': 7}
    >>> bool((again.weight == model.weight).all())
    True
    >>> folder.cleanup()
    """
    path, form = checked(path, opt, loader, "save")
    tree = content_of(model, opt, loader, extra)
    tree["nan"] = as_flag(allow_nan, "save: allow_nan")
    if not allow_nan and (bad := [name for name, a in tree["model"].items() if has_nan(a)]):
        raise ValueError(
            f"save: {', '.join(bad)} of the model {'have' if bad[1:] else 'has'} NaN; {path} was "
            "not written. If that is what you want: save(..., allow_nan=True)"
        )
    write_whole(path, form.write(*pack(tree)))


def load_(
    path: str | os.PathLike[str],
    model: Any,
    opt: UpdateRule | None = None,
    loader: Any = None,
    *,
    limit: int | None = None,
) -> dict[str, Any]:
    """Put what `save` wrote into a model that was made alike, in place.

    Parameters
    ----------
    path : str or Path
    model : object
        Its arrays get the saved values. Names, shapes and dtypes must be those in the file.
    opt : an optimiser, optional
        Gets its state and its hyper-parameters (`lr`, ...) back, and the random states are put back
        too. To go on with another learning rate, set `opt.lr` afterwards.
    loader : DataLoader, optional
        Gets its position back, and so do the random states: its next iteration is the rest of the
        epoch.
    limit : int, optional
        The largest file that is read, in bytes: 8 times the model and the order of the loader, and
        64 MiB, unless told.

    Returns
    -------
    dict
        What was saved as `**extra`. Tuples have become lists, and NumPy's numbers Python's.

    Raises
    ------
    CheckpointError
        If the file is damaged, was not written by `save`, or does not fit; all that does not fit is
        listed. Nothing has been changed then.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile, tinyflux as flux
    >>> folder = tempfile.TemporaryDirectory()
    >>> flux.save(folder.name + "/dense.npz", flux.Dense(3, 2))
    >>> flux.load_(folder.name + "/dense.npz", flux.Dense(4, 2, bias=False))
    Traceback (most recent call last):
    tinyflux.errors.CheckpointError: load_: .../dense.npz does not fit; nothing was changed:
      bias: not in the model
      weight: float32 (3, 2) in the file, float32 (4, 2) in the model
    >>> folder.cleanup()
    """
    return restored(path, model, opt, loader, limit)


def restored(
    path: Any, model: Any, opt: Any, loader: Any, limit: int | None = None, needed: Any = ()
) -> dict[str, Any]:
    """`load_`; the file must have the extras that are `needed`."""
    path, form = checked(path, opt, loader, "load_")
    expected = sum(a.nbytes for a in arrays_of(model).values())
    if hasattr(loader, "batchsize"):
        expected += len(loader) * loader.batchsize  # its order takes 8 bytes each
    limit = 8 * expected + ROOM if limit is None else as_integer(limit, "load_: limit", least=0)
    try:
        tree = unpack(*form.read(read_whole(path, limit)))
        wrong = list(problems(tree, model, opt, loader))
        lacking = [name for name in needed if name not in tree["extra"]]
        wrong += [f"the extras: there is no {name!r} in the file" for name in lacking]
        extra = {name: owned(value) for name, value in tree["extra"].items()}
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        why = error if isinstance(error, CheckpointError) else f"it is malformed ({error!r})"
        raise CheckpointError(f"load_: {path} was refused: {why}") from error
    if wrong:
        more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        lines = "\n  ".join([*wrong[:SHOWN], *more])
        raise CheckpointError(f"load_: {path} does not fit; nothing was changed:\n  {lines}")
    put_back(tree, model, opt, loader)
    return extra


def owned(tree: Any) -> Any:
    """The extras with arrays that belong to the caller, in the byte order of this machine."""
    if isinstance(tree, dict):
        return {key: owned(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [owned(value) for value in tree]
    return tree.astype(tree.dtype.newbyteorder("=")) if hasattr(tree, "dtype") else tree


def checked(path: Any, opt: Any, loader: Any, who: str) -> tuple[str, Any]:
    """The path as a string and what belongs to its ending; the arguments looked at."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{who}: path is {shown(path)}; wanted {who}(path, model), path first")
    path = os.fspath(path)
    form = FORMATS.get(os.path.splitext(path)[1].lower())
    if form is None:
        raise ValueError(f"{who}: the path must end in {' or '.join(FORMATS)}, got {path!r}")
    if opt is not None and not isinstance(opt, UpdateRule):
        raise TypeError(f"{who}: opt is {shown(opt)}; wanted an optimiser such as ADAM(0.001)")
    if loader is not None and not (hasattr(loader, "state") and hasattr(loader, "restore_")):
        raise TypeError(f"{who}: loader is {shown(loader)}; wanted a DataLoader")
    return path, form
