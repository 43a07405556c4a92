"""The split into training, validation and test galaxies, and every other choice that is made by a galaxy's id alone."""

import hashlib

import numpy as np
import pandas as pd

from zoobook import arguments
from zoobook.catalogs.columns import a_frame, check_ids


def split(
    catalog: pd.DataFrame, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 0
) -> pd.DataFrame:
    """Divide galaxies between training, validation and test, each by its own id.

    The subset of a galaxy follows from a hash of its id and the seed, so it is the same in any row order, in any part
    of the catalogue, on any machine, and it stays as the catalogue grows. So the shares are as given only on average.

    Args:
        catalog: a catalogue.
        fractions: shares of train, val and test; they add up to 1.
        seed: another seed gives another, independent division.

    Returns:
        DataFrame: a copy with the column ``subset``: ``"train"``, ``"val"`` or ``"test"``.

    >>> split(pd.DataFrame({"id_str": ["1_2", "588017703996096547"]}))["subset"].tolist()
    ['train', 'val']
    """
    try:
        shares = np.asarray(fractions, dtype=float)
    except (TypeError, ValueError):
        shares = np.zeros(0)
    if shares.shape != (3,) or not np.all(shares >= 0) or abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions must be three shares (train, val, test), 0 or more, that add up to 1: {fractions}")
    seed = arguments.seed(seed)
    a_frame(catalog, "the catalogue")
    subset = np.searchsorted(np.cumsum(shares)[:2], _uniform(catalog, str(seed)), side="right")
    return catalog.assign(subset=np.array(["train", "val", "test"], dtype=object)[subset])


def shuffled(catalog: pd.DataFrame, seed: str) -> np.ndarray:
    """An order of the galaxies, [N] positions of rows, that depends on nothing but their ids and the seed.

    Args:
        catalog: a catalogue.
        seed: any text; another one gives another, independent order. A whole number would follow :func:`split`.
    """
    return np.argsort(_uniform(catalog, seed), kind="stable")


def _uniform(catalog: pd.DataFrame, seed: str) -> np.ndarray:
    """For each galaxy a number in [0, 1) that depends on nothing but its id and the seed."""
    hashes = (hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in check_ids(catalog))
    # the upper 53 bits, which a float64 holds exactly, so that 1.0 is never reached
    return np.array([(int.from_bytes(h, "big") >> 11) / 2**53 for h in hashes], dtype=float)
