"""The table of derivatives: importing it declares the operations on NumPy's functions.

One file per family. Each entry is a NumPy function with the derivative towards each operand, where
`g` is the gradient of the output `y`.
"""

from . import elementwise, index, join, linalg, nn, products, reduce, shape  # noqa: F401
