"""The same weights and the same images give the same features in both frameworks."""
import inspect

import numpy as np
import pytest
from PIL import Image
from published_files import look_at, precision, weight
from toys import name_of

from zoobook import weights
from zoobook.images import read_image
from zoobook.learning import engine
from zoobook.learning.architectures import BOTH, describe, tensor_shapes

ARCHITECTURES = [name for name in BOTH if name != "test_efficientnet"]
TOLERANCES = {"float64": 1e-10, "float32": 2e-5}  # the second one as a share of the largest feature
QUICK = [("efficientnet_b0", 1, 225, "float64"), ("resnet50", 3, 224, "float32")]
ALL = [(name, channels, size, kind) for name in ARCHITECTURES for channels in (1, 3) for size in (224, 225, 300)
       for kind in TOLERANCES]  # fmt: skip


def real_images(shared, size: int, channels: int) -> np.ndarray:
    """Two real galaxies, from 0 to 1, float64 [2, C, size, size]."""
    files = sorted((shared / "real" / "originals").glob("*.png"))[:2]
    found = np.stack([np.asarray(Image.fromarray(read_image(file)).resize((size, size))) for file in files]) / 255
    found = found.mean(3, keepdims=True) if channels == 1 else found
    return np.moveaxis(found, 3, 1)


def made_up(architecture: str, channels: int) -> tuple[dict, dict]:
    """A model's spec, and weights that keep signals alive all the way through it."""
    spec = dict(architecture=architecture, channels=channels, image_size=224, dropout=0.2, tree=None, head=None)
    gains = {"conv_gain": 0.2 if "resnet" in architecture else 0.75, "stem_gain": 64}
    shapes = {f"encoder.{name}": shape for name, shape in tensor_shapes(architecture, channels).items()}
    return spec, {name: weight(name, shape, gains) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("architecture", "channels", "size", "kind"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.nightly) for case in ALL],
)
def test_the_same_weights_and_real_images_give_the_same_features(
    shared, halves, tmp_path, architecture, channels, size, kind
):
    images, (spec, tensors) = real_images(shared, size, channels).astype(kind), made_up(architecture, channels)
    found = []
    for writer, reader in (halves, halves[::-1]):  # each reads the file that the other one wrote
        file = weights.save(writer.models.from_arrays(spec, tensors), tmp_path / "a.safetensors")
        with precision(reader, kind):
            found.append(look_at(reader, weights.load(file, name_of(reader)), images)[0])
    one, other = found
    assert one.dtype == other.dtype == kind and one.shape == (2, BOTH[architecture].features)
    largest = abs(one).max()
    atol = TOLERANCES[kind] * (largest if kind == "float32" else 1)
    np.testing.assert_allclose(one, other, rtol=0, atol=atol)
    assert abs(one[0] - one[1]).max() > 0.05 and 1 < largest < 100  # they tell images apart


def test_learning_from_a_batch_does_the_same_in_both(halves):
    """What a batch moves the running statistics to, and the gradient that comes back through all normalisations."""
    pytorch, tensorflow = halves
    import tensorflow as tf
    import torch

    images = np.random.default_rng(0).random((6, 1, 40, 40), np.float32)
    towards = np.random.default_rng(1).standard_normal((6, BOTH["test_efficientnet"].features), np.float32)
    one = pytorch.build_model(architecture="test_efficientnet", image_size=40)
    other = tensorflow.models.from_arrays(one.spec, pytorch.models.to_arrays(one))
    one.train()
    (one(torch.from_numpy(images)) * torch.from_numpy(towards)).sum().backward()
    kernel = other.encoder.get_layer("conv_stem").kernel
    with tf.GradientTape() as tape:
        moved = tf.reduce_sum(other(tf.constant(np.moveaxis(images, 1, 3)), training=True) * towards)
    expected = one.encoder.conv_stem.weight.grad.numpy()
    found = np.transpose(tape.gradient(moved, kernel.value), (3, 2, 0, 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * abs(expected).max())
    expected, found = pytorch.models.to_arrays(one), tensorflow.models.to_arrays(other)
    statistics = [name for name in expected if "running" in name and "num_batches" not in name]
    assert len(statistics) > 4
    for name in statistics:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("one", "other"), [ARCHITECTURES[:2], pytest.param(*ARCHITECTURES[2:], marks=pytest.mark.nightly)]
)
def test_what_tells_two_architectures_apart_is_seen(half, shared, one, other):
    """Each pair takes the same tensors: only the description in the file says which features are meant."""
    images, (spec, tensors) = real_images(shared, 224, 3).astype(np.float32), made_up(one, 3)
    mixed = {name: tensors[f"encoder.{name}"].shape == tuple(s) for name, s in tensor_shapes(other, 3).items()}
    assert all(mixed.values()) and describe(one) != describe(other)
    models = [half.models.from_arrays(spec | {"architecture": name}, tensors) for name in (one, other)]
    found = [look_at(half, model, images)[0] for model in models]
    assert abs(found[0] - found[1]).max() > 0.05


def test_every_architecture_has_the_tensors_that_are_described(half):
    for architecture in BOTH:
        model = half.build_model(architecture=architecture, channels=3)
        shapes = {name: list(array.shape) for name, array in half.models.to_arrays(model).items()}
        assert shapes == {f"encoder.{name}": shape for name, shape in tensor_shapes(architecture, 3).items()}


def test_both_frameworks_fill_the_protocol(half):
    """Whatever `zoobook.learning` asks of a framework is there, under the same names of arguments."""
    for module, protocol in (("losses", engine.Losses), ("models", engine.Models), ("engine", engine.Engine)):
        part = getattr(half, module)
        assert set(protocol.__annotations__) <= set(vars(part))
        for name, asked in inspect.getmembers(protocol, inspect.isfunction):
            if name[0] != "_":
                there = list(inspect.signature(getattr(part, name)).parameters)
                expected = list(inspect.signature(asked).parameters)[1:]
                assert there[: len(expected)] == expected, name
    assert half.__all__ == list(engine.FUNCTIONS) and dir(half) == sorted(half.__all__)
    for name in half.__all__:
        function = getattr(half, name)
        assert (function.__name__, function.__module__) == (name, half.__name__) and function.__doc__
        assert not {"twin", "self"} & set(inspect.signature(function).parameters)
