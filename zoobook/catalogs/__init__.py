"""Catalogues: one row a galaxy, read from any common table, checked, split and labelled.

A catalogue is a pandas DataFrame with ``id_str`` (text, unique), usually ``file_loc`` (path of the image), and one
column of votes for each answer of a decision tree: whole numbers, 0 where nobody answered.
"""
from zoobook.catalogs.columns import check_ids, id_array, keyed
from zoobook.catalogs.fractions import add_fractions, total_votes, vote_fraction
from zoobook.catalogs.reading import check_votes, read
from zoobook.catalogs.rings import ring_labels
from zoobook.catalogs.split import shuffled, split

__all__ = [
    "add_fractions", "check_ids", "check_votes", "id_array", "keyed", "read", "ring_labels", "shuffled", "split",
    "total_votes", "vote_fraction",
]  # fmt: skip
