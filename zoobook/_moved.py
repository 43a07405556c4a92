"""Modules that have moved: their old names can be imported for one more version, with a warning."""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

MOVED = {
    "architectures": "learning.architectures",
    "augment": "images.views",
    "colour": "images.decals",
    "crossmatch": "catalogs.crossmatch",
    "decoding": "images.decoding",
    "labels": "learning.tasks",
    "runs": "learning.runs",
    "selection": "catalogs.samples",
    "tables": "catalogs.tables",
    "training": "learning.training",
}


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.rpartition(".")
        return ModuleSpec(fullname, self) if package == "zoobook" and name in MOVED else None

    def create_module(self, spec):
        new = f"zoobook.{MOVED[spec.name.rpartition('.')[2]]}"
        warnings.warn(f"{spec.name} is now {new}; the old name goes with the next version", DeprecationWarning, 2)
        return None

    def exec_module(self, module):
        sys.modules[module.__name__] = import_module(f"zoobook.{MOVED[module.__name__.rpartition('.')[2]]}")


def keep_old_names() -> None:
    """Let ``import zoobook.labels`` and the like find the module where it is now."""
    sys.meta_path.append(_Finder())
