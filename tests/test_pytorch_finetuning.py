from pathlib import Path

import numpy as np
import pytest
import torch
from toys import FOLDER, survey, trained

from zoobook import trees
from zoobook.pytorch import finetune, predict
from zoobook.pytorch.models import to_arrays

QUICK = dict(epochs=4, batch_size=12, learning_rate=3e-3, devices="cpu")


def tuned(label, unfreeze="head", **options):
    """Fine-tune the toy model; runs are kept, so asking twice costs nothing."""
    store, catalog = survey()
    name = f"{getattr(label, 'name', label)}_{unfreeze}"
    out_dir = Path(FOLDER.name) / name
    return finetune(trained().model, store, catalog, label, unfreeze=unfreeze, out_dir=out_dir, **QUICK | options)


def test_a_yes_or_no_question():
    store, catalog = survey()
    result = tuned("large")
    table = predict(result.model, store)
    assert list(table) == ["id_str", "large_probability"] and table["large_probability"].between(0, 1).all()
    assert ((table["large_probability"] > 0.5) == (catalog["large"] == 1)).mean() > 0.9
    assert result.history["val_loss"].min() < np.log(2) * 0.8


def test_classes():
    store, catalog = survey()
    table = predict(tuned("kind").model, store)
    columns = ["kind_bar_probability", "kind_big_probability", "kind_ring_probability"]
    assert list(table) == ["id_str", *columns]
    np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-5)
    assert ((table["kind_big_probability"] > 0.5) == (catalog["kind"] == "big")).mean() > 0.9


def test_a_number():
    store, catalog = survey()
    table = predict(tuned("radius", epochs=12, learning_rate=1e-2).model, store)
    assert list(table) == ["id_str", "radius"]
    assert np.corrcoef(table["radius"], catalog["radius"])[0, 1] > 0.9
    assert 3 < table["radius"].mean() < 10


def test_votes_on_another_tree():
    store, catalog = survey()
    tree = trees.DecisionTree.from_dict({"name": "own", "questions": [{"name": "size", "answers": ["big", "small"]}]})
    catalog = catalog.assign(size_big=catalog["large"] * 9, size_small=9 - catalog["large"] * 9)
    out_dir = Path(FOLDER.name) / "own"
    table = predict(finetune(trained().model, store, catalog, tree, out_dir=out_dir, **QUICK).model, store, passes=2)
    assert list(table)[1:3] == ["size_big_concentration", "size_big_fraction"]
    large = catalog["large"] == 1
    assert table["size_big_fraction"][large].mean() > table["size_big_fraction"][~large].mean() + 0.2


@pytest.mark.parametrize("unfreeze", ["head", "top", "all"])
def test_only_what_is_unfrozen_changes(unfreeze):
    """Weights as well as batch statistics."""
    before = {name: array.copy() for name, array in to_arrays(trained().model).items()}
    result = tuned("large", unfreeze)
    after = to_arrays(result.model)
    changed = {name for name in before if name.startswith("encoder.") and not np.array_equal(before[name], after[name])}
    names = {name for name in before if name.startswith("encoder.")}
    if unfreeze == "head":
        assert not changed
    elif unfreeze == "top":
        weights = sum(before[name].size for name in changed)
        assert "encoder.conv_head.weight" in changed and "encoder.conv_stem.weight" not in changed
        assert 0.25 <= weights / sum(before[name].size for name in names) < 0.8
    else:
        assert changed == names
    assert all(np.array_equal(before[name], array) for name, array in to_arrays(trained().model).items())
    assert all(p.requires_grad for p in trained().model.parameters())


def test_deeper_stages_learn_more_slowly():
    from zoobook.pytorch.finetuning import _thaw

    model = tuned("large").model
    groups = _thaw(model, "all", 1.0)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    names = ["head.output.weight", "encoder.conv_head.weight", "encoder.conv_stem.weight"]
    rates = [rate[id(model.get_parameter(name))] for name in names]
    assert rates[0] == 1 and rates[0] > rates[1] > rates[2] > 0
    assert len(rate) == len(list(model.parameters()))


def test_it_repeats_and_a_finished_run_is_only_read(tmp_path):
    store, catalog = survey()
    first = tuned("large")
    state = torch.get_rng_state()
    again = finetune(trained().model, store, catalog, "large", out_dir=tmp_path, **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.history["val_loss"].equals(again.history["val_loss"])
    with pytest.raises(ValueError, match="unfreeze was 'head', now 'all'"):
        finetune(trained().model, store, catalog, "large", unfreeze="all", out_dir=tmp_path, **QUICK)


@pytest.mark.parametrize(
    ("change", "label", "options", "message"),
    [
        (lambda c: c, "lagre", {}, "no column 'lagre'.*It has:.*large"),
        (lambda c: c.assign(large=np.where(c.index == 5, np.nan, c["large"])), "large", {}, "1 of 72.*toy_5"),
        (lambda c: c.assign(large=1), "large", {}, "nothing to tell apart"),
        (lambda c: c.assign(radius=1.5), "radius", {}, "nothing to learn"),
        (lambda c: c.assign(kind=np.where(c.index == 4, "blob", c["kind"])), "kind", {}, "toy_4.*'blob'"),
        (lambda c: c, "large", {"unfreeze": "body"}, "unfreeze"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, change, label, options, message):
    store, catalog = survey()
    with pytest.raises(ValueError, match=message):
        finetune(trained().model, store, change(catalog), label, out_dir=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
