"""Building models, and keeping their weights, in both frameworks."""
import json

import numpy as np
import pytest
from toys import TREE, array, images_for, name_of, quick, tensor

from zoobook import weights
from zoobook.learning import transfer

IMAGES = np.random.default_rng(0).random((5, 32, 32, 3), np.float32)


@pytest.mark.parametrize(("channels", "lowest"), [(1, None), (3, None), (1, 0.05), (3, 1)])
def test_a_model_answers_with_concentrations(half, channels, lowest):
    model = half.build_model(TREE, "test_efficientnet", channels, image_size=32, lowest=lowest)
    arrays = half.models.to_arrays(model)
    arrays["head.output.bias"][:3] = -200, 0, 200
    arrays["head.output.weight"][:3] = 0
    answers = array(half.models.from_arrays(model.spec, arrays)(images_for(half, IMAGES[..., :channels])))
    assert answers.shape == (5, 34) and answers.dtype == np.float32
    bottom = lowest or 1
    np.testing.assert_allclose(answers[:, :3], [[bottom, (bottom + 101) / 2, 101]] * 5, rtol=1e-6)
    assert json.loads(json.dumps(model.spec)) == model.spec


def test_without_a_tree_it_is_the_encoder_alone(half):
    model = half.build_model(architecture="test_efficientnet", image_size=32)
    model = half.models.from_arrays(model.spec, half.models.to_arrays(model))
    images = images_for(half, IMAGES[..., :1])
    assert model.head is None
    np.testing.assert_array_equal(array(model(images)), array(model.features(images)))
    assert model(images).shape == (5, model.num_features)


@pytest.mark.parametrize("architecture", ["test_efficientnet", "resnet50"])
def test_all_stages_are_the_features_and_the_means_of_timms_maps(half, tmp_path, architecture):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    model = half.build_model(TREE, architecture, image_size=64)
    encoder = half.with_all_stages(model)
    images = np.random.default_rng(1).random((2, 64, 64, 1), np.float32)
    found = array(encoder.features(images_for(half, images)))
    own = array(half.models.from_arrays(model.spec, model.to_arrays()).features(images_for(half, images)))
    stages = timm.create_model(architecture, in_chans=1, features_only=True)
    arrays = {name.removeprefix("encoder."): one for name, one in model.to_arrays().items()}
    wanted = {name: torch.tensor(arrays[name.replace("_", ".", 1) if name.startswith("blocks_") else name])
              for name in stages.state_dict() if not name.endswith("tracked")}  # fmt: skip
    stages.load_state_dict(wanted, strict=False)
    with torch.inference_mode():
        maps = stages.eval()(torch.tensor(images).permute(0, 3, 1, 2))
    expected = np.concatenate([own, *(one.mean((2, 3)).numpy() for one in maps[:-1])], 1)
    assert found.shape == (2, encoder.num_features)
    np.testing.assert_allclose(found, expected, atol=2e-5 * abs(expected).max())
    again = weights.load(weights.save(encoder, tmp_path / "stages.safetensors", data="none"), name_of(half))
    np.testing.assert_array_equal(array(again.features(images_for(half, images))), found)
    assert "earlier resolution" in weights.inspect(tmp_path / "stages.safetensors")["encoder"]["pooling"]
    with pytest.raises(ValueError, match="all_stages.*true or left out, not 'yes'"):
        half.models.from_arrays(encoder.spec | {"all_stages": "yes"}, encoder.to_arrays())


@pytest.mark.parametrize("hidden", [[], [16]])
def test_with_all_stages_a_head_answers_as_before(half, hidden):
    model = half.build_model(TREE, "test_efficientnet", image_size=32, lowest=0.05)
    spec = model.spec | {"head": model.spec["head"] | {"hidden": hidden}}
    random = np.random.default_rng(0)
    arrays = half.models.GalaxyModel(spec).to_arrays()
    arrays |= {name: random.uniform(0.5, 2, one.shape).astype(np.float32) for name, one in arrays.items()
               if "running" in name}  # fmt: skip
    model = half.models.from_arrays(spec, arrays)
    wide = half.with_all_stages(model)
    images = images_for(half, IMAGES[..., :1])
    assert wide.num_features > model.num_features and wide.spec == model.spec | {"all_stages": True}
    np.testing.assert_allclose(array(wide(images)), array(model(images)), rtol=1e-4)
    again = half.with_all_stages(wide).to_arrays()
    assert all(np.array_equal(again[name], one) for name, one in wide.to_arrays().items())


def test_a_network_of_timm_without_feature_maps_is_refused(half, monkeypatch):
    if half.__name__.endswith("tensorflow"):
        pytest.skip("TensorFlow builds no other networks than it can take apart")
    model = half.build_model(None, "test_efficientnet", image_size=32)
    monkeypatch.delattr(type(model.encoder), "forward_intermediates")
    with pytest.raises(ValueError, match="timm gives only the features of test_efficientnet"):
        half.with_all_stages(model)


def test_a_transformer_is_built_for_the_size_of_its_images(half):
    """timm has them; where it does not come from timm, the error says who has it."""
    if half.__name__.endswith("tensorflow"):
        with pytest.raises(ValueError, match="'test_vit' in TensorFlow.*PyTorch"):
            half.build_model(TREE, "test_vit", image_size=48)
        return
    model = half.build_model(TREE, "test_vit", image_size=48).eval()
    assert model(images_for(half, np.zeros((2, 48, 48, 1), np.float32))).shape == (2, 34)


@pytest.mark.parametrize("lowest", [None, 0.05])
def test_the_untrained_head_can_start_from_the_best_constant(half, lowest):
    model = half.build_model(TREE, "test_efficientnet", dropout=0, image_size=32, lowest=lowest)
    constant = np.linspace(1.2, 100, 34)
    model.set_arrays(transfer.init_output_bias(model.to_arrays(), constant, *model.kind.scale))
    answers = model.activate(model.logits(tensor(half, np.zeros((1, model.num_features), np.float32))))
    np.testing.assert_allclose(array(answers)[0], constant, rtol=1e-4)


def test_weights_that_do_not_fit_are_named(half):
    model = half.build_model(TREE, "test_efficientnet", image_size=32)
    arrays = half.models.to_arrays(model)
    arrays["head.output.bias"] = arrays["head.output.bias"][:-1]
    arrays["extra"] = arrays.pop("head.output.weight")
    with pytest.raises(ValueError) as error:
        half.models.from_arrays(model.spec, arrays)
    for part in ("head.output.weight is missing", "extra is not one of its tensors", "[33] instead of [34]"):
        assert part in str(error.value)


@pytest.mark.parametrize(("options", "message"), [
    ({"architecture": "efficentnet_b0"}, "efficientnet_b0"),
    ({"channels": 2}, "channels"),
    ({"dropout": 1.0}, "dropout"),
    ({"image_size": 8}, "image_size"),
    ({"field_of_view": 0}, "field_of_view must be a positive number"),
    ({"field_of_view": float("nan")}, "field_of_view must be a positive number"),
])  # fmt: skip
def test_bad_options_are_refused(half, options, message):
    with pytest.raises(ValueError, match=message):
        half.build_model(TREE, **options)


def test_what_the_user_has_set_for_the_framework_changes_nothing(half, store, catalog, tmp_path):
    """Another default type, or in Keras other policies and layouts: trained, written and answered as without."""
    options = quick(epochs=1) | {"out_dir": tmp_path / "run"}
    expected = half.train(store, catalog, TREE, **options | {"out_dir": tmp_path / "plain"})
    table = half.predict(expected.model, store)
    if half.__name__.endswith("pytorch"):
        import torch

        own = [(torch.get_default_dtype, torch.set_default_dtype, torch.float64)]
    else:
        from keras import config

        own = [(config.floatx, config.set_floatx, "float64"),
               (lambda: config.dtype_policy().name, config.set_dtype_policy, "mixed_float16"),
               (config.image_data_format, config.set_image_data_format, "channels_first")]  # fmt: skip
    usual = [get() for get, *_ in own]
    for _, change, value in own:
        change(value)
    try:
        found = half.train(store, catalog, TREE, **options)
        loaded = weights.load(found.checkpoint, name_of(half))
        tables = half.predict(found.model, store), half.predict(loaded, store), half.predict(expected.model, store)
        tuned = half.finetune(loaded, store, catalog, "radius", unfreeze="all", epochs=1, out_dir=tmp_path / "tuned")
        assert [get() for get, *_ in own] == [value for *_, value in own]
    finally:
        for (_, change, _), value in zip(own, usual, strict=True):
            change(value)
    assert found.history.drop(columns="seconds").equals(expected.history.drop(columns="seconds"))
    assert all(one.equals(table) for one in tables) and np.isfinite(tuned.history["val_loss"]).all()
    arrays = half.models.to_arrays(tuned.model).values()
    assert {array.dtype for array in arrays} == {np.dtype("float32")}
