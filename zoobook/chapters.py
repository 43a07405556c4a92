"""What the chapters share: their three parameters, the size of each scale, the galaxies, and measured results."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

import zoobook
from zoobook import catalogs, datasets, parallel, simulation, trees, weights
from zoobook.datasets import published
from zoobook.files import clear_parts, ensure_writable_dir, fingerprint, replacing
from zoobook.images import ImageStore
from zoobook.learning.devices import tune_malloc
from zoobook.simulation.survey import galaxy_id, save_picture

TREE = "decals_dr5"
ENCODER = "simulated_efficientnet_b0"  # the network that comes with zoobook
FIELD_OF_VIEW = 8.5  # [R50] half of a DECaLS stamp, of which the rest is mostly sky
RING_SEED = 1
SKY_SEED, SKY_PIXEL = 8, 0.7  # [arcsec] of the capstone's sky
PUBLISHED = "gz_decals_volunteers_5"  # real galaxies with votes on that tree, and with images
FEW_LABELS_SPLIT = (0.35, 0.1, 0.55)  # of a few hundred new labels most are for the test, so that its errors are small

_glued: dict[str, tuple[float | str, str]] = {}  # name to value and text, of this run
_unsaid: list[str] = []  # paragraphs with numbers that come later


@dataclass(frozen=True)
class Scale:
    """How large a chapter's work is."""

    galaxies: int  #: size of the simulated survey
    image_size: int  #: side of its images in pixels, of which the network that comes with zoobook sees half
    view_size: int  #: side of what the network of chapter 2 sees of them, in pixels
    epochs: int  #: of training from scratch
    batch_size: int  #: galaxies in a training step
    ring_galaxies: int  #: how many new galaxies are voted on, to find rings among them
    finetuning_epochs: int  #: of fine-tuning, whatever is frozen of the encoder


SCALES = {
    "quick": Scale(
        galaxies=6000, image_size=128, view_size=48, epochs=11, batch_size=64, ring_galaxies=16_000,
        finetuning_epochs=9,
    ),
    "full": Scale(
        galaxies=50_000, image_size=128, view_size=64, epochs=30, batch_size=256, ring_galaxies=60_000,
        finetuning_epochs=20,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run of a chapter, made by :func:`begin`."""

    framework: str  #: ``"pytorch"`` or ``"tensorflow"``
    dataset: str  #: a data set's name, or the path of one's own
    scale: Scale  #: the size of the work

    def survey(self) -> tuple[pd.DataFrame, ImageStore]:
        """The galaxies with votes, split, and their images.

        Returns:
            tuple: the catalogue, with ``subset``, and its ImageStore.

        Raises:
            ValueError: the data set has no votes.
        """
        if self.dataset == "simulated":
            catalog = datasets.load("simulated", n_galaxies=self.scale.galaxies, image_size=self.scale.image_size)
        elif self.dataset == "rings":
            raise ValueError(
                "the ring catalogue has ring labels but no votes on the decision tree: run this chapter with "
                'dataset = "simulated", or with the path of a catalogue that has the vote counts of decals_dr5'
            )
        elif self.dataset == PUBLISHED:
            names = datasets.load(PUBLISHED, columns=["id_str"])
            sample = published.sample_runs(names, self.scale.galaxies)
            catalog = datasets.load(PUBLISHED, ids=names["id_str"].iloc[sample], images=True)
        else:
            catalog = catalogs.read(self.dataset, trees.load(TREE))
        return self._with_images(catalogs.split(catalog))

    def rings(self) -> tuple[pd.DataFrame, ImageStore]:
        """The galaxies labelled as rings or not, split, and their images.

        For the simulated survey these are new galaxies, labelled from votes; only those with a label get an image.

        Returns:
            tuple: the catalogue, with ``ring`` and ``subset``, and its ImageStore.
        """
        if self.dataset == "simulated":
            truth = simulation.draw_truth(self.scale.ring_galaxies, RING_SEED)
            ids = [galaxy_id(index, RING_SEED) for index in truth["true_index"]]
            voted = pd.concat([pd.DataFrame({"id_str": ids}), simulation.vote(truth, RING_SEED), truth], axis=1)
            labelled = catalogs.ring_labels(voted, rule="advanced", balance=True).reset_index(drop=True)
            labelled["file_loc"] = _render_missing(labelled, self.scale.image_size, RING_SEED)
            return self._with_images(catalogs.split(labelled, FEW_LABELS_SPLIT))
        root = os.environ.get("ZOOBOOK_RINGS_ROOT") if self.dataset == "rings" else self.dataset
        return self._with_images(catalogs.split(datasets.load("rings", root=root)))

    def sky(self) -> tuple[list[Path], pd.DataFrame | None]:
        """A picture of the sky, to make a survey of: a third as many galaxies as :meth:`survey` has.

        Returns:
            tuple: its FITS files; and the truth, a table of :func:`~zoobook.simulation.make_mosaic`, which a real sky
            has not (``None``): then the data set is a file, or a folder of them.
        """
        if self.dataset != "simulated":
            place = Path(self.dataset).expanduser()
            return (sorted(place.glob("*.fit*")) if place.is_dir() else [place]), None
        number = self.scale.galaxies // 3
        key = fingerprint(simulation.VERSION, number, SKY_SEED, SKY_PIXEL)[:8]
        folder = ensure_writable_dir(datasets.home() / "chapters" / f"sky-{key}")
        truth, files = folder / "truth.parquet", [folder / f"sky_{band}.fits" for band in "grz"]
        with FileLock(folder / ".lock"):  # the chapter may run in both frameworks at once
            if not truth.exists():  # it is written last
                clear_parts(folder)  # of a killed run
                sky = simulation.make_mosaic(folder, number, SKY_PIXEL, seed=SKY_SEED)
                with replacing(truth) as part:
                    sky.galaxies.to_parquet(part)
        return files, pd.read_parquet(truth)

    def training(self) -> dict:
        """The settings of chapter 2's training, as ``train`` takes them."""
        return {
            "architecture": "efficientnet_b0", "channels": 1, "image_size": self.scale.view_size,
            "field_of_view": FIELD_OF_VIEW, "epochs": self.scale.epochs, "batch_size": self.scale.batch_size,
            "learning_rate": 2e-3, "patience": 8, "seed": 0,
        }  # fmt: skip

    def folder(self, name: str) -> Path:
        """A folder for something that this run keeps; another one where anything differs that it depends on.

        Args:
            name: of the folder.

        Returns:
            Path: below the data home, so never in the book's own folder.
        """
        config = [zoobook.__version__, simulation.VERSION, self.dataset, vars(self.scale), self.training()]
        key = fingerprint(*config, np.fromfile(weights.find_shipped(ENCODER), np.uint8))[:8]
        return ensure_writable_dir(datasets.home() / "chapters" / f"{self.framework}-{key}" / name)

    def _with_images(self, catalog: pd.DataFrame) -> tuple[pd.DataFrame, ImageStore]:
        size, framing = self.scale.image_size, datasets.framing(self.dataset)
        store = datasets.build_store(catalog, size, framing=framing, bad="quarantine")
        if len(store.quarantine):  # among many thousand images one may be blank, which is no reason to stop
            first = store.quarantine.iloc[0]
            print(
                f"left out: {len(store.quarantine):,} of {len(catalog):,} galaxies, whose images cannot be used, such "
                f"as {first['file_loc']}: {first['cause']}. All are listed in {store.path}.quarantine.parquet."
            )
            catalog = catalog[catalog["id_str"].isin(store.ids)].reset_index(drop=True)
        return catalog, store


def begin(framework: str, dataset: str, scale: str) -> Run:
    """Check a chapter's parameters and print what it will run on.

    Args:
        framework: ``"pytorch"`` or ``"tensorflow"``.
        dataset: ``"simulated"``, ``"rings"``, ``"gz_decals_volunteers_5"``, or the path of one's own catalogue.
        scale: ``"quick"`` or ``"full"``.

    Returns:
        Run: it gives the galaxies, their images and the settings.
    """
    if framework not in zoobook.FRAMEWORKS:
        raise ValueError(f"unknown framework {framework!r}: choose {' or '.join(map(repr, zoobook.FRAMEWORKS))}")
    if scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}: choose {' or '.join(map(repr, SCALES))}")
    if dataset not in ("simulated", "rings", PUBLISHED) and not Path(dataset).expanduser().exists():
        raise ValueError(
            f"unknown dataset {dataset!r}: choose 'simulated', 'rings' or {PUBLISHED!r}, or give the path of your "
            "own catalogue"
        )
    tune_malloc()  # before anything large is computed, so that prediction profits as well as training
    size = SCALES[scale]
    print(
        f"zoobook {zoobook.__version__}: {framework}, {dataset} galaxies, {scale} scale "
        f"({size.galaxies:,} galaxies of {size.image_size} px)"
    )
    return Run(framework, dataset, size)


def results(name: str) -> dict:
    """What was measured of the network that comes with zoobook, by programs that take too long for a page.

    Args:
        name: ``"training"``: how it was trained and what it learned; ``"real"``: how good it is on real galaxies;
            ``"knobs"``: which choices matter when it learns something new.
            ``"loop"``: labels asked at random and by the loop; ``"arms"``: how well arms can be counted at all.

    Returns:
        dict: the content of the file that lies beside the weights.
    """
    return json.loads(weights.find_shipped(ENCODER).with_name(f"{name}.json").read_text("utf8"))


def measured_with(found: dict) -> str:
    """Which network such results are of, told by its SHA-256: that in the package, or an earlier one.

    Args:
        found: what :func:`results` gave.

    Returns:
        str: such as ``"the network in the package (aab05175)"``.
    """
    own = found["weights"]["sha256"]
    now = hashlib.sha256(weights.find_shipped(ENCODER).read_bytes()).hexdigest()
    if own == now:
        return f"the network in the package ({now[:8]})"
    return f"an earlier network ({own[:8]}), not the one in the package ({now[:8]})"


def needs_both_frameworks() -> None:
    """Where a framework is not installed, say so and end the chapter: the cells that follow do nothing."""
    missing = [name for name, package in zoobook.FRAMEWORKS.items() if find_spec(package) is None]
    if missing:
        from IPython import get_ipython

        print(
            f"This chapter uses both frameworks, and {missing[0]} is not installed. The cells below do nothing.\n"
            f'To run them: pip install "zoobook[{missing[0]}]", restart the kernel, and start again.'
        )
        get_ipython().input_transformers_cleanup.insert(0, lambda lines: [])


def glue(name: str, value: float | str, text: str | None = None) -> None:
    """Store a result under a name, so that the text of the page can quote it and a test can check it.

    The output has the form of papermill's and MyST-NB's glue, but needs neither.

    Args:
        name: how the text refers to it.
        value: a number or a text.
        text: how it is written in the page; default: ``str(value)``.
    """
    from IPython.display import display

    text = str(value) if text is None else text
    _glued[name] = (value, text)
    plain = repr(text)  # MyST-NB evaluates it: a bare 4,152 would become (4, 152)
    prefix = "application/papermill.record/"
    display(
        {f"{prefix}text/plain": plain, f"{prefix}application/json": json.dumps(value)},  # nbformat wants text
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
        raw=True,
    )


def own_numbers(text: str) -> None:
    """Show sentences of the page again, with the numbers of this run. Notebooks call it after text with numbers.

    Args:
        text: Markdown in paragraphs, in which ``{{name}}`` or ``{{name:.2f}}`` stands for what was glued under that
            name. A paragraph with numbers that come further down is shown by the next call that has them.
    """
    from IPython.display import Markdown, display

    number = re.compile(r"\{\{([^{}:]+):?([^{}]*)\}\}")

    def own(match: re.Match) -> str:
        value, written = _glued[match[1]]
        return f"**{format(value, match[2]) if match[2] else written}**"

    _unsaid.extend(part for part in text.strip().split("\n\n") if part not in _unsaid)
    ready = [part for part in _unsaid if all(name in _glued for name, _ in number.findall(part))]
    _unsaid[:] = [part for part in _unsaid if part not in ready]
    if ready:
        display(Markdown("\n\n".join(number.sub(own, part) for part in ready)))
    else:
        print("The cells that measure this come further down.")


def _render_missing(catalog: pd.DataFrame, size: int, seed: int) -> list[str]:
    """Paths of the images of simulated galaxies; those that are not on disk are made."""
    folder = ensure_writable_dir(datasets.home() / "chapters" / f"pictures-{seed}-{size}-v{simulation.VERSION}")
    files = [folder / f"{name}.png" for name in catalog["id_str"]]
    galaxies = zip(catalog.to_dict("records"), files, strict=True)
    tasks = [(galaxy, file, size, seed) for galaxy, file in galaxies if not file.exists()]
    list(parallel.each(save_picture, tasks))
    return list(map(str, files))
