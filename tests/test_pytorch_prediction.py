import numpy as np
import pandas as pd
import pytest
import torch
from toys import TREE, survey, trained

from zoobook import augment, runs, votes
from zoobook.pytorch import build_model, predict, prediction, represent
from zoobook.pytorch.data import look


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(prediction, "SHARD_ROWS", 40)


def test_predictions_are_the_answers_of_the_model():
    store, _ = survey()
    model = trained().model
    table = predict(model, store, batch_size=7)
    assert list(table["id_str"]) == list(store.ids)
    images = look(torch.tensor(store.pixels), torch.tensor(augment.centre_views(len(store))), 1, store.size)
    with torch.inference_mode():
        answers, features = model(images), model.features(images)
    found = votes.predicted_concentrations(table, TREE)
    assert found.shape == (len(store), 34, 1)
    np.testing.assert_allclose(found[..., 0], answers, rtol=1e-4)
    represented = represent(model, store, batch_size=11)
    assert list(represented)[:2] == ["id_str", "feat_0"] and (represented.dtypes.iloc[1:] == np.float32).all()
    np.testing.assert_allclose(represented.iloc[:, 1:], features, atol=1e-4)


def test_passes_differ_repeat_and_leave_the_model_alone():
    store, _ = survey()
    model = trained().model
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    one, other, third = (
        votes.predicted_concentrations(predict(model, store, passes=5, batch_size=b, seed=s), TREE)
        for b, s in ((96, 0), (13, 0), (96, 1))
    )
    assert torch.equal(torch.rand(2), expected)
    assert one.shape[2] == 5 and (one.std(2) > 0).any()
    np.testing.assert_allclose(one, other, rtol=1e-3)
    assert not np.allclose(one, third, rtol=1e-3)
    assert not any(m.training for m in model.modules())
    plain = votes.predicted_concentrations(predict(model, store), TREE)[..., 0]
    many = votes.predicted_concentrations(predict(model, store, passes=200), TREE)
    assert np.corrcoef(many.mean(2).ravel(), plain.ravel())[0, 1] > 0.99


def test_a_table_on_disk_is_completed_by_a_rerun(tmp_path):
    store, _ = survey()
    model = trained().model
    out = predict(model, store, out=tmp_path / "table")
    files = runs.table_files(out)
    assert len(files) == 3
    whole = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    assert list(whole["id_str"]) == list(store.ids)
    np.testing.assert_allclose(
        votes.predicted_concentrations(whole, TREE),
        votes.predicted_concentrations(predict(model, store), TREE),
        rtol=1e-6,
    )
    kept = files[0].stat().st_mtime_ns
    before = files[1].read_bytes()
    files[1].unlink()
    predict(model, store, out=out)
    assert files[1].read_bytes() == before and files[0].stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="already holds a table"):
        predict(model, store, out=out, passes=2)
    with pytest.raises(ValueError, match="already holds a table"):
        predict(build_model(TREE, "test_resnet", image_size=32), store, out=out)


def test_a_crash_keeps_the_shards_that_were_done(tmp_path, monkeypatch):
    store, _ = survey()
    features, calls = prediction._features, []

    def failing(model, pixels, rows, batch_size):
        calls.append(rows[0])
        if rows[0] >= 80:
            raise RuntimeError("power cut")
        return features(model, pixels, rows, batch_size)

    monkeypatch.setattr(prediction, "_features", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        represent(trained().model, store, out=tmp_path)
    with pytest.raises(ValueError, match="not finished"):
        runs.table_files(tmp_path)
    monkeypatch.setattr(prediction, "_features", lambda *args: calls.append("again") or features(*args))
    represent(trained().model, store, out=tmp_path)
    assert calls == [0, 40, 80, "again"]
    assert sum(len(pd.read_parquet(file)) for file in runs.table_files(tmp_path)) == len(store)


def test_out_of_memory_halves_the_batch(monkeypatch):
    store, _ = survey()
    model, sizes = build_model(TREE, "test_resnet", image_size=32).eval(), []
    expected = represent(model, store)
    whole = type(model).features

    def limited(self, images):
        sizes.append(len(images))
        if len(images) > 9:
            raise torch.OutOfMemoryError("no more")
        return whole(self, images)

    monkeypatch.setattr(type(model), "features", limited)
    found = represent(model, store, batch_size=32)
    assert list(found["id_str"]) == list(store.ids) and max(sizes[6:]) <= 32
    np.testing.assert_allclose(found.iloc[:, 1:], expected.iloc[:, 1:], atol=1e-5)


def test_several_devices_share_the_work(monkeypatch):
    store, _ = survey()
    monkeypatch.setattr(prediction, "_devices", lambda devices: ["cpu", "cpu"])
    found = represent(trained().model, store)
    monkeypatch.undo()
    np.testing.assert_allclose(found.iloc[:, 1:], represent(trained().model, store).iloc[:, 1:], atol=1e-5)
    assert list(found["id_str"]) == list(store.ids)


def test_senseless_requests_are_refused(tmp_path):
    store, _ = survey()
    encoder = build_model(architecture="test_resnet", image_size=32)
    with pytest.raises(ValueError, match="represent"):
        predict(encoder, store)
    assert represent(encoder, store).shape[0] == len(store)
    for options in ({"passes": 0}, {"batch_size": 0}, {"devices": "x"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            predict(trained().model, store, **options)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write"):
        predict(trained().model, store, out=tmp_path / "file" / "table")
