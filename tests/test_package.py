"""The package as a whole: light to import, and neutral where it says so."""
import subprocess
import sys

import pytest

import zoobook
from zoobook import chapters

HEAVY = "torch|tensorflow|keras|pytorch_lightning|timm"


def imported_by(code: str) -> set[str]:
    check = f"import sys; {code}; print(*[m for m in '{HEAVY}'.split('|') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_zoobook_imports_no_framework():
    assert imported_by("import zoobook") == set()
    parts = ", ".join(zoobook._PARTS)
    assert imported_by(f"from zoobook import {parts}") == set()
    assert imported_by("import zoobook.pytorch") == set()


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown framework 'jax': choose 'pytorch' or 'tensorflow'"):
        zoobook.load_framework("jax")
    with pytest.raises(ValueError, match="unknown framework 'jax'"):
        chapters.begin("jax", "simulated", "quick")
    with pytest.raises(ValueError, match="unknown dataset 'andromeda'"):
        chapters.begin("pytorch", "andromeda", "quick")
    with pytest.raises(ValueError, match="unknown scale 'huge': choose 'quick' or 'full'"):
        chapters.begin("pytorch", "simulated", "huge")
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = zoobook.colour


def test_votes_are_needed_where_votes_are_needed():
    with pytest.raises(ValueError, match="has ring labels but no votes"):
        chapters.begin("pytorch", "rings", "quick").survey()
