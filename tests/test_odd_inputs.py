"""Odd arguments and tables, at every door of learning: refused by name before anything is written, or taken for what
they mean; in Python and on the command line."""
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import FOLDER, TREE, name_of, quick, run, survey

from zoobook import weights

VOTE = TREE.label_columns[0]


def alter(**columns):
    """Of the toy survey's catalogue, a copy with other columns."""
    return lambda catalog: catalog.assign(**{
        name: values(catalog[name]) if callable(values) else values for name, values in columns.items()
    })  # fmt: skip


def first(value):
    """The same column with another first value."""
    return lambda column: [value, *column[1:].tolist()]


BAD_TABLES = {  # for training on votes
    "1 ids of `id_str` occur more than once.*'toy_1' in rows 0, 1": alter(id_str=first(" toy_1 ")),
    "are floating-point numbers .such as 0.0": alter(id_str=np.arange(96.0)),
    "`id_str` is empty in 1 rows": alter(id_str=first("")),
    "`id_str` holds bool": alter(id_str=True),
    "1 bad votes.*: -99": alter(**{VOTE: first(-99)}),
    "72 bad votes": alter(**{VOTE: "many"}),
    "72 bad votes.*: False": alter(**{VOTE: pd.Categorical([True, False] * 48)}),
    "1 bad votes.*: True": alter(**{VOTE: lambda column: pd.Series([*column[:-1], True], dtype=object)}),
    "72 bad votes.*: 2020": alter(**{VOTE: pd.period_range("2020", periods=96, freq="D")}),
    "1 bad votes.*: 0.5": alter(**{VOTE: first(Decimal("0.5"))}),
    "nobody voted on any of these 72 galaxies": alter(**dict.fromkeys(TREE.label_columns, 0)),
    f"no column '{VOTE}'": lambda catalog: catalog.drop(columns=VOTE),
    "several columns 'radius'": lambda catalog: pd.concat([catalog, catalog[["radius"]]], axis=1),
    "no column 'subset'": lambda catalog: catalog.drop(columns="subset"),
    "no galaxy with subset 'val'": alter(subset="train"),
    "of a single galaxy out of 1": alter(subset=["train", *["val"] * 95]),
    "are not in the image store": alter(id_str=first("elsewhere")),
    "a pandas DataFrame, not list": lambda catalog: [catalog],
}
BAD_SETTINGS = [
    {"epochs": 2.0}, {"epochs": "3"}, {"epochs": None}, {"batch_size": np.float32(12)}, {"batch_size": 0},
    {"accumulate_grad_batches": 0}, {"patience": True}, {"seed": -1}, {"learning_rate": "0.1"},
    {"learning_rate": float("nan")}, {"precision": "fp16"}, {"precision": None}, {"photometric": "no"}, {"resume": 1},
    {"num_nodes": 0}, {"num_nodes": 2}, {"devices": 64}, {"devices": "gpu"}, {"devices": np.float64(1)},
    {"devices": True}, {"devices": -1}, {"devices": np.array([0, 1])}, {"seed": 2**32},
    {"image_size": 8}, {"channels": 2}, {"channels": "1"}, {"field_of_view": 0},
    {"image_size": 10**6}, {"batch_size": np.int64(1)}, {"architecture": 3}, {"architecture": "resnet5O"},
    {"model": "m.safetensors"},
]  # fmt: skip
BAD_LABELS = {  # of one column
    "'radius' has -9999 in 1 rows, and nothing else below": {"radius": first(-9999)},
    "'radius' has -99 in 1 rows": {"radius": first(np.float64(-99))},
    "'radius' has 9999 in 1 rows, and nothing else above": {"radius": first(9999)},
    r"'radius' has -3.40282e\+38 in 1 rows, and nothing else below": {"radius": first(float(np.finfo("f4").min))},
    r"'radius' has 1e\+30 in 1 rows, and nothing else above": {"radius": first(1e30)},
    r"'radius', up to .*e.\d+, are too large to be learned": {"radius": lambda column: column**2 * 1e298},
    "'large' has -999 in 1 rows": {"large": first(np.int16(-999))},
    **{rf"'radius' has {shown} in 1 rows": {"radius": first(float(np.iinfo(kind).min))}  # NaN made whole
       for kind, shown in (("i2", "-32768"), ("i4", r"-2.14748e\+09"), ("i8", r"-9.22337e\+18"))},
    "'radius' has -99.99 in 1 rows": {"radius": first(np.float32(-99.99))},
    "'radius' holds numbers .* and text": {"radius": first("unknown")},
    "'large' has -1 in 1 rows, and nothing else below 0": {"large": first(-1)},
    "'large' has 9 in 1 rows, and nothing else above 1": {"large": first(9)},
    "'radius' has -1 in 24 rows, and nothing else": {"radius": lambda column: column.where(column.index % 4 > 0, -1)},
    "'radius' has -9.99 in 1 rows": {"radius": first(-9.99)},
    "'radius' has 99 in 1 rows, and nothing else above": {"radius": first(99.0)},
    "'kind' has 'nan' in 1 rows": {"kind": first("nan")},
    "'radius' holds '.*,.*': write numbers": {"radius": lambda column: [f"{v}".replace(".", ",") for v in column]},
    "'radius' holds '.*%': write numbers": {"radius": lambda column: [f"{100 * v:.0f}%" for v in column]},
    "'large' has no usable value for 1": {"large": first("  ")},
    "all 72 training galaxies have large = 1: there is nothing to tell apart": {"large": 1},
    "toy_0 of the validation subset has kind = 'blob'": {"kind": first("blob")},
}
BAD_REQUESTS = [
    {"passes": 0}, {"passes": 1.5}, {"seed": 0.0}, {"orientations": 9}, {"orientations": np.True_}, {"batch_size": 0},
    {"devices": "gpu:0"}, {"devices": 64},
]  # fmt: skip
BAD_COMMANDS = {
    "epochs must be a whole number, at least 1, not 0": "train TABLE --epochs 0",
    "image_size must be a whole number, from 16 to 16384, not 0": "train TABLE --image-size 0",
    "channels must be 1": "train TABLE --channels 2",
    "seed must be a whole number, from 0 to 4294967295, not -1": "train TABLE --seed -1",
    "learning_rate must be a positive number": "train TABLE --learning-rate nan",
    "precision must be 'auto'": "train TABLE --precision half",
    "num_nodes=2, but": "train TABLE --num-nodes 2",
    "devices=64, but": "train TABLE --devices 64",
    "devices must be": "train TABLE --devices gpu",
    "patience must be": "train TABLE --patience 0",
    "field_of_view must be": "train TABLE --field-of-view -1",
    "unfreeze must be 'head', 'top' or 'all'": "finetune MODEL TABLE --label large --unfreeze body",
    "batch_size must be a whole number, at least 1": "finetune MODEL TABLE --label large --batch-size 0",
    "no column 'lage'": "finetune MODEL TABLE --label lage",
    "passes must be": "predict MODEL TABLE --passes 0",
    "orientations must be a whole number, from 1 to 8, not 9": "predict MODEL TABLE --orientations 9",
    "devices=65, but": "predict MODEL TABLE --devices 65",
    "devices must be 'auto'": "represent MODEL TABLE --devices ²",
    "max_blank must be a share": "represent MODEL TABLE --max-blank 75",
    "framing must be": "represent MODEL TABLE --framing -1",
    "floating-point": "predict MODEL FLOATS",
    "occur more than once": "predict MODEL DOUBLED",
    "`file_loc` is empty for 1": "predict MODEL NOWHERE",
}


@pytest.fixture(scope="module")
def model():
    """For each half, an untrained model and its file."""
    made = {}

    def get(half):
        if half not in made:
            network = half.build_model(TREE, "test_efficientnet", image_size=32)
            made[half] = network, weights.save(network, Path(FOLDER.name) / f"{half.__name__}.safetensors")
        return made[half]

    return get


@pytest.mark.parametrize("message", BAD_TABLES)
def test_tables_that_cannot_be_learned_from(half, store, catalog, tmp_path, message):
    with pytest.raises(ValueError, match=message):
        half.train(store, BAD_TABLES[message](catalog), TREE, out_dir=tmp_path / "run", **quick())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", BAD_SETTINGS, ids=str)
def test_settings_that_make_no_sense(half, store, catalog, tmp_path, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        half.train(store, catalog, TREE, out_dir=tmp_path / "run", **quick(**bad))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("message", BAD_LABELS)
def test_labels_that_stand_for_none(half, model, store, catalog, tmp_path, message):
    with pytest.raises(ValueError, match=message):
        labels = BAD_LABELS[message]
        half.finetune(model(half)[0], store, alter(**labels)(catalog), *labels, out_dir=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=str)
def test_requests_that_make_no_sense(half, model, store, tmp_path, bad):
    for ask in (half.predict, half.represent)[: 1 if {"passes", "seed"} & set(bad) else 2]:
        with pytest.raises(ValueError, match=next(iter(bad))):
            ask(model(half)[0], store, out=tmp_path / "out", **bad)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def tables():
    """Files with the toy survey's catalogue, whole and spoilt."""
    catalog, folder = survey()[1], Path(FOLDER.name)
    spoilt = {"TABLE": {}, "FLOATS": {"id_str": np.arange(96.0)}, "DOUBLED": {"id_str": first("toy_1 ")},
              "NOWHERE": {"file_loc": first("")}}  # fmt: skip
    for name, columns in spoilt.items():
        alter(**columns)(catalog).to_parquet(folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in spoilt}


@pytest.mark.parametrize("message", BAD_COMMANDS)
def test_commands_that_make_no_sense(half, model, tables, tmp_path, monkeypatch, message):
    monkeypatch.setenv("ZOOBOOK_HOME", str(tmp_path / "home"))
    places = {**tables, "MODEL": model(half)[1]}
    words = [places.get(word, word) for word in BAD_COMMANDS[message].split()]
    said = run(*words, "--out", tmp_path / "out", "--framework", name_of(half), code=1)
    assert "Error: " in said and message in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_odd_but_clear(half, model, store, catalog, tmp_path, monkeypatch):
    """NumPy's numbers, ids with blanks, votes in the byte order of FITS, categories, labels as decimals, ``~``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    odd = catalog.assign(
        id_str=[f" {name}\t" for name in catalog["id_str"]], subset=catalog["subset"].astype("category"),
        large=[Decimal(value) for value in catalog["large"].tolist()],
        **{VOTE: np.array(catalog[VOTE], ">f4")},
    )  # fmt: skip
    settings = quick(epochs=np.int64(1), batch_size=np.uint8(36), learning_rate=np.float32(3e-3), seed=np.int16(0))
    result = half.finetune(model(half)[0], store, odd, "large", out_dir="~/run", **{
        name: value for name, value in settings.items() if name != "architecture"
    })  # fmt: skip
    assert result.checkpoint == tmp_path / "run" / "best.safetensors" and result.model.spec["head"]["kind"] == "binary"
    answers = half.predict(result.model, store, out="~/answers", batch_size=np.int32(50), passes=np.int64(2))
    assert answers == tmp_path / "answers"
    table = pd.read_parquet(answers)
    assert list(table["id_str"]) == list(store.ids) and table["large_probability"].between(0, 1).all()
