"""Arguments as people give them: paths, numbers of Python and NumPy, and what of them JSON can hold."""
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from zoobook import arguments, catalogs, datasets, evaluation, files, plots, rarity, representations, trees, votes
from zoobook.catalogs import crossmatch, samples
from zoobook.datasets.published import sample_runs
from zoobook.images import ImageStore, read_image, stamps
from zoobook.learning import architectures, runs
from zoobook.trees import DecisionTree
from zoobook.weights import inspect, write

TREE = trees.load("decals_dr5")


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given in ("~/a/b", Path("~/a/b"), "a/b", str(tmp_path / "a/b")):
        assert arguments.path(given) == tmp_path / "a" / "b"
    with pytest.raises(ValueError, match="nobody-of-that-name"):
        arguments.path("~nobody-of-that-name/a")


@pytest.mark.parametrize("value", ["", "  ", "a\0b", None, float("nan"), 3, b"a", "https://a.org/b.png", "file:///a"])
def test_what_is_no_path(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for takes_a_path in (arguments.path, ImageStore.open, read_image, files.ensure_writable_dir, inspect):
        with pytest.raises((ValueError, TypeError), match="is no path"):
            takes_a_path(value)
    assert not list(tmp_path.iterdir())


def test_addresses_of_images_are_refused_and_blanks_around_paths_are_none(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    catalog = pd.DataFrame({"id_str": ["a", "b"], "file_loc": [f" {tmp_path / 'a.png'}\n", "https://a.org/b.png"]})
    for read in (catalogs.read, lambda table: ImageStore.build(table, tmp_path / "s.arrow", 32), stamps.by_id):
        with pytest.raises(ValueError, match="`file_loc` holds addresses, such as 'https://a.org/b.png' .row 1,"):
            read(catalog)
    assert len(ImageStore.build(catalog.head(1), tmp_path / "s.arrow", 32)) == 1


@pytest.mark.parametrize("missing", [None, np.nan, "", "  "])
def test_a_galaxy_without_the_place_of_its_image_is_named(tmp_path, missing):
    catalog = pd.DataFrame({"id_str": ["a", "b"], "file_loc": ["a.png", missing]})
    for read in (catalogs.read, lambda table: ImageStore.build(table, tmp_path / "s.arrow", 32), stamps.by_id):
        with pytest.raises(ValueError, match="`file_loc` is empty for 1 galaxies: 'b' .row 1."):
            read(catalog)


VOTES = pd.DataFrame({"id_str": ["a", "b"], **dict.fromkeys(TREE.label_columns, 3)})
ANSWERS = votes.prediction_table(["a", "b"], np.full((2, len(TREE.label_columns)), 4.0), TREE)
NOBODY = VOTES.assign(**dict.fromkeys(TREE.label_columns, 0))
HISTORY = pd.DataFrame({"epoch": [0], "train_loss": 1.0, "val_loss": 1.0})
RINGS = pd.DataFrame({"id_str": ["a", "b"], "rare-features-dr5_ring": [0, 1], "rare-features-dr5_total-votes": 5})
PERCENT = pd.DataFrame({"id_str": ["a", "b"], "rare-features_ring_fraction": [30.0, 2.0]})
SKY = pd.DataFrame({"id_str": ["a", "b"], "ra": [1.0, 2.0], "dec": [3.0, 4.0]})
STAMP = np.zeros((8, 8, 3), np.uint8)
SENSELESS = {
    "columns must be a whole number": lambda: plots.montage([STAMP], columns=0),
    "3 images, but 1 titles": lambda: plots.montage([STAMP] * 3, titles=["a"]),
    "`answers` is empty": lambda: plots.fractions(ANSWERS, VOTES, TREE, []),
    "has no column 'none'": lambda: plots.fractions(ANSWERS, VOTES, TREE, ["none"]),
    "of predictions has no column": lambda: plots.fractions(ANSWERS[["id_str"]], VOTES, TREE, TREE.label_columns[:1]),
    "the catalogue has no column": lambda: plots.fractions(ANSWERS, VOTES[["id_str"]], TREE, TREE.label_columns[:1]),
    "no column 'information_captured'": lambda: plots.information(pd.DataFrame({"x": [1]})),
    "the predictions have no rows": lambda: evaluation.evaluate(ANSWERS.head(0), VOTES, TREE),
    "no votes for 1 predicted galaxies, such as 'b'": lambda: evaluation.evaluate(ANSWERS, VOTES.head(1), TREE),
    "must be two lists of the same length": lambda: evaluation.roc_auc([0, 1, 1], [0.1, 0.2]),
    "resamples must be a whole number": lambda: evaluation.roc_auc([0, 1], [0.1, 0.2], resamples=0),
    "both classes, 0 and 1; here: 'no', 'ring'": lambda: evaluation.roc_auc(["no", "ring"], [0, 1]),
    "bins must be a whole number": lambda: evaluation.radial_profiles(STAMP[None], bins=0),
    "the votes on bar must be a whole number": lambda: samples.select(VOTES, TREE, votes={"bar": "20"}),
    "the fraction of bar_no must be a share": lambda: samples.select(VOTES, TREE, {"bar_no": "0.2"}),
    "above must be a share": lambda: samples.classes(VOTES, TREE, "bar", above="0.5"),
    "seed must be a whole number": lambda: catalogs.split(VOTES, seed=0.0),
    "add up to 1: None": lambda: catalogs.split(VOTES, fractions=None),
    "the catalogue has no column 'id_str'": lambda: crossmatch.near_pairs(pd.DataFrame({"ra": [1], "dec": [2]})),
    "which is no text": lambda: catalogs.check_ids(pd.DataFrame({"id_str": [b"\xff", "a"]})),
    "an id is a text or a whole number": lambda: catalogs.check_ids(pd.DataFrame({"id_str": [[1.0], [2.0]]})),
    "size must be a whole number": lambda: sample_runs(VOTES, -1),
    "no images": lambda: plots.montage([]),
    "0 to 255, or floats from 0 to 1, not from 200 to 200 in float64": lambda: plots.montage([STAMP * 0 + 200.0]),
    "holds 'much', where a number must stand": lambda: plots.information(
        pd.DataFrame({"information_captured": ["much"], "information_captured_error": 0.1})),
    "curves must be a dictionary.*not None": lambda: plots.roc(None),
    "the positions have the shape ..": lambda: plots.galaxy_map(None, [STAMP]),
    "the catalogue has no galaxies": lambda: plots.votes_of(VOTES.head(0), 0, TREE),
    "shares must be numbers": lambda: plots.tree(TREE, ["a"] * len(TREE.questions)),
    "channels must be 1 .grey. or 3 .colour., not True": lambda: architectures.check_options({"channels": True}),
    "rng must be a generator of NumPy, or a seed, not 'a'": lambda: votes.sample(np.ones((1, 34)), 5, TREE, "a"),
    "must be a list of arrays": lambda: plots.montage(STAMP),
    "pixels must be bytes": lambda: evaluation.radial_profiles(np.zeros((1, 64, 64, 3))),
    "any of these 2": lambda: evaluation.evaluate(ANSWERS, NOBODY, TREE),
    "voted on any of these 2 galaxies": lambda: plots.expected(NOBODY, TREE),
    "row must be a whole number, from -2 to 1": lambda: plots.votes_of(VOTES, 2, TREE),
    "these 1 galaxies": lambda: plots.votes_of(NOBODY, 0, TREE),
    "the history must be a pandas DataFrame, not int": lambda: plots.training(3),
    "concentrations must have the shape": lambda: plots.belief(STAMP, np.ones(3), np.ones(34), TREE, ["bar"]),
    "questions` must be a list": lambda: plots.belief(STAMP, np.ones(34), np.ones(34), TREE, "bar"),
    "`image` must be one array": lambda: plots.belief(STAMP[0], np.ones(34), np.ones(34), TREE, ["bar"]),
    "2 shares for the 10 questions": lambda: plots.tree(TREE, [0.5, 0.5]),
    "none of the 1 epochs": lambda: plots.training(pd.DataFrame({"epoch": [0], "train_loss": 1, "val_loss": np.nan})),
    "references must be a dictionary": lambda: plots.training(HISTORY, references=[2.1]),
    "references..oracle.. must be a number": lambda: plots.training(HISTORY, references={"oracle": "2.1"}),
    "curves must be a dictionary": lambda: plots.roc([([0, 1], [0.1, 0.2])]),
    "curves..a.. must be .labels, scores.": lambda: plots.roc({"a": [0, 1, 1]}),
    "two finite numbers for each of 3 images": lambda: plots.galaxy_map(np.full((3, 2), np.nan), [STAMP] * 3),
    "a ROC curve needs galaxies of both classes": lambda: plots.roc({"a": ([1, 1], [0.1, 0.2])}),
    "seed must be a whole number, from 0": lambda: catalogs.ring_labels(RINGS, balance=True, seed=1.5),
    "'rare-features_ring_fraction' holds something else": lambda: catalogs.ring_labels(PERCENT),
    "on must be the name of the id column.* not None": lambda: crossmatch.by_id(VOTES, VOTES, on=None),
    "left and right table, not .'id_str'": lambda: crossmatch.by_id(VOTES, VOTES, on=("id_str", 2)),
    "there are 3 ids, but concentrations of 2": lambda: votes.prediction_table(list("abc"), np.ones((2, 34)), TREE),
    "the ids asked for: the ids .* floating-point": lambda: votes.prediction_table([1.0], np.ones((1, 34)), TREE),
    "volunteers must be whole numbers": lambda: votes.sample(np.ones((2, 34)), 2.5, TREE, np.random.default_rng(0)),
    "of 1 galaxies, but votes on 2": lambda: votes.nll(np.ones((1, 34)), np.ones((2, 34)), TREE),
    "finite and from 0 to 1": lambda: votes.proportion_asked(np.full((1, 34), 2.0), TREE),
    "finite and whole": lambda: votes.fit_constant(np.full((1, 34), 0.5), TREE),
    "no decision tree is called": lambda: trees.load(["gz2"]),
    "not by .gz2": lambda: DecisionTree.from_dict("gz2"),
    "`bars` must be": lambda: arguments.names("bars", 3),
    "fractions must be a dictionary": lambda: samples.select(VOTES, TREE, ["bar_no"]),
    "an answer is named by text": lambda: samples.select(VOTES, TREE, {3: 0.5}),
    "has no question 3": lambda: samples.classes(VOTES, TREE, 3),
    "holds 'many', where a number must stand, in 2 rows": lambda: samples.select(
        VOTES.assign(**{"bar-dr5_total-votes": "many"}), TREE, votes={"bar": 1}
    ),
    "holds True, where a number": lambda: samples.fraction(VOTES.assign(**{"bar-dr5_no": True}), TREE, "bar_no"),
    "ring' would be inf in row 1": lambda: samples.fraction(
        RINGS.assign(**{"rare-features-dr5_total-votes": 0}), TREE, "rare-features_ring"
    ),
    "`ra` holds True": lambda: crossmatch.by_position(SKY.assign(ra=[True, False]), SKY),
    "`dec` holds True, where a number must stand, in 1 rows .counted from 0.: 1": lambda: crossmatch.near_pairs(
        SKY.assign(dec=pd.Series([2.0, True], dtype=object))
    ),
    "rounds must be a list of the tables that classify made, not None": lambda: representations.settled(None),
    "two columns 'ra_right'": lambda: crossmatch.by_id(SKY, SKY.assign(ra_right=1)),
    "It is the index": lambda: catalogs.read(VOTES.set_index("id_str")),
    "here: 0.0, nan$": lambda: evaluation.roc_auc([0, np.nan, np.nan], [1, 2, 3]),
    "pixels must be bytes, uint8": lambda: evaluation.radial_profiles(STAMP[None, ..., :1]),
    "votes must be numbers throughout": lambda: votes.fit_constant([["a"] * 34], TREE),
    "concentrations must be numbers throughout": lambda: votes.nll([[1, 2], [1]], np.ones((2, 34)), TREE),
    "concentrations must be numbers throughout, eq": lambda: votes.nll(np.ones((2, 34), bool), np.ones((2, 34)), TREE),
    "of no pass at all": lambda: votes.prediction_table(["a"], np.ones((1, 34, 0)), TREE),
    "one or for each galaxy": lambda: votes.sample(np.ones((2, 34)), [1, 2, 3], TREE, 0),
    "at least one Question": lambda: DecisionTree("a", [{"name": "q", "answers": ["x", "y"]}]),
    "`images` must be a list": lambda: plots.montage(None),
    "`images` must be a list of arrays .H, W, 3": lambda: plots.montage([STAMP[..., :2]]),
    "`columns` must be a list of names, .* not 'ra'": lambda: datasets.load("gz_desi", download=False, columns="ra"),
    "`columns` must be a list of names, .* not 5": lambda: datasets.load("gz_desi", download=False, columns=5),
    "`answers` must be a list of names": lambda: plots.fractions(ANSWERS, VOTES, TREE, "bar-dr5_no"),
    "the tree must be a DecisionTree": lambda: plots.fractions(ANSWERS, VOTES, "decals_dr5", ["bar-dr5_no"]),
    "size must be a positive number": lambda: plots.galaxy_map([[0, 1]], [STAMP], size=0),
    "finite numbers for each of 1": lambda: plots.galaxy_map([["a", "b"]], [STAMP]),
    "`curves` is empty": lambda: plots.roc({}),
    "chosen must be one sample": lambda: rarity.plot([0, 1], [0.1, 0.2], 0.1, chosen={"purity": 1}),
    "must be a list of text, not .' '": lambda: DecisionTree.from_dict(
        {"name": "a", "questions": [{"name": "q", "answers": [" ", "b"]}]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", SENSELESS)
def test_senseless_requests_are_refused_by_name(message):
    with pytest.raises(ValueError, match=message):
        SENSELESS[message]()


class Foreign:
    """A table of another library."""

    columns = ["id_str"]

    def to_pandas(self): ...


TAKE_TABLES = {
    "ids": catalogs.check_ids, "keyed": catalogs.keyed, "split": catalogs.split,
    "store": lambda table: ImageStore.build(table, "x.arrow", 32), "stamps": stamps.by_id,
    "votes": lambda table: catalogs.check_votes(table, TREE), "classes": lambda t: samples.classes(t, TREE, "bar"),
    "total": lambda table: samples.total_votes(table, TREE, "bar"), "select": lambda table: samples.select(table, TREE),
    "fractions": lambda table: catalogs.add_fractions(table, TREE), "rings": catalogs.ring_labels,
    "debiased": lambda t: samples.debiased(t, TREE), "evaluate": lambda t: evaluation.evaluate(ANSWERS, t, TREE),
    "predictions": lambda table: evaluation.evaluate(table, VOTES, TREE), "pairs": crossmatch.near_pairs,
    "plot": lambda table: plots.fractions(ANSWERS, table, TREE, TREE.label_columns[:1]), "training": plots.training,
    "left": lambda table: crossmatch.by_id(table, VOTES), "ask": lambda table: representations.ask("x", table),
    "disagreement": lambda table: representations.disagreement(table, TREE),
    "asked": lambda table: samples.asked_fraction(table, TREE, "smooth-or-featured"),
    "settled": lambda table: representations.settled([table] * 3), "scores": plots.information,
}  # fmt: skip


@pytest.mark.parametrize("takes_a_table", TAKE_TABLES)
def test_what_is_no_table_is_refused_by_name(takes_a_table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    twice = pd.concat([VOTES, VOTES], axis=1)
    for given, message in ((Foreign(), "not Foreign: its method to_pandas makes one"), ("c.csv", "c.csv: zoobook"),
                           (None, "not NoneType$"), (twice, "has several columns")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            TAKE_TABLES[takes_a_table](given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tree", ["decals_dr5", None, TREE.to_dict()])
def test_what_is_no_tree_is_refused(tree):
    for takes_a_tree in (
        plots.tree, lambda t: catalogs.check_votes(VOTES, t), lambda t: evaluation.evaluate(ANSWERS, VOTES, t),
        lambda t: votes.nll([[1, 2]], [[1, 2]], t), lambda t: samples.select(VOTES, t, votes={"bar": 1}),
        lambda t: samples.fraction(VOTES, t, "bar_no"), lambda t: representations.disagreement(ANSWERS, t),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="a DecisionTree, not .*load.'decals_dr5'. gives one"):
            takes_a_tree(tree)


def test_a_column_that_is_not_there_may_be_close_or_the_index():
    with pytest.raises(ValueError, match="no column 'id_str'; there are: .*Did you mean ' ID_STR'"):
        catalogs.check_ids(VOTES.rename(columns={"id_str": " ID_STR"}))
    with pytest.raises(ValueError, match="It is the index: reset_index"):
        catalogs.check_ids(VOTES.set_index("id_str"))
    with pytest.raises(ValueError, match=r"in a list, such as \['id_str'\]"):
        crossmatch.by_id(VOTES, VOTES, columns="id_str")


@pytest.mark.parametrize("writes", ["store", "weights", "compression"])
def test_a_file_of_another_kind_is_not_overwritten(writes, tmp_path):
    catalog = tmp_path / "catalogue.csv"
    catalog.write_text("id_str,feat_0\na,1\n")
    pd.DataFrame({"id_str": ["a", "b"], "feat_0": [1.0, 2.0]}).to_parquet(tmp_path / "f.parquet")
    spec = {"architecture": "test_efficientnet", "head": None}
    write_to = {
        "store": lambda path: ImageStore.build(pd.DataFrame({"id_str": ["a"], "file_loc": "a.png"}), path, 32),
        "weights": lambda path: write(path, spec, {"encoder.a": np.zeros(2, "float32")}),
        "compression": lambda path: representations.compress(tmp_path / "f.parquet", path, 1),
    }[writes]
    with pytest.raises(ValueError, match="catalogue.csv is there already, and is something else"):
        write_to(catalog)
    with pytest.raises(ValueError, match="is a folder"):
        write_to(tmp_path)
    assert catalog.read_text() == "id_str,feat_0\na,1\n" and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="is the table that is to be compressed"):
        representations.compress(tmp_path / "f.parquet", tmp_path / "f.parquet", 1)
    if writes == "compression":
        os.symlink(tmp_path / "f.parquet", tmp_path / "link.parquet")
        for one, other in (("link.parquet", "f.parquet"), ("f.parquet", "../" + tmp_path.name + "/f.parquet")):
            with pytest.raises(ValueError, match="is the table that is to be compressed"):
                representations.compress(tmp_path / one, tmp_path / other, 1)


def test_numbers_out_of_arrays():
    assert arguments.real("x", np.array(0.5)) == 0.5 and type(arguments.real("x", np.float16(0.5))) is float
    for value in (10**400, np.array([0.5]), 1j, "1"):
        with pytest.raises(ValueError, match="x must be a positive number"):
            arguments.real("x", value)
    assert evaluation.roc_auc(np.array([0, 1], ">i4"), np.array([0.1, 0.2], ">f8"), resamples=20)["auc"] == 1
    pair = rarity.sample([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], [3, 100], threshold=0.2)
    assert pair.equals(rarity.sample([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], (3, 100), threshold=0.2))


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_whole_numbers(value):
    assert arguments.whole("k", value) == 3 and type(arguments.whole("k", value)) is int


@pytest.mark.parametrize("value", [0, np.int64(0), 2.5, np.float32(2), True, np.True_, "3", None, [3], float("nan")])
def test_what_is_no_whole_number(value):
    with pytest.raises(ValueError, match="k must be a whole number, at least 1, not"):
        arguments.whole("k", value)
    with pytest.raises(ValueError, match="k must be a whole number, from 5 to 7, not 8"):
        arguments.whole("k", 8, 5, 7)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.float32("nan"), float("inf"), True, "0.5", None])
def test_shares(value):
    for half in (0.5, np.float32(0.5), np.float16(0.5)):
        assert arguments.share("s", half) == 0.5 and type(arguments.share("s", half)) is float
    with pytest.raises(ValueError, match="s must be a share from 0 to 1, not"):
        arguments.share("s", value)


def test_json():
    given = {"a": np.float32(0.5), "b": np.arange(2), "c": Path("x"), "d": {1}, "e": np.True_, "f": [np.int64(2)]}
    expected = {"a": 0.5, "b": [0, 1], "c": "x", "d": [1], "e": True, "f": [2]}
    assert json.loads(json.dumps(given, default=arguments.plain)) == expected
    assert files.fingerprint(given) == files.fingerprint(expected)


def test_numpy_numbers_and_home_in_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = {"architecture": "test_efficientnet", "channels": np.int64(1), "image_size": np.int64(32), "dropout": 0.0,
            "field_of_view": np.float32(14), "tree": None, "head": None}  # fmt: skip
    written = write("~/m.safetensors", spec, {"encoder.a": np.zeros(2, "float32")}, auc=np.float32(0.5))
    assert written == tmp_path / "m.safetensors"
    for name in ("~/m.safetensors", Path("~/m.safetensors"), written):
        assert inspect(name)["provenance"]["auc"] == 0.5 and inspect(name)["spec"]["image_size"] == 32
    folder = runs.RunFolder("~/run", {"epochs": np.int64(3)})
    assert folder.path == tmp_path / "run" and json.loads((folder.path / "run.json").read_text())["settings"] == {
        "epochs": 3
    }
    assert runs.RunFolder("~/run", {"epochs": 3}).settings == {"epochs": 3}
    (tmp_path / "tree.yaml").write_text("questions: [{name: q, answers: [a, b]}]")
    assert DecisionTree.from_yaml("~/tree.yaml").label_columns == ["q_a", "q_b"]
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        ImageStore.open("~/none.arrow")
