"""Decision trees: the published ones, and one's own with clear errors."""
import pytest
import yaml

from zoobook import trees
from zoobook.trees import DecisionTree


def test_dr5_has_the_published_columns():
    tree = trees.load("decals_dr5")
    assert len(tree.questions) == 10 and len(tree.label_columns) == 34
    assert tree.label_columns[-1] == "merging-dr5_merger"
    assert tree.question("bar") is tree.question("bar-dr5")


def test_many_followers_and_two_parents():
    tree = trees.load("decals_dr5")
    assert tree.followers["disk-edge-on-dr5_no"] == ("has-spiral-arms-dr5", "bar-dr5", "bulge-size-dr5")
    first = [f"smooth-or-featured-dr5_{answer}" for answer in ("smooth", "featured-or-disk", "artifact")]
    assert tree.label_columns[:3] == first and tree.question("merging").asked_after == tuple(first[:2])
    assert tree.parents[0] == [] and tree.parents[-1] == [(0, 0), (0, 1)]


def test_every_tree_agrees_with_the_facts(shared):
    facts = yaml.safe_load((shared / "facts/decision_trees.yaml").read_text())
    for name, fact in facts["trees"].items():
        tree = trees.load(name.removesuffix("_raw"))
        asked = [q.get("question") or q["task"] for q in fact["questions"]]
        suffix = fact.get("column_suffix") or ""
        assert [q.name for q in tree.questions] == [q + suffix for q in asked]
        assert [[a.name for a in q.answers] for q in tree.questions] == [q["answers"] for q in fact["questions"]]
        assert (len(tree.questions), len(tree.label_columns)) == (fact["n_questions"], fact["n_answers"])
    groups = facts["checks"]["decals_dr5"]["index_groups"]  # inclusive upstream, half-open here
    assert trees.load("decals_dr5").index_groups == [(first, last + 1) for first, last in groups]


@pytest.mark.parametrize("name", trees.names())
def test_round_trip_and_order(name):
    tree = trees.load(name)
    assert DecisionTree.from_dict(tree.to_dict()) == tree
    place = {tree.questions[i].name: at for at, i in enumerate(tree.walking_order)}
    for parent in tree.questions:
        for answer in parent.answers:
            assert all(place[child] > place[parent.name] for child in tree.followers[answer.column])


def test_what_two_trees_have_in_common():
    """Whatever the campaign calls its columns, and in whichever order; not where the answers are others."""
    dr5, dr8 = trees.load("decals_dr5"), trees.load("decals_dr8")
    here, there = dr5.shared_with(dr8)
    short = [[column.replace(tree.suffix, "") for column in tree.label_columns] for tree in (dr5, dr8)]
    assert [short[0][i] for i in here] == [short[1][i] for i in there]
    assert "smooth-or-featured_smooth" in {short[0][i] for i in here}
    assert dr5.shared_with(dr5) == (list(range(34)), list(range(34)))
    own = {"name": "own", "questions": [{"name": "bar", "answers": ["yes", "no"]},
                                        {"name": "disk-edge-on", "answers": ["no", "yes"]}]}
    here, there = DecisionTree.from_dict(own).shared_with(dr5)
    assert here == [2, 3] and [dr5.label_columns[i] for i in there] == ["disk-edge-on-dr5_no", "disk-edge-on-dr5_yes"]


def test_own_tree_from_yaml(tmp_path):
    path = tmp_path / "rings.yaml"
    path.write_text("questions:\n- name: ring\n  answers: [yes, no]\n"
                    "- name: ring-count\n  answers: [1, 2]\n  asked_after: [ring_yes]\n")
    tree = DecisionTree.from_yaml(path)
    assert tree.label_columns == ["ring_yes", "ring_no", "ring-count_1", "ring-count_2"]
    assert "q0 -- \"yes\" --> q1" in tree.to_mermaid()


@pytest.mark.parametrize(("questions", "message"), [
    ("- {name: a, answers: [x, y]}\n- {name: b, answers: [x, y], asked_after: [a_z]}",
     "'b' is asked after an unknown answer 'a_z'. Did you mean"),
    ("- {name: a, answers: [x, y], asked_after: [b_x]}\n- {name: b, answers: [x, y], asked_after: [a_x]}", "circle"),
    ("- {name: a, answers: [x, x]}", "'a_x' is made twice"),
    ("- {name: a, answers: [b_c, y]}\n- {name: a_b, answers: [c, y]}", "'a_b_c' is made twice"),
    ("- {name: a, answers: [x, y]}\n- {name: a, answers: [v, w]}", "'a' occurs twice"),
    ("- {name: a, answers: [x]}", "at least two answers"),
    ("- {name: a, answers: x}", "must be a list of text"),
    ("- {name: a, answers: [x, y], after: [a_x]}", "unknown entry 'after'"),
    ("- [x, y]", "needs a `name`"), ("- {name: ' ', answers: [x, y]}", "needs a `name`"),
    ("- {name: a, answers: [x, total-votes]}", "'a_total-votes', of an answer to 'a', would be named like another one"),
    ("- {name: a, answers: [x, x_fraction]}", "'a_x_fraction', of an answer to 'a'"),
    ("- {name: id, answers: [x, str]}", "'id_str', of an answer to 'id'"),
    ("- {name: a_proportion_volunteers, answers: [asked, y]}\n- {name: a, answers: [x, y]}",
     "'a_proportion_volunteers_asked', of an answer"),
    ("[", "not valid YAML"),
])
def test_a_wrong_tree_says_what_is_wrong(tmp_path, questions, message):
    path = tmp_path / "own.yaml"
    path.write_text("questions:\n" + questions)
    with pytest.raises(ValueError, match="own.yaml") as error:
        DecisionTree.from_yaml(path)
    assert message in str(error.value)


def test_unknown_names():
    with pytest.raises(ValueError, match="Did you mean 'decals_dr5'"):
        trees.load("decals-dr5")
    with pytest.raises(ValueError, match="no question 'colour'"):
        trees.load("gz2").question("colour")


def test_a_file_may_hold_notes_of_its_own(tmp_path):
    text = "x-yn: &yn [yes, no]\ndescription: ours\nname: t\nquestions:\n- {name: a, answers: *yn}\n"
    (tmp_path / "t.yaml").write_text(text)
    assert trees.DecisionTree.from_yaml(tmp_path / "t.yaml").label_columns == ["a_yes", "a_no"]


def test_null_is_as_if_it_were_not_there(tmp_path):
    text = "suffix: null\nquestions:\n- {name: 'null', answers: [null, 'no'], asks: ~, asked_after: null}\n"
    (tmp_path / "t.yaml").write_text(text)
    tree = DecisionTree.from_yaml(tmp_path / "t.yaml")
    assert tree.label_columns == ["null_null", "null_no"] and tree.questions[0].asks == "" and tree.suffix == ""


def spec(*questions, **more):
    made = [{"name": name, "answers": list(answers), "asked_after": after} for name, answers, *after in questions]
    return {"name": "t", "questions": made, **more}


@pytest.mark.parametrize(("given", "message"), [
    (spec(("q", "ab"), ("q-x", "ab"), suffix="-x"), "'q-x' would name two questions, with the suffix '-x' or without"),
    (spec(("q", ["b_a", "c"]), ("q-x_b", "ac"), suffix="-x"), "'q-x_b_a' would name two answers"),
    (spec(("a", ["b_c", "x"]), ("a_b", "cd"), suffix="-x"), "'a-x_b_c' is made twice|'a_b-x_c' is made twice"),
    (spec(("q", "ab"), sufix="-x"), "unknown entry 'sufix'. Did you mean 'suffix'"),
    (spec(("q", "ab"), question=[]), "unknown entry 'question'. Did you mean 'questions'"),
    ({"name": "t", "questions": [{"name": "q", "answers": ["a", "b"], 3: 4, "x": 5}]}, "unknown entry 3"),
    (spec(("q", ["a", " a "])), "the column 'q_a' is made twice"),
])  # fmt: skip
def test_names_that_lead_astray(given, message):
    with pytest.raises(ValueError, match=message):
        DecisionTree.from_dict(given)


def test_blanks_around_names():
    tree = DecisionTree.from_dict(spec((" q ", [" a", "b "]), ("r", "cd", " q_a ")))
    assert tree.label_columns == ["q_a", "q_b", "r_c", "r_d"] and tree.question("r").asked_after == ("q_a",)


@pytest.mark.parametrize(("text", "message"), [
    ("questions: [{name: q, answers: [a, b]}]\nquestions: []\n", "(?s)'questions' occurs twice.*line 2"),
    ("questions: [{name: q, answers: [a, b], answers: [c, d]}]\n", "'answers' occurs twice"),
    pytest.param("questions: " + "[" * 3000, "nested too deeply", id="deep"),
])  # fmt: skip
def test_yaml_that_is_no_tree(tmp_path, text, message):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        DecisionTree.from_yaml(tmp_path / "t.yaml")
