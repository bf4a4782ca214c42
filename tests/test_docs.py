"""The pages in docs/ and the README: their examples run, and what code writes is current."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

import tinyflux as flux
from tinyflux.primitive import OPERATIONS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


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


def test_list_of_operations_is_current():
    spec = importlib.util.spec_from_file_location("operations_page", ROOT / "docs/operations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/operations.md").read_text() == module.page()


def test_every_public_name_has_a_docstring():
    for name in dir(flux):
        public = getattr(flux, name)
        if not name.startswith("_") and callable(public):
            assert public.__doc__, name
