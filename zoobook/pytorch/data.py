"""From the memory-mapped images to the tensors that a model sees."""
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from zoobook.images import views as augment


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
        share: side of the view at evaluation as a share of the stored side, see :func:`zoobook.images.views.share_seen`.
        photometric: random views as if through other telescopes too.

    Yields:
        tuple: uint8 images [B, H, W, 3]; float32 views [B, 2 or 5, 3], see :func:`zoobook.images.views.views`;
            targets [B, ...] where there are any.
    """

    def __init__(
        self,
        pixels,
        rows: np.ndarray,
        batch_size: int,
        targets=None,
        seed: int | None = None,
        parts: int = 1,
        share: float = augment.CENTRE,
        photometric: bool = False,
    ):
        self.pixels, self.rows, self.batch_size, self.targets, self.seed = pixels, rows, batch_size, targets, seed
        self.share, self.photometric = share, photometric and seed is not None
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
            order, views = np.arange(n), augment.centre_views(n, self.share)
        else:
            order = augment.order(n, self.seed, self.epoch)
            views = augment.views(n, self.seed, self.epoch, self.share, self.photometric)
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


def look(
    images: torch.Tensor, views: torch.Tensor, channels: int, image_size: int, share: float = augment.CENTRE
) -> torch.Tensor:
    """What the model sees of stored images, in one resampling (bilinear; beyond the edge there is sky).

    Args:
        images: uint8 [N, H, W, 3].
        views: float32 [N, 2, 3] or [N, 5, 3], see :func:`zoobook.images.views.views`.
        channels: 1 for grey (the plain mean of the colours, as in Zoobot), 3 for colour.
        image_size: side of the result, in pixels.
        share: side of the view at evaluation as a share of the stored side.

    Returns:
        Tensor: float32 [N, channels, image_size, image_size], from 0 to 1, channels-last in memory.
    """
    if images.device.type == "cpu":
        seen = augment.look(images.numpy(), views.numpy(), channels, image_size, share)
        return torch.from_numpy(seen).permute(0, 3, 1, 2)
    return _resample(images, views, channels, image_size, share)


def _resample(
    images: torch.Tensor, views: torch.Tensor, channels: int, image_size: int, share: float
) -> torch.Tensor:
    """The same as :func:`zoobook.images.views.look`, all images at once, as a GPU likes it."""
    stored = images.shape[1]
    factor, side, margin = augment.shrinking(stored, image_size, share)
    kept = side * factor
    sky = torch.cat([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], 1).sort(1).values
    sky = sky[:, augment.sky_rank(sky.shape[1]), :, None, None].float()
    seen = images[:, margin : margin + kept, margin : margin + kept].permute(0, 3, 1, 2).float()
    if channels == 1:
        seen, sky = seen.mean(1, keepdim=True), sky.mean(1, keepdim=True)
    if factor > 1:
        seen = F.avg_pool2d(seen, factor)
    maps = views[:, :2] * (stored / kept)
    maps[:, :, 2] += (stored - 2 * margin - kept) / kept  # the blocks may not lie in the middle
    grid = F.affine_grid(maps, (len(images), channels, image_size, image_size), align_corners=False)
    seen = F.grid_sample(seen - sky, grid, mode="bilinear", padding_mode="zeros", align_corners=False).add_(sky)
    seen = seen.div_(255)
    if views.shape[1] > 2:
        seen = _through_other_telescopes(seen, views[:, 2:])
    return seen.contiguous(memory_format=torch.channels_last)


def _through_other_telescopes(seen: torch.Tensor, how: torch.Tensor) -> torch.Tensor:
    """Views [N, C, S, S] with other seeing, sky, stretch, brightness and noise, see :func:`zoobook.images.views.views`."""
    n, channels, size = seen.shape[:3]
    sigma, taken, gamma, brightness, deviation, start = how[:, :2].reshape(n, 6, 1, 1, 1).unbind(1)
    # A blur whose edges mirror the view, as the product with a matrix for each axis
    place = torch.arange(size, device=seen.device)
    here, there = place[:, None], place
    steps = torch.stack([here - there, here + there + 1, 2 * size - 1 - here - there])
    kernel = torch.exp(-0.5 * (steps / (sigma * size / 64).clamp(min=0.05)) ** 2)
    kernel = kernel.sum(1, keepdim=True)
    kernel = kernel / kernel.sum(-1, keepdim=True)
    with torch.autocast(seen.device.type, enabled=False):
        seen = kernel @ seen @ kernel.mT
    some = seen.flatten(2)[:, :, :: augment.sky_step(size)].reshape(n, -1).sort(1).values
    sky = some[:, augment.sky_rank(some.shape[1], augment.SKY)].reshape(n, 1, 1, 1)
    seen = (seen - taken * sky).clamp(min=0) ** gamma * brightness
    if channels == 3:
        seen = seen * how[:, 2, :, None, None]
    values = channels * size * size
    pool = _noise_pool(values, seen.device)
    begin = (start.reshape(n) * (len(pool) - values)).long()
    noise = pool.unfold(0, values, 1)[begin].reshape(n, size, size, channels).permute(0, 3, 1, 2)
    return (seen + deviation * noise).clamp(0, 1)


@cache
def _noise_pool(size: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(augment.noise_pool(size)).to(device)


def preview(
    image: np.ndarray,
    n_views: int = 8,
    seed: int = 0,
    channels: int = 3,
    share: float = augment.CENTRE,
    photometric: bool = False,
) -> np.ndarray:
    """Random views of one galaxy, as training sees them, to look at.

    Args:
        image: uint8 [H, W, 3].
        n_views: how many views.
        seed: other seeds give other views.
        channels: 1 for grey, 3 for colour.
        share: side of the view at evaluation as a share of the image's side.
        photometric: as if through other telescopes too.

    Returns:
        ndarray: uint8 [n_views, H, W, 3].
    """
    images = torch.from_numpy(np.repeat(image[None], n_views, axis=0))
    views = torch.from_numpy(augment.views(n_views, seed, 0, share, photometric))
    seen = look(images, views, channels, image.shape[0], share).permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
    return (255 * seen).round().byte().numpy()


def _rank() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
