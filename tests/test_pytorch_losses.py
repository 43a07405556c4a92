import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import dirichlet_multinomial
from toys import TREE

from zoobook import votes
from zoobook.pytorch import build_model, dirichlet_multinomial_nll

ANSWERS = len(TREE.label_columns)


def draws(largest, rows=40, seed=0):
    """Concentrations over their whole range, both ends included, and votes up to `largest` a question."""
    rng = np.random.default_rng(seed)
    alpha = 1 + 100 * rng.beta(0.3, 0.3, (rows, ANSWERS))
    alpha[0], alpha[1] = 1 + 1e-5, 101 - 1e-4
    alpha = alpha.astype(np.float32)
    k = np.zeros((rows, ANSWERS), np.int64)
    for start, stop in TREE.index_groups:
        for i in range(rows):
            total = int(largest ** rng.uniform(0, 1))
            k[i, start:stop] = rng.multinomial(total, rng.dirichlet(np.full(stop - start, 0.3)))
    return alpha, k


@pytest.mark.parametrize("largest", [1, 40, 10**6])
def test_loss_is_that_of_scipy_in_float64(largest):
    alpha, k = draws(largest)
    found = dirichlet_multinomial_nll(torch.tensor(alpha), torch.tensor(k), TREE)
    assert found.dtype == torch.float32
    for q, (start, stop) in enumerate(TREE.index_groups):
        a, n = alpha[:, start:stop].astype(float), k[:, start:stop]
        np.testing.assert_allclose(found[:, q], -dirichlet_multinomial.logpmf(n, a, n.sum(1)), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found, votes.nll(alpha, k, TREE), rtol=1e-6, atol=1e-9)


def test_loss_and_gradient_are_exact_for_a_million_votes():
    """Against arithmetic with 40 digits."""
    mpmath.mp.dps = 40
    alpha, k = draws(10**6, rows=6, seed=1)
    given = torch.tensor(alpha, requires_grad=True)
    found = dirichlet_multinomial_nll(given, torch.tensor(k), TREE)
    found.sum().backward()
    loss = found.detach()
    for i in range(len(alpha)):
        for q, (start, stop) in enumerate(TREE.index_groups):
            a, n = [mpmath.mpf(float(v)) for v in alpha[i, start:stop]], [int(v) for v in k[i, start:stop]]
            top, total = sum(a), sum(n)
            exact = mpmath.loggamma(top + total) - mpmath.loggamma(top) - mpmath.loggamma(total + 1)
            exact -= sum(
                mpmath.loggamma(x + y) - mpmath.loggamma(x) - mpmath.loggamma(y + 1)
                for x, y in zip(a, n, strict=True)
            )
            assert float(loss[i, q]) == pytest.approx(float(exact), rel=1e-5, abs=1e-9)
            common = mpmath.digamma(total + top) - mpmath.digamma(top)
            for j, (x, y) in enumerate(zip(a, n, strict=True)):
                slope = common - mpmath.digamma(x + y) + mpmath.digamma(x)
                assert float(given.grad[i, start + j]) == pytest.approx(float(slope), rel=1e-5, abs=1e-7)


def test_without_votes_loss_and_gradient_are_exactly_zero():
    alpha, k = draws(100)
    k[:, :3] = 0
    k[5] = 0
    given = torch.tensor(alpha, requires_grad=True)
    loss = dirichlet_multinomial_nll(given, torch.tensor(k), TREE)
    (loss * torch.linspace(1, 7, loss.shape[1])).sum().backward()
    assert (loss[:, 0] == 0).all() and (loss[5] == 0).all()
    assert (given.grad[:, :3] == 0).all() and (given.grad[5] == 0).all()
    assert (loss[6, 1:] > 0).any() and (given.grad[6] != 0).any()


def test_gradient_is_the_derivative():
    alpha, k = draws(50, rows=3, seed=2)
    given = torch.tensor(alpha, dtype=torch.float64).clamp(1.5, 90).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: dirichlet_multinomial_nll(a, torch.tensor(k), TREE), given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_is_exact_under_autocast(dtype):
    alpha, k = draws(1000)
    exact = dirichlet_multinomial_nll(torch.tensor(alpha), torch.tensor(k), TREE)
    model = build_model(TREE, "test_efficientnet", image_size=32)
    with torch.autocast("cpu", dtype):
        assert torch.equal(dirichlet_multinomial_nll(torch.tensor(alpha), torch.tensor(k), TREE), exact)
        half = torch.tensor(alpha).to(dtype)
        from_half = dirichlet_multinomial_nll(half, torch.tensor(k), TREE)
        answers = model.answer(torch.rand(4, model.num_features))
    assert from_half.dtype == answers.dtype == torch.float32
    assert torch.equal(from_half, dirichlet_multinomial_nll(half.float(), torch.tensor(k), TREE))


def test_training_works_after_prediction_used_the_loss_first():
    tree = type(TREE).from_dict({**TREE.to_dict(), "questions": TREE.to_dict()["questions"][:1]})
    alpha, k = torch.full((2, 3), 2.0), torch.ones(2, 3)
    with torch.inference_mode():
        dirichlet_multinomial_nll(alpha, k, tree)
    dirichlet_multinomial_nll(alpha.requires_grad_(), k, tree).sum().backward()
    assert alpha.grad is not None


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 33\].*34.*decals_dr5"):
        dirichlet_multinomial_nll(torch.ones(2, 33), torch.ones(2, 33), TREE)
    with pytest.raises(ValueError, match=r"\[3, 34\] must both have"):
        dirichlet_multinomial_nll(torch.ones(2, 34), torch.ones(3, 34), TREE)
