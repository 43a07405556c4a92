"""The simulated survey: galaxies with known truth, their pictures, and volunteers who vote on them.

Each galaxy draws physical parameters (:func:`draw_truth`), is pictured as a GZ DECaLS cutout (:func:`render`), and is
judged by simulated volunteers (:func:`vote`) whose answers come from known Dirichlet concentrations
(:func:`concentrations`), so that the best score any model can reach is known too. :func:`make_survey` puts it all on
disk as a catalogue.
"""
from zoobook.simulation.mosaic import make_mosaic
from zoobook.simulation.scene import noise_free, render
from zoobook.simulation.survey import VERSION, make_survey
from zoobook.simulation.truth import draw_truth
from zoobook.simulation.volunteers import concentrations, rare_probabilities, visibility, vote

__all__ = [
    "VERSION", "concentrations", "draw_truth", "make_mosaic", "make_survey", "noise_free", "rare_probabilities",
    "render", "visibility", "vote",
]  # fmt: skip
