"""Every method and part runs on Vim and PlainMamba; on the other families the named methods do by default, the rest when slow."""

import pytest

from skimba import METHODS

EVERYTHING = {"vim", "plain_mamba"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or not {"model", "method"} <= call.params.keys():
            continue
        named = any(call.params["method"] is method for method in METHODS.values())
        if call.id.split("-")[0] not in EVERYTHING and not named:
            item.add_marker(pytest.mark.slow)
