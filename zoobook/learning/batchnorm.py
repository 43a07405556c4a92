"""The statistics that batch normalisation uses in evaluation, computed anew when a training is over."""
from __future__ import annotations

import numpy as np

from zoobook.images import ImageStore
from zoobook.images.views import share_seen
from zoobook.learning.batches import GalaxyBatches
from zoobook.learning.engine import Twin
from zoobook.learning.models import GalaxyNetwork

MEAN, VARIANCE = ".running_mean", ".running_var"


def recompute_batchnorm_stats(
    twin: Twin,
    model: GalaxyNetwork,
    store: ImageStore,
    rows: np.ndarray,
    *,
    batch_size: int = 512,
    photometric: bool = False,
    seed: int = 0,
) -> GalaxyNetwork:
    """A model whose batch normalisation knows many galaxies, not the few dozen of a training's last batches.

    Training keeps running averages over about ten batches. A rare galaxy that excites one filter strongly, such as a
    disk seen edge-on at one angle, is mostly not among them; in evaluation it is then divided by too small a number,
    and its features are many times too large ("precise" batch normalisation, Wu & Johnson 2021, arXiv:2105.07576).

    Args:
        twin: the framework.
        model: a trained model; it is left as it is.
        store: images of galaxies as it has learned from.
        rows: int64 [N], which of them.
        batch_size: images at a time.
        photometric: whether views are varied as if through other telescopes too, as in the training.
        seed: of the random views.

    Returns:
        GalaxyNetwork: the same model with new statistics.
    """
    spec, arrays = model.spec, twin.models.to_arrays(model)
    means = [name for name in arrays if name.startswith("encoder.") and name.endswith(MEAN)]
    unknown = arrays | {name: np.zeros_like(arrays[name]) for name in means}
    other = twin.models.from_arrays(spec, unknown)
    share = share_seen(spec, store)
    batches = GalaxyBatches(store.pixels, rows, batch_size, seed=seed, share=share, photometric=photometric)
    moments: dict[str, np.ndarray] = {}  # weighted sums of means and mean squares
    for images, views in twin.engine.GalaxyLoader(batches):
        twin.models.set_arrays(other, unknown)
        seen = twin.models.apply_view(images, views, spec["channels"], spec["image_size"], share)
        twin.models.initialize_batchnorm_stats(other, seen)
        found, weight = twin.models.to_arrays(other), len(images) / len(rows)
        for mean in means:
            variance = mean.removesuffix(MEAN) + VARIANCE
            first = found[mean].astype(np.float64)
            moments[mean] = moments.get(mean, 0) + weight * first
            moments[variance] = moments.get(variance, 0) + weight * (found[variance] + first**2)
    for mean in means:
        variance = mean.removesuffix(MEAN) + VARIANCE
        moments[variance] = moments[variance] - moments[mean] ** 2
    return twin.models.from_arrays(spec, arrays | {name: x.astype(np.float32) for name, x in moments.items()})
