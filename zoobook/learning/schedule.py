"""The learning-rate schedule."""

import numpy as np


def learning_rate_factors(steps: int) -> np.ndarray:
    """The learning rate of each step as a share of the highest: a short linear warm-up, then half a cosine.

    Float32 [steps + 1], from above 0 to 1 and down to 0.01.
    """
    step = np.arange(steps + 1)
    warm_up = max(1, steps // 20)
    cosine = 0.5 + 0.5 * np.cos(np.pi * np.clip((step - warm_up) / max(1, steps - warm_up), 0, 1))
    return (np.minimum(1, (step + 1) / warm_up) * np.maximum(cosine, 0.01)).astype(np.float32)
