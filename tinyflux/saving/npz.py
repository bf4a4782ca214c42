"""The layout of a saved .npz file, byte by byte.

It is a zip archive of uncompressed .npy files that `np.load` reads, with a text in front (the
manifest) and, as the comment of the archive, a SHA-256 digest of everything before it:

    tinyflux.json             the manifest: names, dtypes, shapes; numbers and strings
    layers[0].weight.npy      an array as `np.save` writes it, little-endian, in C order
    ...
    (the list of the members)
    tinyflux 1 sha256 ...

All bytes but those of the members follow from the manifest and the sizes. So there is one function
that says what a file looks like, `pieces`; the reader compares the file with it, instead of
believing what the headers of a stranger say. Field by field: section 4 of PKWARE's "APPNOTE.TXT -
.ZIP File Format Specification" 6.3.10 (all sizes in the form of zip64), and `numpy.lib.format`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from struct import pack as packed
from struct import unpack_from
from zlib import crc32

import numpy as np

from ..errors import CheckpointError
from .tree import FORMAT, Spec, as_array, read_manifest, refuse_future

MANIFEST = b"tinyflux.json"
LOCAL = 50  # bytes before the content of a member, without its name
SEAL = re.compile(rb"tinyflux (\d{1,9}) sha256 \Z")
DIGEST = 64  # characters, at the very end
WIDE = 0xFFFFFFFF  # the size stands in the field for large ones
UTF8, JANUARY_1980 = 0x800, 0x21
UNIX, MODE = 3 << 8 | 45, 0o600 << 16  # for those who unpack it


def member(name: bytes, content: tuple, at: int) -> tuple[bytes, bytes]:
    """The two headers of a member that begins at byte `at`: before it, and in the list."""
    size, crc = sum(map(len, content)), 0
    for part in content:
        crc = crc32(part, crc)
    common = packed("<5H3LH", 45, UTF8, 0, 0, JANUARY_1980, crc, WIDE, WIDE, len(name))
    local = b"PK\3\4" + common + packed("<H", 20)
    listed = b"PK\1\2" + packed("<H", UNIX) + common + packed("<4H2L", 28, 0, 0, 0, MODE, WIDE)
    return (
        local + name + packed("<2H2Q", 1, 16, size, size),
        listed + name + packed("<2H3Q", 1, 24, size, size, at),
    )


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What stands before the elements in a .npy file; filled up to a multiple of 64 bytes."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + packed("<H", len(text)) + text


def pieces(manifest: bytes, members: list[tuple[Spec, memoryview]]) -> Iterator[bytes | memoryview]:
    """A whole file but for its digest, in pieces."""
    contents: list[tuple[bytes, tuple]] = [(MANIFEST, (manifest,))]
    for spec, data in members:
        contents.append((f"{spec.name}.npy".encode(), (header(spec.dtype, spec.shape), data)))
    at, listed = 0, []
    for name, content in contents:
        before, entry = member(name, content, at)
        yield before
        yield from content
        at += len(before) + sum(map(len, content))
        listed.append(entry)
    directory = b"".join(listed)
    n, size, comment = len(listed), len(directory), b"tinyflux %d sha256 " % FORMAT
    yield directory
    yield packed("<4sQ2H2L4Q", b"PK\6\6", 44, UNIX, 45, 0, 0, n, n, size, at)
    yield packed("<4sLQL", b"PK\6\7", 0, at + size, 1)
    yield packed("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, WIDE, WIDE, len(comment) + DIGEST)
    yield comment


def write(manifest: bytes, arrays: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The pieces of a file, its digest last."""
    from hashlib import sha256

    members = [(Spec(name, a.dtype.str, a.shape), raw(a)) for name, a in arrays.items()]
    seen = sha256()
    for piece in pieces(manifest, members):
        seen.update(piece)
        yield piece
    yield seen.hexdigest().encode()


def raw(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order."""
    return array.reshape(-1).view(np.uint8).data


def read(data: bytes) -> tuple[bytes, dict[str, np.ndarray]]:
    """The manifest and the arrays of a file, which is what `write` would write, or refused."""
    from hashlib import sha256

    view = memoryview(data)
    end = max(len(data) - DIGEST, 0)
    seal = SEAL.search(data, max(end - 40, 0), end)
    if seal is None and data[:4] == b"PK\3\4":
        raise CheckpointError(
            "it is cut off, changed, or not written by tinyflux: np.load reads other .npz files"
        )
    if seal is None:
        raise CheckpointError("it is no .npz file that tinyflux has written")
    if sha256(view[:end]).hexdigest().encode() != data[end:]:
        raise CheckpointError("its bytes have changed since it was written (SHA-256 differs)")
    refuse_future(int(seal[1]))
    start = LOCAL + len(MANIFEST)
    (size,) = unpack_from("<Q", data, start - 8)
    manifest = bytes(view[start : start + size])
    members, at = [], start + size
    for spec in read_manifest(manifest)[1]:
        at += LOCAL + len(f"{spec.name}.npy".encode()) + len(header(spec.dtype, spec.shape))
        if at + spec.nbytes > end:
            raise CheckpointError("it says of itself that it is longer than it is")
        members.append((spec, view[at : at + spec.nbytes]))
        at += spec.nbytes
    at = 0
    for piece in pieces(manifest, members):
        if isinstance(piece, bytes) and piece != view[at : at + len(piece)]:
            raise CheckpointError(f"byte {at:,} and those behind it are not what they should be")
        at += len(piece)
    if at != end:
        raise CheckpointError("there is something in it that should not be there")
    return manifest, {spec.name: as_array(spec, part) for spec, part in members}
