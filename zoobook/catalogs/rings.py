"""The two rules by which ring galaxies are labelled from votes."""

import numpy as np
import pandas as pd

from zoobook import arguments, trees
from zoobook.catalogs.fractions import vote_fraction
from zoobook.catalogs.split import shuffled


def ring_labels(catalog: pd.DataFrame, rule: str = "basic", balance: bool = False, seed: int = 0) -> pd.DataFrame:
    """Label ring galaxies by one of the two rules of Walmsley et al. (2022).

    ``"basic"``: 1 if any volunteer said ring, else 0. ``"advanced"``: 1 if the ring vote fraction is above 0.25, 0 if
    it is below 0.05, and galaxies between are dropped; only galaxies that are featured (fraction above 0.25) and not
    edge-on (above 0.75) are kept. Galaxies whom nobody was asked about are dropped by both.

    Args:
        catalog: a catalogue with ``rare-features-dr5_ring`` and ``rare-features-dr5_total-votes``; the advanced rule
            also needs the votes of ``smooth-or-featured-dr5`` and ``disk-edge-on-dr5``. Instead of votes, published
            ``…_fraction`` columns, with or without ``-dr5``, serve as well.
        rule: ``"basic"`` or ``"advanced"``.
        balance: keep as many non-rings as rings (or rings as non-rings), chosen by a hash of id and seed.
        seed: seed of that choice.

    Returns:
        DataFrame: the rows kept, in their order, with the column ``ring`` (int64, 0 or 1).
    """
    tree, rule = trees.load("decals_dr5"), arguments.choice("rule", rule, ("basic", "advanced"))
    ring = vote_fraction(catalog, tree, "rare-features_ring")
    if rule == "basic":
        label, keep = ring > 0, np.isfinite(ring)
    else:
        featured = vote_fraction(catalog, tree, "smooth-or-featured_featured-or-disk")
        face_on = vote_fraction(catalog, tree, "disk-edge-on_no")
        label = ring > 0.25
        keep = (label | (ring < 0.05)) & (featured > 0.25) & (face_on > 0.75)  # false where a fraction is NaN
    labelled = catalog[keep].assign(ring=label[keep].astype(np.int64))
    if arguments.truth("balance", balance):
        order = shuffled(labelled, f"balance:{arguments.seed(seed)}")
        rings = labelled["ring"].to_numpy()[order] == 1
        each = min(rings.sum(), (~rings).sum())
        chosen = np.concatenate([order[rings][:each], order[~rings][:each]])
        labelled = labelled.iloc[np.sort(chosen)]
    return labelled
