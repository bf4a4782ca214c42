"""Small data to learn with: two real sets that come with the package, two that are drawn.

`digits` and `iris` are real measurements; `ATTRIBUTION.md`, next to this file, says whose they are.
`moons` and `spirals` are points in the plane whose classes no straight line separates.
"""

from .bundled import Split, digits, iris
from .drawn import moons, spirals

__all__ = ["Split", "digits", "iris", "moons", "spirals"]
