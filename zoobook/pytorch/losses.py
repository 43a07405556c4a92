"""The loss of each kind of answer, in PyTorch."""

from functools import lru_cache

import torch
from torch.nn import functional as F

from zoobook.learning.losses import question_sums
from zoobook.trees import DecisionTree


def nll(concentrations: torch.Tensor, votes: torch.Tensor, tree: DecisionTree) -> torch.Tensor:
    return _DirichletMultinomial.apply(concentrations, votes, tuple(tree.index_groups))


LOSSES = {
    "dirichlet_multinomial": lambda model, logits, votes: nll(model.activate(logits), votes, model.tree).sum(1),
    "binary_crossentropy": lambda _, logits, targets: F.binary_cross_entropy_with_logits(
        logits, targets, reduction="none"
    ).mean(1),
    "crossentropy": lambda _, logits, targets: F.cross_entropy(logits, targets, reduction="none"),
    "squared_error": lambda _, numbers, targets: F.mse_loss(numbers, targets, reduction="none").mean(1),
}


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
        returned = torch.float64 if concentrations.dtype == torch.float64 else torch.float32
        return nll.to(concentrations.device, returned)

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


@lru_cache(maxsize=64)
def _sums(groups: tuple, device: torch.device) -> list[torch.Tensor]:
    with torch.inference_mode(False):  # what is kept must serve training too, whoever asks first
        return [torch.from_numpy(array).to(device) for array in question_sums(groups)]
