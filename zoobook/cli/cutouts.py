"""`zoobook cutouts`: from a picture of the sky to a catalogue and stamps, on the command line."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo


def cutouts(
    mosaic: Annotated[list[Path], Argument(help="A FITS image, or one for each band; or a PNG, JPEG or TIFF.")],
    out: Annotated[Path, Option(help="Folder for catalogue.parquet and stamps.arrow.")],
    positions: Annotated[
        Path | None, Option(help="Table of sources with id_str and x, y or ra, dec, instead of a search.")
    ] = None,
    size: Annotated[int, Option(help="Side of the stamps in pixels.")] = 128,
    png: Annotated[bool, Option("--png", help="Write the stamps as PNG files too.")] = False,
    everything: Annotated[bool, Option("--all", help="Cut stars and very small sources too.")] = False,
    max_magnitude: Annotated[float | None, Option(help="Leave fainter sources out.")] = None,
    threshold: Annotated[float, Option(help="Detection threshold over the sky, in units of its noise.")] = 1.5,
    zero_point: Annotated[float | None, Option(help="Magnitude of one unit, if the header does not say it.")] = None,
    pixel_arcsec: Annotated[float | None, Option(help="Side of a pixel, if the header does not say it.")] = None,
    skip_bad_images: Annotated[
        bool, Option(help="Leave out sources that are outside or cannot be cut instead of stopping.")
    ] = False,
) -> None:
    """Find galaxies in a picture of the sky, measure them, and cut stamps framed as the networks were trained."""
    from zoobook import catalogs
    from zoobook.files import ensure_writable_dir
    from zoobook.images import cutouts as stamps

    sky, out = stamps.Mosaic(mosaic, zero_point, pixel_arcsec), ensure_writable_dir(out)
    bad = "quarantine" if skip_bad_images else "error"
    if positions is None:
        table = stamps.find_sources(sky, threshold, max_magnitude=max_magnitude)
        echo(f"{len(table):,} sources found")
    else:
        table = catalogs.read(positions)
        if "r50_arcsec" not in table:
            table = stamps.measure_sources(sky, table, "drop" if skip_bad_images else "error", threshold)
    wanted = table
    if not everything and "flag_star" in table:
        wanted = table[~table["flag_star"] & ~table["flag_small"]]
    if positions is None:
        wanted = wanted[wanted["r50_pixels"].notna()]
    if wanted.empty:
        raise ValueError("all sources look like stars, are too small, or have no radius; --all cuts them")
    store = stamps.cut_stamps(sky, wanted, out / "stamps.arrow", size, bad)
    if png:
        table = table.merge(stamps.save_stamps(store, out / "stamps"), on="id_str", how="left")
    table.to_parquet(out / "catalogue.parquet", index=False)
    echo(f"{len(store):,} stamps are in {store.path}, the catalogue in {out / 'catalogue.parquet'}")
