"""Damaged and hostile files of every kind: valid ones, changed at random, neither end the process, nor make it wait or
fill the memory, nor give something wrong without a word; what is said names the file.

Each kind is read in a process of its own, which the system ends if one file takes too long. Where a format has
checksums, what is read must be what was written; where it has none, it must at least be of the right form.
"""
import hashlib
import resource
import signal
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from toys import tarred, zipped

SECONDS = 20  # that one file may take
MEMORY = 3 << 30  # bytes that reading may take above what the process had
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame({
    "id_str": [f"J{i:04d}" for i in range(60)], "n": pd.array([None, *range(59)], "Int64"), "x": RNG.random(60),
    "word": ["ring", "bar", "nan"] * 20, "flag": RNG.random(60) > 0.5,
})  # fmt: skip
MEMBERS = {f"{i:03d}.png": RNG.bytes(900) + bytes(200) for i in range(5)}
HASHES: dict[str, str] = {}  # of tars as they were made


# ---- images


def picture(path: Path) -> None:
    from PIL import Image

    pixels = RNG.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    if path.name == "deep.png":
        pixels = pixels[..., 0].astype(np.uint16) * 257
    Image.fromarray(pixels).save(path, **({"compression": "tiff_lzw"} if path.suffix == ".tif" else {}))


def fits_image(path: Path) -> None:
    from astropy.io import fits

    planes = RNG.normal(5, 1, (3, 24, 24)).astype(np.float32)
    packed = [fits.PrimaryHDU(), fits.CompImageHDU(planes[0])]
    fits.HDUList(packed if path.suffix == ".fz" else [fits.PrimaryHDU(planes)]).writeto(path)


def read_image(path: Path):
    from zoobook.images import read_image

    image = read_image(path)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return image


# ---- tables


def table(path: Path) -> None:
    from astropy.table import Table

    if path.suffix == ".parquet":
        TABLE.to_parquet(path, write_page_checksum=True)
    elif path.suffix in (".fits", ".vot"):
        Table.from_pandas(TABLE).write(path, format={".vot": "votable"}.get(path.suffix, "fits"))
    else:
        TABLE.to_csv(path, index=False)


def read_table(path: Path):
    from zoobook import catalogs

    found = catalogs.read(path)
    assert found["id_str"].is_unique and found["id_str"].str.len().gt(0).all()
    return found


def shards(path: Path) -> None:
    from zoobook.catalogs.shards import ShardedTable

    features = pd.DataFrame(RNG.random((60, 6), np.float32), columns=[f"feat_{i}" for i in range(6)])
    sharded = ShardedTable(path.parent, 60, {"what": "represent"}, 40)
    for number, start, stop in sharded.missing():
        sharded.write(number, TABLE[["id_str"]].join(features)[start:stop])
    sharded.finish()


def read_shards(path: Path):
    from zoobook import representations
    from zoobook.catalogs import tables

    ids, features = representations.open(path.parent).read()
    columns = [f"feat_{i}" for i in range(6)]
    assert np.array_equal(tables.read(path.parent, columns).to_numpy(), features)
    return [ids, features]


# ---- weights


def weight_file(path: Path) -> None:
    from zoobook import weights

    spec = {"architecture": "test_efficientnet", "channels": 1, "image_size": 32, "dropout": 0.0, "tree": None,
            "field_of_view": 14.0, "head": None}  # fmt: skip
    weights.write(path, spec, {"encoder.a": RNG.random((7, 9)).astype("f4")}, data="toys")


def read_weights(path: Path):
    from zoobook import weights

    spec, tensors = weights.read(path)
    return [spec, tensors]


def torch_file(path: Path) -> None:
    torch = pytest.importorskip("torch")
    content = {"state_dict": {"a": torch.arange(40.0), "b": torch.ones(2, 3).T}, "hyper_parameters": {"lr": 0.5}}
    torch.save(content, path)


def read_torch(path: Path):
    from zoobook.weights import pytorch_file

    return pytorch_file.read(path)


def tensorflow_checkpoint(path: Path) -> None:
    from zoobook.weights import tensorflow_file

    end, value = bytes(4) + b"\1\0\0\0", np.arange(4, dtype="<f4").tobytes()
    masked = tensorflow_file._masked(tensorflow_file.checksum(value)).to_bytes(4, "little")
    entry = b"\x08\1\x12\4\x12\2\x08\4\x20\0\x28\x10\x35" + masked
    entries = b"\0\0\6" b"\x08\1\x1a\2\x08\1" + b"\0\1" + bytes([len(entry)]) + b"a" + entry + end
    index = b"\0\1\2b\0" + bytes([len(entries)]) + end
    footer = (b"\0\0" + bytes([len(entries) + 5, len(index)])).ljust(40, b"\0")
    content = entries + bytes(5) + index + bytes(5) + footer + tensorflow_file._MAGIC.to_bytes(8, "little")
    (path.parent / "c.index").write_bytes(content)
    (path.parent / "c.data-00000-of-00001").write_bytes(value)


def read_tensorflow(path: Path):
    from zoobook.weights import tensorflow_file

    return tensorflow_file.read(path.parent / "c")


# ---- archives, stores, labels


def archive(path: Path) -> None:
    if path.suffix == ".zip":
        path.write_bytes(zipped(MEMBERS, kinds=(zipfile.ZIP_DEFLATED,)))
    else:
        path.write_bytes(tarred(MEMBERS, "w:gz" if path.suffix == ".gz" else "w"))
        HASHES[path.name] = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def read_archive(path: Path):
    from zoobook.datasets.archives import images_for
    from zoobook.datasets.download import RemoteFile

    for left in path.parent.glob("*.png"):
        left.unlink()
    wanted = pd.DataFrame({"id_str": [name.removesuffix(".png") for name in MEMBERS]})
    file = RemoteFile("http://nowhere.invalid/x", path.name, hash=HASHES.get(path.name))
    have, _ = images_for(wanted, [file], path.parent, "{id_str}.png", download=False)
    inside = {found.name for found in path.parent.rglob("*") if found.is_file() and not found.name.startswith(".")}
    assert inside <= {*MEMBERS, path.name}
    contents = {Path(found).name: Path(found).read_bytes() for found in have["file_loc"]}
    if path.suffix == ".zip":  # has checksums of contents, though not of names
        assert set(contents.values()) <= set(MEMBERS.values())
    return contents


def store(path: Path) -> None:
    from zoobook.images import ImageStore

    files = [path.parent / f"{i}.png" for i in range(4)]
    for file in files:
        picture(file)
    ImageStore.build(pd.DataFrame({"id_str": list("abcd"), "file_loc": list(map(str, files))}), path, 16)


def read_store(path: Path):
    from zoobook.images import ImageStore

    opened = ImageStore.open(path)
    opened.check()
    return [opened.ids, np.array(opened.pixels), opened.size, opened.framing]


def labels(path: Path) -> None:
    from zoobook.label import LabelFile

    file = LabelFile(path, "ring", ["ring", "none"], list("abc"))
    for galaxy in "abc":
        file.add(galaxy, "ring")
    file.close()


def read_labels(path: Path):
    from zoobook import label

    return label.table(path)


KINDS = {  # how valid files are made, which is then changed, how it is read, whether its format tells of changes
    "png": (picture, "a.png", read_image, True),
    "deep.png": (picture, "deep.png", read_image, True),
    "jpg": (picture, "a.jpg", read_image, False),
    "tif": (picture, "a.tif", read_image, False),
    "fits": (fits_image, "a.fits", read_image, False),
    "fits.gz": (fits_image, "a.fits.gz", read_image, True),
    "fits.fz": (fits_image, "a.fits.fz", read_image, False),
    "csv": (table, "t.csv", read_table, False),
    "csv.gz": (table, "t.csv.gz", read_table, True),
    "parquet": (table, "t.parquet", read_table, False),
    "table.fits": (table, "t.fits", read_table, False),
    "votable": (table, "t.vot", read_table, False),
    "shard": (shards, "00000.parquet", read_shards, False),
    "manifest": (shards, "_manifest.json", read_shards, True),
    "safetensors": (weight_file, "w.safetensors", read_weights, True),
    "ckpt": (torch_file, "t.ckpt", read_torch, True),
    "checkpoint index": (tensorflow_checkpoint, "c.index", read_tensorflow, False),
    "checkpoint data": (tensorflow_checkpoint, "c.data-00000-of-00001", read_tensorflow, True),
    "zip": (archive, "x.zip", read_archive, False),
    "tar": (archive, "x.tar", read_archive, True),
    "tar.gz": (archive, "x.tar.gz", read_archive, True),
    "store": (store, "s.arrow", read_store, True),
    "labels": (labels, "l.jsonl", read_labels, False),
}

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["bit", "byte", "cut", "delete", "insert", "repeat", "zeros"]),
        st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.integers(1, 64),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


def changed(content: bytes, changes: list[tuple]) -> bytes:
    for how, where, value, count in changes:
        at = int(where * len(content))
        before, after = content[:at], content[at:]
        content = {
            "bit": before + bytes(a ^ 1 << value % 8 for a in after[:1]) + after[1:],
            "byte": before + bytes([value])[: len(after)] + after[1:],
            "cut": before,
            "delete": before + after[count:],
            "insert": before + bytes([value]) * count + after,
            "repeat": before + after[:count] * 2 + after[count:],
            "zeros": before + bytes(min(count, len(after))) + after[count:],
        }[how]
    return content


def digest(found) -> str:
    if isinstance(found, dict):
        found = [[str(key), digest(value)] for key, value in found.items()]
    elif isinstance(found, list):
        found = [digest(value) for value in found]
    elif isinstance(found, np.ndarray):
        found = [str(found.dtype), found.shape, found.tolist()]
    elif isinstance(found, pd.DataFrame):
        found = found.to_csv()
    return hashlib.sha256(repr(found).encode()).hexdigest()


def hammer(name: str, examples: int, folder: Path, number: int) -> None:
    """Read so many changed files of one kind; whatever must not be ends the process."""
    make, file, read, checked = KINDS[name]
    path = folder / file
    make(path)
    content, right = path.read_bytes(), digest(read(path))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    outcomes = {"read": 0, "refused": 0}

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(CHANGES)
    def one(changes):
        bad = changed(content, changes)
        path.unlink(missing_ok=True)  # what was mapped of the last one stays as it was
        path.write_bytes(bad)
        signal.alarm(SECONDS)  # ends the process
        try:
            found = digest(read(path))
        except (ValueError, OSError) as error:
            named = path.name in str(error) or path.parent.name in str(error)  # a folder is read as one table
            assert named and type(error) is not UnicodeDecodeError, repr(error)
            outcomes["refused"] += 1
        else:
            assert not checked or found == right, "something else was read, without a word"
            outcomes["read"] += 1
        finally:
            signal.alarm(0)

    one()
    print(name, outcomes)


@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory as Linux does")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("examples", [
    pytest.param(14, id="quick"), pytest.param(460, id="many", marks=pytest.mark.nightly),
])  # fmt: skip
def test_changed_files(name, examples, tmp_path):
    if name == "ckpt":
        pytest.importorskip("torch")
    command = [sys.executable, __file__, name, str(examples), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 2 * examples)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-3000:]}"
    assert "refused" in done.stdout


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    hammer(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]) if sys.argv[4:] else 0)
