"""A check: is all as it was? Expressions over objects, compiled to one function of Python.

It tells what has changed, too, in words that a reader of the program knows.
"""

import re
from types import FunctionType, MethodType, ModuleType

AT_FIRST, WHOLE = 100, 1 << 22  # so many times, some 4 MiB of an array are compared
SAMPLES = 128  # and after that so many elements
MANY = 1 << 16  # elements of a large array of more than WHOLE bytes, in the first calls
LABEL = re.compile(r"\bo\d+\b")
SUBJECT = re.compile(r"(vars\(o\d+\)|\bo\d+)(\.get\([^)]*\)|\[[^]]*\]|\.\w+\b(?!\())*")


class Large:
    """A large array: all of it is compared in the first calls, later some elements in turn.

    Of a very large one it is never more than every so many elements.
    """

    def __init__(self, array):
        self.array, self.calls = array, 0
        self.step = 1 if array.nbytes <= WHOLE else array.size // MANY | 1
        self.copy = self.part(0, self.step).copy()

    def part(self, begin, step):
        """Every so many elements, in the order of the memory if there is one."""
        a = self.array
        return (a.ravel("K") if a.flags.forc else a.flat)[begin::step]

    def unchanged(self):
        """Whether what is looked at in this call is as it was."""
        step = 1 if self.calls < AT_FIRST else self.copy.size // SAMPLES | 1
        begin = self.calls % step
        self.calls += 1
        now = self.part(begin * self.step, step * self.step)
        return now.tobytes() == self.copy[begin::step].tobytes()


class Check:
    """Collects the texts of expressions over bound objects that are all true now.

    Attributes
    ----------
    checks : list of str
    bound : dict
        The objects by the names that they have in the texts.
    places : dict
        id of an object -> where it was found, for messages.
    """

    def __init__(self):
        self.checks, self.bound, self.labels, self.places = [], {}, {}, {}

    def label(self, thing):
        """A name for an object in the text of the checks."""
        if id(thing) not in self.labels:
            self.labels[id(thing)] = name = f"o{len(self.bound)}"
            self.bound[name] = thing
        return self.labels[id(thing)]

    def compiled(self):
        """A function without arguments: whether all is as it is now."""
        # as arguments with defaults the objects are found quicker than as globals
        lines = [f"def check({', '.join(f'{name}={name}' for name in self.bound)}):", " try:"]
        checks = list(dict.fromkeys(self.checks))
        for i in range(0, len(checks), 50):
            lines.append(f"  if not ({' and '.join(checks[i : i + 50])}): return False")
        lines += ["  return True", " except Exception: return False"]
        scope = dict(self.bound)
        exec("\n".join(lines), scope)
        scope["check"].changed = lambda: self.changed(checks)
        return scope["check"]

    def changed(self, checks):
        """What has changed, as text."""
        for text in checks:
            try:
                same = eval(text, dict(self.bound))
            except Exception:
                same = False
            if not same:
                return self.told(SUBJECT.search(text)[0])
        return "something"  # other elements of a large array were looked at

    def told(self, place):
        """The expression for a place in words that a reader knows."""
        text = LABEL.sub(lambda m: self.where(self.bound[m[0]]), place)
        text = re.sub(r"\.get\(('\w+')\)", r"[\1]", text.replace(".cell_contents", ""))
        text = text.replace("._array", ".data")
        return re.sub(r"globals\[('?)(\w+)\1\]", r"\2", text)

    def where(self, thing):
        """Where an object was found, or what it is."""
        if isinstance(thing, MethodType) and isinstance(thing.__self__, Large):
            thing = thing.__self__.array
        place = self.places.pop(id(thing), None)  # once, so that a circle ends
        if place is None:
            named = isinstance(thing, (type, FunctionType, ModuleType))
            return thing.__name__ if named else type(thing).__name__
        text = self.told(place)
        self.places[id(thing)] = place
        return text
