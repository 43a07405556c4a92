"""From the memory-mapped images to the tensors that a model sees."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from zoobook.images import views as augment


class Batches:
    """Goes through images in batches, reading the next ones while the current one is in use.

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

    @property
    def _sizes(self) -> list[int]:
        """How many galaxies the batch of each yielded part has."""
        batches = augment.batches(np.arange(len(self.rows)), self.batch_size)
        return [len(batch) for batch in batches for _ in range(self.parts)]

    def __iter__(self) -> Iterator[tuple[tf.Tensor, ...]]:
        def arrays():
            for batch, views in self._plan(self.epoch):
                for part in range(self.parts):
                    yield tuple(self._read(batch[part :: self.parts], views[part :: self.parts]))

        return iter(_dataset(arrays, self._signature()))

    def _share(self, replica: int, of: int) -> tf.data.Dataset:
        """What one of several devices that work together sees of an epoch.

        Args:
            replica: the number of the device.
            of: how many devices there are.

        Returns:
            Dataset: images, views, targets, and float32 [B] what each galaxy counts in the mean over its whole batch,
                which is the mean of the sums over the batch's parts.
        """

        def arrays():
            for batch, views in self._plan(self.epoch):
                for first in range(self.parts):
                    part, part_views = batch[first :: self.parts], views[first :: self.parts]
                    enough = len(part) >= of
                    mine = slice(replica, None, of) if enough else slice(None)
                    found = self._read(part[mine], part_views[mine])
                    count = len(batch) / self.parts * (1 if enough else of)
                    yield (*found, np.full(len(found[0]), 1 / count, np.float32))

        return _dataset(arrays, (*self._signature(), tf.TensorSpec([None], tf.float32)))

    def _plan(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        n = len(self.rows)
        if self.seed is None:
            order, views = np.arange(n), augment.centre_views(n, self.share)
        else:
            order = augment.order(n, self.seed, epoch)
            views = augment.views(n, self.seed, epoch, self.share, self.photometric)
        for batch in augment.batches(order, self.batch_size):
            yield batch, views[batch]

    def _read(self, batch: np.ndarray, views: np.ndarray) -> list[np.ndarray]:
        found = [self.pixels[self.rows[batch]], views]
        return found if self.targets is None else [*found, self.targets[batch]]

    def _signature(self) -> tuple[tf.TensorSpec, ...]:
        views = augment.views(0, 0, 0, photometric=self.photometric)
        known = [self.pixels, views, *([] if self.targets is None else [self.targets])]
        return tuple(tf.TensorSpec([None, *array.shape[1:]], array.dtype) for array in known)


def look(
    images: tf.Tensor, views: tf.Tensor, channels: int, image_size: int, share: float = augment.CENTRE
) -> tf.Tensor:
    """What the model sees of stored images, in one resampling (bilinear; beyond the edge there is sky).

    Args:
        images: uint8 [N, H, W, 3].
        views: float32 [N, 2, 3] or [N, 5, 3], see :func:`zoobook.images.views.views`.
        channels: 1 for grey (the plain mean of the colours, as in Zoobot), 3 for colour.
        image_size: side of the result, in pixels.
        share: side of the view at evaluation as a share of the stored side.

    Returns:
        Tensor: float32 [N, image_size, image_size, channels], from 0 to 1.
    """
    images = tf.convert_to_tensor(images)
    if tf.config.list_physical_devices("GPU"):
        return _resample(images, views, channels, image_size, share)

    def on_cores(images: np.ndarray, views: np.ndarray) -> np.ndarray:
        return augment.look(images, views, channels, image_size, share)

    seen = tf.numpy_function(on_cores, [images, views], tf.float32)
    return tf.ensure_shape(seen, [images.shape[0], image_size, image_size, channels])


def _resample(images: tf.Tensor, views: tf.Tensor, channels: int, image_size: int, share: float) -> tf.Tensor:
    """The same as :func:`zoobook.images.views.look`, all images at once, as a GPU likes it."""
    stored = images.shape[1]
    factor, side, margin = augment.shrinking(stored, image_size, share)
    kept = slice(margin, margin + side * factor)
    sky = tf.cast(tf.concat([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], 1), tf.float32)
    sky = tf.sort(sky, 1)[:, None, None, augment.sky_rank(sky.shape[1])]
    seen = tf.cast(images[:, kept, kept], tf.float32)
    if channels == 1:
        seen, sky = tf.reduce_mean(seen, 3, keepdims=True), tf.reduce_mean(sky, 3, keepdims=True)
    if factor > 1:
        seen = tf.nn.avg_pool2d(seen, factor, factor, "VALID")
    seen = tf.raw_ops.ImageProjectiveTransformV3(
        images=seen - sky,
        transforms=_pixel_maps(views[:, :2], stored, factor, margin, image_size),
        output_shape=[image_size, image_size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    seen = (seen + sky) / 255
    return seen if views.shape[1] == 2 else _through_other_telescopes(seen, views[:, 2:])


def _through_other_telescopes(seen: tf.Tensor, how: tf.Tensor) -> tf.Tensor:
    """Views [N, S, S, C] with other seeing, sky, stretch, brightness and noise, see :func:`zoobook.images.views.views`."""
    size, channels = seen.shape[2:]
    sigma, taken, gamma, brightness, deviation, start = tf.unstack(tf.reshape(how[:, :2], [-1, 6, 1, 1, 1]), axis=1)
    # A blur whose edges mirror the view, as the product with a matrix for each axis
    here, there = np.arange(size)[:, None], np.arange(size)
    steps = np.stack([here - there, here + there + 1, 2 * size - 1 - here - there])
    kernel = tf.exp(-0.5 * (steps.astype(np.float32) / tf.maximum(sigma * size / 64, 0.05)) ** 2)
    kernel = tf.reduce_sum(kernel, 1)
    kernel = kernel / tf.reduce_sum(kernel, 2, keepdims=True)
    seen = tf.einsum("nij,njkc->nikc", kernel, seen)
    seen = tf.einsum("nkj,nijc->nikc", kernel, seen)
    values, step = size * size * channels, augment.sky_step(size)
    some = tf.reshape(seen, [-1, size * size, channels])[:, ::step]
    some = tf.reshape(some, [-1, some.shape[1] * channels])
    sky = tf.sort(some, 1)[:, augment.sky_rank(some.shape[1], augment.SKY), None, None, None]
    seen = tf.maximum(seen - taken * sky, 0) ** gamma * brightness
    if channels == 3:
        seen *= how[:, 2, None, None]
    pool = augment.noise_pool(values)
    begin = tf.cast(tf.reshape(start, [-1, 1]) * (len(pool) - values), tf.int32)
    noise = tf.gather(tf.constant(pool), begin + np.arange(values, dtype=np.int32))
    return tf.clip_by_value(seen + deviation * tf.reshape(noise, [-1, size, size, channels]), 0, 1)


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
    images = np.repeat(image[None], n_views, axis=0)
    views = augment.views(n_views, seed, 0, share, photometric)
    seen = look(images, views, channels, image.shape[0], share).numpy()
    return np.broadcast_to((255 * seen).round().astype(np.uint8), (*seen.shape[:3], 3))


def _pixel_maps(views: tf.Tensor, stored: int, factor: int, margin: int, wanted: int) -> tf.Tensor:
    """Views, whose coordinates run from -1 to 1, as maps [N, 8] between pixels counted from 0."""
    views = tf.cast(views, tf.float64)
    linear = views[:, :, :2] * (stored / wanted / factor)
    corner = tf.reduce_sum(views[:, :, :2], axis=2) * (1 / wanted - 1) + views[:, :, 2]
    shift = ((corner + 1) * stored / 2 - margin) / factor - 0.5
    rows = tf.reshape(tf.concat([linear, shift[:, :, None]], axis=2), [-1, 6])
    return tf.cast(tf.pad(rows, [[0, 0], [0, 2]]), tf.float32)


def _dataset(arrays, signature: tuple[tf.TensorSpec, ...]) -> tf.data.Dataset:
    options = tf.data.Options()
    options.autotune.enabled = False  # nothing to tune here, and each iterator would wait seconds for its tuner to end
    return tf.data.Dataset.from_generator(arrays, output_signature=signature).prefetch(2).with_options(options)
