"""Labels by hand: nothing is lost, nothing is mixed up, and what is wrong is said. In a browser: test_browser.py."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import FOLDER

from zoobook import label
from zoobook.catalogs import split
from zoobook.learning.tasks import find_task

ANSWERS = ["ring", "no ring"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rings.jsonl"


def labeler(store, path, column="ring", answers=ANSWERS, order="given", **options):
    return label.Labeler(store, path, column, answers, order=order, **options)


def test_each_answer_is_on_disk_before_the_next_galaxy_is_shown(store, path):
    labels = labeler(store, path)
    for n, answer in enumerate(["ring", None, "no ring"]):
        labels.answer(answer)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(row["id_str"], row["answer"]) for row in rows][n:] == [(f"toy_{n}", answer)]
    assert labels.table().to_dict("list") == {"id_str": ["toy_0", "toy_2"], "ring": ["ring", "no ring"]}
    assert labels.unanswered() == list(store.ids[3:])
    pd.testing.assert_frame_equal(labels.table(), label.table(path), check_dtype=False)


def test_the_first_labels_at_random_are_divided_as_all_galaxies(path):
    galaxies = pd.DataFrame({"id_str": [f"g{n}" for n in range(3000)], "file_loc": "any.png"})
    first = label.Labeler(galaxies, path, "ring", ANSWERS).unanswered()[:600]
    shares = split(pd.DataFrame({"id_str": first}))["subset"].value_counts(normalize=True)
    assert dict(shares) == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.08)


def test_a_later_session_goes_on_and_takes_back(store, path):
    first = labeler(store, path)
    for answer in ("ring", "no ring", "ring"):
        first.answer(answer)
    first.answer("no ring", "toy_0")  # a second thought
    again = labeler(store, path)
    assert again._view()["cells"][0]["id"] == "toy_3"
    assert [again.undo(), again.undo()] == ["toy_0", "toy_2"]
    assert dict(again.table().to_numpy()) == {"toy_0": "ring", "toy_1": "no ring"}
    assert [again.undo(), again.undo(), again.undo()] == ["toy_1", "toy_0", None]
    assert label.table(path).empty
    with pytest.raises(ValueError, match="closed, or are gone on with in another cell"):
        first.answer("ring")


def test_finetune_takes_the_table(catalog, store, path):
    labels = labeler(store, path, column="mine", answers=[0, 1], order="random")
    for _ in range(40):
        labels.answer(int(catalog.set_index("id_str")["large"][labels._page()[0]]))
    labelled = label.table(path, catalog=catalog)
    assert len(labelled) == 40 and (labelled["mine"] == labelled["large"]).all()
    assert find_task(store, labelled, "mine").kind.head == {"kind": "binary", "label": "mine"}
    labelled.to_csv(path.with_suffix(".csv"), index=False)
    again = pd.read_csv(path.with_suffix(".csv"), dtype={"id_str": str})
    assert find_task(store, again, "mine").data == find_task(store, labelled, "mine").data
    with pytest.raises(ValueError, match="has a column 'mine' already"):
        label.table(path, catalog=labelled)
    with pytest.raises(ValueError, match="occur more than once"):
        label.table(path, catalog=catalog.iloc[[0, 0, 1]])


def test_two_people_and_how_far_they_agree(store, path, tmp_path):
    ana = labeler(store, path, "ring_ana")
    for answer in ["ring"] * 4 + ["no ring"] * 5 + [None]:
        ana.answer(answer)
    ben = labeler(store, tmp_path / "ben.jsonl", "ring_ben")
    for answer in ["ring"] * 3 + ["no ring"] * 7:
        ben.answer(answer)
    both = label.table(path, tmp_path / "ben.jsonl")
    assert pd.isna(both["ring_ana"][both["id_str"] == "toy_9"].item())
    assert both.columns.tolist() == ["id_str", "ring_ana", "ring_ben"] and len(both) == 10
    found = label.agreement(both, "ring_ana", "ring_ben")
    chance = (4 * 3 + 5 * 6) / 81
    assert found["galaxies"] == 9 and found["same"] == pytest.approx(8 / 9)
    assert found["kappa"] == pytest.approx((8 / 9 - chance) / (1 - chance))
    with pytest.raises(ValueError, match="labels has no column 'ring_eva'"):
        label.agreement(both, "ring_ana", "ring_eva")
    counts = pd.DataFrame({"ana": pd.array([1, 0, None], "Int64"), "ben": [1.0, 0.0, np.nan], "cid": ["1", "0 ", "x"]})
    assert label.agreement(counts, "ana", "ben")["kappa"] == 1  # as they come out of a CSV
    with pytest.raises(ValueError, match="'ana, cid' holds numbers .* and text"):
        label.agreement(counts, "ana", "cid")
    with pytest.raises(ValueError, match="an earlier file has a column 'ring_ana' too"):
        label.table(path, path)


WRITER = """
import sys
from zoobook import label
from zoobook.images import ImageStore
labels = label.Labeler(ImageStore.open(sys.argv[1]), sys.argv[2], "ring", ["ring", "no ring"], order="given")
print("ready", flush=True)
while True:
    labels.answer("ring", "toy_%d" % (len(labels._file._history) % 90))
    print(len(labels._file._history), flush=True)
"""


def test_an_empty_answer_is_none(store, path):
    table = pd.DataFrame({"id_str": list("abcd"), "ana": ["r", "", "n", ""], "ben": ["r", "", "n", "r"]})
    assert label.agreement(table, "ana", "ben")["galaxies"] == 2
    for answers in ([" ", "x"], ["nan", "x"]):
        with pytest.raises(ValueError, match="stands for a missing value in tables"):
            label.Labeler(store, path, "ring", answers)
    assert label.Labeler(store, path, "ring", [0, 1, -1]).unanswered()


def test_killed_at_any_moment_and_two_processes_on_one_file(store, path):
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, store.path, path], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "ready\n"
        with pytest.raises(ValueError, match="is being labelled by another process"):
            labeler(store, path)
        time.sleep(0.2)
        os.kill(writer.pid, signal.SIGKILL)
        confirmed = [int(line) for line in writer.communicate()[0].split()]
        rows = path.read_bytes().count(b"\n")
        assert rows in (confirmed[-1], confirmed[-1] + 1)
        assert len(label.table(path)) == min(rows, 90)
    labels = labeler(store, path)
    assert len(labels._file._history) == rows
    labels.close()


def test_half_a_line_is_no_answer(store, path):
    labeler(store, path).answer("ring")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert len(label.table(path)) == 1
    labeler(store, path).answer("no ring")
    assert path.read_bytes().startswith(whole) and len(label.table(path)) == 2


def test_a_whole_line_without_its_end_is_an_answer(store, path):
    labels = labeler(store, path)
    labels.answer("ring")
    labels.answer("no ring")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # as an editor leaves it
    assert len(label.table(path)) == 2
    assert len(labeler(store, path).table()) == 2 and path.read_bytes() == whole


def test_answers_are_those_that_were_declared(store, path):
    labels = labeler(store, path, answers={"r": np.int64(1), "n": np.int64(0)})
    for answer in (True, np.int64(0), 1.0):
        labels.answer(answer)
    assert [json.loads(line)["answer"] for line in path.read_text().splitlines()] == [1, 0, 1]
    assert [type(answer) for answer in labels.table()["ring"].tolist()] == [int] * 3
    with pytest.raises(ValueError, match="'elsewhere' is not among the galaxies"):
        labels.answer(1, "elsewhere")
    with pytest.raises(ValueError, match="are of another catalogue"):
        label.table(path, catalog=pd.DataFrame({"id_str": ["elsewhere"]}))
    with pytest.raises(ValueError, match="two columns to compare"):
        label.agreement(label.table(path), "ring", "ring")


def test_a_full_disk_loses_nothing_and_is_said(store, path, monkeypatch):
    labels = labeler(store, path)
    labels.answer("ring")
    whole = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    pytest.importorskip("anywidget")
    shown = labels.widget
    monkeypatch.setattr(os, "fsync", full)
    labels._hear({"do": "answer", "choice": 0, "id": "toy_1"})
    assert "Not saved: " in shown.view["problem"] and "No space left" in shown.view["problem"]
    assert path.read_bytes() == whole and shown.view["cells"][0]["id"] == "toy_1"


def test_orders(store, path):
    def order(**options):
        return labeler(store, path, **options)._order

    ids = list(store.ids)
    assert order() == ids
    mixed = order(order="random")
    assert sorted(mixed) == sorted(ids) and mixed not in (ids, order(order="random", seed=1))
    yes = pd.DataFrame({"id_str": ids[:3], "ring_probability": [0.9, 0.52, 0.05]})
    assert order(order="least_sure", scores=yes)[:3] == ["toy_1", "toy_0", "toy_2"]
    classes = pd.DataFrame({"id_str": ids[:2], "kind_a_probability": [1, 0.4], "kind_b_probability": [0, 0.6]})
    assert order(order="least_sure", scores=classes)[:2] == ["toy_1", "toy_0"]
    rated = pd.DataFrame({"id_str": ids[:3], "acquisition": [1, 5, 3], "std": [9, 1, 2]})
    assert order(order="most_interesting", scores=rated)[:3] == ["toy_1", "toy_2", "toy_0"]
    assert order(order="least_sure", scores=rated)[:3] == ["toy_0", "toy_2", "toy_1"]
    with pytest.raises(ValueError, match="no column to tell the most interesting by"):
        order(order="most_interesting", scores=yes)
    with pytest.raises(ValueError, match="needs `scores`"):
        order(order="least_sure")


def test_what_the_widget_is_told(store, path):
    pytest.importorskip("anywidget")
    labels = labeler(store, path, grid=6, answers={"r": "ring", "n": "no ring"})
    shown = labels.widget
    labels._hear({"do": "answer", "choice": 0, "id": "toy_0"})
    assert (shown.view["current"], shown.view["done"]) == (1, 1)
    labels._hear({"do": "move", "by": 5, "id": "toy_1"})
    assert [cell["id"] for cell in shown.view["cells"]] == [f"toy_{n}" for n in range(6, 12)]
    labels._hear({"do": "undo", "id": "toy_6"})
    assert shown.view["current"] == 0 and shown.view["message"] == "taken back: the answer to toy_0"
    labels._hear({"do": "undo", "id": "toy_0"})
    assert shown.view["message"] == "there is no answer to take back"
    assert len(shown.pictures) == 6 and shown.pictures[0].startswith(b"\x89PNG")


def test_images_from_files_and_bad_ones_are_grey(catalog, path):
    catalog = catalog[["id_str", "file_loc"]].head(2).assign(file_loc=[catalog["file_loc"][0], "absent.png"])
    read = labeler(catalog, path)._read
    assert read("toy_0").shape == (32, 32, 3) and np.ptp(read("toy_1")) == 0


@pytest.mark.parametrize(("change", "message"), [
    ({"answers": ["ring"]}, "at least two answers"),
    ({"answers": "ring"}, "at least two answers"),
    ({"answers": ["ring", "ring"]}, "at least two answers"),
    ({"answers": {"u": "unclear", "r": "ring"}}, "the key 'u' is taken for not sure"),
    ({"answers": [f"kind {n}" for n in range(12)]}, "has no key of its own"),
    ({"answers": [0.5, 1.5]}, "text or whole numbers"),
    ({"answers": 3}, "at least two answers"), ({"answers": ["ring ", "ring"]}, "at least two answers"),
    ({"path": Path(FOLDER.name)}, "is a folder: give the name of a file in it"),
    ({"order": "least_sure", "scores": {"toy_0": 1}}, "the table of scores must be a pandas DataFrame, not dict"),
    ({"order": "least_sure", "scores": pd.DataFrame({"id_str": ["toy_0"], "ring_probability": "high"})},
     "`ring_probability` holds 'high', where a number must stand"),
    ({"column": "id_str"}, "column must be a name"),
    ({"order": "best"}, "order must be one of"),
    ({"grid": 0}, "grid must be a whole number"),
    ({"store": pd.DataFrame({"id_str": ["a"]})}, "no column .file_loc."),
    ({"store": pd.DataFrame({"id_str": [], "file_loc": []})}, "no galaxies to label"),
    ({"answers": ["bar", "no bar"]}, "has answers 'ring' in column 'ring'"),
    ({"store": pd.DataFrame({"id_str": ["toy_0", "a", "a"], "file_loc": "a.png"})}, "'a' in rows 1, 2"),
    ({"order": "most_interesting", "scores": pd.DataFrame({"id_str": ["toy_0"] * 2, "acquisition": 1})},
     "the scores: 1 ids of `id_str` occur more than once"),
    ({"store": pd.DataFrame({"id_str": ["a"], "file_loc": "a.png"})}, "none of 1 galaxies with labels in"),
])  # fmt: skip
def test_what_makes_no_sense_is_said(store, path, change, message):
    labeler(store, path).answer("ring")
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        labeler(**{"store": store, "path": path} | change)
    assert path.read_bytes() == whole


def test_files_that_are_none_of_labels(store, path):
    with pytest.raises(FileNotFoundError, match="there is no label file"):
        label.table(path)
    for content, message in (
        (b"id_str,ring\na,1\n", "line 1 reads b'id_str,ring'"), (b"\x89PNG", "is not a file of"),
        (b'{"column": "ring", "id_str": ["a"], "answer": 1}\n', "line 1 reads"),
        (b'{"column": "ring", "id_str": "a", "answer": 0.5}\n', "line 1 reads"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            labeler(store, path)
        assert path.read_bytes() == content


def test_where_there_are_no_locks_it_is_said_and_nobody_writes_over_another(store, path, monkeypatch):
    import filelock

    def none(self, *args, **options):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(filelock.FileLock, "acquire", none)
    with pytest.warns(UserWarning, match="has no locks"):
        labels = labeler(store, path)
    labels.answer("ring")
    with open(path, "ab") as file:  # another process
        file.write(json.dumps({"column": "ring", "id_str": "toy_9", "answer": "ring"}).encode() + b"\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="changed by another process; this answer was not written"):
        labels.answer("ring")
    assert path.read_bytes() == before
    with pytest.warns(UserWarning, match="has no locks"):
        labels = labeler(store, path)
    labels.answer("no ring")
    found = labels.table()
    assert found["id_str"].tolist() == ["toy_0", "toy_9", "toy_1"]
    assert found["ring"].tolist() == ["ring", "ring", "no ring"]


def test_a_file_that_shares_some_ids_says_which(store, path, catalog):
    labels = labeler(store, path)
    for _ in range(3):
        labels.answer("ring")
    with pytest.warns(UserWarning, match="1 of 3 labelled galaxies are among the catalogue; 2 are not: toy_1, toy_2"):
        assert len(label.table(path, catalog=catalog[catalog["id_str"] == "toy_0"])) == 1
    with pytest.warns(UserWarning, match="1 of 3 galaxies with labels in .* are among these images; 2 are not: toy_0"):
        labeler(catalog[catalog["id_str"].isin(["toy_2", "toy_3"])], path)
    strange = pd.DataFrame({"id_str": ["a"], "std": 1.0})
    with pytest.raises(ValueError, match="`scores` are of another catalogue: a are none of these images"):
        labeler(store, path, order="least_sure", scores=strange)


def test_an_image_that_is_absent_is_said_beside_its_grey_square(catalog, path):
    pytest.importorskip("anywidget")
    labels = labeler(catalog.head(2).assign(file_loc=["absent.png", catalog["file_loc"][1]]), path)
    assert "absent.png: the file is missing" in labels.widget.view["problem"]
    labels._hear({"do": "answer", "choice": 0, "id": "toy_0"})
    assert labels.widget.view["problem"] == ""
