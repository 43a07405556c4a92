"""Every published file, as a small copy with the right names, types and oddities, through the real loader."""
import copy
import dataclasses
import gzip
import hashlib
import io
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from server import Server

from zoobook import catalogs, chapters, datasets, trees
from zoobook.catalogs import crossmatch, tables
from zoobook.datasets import rings
from zoobook.datasets.download import DownloadError

sys.path.insert(0, str(Path(__file__).parent))
import copies  # noqa: E402

ALL = datasets.registry()
NAMES = [name for name, entry in ALL.items() if "files" in entry]
COPIES = copies.make()


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Serves the copies; the registry says so, and is otherwise the real one."""
    server, entries = Server(), {name: copy.deepcopy(entry) for name, entry in datasets.registry().items()}
    server.registry = entries
    for name, files in COPIES.items():
        entry = entries[name]
        for known in (entry, entry.get("images", {})):
            known["address"] = f"{server.url}{name}/{{file}}?download=1"
        if isinstance(entry["rows"], int):
            entry["rows"] = copies.ROWS
        for file, content in files.items():
            serve(server, name, file, content)
    monkeypatch.setattr(datasets, "registry", lambda: entries)
    monkeypatch.setenv("ZOOBOOK_HOME", str(tmp_path))
    yield server
    server.close()


def serve(server, name, file, content):
    """Serve another content, and have the registry believe that it is the right one."""
    entry = server.registry[name]
    known = entry["files"].get(file, entry.get("images", {}).get("archives", {}).get(file))
    if known is not None:
        known.pop("at", None)
        if "hash" in known:
            known["hash"] = "md5:" + hashlib.md5(content).hexdigest()
    server.files[f"{name}/{file}?download=1"] = content


def one_file(name):
    return next(iter(datasets.registry()[name]["files"]))


# ---- the way it should go


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_is_a_catalogue(server, name, tmp_path):
    with pytest.warns(UserWarning, match="left out") if name in ("gz2_images", "galaxy_mnist") else no_warning():
        catalog = datasets.load(name)
    entry = datasets.registry()[name]
    assert catalog.columns[0] == "id_str" and len(catalog) == copies.ROWS - (name == "galaxy_mnist")
    assert catalog["id_str"].map(type).eq(str).all() and catalog["id_str"].is_unique
    assert not [column for column in catalog if "png_loc" in column or column.startswith("__")]
    if "tree" in entry:
        tree = trees.load(entry["tree"])
        ending = "_fraction" if entry["holds"] == "predictions" else ""
        assert {f"{column}{ending}" for column in tree.label_columns} <= set(catalog.columns)
    if entry["holds"] == "votes":
        assert set(catalog.dtypes[tree.label_columns]) == {np.dtype("int64")}
        assert catalogs.check_votes(catalog, tree).sum() > 0
        assert set(catalog.dtypes[[tree.total_column(q.name) for q in tree.questions]]) == {np.dtype("int64")}
    catalog.to_parquet(tmp_path / "again.parquet")  # what a catalogue is for: kept, and read again
    again = catalogs.read(tmp_path / "again.parquet", tree if entry["holds"] == "votes" else None)
    assert again["id_str"].tolist() == catalog["id_str"].tolist()
    before = len(server.asked)
    datasets.load(name, download=False) if name not in ("gz2_images", "galaxy_mnist") else None
    assert len(server.asked) == before
    assert datasets.available().set_index("name").loc[name, "on_disk"]
    assert datasets.state(name)["state"].isin(["whole", "unchecked"]).all()


def no_warning():
    import contextlib
    import warnings

    @contextlib.contextmanager
    def strict():
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            yield

    return strict()


@pytest.mark.parametrize(
    "name, file",
    [(name, file) for name, entry in ALL.items() for file in list(entry.get("files", {}))[1:]
     if file in COPIES[name] and "subset" not in entry["files"][file]],
)
def test_every_format_gives_the_same(server, name, file, tmp_path):
    """A file that somebody saved by hand is used as it is, whatever its format."""
    expected = datasets.load(name, root=tmp_path / "a")
    write(tmp_path / "b" / name / file, COPIES[name][file])
    asked = len(server.asked)
    catalog = datasets.load(name, root=tmp_path / "b", download=False)
    assert len(server.asked) == asked
    expected = expected.sort_values("id_str", ignore_index=True)
    catalog = catalog.sort_values("id_str", ignore_index=True)
    pd.testing.assert_frame_equal(catalog, expected, check_dtype=False, check_column_type=False)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_values_arrive_under_the_right_names(server):
    """Against the files as pandas reads them, with the names written out here once more."""
    upstream = pd.read_csv(io.BytesIO(gzip.decompress(COPIES["gz2"]["gz2_hart16.csv.gz"])), dtype={"dr7objid": str})
    assert upstream.shape[1] == 231
    gz2 = datasets.load("gz2")
    assert gz2["id_str"].tolist() == upstream["dr7objid"].tolist() == gz2["dr7objid"].tolist()
    assert gz2["id_str"].astype(float).nunique() <= 2  # a float would not have told them apart
    for ours, theirs in {
        "smooth-or-featured-gz2_smooth": "t01_smooth_or_features_a01_smooth_count",
        "bulge-size-gz2_no": "t05_bulge_prominence_a10_no_bulge_count",
        "spiral-arm-count-gz2_more-than-4": "t11_arms_number_a36_more_than_4_count",
        "odd-feature-gz2_ring_debiased": "t08_odd_feature_a19_ring_debiased",
        "bulge-shape-gz2_boxy_weighted_fraction": "t09_bulge_shape_a26_boxy_weighted_fraction",
        "total_votes": "total_votes",
    }.items():
        assert gz2[ours].tolist() == upstream[theirs].tolist(), ours
    assert not [column for column in gz2 if column[:3] in ("t01", "t11")]

    upstream = pd.read_parquet(io.BytesIO(COPIES["gz_decals_volunteers_5"]["gz_decals_volunteers_5.parquet"]))
    votes5 = datasets.load("gz_decals_volunteers_5")
    for ours, theirs in {
        "id_str": "iauname", "bar-dr5_weak": "bar_weak", "bar-dr5_total-votes": "bar_total-votes",
        "merging-dr5_none_debiased": "merging_none_debiased", "petro_theta": "petro_theta",
    }.items():  # fmt: skip
        np.testing.assert_array_equal(votes5[ours], upstream[theirs])
    assert votes5["wrong_size_warning"].dtype == bool
    assert "a path on the authors' computer" in votes5.attrs["notes"][0]

    upstream = pd.read_parquet(io.BytesIO(COPIES["cnn_features_gz2"]["cnn_features_gz2.parquet"]))
    features = datasets.load("cnn_features_gz2", ids=upstream["id_str"][[7, 3]], columns=["feat_1279", "feat_0"])
    assert features["id_str"].tolist() == upstream["id_str"][[3, 7]].tolist()
    assert features["feat_1279"].tolist() == upstream["feat_1279_pred"][[3, 7]].tolist() and features.shape[1] == 3


def test_campaigns_share_no_vote_column(server):
    names = {name: set(datasets.load(name).filter(regex="-(dr12|dr5|dr8|gz2)_").columns) for name in NAMES
             if datasets.registry()[name]["holds"] == "votes"}
    assert len(names) == 4 and sum(map(len, names.values())) == len(set().union(*names.values()))


def test_two_data_sets_join(server):
    votes, auto = datasets.load("gz_decals_volunteers_5"), datasets.load("gz_decals_auto")
    joined = crossmatch.by_id(votes, auto, on="iauname", columns=["bar-dr5_proportion_volunteers_asked"])
    assert len(joined) == copies.ROWS
    features = datasets.load("cnn_features_decals", ids=votes["id_str"][:5])
    assert len(crossmatch.by_id(votes, features)) == 5
    gz2, shown = datasets.load("gz2"), None
    with pytest.warns(UserWarning, match=r"1 rows of 'gz2_images' left out: earlier rows have their ids"):
        shown = datasets.load("gz2_images", images="/data/images")
    joined = crossmatch.by_id(gz2, shown, columns=["file_loc"])
    assert joined["file_loc"][0] == "/data/images/1.jpg" and len(joined) == copies.ROWS


def test_bulky_columns_only_on_request(server):
    assert not datasets.load("gz_decals_auto").filter(like="_concentration").shape[1]
    catalog = datasets.load("gz_decals_auto", columns=["bar-dr5_no_concentration"])
    assert len(catalog["bar-dr5_no_concentration"][0]) == 25 and catalog.shape[1] == 2


def test_images(server, tmp_path):
    rings = datasets.load("demo_rings")
    assert list(rings.columns[:2]) == ["id_str", "file_loc"]
    assert rings["file_loc"].map(lambda file: Path(file).is_file()).all()
    assert rings["published_subset"].value_counts().to_dict() == {"train": 24, "test": 6}
    with pytest.warns(UserWarning, match="1 galaxies of 'galaxy_mnist' left out: they have no image"):
        datasets.load("galaxy_mnist")
    decals = datasets.load("gz_decals_volunteers_5", images=tmp_path / "png", columns=["ra"])
    name = decals["id_str"][0]
    assert decals["file_loc"][0] == str(tmp_path / "png" / name[:4] / f"{name}.png")
    with pytest.raises(ValueError, match="of 'gz2' no images are known"):
        datasets.load("gz2", images=tmp_path)


PAGE = Path(__file__).parents[2] / "book" / "data_notes.md"


@pytest.mark.filterwarnings("ignore:.*left out")
def test_the_lines_of_the_chapter_run(server, tmp_path, monkeypatch):
    """What chapter 1 tells its readers to type, against the copies; it cannot run them itself without the network."""
    for number in range(1, 5):
        images = zipped(COPIES_OF_IMAGES if number == 2 else {})
        server.files[f"gz_decals_volunteers_5/gz_decals_dr5_png_part{number}.zip?download=1"] = images
    asset_ids = pd.read_csv(io.BytesIO(COPIES["gz2_images"]["gz2_filename_mapping.csv"]))["asset_id"]
    server.files["gz2_images/images_gz2.zip?download=1"] = zipped({f"{i}.jpg": noise(i) for i in asset_ids})
    monkeypatch.setattr(rings, "load", lambda root: pd.DataFrame())  # 470 images, which have tests of their own
    copies.positions()[["ra", "dec"]].to_csv(tmp_path / "own.csv", index=False)
    monkeypatch.chdir(tmp_path)
    names = {"datasets": datasets, "crossmatch": crossmatch, "pd": pd}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, names)
    assert len(names["votes"]) == copies.ROWS and names["auto"].shape[1] == 2
    for some in ("some", "gz2_with_images", "toy"):
        assert len(names[some]) >= 20 and names[some]["file_loc"].map(lambda file: Path(file).is_file()).all(), some
    for joined in ("with_predictions", "with_features", "gz2_with_features", "measured", "own"):
        assert len(names[joined]) == copies.ROWS, joined
    assert {"dr8_id", "photo_z", "bar-dr5_no"} <= set(names["measured"])
    assert names["own"]["smooth-or-featured_smooth_fraction"].notna().all()


def test_chapters_run_on_real_galaxies(server, tmp_path, monkeypatch):
    for number in range(1, 5):
        images = zipped(COPIES_OF_IMAGES if number == 3 else {})
        server.files[f"gz_decals_volunteers_5/gz_decals_dr5_png_part{number}.zip?download=1"] = images
    scale = dataclasses.replace(chapters.SCALES["quick"], galaxies=12)
    catalog, store = chapters.Run("pytorch", chapters.PUBLISHED, scale).survey()
    assert len(catalog) == len(store) == 12 and store.pixels.shape[1:] == (128, 128, 3)
    again, _ = chapters.Run("pytorch", chapters.PUBLISHED, dataclasses.replace(scale, galaxies=9)).survey()
    assert set(again["id_str"]) < set(catalog["id_str"])  # a smaller run looks at some of the same galaxies


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"gz_decals_dr5_png_part2/{name}", content)
    return out.getvalue()


def noise(seed):
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


COPIES_OF_IMAGES = {f"{n[:4]}/{n}.png": noise(i) for i, n in enumerate(copies.positions()["iauname"])}


# ---- and the ways it should not


def changed(name, change):
    """A copy with something changed, as the bytes of its file."""
    file = one_file(name)
    table = tables.read(write_temporary(file, COPIES[name][file]))
    if file.endswith(".parquet"):
        return copies.parquet(change(table))
    return copies.csv(change(table), "gzip" if file.endswith(".gz") else None)


def write_temporary(file, content):
    import tempfile

    return write(Path(tempfile.mkdtemp()) / file, content)


@pytest.mark.parametrize("name", NAMES)
def test_renamed_columns_are_named(server, name):
    entry = server.registry[name]
    column = {"votes": "bar_no", "predictions": "bar_no_fraction", "features": "feat_1000_pred"}.get(
        entry["holds"], entry.get("required", [entry["id"]])[0])
    column = "t03_bar_a07_no_bar_count" if name == "gz2" else column
    file = one_file(name)
    serve(server, name, file, changed(name, lambda table: table.rename(columns={column: column + "x"})))
    with pytest.raises(ValueError) as error:
        datasets.load(name)
    assert file in str(error.value) and f"{column!r}. The closest that there is: {column + 'x'!r}" in str(error.value)
    assert "Is it the right file, or another version of it?" in str(error.value)


def test_the_wrong_file(server):
    serve(server, "gz_decals_volunteers_5", "gz_decals_volunteers_5.parquet",
          COPIES["gz_decals_volunteers_1_and_2"]["gz_decals_volunteers_1_and_2.parquet"])
    with pytest.raises(ValueError, match=r"volunteers_5\.parquet lacks \d+ of the 35 columns .* 'bar_strong'"):
        datasets.load("gz_decals_volunteers_5")


@pytest.mark.parametrize(
    "value, kind", [(-1, "negative"), (2.5, "fractional"), ("many", "not a number"), (np.inf, "infinite")]
)
def test_wrong_votes_are_named(server, value, kind):
    def spoil(table):
        table["bar_weak"] = table["bar_weak"].astype(object)
        table.loc[6, "bar_weak"] = value
        return table.astype({"bar_weak": str if value == "many" else float})

    serve(server, "gz_decals_volunteers_5", "gz_decals_volunteers_5.parquet", changed("gz_decals_volunteers_5", spoil))
    with pytest.raises(ValueError, match=rf"volunteers_5\.parquet: 1 bad votes.*column 'bar-dr5_weak'[\s\S]*1 {kind}"):
        datasets.load("gz_decals_volunteers_5")


def test_empty_questions_are_no_votes(server):
    def empty(table):
        columns = [column for column in table if column.startswith("bar_")]
        table[columns] = table[columns].astype(float)
        table.loc[[2, 8], columns] = np.nan
        return table

    serve(server, "gz_decals_volunteers_5", "gz_decals_volunteers_5.parquet", changed("gz_decals_volunteers_5", empty))
    catalog = datasets.load("gz_decals_volunteers_5")
    for column in ("bar-dr5_strong", "bar-dr5_weak", "bar-dr5_no", "bar-dr5_total-votes"):
        assert catalog.loc[[2, 8], column].tolist() == [0, 0]
    assert "bar-dr5: empty for 2 galaxies, read as 0 votes" in catalog.attrs["notes"]


def test_float_ids(server):
    serve(server, "gz2", "gz2_hart16.csv.gz", changed("gz2", lambda t: t.assign(dr7objid=t["dr7objid"].astype(float))))
    with pytest.raises(ValueError, match=r"gz2_hart16\.csv\.gz: the ids in `dr7objid` are floating-point numbers"):
        datasets.load("gz2")


@pytest.mark.parametrize("name", ["gz_decals_volunteers_5", "gz_desi"])
def test_wrong_hash(server, name):
    file = one_file(name)
    server.files[f"{name}/{file}?download=1"] = COPIES[name][file][:-1] + b"x"
    with pytest.raises(DownloadError, match=rf"{file}.*content is wrong: expected md5:"):
        datasets.load(name)
    assert not (datasets.home() / name / file).exists()
    assert datasets.state(name)["state"].tolist() == ["missing"]


@pytest.mark.filterwarnings("ignore:.*:astropy.utils.exceptions.AstropyWarning")
@pytest.mark.parametrize("file", ["gz2_hart16.csv.gz", "gz2_hart16.csv", "gz2_hart16.fits"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_truncated_file_without_a_published_hash(server, file, share, tmp_path):
    content = COPIES["gz2"][file]
    write(tmp_path / "gz2" / file, content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"{tmp_path}.*(could not be read as a table|cut off\?|bad votes|lacks)"):
        datasets.load("gz2", download=False)


def test_truncated_parquet(server, tmp_path):
    file, content = "cnn_features_gz2.parquet", COPIES["cnn_features_gz2"]["cnn_features_gz2.parquet"]
    write(tmp_path / "cnn_features_gz2" / file, content[:-100])
    with pytest.raises(ValueError, match=rf"{file} could not be read as a table"):
        datasets.load("cnn_features_gz2", download=False)


def test_damaged_and_missing_files_without_the_network(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gz_desi_deep_learning_catalog_friendly\.parquet .*127\.0\.0\.1"):
        datasets.load("gz_desi", download=False)
    path = write(tmp_path / "gz_desi" / one_file("gz_desi"), COPIES["gz_desi"][one_file("gz_desi")][:-1])
    with pytest.raises(FileNotFoundError, match="missing or damaged"):
        datasets.load("gz_desi", download=False)
    assert datasets.state("gz_desi")["state"].tolist() == ["damaged"]
    datasets.load("gz_desi")  # fetched again
    assert path.read_bytes() == COPIES["gz_desi"][one_file("gz_desi")]


def test_unknown_columns_and_ids(server):
    with pytest.raises(ValueError, match="gives no column 'bar_no'. The closest that there is: 'bar-dr5_no'"):
        datasets.load("gz_decals_volunteers_5", columns=["bar_no"])
    catalog = datasets.load("gz_desi", ids=["300000_0", "nobody"])
    assert catalog["id_str"].tolist() == ["300000_0"]
    assert catalog.attrs["notes"] == ["'gz_desi' has 1 of the 2 galaxies that were asked for"]
    assert len(datasets.load("gz_desi", ids=["nobody"])) == 0


def test_bad_booleans(server):
    serve(server, "gz_decals_volunteers_5", "gz_decals_volunteers_5.parquet",
          changed("gz_decals_volunteers_5", lambda table: table.assign(wrong_size_warning="perhaps")))
    with pytest.raises(ValueError, match="`wrong_size_warning` is neither true nor false in row 0: perhaps"):
        datasets.load("gz_decals_volunteers_5")


# ---- the registry itself


def test_registry_is_complete():
    for name, entry in datasets.registry().items():
        assert {"title", "rows", "licence", "citation", "verified", "holds", "columns"} <= set(entry), name
        assert entry["verified"] in ("bytes", "code", "text")
        assert ("address" in entry) == ("loader" not in entry or name == "rings")
    assert set(COPIES) == set(NAMES)


def test_registry_agrees_with_the_facts(shared):
    """Rows, hashes and addresses are those of the collected facts."""
    facts = yaml.safe_load((shared / "facts" / "datasets.yaml").read_text())
    registry = datasets.registry()
    told = {file["file"]: file for part in ("gz_decals_zenodo", "gz_desi_zenodo")
            for file in facts[part].get("files", facts[part].get("files_at_8331338"))}
    checked = 0
    for name in NAMES:
        for file, known in registry[name]["files"].items():
            if file in told:
                assert known["hash"] == "md5:" + told[file]["md5"], file
                rows = registry[name]["rows"]
                assert isinstance(rows, str) or rows in (told[file].get("rows"), facts["gz_desi_zenodo"]["rows"])
                checked += 1
    assert checked == 10
    for name in ("demo_rings", "galaxy_mnist"):
        entry = registry[name]
        files = {**entry["files"], **entry["images"]["archives"]}
        for file in facts["galaxy_datasets_loaders"]["loaders"][name]["files"]:
            known = files[file["file"]]
            address = entry["address"] if "at" in known else entry["images"]["address"]
            assert known["hash"] == "md5:" + file["md5"]
            assert address.replace("{file}", known.get("at", file["file"])) == file["url"]
    assert registry["gz2"]["rows"] == facts["gz2_tables"]["gz2_hart16.csv"]["rows"]
    assert len(registry["gz2"]["rename"]) == 37
