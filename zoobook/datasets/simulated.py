"""The simulated survey as a data set: made on this machine, nothing is downloaded."""

from pathlib import Path

import pandas as pd

from zoobook import simulation
from zoobook.datasets.names import home


def load(
    root: str | Path | None = None, n_galaxies: int = 6000, image_size: int = 128, seed: int = 0
) -> pd.DataFrame:
    """Load the simulated survey, making the galaxies that are not on disk yet.

    The arguments are those of :func:`zoobook.simulation.make_survey`; ``root`` is the home of all data sets by default.
    """
    return simulation.make_survey(home(root), n_galaxies, image_size, seed)
