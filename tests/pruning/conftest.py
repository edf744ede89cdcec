"""Every method, part and target runs on Vim and PlainMamba; on the other families the named methods do by default, the rest when
slow."""

import pytest

from skimba import METHODS

EVERYTHING = {"vim", "plain_mamba"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or "model" not in call.params or call.id.split("-")[0] in EVERYTHING:
            continue
        named = any(call.params.get("method") is method for method in METHODS.values())
        if not named and ("method" in call.params or item.path.name == "test_targets.py"):
            item.add_marker(pytest.mark.slow)
