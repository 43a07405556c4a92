"""The Fourier analysis of `benchmarks/bench_arms.py`."""
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parent / "benchmarks"))
import bench_arms  # noqa: E402


@pytest.mark.parametrize(
    ("arms", "pa_deg", "inclination_deg", "winding"), [(2, 30, 0, 1), (3, 70, 50, -1), (5, 0, 30, 1)]
)
def test_arms_of_a_drawn_spiral_are_counted(arms, pa_deg, inclination_deg, winding):
    side, pitch = 161, 20
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    turn = np.deg2rad(pa_deg)
    major, minor = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn))
    minor = minor / np.cos(np.deg2rad(inclination_deg))
    radius, angle = np.hypot(major, minor) + 1e-6, np.arctan2(minor, major)
    wave = np.cos(arms * (angle - winding * np.log(radius) / np.tan(np.deg2rad(pitch))))
    grey = 10 + 150 * np.exp(-radius / 20) * (1 + 0.6 * wave)
    truth = {"frame_arcsec": side, "pa_deg": pa_deg, "inclination_deg": inclination_deg, "disk_scale_arcsec": 20,
             "arm_pitch_deg": pitch}  # fmt: skip
    found = bench_arms.spectra(np.repeat(grey[..., None], 3, 2).clip(0, 255).astype(np.uint8), truth)
    amplitudes, mean, *along = np.split(found, np.cumsum([len(bench_arms.RADII) * 8, 8, 8]))
    assert mean.argmax() + 1 == arms == np.median(amplitudes.reshape(-1, 8).argmax(1)) + 1
    assert max(one.max() for one in along) > mean.max() - 0.2 and max(map(np.max, along)) == np.max(along[winding < 0])
