"""What can be saved: a tree of dicts and lists, with numbers, strings and arrays as its leaves.

`pack` cuts such a tree into a text (JSON, the manifest) and its arrays, `unpack` puts it together
again. Nothing else goes into a file, so nothing in a file can be anything else: no code, no pickle.

>>> manifest, arrays = pack({"model": {"weight": np.ones(2)}, "extra": {"epoch": 3}})
>>> list(arrays), unpack(manifest, arrays)
(['weight'], {'model': {'weight': array([1., 1.])}, 'extra': {'epoch': 3}})
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..checks import refuse_masked, shown
from ..errors import CheckpointError
from ..tensor import Tensor

FORMAT = 1  # raised when older versions of tinyflux could no longer read what is written
ARRAY = "$array"  # {"$array": 7} in the manifest stands for the seventh array
DEEPEST = 60  # levels of a tree
LONGEST = 2**24  # bytes of a manifest, which takes some thirty times as much when it is read
PRECISION = int(np.finfo(np.longdouble).nmant)  # 63, 112, 105 or 52: longdouble differs
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
REALS = (np.float16, np.float32, np.float64, np.longdouble)
COMPLEX = (np.complex64, np.complex128, np.clongdouble)
DTYPES = {np.dtype(t).newbyteorder("<").str for t in (np.bool_, *INTEGERS, *REALS, *COMPLEX)}
EXTENDED = {np.dtype(t).newbyteorder("<").str for t in (np.longdouble, np.clongdouble)}


class Spec(NamedTuple):
    """What an array in the file is, as the manifest says."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes its elements take; a Python int, which does not overflow."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


def pack(tree: Mapping[str, Any]) -> tuple[bytes, dict[str, np.ndarray]]:
    """Cut a tree into its manifest and its arrays by name, little-endian and in C order."""
    import json

    arrays: dict[str, np.ndarray] = {}
    content = _packed(tree, (), arrays)
    listed = [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]
    whole = {"format": "tinyflux", "version": FORMAT, "precision": PRECISION}
    manifest = json.dumps({**whole, "arrays": listed, "content": content}).encode("ascii")
    if len(manifest) > LONGEST:
        raise ValueError(
            f"save: the numbers and strings take {len(manifest):,} bytes of text, more than "
            f"{LONGEST:,}; make arrays of long lists: np.array(history.losses)"
        )
    return manifest, arrays


def _packed(value: Any, path: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Any:
    """`value` as JSON can hold it; its arrays go into `arrays`."""
    if len(path) > DEEPEST:
        raise ValueError(f"save: {_place(path[:4])}... is too deep, or contains itself")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key == ARRAY:
                raise TypeError(f"save: {_place(path)} has the key {shown(key)}; wanted a str")
        return {str(k): _packed(v, (*path, str(k)), arrays) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(v, (*path, str(i)), arrays) for i, v in enumerate(value)]
    if isinstance(value, (np.bool_, np.integer, np.floating)) and type(value) is not np.longdouble:
        value = value.item()
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and not isinstance(value, np.str_):
        name = "/".join(path[1:] if path[0] == "model" else path)
        if name in arrays or not name.isprintable() or len(name) > 1000:
            raise ValueError(f"save: {shown(name)} cannot be the name of an entry, or is one twice")
        arrays[name] = _plain(value, path)
        return {ARRAY: len(arrays) - 1}
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise TypeError(
        f"save: {_place(path)} is {shown(value)}; numbers, strings, arrays, and lists and dicts of "
        "them can be saved. Take from it what you need: history.losses, str(path), table.to_numpy()"
    )


def _plain(value: Any, path: tuple[str, ...]) -> np.ndarray:
    """An array as it is stored."""
    refuse_masked(value, f"save: {_place(path)}")
    array = np.asarray(value.numpy() if isinstance(value, Tensor) else value)
    dtype = array.dtype.newbyteorder("<")
    if array.dtype.names is not None or dtype.str not in DTYPES:
        raise TypeError(
            f"save: {_place(path)} is an array of {array.dtype}; arrays of numbers can be saved, "
            "and lists of strings: use .tolist()"
        )
    return np.asarray(array.astype(dtype, copy=False), order="C")


def _place(path: tuple[str, ...]) -> str:
    """Where a value stands, in the words of the caller."""
    inner = path[1:] if path[0] in ("model", "extra") else path
    return inner[0] + "".join(f"[{key!r}]" for key in inner[1:]) if inner else "extra"


def read_manifest(manifest: bytes) -> tuple[Any, list[Spec]]:
    """The content of a manifest and the arrays it tells of, all of it checked."""
    import json

    if len(manifest) > LONGEST:
        raise CheckpointError(f"its manifest takes {len(manifest):,} bytes; too many")
    whole = json.loads(manifest.decode("ascii"), object_pairs_hook=_once)
    if not isinstance(whole, dict) or whole.get("format") != "tinyflux":
        raise CheckpointError("its manifest is not one of tinyflux")
    refuse_future(whole["version"])
    specs = [Spec(name, dtype, tuple(shape)) for name, dtype, shape in whole["arrays"]]
    for name, dtype, shape in specs:
        good = isinstance(name, str) and name.isprintable() and dtype in DTYPES and len(shape) <= 64
        if not good or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise CheckpointError(f"{_short(name)} is no array of numbers: {_short(dtype)} {shape}")
        if dtype in EXTENDED and whole["precision"] != PRECISION:
            raise CheckpointError(
                f"{_short(name)} is of np.longdouble, which has another form on this machine"
            )
    if len({spec.name for spec in specs}) < len(specs):
        raise CheckpointError("two of its entries have the same name")
    return whole["content"], specs


def refuse_future(version: Any) -> None:
    """Refuse a file of a later format than this one."""
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise CheckpointError(
            f"it has format {version!r}, and this version of tinyflux reads formats up to "
            f"{FORMAT}; a later version of tinyflux may read it"
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of the manifest, in which no key may come twice."""
    if len(dict(pairs)) < len(pairs):
        raise CheckpointError("a key of its manifest comes twice")
    return dict(pairs)


def _short(text: Any) -> str:
    """Something from a file, short enough for a message."""
    return shown(text)[:80]


def as_array(spec: Spec, data: memoryview) -> np.ndarray:
    """The array that `data` holds; it cannot be written to."""
    if spec.dtype == "|b1" and not np.all(np.frombuffer(data, np.uint8) <= 1):
        raise CheckpointError(f"{_short(spec.name)} has booleans that are neither 0 nor 1")
    return np.frombuffer(data, spec.dtype).reshape(spec.shape)


def unpack(manifest: bytes, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree again; each array in it is one of `arrays`."""
    content, specs = read_manifest(manifest)
    taken: set[int] = set()
    tree = _unpacked(content, [arrays[spec.name] for spec in specs], taken)
    if len(taken) < len(specs):
        raise CheckpointError("it holds arrays that its manifest does not use")
    return tree


def _unpacked(value: Any, arrays: list[np.ndarray], taken: set[int]) -> Any:
    if isinstance(value, list):
        return [_unpacked(v, arrays, taken) for v in value]
    if not isinstance(value, dict):
        return value
    if ARRAY not in value:
        return {k: _unpacked(v, arrays, taken) for k, v in value.items()}
    i = value[ARRAY]
    if type(i) is not int or len(value) > 1 or i in taken or not 0 <= i < len(arrays):
        raise CheckpointError("its manifest asks for an array that it does not have")
    taken.add(i)
    return arrays[i]
