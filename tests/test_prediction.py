"""Applying a model to many images, in both frameworks."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toys import TREE, array, tensor, trained

from zoobook import votes
from zoobook.catalogs import shards
from zoobook.images import ImageStore, views
from zoobook.learning import prediction
from zoobook.learning.devices import CPU


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(prediction, "SHARD_ROWS", 40)


def seen(half, store, share=views.CENTRE):
    """What a model of the toy survey sees of all images."""
    central = views.centre_views(len(store), share)
    return half.models.apply_view(tensor(half, store.pixels), tensor(half, central), 1, store.size, share)


def test_predictions_are_the_answers_of_the_model(half, store):
    model = trained(half).model
    table = half.predict(model, store, batch_size=7)
    assert list(table["id_str"]) == list(store.ids)
    images = seen(half, store)
    answers, features = array(model(images)), array(model.features(images))
    found = votes.predicted_concentrations(table, TREE)
    assert found.shape == (len(store), 34, 1)
    np.testing.assert_allclose(found[..., 0], answers, rtol=1e-4)
    represented = half.represent(model, store, batch_size=11)
    assert list(represented)[:2] == ["id_str", "feat_0"] and (represented.dtypes.iloc[1:] == np.float32).all()
    np.testing.assert_allclose(represented.iloc[:, 1:], features, atol=1e-4)


def test_seen_in_all_orientations_a_galaxy_may_lie_on_the_sky_as_it_likes(half, store, tmp_path):
    folder, model = tmp_path, trained(half).model
    for i, image in enumerate(store.pixels[:12]):
        Image.fromarray(np.rot90(image, 1)).save(folder / f"turned_{i}.png")
        Image.fromarray(image[:, ::-1]).save(folder / f"mirrored_{i}.png")
        Image.fromarray(image).save(folder / f"upright_{i}.png")
    names = [f"{how}_{i}" for how in ("upright", "turned", "mirrored") for i in range(12)]
    catalog = pd.DataFrame({"id_str": names, "file_loc": [str(folder / f"{name}.png") for name in names]})
    images = ImageStore.build(catalog, folder / "images.arrow", size=store.pixels.shape[1])
    upright, turned, mirrored = half.represent(model, images, orientations=8).iloc[:, 1:].to_numpy().reshape(3, 12, -1)
    np.testing.assert_allclose(turned, upright, atol=2e-5 * np.abs(upright).max())
    np.testing.assert_allclose(mirrored, upright, atol=2e-5 * np.abs(upright).max())
    once = half.represent(model, images).iloc[:, 1:].to_numpy().reshape(3, 12, -1)
    assert np.abs(once[1] - once[0]).max() > 1e-3 * np.abs(once).max()
    answers = half.predict(model, images, orientations=8).filter(like="_fraction").to_numpy().reshape(3, 12, -1)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-3, atol=1e-4)


def test_the_view_joins_the_framing_of_the_images_and_the_models_field_of_view(half, store, catalog, tmp_path):
    close = ImageStore.build(catalog, tmp_path / "close.arrow", size=32, framing=6)
    trained_one = trained(half).model
    model = half.models.from_arrays(trained_one.spec | {"field_of_view": 9.0}, half.models.to_arrays(trained_one))
    for images, share in ((store, 9 / 17), (close, 1.5)):
        found = half.represent(model, images, out=tmp_path / f"{share:.1f}")
        expected = array(model.features(seen(half, images, share)))
        np.testing.assert_allclose(pd.read_parquet(found).iloc[:, 1:], expected, atol=1e-4)
    with pytest.raises(ValueError, match="already holds a table"):
        half.represent(model, store, out=tmp_path / "1.5")


def test_a_folder_does_not_mix_features_of_the_last_stage_with_those_of_all(half, store, tmp_path):
    encoder = half.with_all_stages(half.models.from_arrays(
        trained(half).model.spec | {"tree": None, "head": None},
        {name: one for name, one in trained(half).model.to_arrays().items() if name.startswith("encoder.")},
    ))  # fmt: skip
    spec = {name: value for name, value in encoder.spec.items() if name != "all_stages"}
    half.represent(half.models.from_arrays(spec, encoder.to_arrays()), store, out=tmp_path)
    with pytest.raises(ValueError, match="already holds a table"):
        half.represent(encoder, store, out=tmp_path)


def test_a_folder_does_not_mix_answers_from_different_lowest_concentrations(half, store, tmp_path):
    one = trained(half).model
    other = half.models.from_arrays(one.spec | {"head": one.spec["head"] | {"lowest": 0.05}}, one.to_arrays())
    half.predict(one, store, out=tmp_path)
    with pytest.raises(ValueError, match="already holds a table"):
        half.predict(other, store, out=tmp_path)


def test_passes_differ_repeat_and_leave_the_model_alone(half, store):
    model = trained(half).model
    one, other, third = (
        votes.predicted_concentrations(half.predict(model, store, passes=5, batch_size=b, seed=s), TREE)
        for b, s in ((96, 0), (13, 0), (96, 1))
    )
    assert one.shape[2] == 5 and (one.std(2) > 0).any()
    np.testing.assert_allclose(one, other, rtol=1e-3)
    assert not np.allclose(one, third, rtol=1e-3)
    plain = votes.predicted_concentrations(half.predict(model, store), TREE)[..., 0]
    many = votes.predicted_concentrations(half.predict(model, store, passes=200), TREE)
    assert np.corrcoef(many.mean(2).ravel(), plain.ravel())[0, 1] > 0.99


def test_a_table_on_disk_is_completed_by_a_rerun(half, store, tmp_path):
    model = trained(half).model
    out = half.predict(model, store, out=tmp_path / "table")
    files = shards.table_files(out)
    assert len(files) == 3
    whole = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    assert list(whole["id_str"]) == list(store.ids)
    np.testing.assert_allclose(
        votes.predicted_concentrations(whole, TREE),
        votes.predicted_concentrations(half.predict(model, store), TREE),
        rtol=1e-6,
    )
    kept = files[0].stat().st_mtime_ns
    before = files[1].read_bytes()
    files[1].unlink()
    half.predict(model, store, out=out)
    assert files[1].read_bytes() == before and files[0].stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="already holds a table"):
        half.predict(model, store, out=out, passes=2)
    with pytest.raises(ValueError, match="already holds a table"):
        half.predict(half.build_model(TREE, "test_efficientnet", image_size=32), store, out=out)


def test_a_crash_keeps_the_shards_that_were_done(half, store, tmp_path, monkeypatch):
    calls, features = [], prediction.batch_features

    def failing(twin, replica, pixels, rows, *args):
        calls.append(rows[0])
        if rows[0] >= 80:
            raise RuntimeError("power cut")
        return features(twin, replica, pixels, rows, *args)

    monkeypatch.setattr(prediction, "batch_features", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        half.represent(trained(half).model, store, out=tmp_path)
    with pytest.raises(ValueError, match="not finished"):
        shards.table_files(tmp_path)
    monkeypatch.setattr(prediction, "batch_features", lambda *args: calls.append("again") or features(*args))
    half.represent(trained(half).model, store, out=tmp_path)
    assert calls == [0, 40, 80, "again"]
    assert sum(len(pd.read_parquet(file)) for file in shards.table_files(tmp_path)) == len(store)


def check_same(found, expected):
    """But for the order in which float32 sums are added up, which depends on the batch size and on the version.

    Some ten layers, each exact to about 1e-7 of its largest terms: 1e-5 of the largest feature leaves room. Features
    of other galaxies, or of other weights, differ by as much as they are large.
    """
    found, expected = found.iloc[:, 1:].to_numpy(), expected.iloc[:, 1:].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_out_of_memory_halves_the_batch(half, store, monkeypatch):
    if half.__name__.endswith("pytorch"):
        from torch import OutOfMemoryError

        error = OutOfMemoryError("no more")
    else:
        import tensorflow as tf

        error = tf.errors.ResourceExhaustedError(None, None, "no more")
        monkeypatch.setattr(half.engine, "_compiled", lambda function: function)
    model, sizes = trained(half).model, []
    model = half.models.from_arrays(model.spec, half.models.to_arrays(model))
    expected = half.represent(model, store)
    whole = type(model).features

    def limited(self, images):
        sizes.append(len(images))
        if len(images) > 9:
            raise error
        return whole(self, images)

    monkeypatch.setattr(type(model), "features", limited)
    found = half.represent(model, store, batch_size=32)
    assert list(found["id_str"]) == list(store.ids) and sizes[:3] == [20, 14, 8]
    check_same(found, expected)


def test_several_devices_share_the_work(half, store, monkeypatch):
    monkeypatch.setattr(prediction, "choose_devices", lambda *_: [CPU, CPU])
    found = half.represent(trained(half).model, store)
    monkeypatch.undo()
    check_same(found, half.represent(trained(half).model, store))
    assert list(found["id_str"]) == list(store.ids)


def test_features_that_are_no_numbers_are_refused(half, store):
    model = trained(half).model
    arrays = {name: np.full_like(array, 1e30) for name, array in half.models.to_arrays(model).items()}
    broken = half.models.from_arrays(model.spec, arrays)
    for apply in (half.predict, half.represent):
        with pytest.raises(ValueError, match="features are no finite numbers: its weights are damaged"):
            apply(broken, store, devices="cpu")


def test_senseless_requests_are_refused(half, store, tmp_path):
    encoder = half.build_model(architecture="test_efficientnet", image_size=32)
    with pytest.raises(ValueError, match="represent"):
        half.predict(encoder, store)
    assert half.represent(encoder, store).shape[0] == len(store)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write"):
        half.predict(trained(half).model, store, out=tmp_path / "file" / "table")
