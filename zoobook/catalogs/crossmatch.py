"""Cross-matching: joining two tables by the galaxies' ids, or by their positions on the sky, and saying how it went.

The right-hand table may be a file. Of it only the ids (or positions) are read, and then the rows that match, so that
a catalogue of millions of galaxies needs little memory.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from zoobook import arguments
from zoobook.catalogs import tables
from zoobook.catalogs.columns import ids_of, in_memory, listed, numbers, require

_MEANING = {
    "matched": "galaxies that both tables have",
    "left_only": "galaxies of the left table without a partner",
    "right_only": "galaxies of the right table without a partner",
    "left_repeated": "further rows of the left table with an id that an earlier row has; left out",
    "right_repeated": "further rows of the right table with an id that an earlier row has; left out",
    "contested": "rows of the left table whose nearest partner is nearer still to another row; left out",
}


def by_id(
    left: pd.DataFrame,
    right: pd.DataFrame | str | os.PathLike,
    on: str | tuple[str, str] = "id_str",
    columns: list[str] | None = None,
) -> pd.DataFrame:
    """Join two tables on an id, keeping the galaxies that both have; where an id is repeated, its first row counts.

    Args:
        left: a table.
        right: a table, or a file or folder with one; those of its columns that ``left`` has too get the ending
            ``_right``.
        on: the id column in both, such as ``"iauname"``, or its names in the left and in the right table, such as
            ``("id_str", "dr8_id")``; compared as text.
        columns: which columns of the right table to add; all by default.

    Returns:
        DataFrame: matched rows in the order of ``left``; :func:`report` says how many did not match, and why.

    >>> ours, theirs = pd.DataFrame({"id_str": ["a", "b"]}), pd.DataFrame({"name": ["b", "c"], "z": [0.1, 0.2]})
    >>> by_id(ours, theirs, on=("id_str", "name"), columns=["z"])
      id_str    z
    0      b  0.1
    """
    pair = [on, on] if isinstance(on, str) else on
    if not isinstance(pair, (list, tuple)) or [isinstance(name, str) for name in pair] != [True, True]:
        raise ValueError(f"on must be the name of the id column, or its names in the left and right table, not {on!r}")
    left_on, right_on = pair
    left, right = in_memory(left, "the left table"), _table(right)
    left_ids = tables.id_column(left, left_on, "the left table")
    right_ids = tables.id_column(right, right_on, _name(right))

    encoded = left_ids.dictionary_encode()  # numbers ids in the order in which they first occur
    left_first, left_unique = np.unique(encoded.indices.to_numpy(), return_index=True)[1], encoded.dictionary
    # Only ids that the left table has are looked at again: the right one may be many times longer.
    partner = pc.index_in(right_ids, value_set=left_unique)
    shared = np.flatnonzero(partner.is_valid().to_numpy(zero_copy_only=False))
    partner = partner.drop_null().to_numpy()
    matched, first = np.unique(partner, return_index=True)
    left_rows, right_rows = left_first[matched], shared[first]
    repeated_right = len(right_ids) - pc.count_distinct(right_ids).as_py()

    same = (right_on,) if left_on == right_on else ()
    joined = _join(left, left_rows, right, right_rows, columns, without=same, text=(right_on,))
    joined[left_on] = left_ids.take(pa.array(left_rows)).to_numpy(zero_copy_only=False)
    joined.attrs["report"] = {
        "matched": len(matched),
        "left_only": len(left_unique) - len(matched),
        "right_only": len(right_ids) - repeated_right - len(matched),
        "left_repeated": len(left_ids) - len(left_unique),
        "right_repeated": repeated_right,
    }
    return joined


def by_position(
    left: pd.DataFrame,
    right: pd.DataFrame | str | os.PathLike,
    radius_arcsec: float = 1.0,
    columns: list[str] | None = None,
) -> pd.DataFrame:
    """Join two tables on position: each galaxy with its nearest counterpart within a radius.

    Where several rows of ``left`` have the same nearest counterpart, the closest of them gets it.

    Args:
        left: a table with ``ra`` and ``dec`` (degrees, ICRS).
        right: a table with ``ra`` and ``dec``, or a file with one.
        radius_arcsec: the largest separation, in arcseconds.
        columns: see :func:`by_id`.

    Returns:
        DataFrame: matched rows in the order of ``left``, with ``separation_arcsec``; :func:`report` says how many did
        not match, and how many were contested.
    """
    radius_arcsec = arguments.real("radius_arcsec", radius_arcsec)
    import astropy.units as u

    left, right = in_memory(left, "the left table"), _table(right)
    sky_left = _positions(left, "the left table")
    sky_right = _positions(right, _name(right))
    if len(sky_left) and len(sky_right):
        nearest, separation, _ = sky_left.match_to_catalog_sky(sky_right)
        separation = separation.to_value(u.arcsec)
    else:
        nearest, separation = np.zeros(0, int), np.zeros(0)
    rows = np.flatnonzero(separation <= radius_arcsec)
    by_distance = rows[np.argsort(separation[rows], kind="stable")]
    first = np.unique(nearest[by_distance], return_index=True)[1]
    chosen = np.sort(by_distance[first])
    joined = _join(left, chosen, right, nearest[chosen], columns, added=("separation_arcsec",))
    joined["separation_arcsec"] = separation[chosen]
    joined.attrs["report"] = {
        "matched": len(chosen),
        "left_only": len(sky_left) - len(rows),
        "right_only": len(sky_right) - len(chosen),
        "contested": len(rows) - len(chosen),
    }
    return joined


def near_pairs(catalog: pd.DataFrame, radius_arcsec: float = 1.0) -> pd.DataFrame:
    """Pairs of rows of one table that lie close together: often one galaxy under two names.

    Args:
        catalog: a table with ``id_str``, ``ra`` and ``dec`` (degrees, ICRS).
        radius_arcsec: the largest separation, in arcseconds.

    Returns:
        DataFrame: ``id_str``, ``id_str_right`` and ``separation_arcsec``, each pair once.
    """
    radius_arcsec = arguments.real("radius_arcsec", radius_arcsec)
    import astropy.units as u

    require(["id_str"], catalog, "the catalogue")
    sky, ids = _positions(catalog, "the catalogue"), ids_of(catalog["id_str"], "the catalogue")
    first, second, separation, _ = sky.search_around_sky(sky, radius_arcsec * u.arcsec)
    once = first < second
    return pd.DataFrame({
        "id_str": ids[first[once]], "id_str_right": ids[second[once]],
        "separation_arcsec": separation[once].to_value(u.arcsec),
    })  # fmt: skip


def report(joined: pd.DataFrame) -> pd.DataFrame:
    """How :func:`by_id` or :func:`by_position` went: ``rows`` and ``meaning`` by kind, such as matched or left_only."""
    counts = joined.attrs.get("report")
    if counts is None:
        raise ValueError("this table has no report of a cross-match: ask before you merge, group or save it")
    return pd.DataFrame({"rows": counts, "meaning": {kind: _MEANING[kind] for kind in counts}}).rename_axis("kind")


def _table(table: pd.DataFrame | str | os.PathLike) -> pd.DataFrame | Path:
    return arguments.path(table) if isinstance(table, (str, os.PathLike)) else in_memory(table, "the right table")


def _name(right: pd.DataFrame | Path) -> str:
    return "the right table" if isinstance(right, pd.DataFrame) else str(right)


def _join(
    left: pd.DataFrame,
    left_rows: np.ndarray,
    right: pd.DataFrame | Path,
    right_rows: np.ndarray,
    columns: list[str] | None,
    without: tuple[str, ...] = (),
    added: tuple[str, ...] = (),
    text: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Rows of the left table beside their partners of the right one."""
    names = list(right.columns) if isinstance(right, pd.DataFrame) else tables.column_names(right)
    if columns is None:
        columns = names
    elif not isinstance(columns, str):
        columns = arguments.names("columns", columns)
    require(columns, names, _name(right))
    wanted = [name for name in dict.fromkeys(columns) if name not in without]
    new = {name: f"{name}_right" if name in left.columns else name for name in wanted}
    all_names = [*left.columns, *new.values(), *added]
    taken = [name for name in (*new.values(), *added) if all_names.count(name) > 1]
    if taken:
        raise ValueError(f"the joined table would have two columns {taken[0]!r}, perhaps because of an earlier join: "
                         "rename or drop one, or say in `columns` what to add")  # fmt: skip
    if isinstance(right, pd.DataFrame):
        other = right[wanted].iloc[right_rows]
    elif wanted:
        ascending = np.argsort(right_rows)
        other = tables.read(right, wanted, right_rows[ascending], text).iloc[np.argsort(ascending)]
    else:
        other = pd.DataFrame(index=right_rows)
    sides = [side.reset_index(drop=True) for side in (left.iloc[left_rows], other.rename(columns=new))]
    for side in sides:
        side.attrs = {}  # which pandas would compare, and cannot where they hold arrays
    return pd.concat(sides, axis=1)


def _positions(table: pd.DataFrame | Path, where: str):
    """Where the rows of a table are on the sky, from ``ra`` and ``dec`` in degrees."""
    from astropy.coordinates import SkyCoord

    table = table if isinstance(table, pd.DataFrame) else tables.read(table, ["ra", "dec"])
    require(["ra", "dec"], table, where)
    degrees = {}
    for name, low, high in (("ra", -360.0, 360.0), ("dec", -90.0, 90.0)):
        degrees[name] = numbers(table, name, where)
        bad = np.flatnonzero(~((degrees[name] >= low) & (degrees[name] <= high)))
        if len(bad):
            raise ValueError(
                f"{where}: `{name}` is missing or not within {low:g} … {high:g} degrees in {len(bad)} rows (counted "
                f"from 0): {listed(bad)}. The first has {table[name].iloc[bad[0]]}. Drop or correct those rows."
            )
    return SkyCoord(degrees["ra"], degrees["dec"], unit="deg")
