"""From stored bytes to what a model sees, the same in both frameworks."""
import numpy as np
import pytest
from scipy.ndimage import affine_transform
from toys import array, from_model, tensor

from zoobook import augment

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 24, 24, 3), dtype=np.uint8)
UPRIGHT = np.float32([[1, 0, 0], [0, 1, 0]])


def seen(half, image, view, channels=3, size=24):
    return from_model(half, half.data.look(tensor(half, image[None]), tensor(half, view[None]), channels, size))[0]


def test_the_plain_view_is_the_image_itself(half):
    np.testing.assert_allclose(seen(half, PIXELS[0], UPRIGHT), PIXELS[0] / 255, atol=1e-5)
    np.testing.assert_allclose(seen(half, PIXELS[0], UPRIGHT, 1)[..., 0], PIXELS[0].mean(-1) / 255, atol=1e-5)


def test_quarter_turns_and_flips_are_those_of_numpy(half):
    turned = np.float32([[0, -1, 0], [1, 0, 0]])
    flipped = np.float32([[-1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(seen(half, PIXELS[1], turned), np.rot90(PIXELS[1], 1) / 255, atol=1e-5)
    np.testing.assert_allclose(seen(half, PIXELS[1], flipped), PIXELS[1][:, ::-1] / 255, atol=1e-5)


def test_random_views_are_the_affine_maps_of_scipy(half):
    """Also where the view reaches beyond the edge and the image is mirrored."""
    side = 24
    for image, view in zip(PIXELS, augment.views(50, seed=3, epoch=2), strict=True):
        (a, b, c), (d, e, f) = view.astype(float)
        matrix = np.array([[e, d], [b, a]])  # SciPy counts rows first, from the centre of the first pixel
        middle = (side - 1) / 2
        offset = np.array([f, c]) * side / 2 + middle - matrix @ [middle, middle]
        grey = affine_transform(image.mean(-1), matrix, offset, order=1, mode="reflect")
        np.testing.assert_allclose(seen(half, image, view, 1)[..., 0], grey / 255, atol=2e-4)


def test_views_keep_what_they_promise():
    views = augment.views(20_000, seed=0, epoch=0).astype(float)
    linear = views[:, :, :2]
    determinant = np.linalg.det(linear)
    side = np.sqrt(np.abs(determinant))
    np.testing.assert_allclose(linear @ linear.transpose(0, 2, 1), np.eye(2) * side[:, None, None] ** 2, atol=1e-6)
    assert augment.ZOOM[0] <= side.min() < 0.81 and 0.92 < side.max() <= augment.ZOOM[1] + 1e-6
    assert side.mean() == pytest.approx(augment.CENTRE, abs=2e-3)
    assert (determinant > 0).mean() == pytest.approx(0.5, abs=0.02)
    angle = np.arctan2(linear[:, 1, 1], -linear[:, 0, 1])
    assert np.histogram(angle, 12, (-np.pi, np.pi))[0].std() < 100
    assert np.abs(views[:, :, 2]).max() <= 2 * augment.SHIFT


def test_small_views_of_large_images_do_not_alias(half):
    """A fine checkerboard must become even grey."""
    board = (np.indices((424, 424)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    small = seen(half, board, augment.centre_views(1)[0], 1, 64)
    assert small.shape == (64, 64, 1) and np.abs(small - 0.5).max() < 0.05


def test_every_epoch_shows_each_galaxy_once_in_another_order(half):
    rows, targets = np.arange(10, 47), np.arange(37)
    batches = half.data.Batches(PIXELS, rows, 8, targets, seed=5)
    assert len(batches) == len(list(batches)) == 5
    orders = []
    for epoch in (0, 1, 0):
        batches.epoch = epoch
        parts = [[array(part) for part in batch] for batch in batches]
        assert max(len(p[2]) for p in parts) - min(len(p[2]) for p in parts) <= 1
        order = np.concatenate([p[2] for p in parts])
        assert sorted(order) == list(targets)
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), PIXELS[rows[order]])
        orders.append((order, np.concatenate([p[1] for p in parts])))
    assert not np.array_equal(orders[0][0], orders[1][0]) and not np.array_equal(orders[0][1], orders[1][1])
    assert np.array_equal(orders[0][0], orders[2][0]) and np.array_equal(orders[0][1], orders[2][1])


def test_a_galaxy_has_its_view_whatever_the_batches(half):
    def found(size):
        parts = list(half.data.Batches(PIXELS, np.arange(50), size, np.arange(50), seed=1))
        order = np.concatenate([array(p[2]) for p in parts])
        return np.concatenate([array(p[1]) for p in parts])[order.argsort()]

    np.testing.assert_array_equal(found(7), found(50))


def test_evaluation_is_in_order_with_central_views(half):
    parts = list(half.data.Batches(PIXELS, np.arange(50), 20))
    np.testing.assert_array_equal(np.concatenate([array(p[0]) for p in parts]), PIXELS)
    np.testing.assert_array_equal(np.concatenate([array(p[1]) for p in parts]), augment.centre_views(50))


def test_preview_shows_what_training_sees(half):
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = [200, 100, 0]
    shown = half.data.preview(image, n_views=4)
    assert shown.shape == (4, 32, 32, 3) and shown.dtype == np.uint8
    assert (shown[:, 16, 16] == [200, 100, 0]).all() and not np.array_equal(shown[0], shown[1])
    assert (half.data.preview(image, n_views=2, channels=1)[:, 16, 16] == 100).all()


@pytest.mark.parametrize(("stored", "wanted"), [(424, 224), (424, 64), (65, 32), (128, 128), (48, 100)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_cpu_sees_is_what_a_gpu_sees(half, stored, wanted, channels):
    images = np.random.default_rng(1).integers(0, 256, (6, stored, stored, 3), dtype=np.uint8)
    views = np.concatenate([augment.views(5, seed=7, epoch=0), augment.centre_views(1)])
    on_gpu = half.data._resample(tensor(half, images), tensor(half, views), channels, wanted)
    np.testing.assert_allclose(augment.look(images, views, channels, wanted), from_model(half, on_gpu), atol=1e-3)
