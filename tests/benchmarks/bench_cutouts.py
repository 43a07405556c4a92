"""How well galaxies are found, measured and cut on a simulated sky, and what the shipped encoder makes of the stamps.

Run: python tests/benchmarks/bench_cutouts.py [--galaxies 1000] [--pixels 0.262,0.7] [--large] [--out results.json]

Of each size of pixels, the results say how many bright galaxies are found and have a stamp, what else has one, how well
radii are measured, and how much of the votes' information the encoder captures from the stamps.
"""
import argparse
import hashlib
import json
import resource
import tempfile
import time
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from PIL import Image
from scipy.ndimage import convolve
from scipy.spatial import cKDTree

import zoobook
from zoobook import evaluation, simulation, trees, weights
from zoobook.images import ImageStore, cutouts, sources
from zoobook.simulation.mosaic import REACH, make_mosaic

BRIGHT = 17.8  # r magnitude
BINS = (13, 15, 16, 16.8, 17.3, 17.8, 18.5)
RADIUS_ERRORS = (0.5, 0.63, 0.8, 0.9, 1.0, 1.1, 1.25, 1.6, 2.0)
GALAXIES, WRONG = ("survey", "companion"), ("star", "bright star", "nothing", "piece")
ENCODER = "simulated_efficientnet_b0"
SIZE = 128


def match(found: pd.DataFrame, objects: pd.DataFrame, pixel: float) -> np.ndarray:
    """For each source the brightest object at its place (its row, or -1); each object once, by its brightest source."""
    reach = np.clip(0.6 * found["r50_pixels"].fillna(0), 1.0 / pixel, 6.0 / pixel)
    tree = cKDTree(objects[["x", "y"]])
    magnitude = objects["mag_r"].to_numpy()
    rows = [min(near, key=lambda j: magnitude[j]) if near else -1
            for near in tree.query_ball_point(found[["x", "y"]], reach)]
    rows = pd.Series(rows, index=found.index)
    best = found["flux"].fillna(0).sort_values(ascending=False).index
    again = rows[best].duplicated().reindex(rows.index) & (rows >= 0)
    return rows.mask(again, -2).to_numpy()  # -2: a piece


def contamination(sources: pd.DataFrame) -> tuple[dict, float]:
    """What sources are, and the share of stars, artifacts and pieces, where background galaxies count as neither."""
    counts = sources["kind"].value_counts().to_dict()
    wrong = sum(counts.get(kind, 0) for kind in WRONG)
    return counts, wrong / (wrong + sum(counts.get(kind, 0) for kind in GALAXIES))


def detection(found: pd.DataFrame, sky, pixel: float) -> tuple[dict, pd.DataFrame]:
    """Completeness, purity and the parting of stars; and the sources with the kind of their objects."""
    objects = sky.objects
    found = found.assign(object=match(found, objects, pixel))
    kinds = pd.Series(["piece", "nothing", *objects["kind"]], index=range(-2, len(objects)))
    found["kind"] = kinds[found["object"]].to_numpy()
    called = found[~found["flag_star"]]
    truth = objects[objects["kind"] == "survey"]
    seen = truth.index.isin(called["object"])
    bright = (truth["mag_r"] < BRIGHT).to_numpy()
    low, high = np.array(BINS[:-1]), np.array(BINS[1:])
    result = {"galaxies_brighter": int(bright.sum()), "completeness": seen[bright].mean(),
              "completeness_by_magnitude": {}, "purity_by_magnitude": {}, "stars_flagged": {}, "galaxies_flagged": {}}
    chosen = called[called["magnitude"] < BRIGHT]
    result["called_galaxies"], result["contamination"] = contamination(chosen)
    stamps = called[~called["flag_small"] & called["r50_pixels"].notna()]
    result["bright_without_stamp"] = 1 - truth.index[bright].isin(stamps["object"]).mean()
    result["stamps"], result["contamination_of_stamps"] = contamination(stamps[stamps["magnitude"] < BRIGHT])
    for a, b in zip(low, high, strict=True):
        name, of = f"{a:g}-{b:g}", (truth["mag_r"] >= a) & (truth["mag_r"] < b)
        if of.any():
            result["completeness_by_magnitude"][name] = seen[of].mean()
        part = called[(called["magnitude"] >= a) & (called["magnitude"] < b)]["kind"]
        good, bad = part.isin(GALAXIES).sum(), part.isin(WRONG).sum()
        result["purity_by_magnitude"][name] = good / max(good + bad, 1)
        part = found[(found["magnitude"] >= a) & (found["magnitude"] < b)]
        for key, of in (("stars_flagged", part["kind"].str.contains("star")),
                        ("galaxies_flagged", part["kind"].isin((*GALAXIES, "background")))):
            if of.any():
                result[key][name] = part.loc[of, "flag_star"].mean()
    return result | {"sources": len(found)}, found


def radii(found: pd.DataFrame, sky, pixel: float, seed: int) -> dict:
    """R50 over that of the galaxy alone, without noise."""
    own = found[found["kind"] == "survey"].set_index("object")
    ratios, alone = [], []
    none = np.zeros((1, 1), bool)
    for row, galaxy in zip(sky.galaxies.index, sky.galaxies.to_dict("records"), strict=True):
        if row not in own.index or galaxy["true_mag_r"] >= BRIGHT:
            continue
        size = 2 * int(REACH * galaxy["true_frame_arcsec"] / pixel / 2) + 1
        single = galaxy | {"true_companion_ratio": 0.0, "true_overlap_ratio": 0.0, "true_frame_arcsec": size * pixel}
        light = simulation.noise_free(single, size, seed)[1]
        middle = [np.array([(size - 1) / 2 + galaxy[f"true_offset_{axis}_arcsec"] / pixel]) for axis in "xy"]
        none = np.zeros(light.shape, bool)
        growth = sources._growth(sources._sep(), light, none, none.astype(np.int32), *middle, np.ones(1, np.int32))
        ratios.append(own.at[row, "r50_pixels"] / sources.petrosian(sources.RADII, growth)[0, 2])
        alone.append(not own.at[row, "flag_blend"])
    ratios, alone = np.array(ratios), np.array(alone)
    good = np.abs(ratios - 1) <= 0.2
    spread = np.nanpercentile(ratios, [5, 25, 50, 75, 95]).tolist()
    return {"galaxies": len(ratios), "within_20_percent": good.mean(), "percentiles_5_25_50_75_95": spread,
            "within_20_percent_unblended": good[alone].mean()}


def answers(found: pd.DataFrame, sky, mosaic, folder: Path, seed: int, frameworks: list) -> dict:
    """Information that the shipped encoder captures on the survey's own stamps and on those cut, at wrong radii too."""
    tree = trees.load("decals_dr5")
    own = found[(found["kind"] == "survey") & ~found["flag_star"]].sort_values("object")
    galaxies = sky.galaxies.loc[own["object"]]
    bright = (galaxies["true_mag_r"] < BRIGHT).to_numpy()
    own, galaxies = own[bright].assign(id_str=galaxies["id_str"].to_numpy()[bright]), galaxies[bright]
    pixels = np.stack([simulation.render(galaxy, SIZE, seed) for galaxy in galaxies.to_dict("records")])
    files = [str(folder / f"{number}.png") for number in range(len(pixels))]
    for file, picture in zip(files, pixels, strict=True):
        Image.fromarray(picture).save(file)
    stores = {"survey": ImageStore.build(galaxies[["id_str"]].assign(file_loc=files), folder / "survey.arrow", SIZE)}
    for error in RADIUS_ERRORS:
        wrong = own.assign(r50_arcsec=own["r50_arcsec"] * error, r90_arcsec=own["r90_arcsec"] * error)
        stores[f"{error:g}"] = cutouts.cut_stamps(mosaic, wrong, folder / f"cut-{error}.arrow", SIZE, bad="quarantine")
    mosaic.calibrated = False
    stores["by noise"] = cutouts.cut_stamps(mosaic, own, folder / "cut-noise.arrow", SIZE, bad="quarantine")
    mosaic.calibrated = True
    common = set.intersection(*(set(store.ids) for store in stores.values()))
    catalog = galaxies[galaxies["id_str"].isin(common)]
    result = {"galaxies": len(catalog)}
    for framework in frameworks:
        model, twin = weights.load(ENCODER, framework), zoobook.load_framework(framework)
        reference, captured = None, {}
        for name, store in stores.items():
            if framework != frameworks[0] and name not in ("survey", "1"):
                continue
            said = twin.predict(model, store)
            said = said.iloc[pd.Index(said["id_str"]).get_indexer(catalog["id_str"])]
            row = evaluation.evaluate(said, catalog, tree).loc["all"]
            captured[name] = {"information": row["information_captured"], "error": row["information_captured_error"]}
            columns = [f"{column}_fraction" for column in tree.label_columns]
            if name == "survey":
                reference = said[columns].to_numpy()
            captured[name]["mean_change_of_fractions"] = np.abs(said[columns].to_numpy() - reference).mean()
        result[framework] = captured
        result[f"{framework}_share_kept"] = captured["1"]["information"] / captured["survey"]["information"]
    return result


def large(sky, folder: Path, seconds: dict) -> dict:
    """The same sky again and again in one mosaic, until it has 100,000 sources."""
    times = int(np.ceil(np.sqrt(100_000 / seconds["sources"])))
    files = []
    for file in sky.files:
        data, header = fits.getdata(file, header=True)
        side = len(data)
        header["NAXIS1"] = header["NAXIS2"] = side * times
        files.append(folder / f"large-{file.name}")
        with open(files[-1], "wb") as out:
            out.write(header.tostring().encode())
            for _ in range(times):
                for start in range(0, side, 256):
                    out.write(np.tile(data[start : start + 256], (1, times)).tobytes())
            out.write(bytes(-out.tell() % 2880))
    mosaic, start = cutouts.Mosaic(files), time.perf_counter()
    found = cutouts.find_sources(mosaic)
    found_at = time.perf_counter()
    ready = found[np.isfinite(found["r50_arcsec"])]
    cutouts.cut_stamps(mosaic, ready, folder / "large.arrow", 64, bad="quarantine")
    memory = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e6
    return {"pixels": int(np.prod(mosaic.shape)), "sources": len(found), "stamps": len(ready),
            "find_seconds": found_at - start, "cut_seconds": time.perf_counter() - found_at,
            "largest_processes_gb": memory}


def rivals(sky, pixel: float, side: int = 2048) -> dict:
    """sep and photutils at the same threshold on one part of the sky: processor time, and bright galaxies found."""
    from photutils.background import Background2D
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources

    def by_sep():
        sky = sep.Background(light, bw=256, bh=256)
        return sep.extract(light - sky.back(), 1.5 * sky.globalrms, minarea=10)

    def by_photutils():
        sky = Background2D(light, 256)
        rest = convolve(light - sky.background, np.outer((1, 2, 1), (1, 2, 1)) / 16)  # as sep does by default
        whole = detect_sources(rest, 1.5 * sky.background_rms_median, n_pixels=10)
        parts = deblend_sources(rest, whole, n_pixels=10, contrast=0.005, progress_bar=False)
        return SourceCatalog(rest, parts).to_table(columns=["x_centroid", "y_centroid"])

    sep, result = sources._sep(), {}
    light = fits.getdata(sky.files[1])[:side, :side].astype(np.float32)
    galaxies = sky.galaxies[(sky.galaxies["true_mag_r"] < BRIGHT) & (sky.galaxies[["x", "y"]] < side).all(axis=1)]
    for name, find, columns in (("sep", by_sep, ("x", "y")), ("photutils", by_photutils, ("x_centroid", "y_centroid"))):
        start = time.process_time()
        found = find()
        seconds = time.process_time() - start
        gaps = cKDTree(np.stack([found[column] for column in columns], axis=1)).query(galaxies[["x", "y"]])[0]
        result[name] = {"seconds": seconds, "sources": len(found), "galaxies": len(galaxies),
                        "found_within_2_arcsec": (gaps * pixel < 2).mean()}
    return result


def of_pixels(size: float, options: argparse.Namespace, frameworks: list) -> dict:
    """All there is to tell of a sky with pixels of so many arcseconds."""
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sky = make_mosaic(folder, options.galaxies, size, seed=options.seed)
        mosaic = cutouts.Mosaic(sky.files)
        found = cutouts.find_sources(mosaic)
        results["detection"], found = detection(found, sky, mosaic.pixel_arcsec)
        results["radii"] = radii(found, sky, mosaic.pixel_arcsec, options.seed)
        print(json.dumps(results, indent=1, default=float), flush=True)
        if frameworks:
            results["answers"] = answers(found, sky, mosaic, folder, options.seed, frameworks)
        if find_spec("photutils"):
            results["rivals"] = rivals(sky, mosaic.pixel_arcsec)
        if options.large:
            results["large"] = large(sky, folder, results["detection"])
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--galaxies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--pixels", default="0.262,0.7", help="their sizes in arcseconds")
    parser.add_argument("--frameworks", default="pytorch,tensorflow")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cutouts.json")
    options = parser.parse_args()
    results = {
        "date": date.today().isoformat(), "zoobook": zoobook.__version__,
        "weights": {"name": ENCODER, "sha256": hashlib.sha256(weights.find_shipped(ENCODER).read_bytes()).hexdigest()},
        "galaxies": options.galaxies, "seed": options.seed,
    }  # fmt: skip
    frameworks = options.frameworks.split(",") if options.frameworks else []
    results["pixels"] = {size: of_pixels(float(size), options, frameworks) for size in options.pixels.split(",")}
    print(json.dumps(results, indent=1, default=float))
    options.out.write_text(json.dumps(results, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
