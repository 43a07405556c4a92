"""What a label means follows from its values, not from what holds them."""
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from toys import TREE, survey

from zoobook.learning import tasks

NUMBERS = {
    "object": lambda v: pd.Series(list(v), dtype=object), "arrow": lambda v: pd.Series(v, dtype="float64[pyarrow]"),
    "nullable": lambda v: pd.Series(v, dtype="Float64"), "categorical": lambda v: pd.Series(v, dtype="category"),
    "decimal": lambda v: pd.Series([Decimal(str(x)) for x in v], dtype=object),
    "FITS": lambda v: pd.Series(v.astype(">f8")),
    "text": lambda v: pd.Series([f" {x!r}" for x in v.tolist()]),
    "bytes": lambda v: pd.Series([repr(x).encode() for x in v.tolist()]),
    "scalars": lambda v: pd.Series([np.float64(x) for x in v], dtype=object),
}  # fmt: skip
BOOLEANS = {
    "object": lambda v: pd.Series(list(v), dtype=object), "arrow": lambda v: pd.Series(v, dtype="bool[pyarrow]"),
    "nullable": lambda v: pd.Series(v, dtype="boolean"), "whole": lambda v: pd.Series(v.astype(int)),
    "FITS": lambda v: pd.Series(v.astype(">i2")), "real": lambda v: pd.Series(v.astype(float)),
    "decimal": lambda v: pd.Series([Decimal(int(x)) for x in v], dtype=object),
    "text": lambda v: pd.Series([f"{int(x)} " for x in v]),
}  # fmt: skip
TEXT = {
    "object": lambda v: pd.Series(v, dtype=object), "arrow": lambda v: pd.Series(v, dtype="string[pyarrow]"),
    "bytes": lambda v: pd.Series([x.encode() for x in v], dtype=object),
    "categorical": lambda v: pd.Series(v, dtype="category"), "blanks": lambda v: pd.Series([f" {x} " for x in v]),
}  # fmt: skip


def task(values):
    store, catalog = survey()
    return tasks.find_task(store, catalog.assign(y=np.asarray(values) if isinstance(values, list) else values), "y")


@pytest.mark.parametrize(("kind", "forms"), [("regression", NUMBERS), ("binary", BOOLEANS), ("classes", TEXT)])
def test_the_values_decide(kind, forms):
    rows = np.arange(len(survey()[1]))
    text = [("bar", "ring", "none")[i % 3] for i in rows]
    values = {"regression": rows / 7, "binary": rows % 2 == 1, "classes": text}
    expected = task(list(values[kind]))
    assert expected.kind.head["kind"] == kind
    for name, form in forms.items():
        got = task(form(values[kind]))
        assert got.kind.head == expected.kind.head and got.data == expected.data, name


def test_whole_numbers_as_floats_are_classes():
    rows = np.arange(len(survey()[1]))
    for values in (rows % 3, (rows % 3).astype(float), pd.Series(list(rows % 3), dtype=object)):
        assert task(values).kind.head == {"kind": "classes", "label": "y", "classes": [0, 1, 2]}


@pytest.mark.parametrize(("values", "kind"), [
    (lambda i: i // 4 % 16 - 5, "classes"), (lambda i: i % 16 - 5.5, "regression"), (lambda i: i % 3, "classes"),
    (lambda i: 2 * (i % 2) - 1, "classes"), (lambda i: (i % 3) / 2, "regression"), (lambda i: i / 50 - 1, "regression"),
    (lambda i: ("None", "weak", "1,5 bars")[i % 3], "classes"),
])  # fmt: skip
def test_negative_numbers_and_odd_words_that_are_meant(catalog, values, kind):
    """Hubble types from -5 to 10, with many -1; answers -1 and 1; shares; numbers of both signs."""
    assert task(pd.Series([values(i) for i in range(len(catalog))])).kind.head["kind"] == kind


@pytest.mark.parametrize(("values", "message"), [
    (lambda i: i if i % 2 else "spiral", "holds numbers .such as 1. and text .such as 'spiral'"),
    (lambda i: i % 2 == 1 if i % 3 else "yes", "holds true or false .such as True. and text .such as 'yes'"),
    (lambda i: {"a": i}, "holds dict"),
    (lambda i: complex(i, 1), "holds complex"),
    (lambda i: str(i / 7) if i % 9 else "-", "holds numbers .such as .*, and the word '-'"),
    (lambda i: " " if i == 3 else "spiral", "no usable value"),
    (lambda i: 3.3, "nothing to learn"),
    (lambda i: None if i == 3 else i / 7, "no usable value"),
    (lambda i: float("inf") if i == 3 else i / 7, "no usable value"),
])  # fmt: skip
def test_what_is_mixed_is_named(catalog, values, message):
    with pytest.raises(ValueError, match=message):
        task(pd.Series([values(i) for i in range(len(catalog))], dtype=object))


def test_codes_stay_text_and_subsets_are_trimmed(store, catalog):
    codes = task(pd.Series([f"00{i % 3}" for i in range(len(catalog))]))
    assert codes.kind.head["classes"] == ["000", "001", "002"]
    blanks = [name + " " * (i % 2) for i, name in enumerate(catalog["subset"])]
    data = tasks.find_task(store, catalog, TREE).data
    for subset in (blanks, pd.Series(catalog["subset"], dtype="category"), catalog["subset"].astype("string[pyarrow]")):
        assert tasks.find_task(store, catalog.assign(subset=subset), TREE).data == data


@pytest.mark.parametrize("label", [["large"], None, 3])
def test_what_is_no_name_of_a_column(store, catalog, label):
    with pytest.raises(ValueError, match="label must be the name of a column, or a DecisionTree"):
        tasks.find_task(store, catalog, label)
    with pytest.raises(ValueError, match="no column 'gz2'.*zoobook.trees.load.'gz2'"):
        tasks.find_task(store, catalog, "gz2")


def test_a_galaxy_in_two_subsets_is_refused_by_name(store, catalog):
    train, val = (catalog.index[catalog["subset"] == name] for name in ("train", "val"))
    leaky = catalog.assign(id_str=catalog["id_str"].astype(object))
    leaky.loc[val[0], "id_str"] = f" {leaky['id_str'][train[0]]}"
    with pytest.raises(ValueError, match=f"'{catalog['id_str'][train[0]]}' in rows"):
        tasks.find_task(store, leaky, TREE)
