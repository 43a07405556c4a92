"""The loss of both frameworks, against SciPy and arithmetic with 40 digits."""
import mpmath
import numpy as np
import pytest
from scipy.stats import dirichlet_multinomial
from toys import TREE, array, tensor

from zoobook import load_framework, votes

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


def nll(half, alpha, k, tree=TREE):
    return array(half.dirichlet_multinomial_nll(tensor(half, alpha), tensor(half, k), tree))


def slopes(half, alpha, k, weights=1.0):
    """Loss, and the gradient of its weighted sum."""
    if half.__name__.endswith("pytorch"):
        given = tensor(half, alpha).requires_grad_()
        loss = half.dirichlet_multinomial_nll(given, tensor(half, k), TREE)
        (loss * tensor(half, weights)).sum().backward()
        return array(loss), array(given.grad)
    import tensorflow as tf

    given = tf.Variable(alpha)
    with tf.GradientTape() as tape:
        loss = half.dirichlet_multinomial_nll(given, tensor(half, k), TREE)
        total = tf.reduce_sum(loss * tf.cast(weights, loss.dtype))
    return array(loss), array(tape.gradient(total, given))


@pytest.mark.parametrize("largest", [1, 40, 10**6])
def test_loss_is_that_of_scipy_in_float64(half, largest):
    alpha, k = draws(largest)
    found = nll(half, alpha, k)
    assert found.dtype == np.float32
    for q, (start, stop) in enumerate(TREE.index_groups):
        a, n = alpha[:, start:stop].astype(float), k[:, start:stop]
        np.testing.assert_allclose(found[:, q], -dirichlet_multinomial.logpmf(n, a, n.sum(1)), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found, votes.nll(alpha, k, TREE), rtol=1e-6, atol=1e-9)


def test_loss_and_gradient_are_exact_for_a_million_votes(half):
    """Against arithmetic with 40 digits."""
    mpmath.mp.dps = 40
    alpha, k = draws(10**6, rows=6, seed=1)
    loss, gradient = slopes(half, alpha, k)
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
                assert float(gradient[i, start + j]) == pytest.approx(float(slope), rel=1e-5, abs=1e-7)


def test_without_votes_loss_and_gradient_are_exactly_zero(half):
    alpha, k = draws(100)
    k[:, :3] = 0
    k[5] = 0
    loss, gradient = slopes(half, alpha, k, np.linspace(1, 7, len(TREE.questions)))
    assert (loss[:, 0] == 0).all() and (loss[5] == 0).all()
    assert (gradient[:, :3] == 0).all() and (gradient[5] == 0).all()
    assert (loss[6, 1:] > 0).any() and (gradient[6] != 0).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_frameworks_have_the_same_loss_and_gradient(halves, dtype):
    """Also for galaxies without votes."""
    alpha, k = draws(10**4, rows=200, seed=3)
    k[::7] = 0
    weights = np.linspace(1, 7, len(TREE.questions))
    (one, its_slopes), (other, other_slopes) = (slopes(half, alpha.astype(dtype), k, weights) for half in halves)
    assert one.dtype == other.dtype == dtype
    np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_allclose(its_slopes, other_slopes, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_loss_is_exact_under_mixed_precision(half, dtype):
    alpha, k = draws(1000)
    exact = nll(half, alpha, k)
    features = np.random.default_rng(0).random((4, 256), np.float32)
    model = half.build_model(TREE, "test_efficientnet", image_size=32)
    if half.__name__.endswith("pytorch"):
        import torch

        with torch.autocast("cpu", getattr(torch, dtype)):
            assert np.array_equal(nll(half, alpha, k), exact)
            narrow = torch.tensor(alpha).to(getattr(torch, dtype))
            from_narrow = half.dirichlet_multinomial_nll(narrow, torch.tensor(k), TREE)
            answers, wide = model.activate(model.logits(torch.tensor(features))), narrow.float()
    else:
        import tensorflow as tf

        with half.models.known_defaults(f"mixed_{dtype}"):
            model = half.models.GalaxyModel(model.spec)
        narrow = tf.cast(alpha, dtype)
        from_narrow = half.dirichlet_multinomial_nll(narrow, tf.constant(k), TREE)
        answers, wide = model.activate(model.logits(tf.constant(features))), tf.cast(narrow, tf.float32)
    assert model.num_features == 256
    assert array(from_narrow).dtype == array(answers).dtype == np.float32
    np.testing.assert_array_equal(array(from_narrow), nll(half, array(wide), k))


def test_training_works_after_prediction_used_the_loss_first():
    """PyTorch's inference tensors must not end up in what a later training uses."""
    torch = pytest.importorskip("torch")
    half = load_framework("pytorch")
    tree = type(TREE).from_dict({**TREE.to_dict(), "questions": TREE.to_dict()["questions"][:1]})
    alpha, k = torch.full((2, 3), 2.0), torch.ones(2, 3)
    with torch.inference_mode():
        half.dirichlet_multinomial_nll(alpha, k, tree)
    half.dirichlet_multinomial_nll(alpha.requires_grad_(), k, tree).sum().backward()
    assert alpha.grad is not None


def test_shapes_that_do_not_fit_are_refused(half):
    ones = np.ones((3, 34), np.float32)
    with pytest.raises(ValueError, match=r"\[2, 33\].*34.*decals_dr5"):
        nll(half, ones[:2, :33], ones[:2, :33])
    with pytest.raises(ValueError, match=r"\[3, 34\] must both have"):
        nll(half, ones[:2], ones)
