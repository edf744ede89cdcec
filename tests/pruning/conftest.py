"""Every named method, every part and every target is tried on Vim and PlainMamba; of two parts together one pair on Vim and the
next one on PlainMamba. On the other families the named methods are tried by default, and whatever is asked of a model once. The
rest is slow, and so are wrong settings on all but Vim.

What the head does not read is left out by every method on Vim, by the named ones on all families; other schedules than the first
one are tried with the named methods on Vim.
"""

import pytest

from skimba import METHODS
from tests.pruning.tried import FAMILIES, FAMILY


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        call = getattr(item, "callspec", None)
        if call is not None and "model" in call.params and not by_default(item, call.params):
            item.add_marker(pytest.mark.slow)


def by_default(item, params):
    family = params["model"]
    named = any(params.get("method") is method for method in METHODS.values())
    if item.originalname == "test_what_the_head_does_not_read_changes_no_answer":
        first = "first" in item.callspec.id.split("-")
        return (named or family == "vim") and (first or (named and family == "vim"))
    if "says" in params:  # of a wrong setting
        return family == "vim"
    if family in FAMILIES:
        return family == FAMILY.get(id(params.get("method")), family)
    once = params.keys() == {"model"} or params.get("name") == "hold"
    return named or (once and item.path.name != "test_targets.py")
