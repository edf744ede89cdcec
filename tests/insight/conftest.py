"""Everything runs on Vim and PlainMamba; on the other families, by default, that hidden attention is exact, dense and held; the
rest when slow."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
EVERYTHING = {"vim", "plain_mamba"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent != HERE:  # the hook is given the tests of all folders
            continue
        call = getattr(item, "callspec", None)
        if call is None or "model" not in call.params or call.id.split("-")[0] in EVERYTHING:
            continue
        if call.params.get("name") not in ("dense", "hold") or "reproduce" not in item.name:
            item.add_marker(pytest.mark.slow)
