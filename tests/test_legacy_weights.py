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
from published_files import FEATURES_KEPT, KERAS_ENDING, NAMES, Published, images, lightning, look_at, precision
from toys import TREE, array, images_for, name_of, tensor

import zoobook
from zoobook import weights
from zoobook.learning import prediction
from zoobook.weights import legacy, pytorch_file, tensorflow_file

TOLERANCES = {"float64": (1e-10, 1e-10), "float32": (5e-5, 3e-4)}  # of features, and of answers from 1 to 101
TF_GREY, TF_COLOUR = "effnet_train_only_dr5_greyscale_tf", "effnet_train_only_dr5_color_tf"
QUICK = [
    *((name, "float64", 224) for name in (TF_COLOUR, "efficientnet_dr5_pytorch", *NAMES[-2:])),
    ("efficientnet_dr5_pytorch_color", "float32", 225),
]
PAIRS = {question.name: [f"_{answer.name}" for answer in question.answers] for question in TREE.questions}


def blank_store(ids: str, size: int) -> types.SimpleNamespace:
    """What an image store with black images looks like to `predict`."""
    pixels = np.zeros((len(ids), size, size, 3), np.uint8)
    return types.SimpleNamespace(ids=list(ids), pixels=pixels, size=size, framing=17.0, check=lambda: None)


def nightly_unless(quick: bool, *values):
    return pytest.param(*values, marks=() if quick else pytest.mark.nightly)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Writes one of the seven, once a session: its facts, and its file."""
    for framework in zoobook.FRAMEWORKS:  # which write these files
        _ = installed(framework).models
    made = {}

    def make(name: str) -> tuple[Published, Path]:
        if name not in made:
            facts = Published(name)
            made[name] = facts, facts.write(tmp_path_factory.mktemp(name))
        return made[name]

    return make


def read(path, half, **options):
    return weights.read_legacy(path, name_of(half), **options)


# ---- The seven of 2022 ----


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [nightly_unless(case in QUICK, *case) for case in
     ((name, kind, size) for name in NAMES for kind in TOLERANCES for size in (224, 225))],
)  # fmt: skip
def test_they_answer_as_the_original_program_did(published, half, name, kind, size):
    facts, file = published(name)
    with precision(half, kind):
        model = read(file, half)
        features, answers = look_at(half, model, images(size, facts.channels).astype(kind))
    assert features.dtype == answers.dtype == kind
    kept = np.linspace(0, features.shape[1] - 1, FEATURES_KEPT).astype(int)  # the answers depend on all of them
    of_features, of_answers = TOLERANCES[kind]
    np.testing.assert_allclose(features[:, kept], facts.answers(f"features_{size}"), rtol=0, atol=of_features)
    np.testing.assert_allclose(answers, facts.answers(f"outputs_{size}"), rtol=0, atol=of_answers)
    assert np.ptp(answers) > 50 and np.ptp(answers, axis=0).max() > 5
    assert model.tree == TREE and model.spec["channels"] == facts.channels
    assert model.spec["field_of_view"] == 0.865 * 17


@pytest.mark.parametrize("name", ["efficientnet_dr5_pytorch", nightly_unless(False, TF_COLOUR)])
def test_several_passes_scatter_like_the_dropout_that_the_originals_never_switched_off(
    published, half, name, monkeypatch
):
    facts, file = published(name)
    model = read(file, half)
    features, _ = look_at(half, model, images(224, facts.channels))
    monkeypatch.setattr(prediction, "batch_features", lambda *others: iter([np.asarray(features)]))
    store = blank_store("ab", 8)
    passes = 1500
    table = half.predict(model, store, passes=passes, devices="cpu")
    found = np.stack([np.stack(table[f"{column}_concentration"]) for column in TREE.label_columns], 1)
    mean, deviation = facts.answers("dropout_mean_224"), facts.answers("dropout_std_224")
    assert found.shape == (2, 34, passes)
    assert (abs(found.mean(2) - mean) < 5 * deviation / passes**0.5).all()
    np.testing.assert_allclose(found.std(2), deviation, rtol=0.2)
    assert abs(facts.answers("outputs_224") - mean).max() > 0.3  # so the mean is another than the answer without


@pytest.mark.parametrize("name", [nightly_unless(False, name) for name in (TF_GREY, TF_COLOUR)])
def test_whole_images_of_300_pixels_as_the_original_resized_them(published, half, name):
    facts, file = published(name)
    stored = tensor(half, 255 * np.moveaxis(images(300, 3), 1, 3))
    views = tensor(half, np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1)))
    seen = half.models.apply_view(stored, views, facts.channels, 224)
    np.testing.assert_allclose(array(read(file, half)(seen)), facts.answers("outputs_300"), rtol=0, atol=3e-4)


def test_what_checkpoints_hold_beside_weights_does_not_matter(published, tmp_path):
    """Those of November 2022 have settings; frozen layers have counters, or have not."""
    facts, file = published("efficientnet_dr5_pytorch")
    settings = {"output_dim": 34, "question_index_groups": [(0, 2), (3, 4)], "weights_loc": None, "channels": 1,
                "architecture_name": "efficientnet", "dropout_rate": 0.2}  # fmt: skip
    (spec, tensors), (other_spec, others) = (
        legacy.read(path) for path in (file, lightning(tmp_path, facts.tensors(), settings))
    )
    assert spec == other_spec and all(np.array_equal(others[name], array) for name, array in tensors.items())
    facts, file = published("resnet_detectron_dr5_pytorch")
    counters = {"model.0.0.res2.0.conv1.norm.num_batches_tracked": np.array(7)}
    spec, tensors = legacy.read(lightning(tmp_path, facts.tensors() | counters))
    assert spec == legacy.read(file)[0] and len(tensors) == 267


@pytest.mark.parametrize(("name", "into", "absent"), [
    ("efficientnet_dr5_pytorch", "tensorflow", ["torch", "timm", "torchvision", "pytorch_lightning"]),
    (TF_COLOUR, "pytorch", ["tensorflow", "keras"]),
])  # fmt: skip
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


# ---- Files that are not as they should be ----


def test_what_is_missing_unexpected_or_misshapen_is_named_as_in_the_file(published, tmp_path):
    facts, _ = published("efficientnet_dr5_pytorch")
    tensors = facts.tensors()
    part = {name: array for name, array in tensors.items() if not name.startswith("model.0.features.8")}
    del tensors["model.0.features.3.0.block.0.0.weight"]
    tensors |= {"model.3.extra": np.zeros(3), "model.2.0.bias": np.zeros(33)}
    with pytest.raises(ValueError) as error:
        legacy.read(lightning(tmp_path, tensors))
    for text in ("epoch=0-step=1.ckpt", "model.0.features.3.0.block.0.0.weight is missing",
                 "model.3.extra is ", "model.2.0.bias has the shape [33] instead of [34]"):  # fmt: skip
        assert text in str(error.value)
    with pytest.raises(ValueError, match="and [0-9]+ more") as error:
        legacy.read(lightning(tmp_path, part))
    assert len(str(error.value)) < 500
    facts, _ = published(TF_GREY)
    tensors = facts.tensors()
    del tensors[f"layer_with_weights-1/bias{KERAS_ENDING}"]
    stem = f"layer_with_weights-0/layer_with_weights-0/layer_with_weights-2/depthwise_kernel{KERAS_ENDING}"
    tensors[stem] = np.zeros((3, 3, 31, 1), np.float32)
    (tmp_path / "tf").mkdir()
    with pytest.raises(ValueError) as error:
        legacy.read(facts.write(tmp_path / "tf", tensors))
    for text in (f"{stem} has the shape [3, 3, 31, 1] instead of [3, 3, 32, 1]", "-1/bias/.ATTRIBUTES/VAR"):
        assert text in str(error.value)


def test_tensorflow_files_cut_short_missing_or_damaged(published, tmp_path):
    _, folder = published(TF_GREY)
    data, index = (next(folder.glob(f"*{kind}*")) for kind in (".data", ".index"))
    (tmp_path / index.name).write_bytes(index.read_bytes())
    with pytest.raises(ValueError, match="data-00000-of-00001 is not beside its index"):
        legacy.read(tmp_path)
    content = bytearray(data.read_bytes())
    (tmp_path / data.name).write_bytes(content[:-4000])
    with pytest.raises(ValueError, match="are cut short"):
        legacy.read(tmp_path / index.name)
    content[len(content) // 2] ^= 1
    (tmp_path / data.name).write_bytes(content)
    with pytest.raises(ValueError, match="the data of layer_with_weights-0/.* are damaged"):
        legacy.read(tmp_path)
    # From RFC 3720, appendix B.4
    for some, checksum in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        assert tensorflow_file.checksum(some) == checksum
    for content in (b"", index.read_bytes()[:-100], b"x" * 5000):
        (tmp_path / index.name).write_bytes(content)
        with pytest.raises(ValueError, match="not a whole index of a TensorFlow checkpoint"):
            legacy.read(tmp_path)


def test_a_damaged_pickle_in_a_whole_checkpoint_is_an_error_with_a_message(tmp_path):
    """Its bytes are changed at random, in a zip whose checksums are right; test_hostile_files.py has whole files."""
    torch, rng = pytest.importorskip("torch"), np.random.default_rng(0)
    torch.save({"state_dict": {"model.2.0.bias": torch.zeros(34), "x": torch.ones(2, 3).T}}, tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "a.ckpt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in parts if name.endswith("data.pkl"))
    refused = 0
    for _ in range(200):
        changed = bytearray(parts[pickled])
        for place in rng.integers(0, len(changed), rng.integers(1, 4)):
            changed[place] = rng.integers(0, 256)
        with zipfile.ZipFile(tmp_path / "b.ckpt", "w") as archive:
            for name, content in (parts | {pickled: bytes(changed)}).items():
                archive.writestr(name, content)
        try:
            pytorch_file.read(tmp_path / "b.ckpt")
        except ValueError as error:
            refused += "b.ckpt" in str(error)
    assert refused > 50


def test_other_files_and_folders(tmp_path):
    torch, file = pytest.importorskip("torch"), tmp_path / "a.ckpt"
    with pytest.raises(FileNotFoundError, match="there are no weights at"):
        legacy.read(tmp_path / "none.ckpt")
    others = {"a.h5": "no files of Keras", "a.keras": "no files of Keras", "a.safetensors": "weights.load"}
    for name, message in others.items():
        (tmp_path / name).write_bytes(b"\x89HDF")
        with pytest.raises(ValueError, match=f"{name} is no checkpoint: .*{message}"):
            legacy.read(tmp_path / name)
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="must hold one file of weights.*it has: none"):
        legacy.read(tmp_path)

    def foreign_zip():
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("../escape/data.txt", "x")

    for write, message in [
        (lambda: file.write_bytes(pickle.dumps({"state_dict": {}})), "a.ckpt is not a whole PyTorch checkpoint"),
        (foreign_zip, "not one that PyTorch writes"),
        (lambda: torch.save({"state_dict": {"transformer.wte.weight": torch.zeros(3)}}, file),
         "no Zoobot model.*transformer.wte.weight"),
        (lambda: torch.save([1, 2], file), "holds no dictionary of tensors"),
    ]:  # fmt: skip
        write()
        with pytest.raises(ValueError, match=message):
            legacy.read(tmp_path)
    (tmp_path / "b.ckpt").write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="it has: a.ckpt, b.ckpt"):
        legacy.read(tmp_path)


class Trap:
    """What a malicious file holds: unpickled, it would call a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "callbacks"])
@pytest.mark.parametrize("trap", [
    lambda file: Trap(os.system, f"touch {file}"),
    lambda file: Trap(eval, f"open({str(file)!r}, 'w')"),
    lambda file: Trap(getattr(Path, "touch"), file),  # noqa: B009
    lambda file: Trap(subprocess.check_call, ["touch", str(file)]),
])  # fmt: skip
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
    encoder = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())  # Zoobot 1 kept whole networks as settings
    torch.save({"state_dict": {"x": torch.ones(2)}, "hyper_parameters": {"encoder": encoder}}, tmp_path / "a.ckpt")
    shell = pytorch_file.read(tmp_path / "a.ckpt")["hyper_parameters"]["encoder"]
    assert isinstance(shell, pytorch_file.Shell) and not isinstance(shell, torch.nn.Module)


def test_our_reader_of_tensorflow_checkpoints_reads_what_tensorflow_reads(published, tmp_path):
    _, folder = published(TF_GREY)
    for path in (folder, str(folder), folder / "checkpoint", folder / "checkpoint.index"):
        assert legacy.read(path)[0]["architecture"] == "tf_efficientnet_b0"
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
    store = blank_store("a", 64)
    assert list(half.predict(model, store, devices="cpu")) == ["id_str", "bulge"]


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
    for outputs, head, settings, message in [
        (34, "head.1.0", {}, "does not say which questions"),
        (33, "head.1.0", {"question_answer_pairs": PAIRS}, r"head.1.0.bias has the shape \[33\] instead of \[34\]"),
        (3, "head.9", {}, "its head 'head.9' is none of Zoobot's"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(zoobot_checkpoint(tmp_path, encoder, outputs, head, **settings)[0], half)


def test_an_encoder_as_timm_publishes_it(half, encoder, tmp_path, monkeypatch):
    import huggingface_hub
    import torch
    from timm.models import save_for_hf

    save_for_hf(encoder, tmp_path, safe_serialization=True)
    wanted = encoder(torch.from_numpy(images(64, 1))).detach()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repository, **others: str(tmp_path / repository))
    (tmp_path / "mwalmsley").symlink_to(tmp_path)
    (tmp_path / "zoobot-encoder-test").symlink_to(tmp_path)
    for path in (tmp_path, f"local-dir:{tmp_path}", "hf_hub:mwalmsley/zoobot-encoder-test"):
        model, features = answers_of(half, path)
        np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)
        assert model.head is None and model.spec["channels"] == 1


def test_an_encoder_that_only_timm_has(half, tmp_path):
    import timm
    import torch
    from timm.models import save_for_hf

    save_for_hf(timm.create_model("test_convnext", num_classes=7), tmp_path, safe_serialization=True)
    if half.__name__.endswith("pytorch"):
        assert read(tmp_path, half).features(torch.zeros(2, 3, 64, 64)).shape[0] == 2
    else:
        with pytest.raises(ValueError, match="no architecture 'test_convnext' in TensorFlow.*PyTorch has"):
            read(tmp_path, half)


def test_the_hub_out_of_reach(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", lambda *a, **k: (_ for _ in ()).throw(ConnectionError("no network")))
    with pytest.raises(OSError, match="'mwalmsley/zoobot-encoder-resnet50' could not be fetched.*no network"):
        legacy.read("hf_hub:mwalmsley/zoobot-encoder-resnet50")
