"""The recipe of GZ DECaLS, and the only place of the survey's constants: pixel, noise, stretch, framing."""

import numpy as np

ZERO_POINT = 22.5  # magnitude of one nanomaggie
NATIVE_ARCSEC = 0.262  # pixel of the survey's camera; brightness is in nanomaggies per such a pixel
SKY_NOISE = np.array((0.002, 0.0033, 0.0058), np.float32)  # typical noise of a native pixel [nanomaggies], g, r, z
# Divisors in nanomaggies per native pixel for z, r, g (shown as red, green, blue), and the stretched values drawn
# as black and white. They are those of the GZ DECaLS pipeline (Walmsley et al. 2022, section 3.2).
SCALES = np.array((0.019, 0.014, 0.008), np.float32)
BLACK, WHITE = np.arcsinh(np.array((-0.5, 300.0), np.float32))
DECALS_FRAMING = 17.0  # [R50] side of a stamp: 424 pixels of 0.04 R50 (Walmsley et al. 2022, MNRAS 509, 3966)


def colour(bands: np.ndarray) -> np.ndarray:
    """Turn g, r, z surface brightness into the colour picture that volunteers saw.

    An arcsinh stretch (Lupton et al. 2004, PASP 116, 133), in each band by itself as in GZ DECaLS; then pixels in which
    one colour dominates are drawn towards grey, which hides the coloured speckle of sky noise.

    Args:
        bands: [3, H, W] float, g, r, z in nanomaggies per native pixel of 0.262 arcsec.

    Returns:
        ndarray: uint8 [H, W, 3], red, green, blue.
    """
    rgb = np.arcsinh(bands[::-1] / SCALES[:, None, None])
    rgb -= BLACK
    rgb /= WHITE - BLACK
    mean = rgb.mean(axis=0)
    mean[mean == 0] = 1.0
    dominant = np.where(mean < 0, rgb.min(axis=0), rgb.max(axis=0))
    dominance = np.minimum(dominant / mean / np.float32(2.5), 1.0)
    weight = np.sin((1.0 - dominance) * np.float32(np.pi / 2))
    rgb = rgb * weight + mean * (1.0 - weight) + mean * (1.0 - weight) ** 2 * rgb
    return (np.clip(rgb, 0.0, 1.0) * 255.0).astype(np.uint8).transpose(1, 2, 0)
