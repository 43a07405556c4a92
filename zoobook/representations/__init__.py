"""Tables of features: what a network saw in each galaxy, compressed, searched, and sorted.

A table is a parquet file or a folder of them, with one row a galaxy: an id (``id_str`` or ``iauname``) and features
``feat_0 … feat_1279``. The published tables (``feat_0_pred …``) and compressed ones (``feat_0_pca …``) read alike.
Tables are read in pieces, so none has to fit into memory.
"""
from zoobook.representations.asking import ask, classify, disagreement, settled
from zoobook.representations.compression import Compression, compress
from zoobook.representations.search import nearest
from zoobook.representations.sorting import anomalies, clusters, interesting
from zoobook.representations.tables import FeatureTable, crossmatch, open

__all__ = [
    "Compression", "FeatureTable", "anomalies", "ask", "classify", "clusters", "compress", "crossmatch",
    "disagreement", "interesting", "nearest", "open", "settled",
]  # fmt: skip
