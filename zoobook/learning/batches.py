"""In which order and in which batches a pass goes through the galaxies, and how a batch is cut among devices."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zoobook.images import views


def order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch goes through n galaxies: int64 [N], a permutation."""
    return np.random.default_rng([seed, epoch, 0]).permutation(n)


def split(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut an order into batches of nearly equal size, none above ``batch_size``: a small rest would upset statistics.

    Each batch is sorted, so that the disk is read forwards.
    """
    return [np.sort(part) for part in np.array_split(order, max(1, -(-len(order) // batch_size)))]


@dataclass
class GalaxyBatches:
    """The batches of images of one pass after the other; a framework's ``GalaxyLoader`` makes tensors of them.

    The images stay bytes until they are on the device, where ``apply_view`` turns them into what the model sees.
    """

    pixels: np.ndarray  # uint8 [M, H, W, 3], usually memory-mapped
    rows: np.ndarray  # int64 [N], which of them
    batch_size: int  # galaxies per batch, over all devices together
    targets: np.ndarray | None = None  # [N, ...], what to learn about each; nothing for prediction
    seed: int | None = None  # shuffles and gives random views, other ones each epoch; None: in order, central views
    parts: int = 1  # into which each batch is cut, one yielded after the other; fewer where one would hold one galaxy
    share: float = views.CENTRE  # of the stored side that a view at evaluation shows, see share_seen
    photometric: bool = False  # random views as if through other telescopes too
    epoch: int = 0  # which pass
    orientation: int = 0  # of central views, see centre_views

    def __post_init__(self):
        self.photometric = self.photometric and self.seed is not None
        self.batches = -(-len(self.rows) // self.batch_size)
        self.parts = max(1, min(self.parts, len(self.rows) // self.batches // 2))  # of one, nothing can be normalised

    def __len__(self) -> int:
        return self.batches * self.parts

    @property
    def sizes(self) -> list[int]:
        """For each part that is yielded, how many galaxies its whole batch has."""
        return [len(batch) for batch in split(np.arange(len(self.rows)), self.batch_size) for _ in range(self.parts)]

    def read(self, rank: int = 0, of: int = 1) -> Iterator[tuple]:
        """What one device, number ``rank`` ``of`` several that work together, sees of an epoch.

        Yields:
            tuple: uint8 images [B, H, W, 3]; float32 views [B, 2 or 5, 3]; and where there are targets, these [B, ...]
                and a number by which to divide each galaxy's loss: added up over galaxies and devices, and averaged
                over the parts, that gives the mean over the batch, also where it is cut unequally.
        """
        n = len(self.rows)
        if self.seed is None:
            galaxies, maps = np.arange(n), views.centre_views(n, self.share, self.orientation)
        else:
            galaxies = order(n, self.seed, self.epoch)
            maps = views.views(n, self.seed, self.epoch, self.share, self.photometric)
        for batch in split(galaxies, self.batch_size):
            for first in range(self.parts):
                part = batch[first :: self.parts]
                enough = len(part) >= of  # else each device takes all of it
                mine = part[rank::of] if enough else part
                found = self.pixels[self.rows[mine]], maps[mine]
                if self.targets is not None:
                    found = *found, self.targets[mine], len(batch) / self.parts * (1 if enough else of)
                yield found
