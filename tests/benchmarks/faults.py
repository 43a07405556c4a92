"""What becomes of finished work when the machine fails, written down in a results file that the book shows.

    python tests/benchmarks/faults.py [--kills 20] [--only survey download] [--out FILE]

As root on Linux, because it mounts small file systems; `faketime` must be installed. Five kinds of work (a survey, a
store, a training, predictions, a download; what needs a framework, in both) are each killed, run on a full and on a
read-only disk, by two processes at once and with the clock set back; files are cut short and single bits of them
turned. After every fault the same work is called again, and must end with the same bytes as undisturbed work.
"""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from server import Server  # noqa: E402

RESULTS = Path(__file__).parent / "results"
GALAXIES, SIDE, EPOCHS = 480, 48, 6
ROOM = 1 << 30  # bytes of a disk that is large enough: a training keeps its last state beside its best weights
WORK = (
    "survey", "store", "train (PyTorch)", "train (TensorFlow)", "predict (PyTorch)", "predict (TensorFlow)", "download",
)  # fmt: skip
FILES = ("weight file", "image store", "shard")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


# ---- the child: one kind of work, in a folder


def do(work: str, folder: Path, inputs: Path) -> None:
    """Do one kind of work; it is whole where the process ends with 0."""
    import pandas as pd

    import zoobook
    from zoobook import catalogs, simulation, trees, weights
    from zoobook.datasets.download import RemoteFile, fetch
    from zoobook.images import ImageStore

    work, _, framework = work.rstrip(")").partition(" (")
    framework = framework.lower() or "pytorch"
    twin = zoobook.load_framework(framework)
    _ = twin.train  # its imports are not what is to be killed
    tree = trees.load("decals_dr5")
    print("ready", flush=True)
    if work == "survey":
        simulation.make_survey(folder, GALAXIES, image_size=SIDE, seed=5, workers=1)
    elif work == "store":
        ImageStore.build(pd.read_parquet(inputs / "catalog.parquet"), folder / "store.arrow", size=SIDE)
    elif work == "download":
        note = json.loads((inputs / "served.json").read_text())
        fetch([RemoteFile(note["url"], "file.bin", note["bytes"], note["sha256"])], folder, "a test")
    else:
        store = ImageStore.open(inputs / "store.arrow")
        if work == "train":
            catalog = catalogs.split(pd.read_parquet(inputs / "catalog.parquet"))
            twin.train(
                store, catalog, tree, architecture="test_efficientnet", epochs=EPOCHS, batch_size=64, devices="cpu",
                out_dir=folder / "run",
            )  # fmt: skip
        else:
            model = weights.load(inputs / "run" / "best.safetensors", framework)
            twin.predict(model, store, out=folder / "table", devices="cpu")


def digest(work: str, folder: Path) -> str:
    """Of what the work has made, apart from times."""
    import pandas as pd

    from zoobook.files import fingerprint
    from zoobook.weights.neutral_file import read

    if work.startswith("train"):
        history = pd.read_csv(folder / "run" / "history.csv").drop(columns="seconds").to_csv(index=False)
        _, tensors = read(folder / "run")  # the order in which the file describes itself is not fixed
        return fingerprint(history, sorted(tensors), *(tensors[name] for name in sorted(tensors)))
    if work.startswith("predict"):
        return hashlib.sha256(pd.read_parquet(folder / "table").to_csv(index=False).encode()).hexdigest()
    kept = [f for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.startswith(".") and f.suffix != ".lock"]
    total = hashlib.sha256()
    for file in kept:
        total.update(str(file.relative_to(folder)).encode())
        total.update(pd.read_parquet(file).to_csv().encode() if file.suffix == ".parquet" else file.read_bytes())
    return total.hexdigest()


def finished(work: str, folder: Path) -> dict:
    """The pieces that are done, each with what changes if it is done again."""
    import pandas as pd

    if work.startswith("train"):
        history = folder / "run" / "history.csv"
        # The state of the last epoch may not be on the disk yet; then that epoch is repeated, with the same result.
        return dict(pd.read_csv(history)[["epoch", "seconds"]].to_numpy()[:-1].tolist()) if history.exists() else {}
    patterns = {"survey": "**/*.png", "predict": "table/*.parquet", "store": "store.arrow", "download": "file.bin"}
    pattern = patterns[work.split()[0]]
    return {str(file): file.stat().st_mtime_ns for file in folder.glob(pattern)}


# ---- the parent


def start(work: str, folder: Path, inputs: Path, before: tuple[str, ...] = ()) -> subprocess.Popen:
    """A process that does the work, which has got through its imports."""
    command = [*before, sys.executable, __file__, "--do", work, str(folder), str(inputs)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )
    for line in child.stdout:
        if line.startswith("ready"):
            break
    return child


def end(child: subprocess.Popen) -> str:
    """Wait; what went wrong in one line, or nothing."""
    _, errors = child.communicate(timeout=600)
    if child.returncode == 0:
        return ""
    last = [line for line in errors.strip().splitlines() if line.startswith("Error: ")]
    return last[-1].removeprefix("Error: ") if last else f"TRACEBACK {errors[-600:]}"


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A file system of its own in memory, of so many bytes."""
    folder = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def remount(folder: Path, options: str) -> None:
    """Change a mounted file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


class Campaign:
    """Runs the faults and keeps a row for each, beside those that the results file has of other work."""

    def __init__(self, inputs: Path, scratch: Path, kills: int, out: Path, seed: int = 0):
        self.inputs, self.scratch, self.kills, self.out = inputs, scratch, kills, out
        self.draw, self.rows = random.Random(seed), []
        self.before = json.loads(out.read_text())["rows"] if out.exists() else []

    def note(self, work: str, fault: str, times: int, lost: int, wrong: int, message: str = "") -> None:
        """Keep a row, and show it."""
        message = message.replace(str(self.scratch), "…").replace(str(self.inputs), "…").strip()
        self.rows.append({"work": work, "fault": fault, "times": times, "lost": lost, "wrong": wrong, "said": message})
        print(self.rows[-1], flush=True)
        again = {row["work"] for row in self.rows}
        rows = [row for row in self.before if row["work"] not in again] + self.rows
        rows.sort(key=lambda row: [*WORK, *FILES].index(row["work"]))
        self.out.write_text(json.dumps({"date": str(date.today()), "rows": rows}, indent=1))

    def again(self, work: str, folder: Path, right: str, *before: str) -> tuple[int, int]:
        """Do it to the end: pieces done again that were done, and whether the outcome differs."""
        had = finished(work, folder)
        said = end(start(work, folder, self.inputs, before))
        now = {} if said else finished(work, folder)
        if said:
            print("after the fault:", said)
        lost = sum(now.get(piece) != token for piece, token in had.items())
        return lost, int(bool(said) or digest(work, folder) != right)

    def stopped(self, work: str, fault: str, folder: Path, right: str, said: str) -> None:
        """Note a fault that must have stopped the work with a message; what stood in the way is gone now."""
        lost, wrong = self.again(work, folder, right)
        self.note(work, fault, 1, lost, wrong + (not said or "TRACEBACK" in said), said.replace(str(folder), "…"))

    def run(self, work: str) -> None:
        """Every fault of the machine on one kind of work."""
        whole = self.scratch / f"{work}-whole"
        whole.mkdir()
        began = time.monotonic()
        child = start(work, whole, self.inputs)
        began = time.monotonic()
        if said := end(child):
            raise SystemExit(f"{work} fails undisturbed: {said}")
        seconds, right = time.monotonic() - began, digest(work, whole)
        size = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())

        lost = wrong = 0
        for number in range(self.kills):
            folder = self.scratch / f"{work}-kill-{number}"
            folder.mkdir()
            child = start(work, folder, self.inputs)
            time.sleep(self.draw.uniform(0, seconds))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            more = self.again(work, folder, right)
            lost, wrong = lost + more[0], wrong + more[1]
            shutil.rmtree(folder)
        self.note(work, "killed (kill -9)", self.kills, lost, wrong)

        with small_disk(size // 2) as folder:
            said = end(start(work, folder, self.inputs))
            remount(folder, f"size={ROOM}")
            self.stopped(work, "disk full", folder, right, said)
        with small_disk(ROOM) as folder:
            remount(folder, "ro")
            said = end(start(work, folder, self.inputs))
            remount(folder, "rw")
            self.stopped(work, "read-only disk", folder, right, said)

        folder = self.scratch / f"{work}-two"
        folder.mkdir()
        said = [end(child) for child in [start(work, folder, self.inputs) for _ in range(2)]]
        lost, wrong = self.again(work, folder, right)
        wrong += all(said) or any("TRACEBACK" in one for one in said)
        self.note(work, "two processes at once", 1, lost, wrong, " ".join(said))

        folder = self.scratch / f"{work}-clock"
        folder.mkdir()
        child = start(work, folder, self.inputs)
        time.sleep(seconds / 2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        self.note(work, "clock set back by 3 days", 1, *self.again(work, folder, right, "faketime", "-f", "-3d"))

    def damage(self, name: str, file: Path, read, flips: int = 40) -> None:
        """Cut a file short at ten places, and turn single bits of it: it is refused, or read with the same result."""
        data, right = file.read_bytes(), read(file)
        cases = {"cut short": [data[: self.draw.randrange(len(data))] for _ in range(10)], "one bit turned": []}
        for _ in range(flips):
            place = self.draw.randrange(len(data))
            turned = bytes([data[place] ^ 1 << self.draw.randrange(8)])
            cases["one bit turned"].append(data[:place] + turned + data[place + 1 :])
        for fault, damaged in cases.items():
            wrong, said = 0, ""
            for content in damaged:
                file.write_bytes(content)
                try:
                    wrong += read(file) != right
                except (ValueError, OSError) as error:
                    said = str(error)
                except Exception as error:  # noqa: BLE001  what people should never see
                    wrong, said = wrong + 1, f"TRACEBACK {error!r}"
            self.note(name, fault, len(damaged), 0, wrong, said)
        file.write_bytes(data)


def read_weights(file: Path) -> str:
    """Digest of a model's answers."""
    import torch

    from zoobook import weights

    model = weights.load(file, "pytorch").eval()
    with torch.no_grad():
        return hashlib.sha256(model(torch.full((1, 1, SIDE, SIDE), 0.3)).numpy().tobytes()).hexdigest()


def read_store(file: Path) -> str:
    """Digest of a store's images, read as training and prediction read them."""
    from zoobook.images import ImageStore

    store = ImageStore.open(file)
    store.check()
    return hashlib.sha256(store.pixels.tobytes() + "".join(store.ids).encode()).hexdigest()


def read_shard(file: Path) -> str:
    """Digest of a table of predictions, of which the columns are asked for by name, as whoever reads one does."""
    from zoobook import trees
    from zoobook.catalogs import tables

    columns = ["id_str", *(f"{column}_concentration" for column in trees.load("decals_dr5").label_columns)]
    return hashlib.sha256(tables.read(file.parent, columns).to_csv().encode()).hexdigest()


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=[*WORK, "damage"])
    parser.add_argument("--out", type=Path, default=RESULTS / f"faults-{date.today()}.json")
    parser.add_argument("--do", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.do:
        try:
            do(chosen.do[0], *map(Path, chosen.do[1:]))
        except (ValueError, OSError) as error:
            print(f"Error: {error}".replace("\n", " "), file=sys.stderr)
            raise SystemExit(1) from None
        return
    if not shutil.which("faketime"):
        raise SystemExit("faketime is not installed")
    from zoobook import simulation

    scratch, inputs = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    content = random.Random(1).randbytes(24 << 20)
    server = Server()
    server.files["file.bin"] = content
    server.piece, server.pace = 1 << 20, 0.04  # within a second, not at once, so that there is time to be killed
    simulation.make_survey(inputs, GALAXIES, image_size=SIDE, seed=5).to_parquet(inputs / "catalog.parquet")
    (inputs / "served.json").write_text(json.dumps({
        "url": f"{server.url}file.bin", "bytes": len(content),
        "sha256": "sha256:" + hashlib.sha256(content).hexdigest(),
    }))  # fmt: skip
    for work in ("store", "train (PyTorch)"):  # what later work needs
        if said := end(start(work, inputs, inputs)):
            raise SystemExit(said)
    campaign = Campaign(inputs, scratch, chosen.kills, chosen.out)
    for work in WORK:
        if work in chosen.only:
            campaign.run(work)
    if "damage" in chosen.only:
        if said := end(start("predict (PyTorch)", inputs, inputs)):
            raise SystemExit(said)
        places = inputs / "run" / "best.safetensors", inputs / "store.arrow", inputs / "table" / "00000.parquet"
        for name, file, read in zip(FILES, places, (read_weights, read_store, read_shard), strict=True):
            campaign.damage(name, file, read)
    shutil.rmtree(scratch)
    shutil.rmtree(inputs)


if __name__ == "__main__":
    main()
