"""The loss of the decision tree: how unlikely the votes are, given the concentrations that the model predicts."""
from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn import functional as F

from zoobook.trees import DecisionTree


def dirichlet_multinomial_nll(
    concentrations: torch.Tensor, votes: torch.Tensor, tree: DecisionTree
) -> torch.Tensor:
    """Negative log-likelihood of the votes on each question, under the Dirichlet-multinomial distribution.

    The loss of Walmsley et al. 2022 (MNRAS 509, 3966). For N votes on a question, k on each answer, and
    concentrations a that add up to A::

        -log P = lgamma(N + A) - lgamma(A) - lgamma(N + 1) - sum(lgamma(k + a) - lgamma(a) - lgamma(k + 1))

    Add up over questions and average over galaxies to get a training loss. Whatever the precision of the input, also
    under autocast, the arithmetic is in float64: it is a few numbers per galaxy, and differences of ``lgamma``
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
    answers = len(tree.label_columns)
    if concentrations.shape != votes.shape or concentrations.ndim != 2 or concentrations.shape[1] != answers:
        raise ValueError(
            f"concentrations {list(concentrations.shape)} and votes {list(votes.shape)} must both have the shape "
            f"[galaxies, {answers}] for tree {tree.name!r}, one column an answer"
        )
    return _DirichletMultinomial.apply(concentrations, votes, tuple(tree.index_groups))


def galaxy_losses(model, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each galaxy, of whichever kind the model's head asks for.

    Args:
        model: a :class:`~zoobook.pytorch.models.GalaxyModel` with a head.
        images: float [N, C, H, W], what the model sees.
        targets: as :class:`zoobook.learning.tasks.Task` has them.

    Returns:
        Tensor: float32 [N]: for votes the negative log-likelihood summed over questions, for classes the cross-entropy,
            both in nats; for a number the squared error in units of the training galaxies' variance.
    """
    raw = model.raw(images)
    kind = model.head.spec["kind"]
    if kind == "concentrations":
        return dirichlet_multinomial_nll(model.head.answer(raw), targets, model.tree).sum(1)
    if kind == "binary":
        return F.binary_cross_entropy_with_logits(raw, targets, reduction="none").mean(1)
    if kind == "classes":
        return F.cross_entropy(raw, targets, reduction="none")
    return F.mse_loss(raw, targets, reduction="none").mean(1)


class _DirichletMultinomial(torch.autograd.Function):
    """The loss and its exact gradient, all answers and questions in one pass."""

    @staticmethod
    def forward(ctx, concentrations, votes, groups):
        ctx.like = concentrations
        both = torch.stack((_exact(concentrations), _exact(votes)))
        spread, gather = _sums(groups, both.device)
        alpha, k = both @ spread  # of each answer, then of each question; autocast leaves float64 alone
        arguments = torch.stack((alpha, k + alpha, k + 1))
        before, after, orders = torch.lgamma(arguments)
        nll = (after - before - orders) @ gather  # where k = 0, a difference of equal numbers: exactly zero
        ctx.save_for_backward(arguments[:2], spread, gather)
        return nll.to(concentrations.device, _returned(concentrations))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        arguments, spread, gather = ctx.saved_tensors
        before, after = torch.digamma(arguments)
        gradient = ((_exact(slope) @ gather.T) * (after - before)) @ spread.T
        return gradient.to(ctx.like.device, ctx.like.dtype), None, None


def _exact(values: torch.Tensor) -> torch.Tensor:
    """In float64, which Apple's GPUs lack: there, on the CPU."""
    return values.detach().to("cpu" if values.device.type == "mps" else values.device, torch.float64)


def _returned(values: torch.Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


@lru_cache(maxsize=64)
def _sums(groups: tuple, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """[A, A + Q]: beside the answers their sums, question by question; [A + Q, Q]: each question less its answers."""
    with torch.inference_mode(False):  # what is kept must serve training too, whoever asks first
        answers, questions = torch.eye(groups[-1][1], dtype=torch.float64), torch.eye(len(groups), dtype=torch.float64)
        member = questions.repeat_interleave(torch.tensor([stop - start for start, stop in groups]), dim=0)
        spread, gather = torch.cat((answers, member), dim=1), torch.cat((-member, questions))
        return spread.to(device), gather.to(device)
