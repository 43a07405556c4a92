"""Every published file through the real loader: real rows where there are any, else made-up ones (`copies.py`)."""
import copy
import dataclasses
import hashlib
import io
import re
import warnings
from contextlib import contextmanager
from pathlib import Path

import copies
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from toys import zipped

from zoobook import catalogs, chapters, datasets, trees
from zoobook.catalogs import crossmatch
from zoobook.datasets import rings
from zoobook.datasets.download import DownloadError

ALL = datasets.registry()
NAMES = [name for name, entry in ALL.items() if "files" in entry]
COPIES = copies.make()
VOTES = "gz_decals_volunteers_5"
TOLD = ("gz2_images", "galaxy_mnist")  # where a row is left out, with a warning
PAGE = Path(__file__).parents[2] / "book" / "data_sets.md"


def rows(name: str) -> int:
    return copies.ROWS.get(name, len(copies.SKY))


@pytest.fixture
def server(server, monkeypatch, tmp_path):
    """Serves the small files; the registry says so, and is otherwise the real one."""
    entries = {name: copy.deepcopy(entry) for name, entry in datasets.registry().items()}
    server.registry = entries
    for name, files in COPIES.items():
        for known in (entries[name], entries[name].get("images", {})):
            known["address"] = f"{server.url}{name}/{{file}}?download=1"
        if isinstance(entries[name]["rows"], int):
            entries[name]["rows"] = rows(name)
        for file, content in files.items():
            serve(server, name, file, content)
    monkeypatch.setattr(datasets.names, "registry", lambda: entries)
    monkeypatch.setenv("ZOOBOOK_HOME", str(tmp_path))
    return server


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


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@contextmanager
def warns_only(expected):
    """A warning that a row is left out where that is so, and no other."""
    if expected:
        with pytest.warns(UserWarning, match="left out"):
            yield
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            yield


# ---- the way it should go


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_is_a_catalogue(server, name, tmp_path):
    with warns_only(name in TOLD):
        catalog = datasets.load(name)
    entry, tree = datasets.registry()[name], None
    assert catalog.columns[0] == "id_str" and len(catalog) == rows(name) - (name == "galaxy_mnist")
    assert catalog["id_str"].map(type).eq(str).all() and catalog["id_str"].is_unique
    assert not [column for column in catalog if "png_loc" in column or column.startswith("__")]
    if "tree" in entry:
        tree = trees.load(entry["tree"])
        ending = "_fraction" if entry["holds"] == "predictions" else ""
        assert {f"{column}{ending}" for column in tree.label_columns} <= set(catalog.columns)
    if entry["holds"] == "votes":
        counts = tree.label_columns + [tree.total_column(question.name) for question in tree.questions]
        assert set(catalog.dtypes[counts]) == {np.dtype("int64")}
        assert catalogs.check_votes(catalog, tree).sum() > 0
    catalog.to_parquet(tmp_path / "again.parquet")  # what a catalogue is for: kept, and read again
    again = catalogs.read(tmp_path / "again.parquet", tree if entry["holds"] == "votes" else None)
    assert again["id_str"].tolist() == catalog["id_str"].tolist()
    asked = len(server.asked)
    with warns_only(name in TOLD):
        datasets.load(name, download=False)
    assert len(server.asked) == asked
    assert datasets.available().set_index("name").loc[name, "on_disk"]
    assert datasets.state(name)["state"].isin(["whole", "unchecked"]).all()


OTHER_FORMATS = [(name, file) for name in NAMES for file in list(ALL[name]["files"])[1:]
                 if file in COPIES[name] and "subset" not in ALL[name]["files"][file]]  # fmt: skip


@pytest.mark.parametrize("name, file", OTHER_FORMATS)
def test_every_format_gives_the_same(server, name, file, tmp_path):
    """A file that somebody saved by hand is used as it is, whatever its format."""
    expected = datasets.load(name, root=tmp_path / "a")
    write(tmp_path / "b" / name / file, COPIES[name][file])
    asked = len(server.asked)
    catalog = datasets.load(name, root=tmp_path / "b", download=False)
    assert len(server.asked) == asked
    tables = [table.sort_values("id_str", ignore_index=True) for table in (catalog, expected)]
    pd.testing.assert_frame_equal(*tables, check_dtype=False, check_column_type=False)


def test_real_rows_arrive_under_the_right_names(server):
    """Against the files as pandas reads them, with the names written out here once more."""
    theirs = pd.read_csv(copies.REAL / "gz2_hart16.csv", dtype={"dr7objid": str})
    assert theirs.shape[1] == 231
    gz2 = datasets.load("gz2")
    assert gz2["id_str"].tolist() == theirs["dr7objid"].tolist() == gz2["dr7objid"].tolist()
    for ours, upstream in {
        "smooth-or-featured-gz2_smooth": "t01_smooth_or_features_a01_smooth_count",
        "bulge-size-gz2_no": "t05_bulge_prominence_a10_no_bulge_count",
        "spiral-arm-count-gz2_more-than-4": "t11_arms_number_a36_more_than_4_count",
        "odd-feature-gz2_ring_debiased": "t08_odd_feature_a19_ring_debiased",
        "bulge-shape-gz2_boxy_weighted_fraction": "t09_bulge_shape_a26_boxy_weighted_fraction",
        "total_votes": "total_votes",
    }.items():
        assert gz2[ours].tolist() == theirs[upstream].tolist(), ours
    assert not [column for column in gz2 if re.match(r"t\d\d_", column)]

    for name, suffix in ((VOTES, "dr5"), ("gz_decals_volunteers_1_and_2", "dr12")):
        theirs = copies.real(name).set_index("iauname")
        catalog = datasets.load(name).set_index("id_str").loc[theirs.index]
        pairs = {column: re.sub(r"^([\w-]+?)_", rf"\1-{suffix}_", column) for column in theirs
                 if re.search(r"_(total-votes|fraction|debiased)$", column)}  # fmt: skip
        pairs |= {column.removesuffix("_fraction"): ours.removesuffix("_fraction")
                  for column, ours in pairs.items() if column.endswith("_fraction")} | {"petro_theta": "petro_theta"}
        assert len(pairs) > 90 and set(pairs.values()) <= set(catalog)
        for upstream, ours in pairs.items():
            np.testing.assert_array_equal(catalog[ours], theirs[upstream], err_msg=ours)
        tree = trees.load(ALL[name]["tree"])
        for question in tree.questions:  # no vote is lost; of merging, old answers count in the total alone
            answers = catalog[[answer.column for answer in question.answers]].sum(axis=1)
            total = catalog[tree.total_column(question.name)]
            assert (answers <= total if question.name == "merging-dr5" else answers == total).all(), question.name
        assert catalog["wrong_size_warning"].dtype == bool
    notes = datasets.load(VOTES).attrs["notes"]
    assert "a path on the authors' computer" in notes[0]
    assert "merging-dr5_total-votes: not the sum of the answers for 2 galaxies; kept as published" in notes


def test_parts_of_a_table(server):
    theirs = pd.read_parquet(io.BytesIO(COPIES["cnn_features_gz2"]["cnn_features_gz2.parquet"]))
    features = datasets.load("cnn_features_gz2", ids=theirs["id_str"][[2, 0]], columns=["feat_1279", "feat_0"])
    assert features["id_str"].tolist() == theirs["id_str"][[0, 2]].tolist() and features.shape[1] == 3
    assert features["feat_1279"].tolist() == theirs["feat_1279_pred"][[0, 2]].tolist()
    assert not datasets.load("gz_decals_auto").filter(like="_concentration").shape[1]  # bulky: on request only
    catalog = datasets.load("gz_decals_auto", columns=["bar-dr5_no_concentration"])
    assert len(catalog["bar-dr5_no_concentration"][0]) == 25 and catalog.shape[1] == 2
    with pytest.raises(ValueError, match="gives no column 'bar_no'. Did you mean 'bar-dr5_no'"):
        datasets.load(VOTES, columns=["bar_no"])
    catalog = datasets.load("gz_desi", ids=["300000_0", "nobody"])
    assert catalog["id_str"].tolist() == ["300000_0"]
    assert catalog.attrs["notes"] == ["'gz_desi' has 1 of the 2 galaxies that were asked for"]
    assert len(datasets.load("gz_desi", ids=["nobody"])) == 0


def test_data_sets_join_and_campaigns_stay_apart(server):
    names = [set(datasets.load(name).filter(regex="-(dr12|dr5|dr8|gz2)_").columns) for name in NAMES
             if ALL[name]["holds"] == "votes"]  # fmt: skip
    assert len(names) == 4 and sum(map(len, names)) == len(set().union(*names))
    votes, auto = datasets.load(VOTES), datasets.load("gz_decals_auto")
    joined = crossmatch.by_id(votes, auto, on="iauname", columns=["bar-dr5_proportion_volunteers_asked"])
    assert len(joined) == rows(VOTES)
    gz2 = datasets.load("gz2")
    with pytest.warns(UserWarning, match="left out of 'gz2_images': 1 with an id of an earlier row"):
        shown = datasets.load("gz2_images", images="/data/images")
    joined = crossmatch.by_id(gz2, shown, columns=["file_loc"]).set_index("id_str")
    assert joined.loc["587736542560715163", "file_loc"] == "/data/images/91609.jpg" and len(joined) == rows("gz2")


def test_images(server, tmp_path):
    found = datasets.load("demo_rings")
    assert list(found.columns[:2]) == ["id_str", "file_loc"]
    assert found["file_loc"].map(lambda file: Path(file).is_file()).all()
    assert found["published_subset"].value_counts().to_dict() == {"train": 24, "test": 6}
    with pytest.warns(UserWarning, match="left out of 'galaxy_mnist': 1 without an image"):
        datasets.load("galaxy_mnist")
    decals = datasets.load(VOTES, images=tmp_path / "png", columns=["ra"])
    name = decals["id_str"][0]
    assert decals["file_loc"][0] == str(tmp_path / "png" / name[:4] / f"{name}.png")
    with pytest.raises(ValueError, match="of 'gz2' no images are known"):
        datasets.load("gz2", images=tmp_path)


def serve_images(server, number: int) -> None:
    """Images of DECaLS in one of its four archives, and of Galaxy Zoo 2."""
    pictures = {f"{name[:4]}/{name}.png": noise(i) for i, name in enumerate(copies.SKY["iauname"])}
    for part in range(1, 5):
        content = zipped(pictures if part == number else {}, "gz_decals_dr5_png_part2/")
        server.files[f"{VOTES}/gz_decals_dr5_png_part{part}.zip?download=1"] = content
    asset_ids = copies.real("gz2_filename_mapping")["asset_id"]
    server.files["gz2_images/images_gz2.zip?download=1"] = zipped({f"{i}.jpg": noise(i) for i in asset_ids}, "images/")


def noise(seed):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)).save(out, "png")
    return out.getvalue()


@pytest.mark.filterwarnings("ignore:.*left out")
def test_the_lines_of_the_chapter_run(server, tmp_path, monkeypatch):
    """What the page on data sets tells its readers to type; it cannot run these lines itself without the network."""
    serve_images(server, 2)
    monkeypatch.setattr(rings, "load", lambda root: pd.DataFrame())  # 470 images, which have tests of their own
    copies.SKY[["ra", "dec"]].to_csv(tmp_path / "own.csv", index=False)
    monkeypatch.chdir(tmp_path)
    names = {"datasets": datasets, "crossmatch": crossmatch, "pd": pd}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, names)
    assert len(names["votes"]) == rows(VOTES) and names["auto"].shape[1] == 2
    for some, count in (("some", rows(VOTES)), ("gz2_with_images", rows("gz2")), ("toy", 29)):
        assert len(names[some]) == count and names[some]["file_loc"].map(lambda file: Path(file).is_file()).all(), some
    for joined in ("with_predictions", "with_features", "measured", "own"):
        assert len(names[joined]) == rows(VOTES), joined
    assert len(names["gz2_with_features"]) == rows("gz2")
    assert {"dr8_id", "photo_z", "bar-dr5_no"} <= set(names["measured"])
    assert names["own"]["smooth-or-featured_smooth_fraction"].notna().all()


def test_chapters_run_on_real_galaxies(server):
    serve_images(server, 3)
    scale = dataclasses.replace(chapters.SCALES["quick"], galaxies=5)
    catalog, store = chapters.Run("pytorch", chapters.PUBLISHED, scale).survey()
    assert len(catalog) == len(store) == 5 and store.pixels.shape[1:] == (128, 128, 3)


# ---- and the ways it should not


def changed(name, change):
    """A file with something changed in its table."""
    file = one_file(name)
    source = io.BytesIO(COPIES[name][file])
    if file.endswith(".parquet"):
        return copies.parquet(change(pd.read_parquet(source)))
    table = pd.read_csv(source, compression="gzip" if file.endswith(".gz") else None)
    return copies.csv(change(table), "gzip" if file.endswith(".gz") else None)


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
    assert file in str(error.value) and f"{column!r}. Did you mean {column + 'x'!r}" in str(error.value)
    assert "Is it the right file, or another version of it?" in str(error.value)


def with_bar(value):
    def change(table):
        table["bar_weak"] = table["bar_weak"].astype(object)
        table.loc[4, "bar_weak"] = value
        return table.astype({"bar_weak": str if value == "many" else float})

    return change


BAD_TABLES = {
    "negative": (VOTES, with_bar(-1), r"volunteers_5\.parquet: 1 bad votes.*column 'bar-dr5_weak': -1"),
    "fractional": (VOTES, with_bar(2.5), r"volunteers_5\.parquet: 1 bad votes.*column 'bar-dr5_weak': 2\.5"),
    "text": (VOTES, with_bar("many"), r"volunteers_5\.parquet: 1 bad votes.*column 'bar-dr5_weak': many"),
    "infinite": (VOTES, with_bar(np.inf), r"volunteers_5\.parquet: 1 bad votes.*column 'bar-dr5_weak': inf"),
    "another campaign": (VOTES, lambda table: copies.real("gz_decals_volunteers_1_and_2"),
                         r"volunteers_5\.parquet lacks \d+ of the 35 columns .* 'bar_strong'"),
    "float ids": ("gz2", lambda table: table.assign(dr7objid=table["dr7objid"].astype(float)),
                  r"gz2_hart16\.csv\.gz: the ids in `dr7objid` are floating-point numbers"),
    "no boolean": (VOTES, lambda table: table.sort_index().assign(wrong_size_warning="perhaps"),
                   "`wrong_size_warning` is neither true nor false in row 0: perhaps"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_bad_table_is_refused_with_its_reason(server, fault):
    name, change, message = BAD_TABLES[fault]
    serve(server, name, one_file(name), changed(name, change))
    with pytest.raises(ValueError, match=message):
        datasets.load(name)


def test_empty_questions_are_no_votes(server):
    columns = [column for column in copies.real(VOTES) if column.startswith("bar_")]

    def empty(table):
        table[columns] = table[columns].astype(float)
        table.loc[[2, 5], columns] = np.nan
        return table

    serve(server, VOTES, one_file(VOTES), changed(VOTES, empty))
    catalog = datasets.load(VOTES)
    emptied = catalog["id_str"].isin(copies.SKY["iauname"][[2, 5]])
    for column in ("bar-dr5_strong", "bar-dr5_weak", "bar-dr5_no", "bar-dr5_total-votes"):
        assert catalog.loc[emptied, column].tolist() == [0, 0]
    assert "bar-dr5: empty for 2 galaxies, read as 0 votes" in catalog.attrs["notes"]


@pytest.mark.parametrize("name", [VOTES, "gz_desi"])
def test_wrong_hash(server, name):
    file = one_file(name)
    server.files[f"{name}/{file}?download=1"] = COPIES[name][file][:-1] + b"x"
    with pytest.raises(DownloadError, match=rf"{file}.*content is wrong: expected md5:"):
        datasets.load(name)
    assert not (datasets.home() / name / file).exists()
    assert datasets.state(name)["state"].tolist() == ["missing"]


CUT = [("gz2", file, share) for file in COPIES["gz2"] for share in (0.1, 0.5, 0.8)]


@pytest.mark.filterwarnings("ignore:.*:astropy.utils.exceptions.AstropyWarning")
@pytest.mark.parametrize("name, file, share", [*CUT, ("cnn_features_gz2", "cnn_features_gz2.parquet", 0.99)])
def test_truncated_file_without_a_published_hash(server, name, file, share, tmp_path):
    content = COPIES[name][file]
    write(tmp_path / name / file, content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"{tmp_path}.*(could not be read as a table|cut off\?|bad votes|lacks)"):
        datasets.load(name, download=False)


def test_damaged_and_missing_files_without_the_network(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gz_desi_deep_learning_catalog_friendly\.parquet .*127\.0\.0\.1"):
        datasets.load("gz_desi", download=False)
    path = write(tmp_path / "gz_desi" / one_file("gz_desi"), COPIES["gz_desi"][one_file("gz_desi")][:-1])
    with pytest.raises(FileNotFoundError, match="missing or damaged"):
        datasets.load("gz_desi", download=False)
    assert datasets.state("gz_desi")["state"].tolist() == ["damaged"]
    datasets.load("gz_desi")  # fetched again
    assert path.read_bytes() == COPIES["gz_desi"][one_file("gz_desi")]


# ---- the registry itself


def test_registry_is_complete():
    for name, entry in ALL.items():
        assert {"title", "rows", "licence", "citation", "verified", "holds", "columns"} <= set(entry), name
        assert entry["verified"] in ("bytes", "code", "text")
        assert ("address" in entry) == ("loader" not in entry or name == "rings")
    assert set(COPIES) == set(NAMES)


def test_registry_agrees_with_the_facts(shared):
    """Rows, hashes and addresses are those of the collected facts."""
    facts = yaml.safe_load((shared / "facts" / "datasets.yaml").read_text())
    told = {file["file"]: file for part in ("gz_decals_zenodo", "gz_desi_zenodo")
            for file in facts[part].get("files", facts[part].get("files_at_8331338"))}  # fmt: skip
    known = {file: (entry, ALL[name]["rows"]) for name in NAMES for file, entry in ALL[name]["files"].items()}
    assert len(known.keys() & told.keys()) == 10
    for file in known.keys() & told.keys():
        entry, count = known[file]
        assert entry["hash"] == "md5:" + told[file]["md5"], file
        assert isinstance(count, str) or count in (told[file].get("rows"), facts["gz_desi_zenodo"]["rows"])
    for name in ("demo_rings", "galaxy_mnist"):
        entry = ALL[name]
        files = {**entry["files"], **entry["images"]["archives"]}
        for file in facts["galaxy_datasets_loaders"]["loaders"][name]["files"]:
            known = files[file["file"]]
            address = entry["address"] if "at" in known else entry["images"]["address"]
            assert known["hash"] == "md5:" + file["md5"]
            assert address.replace("{file}", known.get("at", file["file"])) == file["url"]
    assert ALL["gz2"]["rows"] == facts["gz2_tables"]["gz2_hart16.csv"]["rows"]
    assert len(ALL["gz2"]["rename"]) == 37
