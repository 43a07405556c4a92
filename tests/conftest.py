"""Fixtures that every test file may use."""
from importlib.util import find_spec
from pathlib import Path

import pytest

import zoobook


@pytest.fixture(scope="session")
def shared():
    """The folder of real galaxies and facts beside the checkout; tests that need it are skipped without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of real galaxies and facts, `../shared`, which is not on this machine")
    return folder


def installed(name: str):
    """The half of a framework; a test is skipped where it is not installed."""
    if find_spec(zoobook.FRAMEWORKS[name]) is None:
        pytest.skip(f"{name} is not installed")
    return zoobook.load_framework(name)


@pytest.fixture(params=zoobook.FRAMEWORKS)
def half(request):
    """`zoobook.pytorch`, then `zoobook.tensorflow`: what is promised must hold in both."""
    return installed(request.param)


@pytest.fixture
def halves():
    """Both of them, for what compares the two."""
    return [installed(name) for name in zoobook.FRAMEWORKS]
