"""Memory that begins where a line of the cache does, and so takes up to half as long to write.

`np.empty` mostly begins 16 bytes behind one.
"""

import numpy as np


def aligned(shape, dtype, make=np.empty):
    """An array of its own that begins at a line of the cache, of 64 bytes; `make`: or np.zeros.

    >>> a = aligned((2, 3), "float32")
    >>> a.shape, a.dtype, a.ctypes.data % 64
    ((2, 3), dtype('float32'), 0)
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = make(size + 64, np.uint8)
    start = -raw.__array_interface__["data"][0] % 64
    return raw[start : start + size].view(dtype).reshape(shape)
