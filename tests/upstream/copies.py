"""Small files in place of the published ones, for the real loader.

Real headers and rows, as their authors wrote them (`tests/data/published`): the votes of DECaLS and of Galaxy
Zoo 2, the predictions of DECaLS, the list of Galaxy Zoo 2 images. Made up: everything else. It follows the descriptions
that the registry was written from, so it shows that the loader does what the registry says, not that the registry is
right.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from toys import tarred

from zoobook import trees

REAL = Path(__file__).parents[1] / "data/published"


def real(name: str) -> pd.DataFrame:
    return pd.read_csv(REAL / f"{name}.csv")


def parquet(table: pd.DataFrame, shuffled: bool = False) -> bytes:
    out = io.BytesIO()
    (table.sample(frac=1, random_state=1) if shuffled else table).to_parquet(out)  # a shuffled index is stored too
    return out.getvalue()


def csv(table: pd.DataFrame, compression: str | None = None) -> bytes:
    out = io.BytesIO()
    table.to_csv(out, index=False, compression=compression)
    return out.getvalue()


def fits(table: pd.DataFrame) -> bytes:
    from astropy.table import Table

    out = io.BytesIO()
    Table.from_pandas(table).write(out, format="fits")
    return out.getvalue()


def desi_fractions() -> dict[str, np.ndarray]:
    tree, rng = trees.load("desi"), np.random.default_rng(3)
    names = [column.replace(f"{tree.suffix}_", "_", 1) for column in tree.label_columns]
    return {name: rng.uniform(0, 1, len(SKY)).astype(np.float32) for name in names}


def desi(advanced: bool) -> pd.DataFrame:
    """gz_desi_deep_learning_catalog_…: friendly has gaps where most volunteers would not be asked."""
    columns = {}
    for name, values in desi_fractions().items():
        if advanced:
            columns |= {f"{name}_fraction": values, f"{name}_90pc-lower": values * 0.8,
                        f"{name}_90pc-upper": values * 1.2, f"{name}_proportion-asked": np.float32(0.5)}  # fmt: skip
        else:
            columns[f"{name}_fraction"] = np.where((values < 0.2) & (not name.startswith("smooth-or")), np.nan, values)
    ids = DESI_IDS.assign(brickid=range(len(SKY)), objid=7)
    return pd.concat([ids, pd.DataFrame(columns, ids.index)], axis=1)


def desi_volunteers() -> pd.DataFrame:
    tree, rng = trees.load("decals_dr8"), np.random.default_rng(5)
    names = [column.replace(f"{tree.suffix}_", "_", 1) for column in tree.label_columns]
    counts = {name: rng.integers(0, 9, len(SKY)) for name in names}
    return pd.concat([DESI_IDS, pd.DataFrame(counts | {"anything-odd_yes": 1, "anything-odd_no": 2})], axis=1)


def features(ids: pd.Series, folder: str) -> pd.DataFrame:
    """cnn_features_…: 1280 features, as the network gave them."""
    made = np.random.default_rng(13).random((len(ids), 1280))
    named = pd.DataFrame({ids.name: ids, "png_loc": [f"{folder}/{i}.png" for i in ids]})
    return pd.concat([named, pd.DataFrame(made, columns=[f"feat_{i}_pred" for i in range(1280)])], axis=1)


def in_parts(table: pd.DataFrame, name: str, paths: list[str]) -> dict[str, bytes]:
    """A training and a test catalogue, and an archive of their images."""
    pictures = {}
    for number, path in enumerate(paths):
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(picture, "png")
        pictures[f"images/{path}"] = picture.getvalue()
    return {f"{name}_train_catalog.parquet": parquet(table[:24]), f"{name}_test_catalog.parquet": parquet(table[24:]),
            f"{name}_images.tar.gz": tarred(pictures)}  # fmt: skip


def demo_rings() -> dict[str, bytes]:
    table = pd.DataFrame({"id_str": [f"30_{i}" for i in range(30)], "ring_fraction": np.linspace(0, 1, 30)})
    table = table.assign(subfolder="30", filename=table["id_str"] + ".jpg", ring=(table["ring_fraction"] > 0.5) * 1)
    return in_parts(table, "demo_rings", ("30/" + table["filename"]).tolist())


def galaxy_mnist() -> dict[str, bytes]:
    table = pd.DataFrame({"id_str": [f"92abc34c-824c-4d46-a79c-{i:012d}" for i in range(30)]})
    table = table.assign(label=np.arange(30) % 4, filename=table["id_str"] + ".jpg")
    return in_parts(table, "galaxy_mnist", table["filename"].tolist()[:-1])  # one image is missing


SKY = real("gz_decals_volunteers_5")[["iauname", "ra", "dec"]]  # what is made up is of the same galaxies
DESI_IDS = pd.DataFrame({"dr8_id": [f"{300_000 + i}_{37 * i}" for i in SKY.index], "ra": SKY["ra"], "dec": SKY["dec"]})


def make() -> dict[str, dict[str, bytes]]:
    """All files: data set → file → content."""
    dr5, dr12, hart = (real(f) for f in ("gz_decals_volunteers_5", "gz_decals_volunteers_1_and_2", "gz2_hart16"))
    mapping = real("gz2_filename_mapping")
    # The real predictions are of other galaxies than the real votes; here they stand under the names of those.
    auto = real("gz_decals_auto_posteriors").iloc[[0, 1, 2, 0, 1, 2]].assign(iauname=SKY["iauname"].to_numpy())
    lists = auto.filter(like="_concentration").map(lambda text: np.fromstring(text.strip("[]"), sep=","))
    external = DESI_IDS[["dr8_id"]].assign(redshift=0.1, photo_z=0.11, mag_r_desi=17.5, est_petro_th50=3.0)
    return {
        "gz_decals_volunteers_5": {
            "gz_decals_volunteers_5.parquet": parquet(dr5, shuffled=True), "gz_decals_volunteers_5.csv": csv(dr5)
        },
        "gz_decals_volunteers_1_and_2": {
            "gz_decals_volunteers_1_and_2.parquet": parquet(dr12), "gz_decals_volunteers_1_and_2.csv": csv(dr12)
        },
        "gz_decals_auto": {
            "gz_decals_auto_posteriors.parquet": parquet(auto.assign(**lists)),
            "gz_decals_auto_posteriors.csv": csv(auto),
        },
        "gz2": {
            "gz2_hart16.csv.gz": csv(hart, "gzip"), "gz2_hart16.csv": csv(hart), "gz2_hart16.fits": fits(hart)
        },
        "gz2_images": {"gz2_filename_mapping.csv": csv(pd.concat([mapping, mapping.iloc[[1]]]))},  # one of them twice
        "gz_desi": {"gz_desi_deep_learning_catalog_friendly.parquet": parquet(desi(advanced=False), shuffled=True)},
        "gz_desi_advanced": {"gz_desi_deep_learning_catalog_advanced.parquet": parquet(desi(advanced=True))},
        "gz_desi_volunteers": {"gz_desi_gzd8_volunteer_core_catalog.parquet": parquet(desi_volunteers())},
        "gz_desi_external": {"external_catalog.parquet": parquet(external)},
        "cnn_features_decals": {"cnn_features_decals.parquet": parquet(features(SKY["iauname"], "/media/walml/dr5"))},
        "cnn_features_gz2": {
            "cnn_features_gz2.parquet": parquet(features(hart["dr7objid"].astype(str).rename("id_str"), "/media/gz2"))
        },
        "demo_rings": demo_rings(),
        "galaxy_mnist": galaxy_mnist(),
    }  # fmt: skip


ROWS = {"gz2": 3, "gz2_images": 3, "cnn_features_gz2": 3, "demo_rings": 30, "galaxy_mnist": 30}  # the others: 6
