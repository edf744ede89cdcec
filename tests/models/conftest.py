"""timm's contract and the sharing of weights are tested on Vim, PlainMamba and Mamba-Reg by default, on the others when slow."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALWAYS = {"vim", "plain_mamba", "mamba_reg"}
FILES = {"test_timm_contract.py", "test_sharing.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        call = getattr(item, "callspec", None)
        mine = item.path.parent == HERE and item.path.name in FILES and call is not None
        if mine and call.params.get("model", "vim") not in ALWAYS:
            item.add_marker(pytest.mark.slow)
