"""From stored bytes to what a model sees, the same in both frameworks."""
import statistics

import cv2
import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter
from toys import from_model, tensor

from zoobook.images.views import (
    CENTRE,
    DECALS_FRAMING,
    FIELD_OF_VIEW,
    SHIFT,
    apply_view,
    centre_views,
    preview,
    stored_size,
)
from zoobook.images.views import views as random_views
from zoobook.learning.batches import GalaxyBatches

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 24, 24, 3), dtype=np.uint8)
UPRIGHT = np.float32([[1, 0, 0], [0, 1, 0]])
AS_IT_IS = np.float32([[0, 0, 1], [1, 0, 0], [1, 1, 1]])  # no blur, no sky off, no stretch; brightness 1, no noise


def seen(half, image, view, channels=3, size=24, share=CENTRE):
    images, views = tensor(half, image[None]), tensor(half, view[None])
    return from_model(half, half.models.apply_view(images, views, channels, size, share))[0]


def sky(image):
    """The median of the outermost pixels in each colour."""
    edge = np.ones(image.shape[:2], bool)
    edge[1:-1, 1:-1] = False
    return np.array([statistics.median_low(image[edge, colour].tolist()) for colour in range(3)])


def test_random_views_are_the_affine_maps_of_scipy(half):
    """Also where the view reaches beyond the edge, into the sky; and the plain view is the image itself."""
    side = 24
    np.testing.assert_allclose(seen(half, PIXELS[0], UPRIGHT), PIXELS[0] / 255, atol=1e-5)
    for image, view in zip(PIXELS, random_views(50, seed=3, epoch=2), strict=True):
        (a, b, c), (d, e, f) = view.astype(float)
        matrix = np.array([[e, d], [b, a]])  # SciPy counts rows first, from the centre of the first pixel
        middle = (side - 1) / 2
        offset = np.array([f, c]) * side / 2 + middle - matrix @ [middle, middle]
        grey = affine_transform(
            image.mean(-1), matrix, offset, order=1, mode="grid-constant", cval=sky(image).mean()
        )
        np.testing.assert_allclose(seen(half, image, view, 1)[..., 0], grey / 255, atol=2e-4)


@pytest.mark.parametrize(("share", "photometric"), [(CENTRE, False), (0.5, True)])
def test_views_keep_what_they_promise(share, photometric):
    views = random_views(20_000, seed=0, epoch=0, share=share, photometric=photometric)[:, :2].astype(float)
    linear = views[:, :, :2]
    determinant = np.linalg.det(linear)
    side = np.sqrt(np.abs(determinant))
    np.testing.assert_allclose(linear @ linear.transpose(0, 2, 1), np.eye(2) * side[:, None, None] ** 2, atol=1e-6)
    least, most = (0.40, 0.62) if photometric else (0.80, 0.93)
    assert least - 1e-6 <= side.min() < least + 0.01 and most - 0.01 < side.max() <= most + 1e-6
    assert side.mean() == pytest.approx((least + most) / 2, abs=2e-3)
    assert (determinant > 0).mean() == pytest.approx(0.5, abs=0.02)
    angle = np.arctan2(linear[:, 1, 1], -linear[:, 0, 1])
    assert np.histogram(angle, 12, (-np.pi, np.pi))[0].std() < 100
    assert np.abs(views[:, :, 2]).max() <= 2 * SHIFT * share


@pytest.mark.parametrize("framing", [17, 6, 22])
def test_a_galaxy_has_the_same_size_however_its_image_is_framed(half, framing):
    """A disc of 2 R50, seen in a field of view of 12 R50; only a part of the sky is on the image that has 6."""
    y, x = (np.mgrid[:200, :200] - 99.5) * framing / 200
    image = np.where(np.hypot(x, y) < 2, 200, 20).astype(np.uint8)[..., None].repeat(3, -1)
    view = centre_views(1, 12 / framing)[0]
    found = seen(half, image, view, 1, 100, 12 / framing)[..., 0]
    covered = (found - 20 / 255) / (180 / 255)
    assert covered.sum() == pytest.approx(np.pi * (2 * 100 / 12) ** 2, rel=0.01)
    rows = np.arange(100)
    assert (covered.sum(1) * rows).sum() / covered.sum() == pytest.approx(49.5, abs=0.02)
    np.testing.assert_allclose(found[[0, 0, -1, -1], [0, -1, 0, -1]], 20 / 255, atol=1e-5)


def test_beyond_the_image_there_is_its_own_sky(half):
    image = np.full((32, 32, 3), [10, 20, 30], np.uint8)
    image[:, 12:20] = 255  # reaches the edge, but most of the edge is sky
    for size, channels in ((64, 3), (16, 1)):
        found = seen(half, image, centre_views(1, 2.0)[0], channels, size, 2.0)
        above = found[: size // 4 - 1]
        expected = np.array([10, 20, 30]) / 255 if channels == 3 else 20 / 255
        np.testing.assert_allclose(above, np.broadcast_to(expected, above.shape), atol=1e-6)
        assert found[size // 2, size // 2].min() > 0.9


def test_of_a_narrow_view_only_what_it_shows_is_computed(monkeypatch):
    sizes, transform = [], cv2.transform
    monkeypatch.setattr(cv2, "transform", lambda image, *args: sizes.append(image.shape) or transform(image, *args))
    image = np.random.default_rng(0).integers(0, 256, (1, 424, 424, 3), dtype=np.uint8)
    apply_view(image, centre_views(1, 0.25), 1, 64, 0.25)
    assert max(sizes[0][:2]) <= 0.25 * 424 + 8
    apply_view(image, centre_views(1, 2.0), 1, 64, 2.0)
    assert min(sizes[1][:2]) >= 410


def test_small_views_of_large_images_do_not_alias(half):
    """A fine checkerboard must become even grey."""
    board = (np.indices((424, 424)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    small = seen(half, board, centre_views(1)[0], 1, 64)
    smaller = seen(half, board, centre_views(1, 2.0)[0], 1, 64, 2.0)[20:44, 20:44]
    assert np.abs(smaller - 0.5).max() < 0.05
    assert small.shape == (64, 64, 1) and np.abs(small - 0.5).max() < 0.05


def test_every_epoch_shows_each_galaxy_once_in_another_order():
    rows, targets = np.arange(10, 47), np.arange(37)
    batches = GalaxyBatches(PIXELS, rows, 8, targets, seed=5, photometric=True, share=0.5)
    assert len(batches) == 5 and sorted(batches.sizes) == [7, 7, 7, 8, 8]
    orders = []
    for epoch in (0, 1, 0):
        batches.epoch = epoch
        parts = list(batches.read())
        assert [len(p[2]) for p in parts] == batches.sizes == [p[3] for p in parts]
        order = np.concatenate([p[2] for p in parts])
        assert sorted(order) == list(targets)
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), PIXELS[rows[order]])
        views = np.concatenate([p[1] for p in parts])
        np.testing.assert_array_equal(views, random_views(37, 5, epoch, 0.5, photometric=True)[order])
        orders.append(order)
    assert not np.array_equal(orders[0], orders[1]) and np.array_equal(orders[0], orders[2])


@pytest.mark.parametrize(("parts", "devices"), [(1, 1), (3, 1), (1, 2), (3, 2), (2, 5), (20, 3)])
def test_a_batch_cut_among_parts_and_devices_has_the_mean_of_the_whole(parts, devices):
    losses = np.random.default_rng(0).random(50)
    plan = GalaxyBatches(PIXELS, np.arange(50), 9, losses, seed=1, parts=parts)
    whole = [losses[batch].mean() for *_, batch, _ in GalaxyBatches(PIXELS, np.arange(50), 9, np.arange(50), 1).read()]
    seen = [list(plan.read(rank, devices)) for rank in range(devices)]
    assert {len(one) for one in seen} == {len(plan)} and plan.parts <= 4  # of one galaxy, nothing can be normalised
    shares = np.array([sum((one[step][2] / one[step][3]).sum() for one in seen) for step in range(len(plan))])
    np.testing.assert_allclose(shares.reshape(-1, plan.parts).mean(1), whole)


def test_a_frameworks_loader_gives_tensors_of_the_same(half):
    for targets, seed in ((np.arange(50, dtype=np.float32)[:, None], 1), (None, None)):
        batches = GalaxyBatches(PIXELS, np.arange(50), 20, targets, seed)
        found = list(half.engine.GalaxyLoader(batches))
        assert len(batches) == len(found) == 3
        for one, other in zip(found, batches.read(), strict=True):
            assert all(np.array_equal(np.asarray(a), b) for a, b in zip(one, other, strict=True))


def test_evaluation_is_in_order_with_central_views():
    parts = list(GalaxyBatches(PIXELS, np.arange(50), 20, share=0.5, photometric=True).read())
    np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), PIXELS)
    np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), centre_views(50, 0.5))


def test_preview_shows_what_training_sees():
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = [200, 100, 0]
    shown = preview(image, n_views=4)
    assert shown.shape == (4, 32, 32, 3) and shown.dtype == np.uint8
    assert (shown[:, 16, 16] == [200, 100, 0]).all() and not np.array_equal(shown[0], shown[1])
    assert (preview(image, n_views=2, channels=1)[:, 16, 16] == 100).all()
    assert (preview(image, 2, photometric=True)[:, 16, 16] != [200, 100, 0]).any()
    assert (preview(image, 2, share=4)[:, 0, 0] == 0).all()


@pytest.mark.parametrize(
    ("stored", "wanted", "share"),
    [(424, 224, 0.865), (424, 64, 0.865), (424, 64, 0.5), (65, 32, 0.865), (128, 128, 0.865), (48, 100, 2.45)],
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("photometric", [False, True])
def test_what_a_cpu_sees_is_what_a_gpu_sees(half, stored, wanted, share, channels, photometric):
    images = np.random.default_rng(1).integers(0, 256, (6, stored, stored, 3), dtype=np.uint8)
    for views in (random_views(6, 7, 0, share, photometric), centre_views(6, share)):
        on_gpu = half.models._resample(tensor(half, images), tensor(half, views), channels, wanted, share)
        on_cpu = apply_view(images, views, channels, wanted, share)
        np.testing.assert_allclose(on_cpu, from_model(half, on_gpu), atol=1e-3)


# ---- Views of other telescopes


def through(half, image, changes, channels=1):
    """The whole image with some of the nine photometric numbers changed."""
    how = AS_IT_IS.copy()
    for place, value in changes.items():
        how[place] = value
    return seen(half, image, np.concatenate([UPRIGHT, how]), channels, len(image), 1.0)


def test_each_photometric_change_is_what_it_says(half):
    image = np.random.default_rng(3).integers(40, 200, (64, 64, 3), dtype=np.uint8)
    grey = image.mean(-1) / 255
    np.testing.assert_allclose(through(half, image, {})[..., 0], grey, atol=1e-5)
    blurred = gaussian_filter(grey, 1.2, mode="reflect")
    np.testing.assert_allclose(through(half, image, {(0, 0): 1.2})[..., 0], blurred, atol=2e-4)
    deeper = np.maximum(grey - 0.5 * np.quantile(grey, 0.2, method="lower"), 0)
    np.testing.assert_allclose(through(half, image, {(0, 1): 0.5})[..., 0], deeper, atol=1e-5)
    np.testing.assert_allclose(through(half, image, {(0, 2): 0.7})[..., 0], grey**0.7, atol=1e-5)
    np.testing.assert_allclose(through(half, image, {(1, 0): 1.3})[..., 0], np.minimum(1.3 * grey, 1), atol=1e-5)
    noise = through(half, image, {(1, 1): 0.03, (1, 2): 0.6})[..., 0] - grey
    assert noise.std() == pytest.approx(0.03, rel=0.05) and abs(noise.mean()) < 0.002
    other = through(half, image, {(1, 1): 0.03, (1, 2): 0.7})[..., 0] - grey
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.06
    gains = through(half, image, {(2, 0): 1.1, (2, 2): 0.9}, channels=3)
    np.testing.assert_allclose(gains, np.minimum(image / 255 * [1.1, 1, 0.9], 1), atol=1e-5)


def test_the_blur_follows_the_size_of_the_view(half):
    image = np.random.default_rng(3).integers(40, 200, (128, 128, 3), dtype=np.uint8)
    blurred = gaussian_filter(image.mean(-1) / 255, 2.4, mode="reflect")
    np.testing.assert_allclose(through(half, image, {(0, 0): 1.2})[..., 0], blurred, atol=2e-4)


def test_photometric_numbers_follow_from_seed_and_epoch_and_stay_in_their_ranges():
    views = random_views(20_000, 3, 1, photometric=True)
    np.testing.assert_array_equal(views, random_views(20_000, 3, 1, photometric=True))
    for other in ((4, 1), (3, 2)):
        assert (views[:, 2:] != random_views(20_000, *other, photometric=True)[:, 2:]).any((1, 2)).all()
    (sigma, taken, gamma), (brightness, deviation, start) = views[:, 2].T, views[:, 3].T
    assert (sigma > 0).mean() == pytest.approx(0.7, abs=0.01)
    assert np.median(sigma[sigma > 0]) == pytest.approx(0.3 + 1.1 / 4, abs=0.02)
    for values, low, high in (
        (sigma[sigma > 0], 0.3, 1.4), (taken, 0, 1), (gamma, 0.65, 1.45), (brightness, 0.7, 1.3),
        (deviation, 0, 0.045), (start, 0, 1), (views[:, 4], 0.9, 1.1),
    ):  # fmt: skip
        width = high - low
        assert low <= values.min() + 1e-6 < low + 0.02 * width and high - 0.02 * width < values.max() <= high + 1e-6
    assert abs(np.corrcoef(views[:, 2:].reshape(-1, 9).T) - np.eye(9)).max() < 0.03
    plain = random_views(20_000, 3, 1)
    np.testing.assert_allclose(*(np.arctan2(v[:, 0, 1], v[:, 1, 1]) for v in (plain, views)), atol=1e-5)


def test_images_are_stored_as_large_as_the_view_needs():
    assert stored_size(64, FIELD_OF_VIEW, DECALS_FRAMING) == 64
    assert stored_size(64, 8.5, 17) == 111  # so that 64 x 0.865 of its pixels are in the view
    assert stored_size(64, 14.7, 6) == 23 and stored_size(64, 100, 1) == 16


def test_the_old_name_works_on_with_a_warning():
    with pytest.warns(DeprecationWarning, match="look is now apply_view"):
        from zoobook.images.views import look
    assert look is apply_view
