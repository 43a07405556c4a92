import json

import numpy as np
import pytest
import torch
from toys import TREE

from zoobook import weights
from zoobook.pytorch import build_model
from zoobook.pytorch.models import from_arrays, to_arrays


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_answers_with_concentrations(channels):
    model = build_model(TREE, "test_resnet", channels, image_size=32).eval()
    with torch.inference_mode():
        model.head.output.bias[:3] = torch.tensor([-200.0, 0, 200])
        model.head.output.weight[:3] = 0
        answers = model(torch.rand(5, channels, 32, 32))
    assert answers.shape == (5, 34) and answers.dtype == torch.float32
    np.testing.assert_allclose(answers[:, :3], [[1, 51, 101]] * 5)
    assert json.loads(json.dumps(model.spec)) == model.spec


def test_the_named_architectures_have_the_published_numbers_of_features():
    with torch.device("meta"):
        assert build_model(TREE).num_features == 1280
        assert build_model(TREE, "resnet50").num_features == 2048


def test_without_a_tree_it_is_the_encoder_alone():
    model = build_model(architecture="test_resnet", image_size=32).eval()
    images = torch.rand(2, 1, 32, 32)
    assert model.head is None
    assert torch.equal(model(images), model.features(images)) and model(images).shape == (2, model.num_features)


def test_a_transformer_is_built_for_the_size_of_its_images():
    model = build_model(TREE, "test_vit", image_size=48).eval()
    assert model(torch.rand(2, 1, 48, 48)).shape == (2, 34)


def test_the_untrained_head_can_start_from_the_best_constant():
    model = build_model(TREE, "test_resnet", image_size=32).eval()
    constant = np.linspace(1.2, 100, 34)
    model.head.start_from(constant)
    with torch.inference_mode():
        answers = model.answer(torch.zeros(1, model.num_features))
    np.testing.assert_allclose(answers[0], constant, rtol=1e-4)


def test_weights_survive_the_neutral_file(tmp_path):
    model = build_model(TREE, "test_efficientnet", image_size=32).eval()
    images = torch.rand(3, 1, 32, 32)
    again = weights.load(weights.save(model, tmp_path / "model.safetensors"), "pytorch")
    assert again.spec == model.spec and again.tree == TREE
    assert torch.equal(again(images), model(images))
    assert all(np.array_equal(a, b) for a, b in zip(to_arrays(model).values(), to_arrays(again).values(), strict=True))


def test_weights_that_do_not_fit_are_named():
    model = build_model(TREE, "test_resnet", image_size=32)
    arrays = to_arrays(model)
    arrays["head.output.bias"] = arrays["head.output.bias"][:-1]
    arrays["extra"] = arrays.pop("head.output.weight")
    with pytest.raises(ValueError) as error:
        from_arrays(model.spec, arrays)
    for part in ("head.output.weight is missing", "extra is superfluous", "[33] instead of [34]"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "efficentnet_b0"}, "efficientnet_b0"),
        ({"channels": 2}, "channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"image_size": 8}, "image_size"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(TREE, **options)
