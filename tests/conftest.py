"""Fixtures and options of every test file; who runs beside others keeps to one core."""
import os
import sys
from importlib.util import find_spec
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before anybody imports NumPy or a framework
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "book" / part) for part in ("_tools", "_ext", "encoder")]  # whose programs are tested too

import pytest  # noqa: E402
from browser import chromium  # noqa: E402
from server import Server  # noqa: E402
from toys import survey  # noqa: E402

import zoobook  # noqa: E402

SLOW_FILES = {"test_distributed.py", "test_scale.py"}  # many processes, killed again and again


def pytest_addoption(parser):
    parser.addoption("--only", choices=tuple(zoobook.FRAMEWORKS), help="of two frameworks, this one")


def pytest_collection_modifyitems(config, items):
    kept, left_out = [], []
    for item in items:
        if item.path.name in SLOW_FILES:
            item.add_marker("slow")
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        named = {value for value in values if isinstance(value, str) and value in zoobook.FRAMEWORKS}
        only = config.getoption("only")
        (left_out if only and named and only not in named else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.fixture(scope="session")
def shared():
    """The folder of real galaxies and facts beside the checkout; tests that need it are skipped without it."""
    folder = ROOT.parent / "shared"
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


@pytest.fixture
def store():
    """The images of the toy survey."""
    return survey()[0]


@pytest.fixture
def catalog():
    """Its galaxies with votes, subsets and labels; shared by all tests, so to be left as it is."""
    return survey()[1]


@pytest.fixture
def server():
    """A web server without files; test files give it theirs."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")  # no longer: its event loop is in the way of the notebooks of other tests
def browser():
    """A browser, started once a file."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    """A page in it, which shares nothing with the pages of other tests."""
    page = browser.new_page(viewport={"width": 1200, "height": 950})
    page.set_default_timeout(60_000)
    yield page
    page.close()
