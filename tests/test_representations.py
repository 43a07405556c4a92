"""Feature tables against scikit-learn and brute force."""
import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from sklearn.decomposition import PCA

from zoobook import representations
from zoobook.catalogs.shards import ShardedTable
from zoobook.representations import search, tables


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """700 galaxies of 30 correlated features in shards, far from the origin, and two odd ones."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(700, 6)) @ rng.normal(size=(6, 30)) + 0.1 * rng.normal(size=(700, 30)) + 50)
    features[[3, 500]] += 15
    features = features.astype(np.float32)
    frame = frame_of(features)
    shards = ShardedTable(tmp_path_factory.mktemp("features"), rows=700, config={}, shard_rows=256)
    for number, start, stop in shards.missing():
        shards.write(number, frame.iloc[start:stop])
    return shards.finish(), features


@pytest.fixture(params=[3000, tables.PIECE])
def pieces(request, monkeypatch):
    """A table is the same whether it is read in many pieces or in few."""
    monkeypatch.setattr(tables, "PIECE", request.param)


def frame_of(features: np.ndarray, **columns) -> pd.DataFrame:
    frame = pd.DataFrame(features.astype(np.float32), columns=[f"feat_{i}" for i in range(features.shape[1])])
    return frame.assign(**({"id_str": [f"g{i}" for i in range(len(frame))]} | columns))


def few(**columns) -> pd.DataFrame:
    return frame_of(np.random.default_rng(0).normal(size=(20, 4)), **columns)


# ---- Opening and reading ----


def test_reading_all_or_parts_of_a_table(table, pieces):
    opened = representations.open(table[0])
    assert len(opened) == 700 and opened.columns == [f"feat_{i}" for i in range(30)]
    ids, features = opened.read()
    assert ids[699] == "g699"
    np.testing.assert_array_equal(features, table[1])
    rows = np.array([699, 0, 256, 0])
    assert opened.ids_at(rows).tolist() == ["g699", "g0", "g256", "g0"]
    np.testing.assert_array_equal(opened.take(rows), table[1][rows])
    drawn = opened.sample(200, seed=3)
    rows = [int(np.flatnonzero((table[1] == row).all(1))[0]) for row in drawn]
    assert len(set(rows)) == 200 and rows == sorted(rows) and rows != list(range(200))
    np.testing.assert_array_equal(drawn, opened.sample(200, seed=3))
    np.testing.assert_array_equal(opened.sample(700), table[1])


def test_published_column_names(tmp_path):
    features = {f"feat_{i}_pred": [1.0, 2.0] for i in (10, 2, 0)}
    frame = pd.DataFrame({"iauname": ["J1", "J2"], "png_loc": "x", **features})
    frame.to_parquet(tmp_path / "cnn_features_decals.parquet")
    opened = representations.open(tmp_path / "cnn_features_decals.parquet")
    assert opened.id_column == "iauname" and opened.columns == ["feat_0_pred", "feat_2_pred", "feat_10_pred"]


def test_ids_are_compared_as_they_are_stored(tmp_path):
    first = 587722981742084096
    few(id_str=[first + i for i in range(20)]).to_parquet(tmp_path / "i.parquet")
    few(id_str=[f" {first + i} " for i in range(20)]).to_parquet(tmp_path / "t.parquet")
    for path in (tmp_path / "i.parquet", tmp_path / "t.parquet"):
        found = [representations.nearest(path, one) for one in (first + 1, np.int64(first + 1), f"{first + 1} ")]
        assert found[0]["id_str"].iloc[0] in {str(first + i) for i in range(20)}
        assert all(table.equals(found[0]) for table in found) and len(found[0]) == 8
        catalog = pd.DataFrame({"id_str": np.arange(first, first + 5).astype(">i8")})
        assert len(representations.crossmatch(path, catalog)) == 5
        assert len(representations.interesting(path, {first: 1, first + 1: 2})) == 18
    with pytest.raises(ValueError, match="floating-point"):
        representations.nearest(tmp_path / "i.parquet", float(first))


@pytest.mark.parametrize(("frame", "message"), [
    (pd.DataFrame({"id_str": ["a"], "x": [1.0]}), "no feature columns"),
    (pd.DataFrame({"feat_0": [1.0]}), "neither an id_str nor an iauname"),
    (few()[:0], "no rows"),
    (few(id_str=np.arange(20.0) + 1e15), "floating-point"),
    (few(feat_2=[*range(19), np.nan]), "galaxy 'g19' has no finite number in column 'feat_2'"),
    (few(feat_0_pca=1.0), "two sets of features, feat_0, feat_0_pca, feat_1"),
    (few(feat_1="1.5"), "'feat_1' must be one column of numbers, not large_string|string"),
    (few(feat_1=True), "must be one column of numbers, not bool"),
    (few(feat_1=pd.Timestamp("2020-01-01")), "must be one column of numbers, not timestamp"),
    (few(feat_1=1e30), "has no finite number in column 'feat_1', or one above 1e.15"),
    (few(feat_1=[None, *range(19)]), "galaxy 'g0' has no finite number in column 'feat_1'"),
])  # fmt: skip
def test_a_table_that_cannot_be_used(tmp_path, frame, message):
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=message):
        representations.open(tmp_path / "x.parquet").read()


def test_a_galaxy_that_is_there_twice_is_named(tmp_path):
    pd.concat([few(), few().head(1)]).to_parquet(tmp_path / "x.parquet")
    for sort in (representations.anomalies, lambda path: representations.clusters(path, 2),
                 lambda path: representations.nearest(path, "g0"), lambda path: representations.nearest(path, "g7", 20),
                 lambda path: representations.interesting(path, {"g0": 1, "g1": 2})):  # fmt: skip
        with pytest.raises(ValueError, match="1 ids of `id_str` occur more than once.* in rows 0, 20"):
            sort(tmp_path / "x.parquet")


def test_what_is_no_table_of_features(tmp_path):
    with pytest.raises(FileNotFoundError, match="no parquet table"):
        representations.open(tmp_path / "nothing")
    few().to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(ValueError, match="c.csv is not a table of features in parquet"):
        representations.open(tmp_path / "c.csv")
    (tmp_path / "p").mkdir()
    few().to_parquet(tmp_path / "p" / "0.parquet")
    few().drop(columns="feat_3").to_parquet(tmp_path / "p" / "1.parquet")
    with pytest.raises(ValueError, match="1.parquet has no column 'feat_3'"):
        representations.open(tmp_path / "p")
    (tmp_path / "p" / "1.parquet").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="p could not be read as a table: 1.parquet: Parquet magic"):
        representations.open(tmp_path / "p")


def test_what_astropy_masks_is_no_feature(tmp_path):
    features = {"feat_0": [1.0, 2.0], "feat_1": np.ma.array([7777.0, 3.0], mask=[True, False])}
    Table({"id_str": ["a", "b"], **features}).write(tmp_path / "t.parquet")
    for read in (representations.anomalies, lambda path: representations.compress(path, tmp_path / "out.parquet", 1)):
        with pytest.raises(ValueError, match="galaxy 'a' has no finite number in column 'feat_1'"):
            read(tmp_path / "t.parquet")


@pytest.mark.parametrize("values", [["x"], [True], [[1.0]]])
def test_files_of_one_table_in_which_a_feature_is_something_else(tmp_path, values):
    few().to_parquet(tmp_path / "0.parquet")
    few(feat_1=values * 20).to_parquet(tmp_path / "1.PQ")
    for read in (representations.anomalies, lambda path: representations.nearest(path, "g1"),
                 lambda path: representations.compress(path, tmp_path.with_suffix(".parquet"))):  # fmt: skip
        with pytest.raises(ValueError, match="'feat_1' is .* in 1.PQ, but float in 0.parquet"):
            read(tmp_path)


def test_a_table_without_an_ending_is_one_to_all(tmp_path):
    few().to_parquet(tmp_path / "few.parquet")
    out = representations.compress(tmp_path / "few.parquet", tmp_path / "x", 2).path
    joined = representations.crossmatch(out, few()[["id_str"]])
    np.testing.assert_array_equal(joined[["feat_0_pca", "feat_1_pca"]], representations.open(out).read()[1])
    with pytest.raises(ValueError, match="t.votable: the result is parquet"):
        representations.compress(tmp_path / "few.parquet", tmp_path / "t.votable", 2)


# ---- Principal components, neighbours, oddities and groups ----


def test_compress_is_exact_pca(table, tmp_path, pieces):
    found = representations.compress(table[0], tmp_path / "pca.parquet", n_components=5)
    exact = PCA(5, svd_solver="full").fit(table[1].astype(float))
    np.testing.assert_allclose(found.explained[:5], exact.explained_variance_ratio_, rtol=1e-6)
    assert found.explained.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.abs((found.components * exact.components_).sum(1)), 1, atol=1e-7)
    ids, scores = representations.open(tmp_path / "pca.parquet").read()
    assert ids.tolist() == [f"g{i}" for i in range(700)]
    np.testing.assert_allclose(np.abs(scores), np.abs(exact.transform(table[1])), atol=2e-4)
    with pytest.raises(ValueError, match="n_components, for .* must be a whole number, from 1 to 30"):
        representations.compress(table[0], tmp_path / "out.parquet", n_components=31)


def brute_force(features: np.ndarray, query: int, k: int) -> tuple[list[str], np.ndarray]:
    distance = np.linalg.norm(features.astype(float) - features[query], axis=1)
    distance[query] = np.inf
    order = np.argsort(distance, kind="stable")[:k]
    return [f"g{i}" for i in order], distance[order]


def test_nearest_is_brute_force(table, pieces):
    found = representations.nearest(table[0], ["g10", "g600"], k=4)
    for query in (10, 600):
        ids, distance = brute_force(table[1], query, 4)
        rows = found[found["query"] == f"g{query}"]
        assert rows["id_str"].tolist() == ids
        np.testing.assert_allclose(rows["distance"], distance, rtol=1e-6)
    with pytest.raises(ValueError, match="no galaxy 'g700'"):
        representations.nearest(table[0], "g700")


def test_near_twins_far_from_the_origin_are_told_apart(tmp_path):
    """In float32, the usual |x|² - 2xy + |y|² would lose differences as small as these."""
    rng = np.random.default_rng(1)
    features = (1000 + rng.normal(size=(9000, 8))).astype(np.float32)
    features[4000:4030] = features[7] + 1e-3 * rng.normal(size=(30, 8))
    frame_of(features).to_parquet(tmp_path / "twins.parquet")
    found = representations.nearest(tmp_path / "twins.parquet", "g7", k=30)
    assert found["id_str"].tolist() == brute_force(features, 7, 30)[0]


@pytest.mark.parametrize("equal", [20, 12])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-4, 300.0])
def test_equal_galaxies_are_neighbours(tmp_path, monkeypatch, equal, value):
    monkeypatch.setattr(search, "_BLOCK", 7)
    table = few()
    table.loc[: equal - 1, [f"feat_{i}" for i in range(4)]] = np.float32(value)
    table.to_parquet(tmp_path / "e.parquet")
    found = representations.nearest(tmp_path / "e.parquet", ["g1", "g11"], k=10)
    assert len(found) == 20 and (found["distance"] == 0).all()
    assert set(found["id_str"]) <= {f"g{i}" for i in range(equal)}


def test_nearest_has_no_neighbours_to_invent(tmp_path):
    path = tmp_path / "few.parquet"
    frame_of(np.array([[0], [1], [1], [1e4]]), id_str=["a", "b", "d", "c"]).to_parquet(path)
    found = representations.nearest(path, ["c", "a", "c"], k=9)
    assert found["id_str"].tolist() == ["b", "d", "a", "b", "d", "c", "b", "d", "a"]
    assert found["rank"].tolist() == [1, 2, 3] * 3 and found["distance"][2] == 1e4
    assert representations.nearest(path, "b", k=2)["id_str"].tolist() == ["d", "a"]
    assert len(representations.nearest(path, [])) == 0
    for k in (0, 2.5):
        with pytest.raises(ValueError, match="k must be a whole number, at least 1"):
            representations.nearest(path, "a", k=k)


def test_active_search_learns_what_is_of_interest(tmp_path):
    """Of many odd galaxies few are of interest: ratings lead to them, oddity alone does not."""
    path, rng = tmp_path / "odd.parquet", np.random.default_rng(0)
    features = rng.normal(size=(3000, 6))
    features[:300] = rng.normal(size=(300, 6)) + 6 * np.eye(6)[rng.integers(0, 6, 300)]  # odd in six directions
    wanted = {f"g{i}" for i in np.flatnonzero(features[:, 2] > 4)}  # one of them is of interest
    frame_of(features).to_parquet(path)
    odd = representations.anomalies(path)["id_str"]
    ratings = {galaxy: float(galaxy in wanted) for galaxy in odd[:20]}
    for _ in range(4):
        found = representations.interesting(path, ratings)
        assert not set(found["id_str"]) & set(ratings) and len(found) == 3000 - len(ratings)
        ratings |= {galaxy: float(galaxy in wanted) for galaxy in found["id_str"][:20]}
    by_search, by_oddity = sum(ratings.values()), len(wanted & set(odd[:100]))
    assert 30 < len(wanted) < 70 and by_search > 0.7 * len(wanted) > 1.5 * by_oddity
    earlier = dict(list(ratings.items())[:-20])
    pd.testing.assert_frame_equal(found, representations.interesting(path, earlier))
    np.testing.assert_allclose(found["acquisition"], found["expected"] + found["std"])
    with pytest.warns(DeprecationWarning, match="'interest' is now 'acquisition'"):
        assert found["interest"].is_monotonic_decreasing
    for ratings, message in [
        ({"g1": 1}, "rate at least two"),
        ({"g1": 1, "x": 0}, "no galaxy 'x'"),
        ({"g1": 1, "g2": float("nan")}, "rating of 'g2' is not a finite number"),
    ]:
        with pytest.raises(ValueError, match=message):
            representations.interesting(path, ratings)


def test_all_galaxies_are_rated(tmp_path):
    few().to_parquet(tmp_path / "t.parquet")
    assert len(representations.interesting(tmp_path / "t.parquet", {f"g{i}": i for i in range(20)})) == 0


def test_oddities_and_groups_are_repeatable_and_sorted(table):
    ranked, found = representations.anomalies(table[0]), representations.clusters(table[0], 4)
    assert set(ranked["id_str"][:2]) == {"g3", "g500"}
    pd.testing.assert_frame_equal(ranked, representations.anomalies(table[0]))
    assert found["cluster"].value_counts(sort=False).sort_index().is_monotonic_decreasing
    pd.testing.assert_frame_equal(found, representations.clusters(table[0], 4))
    with pytest.raises(ValueError, match="n_clusters"):
        representations.clusters(table[0], 0)


def test_crossmatch_with_a_catalogue(table):
    catalog = pd.DataFrame({"id_str": ["g5", "g6", "other"], "ring": [1, 0, 1]})
    joined = representations.crossmatch(table[0], catalog)
    assert joined["id_str"].tolist() == ["g5", "g6"]
    np.testing.assert_array_equal(joined["feat_7"], table[1][5:7, 7])
    with pytest.raises(ValueError, match="id_str"):
        representations.crossmatch(table[0], catalog.drop(columns="id_str"))


def test_home_and_numpy_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    few().to_parquet(tmp_path / "t.parquet")
    assert representations.compress("~/t.parquet", "~/pca.parquet", np.int64(2)).path == tmp_path / "pca.parquet"
    assert len(representations.nearest("~/pca.parquet", "g1", k=np.int32(3))) == 3
    assert set(representations.clusters("~/pca.parquet", np.int64(2), seed=np.int64(1))["cluster"]) == {0, 1}
