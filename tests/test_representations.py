"""Feature tables against scikit-learn and brute force."""
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from zoobook import representations
from zoobook.runs import ShardedTable


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """700 galaxies of 30 correlated features in shards, far from the origin, and two odd ones."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(700, 6)) @ rng.normal(size=(6, 30)) + 0.1 * rng.normal(size=(700, 30)) + 50)
    features[[3, 500]] += 15
    features = features.astype(np.float32)
    frame = pd.DataFrame(features, columns=[f"feat_{i}" for i in range(30)])
    frame.insert(0, "id_str", [f"g{i}" for i in range(700)])
    shards = ShardedTable(tmp_path_factory.mktemp("features"), rows=700, made_of={}, shard_rows=256)
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
    monkeypatch.setattr(representations, "ROWS", 100)
    found = representations.compress(table[0], tmp_path / "pca.parquet", n_components=5)
    exact = PCA(5, svd_solver="full").fit(table[1].astype(float))
    np.testing.assert_allclose(found.explained[:5], exact.explained_variance_ratio_, rtol=1e-6)
    assert found.explained.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.abs((found.components * exact.components_).sum(1)), 1, atol=1e-7)
    ids, scores = representations.open(tmp_path / "pca.parquet").read()
    assert ids.tolist() == [f"g{i}" for i in range(700)]
    np.testing.assert_allclose(np.abs(scores), np.abs(exact.transform(table[1])), atol=2e-4)


def test_nearest_is_brute_force(table, monkeypatch):
    monkeypatch.setattr(representations, "ROWS", 90)
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
    with pytest.raises(ValueError, match="n_components must lie between 1 and 30"):
        representations.compress(table[0], tmp_path / "out.parquet", n_components=31)
