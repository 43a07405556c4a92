"""The program that measures the shipped encoder on real galaxies: its protocol, on made-up ones."""
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from zoobook import trees

measure = pytest.importorskip("measure")


def row(score="rank", data="gz2", label="truth"):
    return measure.Row(data, "made up", score, lambda catalog: catalog[label].astype(float))


@pytest.fixture
def briefly(monkeypatch):
    """Fewer repetitions, and the same protocol otherwise."""
    less = {"RESAMPLES": 30, "LABELS": (20,), "QUICK": {"draws": 1, "shuffles": 1}, "FOLDS": 3}
    less["PENALTIES"] = {"rank": [1.0, 100.0], "auc": [0.01, 1.0]}
    for name, value in less.items():
        monkeypatch.setattr(measure, name, value)


def test_a_feature_that_is_the_label_scores_one(briefly):
    rng = np.random.default_rng(0)
    catalog = pd.DataFrame({"truth": rng.normal(size=400), "yes": rng.integers(0, 2, 400)})
    noise = rng.normal(size=(400, 3))
    features = {"encoder": np.c_[catalog["truth"], noise], "other": noise}
    found = measure.measure_row(row(), features, catalog, draws=3, shuffles=2)
    assert (found["fit"], found["test"]) == (300, 100)
    best = found["features"]["encoder"]["all"]
    assert best["value"] > 0.999 and best["error"] < 1e-3
    chance = found["features"]["other"]["all"]
    assert abs(chance["value"]) < 4 * chance["error"] and 0.05 < chance["error"] < 0.2  # 1 / sqrt(100), about
    assert found["ahead"]["other"]["value"] == pytest.approx(best["value"] - chance["value"])
    assert [one["labels"] for one in found["features"]["encoder"].values()] == [20, 300]
    for data in ("gz2", "rings"):  # split once, and in folds
        yes = {"encoder": np.c_[catalog["yes"], noise], "other": noise}
        found = measure.measure_row(row("auc", data, "yes"), yes, catalog, draws=2, shuffles=2)
        best, chance = (found["features"][name]["all"] for name in ("encoder", "other"))
        assert best["value"] > 0.999 and best["purity"]["value"] == 1
        assert abs(chance["value"] - 0.5) < 4 * chance["error"]
        assert chance["purity"]["value"] < 0.1


def test_galaxies_without_the_label_are_left_out(briefly):
    catalog = pd.DataFrame({"truth": np.where(np.arange(400) % 2, np.nan, np.arange(400.0))})
    features = {"encoder": np.nan_to_num(catalog.to_numpy(), nan=-1e6)}  # they would spoil everything
    found = measure.measure_row(row(), features, catalog, draws=1, shuffles=1)
    assert found["fit"] + found["test"] == 200
    assert found["features"]["encoder"]["all"]["value"] == pytest.approx(1)


def test_scores_are_those_of_the_books():
    truth, guess = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert measure.score("auc", truth, guess) == 0.75  # the example of scikit-learn's documentation
    assert measure.score("rank", np.arange(5), [5, 6, 7, 8, 7]) == pytest.approx(0.82078, abs=1e-5)  # SciPy's
    assert measure.score("rank", np.arange(5), np.zeros(5)) == 0 and np.isnan(measure.score("auc", np.zeros(4), guess))
    many = np.random.default_rng(0).normal(size=(2, 300)).round(1)  # with ties
    labels = (many[0] > 0).astype(float)
    assert measure.score("auc", labels, many[1]) == pytest.approx(roc_auc_score(labels, many[1]))
    # half of the rings found, with one false alarm among a hundred others: one ring in fifty gives 0.5 * 2 to 0.01 * 98
    truth = np.r_[np.ones(10), np.zeros(100)]
    guess = np.r_[np.full(5, 3.0), np.zeros(5), 3.0, np.full(99, 1.0)]
    assert measure.purity(truth, guess) == pytest.approx(1 / 1.98)


def test_those_to_test_are_never_fitted_nor_looked_at_in_development():
    for name, count, sizes in (("gz2", 4000, (3000, 1000)), ("efigi", 3658, (2600, 1058)), ("gz2", 40, (30, 10))):
        fit, test = measure.split(name, count)
        assert (len(fit), len(test)) == sizes and len({*fit, *test}) == count
        assert not {*test} & {*np.concatenate(measure.split(name, count, development=True))}
        assert (measure.split(name, count)[1] == test).all()
    found = []
    labels = np.arange(60) % 2
    measure.in_folds(lambda fit, test: found.append((fit, test)) or np.zeros(len(test)), labels, 0)
    assert sorted(np.concatenate([test for _, test in found])) == list(range(60))
    assert not any({*fit} & {*test} for fit, test in found)


def test_kaggle_fractions_are_made_conditional():
    catalog = pd.DataFrame(
        {
            "smooth_fraction": [0.8, 0.4], "round_fraction": [0.6, 0.4], "featured-or-disk_fraction": [0.2, 0.6],
            "edge-on_yes_fraction": [0.2, 0.35], "edge-on_no_fraction": [0.0, 0.25],
        }
    )  # fmt: skip
    assert measure.UNLABELLED["gz2_round"][2].label(catalog).tolist() == pytest.approx([0.75, np.nan], nan_ok=True)
    assert measure.UNLABELLED["gz2_edge-on"][2].label(catalog).tolist() == pytest.approx([np.nan, 1], nan_ok=True)
    efigi = pd.DataFrame([[0, 0, 0, 0.5], [0, 0.5, 0, 0], [0.25, 0, 0, 0], [1, 0, 0, 0.75], [0, 0, -1, 0]],
                         columns=["Inner_Ring", "Outer_Ring", "Pseudo_Ring", "Inclination"])  # fmt: skip
    assert measure.ROWS["efigi_ring"].label(efigi).tolist() == pytest.approx([0, 1, *3 * [np.nan]], nan_ok=True)


def test_answers_are_found_in_any_tree():
    dr5 = trees.load("decals_dr5")
    assert measure.answer_column(dr5, "merging", "merger") == "merging-dr5_merger"
    assert measure.answer_column(dr5, "ring", None) is None
    spec = dr5.to_dict()
    more = {
        "ring": ["yes", "no"],  # ticked or not
        "rare-features": ["ring", "not-ring"],
    }
    for name, answers in more.items():
        questions = [*spec["questions"], {"name": name, "asks": "", "answers": answers}]
        tree = trees.DecisionTree.from_dict(spec | {"questions": questions})
        assert measure.answer_column(tree, "ring", None) == f"{name}-dr5_{answers[0]}"


def made_up(folder: Path) -> Path:
    """Forty galaxies a data set: blobs of different sizes, and labels that follow the size, some of them."""
    rng = np.random.default_rng(0)
    count, side = 40, 48
    y, x = np.mgrid[:side, :side] - side / 2
    for name in measure.FRAMING:
        (folder / name / "images").mkdir(parents=True)
        large = rng.random(count)
        for i in range(count):
            blob = 200 * np.exp(-np.hypot(x, y) / (2 + 8 * large[i]))[..., None] + rng.normal(0, 6, (side, side, 3))
            Image.fromarray(np.clip(blob, 0, 255).astype(np.uint8)).save(folder / name / f"images/{i}.jpg")
        catalog = pd.DataFrame({"id": np.arange(count), "file_loc": [f"images/{i}.jpg" for i in range(count)]})
        if name == "rings":
            catalog = catalog.rename(columns={"id": "iauname"}).assign(ring=(large > np.median(large)).astype(int))
        elif name == "efigi":
            columns = ["Inner_Ring", "Outer_Ring", "Pseudo_Ring"]
            catalog[columns] = np.outer(large > 0.5, [1.0, 0, 0])
            catalog = catalog.assign(Inclination=0.25, Bar_Length=np.round(large * 4) / 4, T=np.round(10 * large))
        else:
            for column in ("smooth", "featured-or-disk", "edge-on_yes", "edge-on_no", "odd_yes", "round", "ring",
                           "merger"):  # fmt: skip
                catalog[f"{column}_fraction"] = rng.permutation(large) if column == "odd_yes" else large
            catalog["edge-on_no_fraction"] = rng.permutation(large)
            catalog["round_fraction"] = large * rng.random(count)
        catalog.to_csv(folder / name / "catalog.csv", index=False)
    return folder


def test_the_program_writes_every_row(tmp_path, monkeypatch, capsys, briefly):
    torch = pytest.importorskip("torch")
    from zoobook import pytorch, weights

    real = made_up(tmp_path / "real")
    torch.manual_seed(0)
    model = pytorch.build_model(trees.load("decals_dr5"), "test_efficientnet", image_size=32, field_of_view=8.5)
    file = weights.save(model, tmp_path / "model.safetensors", data="none")
    out = tmp_path / "results.json"
    command = ["measure.py", "--weights", file, "--real", real, "--out", out, "--work", tmp_path / "work", "--quick"]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    measure.main()
    first = out.read_text()
    found = json.loads(first)
    assert found["weights"]["name"] == "model.safetensors" and len(found["weights"]["sha256"]) == 64
    assert found["weights"]["field_of_view"] == 8.5
    assert found["protocol"]["galaxies"] == dict.fromkeys(measure.FRAMING, 40)
    assert found["rows"].keys() == measure.ROWS.keys() and found["finetuned"] == {}
    kinds = {"encoder", "untrained", "pixels", *(f"profiles_{kind}_{view}" for kind in ("grey", "colour")
                                                 for view in ("view", "whole"))}  # fmt: skip
    for one in found["rows"].values():
        assert one["features"].keys() == kinds and one["ahead"].keys() == kinds - {"encoder"}
        for by in one["features"].values():
            assert -1 <= by["all"]["value"] <= 1 and by["all"]["error"] >= 0
            assert ("purity" in by["all"]) == (one["score"] == "auc")
    # the blobs' sizes are plain to see, in brightness alone, and in no way for what was shuffled
    scores = {key: one["features"]["profiles_grey_view"]["all"]["value"] for key, one in found["rows"].items()}
    assert min(scores["gz2_smooth"], scores["efigi_stage"], scores["decals_ring"]) > 0.9 and scores["gz2_odd"] < 0.8
    for key, one in found["ways"].items():
        row = found["rows"][key]
        if row["data"] in measure.FIT:  # the others are shuffled more than once there
            assert one["upright"]["value"] == row["features"]["encoder"]["all"]["value"]
        for way in ("orientations", "stages", "both"):
            gap = one[way]["value"] - one["upright"]["value"]
            assert one["ahead"][way]["value"] == pytest.approx(gap, abs=2e-5)
    assert found["ways"].keys() == measure.ROWS.keys()
    assert found["unlabelled"].keys() == {"gz2_smooth", "gz2_round", "gz2_edge-on", "gz2_merger", "efigi_bar"}
    assert "gz2_smooth" in capsys.readouterr().out
    measure.main()
    assert out.read_text() == first  # the same again, from what is kept


def test_fine_tuning_is_measured_beside_the_frozen_encoder(tmp_path, monkeypatch, briefly):
    pytest.importorskip("torch")
    from zoobook import pytorch

    real, work = made_up(tmp_path / "real"), tmp_path / "work"
    monkeypatch.setattr(measure, "FOLDS", 2)
    model = pytorch.build_model(trees.load("decals_dr5"), "test_efficientnet", image_size=32, field_of_view=8.5)
    finetune = pytorch.finetune
    seen = []

    def one_epoch(model, store, catalog, *args, **options):
        seen.append(set(catalog["id_str"]))
        return finetune(model, store, catalog, *args, **options, epochs=1)

    monkeypatch.setattr(pytorch, "finetune", one_epoch)
    galaxies = {name: measure.Galaxies.read(real, name, work) for name in measure.FRAMING}
    features = {name: {"encoder": measure.represent(one.store, model)} for name, one in galaxies.items()}
    found = measure.measure_finetuning(model, galaxies, features, work / "runs", development=False)
    assert found.keys() == {"decals_ring", "efigi_ring"}
    for one in found.values():
        assert one["ahead"]["value"] == pytest.approx(one["finetuned"]["value"] - one["frozen"]["value"])
    assert len(seen) == 3 and not seen[0] & seen[1] and len(seen[0]) == 20  # each fold learns from the other
