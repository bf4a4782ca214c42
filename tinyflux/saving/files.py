"""Whole files: what stands under a name is the old content or the new one, never a part.

A file is written under another name beside its place, brought to the disk, and renamed. The other
name is `.<name>.<8 hexadecimal digits>.tmp`. It is gone when `write_whole` returns or raises; what
a killed process leaves is removed by the next `write_whole` to the same place, and only that:
whoever writes holds a lock, which ends with its process. (Without such locks, on Windows, nothing
is removed.)
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from ..errors import CheckpointError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, browsers
    fcntl = None  # type: ignore[assignment]


def write_whole(path: str, pieces: Iterable[bytes | memoryview]) -> None:
    """Put `pieces` into the file `path`; if that fails, the file is as it was before.

    A symbolic link is followed, an existing file keeps its permission bits.
    """
    target = os.path.realpath(path)
    mode = _mode(target)
    folder, name = os.path.split(target)
    _clean(folder, name)
    temporary = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.tmp")
    try:
        with _created(temporary, 0o666 if mode is None else 0o600) as fd:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(fd, mode)
            for piece in pieces:
                _write(fd, memoryview(piece))
            os.fsync(fd)
            if fcntl is not None:  # while it is locked, or somebody might take it for a stray
                os.replace(temporary, target)
        if fcntl is None:  # Windows renames no file that is open
            os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, Exception):  # Ctrl-C may have come just after the renaming
            error.add_note(f"save: {path} is as it was before")
        raise
    _sync(folder)


def _mode(target: str) -> int | None:
    """The permission bits of the file that will be replaced; None if there is none."""
    try:
        found = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no ordinary file, and will not be replaced by one", target)
    if not os.access(target, os.W_OK):  # it could be replaced, but that is not what is meant
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
    return stat.S_IMODE(found.st_mode)


@contextmanager
def _created(temporary: str, mode: int) -> Iterator[int]:
    """A new file, open and locked; the umask takes its bits from `mode`."""
    opener = partial(os.open, mode=mode)
    while True:
        # Ctrl-C may come before what is open has a name: a file object closes itself.
        with open(temporary, "xb", 0, opener=opener) as file:
            fd = file.fileno()
            if not _lock(fd) or os.fstat(fd).st_nlink:
                yield fd
                return
        # Somebody took it for a stray before it was locked: once more.


def _lock(fd: int, wait: bool = True) -> bool:
    """Lock an open file; whether that was possible."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # taken, or a file system without locks
        return False
    return True


def _clean(folder: str, name: str) -> None:
    """Remove what killed processes have left of this file."""
    stray = re.compile(re.escape(f".{name}.") + r"[0-9a-f]{8}\.tmp")
    if fcntl is None or (os.path.isdir(folder) and not os.access(folder, os.R_OK)):
        return
    for found in filter(stray.fullmatch, os.listdir(folder)):
        place = os.path.join(folder, found)
        with suppress(OSError):
            fd = os.open(place, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _lock(fd, wait=False):
                    os.unlink(place)
            finally:
                os.close(fd)


def _write(fd: int, rest: memoryview) -> None:
    """Write all of it, however much the operating system takes at once."""
    while len(rest):
        rest = rest[os.write(fd, rest) :]


def _sync(folder: str) -> None:
    """Bring the new name to the disk, where folders can be brought there."""
    if os.name != "posix":
        return
    try:
        fd = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to, but not read
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def read_whole(path: str, limit: int) -> bytes:
    """The content of a file, read once, of not more than `limit` bytes."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise CheckpointError(
                f"it takes {size:,} bytes, more than the {limit:,} that such a model may need; if "
                "that is right, say load_(..., limit=...)"
            )
        data = b""
        while part := file.read(size + 1 - len(data)):  # once, but for files of gigabytes
            data = data + part if data else part
    if len(data) != size:
        raise CheckpointError("its size changed while it was read")
    return data
