"""`zoobook cutouts`: from a picture of the sky to a catalogue and stamps, on the command line."""

import io
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
    max_magnitude: Annotated[float | None, Option(help="Leave fainter sources out of a search.")] = None,
    threshold: Annotated[float, Option(help="Detection threshold over the sky, in units of its noise.")] = 1.5,
    zero_point: Annotated[float | None, Option(help="Magnitude of one unit, if the header does not say it.")] = None,
    pixel_arcsec: Annotated[float | None, Option(help="Side of a pixel, if the header does not say it.")] = None,
    skip_bad_images: Annotated[
        bool, Option(help="Leave out sources that are outside or cannot be cut instead of stopping.")
    ] = False,
) -> None:
    """Find galaxies in a picture of the sky, measure them, and cut stamps framed as the networks were trained."""
    import numpy as np

    from zoobook import arguments, catalogs
    from zoobook.catalogs.columns import flags
    from zoobook.cli import inputs
    from zoobook.files import ensure_writable_dir, replacing
    from zoobook.images import cutouts as stamps
    from zoobook.images.checks import SMALLEST

    if positions is not None and max_magnitude is not None:
        raise ValueError("--max-magnitude goes with a search; with --positions, choose the rows of that table instead")
    size = arguments.whole("size", size, SMALLEST)
    sky, out = stamps.Mosaic(mosaic, zero_point, pixel_arcsec), ensure_writable_dir(out)
    bad = "quarantine" if skip_bad_images else "error"
    if positions is None:
        table = stamps.find_sources(sky, threshold, max_magnitude=max_magnitude)
        echo(f"{len(table):,} sources found")
    else:
        inputs.refuse_overwriting(out / "catalogue.parquet", positions)
        table = catalogs.read(positions).drop(columns="file_loc", errors="ignore")
        if not {"r50_arcsec", "r50_pixels"} & set(table):
            table = stamps.measure_sources(sky, table, "drop" if skip_bad_images else "error", threshold)
    left = [flags(table, name) for name in ("flag_star", "flag_small") if name in table and not everything]
    wanted = table[~np.any(left, axis=0)] if left else table
    if positions is None:
        wanted = wanted[wanted["r50_pixels"].notna()]
    if wanted.empty and len(table):
        raise ValueError("all sources look like stars, are too small, or have no radius; --all cuts them")
    if len(wanted) < len(table):
        echo(f"{len(table) - len(wanted):,} look like stars, are too small, or have no radius: they are not cut")
    try:
        table.to_parquet(io.BytesIO(), index=False)  # before the work: what the catalogue cannot hold
    except Exception as error:  # what pandas and Arrow raise for odd columns has no common class
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{positions} has a column that catalogue.parquet cannot hold ({reason}): drop it") from None
    store = stamps.cut_stamps(sky, wanted, out / "stamps.arrow", size, bad)
    catalogue = out / "catalogue.parquet"
    with replacing(catalogue) as part:
        table.to_parquet(part, index=False)
    if png:
        table = table.merge(stamps.save_stamps(store, out / "stamps"), on="id_str", how="left")
        with replacing(catalogue) as part:
            table.to_parquet(part, index=False)
    echo(f"{len(store):,} stamps are in {store.path}, the catalogue in {catalogue}")
