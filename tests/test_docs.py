"""The pages in docs/ and the README: their examples run, and what code writes is current."""

import doctest
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import tinyflux as flux
from tinyflux.primitive import OPERATIONS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLAGS = doctest.ELLIPSIS  # but spaces as they are: a reader counts on the columns


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_of_a_page_run(page):
    declared = dict(OPERATIONS)
    try:
        result = doctest.testfile(str(page), module_relative=False, optionflags=FLAGS)
    finally:  # what a page declares is not for the other tests
        OPERATIONS.clear()
        OPERATIONS.update(declared)
    assert result.failed == 0


def test_first_example_of_the_readme_learns():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    names = {}
    flux.seed_(0)
    exec(code, names)
    assert len(code.splitlines()) <= 14
    assert names["history"].epoch_means()[-1] < 0.2


@pytest.mark.skipif(not hasattr(np, "matvec"), reason="the list has functions of NumPy 2.2")
def test_list_of_operations_is_current():
    spec = importlib.util.spec_from_file_location("operations_page", ROOT / "docs/operations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/operations.md").read_text() == module.page()


def prose(page):
    """The text of a page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def links(page):
    """Where the links of a page lead; brackets in code are none."""
    return re.findall(r"\]\(([^)\s]*)\)", re.sub(r"`[^`\n]+`", "", prose(page)))


def anchors(page):
    """What `#...` can lead to on a page: its headings in lower case, with hyphens for spaces."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    for target in links(page):
        file, _, anchor = target.partition("#")
        if ":" not in file:  # otherwise it is an address on the web
            there = page.parent / file if file else page
            assert there.exists() and there.resolve().is_relative_to(ROOT.resolve()), target
            assert not anchor or anchor in anchors(there), target


def test_the_readme_names_every_page():
    linked = {target.partition("#")[0] for target in links(PAGES[0])}
    assert {p.name for p in PAGES[1:] if f"docs/{p.name}" not in linked} == {"operations_head.md"}


def test_every_public_name_has_a_docstring():
    for name in dir(flux):
        public = getattr(flux, name)
        if not name.startswith("_") and callable(public):
            assert public.__doc__, name


def test_every_test_that_the_promise_names_exists():
    """docs/reliability.md names a test for each of its rows; a name alone is in the file before."""
    page = next(p for p in PAGES if p.name == "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| [A-L]\d", line)]
    assert len(rows) > 70
    for row in rows:
        names = re.findall(r"`(?:(test_\w+)\.py)?(?:::)?(test_\w+)?`", row.rpartition(" | ")[2])
        assert names or row.endswith("(none) |"), row
        module = ""
        for file, name in names:
            module = file or module
            text = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
            assert not name or f"\ndef {name}(" in text or f"    def {name}(" in text, (
                module,
                name,
            )
