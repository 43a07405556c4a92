"""The simulated survey on disk: images, votes and truth, made in parallel and resumed where it stopped."""

import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from zoobook import arguments, parallel
from zoobook.files import ensure_writable_dir, explain_full_disk, replacing
from zoobook.simulation.scene import LARGEST, SMALLEST, render
from zoobook.simulation.truth import MOST_GALAXIES, checked_seed, draw_truth
from zoobook.simulation.volunteers import vote

VERSION = 2  # to be raised when the same seed no longer gives the same galaxies, so that old files are not reused
CHUNK = 100  # galaxies made at a time by one process: about a second of work
FOLDER = 1000  # images in a sub-folder, at most
SERIAL = 1000  # up to so many galaxies, one process is done before others have started


def make_survey(
    root: str | os.PathLike, n_galaxies: int, image_size: int = 128, seed: int = 0, workers: int | None = None
) -> pd.DataFrame:
    """Make the simulated survey, or what is missing of it.

    Galaxy i is the same whatever ``n_galaxies`` and ``workers`` are. What is on disk already is reused: asking for more
    galaxies makes only the new ones, asking for fewer returns the first of them, and a run that was interrupted or
    killed goes on where it stopped. Files lie in ``{root}/simulated/{seed}-{image_size}-v2``.

    Args:
        root: folder to write to.
        n_galaxies: how many galaxies.
        image_size: pixels along a side, at least 16.
        seed: seed of the survey.
        workers: processes; all processor cores by default.

    Returns:
        DataFrame: a catalogue with ``id_str``, ``iauname``, ``ra``, ``dec`` [deg], ``file_loc`` (path of a PNG), the
        votes and concentrations of :func:`vote`, and the truth of :func:`draw_truth`.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; finished galaxies are kept.
    """
    n_galaxies, seed = arguments.whole("n_galaxies", n_galaxies, 1, MOST_GALAXIES), checked_seed(seed)
    image_size = arguments.whole("image_size", image_size, SMALLEST, LARGEST)
    workers = parallel.check_workers(workers)
    folder = arguments.path(root).resolve() / "simulated" / f"{seed}-{image_size}-v{VERSION}"
    wanted = [(start, min(CHUNK, n_galaxies - start)) for start in range(0, n_galaxies, CHUNK)]
    ensure_writable_dir(folder)
    with explain_full_disk(folder), FileLock(folder / ".lock"):
        missing = [chunk for chunk in wanted if _read(folder, *chunk) is None or _lacks_images(folder, *chunk, seed)]
        if missing:
            for left_over in folder.glob("*/**/*.part"):  # of a killed run
                left_over.unlink(missing_ok=True)
            _make(folder, missing, image_size, seed, workers)
    catalogue = pd.concat([_read(folder, *chunk) for chunk in wanted], ignore_index=True)
    catalogue.insert(4, "file_loc", [str(_image_path(folder, index, seed)) for index in catalogue["true_index"]])
    return catalogue


def _make(folder: Path, chunks: list[tuple[int, int]], image_size: int, seed: int, workers: int | None) -> None:
    """Make chunks, showing progress in galaxies."""
    from threadpoolctl import threadpool_limits

    total = sum(count for _, count in chunks)
    workers, tasks = workers or (1 if total <= SERIAL else None), [(folder, *one, image_size, seed) for one in chunks]
    # The matrices are small: several threads on one of them only wait for each other.
    with threadpool_limits(1), tqdm(total=total, desc="simulating galaxies", unit="galaxy") as bar:
        for done in parallel.each(_make_chunk, tasks, workers, in_order=False):
            bar.update(done)


def _make_chunk(folder: Path, start: int, count: int, image_size: int, seed: int) -> int:
    """Make what is missing of a chunk: images, then its table, whose presence says that it was complete once."""
    truth = draw_truth(count, seed, start)
    for galaxy in truth.to_dict("records"):
        save_picture(galaxy, _image_path(folder, galaxy["true_index"], seed), image_size, seed)
    if _read(folder, start, count) is not None:  # of more galaxies, perhaps
        return count
    names = pd.DataFrame({
        "id_str": [galaxy_id(index, seed) for index in truth["true_index"]],
        "iauname": iau_names(truth["true_ra"].to_numpy(), truth["true_dec"].to_numpy()),
        "ra": truth["true_ra"],
        "dec": truth["true_dec"],
    })
    table = pd.concat([names, vote(truth, seed), truth.drop(columns=["true_ra", "true_dec"])], axis=1)
    path = _table_path(folder, start)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as part:
        table.to_parquet(part, index=False, write_page_checksum=True)
    return count


def _read(folder: Path, start: int, count: int) -> pd.DataFrame | None:
    """The first galaxies of a chunk, or None where it has not been made, is damaged or has fewer."""
    try:
        table = pd.read_parquet(_table_path(folder, start), page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException):  # a computer that lost its power may leave an empty file
        return None
    return table.head(count) if len(table) >= count else None


def _lacks_images(folder: Path, start: int, count: int, seed: int) -> bool:
    return not all(_image_path(folder, index, seed).exists() for index in range(start, start + count))


def galaxy_id(index: int, seed: int) -> str:
    """The ``id_str`` of a simulated galaxy.

    >>> galaxy_id(42, seed=1)
    'sim1-0000042'
    """
    return f"sim{seed}-{index:07d}"


def save_picture(galaxy: dict, path: Path, image_size: int, seed: int) -> None:
    """Write the picture of a galaxy as a PNG, unless the file is there; see :func:`zoobook.simulation.render`."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        picture = Image.fromarray(render(galaxy, image_size, seed))
        picture.save(part, "png", compress_level=1, compress_type=zlib.Z_RLE)


def _image_path(folder: Path, index: int, seed: int) -> Path:
    return folder / "images" / f"{index // FOLDER:05d}" / f"{galaxy_id(index, seed)}.png"


def _table_path(folder: Path, start: int) -> Path:
    return folder / "tables" / f"{start:08d}.parquet"


def iau_names(ra: np.ndarray, dec: np.ndarray) -> list[str]:
    """Names of positions [deg], such as ``J000411.18+020924.1``: cut off, as the IAU asks (astropy rounds).

    >>> iau_names([1.0466], [2.1567])
    ['J000411.18+020924.1']
    """
    from astropy.coordinates import Angle

    right = Angle(np.floor(np.multiply(ra, 24000.0)) / 24000.0, "deg")
    above = Angle(np.trunc(np.multiply(dec, 36000.0)) / 36000.0, "deg")
    right = right.to_string("hourangle", sep="", precision=2, pad=True)
    above = above.to_string("deg", sep="", precision=1, pad=True, alwayssign=True)
    return [f"J{first}{second}" for first, second in zip(right, above, strict=True)]
