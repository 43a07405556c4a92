"""The settings of training and prediction: each is checked here, also before a command reads its first file."""

from collections.abc import Callable
from functools import partial
from typing import Any

from zoobook import arguments
from zoobook.images.views import ORIENTATIONS
from zoobook.learning.devices import PRECISIONS, count_nodes
from zoobook.votes import LOWEST

_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(
        ("epochs", "batch_size", "accumulate_grad_batches", "patience", "passes"), arguments.whole
    ),
    "seed": lambda _, number: arguments.seed(number),
    "orientations": partial(arguments.whole, most=ORIENTATIONS),
    "num_nodes": lambda _, number: count_nodes(number),
    "learning_rate": arguments.real,
    # Far below 0.01 numbers drawn from the distribution are 0 to a computer.
    "lowest": partial(
        arguments.real, accepted=lambda number: 0.01 <= number <= LOWEST, meaning="a number from 0.01 to 1"
    ),
    "photometric": arguments.truth,
    "resume": arguments.truth,
    "precision": partial(arguments.choice, known=("auto", *PRECISIONS)),
    "unfreeze": partial(arguments.choice, known=("head", "top", "all")),
}


def lowest_given(number: float | None) -> dict[str, float]:
    """What a head for votes, and the settings of its training, note of a lowest concentration, if one is given."""
    return {} if number is None else checked({"lowest": number})


def checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with their numbers as Python's own; a ``ValueError`` names one that makes no sense.

    >>> checked({"epochs": 3, "what": "train"})
    {'epochs': 3, 'what': 'train'}
    """
    return {name: _CHECKS[name](name, value) if name in _CHECKS else value for name, value in settings.items()}
