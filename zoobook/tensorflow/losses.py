"""The loss of each kind of answer, in TensorFlow."""

import tensorflow as tf

from zoobook.learning.losses import question_sums
from zoobook.trees import DecisionTree


def nll(concentrations: tf.Tensor, votes: tf.Tensor, tree: DecisionTree) -> tf.Tensor:
    concentrations = tf.convert_to_tensor(concentrations)
    spread, gather = map(tf.constant, question_sums(tuple(tree.index_groups)))
    exact = _exact_nll(tf.cast(concentrations, tf.float64), tf.cast(votes, tf.float64), spread, gather)
    return tf.cast(exact, tf.float64 if concentrations.dtype == tf.float64 else tf.float32)


LOSSES = {
    "dirichlet_multinomial": lambda model, logits, votes: tf.reduce_sum(
        nll(model.activate(logits), votes, model.tree), axis=1
    ),
    "binary_crossentropy": lambda _, logits, targets: tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=1
    ),
    "crossentropy": lambda _, logits, targets: tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits),
    "squared_error": lambda _, numbers, targets: tf.reduce_mean(tf.math.squared_difference(numbers, targets), axis=1),
}


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
