"""Fine-tuning to every kind of label, in both frameworks."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, LeaveOneOut, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from toys import FOLDER, TREE, survey, trained

from zoobook import trees
from zoobook.files import fingerprint
from zoobook.learning import runs, tasks, transfer
from zoobook.learning.early_stopping import History

COLUMNS = ["epoch", "train_loss", "val_loss", "learning_rate"]
QUICK = dict(epochs=4, batch_size=12, learning_rate=3e-3, devices="cpu")


def tuned(half, label, unfreeze="head", **options):
    """Fine-tune the toy model; runs are kept, so asking twice costs nothing."""
    store, catalog = survey()
    options = {"unfreeze": unfreeze, "out_dir": Path(FOLDER.name) / f"{half.__name__}_{label}_{unfreeze}"} | options
    return half.finetune(trained(half).model, store, catalog, label, **QUICK | options)


def test_each_kind_of_label_is_learned(half, store, catalog):
    """And `predict` writes the columns of its kind."""
    result = tuned(half, "large")
    assert result.history["val_loss"].min() < np.log(2) * 0.8
    table = half.predict(result.model, store)
    assert list(table) == ["id_str", "large_probability"] and table["large_probability"].between(0, 1).all()
    assert ((table["large_probability"] > 0.5) == (catalog["large"] == 1)).mean() > 0.9

    table = half.predict(tuned(half, "kind").model, store)
    columns = ["kind_bar_probability", "kind_big_probability", "kind_ring_probability"]
    assert list(table) == ["id_str", *columns]
    np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-5)
    assert ((table["kind_big_probability"] > 0.5) == (catalog["kind"] == "big")).mean() > 0.9

    table = half.predict(tuned(half, "radius", epochs=12, learning_rate=1e-2).model, store, passes=2)
    assert list(table) == ["id_str", "radius", "radius_deviation"]
    assert np.corrcoef(table["radius"], catalog["radius"])[0, 1] > 0.9 and 3 < table["radius"].mean() < 10


def test_votes_on_another_tree(half, store, catalog):
    tree = trees.DecisionTree.from_dict({"name": "own", "questions": [{"name": "size", "answers": ["big", "small"]}]})
    catalog = catalog.assign(size_big=catalog["large"] * 9, size_small=9 - catalog["large"] * 9)
    out_dir = Path(FOLDER.name) / f"{half.__name__}_own"
    model = half.finetune(trained(half).model, store, catalog, tree, out_dir=out_dir, **QUICK | {"epochs": 8}).model
    table = half.predict(model, store, passes=2)
    assert list(table)[1:3] == ["size_big_concentration", "size_big_fraction"]
    large = catalog["large"] == 1
    assert table["size_big_fraction"][large].mean() > table["size_big_fraction"][~large].mean() + 0.2


@pytest.mark.parametrize(("unfreeze", "stages"), [("head", "last"), ("all", "last"), ("head", "all")])
def test_votes_on_the_same_tree_make_a_good_model_better(half, store, catalog, tmp_path, unfreeze, stages):
    """It begins where training arrived; and with the whole encoder it is training, to the last digit."""
    model, arrived = trained(half).model, trained(half).history
    model = half.with_all_stages(model) if stages == "all" else model
    result = half.finetune(model, store, catalog, TREE, unfreeze=unfreeze, out_dir=tmp_path / "a", **QUICK)
    assert result.model.spec == model.spec
    start, first = result.history.iloc[0], result.history.iloc[1]
    assert start["epoch"] == -1 and start["val_loss"] == pytest.approx(arrived["val_loss"].min(), rel=1e-4)
    assert first["epoch"] == 0 and first["train_loss"] < arrived["train_loss"].iloc[-1]
    assert result.history["val_loss"].min() < arrived["val_loss"].min()
    if unfreeze == "all":
        on = half.train(store, catalog, TREE, model=model, out_dir=tmp_path / "b", **QUICK)
        assert result.history[COLUMNS].iloc[1:].reset_index(drop=True).equals(on.history[COLUMNS])
        one, other = (half.models.to_arrays(found.model).values() for found in (result, on))
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("unfreeze", "stages"), [("head", "last"), ("all", "last"), ("head", "all")])
def test_no_result_is_worse_than_a_regression_on_the_frozen_features(half, store, catalog, tmp_path, unfreeze, stages):
    """Steps so large that they ruin all leave the regression that scikit-learn finds, here of some wrong labels."""
    wrong = np.random.default_rng(1).random(len(catalog)) < 0.2
    catalog = catalog.assign(large=np.where(wrong, 1 - catalog["large"], catalog["large"]))
    options = QUICK | {"epochs": 2, "learning_rate": 1.0}
    model = half.with_all_stages(trained(half).model) if stages == "all" else trained(half).model
    result = half.finetune(model, store, catalog, "large", unfreeze=unfreeze, out_dir=tmp_path, **options)
    assert list(result.history["epoch"]) == [-1, 0, 1] and result.history["val_loss"].idxmin() == 0
    assert list(result.history["train_loss"].isna()) == [True, False, False]
    features = half.represent(model, store).drop(columns="id_str").to_numpy(float)
    train, val = (catalog["subset"] == name for name in ("train", "val"))
    expected = searched(LogisticRegression(max_iter=1000), "C", tasks.STRENGTHS, "neg_log_loss")
    expected.fit(features[train], catalog["large"][train])
    found = half.predict(result.model, store)["large_probability"]
    np.testing.assert_allclose(found, expected.predict_proba(features)[:, 1], atol=2e-3)
    assert result.history["val_loss"][0] == pytest.approx(log_loss(catalog["large"][val], found[val]), rel=1e-3)


def searched(model, name: str, values, scoring: str):
    """A model of scikit-learn on standardised features, with its option chosen by cross-validation."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0) if scoring == "neg_log_loss" else LeaveOneOut()
    return make_pipeline(StandardScaler(), GridSearchCV(model, {name: values}, scoring=scoring, cv=folds))


@pytest.mark.parametrize(("galaxies", "features"), [(100, 20), (50, 120)])
def test_the_linear_answer_is_that_of_the_usual_pipeline(galaxies, features):
    rng = np.random.default_rng(galaxies)
    given = rng.normal(5, rng.uniform(0.1, 10, features), (galaxies, features)).astype(np.float32)
    given[:, 3] = 0.1  # a feature that says nothing
    hidden = (given[:, :4] - 5) / given[:, :4].std(0).clip(1e-3) @ [1, -1, 1, 0] + rng.normal(0, 0.5, galaxies)
    number = ((hidden - hidden.mean()) / hidden.std()).astype(np.float32)[:, None]
    weights, bias = tasks.linear_answer(given, number, tasks.Regression({}))
    ridge = searched(Ridge(), "alpha", 1 / tasks.STRENGTHS, "neg_mean_squared_error").fit(given, number[:, 0])
    np.testing.assert_allclose(given @ weights[0] + bias, ridge.predict(given), atol=2e-2)
    for kind, count in (("binary", 2), ("classes", 2), ("classes", 3)):
        classes = np.argsort(np.argsort(hidden)) * count // galaxies
        targets = classes.astype(np.float32)[:, None] if kind == "binary" else classes.astype(np.int64)
        weights, bias = tasks.linear_answer(given, targets, tasks.KINDS[kind]({}))
        raw = given @ weights.T + bias
        assert raw.shape[1] == (1 if kind == "binary" else count) and weights.dtype == bias.dtype == np.float32
        raw = np.concatenate([0 * raw, raw], 1) if kind == "binary" else raw
        usual = searched(LogisticRegression(max_iter=1000), "C", tasks.STRENGTHS, "neg_log_loss").fit(given, classes)
        np.testing.assert_allclose(softmax(raw, axis=1), usual.predict_proba(given), atol=2e-2)


def test_a_class_of_one_galaxy_has_an_answer():
    given = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    weights, bias = tasks.linear_answer(given, np.array([0, 1] * 5 + [0, 2]), tasks.Classes({}))
    assert weights.shape == (3, 5) and np.isfinite(weights).all() and np.isfinite(bias).all()


def test_an_untrained_encoder_begins_with_what_its_settled_features_say_and_learns_freely(half, tmp_path, monkeypatch):
    store, catalog = survey()
    model = half.build_model(None, "test_efficientnet", image_size=32)
    result = half.finetune(model, store, catalog, "large", out_dir=tmp_path / "head", **QUICK)
    assert result.history["val_loss"][0] < 0.8 * np.log(2)
    monkeypatch.setattr(History, "note_start", lambda *_: None)
    result = half.finetune(model, store, catalog, "large", unfreeze="all", out_dir=tmp_path / "all", **QUICK)
    before, after = (half.models.to_arrays(one) for one in (model, result.model))
    assert not any(np.array_equal(before[name], after[name]) for name in before)


def test_an_interrupted_run_knows_its_start(half, store, catalog, tmp_path, monkeypatch):
    whole, step, steps = tuned(half, "large"), History.step, []

    def interrupted(self, *args):
        steps.append(1)
        if len(steps) in (3, 14):  # in the first epoch, and in a later one
            raise KeyboardInterrupt
        step(self, *args)

    monkeypatch.setattr(History, "step", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt, match="same arguments"):
            half.finetune(trained(half).model, store, catalog, "large", out_dir=tmp_path, **QUICK)
    result = half.finetune(trained(half).model, store, catalog, "large", out_dir=tmp_path, **QUICK)
    assert result.history[COLUMNS].equals(whole.history[COLUMNS])
    with pytest.raises(ValueError, match="unfreeze was 'head', now 'all'"):
        tuned(half, "large", "all", out_dir=tmp_path)


@pytest.mark.parametrize("unfreeze", ["head", "top", "all"])
def test_only_what_is_unfrozen_changes(half, tmp_path, monkeypatch, unfreeze):
    """Weights, and of batch normalisation nothing; the start, with which nothing has changed, does not count here."""
    monkeypatch.setattr(History, "note_start", lambda *_: None)
    before = {name: array.copy() for name, array in half.models.to_arrays(trained(half).model).items()}
    result = tuned(half, "large", unfreeze, out_dir=tmp_path)
    after = half.models.to_arrays(result.model)
    changed = {name for name in before if name.startswith("encoder.") and not np.array_equal(before[name], after[name])}
    names = {name for name in before if name.startswith("encoder.")}
    if unfreeze == "head":
        assert not changed
    elif unfreeze == "top":
        weights = sum(before[name].size for name in changed)
        assert "encoder.conv_head.weight" in changed and "encoder.conv_stem.weight" not in changed
        assert 0.25 <= weights / sum(before[name].size for name in names) < 0.8
    else:
        norms = tuple(name.removesuffix("running_mean") for name in names if name.endswith("running_mean"))
        assert changed == {name for name in names if not name.startswith(norms)}
    given = half.models.to_arrays(trained(half).model)
    assert all(np.array_equal(before[name], array) for name, array in given.items())
    assert all(trainable(half, trained(half).model))


def trainable(half, model) -> list[bool]:
    if half.__name__.endswith("pytorch"):
        return [parameter.requires_grad for parameter in model.parameters()]
    return [layer.trainable for layer in model.encoder.layers]


@pytest.mark.parametrize("architecture", ["test_efficientnet", "resnet50"])
def test_deeper_stages_learn_more_slowly_in_both_frameworks_alike(halves, architecture):
    for unfreeze in ("top", "all"):
        lr_scales, learning = [], []
        for half in halves:
            model = half.build_model(None, architecture, image_size=32)
            lr_scales.append(transfer.freeze_layers(half, model, unfreeze))
            if half.__name__.endswith("pytorch"):
                learning.append({name for name, p in model.named_parameters() if p.requires_grad})
            else:
                paths = {variable.path for variable in model.trainable_variables}
                learning.append({name for name, _, variable in half.models.weights(model) if variable.path in paths})
            names = [name for name in half.models.to_arrays(model) if ".running_" not in name]
            assert sorted(lr_scales[-1]) == sorted(names)
            assert learning[-1] == set(names) if unfreeze == "all" else learning[-1] < set(names)
        assert learning[0] == learning[-1] and lr_scales[0] == lr_scales[-1]
    parts = ("conv_head", "conv_stem") if architecture == "test_efficientnet" else ("layer4", "conv1")
    top, stem = (
        next(scale for name, scale in lr_scales[0].items() if name.startswith(f"encoder.{part}")) for part in parts
    )
    assert 1 > top > stem > 0


def test_a_run_of_an_earlier_version_is_read(half, tmp_path, monkeypatch):
    """Before there were fields of view, and regression had its name; runs that went on from it are known."""
    first = tuned(half, "radius", epochs=12, learning_rate=1e-2)
    shutil.copytree(first.checkpoint.parent, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    settings = record["settings"]
    del settings["framing"], settings["photometric"], settings["spec"]["field_of_view"]
    settings["spec"]["head"]["kind"] = "number"
    settings["accumulate"] = settings.pop("accumulate_grad_batches")
    file.write_text(json.dumps(record))
    monkeypatch.setattr(half.engine.Trainer, "fit", None)
    again = tuned(half, "radius", epochs=12, learning_rate=1e-2, out_dir=tmp_path / "run")
    assert again.history.equals(first.history)
    arrays = half.models.to_arrays(first.model)
    old = first.model.spec | {"head": first.model.spec["head"] | {"kind": "number"}}
    assert runs.model_fingerprint(first.model.spec, arrays) == fingerprint(old, *arrays.values())
    assert half.models.from_arrays(old, arrays).spec == first.model.spec
