"""The loss of the decision tree: how unlikely the votes are, given the concentrations that the model predicts."""
from __future__ import annotations

import numpy as np
import tensorflow as tf

from zoobook.trees import DecisionTree


def dirichlet_multinomial_nll(concentrations: tf.Tensor, votes: tf.Tensor, tree: DecisionTree) -> tf.Tensor:
    """Negative log-likelihood of the votes on each question, under the Dirichlet-multinomial distribution.

    The loss of Walmsley et al. 2022 (MNRAS 509, 3966). For N votes on a question, k on each answer, and
    concentrations a that add up to A::

        -log P = lgamma(N + A) - lgamma(A) - lgamma(N + 1) - sum(lgamma(k + a) - lgamma(a) - lgamma(k + 1))

    Add up over questions and average over galaxies to get a training loss. Whatever the precision of the input, also
    under mixed precision, the arithmetic is in float64: it is a few numbers per galaxy, and differences of ``lgamma``
    lose every digit of float32 at large counts. A question without votes gives exactly 0, and exactly no gradient.

    Args:
        concentrations: [N, A] Dirichlet concentrations, above 0, in the order of ``tree.label_columns``.
        votes: [N, A] vote counts, of any real or integer type.
        tree: the decision tree that says which columns belong to which question.

    Returns:
        Tensor: [N, Q] in nats, in the order of ``tree.questions``; float64 for float64 concentrations, else float32.

    Raises:
        ValueError: the shapes do not fit one another or the tree.
    """
    concentrations, votes = tf.convert_to_tensor(concentrations), tf.convert_to_tensor(votes)
    answers = len(tree.label_columns)
    shapes = concentrations.shape, votes.shape
    if not shapes[0].is_compatible_with(shapes[1]) or any(s.rank != 2 or s[1] != answers for s in shapes):
        raise ValueError(
            f"concentrations {shapes[0].as_list()} and votes {shapes[1].as_list()} must both have the shape "
            f"[galaxies, {answers}] for tree {tree.name!r}, one column an answer"
        )
    exact = _exact_nll(tf.cast(concentrations, tf.float64), tf.cast(votes, tf.float64), *map(tf.constant, _sums(tree)))
    return tf.cast(exact, tf.float64 if concentrations.dtype == tf.float64 else tf.float32)


def galaxy_losses(model, images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """The loss of each galaxy, of whichever kind the model's head asks for.

    Args:
        model: a :class:`~zoobook.tensorflow.models.GalaxyModel` with a head.
        images: float [N, H, W, C], what the model sees.
        targets: as :class:`zoobook.learning.tasks.Task` has them.

    Returns:
        Tensor: float32 [N]: for votes the negative log-likelihood summed over questions, for classes the cross-entropy,
            both in nats; for a number the squared error in units of the training galaxies' variance.
    """
    raw = model.raw(images)
    kind = model.head.spec["kind"]
    if kind == "concentrations":
        return tf.reduce_sum(dirichlet_multinomial_nll(model.head.answer(raw), targets, model.tree), axis=1)
    if kind == "binary":
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, raw), axis=1)
    if kind == "classes":
        return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, raw)
    return tf.reduce_mean(tf.math.squared_difference(raw, targets), axis=1)


@tf.custom_gradient
def _exact_nll(concentrations: tf.Tensor, votes: tf.Tensor, spread: tf.Tensor, gather: tf.Tensor):
    """The loss in float64 and its exact gradient, all answers and questions in one pass."""
    alpha, k = concentrations @ spread, votes @ spread  # of each answer, then of each question
    before, after, orders = tf.unstack(tf.math.lgamma(tf.stack((alpha, k + alpha, k + 1))))
    nll = (after - before - orders) @ gather  # where k = 0, a difference of equal numbers: exactly zero

    def gradient(slope: tf.Tensor):
        before, after = tf.unstack(tf.math.digamma(tf.stack((alpha, k + alpha))))
        return ((slope @ tf.transpose(gather)) * (after - before)) @ tf.transpose(spread), None, None, None

    return nll, gradient


def _sums(tree: DecisionTree) -> tuple[np.ndarray, np.ndarray]:
    """[A, A + Q]: beside the answers their sums, question by question; [A + Q, Q]: each question less its answers."""
    answers, questions = np.eye(len(tree.label_columns)), np.eye(len(tree.questions))
    member = questions.repeat([stop - start for start, stop in tree.index_groups], axis=0)
    return np.concatenate((answers, member), axis=1), np.concatenate((-member, questions))
