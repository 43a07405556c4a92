"""Feature tables against scikit-learn and brute force."""
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from zoobook import representations
from zoobook.catalogs.shards import ShardedTable
from zoobook.representations import search, tables


@pytest.fixture(params=["kept", "read in pieces"], autouse=True)
def small_or_large(request, monkeypatch):
    """A table is the same whether it is small enough to be kept or not."""
    if request.param != "kept":
        monkeypatch.setattr(tables, "KEPT", 0)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """700 galaxies of 30 correlated features in shards, far from the origin, and two odd ones."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(700, 6)) @ rng.normal(size=(6, 30)) + 0.1 * rng.normal(size=(700, 30)) + 50)
    features[[3, 500]] += 15
    features = features.astype(np.float32)
    frame = pd.DataFrame(features, columns=[f"feat_{i}" for i in range(30)])
    frame.insert(0, "id_str", [f"g{i}" for i in range(700)])
    shards = ShardedTable(tmp_path_factory.mktemp("features"), rows=700, config={}, shard_rows=256)
    for number, start, stop in shards.missing():
        shards.write(number, frame.iloc[start:stop])
    return shards.finish(), features


def test_opens_in_numeric_order(table):
    opened = representations.open(table[0])
    assert len(opened) == 700 and opened.columns == [f"feat_{i}" for i in range(30)]
    ids, features = opened.read()
    assert ids[699] == "g699"
    np.testing.assert_array_equal(features, table[1])


def test_compress_is_exact_pca(table, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PIECE", 3000)
    found = representations.compress(table[0], tmp_path / "pca.parquet", n_components=5)
    exact = PCA(5, svd_solver="full").fit(table[1].astype(float))
    np.testing.assert_allclose(found.explained[:5], exact.explained_variance_ratio_, rtol=1e-6)
    assert found.explained.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.abs((found.components * exact.components_).sum(1)), 1, atol=1e-7)
    ids, scores = representations.open(tmp_path / "pca.parquet").read()
    assert ids.tolist() == [f"g{i}" for i in range(700)]
    np.testing.assert_allclose(np.abs(scores), np.abs(exact.transform(table[1])), atol=2e-4)


def test_nearest_is_brute_force(table, monkeypatch):
    monkeypatch.setattr(tables, "PIECE", 2700)
    found = representations.nearest(table[0], ["g10", "g600"], k=4)
    features = table[1].astype(float)
    for query in (10, 600):
        distance = np.linalg.norm(features - features[query], axis=1)
        distance[query] = np.inf
        rows = found[found["query"] == f"g{query}"]
        assert rows["id_str"].tolist() == [f"g{i}" for i in np.argsort(distance)[:4]]
        np.testing.assert_allclose(rows["distance"], np.sort(distance)[:4], rtol=1e-6)
    with pytest.raises(ValueError, match="no galaxy 'g700'"):
        representations.nearest(table[0], "g700")


def test_nearest_has_no_neighbours_to_invent(table, tmp_path):
    frame = pd.DataFrame({"id_str": ["a", "b", "b", "c"], "feat_0": np.float32([0, 1, 1, 1e4])})
    frame.to_parquet(tmp_path / "few.parquet")
    found = representations.nearest(tmp_path / "few.parquet", ["c", "a", "c"], k=9)
    assert found["id_str"].tolist() == ["b", "b", "a", "b", "b", "c", "b", "b", "a"]
    assert found["rank"].tolist() == [1, 2, 3] * 3 and found["distance"][2] == 1e4
    assert representations.nearest(tmp_path / "few.parquet", "b", k=2)["id_str"].tolist() == ["a", "c"]
    assert len(representations.nearest(tmp_path / "few.parquet", [])) == 0
    with pytest.raises(ValueError, match="k must be a whole number, at least 1"):
        representations.nearest(tmp_path / "few.parquet", "a", k=0)


def test_near_twins_far_from_the_origin_are_told_apart(tmp_path):
    """In float32, the usual |x|² - 2xy + |y|² would lose differences as small as these."""
    rng = np.random.default_rng(1)
    features = (1000 + rng.normal(size=(9000, 8))).astype(np.float32)
    features[4000:4030] = features[7] + 1e-3 * rng.normal(size=(30, 8))
    frame = pd.DataFrame(features, columns=[f"feat_{i}" for i in range(8)])
    frame.insert(0, "id_str", np.arange(9000).astype(str))
    frame.to_parquet(tmp_path / "twins.parquet")
    found = representations.nearest(tmp_path / "twins.parquet", "7", k=30)
    distance = np.linalg.norm(features.astype(float) - features[7], axis=1)
    distance[7] = np.inf
    assert found["id_str"].astype(int).tolist() == np.argsort(distance, kind="stable")[:30].tolist()


def test_index_finds_nearly_all_and_says_when_it_is_another_tables(table, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="needs the `search` extra")
    monkeypatch.setattr(search, "_SHARD", 300)
    index = representations.build_index(table[0], tmp_path / "index")
    queries = [f"g{i}" for i in range(0, 700, 7)]
    exact = representations.nearest(table[0], queries, k=5)
    found = representations.nearest(table[0], queries, k=5, index=index)
    both = exact.merge(found, on=["query", "id_str"])
    assert len(both) > 0.85 * len(exact) and not (found["query"] == found["id_str"]).any()
    np.testing.assert_allclose(both["distance_x"], both["distance_y"], rtol=1e-6)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index", "index.lists"]
    representations.compress(table[0], tmp_path / "other.parquet", n_components=30)
    with pytest.raises(ValueError, match="index of another table"):
        representations.nearest(tmp_path / "other.parquet", "g5", index=index)
    with pytest.raises(FileNotFoundError, match="build_index"):
        representations.nearest(table[0], "g5", index=tmp_path / "none")


def test_parts_of_a_table(table, monkeypatch):
    monkeypatch.setattr(tables, "PIECE", 2700)
    opened = representations.open(table[0])
    rows = np.array([699, 0, 256, 0])
    assert opened.ids_at(rows).tolist() == ["g699", "g0", "g256", "g0"]
    np.testing.assert_array_equal(opened.take(rows), table[1][rows])
    drawn = opened.sample(200, seed=3)
    rows = [int(np.flatnonzero((table[1] == row).all(1))[0]) for row in drawn]
    assert len(set(rows)) == 200 and rows == sorted(rows) and rows != list(range(200))
    np.testing.assert_array_equal(drawn, opened.sample(200, seed=3))
    np.testing.assert_array_equal(opened.sample(700), table[1])


def test_active_search_learns_what_is_of_interest(tmp_path):
    """Of many odd galaxies few are of interest: ratings lead to them, oddity alone does not."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 6))
    features[:300] = rng.normal(size=(300, 6)) + 6 * np.eye(6)[rng.integers(0, 6, 300)]  # odd in six directions
    wanted = {f"g{i}" for i in np.flatnonzero(features[:, 2] > 4)}  # one of them is of interest
    frame = pd.DataFrame(features.astype(np.float32), columns=[f"feat_{i}" for i in range(6)])
    frame.insert(0, "id_str", [f"g{i}" for i in range(3000)])
    frame.to_parquet(tmp_path / "odd.parquet")
    odd = representations.anomalies(tmp_path / "odd.parquet")["id_str"]
    ratings = {galaxy: float(galaxy in wanted) for galaxy in odd[:20]}
    for _ in range(4):
        found = representations.interesting(tmp_path / "odd.parquet", ratings)
        assert not set(found["id_str"]) & set(ratings) and len(found) == 3000 - len(ratings)
        ratings |= {galaxy: float(galaxy in wanted) for galaxy in found["id_str"][:20]}
    by_search, by_oddity = sum(ratings.values()), len(wanted & set(odd[:100]))
    assert 30 < len(wanted) < 70 and by_search > 0.7 * len(wanted) > 1.5 * by_oddity
    earlier = dict(list(ratings.items())[:-20])
    pd.testing.assert_frame_equal(found, representations.interesting(tmp_path / "odd.parquet", earlier))
    with pytest.raises(ValueError, match="rate at least two"):
        representations.interesting(tmp_path / "odd.parquet", {"g1": 1})
    with pytest.raises(ValueError, match="no galaxy 'x', which is rated"):
        representations.interesting(tmp_path / "odd.parquet", {"g1": 1, "x": 0})
    with pytest.raises(ValueError, match="rating of 'g2' is not a finite number"):
        representations.interesting(tmp_path / "odd.parquet", {"g1": 1, "g2": float("nan")})


def test_the_odd_ones_out(table):
    ranked = representations.anomalies(table[0])
    assert set(ranked["id_str"][:2]) == {"g3", "g500"}
    pd.testing.assert_frame_equal(ranked, representations.anomalies(table[0]))


def test_clusters_are_repeatable_and_sorted(table):
    found = representations.clusters(table[0], 4)
    assert found["cluster"].value_counts(sort=False).sort_index().is_monotonic_decreasing
    pd.testing.assert_frame_equal(found, representations.clusters(table[0], 4))
    with pytest.raises(ValueError, match="n_clusters"):
        representations.clusters(table[0], 0)


def test_crossmatch_with_a_catalogue(table):
    catalog = pd.DataFrame({"id_str": ["g5", "g6", "other"], "ring": [1, 0, 1]})
    joined = representations.crossmatch(table[0], catalog)
    assert joined["id_str"].tolist() == ["g5", "g6"]
    np.testing.assert_array_equal(joined["feat_7"], table[1][5:7, 7])


def test_published_column_names(tmp_path):
    features = {f"feat_{i}_pred": [1.0, 2.0] for i in (10, 2, 0)}
    frame = pd.DataFrame({"iauname": ["J1", "J2"], "png_loc": "x", **features})
    frame.to_parquet(tmp_path / "cnn_features_decals.parquet")
    opened = representations.open(tmp_path / "cnn_features_decals.parquet")
    assert opened.id_column == "iauname" and opened.columns == ["feat_0_pred", "feat_2_pred", "feat_10_pred"]


def test_clear_errors(table, tmp_path):
    with pytest.raises(FileNotFoundError, match="no parquet table"):
        representations.open(tmp_path / "nothing")
    pd.DataFrame({"id_str": ["a"], "x": [1.0]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no feature columns"):
        representations.open(tmp_path / "x.parquet")
    pd.DataFrame({"feat_0": [1.0]}).to_parquet(tmp_path / "y.parquet")
    with pytest.raises(ValueError, match="neither an id_str nor an iauname"):
        representations.open(tmp_path / "y.parquet")
    pd.DataFrame({"id_str": ["a", "b"], "feat_0": [1.0, np.nan]}).to_parquet(tmp_path / "z.parquet")
    with pytest.raises(ValueError, match="galaxy 'b' has no finite number in column 'feat_0'"):
        representations.open(tmp_path / "z.parquet").read()
    with pytest.raises(ValueError, match="n_components, for .* must be a whole number, from 1 to 30"):
        representations.compress(table[0], tmp_path / "out.parquet", n_components=31)


def few(**columns) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    features = pd.DataFrame(rng.normal(size=(20, 4)).astype("f4"), columns=[f"feat_{i}" for i in range(4)])
    return features.assign(**({"id_str": [f"g{i}" for i in range(20)]} | columns))


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
        rated = representations.interesting(path, {first: 1, first + 1: 2})
        assert len(rated) == 18
    few(id_str=np.arange(20.0) + 1e15).to_parquet(tmp_path / "f.parquet")
    with pytest.raises(ValueError, match="floating-point"):
        representations.open(tmp_path / "f.parquet")
    with pytest.raises(ValueError, match="floating-point"):
        representations.nearest(tmp_path / "i.parquet", float(first))


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


def test_what_is_no_table_of_features(tmp_path):
    few()[:0].to_parquet(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="no rows"):
        representations.open(tmp_path / "none.parquet")
    few().to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(ValueError, match="not a table of features in parquet"):
        representations.open(tmp_path / "c.csv")
    (tmp_path / "p").mkdir()
    few().to_parquet(tmp_path / "p" / "0.parquet")
    few().drop(columns="feat_3").to_parquet(tmp_path / "p" / "1.parquet")
    with pytest.raises(ValueError, match="1.parquet has other columns"):
        representations.open(tmp_path / "p")


def test_home_and_numpy_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    few().to_parquet(tmp_path / "t.parquet")
    assert representations.compress("~/t.parquet", "~/pca.parquet", np.int64(2)).path == tmp_path / "pca.parquet"
    assert len(representations.nearest("~/pca.parquet", "g1", k=np.int32(3))) == 3
    assert set(representations.clusters("~/pca.parquet", np.int64(2), seed=np.int64(1))["cluster"]) == {0, 1}
    with pytest.raises(ValueError, match="k must be a whole number, at least 1, not 2.5"):
        representations.nearest("~/pca.parquet", "g1", k=2.5)
