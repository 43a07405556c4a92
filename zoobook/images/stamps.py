"""The pixels of a galaxy by its id, wherever they are: in a store, or in files."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from zoobook.catalogs.columns import check_ids, file_locations, ids_of
from zoobook.images.checks import BadImage
from zoobook.images.decoding import read_image
from zoobook.images.store import ImageStore

_GREY = 96  # what stands for an image that cannot be used


def by_id(images: ImageStore | pd.DataFrame, bad: list[str] | None = None) -> Callable[[str], np.ndarray]:
    """A function of a galaxy's id that gives its pixels, uint8 [H, W, 3]; a file that cannot be used is a grey square.

    They are in an image store, or in files of a catalogue with ``id_str`` and ``file_loc``; ``bad`` takes a message on
    each file that cannot be used.
    """
    if isinstance(images, ImageStore):
        return lambda galaxy: images.pixels[images.rows([galaxy])[0]]
    files = dict(zip(check_ids(images), file_locations(images), strict=True))

    def read(galaxy: str) -> np.ndarray:
        galaxy = ids_of(galaxy)[0]
        if galaxy not in files:
            raise ValueError(f"galaxy {galaxy!r} is not in the catalogue that says where the images are")
        try:
            return read_image(files[galaxy])
        except BadImage as error:
            if bad is not None:
                bad.append(str(error))
            return np.full((64, 64, 3), _GREY, np.uint8)

    return read
