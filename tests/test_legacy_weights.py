"""The weights that Zoobot published: read into both frameworks, they answer as the original programs did.

The made-up weights, and what the original code of 2022 answered with them, are described in ``published_files.py``.
"""
import os
import pickle
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import installed
from published_files import NAMES, Published, images, lightning, look_at, precision
from toys import TREE, array, images_for, tensor

import zoobook
from zoobook import weights
from zoobook.learning import prediction
from zoobook.weights import legacy, pytorch_file, tensorflow_file

TOLERANCES = {"float64": (1e-10, 1e-10), "float32": (5e-5, 3e-4)}  # of features, and of answers from 1 to 101
QUICK = ["efficientnet_dr5_pytorch", "resnet_detectron_dr5_pytorch_color", "effnet_train_only_dr5_color_tf"]


def some_nightly(*quick):
    """All combinations of name, precision and size; those that are not quick only in the nightly run."""
    return [
        pytest.param(name, kind, size, marks=() if (name, kind, size) in quick else pytest.mark.nightly)
        for name in NAMES
        for kind in TOLERANCES
        for size in (224, 225)
    ]


@pytest.fixture(scope="session")
def published(shared, tmp_path_factory):
    """Writes one of the seven, once a session: its facts, and its file."""
    for framework in zoobook.FRAMEWORKS:  # which write these files
        _ = installed(framework).models
    made = {}

    def make(name: str, salt: str = "") -> tuple[Published, Path]:
        if (name, salt) not in made:
            facts = Published(shared, name)
            made[name, salt] = facts, facts.write(tmp_path_factory.mktemp(name), salt=salt)
        return made[name, salt]

    return make


def read(path, half, **options):
    return weights.read_legacy(path, half.__name__.split(".")[1], **options)


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    some_nightly(
        *[(name, "float64", 224) for name in [*QUICK, "resnet50_torchvision_dr5_pytorch_color"]],
        ("efficientnet_dr5_pytorch_color", "float32", 225),
    ),
)
def test_they_answer_as_the_original_program_did(published, half, name, kind, size):
    facts, file = published(name)
    with precision(half, kind):
        model = read(file, half)
        features, answers = look_at(half, model, images(size, facts.channels).astype(kind))
    assert features.dtype == answers.dtype == kind
    short, (of_features, of_answers) = f"f{kind[-2:]}_{size}", TOLERANCES[kind]
    np.testing.assert_allclose(features, facts.answers[f"features_{short}"], rtol=0, atol=of_features)
    np.testing.assert_allclose(answers, facts.answers[f"outputs_{short}"], rtol=0, atol=of_answers)
    assert np.ptp(answers) > 50 and np.ptp(answers, axis=0).max() > 5
    assert model.tree == TREE and model.spec["channels"] == facts.channels
    assert model.spec["field_of_view"] == 0.865 * 17


@pytest.mark.parametrize("size", [pytest.param(224, marks=pytest.mark.nightly), 225])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK[1:] else pytest.mark.nightly) for name in NAMES]
)
def test_with_any_other_weights_both_frameworks_agree(published, halves, name, size):
    (facts, file), (_, first) = published(name, salt="another"), published(name)
    found = []
    for half in halves:
        with precision(half, "float64"):
            found.append(look_at(half, read(file, half), images(size, facts.channels).astype(float)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * max(1, abs(one).max()))  # features may be thousands
    same = [np.array_equal(*pair) for pair in zip(*(legacy.read(f)[1].values() for f in (first, file)), strict=True)]
    assert not any(same)


@pytest.mark.parametrize("name", ["efficientnet_dr5_pytorch", pytest.param("effnet_train_only_dr5_color_tf",
                                                                           marks=pytest.mark.nightly)])  # fmt: skip
def test_several_passes_scatter_like_the_dropout_that_the_originals_never_switched_off(
    published, half, name, monkeypatch
):
    facts, file = published(name)
    features = facts.answers["features_f32_224"]
    monkeypatch.setattr(prediction, "batch_features", lambda *others: iter([features]))
    store = types.SimpleNamespace(ids=["a", "b"], pixels=np.zeros((2, 8, 8, 3), np.uint8), size=8, framing=17.0)
    passes = 1500
    table = half.predict(read(file, half), store, passes=passes, devices="cpu")
    found = np.stack([np.stack(table[f"{column}_concentration"]) for column in TREE.label_columns], 1)
    mean, deviation = facts.answers["mc_dropout_mean_224"], facts.answers["mc_dropout_std_224"]
    assert found.shape == (2, 34, passes)
    assert (abs(found.mean(2) - mean) < 5 * deviation / passes**0.5).all()
    np.testing.assert_allclose(found.std(2), deviation, rtol=0.2)
    certain = facts.answers["outputs_f64_224"]
    assert abs(certain - mean).max() > 0.3  # so the mean is another than the answer without dropout


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nightly) for name in NAMES if "_tf" in name])
def test_whole_images_of_300_pixels_as_the_original_resized_them(published, half, name):
    facts, file = published(name)
    stored = tensor(half, 255 * np.moveaxis(images(300, 3), 1, 3))
    views = tensor(half, np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1)))
    seen = half.models.apply_view(stored, views, facts.channels, 224)
    np.testing.assert_allclose(
        array(read(file, half)(seen)), facts.answers["full300_outputs_f32"], rtol=0, atol=3e-4
    )


def test_a_checkpoint_of_november_2022_says_more_and_is_read_the_same(published, tmp_path):
    facts, file = published("efficientnet_dr5_pytorch")
    settings = {"output_dim": 34, "question_index_groups": [(0, 2), (3, 4)], "weights_loc": None, "channels": 1,
                "architecture_name": "efficientnet", "dropout_rate": 0.2}  # fmt: skip
    first, second = legacy.read(file), legacy.read(lightning(tmp_path, facts.tensors(), settings))
    assert first[0] == second[0]
    assert all(np.array_equal(first[1][name], array) for name, array in second[1].items())


def test_frozen_layers_may_have_counters_or_not(published, tmp_path):
    facts, file = published("resnet_detectron_dr5_pytorch")
    counters = {"model.0.0.res2.0.conv1.norm.num_batches_tracked": np.array(7)}
    spec, tensors = legacy.read(lightning(tmp_path, facts.tensors() | counters))
    assert spec == legacy.read(file)[0] and len(tensors) == 267


# ---- Files that are not as they should be ----


def test_what_is_missing_superfluous_or_misshapen_is_named_as_in_the_file(published, tmp_path):
    facts, _ = published("efficientnet_dr5_pytorch")
    tensors = facts.tensors()
    del tensors["model.0.features.3.0.block.0.0.weight"]
    tensors["model.3.extra"] = np.zeros(3)
    tensors["model.2.0.bias"] = np.zeros(33)
    with pytest.raises(ValueError) as error:
        legacy.read(lightning(tmp_path, tensors))
    for part in ("epoch=0-step=1.ckpt", "model.0.features.3.0.block.0.0.weight is missing",
                 "model.3.extra is superfluous", "model.2.0.bias has the shape [33] instead of [34]"):  # fmt: skip
        assert part in str(error.value)
    part = {name: array for name, array in facts.tensors().items() if not name.startswith("model.0.features.8")}
    with pytest.raises(ValueError, match="and [0-9]+ more") as error:
        legacy.read(lightning(tmp_path, part))
    assert len(str(error.value)) < 500


def test_a_partial_tensorflow_checkpoint(published, tmp_path):
    facts, _ = published("effnet_train_only_dr5_greyscale_tf")
    tensors = facts.tensors()
    del tensors["layer_with_weights-1/bias/.ATTRIBUTES/VARIABLE_VALUE"]
    stem = "layer_with_weights-0/layer_with_weights-0/layer_with_weights-2/depthwise_kernel/.ATTRIBUTES/VARIABLE_VALUE"
    tensors[stem] = np.zeros((3, 3, 31, 1), np.float32)
    with pytest.raises(ValueError) as error:
        legacy.read(facts.write(tmp_path, tensors))
    for part in (f"{stem} has the shape [3, 3, 31, 1] instead of [3, 3, 32, 1]", "-1/bias/.ATTRIBUTES/VAR"):
        assert part in str(error.value)


def test_tensorflow_files_cut_short_or_missing(published, tmp_path):
    _, folder = published("effnet_train_only_dr5_greyscale_tf")
    data, index = (next(folder.glob(f"*{kind}*")) for kind in (".data", ".index"))
    (tmp_path / index.name).write_bytes(index.read_bytes())
    with pytest.raises(ValueError, match="data-00000-of-00001 is not beside its index"):
        legacy.read(tmp_path)
    (tmp_path / data.name).write_bytes(data.read_bytes()[:-4000])
    with pytest.raises(ValueError, match="are cut short"):
        legacy.read(tmp_path / index.name)
    for content in (b"", index.read_bytes()[:-100], b"x" * 5000):
        (tmp_path / index.name).write_bytes(content)
        with pytest.raises(ValueError, match="not a whole index of a TensorFlow checkpoint"):
            legacy.read(tmp_path)


def test_damaged_tensorflow_data_are_noticed(published, tmp_path):
    _, folder = published("effnet_train_only_dr5_greyscale_tf")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = next(tmp_path.glob("*.data*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(ValueError, match="the data of layer_with_weights-0/.* are damaged"):
        legacy.read(tmp_path)
    # From RFC 3720, appendix B.4
    for given, wanted in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        assert tensorflow_file.checksum(given) == wanted


def test_damage_of_any_kind_is_an_error_with_a_message(tmp_path):
    """Bytes of the descriptions are changed at random: what comes of it is read, or refused with a reason."""
    torch, rng, refused = pytest.importorskip("torch"), np.random.default_rng(0), 0
    torch.save({"state_dict": {"model.2.0.bias": torch.zeros(34), "x": torch.ones(2, 3).T}}, tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "a.ckpt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(200):
        with zipfile.ZipFile(tmp_path / "b.ckpt", "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, damaged(content, rng) if name.endswith("data.pkl") else content)
        try:
            pytorch_file.read(tmp_path / "b.ckpt")
        except ValueError as error:
            refused += "b.ckpt" in str(error)
    assert refused > 50
    end = bytes(4) + b"\1\0\0\0"
    entries = b"\0\0\6" b"\x08\1\x1a\2\x08\1" b"\0\1\x08a" b"\x08\1\x12\0\x20\0\x28\4" + end  # header; one float, `a`
    index = b"\0\1\2b\0" + bytes([len(entries)]) + end
    footer = (b"\0\0" + bytes([len(entries) + 5, len(index)])).ljust(40, b"\0")
    table = entries + bytes(5) + index + bytes(5) + footer + 0xDB4775248B80FB57.to_bytes(8, "little")
    (tmp_path / "c.data-00000-of-00001").write_bytes(bytes(4))
    (tmp_path / "c.index").write_bytes(table)
    assert tensorflow_file.read(tmp_path / "c") == {"a": 0}
    for _ in range(400):
        (tmp_path / "c.index").write_bytes(damaged(table, rng))
        try:
            tensorflow_file.read(tmp_path / "c")
        except ValueError as error:
            refused += 1000 * ("c" in str(error))
    assert refused > 100_000


def damaged(content: bytes, rng) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 4)):
        changed[place] = rng.integers(0, 256)
    return bytes(changed)


def test_a_tensorflow_checkpoint_by_any_of_its_names(published):
    _, folder = published("effnet_train_only_dr5_greyscale_tf")
    for path in (folder, str(folder), folder / "checkpoint", folder / "checkpoint.index"):
        assert legacy.read(path)[0]["architecture"] == "tf_efficientnet_b0"


def test_other_files_and_folders(tmp_path):
    torch = pytest.importorskip("torch")
    with pytest.raises(FileNotFoundError, match="there are no weights at"):
        legacy.read(tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match="must hold one file .index or .ckpt.*it has: neither"):
        legacy.read(tmp_path)
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"state_dict": {}}))
    with pytest.raises(ValueError, match="a.ckpt is not a whole PyTorch checkpoint"):
        legacy.read(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("../escape/data.txt", "x")
    with pytest.raises(ValueError, match="not one that PyTorch writes"):
        legacy.read(tmp_path)
    torch.save({"state_dict": {"transformer.wte.weight": torch.zeros(3)}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="no Zoobot model.*transformer.wte.weight"):
        legacy.read(tmp_path)
    torch.save([1, 2], tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="holds no dictionary of tensors"):
        legacy.read(tmp_path)
    (tmp_path / "b.ckpt").write_bytes(whole := (tmp_path / "a.ckpt").read_bytes())
    with pytest.raises(ValueError, match="it has: a.ckpt, b.ckpt"):
        legacy.read(tmp_path)
    for length in (0, 10, len(whole) // 2, len(whole) - 10):
        (tmp_path / "b.ckpt").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="b.ckpt"):
            legacy.read(tmp_path / "b.ckpt")


class Trap:
    """What a malicious file holds: unpickled, it would call a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "callbacks"])
@pytest.mark.parametrize(
    "trap",
    [
        lambda file: Trap(os.system, f"touch {file}"),
        lambda file: Trap(eval, f"open({str(file)!r}, 'w')"),
        lambda file: Trap(getattr(Path, "touch"), file),  # noqa: B009
        lambda file: Trap(subprocess.check_call, ["touch", str(file)]),
    ],
)
def test_nothing_in_a_malicious_checkpoint_is_run(tmp_path, place, trap):
    torch = pytest.importorskip("torch")
    touched = tmp_path / "touched"
    content = {"state_dict": {"model.2.0.bias": torch.zeros(34)}, place: {"x": trap(touched)}}
    torch.save(content, tmp_path / "a.ckpt")
    pickle.loads(pickle.dumps(trap(touched)))
    assert touched.exists()  # so the trap would work
    touched.unlink()
    with pytest.raises(ValueError, match="asks to run .*Nothing of it was run"):
        legacy.read(tmp_path / "a.ckpt")
    assert not touched.exists()


def test_objects_of_other_libraries_become_shells(tmp_path):
    torch = pytest.importorskip("torch")
    encoder = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())  # Zoobot 1 kept whole networks as settings
    torch.save({"state_dict": {"x": torch.ones(2)}, "hyper_parameters": {"encoder": encoder}}, tmp_path / "a.ckpt")
    content = pytorch_file.read(tmp_path / "a.ckpt")
    shell = content["hyper_parameters"]["encoder"]
    assert isinstance(shell, pytorch_file.Shell) and not isinstance(shell, torch.nn.Module)
    np.testing.assert_array_equal(content["state_dict"]["x"], [1, 1])


# ---- The readers, against the programs that write such files ----


def test_our_reader_of_pytorch_files_reads_what_pytorch_reads(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.randn(6, 7)
    state = {
        "whole": base, "turned": base.T, "part": base[2:4, ::2], "same numbers": base, "scalar": torch.tensor(3.5),
        "none": torch.zeros(0, 3), "parameter": torch.nn.Parameter(base[0]), "half": base.half(),
        "double": base.double(), "brain": base.bfloat16(), "whole numbers": torch.arange(5),
        "bytes": torch.arange(5, dtype=torch.uint8), "truths": torch.tensor([True, False]),
    }  # fmt: skip
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    found = pytorch_file.read(tmp_path / "a.ckpt")["state_dict"]
    for name, wanted in torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"].items():
        wanted = wanted.detach()
        np.testing.assert_array_equal(found[name], (wanted.float() if name == "brain" else wanted).numpy(), name)
        assert found[name].shape == tuple(wanted.shape)


def test_our_reader_of_tensorflow_checkpoints_reads_what_tensorflow_reads(published, tmp_path):
    _, folder = published("effnet_train_only_dr5_greyscale_tf")
    import tensorflow as tf

    parts = {"a": {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "long/name/of/x": np.float64(2)},
             "b": {"long/name/of/y": np.arange(3), "text": np.array(b"graph")}}  # fmt: skip
    for name, content in parts.items():
        values = [tf.constant(value) for value in content.values()]
        tf.raw_ops.SaveV2(prefix=str(tmp_path / name), tensor_names=list(content), tensors=values,
                          shape_and_slices=[""] * len(content))  # fmt: skip
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[str(tmp_path / name) for name in parts],
                                  destination_prefix=str(tmp_path / "both"))  # fmt: skip
    for prefix in (folder / "checkpoint", tmp_path / "both"):
        reference, found = tf.train.load_checkpoint(str(prefix)), tensorflow_file.read(prefix)
        kinds = reference.get_variable_to_dtype_map()
        assert found.keys() == {name for name, kind in kinds.items() if kind != tf.string}
        for name, value in found.items():
            np.testing.assert_array_equal(value, reference.get_tensor(name))
            assert value.dtype == kinds[name].as_numpy_dtype


@pytest.mark.parametrize(
    ("name", "into", "absent"),
    [
        ("efficientnet_dr5_pytorch", "tensorflow", ["torch", "timm", "torchvision", "pytorch_lightning"]),
        ("effnet_train_only_dr5_color_tf", "pytorch", ["tensorflow", "keras"]),
    ],
)
def test_neither_framework_needs_the_other_one(published, tmp_path, name, into, absent):
    _, file = published(name)
    code = (
        "import importlib.machinery as m; find = m.PathFinder.find_spec\n"
        f"m.PathFinder.find_spec = lambda name, *a: None if name.split('.')[0] in {absent} else find(name, *a)\n"
        "from zoobook import weights\n"
        f"model = weights.read_legacy({str(file)!r}, {into!r})\n"
        f"weights.save(model, {str(tmp_path / 'a.safetensors')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    spec, tensors = weights.read(tmp_path / "a.safetensors")
    wanted = legacy.read(file)
    assert spec == wanted[0] and tensors.keys() == wanted[1].keys()
    assert all(np.array_equal(array, wanted[1][name]) for name, array in tensors.items())


# ---- Zoobot of today ----


@pytest.fixture
def encoder():
    """A small encoder of timm with random weights, as Zoobot of today has larger ones."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model("test_efficientnet", num_classes=0, in_chans=1).eval()


def zoobot_checkpoint(folder: Path, encoder, outputs: int, head: str, prefix="encoder.", **settings) -> tuple:
    """A checkpoint as Zoobot 2.9 writes it, and what its layers say to two images."""
    import torch

    layer = torch.nn.Linear(encoder.num_features, outputs)
    state = {f"{prefix}{name}": value for name, value in encoder.state_dict().items()}
    state |= {f"{head}.weight": layer.weight, f"{head}.bias": layer.bias}
    name = "hf_hub:mwalmsley/zoobot-encoder-greyscale-test_efficientnet"
    settings = {"name": name, "greyscale": False, "head_dropout_prob": 0.5, "timm_kwargs": {}} | settings
    tensors = {name: value.detach().numpy() for name, value in state.items()}
    file = lightning(folder, tensors, settings)
    with torch.inference_mode():
        return file, layer(encoder(torch.from_numpy(images(64, 1))))


def answers_of(half, file, **options):
    model = read(file, half, **options)
    return model, array(model(images_for(half, np.moveaxis(images(64, 1), 1, 3))))


def test_a_finetuned_classifier(half, encoder, tmp_path):
    file, raw = zoobot_checkpoint(
        tmp_path, encoder, 3, "head.linear", num_classes=3, label_col="shape", prefix="encoder._orig_mod."
    )
    model, answers = answers_of(half, file)
    np.testing.assert_allclose(answers, raw.softmax(1), rtol=1e-4)
    assert model.spec["head"] == {"kind": "classes", "hidden": [], "label": "shape", "classes": [0, 1, 2]}
    assert model.spec["dropout"] == 0.5 and model.spec["channels"] == 1 and model.tree is None


@pytest.mark.parametrize("unit_interval", [True, False])
def test_a_finetuned_regressor(half, encoder, tmp_path, unit_interval):
    file, raw = zoobot_checkpoint(
        tmp_path, encoder, 1, "head.linear", label_col="bulge", loss="mse", unit_interval=unit_interval
    )
    model, answers = answers_of(half, file)
    np.testing.assert_allclose(answers, raw.sigmoid() if unit_interval else raw, rtol=1e-4, atol=1e-5)
    store = types.SimpleNamespace(ids=["a"], pixels=np.zeros((1, 64, 64, 3), np.uint8), size=64, framing=17.0)
    assert list(half.predict(model, store, devices="cpu")) == ["id_str", "bulge"]


PAIRS = {question.name: [f"_{answer.name}" for answer in question.answers] for question in TREE.questions}


def test_a_pretrained_or_finetuned_decision_tree(half, encoder, tmp_path, monkeypatch):
    file, raw = zoobot_checkpoint(tmp_path, encoder, 34, "head.1.0", question_answer_pairs=PAIRS, dependencies={})
    model, answers = answers_of(half, file)
    np.testing.assert_allclose(answers, 1 + 100 * raw.sigmoid(), rtol=1e-4)
    assert model.tree == TREE
    # A fine-tuned tree keeps a pickled object of Zoobot's own; where Zoobot is installed it could be anything.
    module = types.ModuleType("zoobot.shared.schemas")
    schema_class = type("Schema", (), {"__module__": "zoobot.shared.schemas", "__setstate__": pytest.fail})
    module.Schema = schema_class
    for name in ("zoobot", "zoobot.shared", "zoobot.shared.schemas"):
        monkeypatch.setitem(sys.modules, name, module)
    pairs = {"bar-a": ["_yes", "_no"], "ring-b": ["_yes", "_no", "_faint"]}
    schema = schema_class()
    schema.__dict__.update(question_answer_pairs=pairs, dependencies={"bar-a": None, "ring-b": "bar-a_no"})
    file, raw = zoobot_checkpoint(tmp_path, encoder, 5, "head.1.0", schema=schema)
    model, answers = answers_of(half, file)
    np.testing.assert_allclose(answers, 1 + 100 * raw.sigmoid(), rtol=1e-4)
    assert model.tree.label_columns == ["bar-a_yes", "bar-a_no", "ring-b_yes", "ring-b_no", "ring-b_faint"]
    assert model.tree.questions[1].asked_after == ("bar-a_no",)


def test_a_checkpoint_that_does_not_say_enough(half, encoder, tmp_path):
    file, raw = zoobot_checkpoint(tmp_path, encoder, 3, "head.linear", name=None)
    with pytest.raises(ValueError, match="does not say which encoder it holds: give architecture="):
        read(file, half)
    np.testing.assert_allclose(answers_of(half, file, architecture="test_efficientnet")[1], raw.softmax(1), rtol=1e-4)
    with pytest.raises(ValueError, match="do not fit efficientnet_b0: encoder.blocks.*is missing"):
        read(file, half, architecture="efficientnet_b0")
    with pytest.raises(ValueError, match="does not say which questions"):
        read(zoobot_checkpoint(tmp_path, encoder, 34, "head.1.0")[0], half)
    with pytest.raises(ValueError, match=r"head.1.0.bias has the shape \[33\] instead of \[34\]"):
        read(zoobot_checkpoint(tmp_path, encoder, 33, "head.1.0", question_answer_pairs=PAIRS)[0], half)
    with pytest.raises(ValueError, match="its head 'head.9' is none of Zoobot's"):
        read(zoobot_checkpoint(tmp_path, encoder, 3, "head.9")[0], half)


def test_an_encoder_as_timm_publishes_it(half, encoder, tmp_path, monkeypatch):
    from timm.models import save_for_hf

    save_for_hf(encoder, tmp_path, safe_serialization=True)
    wanted = encoder(tensor_of_images()).detach()
    for path in (tmp_path, f"local-dir:{tmp_path}"):
        model, features = answers_of(half, path)
        np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)
        assert model.head is None and model.spec["channels"] == 1
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repository, **others: str(tmp_path / repository))
    (tmp_path / "mwalmsley").symlink_to(tmp_path)
    (tmp_path / "zoobot-encoder-test").symlink_to(tmp_path)
    np.testing.assert_array_equal(answers_of(half, "hf_hub:mwalmsley/zoobot-encoder-test")[1], features)


def tensor_of_images():
    import torch

    return torch.from_numpy(images(64, 1))


def test_an_encoder_that_only_timm_has(halves, tmp_path):
    import timm
    from timm.models import save_for_hf

    save_for_hf(timm.create_model("test_convnext", num_classes=7), tmp_path, safe_serialization=True)
    for half in halves:
        if half.__name__.endswith("pytorch"):
            assert read(tmp_path, half).features(tensor_of_images().expand(-1, 3, -1, -1)).shape[0] == 2
        else:
            with pytest.raises(ValueError, match="no architecture 'test_convnext' in TensorFlow.*PyTorch has"):
                read(tmp_path, half)


def test_the_hub_out_of_reach(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", lambda *a, **k: (_ for _ in ()).throw(ConnectionError("no network")))
    with pytest.raises(OSError, match="'mwalmsley/zoobot-encoder-resnet50' could not be fetched.*no network"):
        legacy.read("hf_hub:mwalmsley/zoobot-encoder-resnet50")
