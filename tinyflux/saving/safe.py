"""The layout of a saved .safetensors file: written and taken apart by the package of that name.

The manifest stands in its metadata, and in front of it a SHA-256 digest of all the other bytes of
the file, since the format has no checksum of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .tree import as_array, read_manifest

FIELD, DIGEST = b'"tinyflux":"', 64  # the digest stands behind the field, then the manifest
KINDS = {
    "|b1": "BOOL", "|i1": "I8", "|u1": "U8", "<i2": "I16", "<u2": "U16", "<i4": "I32",
    "<u4": "U32", "<i8": "I64", "<u8": "U64", "<f2": "F16", "<f4": "F32", "<f8": "F64",
}  # fmt: skip


def write(manifest: bytes, arrays: Mapping[str, np.ndarray]) -> list[bytes]:
    """The pieces of a file."""
    package()
    from safetensors.numpy import save

    for name, a in arrays.items():
        if a.dtype.str not in KINDS or name == "__metadata__":
            raise TypeError(
                f"save: {name} ({a.dtype}) cannot be in a .safetensors file; save as .npz"
            )
    # It reads the memory of arrays from front to back, whatever their strides say.
    owned = {name: np.asarray(a, order="C") for name, a in arrays.items()}
    data = bytes(save(owned, {"tinyflux": "0" * DIGEST + manifest.decode("ascii")}))
    at = data.index(FIELD) + len(FIELD)
    return [data[:at], digest(data, at), data[at + DIGEST :]]


def digest(data: bytes, at: int) -> bytes:
    """The digest of all bytes but those at its own place."""
    from hashlib import sha256

    view = memoryview(data)
    seen = sha256(view[:at])
    seen.update(view[at + DIGEST :])
    return seen.hexdigest().encode()


def read(data: bytes) -> tuple[bytes, dict[str, np.ndarray]]:
    """The manifest and the arrays of a file."""
    import json

    deserialize = package().deserialize
    end = 8 + int.from_bytes(data[:8], "little")
    at = data.find(FIELD, 8, min(end, len(data))) + len(FIELD)
    if at < len(FIELD) or end > len(data):
        raise CheckpointError(
            "it is cut off, changed, or not written by tinyflux: safetensors.numpy.load_file reads "
            "other files"
        )
    if digest(data, at) != data[at : at + DIGEST]:
        raise CheckpointError("its bytes have changed since it was written (SHA-256 differs)")
    found = dict(deserialize(data))
    manifest = json.loads(data[8:end])["__metadata__"]["tinyflux"][DIGEST:].encode("ascii")
    specs = read_manifest(manifest)[1]
    arrays = {}
    for spec in specs:
        entry = found.pop(spec.name, {})
        if (KINDS.get(spec.dtype), list(spec.shape)) != (entry.get("dtype"), entry.get("shape")):
            raise CheckpointError(f"{spec.name} is not what the manifest says")
        arrays[spec.name] = as_array(spec, memoryview(entry["data"]))
    if found:
        raise CheckpointError("it holds arrays that its manifest does not use")
    return manifest, arrays


def package() -> Any:
    """The package that knows the format."""
    try:
        import safetensors
    except ImportError:
        raise ImportError(
            'a .safetensors file needs safetensors: pip install "tinyflux-autodiff[safetensors]"'
        ) from None
    return safetensors
