"""From the memory-mapped images to the tensors that a model sees."""
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.nn import functional as F

from zoobook import augment


class Batches:
    """Goes through images in batches; on a GPU, the next one is read while the current one is in use.

    The images stay bytes until they are on the device: :func:`look` turns them into what the model sees. Among
    several processes each takes its share of every batch.

    Args:
        pixels: uint8 [M, H, W, 3], usually memory-mapped.
        rows: int64 [N], which of them.
        batch_size: galaxies per batch, over all processes together.
        targets: [N, ...], what to learn about each; nothing for prediction.
        seed: shuffles and gives random views, other ones each epoch; ``None``: in order, central views.
        parts: into so many parts each batch is cut, to be yielded one after the other; fewer where a batch has not so
            many galaxies.

    Yields:
        tuple: uint8 images [B, H, W, 3]; float32 views [B, 2, 3]; targets [B, ...] where there are any.
    """

    def __init__(
        self, pixels, rows: np.ndarray, batch_size: int, targets=None, seed: int | None = None, parts: int = 1
    ):
        self.pixels, self.rows, self.batch_size, self.targets, self.seed = pixels, rows, batch_size, targets, seed
        self._batches = -(-len(rows) // batch_size)
        self.parts = min(parts, len(rows) // self._batches)
        self.epoch = 0

    def __len__(self) -> int:
        return self._batches * self.parts

    def _weight(self, number: int) -> float:
        """What the mean loss of a yielded part must be multiplied by, in this process.

        The mean over processes and parts is then the mean over the galaxies of a batch, also where these are cut
        unequally.

        Args:
            number: of the part in its epoch.
        """
        rank, processes = _rank()
        batch, part = divmod(number, self.parts)
        size = len(self.rows) // self._batches + (batch < len(self.rows) % self._batches)  # as augment.batches cuts
        in_part = len(range(part, size, self.parts))
        here = len(range(rank, in_part, processes)) if in_part >= processes else in_part / processes
        return here * processes * self.parts / size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        n = len(self.rows)
        if self.seed is None:
            order, views = np.arange(n), augment.centre_views(n)
        else:
            order, views = augment.order(n, self.seed, self.epoch), augment.views(n, self.seed, self.epoch)
        rank, processes = _rank()

        def read(batch: np.ndarray) -> tuple[torch.Tensor, ...]:
            batch = batch[rank::processes] if len(batch) >= processes else batch
            arrays = [self.pixels[self.rows[batch]], views[batch]]
            if self.targets is not None:
                arrays.append(self.targets[batch])
            tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
            return tuple(t.pin_memory() for t in tensors) if torch.cuda.is_available() else tuple(tensors)

        batches = augment.batches(order, self.batch_size)
        parts = (batch[first :: self.parts] for batch in batches for first in range(self.parts))
        if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
            yield from map(read, parts)  # all cores work on the current batch: to read ahead would only disturb them
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = None
            for part in parts:
                current, ahead = ahead, reader.submit(read, part)
                if current is not None:
                    yield current.result()
            yield ahead.result()


def look(images: torch.Tensor, views: torch.Tensor, channels: int, image_size: int) -> torch.Tensor:
    """What the model sees of stored images, in one resampling (bilinear; beyond the edge the image is mirrored).

    Args:
        images: uint8 [N, H, W, 3].
        views: float32 [N, 2, 3], see :mod:`zoobook.augment`.
        channels: 1 for grey (the plain mean of the colours, as in Zoobot), 3 for colour.
        image_size: side of the result, in pixels.

    Returns:
        Tensor: float32 [N, channels, image_size, image_size], from 0 to 1, channels-last in memory.
    """
    if images.device.type == "cpu":
        return torch.from_numpy(augment.look(images.numpy(), views.numpy(), channels, image_size)).permute(0, 3, 1, 2)
    return _resample(images, views, channels, image_size)


def _resample(images: torch.Tensor, views: torch.Tensor, channels: int, image_size: int) -> torch.Tensor:
    """The same as :func:`zoobook.augment.look`, all images at once, as a GPU likes it."""
    factor = augment.shrinking(images.shape[1], image_size)
    margin = images.shape[1] % factor // 2  # what does not fill a whole block is left off on both sides
    seen = images[:, margin:, margin:].permute(0, 3, 1, 2).float()
    if channels == 1:
        seen = seen.mean(1, keepdim=True)
    if factor > 1:
        seen = F.avg_pool2d(seen, factor)
    grid = F.affine_grid(views, (len(images), channels, image_size, image_size), align_corners=False)
    seen = F.grid_sample(seen, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return seen.div_(255).contiguous(memory_format=torch.channels_last)


def preview(image: np.ndarray, n_views: int = 8, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Random views of one galaxy, as training sees them, to look at.

    Args:
        image: uint8 [H, W, 3].
        n_views: how many views.
        seed: other seeds give other views.
        channels: 1 for grey, 3 for colour.

    Returns:
        ndarray: uint8 [n_views, H, W, 3].
    """
    images = torch.from_numpy(np.repeat(image[None], n_views, axis=0))
    views = torch.from_numpy(augment.views(n_views, seed, epoch=0))
    seen = look(images, views, channels, image.shape[0]).permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
    return (255 * seen).round().byte().numpy()


def _rank() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
