"""The loss of the decision tree: how unlikely the votes are, given the concentrations that the model predicts."""

from functools import lru_cache
from typing import Any

import numpy as np

from zoobook.learning.engine import Twin
from zoobook.trees import DecisionTree


def dirichlet_multinomial_nll(twin: Twin, concentrations: Any, votes: Any, tree: DecisionTree) -> Any:
    """Negative log-likelihood of the votes on each question, under the Dirichlet-multinomial distribution.

    The loss of Walmsley et al. 2022 (MNRAS 509, 3966). For N votes on a question, k on each answer, and
    concentrations a that add up to A::

        -log P = lgamma(N + A) - lgamma(A) - lgamma(N + 1) - sum(lgamma(k + a) - lgamma(a) - lgamma(k + 1))

    Add up over questions and average over galaxies to get a training loss. A question without votes gives exactly 0,
    and exactly no gradient. Whatever the input, the arithmetic is in float64: it is a few numbers per galaxy, and
    differences of ``lgamma`` lose every digit of float32 at large counts.

    Args:
        concentrations: tensor [N, A] of Dirichlet concentrations, above 0, in the order of ``tree.label_columns``.
        votes: tensor [N, A] of vote counts, of any real or integer type.
        tree: the decision tree that says which columns belong to which question.

    Returns:
        Tensor: [N, Q] in nats, in the order of ``tree.questions``; float64 for float64 concentrations, else float32.

    Raises:
        ValueError: the shapes do not fit one another or the tree.
    """
    answers = len(tree.label_columns)
    one, other = list(concentrations.shape), list(votes.shape)
    fits = len(one) == len(other) == 2 and one[1] == other[1] == answers
    if not fits or (one[0] != other[0] and None not in (one[0], other[0])):  # None: a size that a graph leaves open
        raise ValueError(
            f"concentrations {one} and votes {other} must both have the shape "
            f"[galaxies, {answers}] for tree {tree.name!r}, one column an answer"
        )
    return twin.losses.nll(concentrations, votes, tree)


@lru_cache(maxsize=64)
def question_sums(groups: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two float64 matrices that add up answers, for a tree's ``index_groups``.

    [A, A + Q] puts beside the answers their sums, question by question; [A + Q, Q] gives this sum less its answers.
    """
    answers, questions = np.eye(groups[-1][1]), np.eye(len(groups))
    member = questions.repeat([stop - start for start, stop in groups], axis=0)
    return np.concatenate((answers, member), axis=1), np.concatenate((-member, questions))
