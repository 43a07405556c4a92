"""Small copies of the published files: the same names, types, ids and oddities, with galaxies that do not exist.

    python tests/upstream/copies.py FOLDER

Made from the descriptions and the code of the files' authors, not from the files, which none of this fetches.
"""
from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from zoobook import trees, votes
from zoobook.simulation.survey import iau_names

ROWS = 30
GZ2_ID = 588018090547020096  # 18 digits; its neighbours are the same float
HART = {  # questions and answers of gz2_hart16, by their codes, in the order of the columns
    "t01_smooth_or_features": ["a01_smooth", "a02_features_or_disk", "a03_star_or_artifact"],
    "t02_edgeon": ["a04_yes", "a05_no"],
    "t03_bar": ["a06_bar", "a07_no_bar"],
    "t04_spiral": ["a08_spiral", "a09_no_spiral"],
    "t05_bulge_prominence": ["a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant"],
    "t06_odd": ["a14_yes", "a15_no"],
    "t07_rounded": ["a16_completely_round", "a17_in_between", "a18_cigar_shaped"],
    "t08_odd_feature": [
        "a19_ring", "a20_lens_or_arc", "a21_disturbed", "a22_irregular", "a23_other", "a24_merger", "a38_dust_lane",
    ],
    "t09_bulge_shape": ["a25_rounded", "a26_boxy", "a27_no_bulge"],
    "t10_arms_winding": ["a28_tight", "a29_medium", "a30_loose"],
    "t11_arms_number": ["a31_1", "a32_2", "a33_3", "a34_4", "a36_more_than_4", "a37_cant_tell"],
}  # fmt: skip


def positions(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    ra, dec = rng.uniform(0, 360, rows), rng.uniform(-15, 35, rows)
    return pd.DataFrame({"iauname": iau_names(ra, dec), "ra": ra, "dec": dec})


def cast_votes(tree_name: str, seed: int) -> tuple[dict[str, np.ndarray], trees.DecisionTree]:
    """Votes that walk the tree, by upstream's names: without the campaign's suffix."""
    tree = trees.load(tree_name)
    rng = np.random.default_rng(seed)
    counts = votes.sample(rng.uniform(1.1, 20, (ROWS, len(tree.label_columns))), 40, tree, rng)
    counts[3] = 0  # a galaxy that nobody classified
    return dict(zip([plain(column, tree) for column in tree.label_columns], counts.T, strict=True)), tree


def plain(column: str, tree: trees.DecisionTree) -> str:
    return column.replace(f"{tree.suffix}_", "_", 1) if tree.suffix else column


def volunteers(tree_name: str, seed: int) -> pd.DataFrame:
    """gz_decals_volunteers_…: position, NASA-Sloan Atlas, warnings; then question by question."""
    table, rng = positions(), np.random.default_rng(seed)
    table["redshift"] = rng.uniform(0.01, 0.2, ROWS)
    table.loc[5, "redshift"] = np.nan
    for name in ("elpetro_absmag_r", "sersic_nmgy_r", "petro_th50", "petro_th90", "petro_theta"):
        table[name] = rng.uniform(-24, -18, ROWS) if name == "elpetro_absmag_r" else rng.uniform(3, 30, ROWS)
    table["upload_group"] = rng.choice(["active_baseline", "pre_active", "active_priority", "targeted"], ROWS)
    table["active_learning_on"] = "False"
    table["png_loc"] = [f"/media/walml/beta1/decals/png_native/dr5/{n[:4]}/{n}.png" for n in table["iauname"]]
    table["wrong_size_statistic"] = rng.uniform(20, 170, ROWS)
    table["wrong_size_warning"] = table["wrong_size_statistic"] > 161
    counts, tree = cast_votes(tree_name, seed)
    columns = {}
    for question in tree.questions:
        answers = [plain(answer.column, tree) for answer in question.answers]
        total = np.sum([counts[answer] for answer in answers], axis=0)
        columns[plain(f"{question.name}_total-votes", tree)] = total
        for answer in answers:
            fraction = counts[answer] / np.where(total > 0, total, np.nan)
            columns |= {answer: counts[answer], f"{answer}_fraction": fraction, f"{answer}_debiased": fraction * 0.9}
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def predictions(tree_name: str, seed: int, posteriors: bool) -> pd.DataFrame:
    """gz_decals_auto_posteriors: fractions and what they come from, for every galaxy and question."""
    table, tree, rng = positions(), trees.load(tree_name), np.random.default_rng(seed)
    concentrations = rng.uniform(1, 101, (ROWS, len(tree.label_columns)))
    shares = votes.expected_fractions(concentrations, tree)
    columns = {}
    for i, column in enumerate(tree.label_columns):
        if posteriors:
            passes = concentrations[:, [i]] + rng.normal(0, 0.1, (ROWS, 25))
            columns[f"{plain(column, tree)}_concentration"] = list(passes)
        columns[f"{plain(column, tree)}_fraction"] = shares[:, i]
    for q, question in enumerate(tree.questions):
        if posteriors:
            asked = votes.proportion_asked(shares, tree)[:, q]
            columns[plain(f"{question.name}_proportion_volunteers_asked", tree)] = asked
    return pd.concat([table, pd.DataFrame({"wrong_size_warning": False}, range(ROWS)), pd.DataFrame(columns)], axis=1)


def desi_ids() -> pd.DataFrame:
    table = positions().drop(columns="iauname")
    table.insert(0, "dr8_id", [f"{300_000 + row // 7}_{row * 37}" for row in range(ROWS)])
    return table


def desi(advanced: bool) -> pd.DataFrame:
    """gz_desi_deep_learning_catalog_…: friendly has gaps where most volunteers would not be asked."""
    fractions = predictions("desi", 3, posteriors=False).filter(like="_fraction")
    columns = {}
    for name in fractions:
        values = fractions[name].to_numpy(np.float32)
        answer = name.removesuffix("_fraction")
        if advanced:
            columns |= {
                name: values, f"{answer}_90pc-lower": values * 0.8, f"{answer}_90pc-upper": values * 1.2,
                f"{answer}_proportion-asked": np.float32(0.5),
            }  # fmt: skip
        else:
            columns[name] = np.where((values < 0.2) & (not name.startswith("smooth-or")), np.nan, values)
    table = desi_ids()
    table["brickid"], table["objid"] = zip(*(map(int, name.split("_")) for name in table["dr8_id"]), strict=True)
    return pd.concat([table, pd.DataFrame(columns, range(ROWS))], axis=1)


def desi_volunteers() -> pd.DataFrame:
    counts, _ = cast_votes("decals_dr8", 5)
    return pd.concat([desi_ids(), pd.DataFrame(counts | {"anything-odd_yes": 1, "anything-odd_no": 2})], axis=1)


def hart() -> pd.DataFrame:
    """gz2_hart16: 231 columns, 9 of ids and positions and 6 for each of 37 answers."""
    rng = np.random.default_rng(11)
    table = pd.DataFrame({"dr7objid": GZ2_ID + np.arange(ROWS)})
    table["ra"], table["dec"] = rng.uniform(0, 360, ROWS), rng.uniform(-10, 60, ROWS)
    table["rastring"], table["decstring"] = "10:43:57.70", "+11:42:13.6"
    table["sample"] = rng.choice(["original", "extra", "stripe82"], ROWS)
    table["gz2_class"], table["total_classifications"], table["total_votes"] = "Sb?t", 44, 330
    columns = {}
    for question, answers in HART.items():
        counts = rng.multinomial(40, np.full(len(answers), 1 / len(answers)), ROWS)
        for answer, count in zip(answers, counts.T, strict=True):
            stats = {
                "count": count, "weight": count * 0.98, "fraction": count / 40, "weighted_fraction": count / 40,
                "debiased": count / 42, "flag": (count > 30).astype(int),
            }  # fmt: skip
            columns |= {f"{question}_{answer}_{stat}": values for stat, values in stats.items()}
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def features(ids: pd.DataFrame, folder: str) -> pd.DataFrame:
    """cnn_features_…: 1280 features, as the network gave them."""
    rng = np.random.default_rng(13)
    name = ids.columns[0]
    made = pd.DataFrame(rng.random((len(ids), 1280)), columns=[f"feat_{i}_pred" for i in range(1280)])
    return pd.concat([ids, pd.DataFrame({"png_loc": [f"{folder}/{i}.png" for i in ids[name]]}), made], axis=1)


def parquet(table: pd.DataFrame, indexed: bool = False) -> bytes:
    out = io.BytesIO()
    (table.sample(frac=1, random_state=1) if indexed else table).to_parquet(out)  # a shuffled index is stored too
    return out.getvalue()


def csv(table: pd.DataFrame, compression: str | None = None) -> bytes:
    out = io.BytesIO()
    table.to_csv(out, index=False, compression=compression)
    return out.getvalue()


def pictures(paths: list[str], folder: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for number, path in enumerate(paths):
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (number, 0, 0)).save(picture, "png")
            member = tarfile.TarInfo(f"{folder}/{path}")
            member.size = picture.tell()
            picture.seek(0)
            archive.addfile(member, picture)
    return out.getvalue()


def make() -> dict[str, dict[str, bytes]]:
    """All copies: data set → file → content."""
    decals5, decals12 = volunteers("decals_dr5", 1), volunteers("decals_dr12", 2)
    auto = predictions("decals_dr5", 3, posteriors=True)
    mapping = pd.DataFrame({"objid": GZ2_ID + np.arange(ROWS), "sample": "original", "asset_id": np.arange(ROWS) + 1})
    demo = pd.DataFrame({"id_str": desi_ids()["dr8_id"], "ring_fraction": np.linspace(0, 1, ROWS)})
    demo["subfolder"] = demo["id_str"].str.partition("_")[0]
    demo["filename"], demo["ring"] = demo["id_str"] + ".jpg", (demo["ring_fraction"] > 0.5).astype(int)
    mnist = pd.DataFrame({"id_str": [f"92abc34c-824c-4d46-a79c-{i:012d}" for i in range(ROWS)]})
    mnist["label"] = np.arange(ROWS) % 4
    mnist["filename"] = mnist["id_str"] + ".jpg"
    external = desi_ids()[["dr8_id"]].assign(redshift=0.1, photo_z=0.11, mag_r_desi=17.5, est_petro_th50=3.0)
    gz2_ids = pd.DataFrame({"id_str": hart()["dr7objid"].astype(str)})
    return {
        "gz_decals_volunteers_5": {
            "gz_decals_volunteers_5.parquet": parquet(decals5, indexed=True), "gz_decals_volunteers_5.csv": csv(decals5)
        },
        "gz_decals_volunteers_1_and_2": {
            "gz_decals_volunteers_1_and_2.parquet": parquet(decals12),
            "gz_decals_volunteers_1_and_2.csv": csv(decals12),
        },
        "gz_decals_auto": {
            "gz_decals_auto_posteriors.parquet": parquet(auto),
            "gz_decals_auto_posteriors.csv": csv(auto.map(lambda v: v.tolist() if isinstance(v, np.ndarray) else v)),
        },
        "gz2": {"gz2_hart16.csv.gz": csv(hart(), "gzip"), "gz2_hart16.csv": csv(hart()), **fits_of(hart())},
        "gz2_images": {"gz2_filename_mapping.csv": csv(pd.concat([mapping, mapping.iloc[[4]]]))},  # one of them twice
        "gz_desi": {"gz_desi_deep_learning_catalog_friendly.parquet": parquet(desi(advanced=False), indexed=True)},
        "gz_desi_advanced": {"gz_desi_deep_learning_catalog_advanced.parquet": parquet(desi(advanced=True))},
        "gz_desi_volunteers": {"gz_desi_gzd8_volunteer_core_catalog.parquet": parquet(desi_volunteers())},
        "gz_desi_external": {"external_catalog.parquet": parquet(external)},
        "cnn_features_decals": {
            "cnn_features_decals.parquet": parquet(features(positions()[["iauname"]], "/media/walml/dr5"))
        },
        "cnn_features_gz2": {"cnn_features_gz2.parquet": parquet(features(gz2_ids, "/media/walml/gz2"))},
        "demo_rings": {
            "demo_rings_train_catalog.parquet": parquet(demo[: int(0.8 * ROWS)]),
            "demo_rings_test_catalog.parquet": parquet(demo[int(0.8 * ROWS) :]),
            "demo_rings_images.tar.gz": pictures((demo["subfolder"] + "/" + demo["filename"]).tolist(), "images"),
        },
        "galaxy_mnist": {
            "galaxy_mnist_train_catalog.parquet": parquet(mnist[: int(0.8 * ROWS)]),
            "galaxy_mnist_test_catalog.parquet": parquet(mnist[int(0.8 * ROWS) :]),
            "galaxy_mnist_images.tar.gz": pictures(mnist["filename"].tolist()[:-1], "images"),  # one is missing
        },
    }


def fits_of(table: pd.DataFrame) -> dict[str, bytes]:
    from astropy.table import Table

    out = io.BytesIO()
    Table.from_pandas(table).write(out, format="fits")
    return {"gz2_hart16.fits": out.getvalue()}


if __name__ == "__main__":
    for name, files in make().items():
        for file, content in files.items():
            path = Path(sys.argv[1]) / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
