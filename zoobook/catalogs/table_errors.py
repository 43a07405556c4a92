"""What cannot be read as a table: which file, and why, in plain words."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path


class TableError(ValueError):
    """A table that cannot be read; the message says which, and why."""


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Where a table is read: every reader has its own errors; to the reader of the message they mean the same."""
    try:
        yield
    except TableError:
        raise
    except UnicodeDecodeError:
        raise TableError(f"{path} could not be read as a table: it is no text in UTF-8; save it as such") from None
    except Exception as error:
        reason = str(error).strip().splitlines()
        if found := re.search(r"EOF inside string starting at row (\d+)", str(error)):  # which pandas counts from 0
            reason = [f"row {int(found[1]) + 1} (counted from 1) has a quotation mark that is never closed"]
        raise TableError(
            f"{path} could not be read as a table: {reason[0] if reason else type(error).__name__}"
        ) from None
