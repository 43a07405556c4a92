"""The loop: what is asked next, where passes disagree, and when to stop."""
import numpy as np
import pandas as pd
import pytest

from zoobook import label, representations, trees, votes

RARE = 40


@pytest.fixture
def sky(tmp_path):
    """2,000 galaxies of 8 features, 40 of them of a rare kind at one side, and their answers."""
    rng = np.random.default_rng(0)
    answers = (np.arange(2000) < RARE).astype(int)
    features = rng.normal(size=(2000, 8))
    features[:RARE, 0] += 4
    table = pd.DataFrame(features.astype(np.float32), columns=[f"feat_{i}" for i in range(8)])
    table.insert(0, "id_str", [f"g{i}" for i in range(2000)])
    table.to_parquet(tmp_path / "sky.parquet")
    return tmp_path / "sky.parquet", dict(zip(table["id_str"], answers.tolist(), strict=True))


@pytest.mark.parametrize("learner", ["logistic", "process"])
def test_the_loop_finds_more_of_what_is_rare_than_chance(sky, learner):
    path, truth = sky
    order = np.random.default_rng(1).permutation(list(truth))
    known, rounds = {galaxy: truth[galaxy] for galaxy in [*order[:30], "g0", "g1"]}, []
    for _ in range(4):
        rounds.append(representations.classify(path, known, "ring", learner))
        assert not set(rounds[-1]["id_str"]) & set(known) and len(rounds[-1]) == 2000 - len(known)
        batch = representations.ask(path, rounds[-1], 12)
        known |= {galaxy: truth[galaxy] for galaxy in batch["id_str"]}
    assert len(known) == 32 + 48 and sum(known.values()) >= 10  # at random: four
    rest = rounds[-1].set_index("id_str")["ring_probability"]
    rings = [galaxy for galaxy in rest.index if truth[galaxy]]
    assert rest[rings].median() > 10 * rest.median()


@pytest.mark.parametrize(("labels", "message"), [
    ({"g0": 1, "g1": None}, "the label of 'g1' is missing"), ({"g0": 1, "g1": np.nan}, "the label of 'g1' is missing"),
    ({"g0": 0.5, "g1": 1}, "text or whole numbers, not"), ({"g0": 1, "g1": "no"}, "holds numbers .such as 1. and text"),
    ({"g0": 1, " g0": 0, "g1": 1}, "'g0' in rows 0, 1"), (["g0", "g1"], "a dictionary or a Series by id.*not list"),
    (pd.DataFrame({"id_str": ["g0"], "ring": [1]}), "a dictionary or a Series by id.*not DataFrame"),
    ({"g1": 0, "g2": 0}, "two different answers"), ({}, "two different answers"),
    ({"g1": 0, "nobody": 1}, "no galaxy 'nobody'"),
])  # fmt: skip
def test_labels_that_are_none(sky, labels, message):
    with pytest.raises(ValueError, match=message):
        representations.classify(sky[0], labels, "ring")


def test_labels_in_whatever_holds_them(sky):
    path, truth = sky
    known = {galaxy: truth[galaxy] for galaxy in [*list(truth)[:60]]}
    expected = representations.classify(path, known, "ring")
    blanks = {f"{i} ": bool(v) for i, v in known.items()}
    for labels in (pd.Series(known), blanks, {i: str(v) for i, v in known.items()},
                   {i: float(v) for i, v in known.items()}):  # fmt: skip
        pd.testing.assert_frame_equal(representations.classify(path, labels, "ring"), expected)
    assert len(representations.ask(path, expected.assign(acquisition=expected["acquisition"].astype(str)), 5)) == 5
    with pytest.raises(ValueError, match="acquisition is missing or no finite number"):
        representations.ask(path, expected.assign(acquisition=np.nan), 5)
    with pytest.raises(ValueError, match="no galaxy in common"):
        representations.settled([expected, expected.assign(id_str="x" + expected["id_str"]), expected])


def test_a_batch_is_not_all_alike(sky):
    path, truth = sky
    table = pd.read_parquet(path)
    table.loc[100:139, table.columns[1:]] = table.loc[100, table.columns[1:]].to_numpy()  # forty copies of one galaxy
    table.to_parquet(path)
    scores = pd.DataFrame({"id_str": table["id_str"], "acquisition": 0.0})
    scores.loc[100:139, "acquisition"] = 1.0
    scores.loc[200:209, "acquisition"] = 0.9
    batch = representations.ask(path, scores, 10)
    copies = batch["id_str"].isin([f"g{i}" for i in range(100, 140)]).sum()
    assert len(batch) == 10 and batch["acquisition"].is_monotonic_decreasing and 1 <= copies <= 2
    assert len(representations.ask(path, scores.head(4), 10)) == 4
    pd.testing.assert_frame_equal(batch, representations.ask(path, scores.sample(frac=1, random_state=1), 10))


def test_answers_may_be_words_and_go_to_the_labeler(sky):
    path, truth = sky
    known = {f"g{i}": ("ring" if truth[f"g{i}"] else ["smooth", "spiral"][i % 2]) for i in range(20, 80)}
    scores = representations.classify(path, known, "kind")
    shares = scores[[f"kind_{kind}_probability" for kind in ("ring", "smooth", "spiral")]]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    batch = representations.ask(path, scores, 5)
    files = pd.DataFrame({"id_str": list(truth), "file_loc": "none"})
    order = label._ordered(files, "most_interesting", batch, 0)
    assert order[:5] == batch["id_str"].tolist() and len(order) == 2000
    assert label._ordered(files, "least_sure", scores, 0)[0] == scores["id_str"][0]


def test_passes_that_disagree_are_told_from_doubt_that_all_share():
    tree = trees.load("decals_dr5")
    first = tree.index_groups[0]
    concentrations = np.full((3, len(tree.label_columns), 2), 10.0)
    concentrations[0, first[0], 0] = concentrations[0, first[0] + 1, 1] = 90  # each pass is sure of something else
    concentrations[1, first[0]] = 90  # both are sure of the same; of the third galaxy both are unsure
    table = votes.prediction_table(["torn", "sure", "doubtful"], concentrations, tree)
    found = representations.disagreement(table, tree, [tree.questions[0].name]).set_index("id_str")["acquisition"]
    assert found.index[0] == "torn" and found["torn"] > 0.1
    assert found[["sure", "doubtful"]].abs().max() < 1e-9
    share = np.array([[90, 10, 10], [10, 90, 10]]) / 110
    def entropy(p):
        return -(p * np.log(p)).sum(-1)
    assert found["torn"] == pytest.approx(entropy(share.mean(0)) - entropy(share).mean())
    everything = representations.disagreement(table, tree).set_index("id_str")["acquisition"]
    assert everything["torn"] >= found["torn"]
    for bad, questions, message in [(concentrations[..., :1], None, "one pass cannot disagree"),
                                    (concentrations, ["colour"], "no question 'colour'")]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            representations.disagreement(votes.prediction_table(list("abc"), bad, tree), tree, questions)


def test_it_ends_when_answers_stay():
    def round_of(rings):
        return pd.DataFrame({"id_str": [f"g{i}" for i in range(100)], "ring_probability": np.arange(100) < rings})

    same, other, none = round_of(10), round_of(30), round_of(0)
    assert representations.settled([other, same, same, same])
    assert not representations.settled([same, same])
    assert not representations.settled([same, other, same]) and not representations.settled([same, same, other])
    assert not representations.settled([none] * 3)  # nothing found yet is no end


def test_what_makes_no_sense_is_said(sky):
    path, _ = sky
    with pytest.raises(ValueError, match="learner must be"):
        representations.classify(path, {"g1": 0, "g2": 1}, learner="oracle")
    with pytest.raises(ValueError, match="no column 'acquisition'"):
        representations.ask(path, pd.DataFrame({"id_str": ["g1"]}))
    with pytest.raises(ValueError, match="n must be a whole number"):
        representations.ask(path, pd.DataFrame({"id_str": ["g1"], "acquisition": [1.0]}), 0)
    with pytest.raises(ValueError, match="no column …_probability"):
        representations.settled([pd.DataFrame({"id_str": ["g1"]})] * 3)


def test_answers_that_are_missing_or_stand_for_none(tmp_path):
    of_round = pd.DataFrame({"id_str": ["a", "b"], "ring_probability": ["0.9", "0.1"]})
    assert representations.settled([of_round] * 3)
    with pytest.raises(ValueError, match="probabilities that are missing or no numbers"):
        representations.settled([of_round, of_round, of_round.assign(ring_probability=[0.9, None])])
    pd.DataFrame({"id_str": list("abcd"), "feat_0": [0.0, 1, 2, 3]}).to_parquet(tmp_path / "f.parquet")
    with pytest.raises(ValueError, match="'ratings' has -99 in 1 rows"):
        representations.interesting(tmp_path / "f.parquet", {"a": 1, "b": 2, "c": -99})


@pytest.mark.parametrize("n", [1, 2, 25])
def test_a_galaxy_outside_the_table_is_never_asked_about(sky, n):
    with pytest.raises(ValueError, match="no galaxy 'nobody'"):
        representations.ask(sky[0], pd.DataFrame({"id_str": ["g1", "nobody"], "acquisition": [0.1, 1.0]}), n)


@pytest.mark.parametrize("most", [1e19, -1e19, 2.0**63])
def test_answers_longer_than_64_bits_keep_their_value(sky, most):
    found = representations.classify(sky[0], {"g1": 0.0, "g2": most, "g3": 1.0})
    assert set(found) == {"id_str", "acquisition", *(f"label_{int(n)}_probability" for n in (0, 1, most))}
