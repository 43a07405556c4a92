"""Fixtures that every test file may use."""
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared():
    """The folder of real galaxies and facts beside the checkout; tests that need it are skipped without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of real galaxies and facts, `../shared`, which is not on this machine")
    return folder
