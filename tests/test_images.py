"""Image files against known pixels; the image store: whole, resumable, cheap to open, clear about bad files."""

import errno
import gzip
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tifffile
from astropy.io import fits
from PIL import Image

from zoobook import catalogs, simulation
from zoobook.images import BadImage, ImageStore, checks, read_image, store, views
from zoobook.images import fits as fits_images
from zoobook.images.decals import NATIVE_ARCSEC, SKY_NOISE, colour

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 32, 3), dtype=np.uint8)


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def png16(array, path):
    """A 16-bit PNG in colour, which Pillow cannot write, from the format's definition."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)
    return path


def galaxies(folder, count=12, side=40):
    folder.mkdir(exist_ok=True)
    pictures = RNG.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    files = [str(save(picture, folder / f"{i}.png")) for i, picture in enumerate(pictures)]
    return pd.DataFrame({"id_str": [f"g{i}" for i in range(count)], "file_loc": files}), pictures


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded, in order."""
    files = []
    monkeypatch.setattr(store, "read_image", lambda path, *more: files.append(path) or read_image(path, *more))
    return files


# ---- one file


def test_eight_bits(tmp_path):
    assert (read_image(save(RGB, tmp_path / "a.png")) == RGB).all()
    assert (read_image(save(RGB[..., 0], tmp_path / "grey.png")) == RGB[..., :1]).all()
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    assert abs(read_image(save(smooth, tmp_path / "a.jpg", quality=95)).astype(int) - smooth).max() <= 12
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(tmp_path / "p.png")
    assert (read_image(tmp_path / "p.png") == np.asarray(palette.convert("RGB"))).all()


def test_sixteen_bits(tmp_path):
    grey = np.linspace(0, 65535, 40 * 32).astype(np.uint16).reshape(40, 32)
    got = read_image(save(grey, tmp_path / "g.png"))
    assert (got == np.round(grey / 257)[..., None]).all() and got.min() == 0 and got.max() == 255
    colour = np.stack([grey, grey[::-1], 65535 - grey], axis=-1)
    assert abs(read_image(png16(colour, tmp_path / "c.png")) - colour / 257).max() < 1
    for dark in (save(grey // 16, tmp_path / "g.png"), png16(colour // 16, tmp_path / "c.png")):
        with pytest.warns(UserWarning, match="no value above 4095 of 65535, so it is almost black"):
            read_image(dark)


def test_transparent_pixels_lie_over_black(tmp_path):
    alpha = RNG.integers(0, 256, (40, 32, 1), dtype=np.uint8)
    got = read_image(save(np.concatenate([RGB, alpha], axis=2), tmp_path / "a.png"))
    assert abs(got - RGB * (alpha / 255)).max() <= 1
    grey = read_image(save(np.concatenate([RGB[..., :1], alpha], axis=2), tmp_path / "la.png"))
    assert abs(grey - RGB[..., :1] * (alpha / 255)).max() <= 1


def test_turned_pictures_are_upright(tmp_path):
    notes = Image.Exif()
    notes[0x112] = 6  # the camera was turned by a quarter
    got = read_image(save(RGB, tmp_path / "a.png", exif=notes))
    assert (got == np.rot90(RGB, -1)).all()
    assert (read_image(save(RGB, tmp_path / "b.png", exif=b"Exif\0\0of no known kind")) == RGB).all()


def test_what_a_tiff_says_of_its_numbers_is_heeded(tmp_path):
    grey = RNG.integers(0, 65536, RGB.shape[:2], dtype=np.uint16)
    right = np.round(grey / 257)[..., None].repeat(3, 2)
    tifffile.imwrite(tmp_path / "white.tif", 65535 - grey, photometric="miniswhite")
    assert (read_image(tmp_path / "white.tif") == right).all()
    pairs = (grey >> 4).reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    content = save(packed.astype(np.uint8).reshape(40, 48).view(np.uint16), tmp_path / "12.tif").read_bytes()
    for tag, kind, *values in ((256, 4, 24, 32), (258, 3, 16, 12)):
        written, meant = (struct.pack("<HHII", tag, kind, 1, value) for value in values)
        assert content.count(written) == 1
        content = content.replace(written, meant)
    (tmp_path / "12.tif").write_bytes(content)
    assert abs(read_image(tmp_path / "12.tif") - right).max() <= 1
    tifffile.imwrite(tmp_path / "planes.tif", np.stack([grey] * 3), photometric="rgb", planarconfig="separate")
    with pytest.raises(BadImage, match="one after the other"):
        read_image(tmp_path / "planes.tif")
    content = save(grey, tmp_path / "clear.png").read_bytes()
    clear = b"tRNS" + struct.pack(">H", grey[0, 0])
    clear, at = struct.pack(">I", 2) + clear + struct.pack(">I", zlib.crc32(clear)), content.index(b"IDAT") - 4
    (tmp_path / "clear.png").write_bytes(content[:at] + clear + content[at:])
    assert (read_image(tmp_path / "clear.png") == np.where(grey == grey[0, 0], 0, right[..., 0])[..., None]).all()


def sky_and_noise(plane):
    frame = np.ones(plane.shape, bool)
    frame[11:-11, 11:-11] = False
    sky = np.median(plane[frame])
    return sky, 1.4826 * np.median(abs(plane[frame] - sky))


def galaxy(amplitude=50.0, noise=1.0, side=100):
    y, x = np.mgrid[:side, :side] - side / 2 + 8.0
    return 7 + amplitude * np.exp(-np.hypot(x, y) / 5) + noise * np.random.default_rng(1).normal(size=(side, side))


def test_fits_grey(tmp_path):
    flux = galaxy().astype(np.float32)
    fits.writeto(tmp_path / "a.fits", flux)
    got = read_image(tmp_path / "a.fits")
    assert (got[..., 0] == got[..., 1]).all() and (got[..., 0] == got[..., 2]).all()
    picture = got[::-1, :, 0]  # the lowest row comes last
    assert np.argmax(picture) == np.argmax(flux)
    order = np.argsort(flux.ravel())
    assert (np.diff(picture.ravel()[order].astype(int)) >= 0).all()
    corner = picture[-30:, -30:]
    assert abs(np.median(corner) - 17) <= 3 and 7 < corner.std() < 12
    sky, noise = sky_and_noise(flux)
    light = 0.0033 / noise * (flux - sky)  # the noise of r in Galaxy Zoo DECaLS
    expected = colour(np.stack([light * share for share in (0.008 / 0.014, 1, 0.019 / 0.014)]))[..., 0].astype(int)
    assert abs(picture - expected).max() <= 1


FORMS = ["plain", "gz", "compressed", "extension", "extra axis", "scaled integers", "no ending"]


@pytest.mark.parametrize("kind", FORMS)
def test_fits_in_every_form(tmp_path, kind):
    planes = np.stack([galaxy(20, 0.5), galaxy(40, 1), galaxy(80, 3)]).astype(np.float32)
    hdu = fits.PrimaryHDU(planes[None] if kind == "extra axis" else planes)
    if kind == "scaled integers":
        hdu.scale("int16", bzero=40, bscale=1 / 300)
    hdus = {
        "compressed": [fits.PrimaryHDU(), fits.CompImageHDU(planes, compression_type="GZIP_1", quantize_level=0)],
        "extension": [fits.PrimaryHDU(), fits.ImageHDU(planes)],
    }.get(kind, [hdu])
    path = tmp_path / {"gz": "a.fits.gz", "no ending": "a"}.get(kind, "a.fits")
    fits.HDUList(hdus).writeto(path)
    got = read_image(path).astype(int)
    skies, noises = zip(*map(sky_and_noise, planes), strict=True)
    unit = np.mean(np.array(noises) / (0.002, 0.0033, 0.0058))
    expected = colour((planes - np.array(skies)[:, None, None]) / unit)[::-1].astype(int)
    assert abs(got - expected).max() <= 1 + (kind == "scaled integers")


@pytest.mark.parametrize(("size", "frame"), [(128, None), (320, 64.0)])  # pixels larger and smaller than the survey's
def test_fits_looks_as_the_survey_pictures_it(tmp_path, size, frame):
    """Whatever unit, sky and size of pixel it has, a galaxy in g, r, z comes out as the survey itself would show it."""
    truth = simulation.draw_truth(60, seed=4)
    rng, apart = np.random.default_rng(0), []
    for row in truth[truth["true_artifact"] == "none"].head(30).to_dict("records"):
        row["true_frame_arcsec"] = frame or row["true_frame_arcsec"]
        side = row["true_frame_arcsec"] / size
        light = simulation.noise_free(row, size, seed=4, clutter=True)
        native = NATIVE_ARCSEC / side  # independent noise in large pixels; small ones share that of a native pixel
        noise = SKY_NOISE[:, None, None] * row["true_noise"] * np.where(native < 1, 1 / native, 1 / native**2)
        light += noise * rng.normal(size=light.shape)
        header = fits.Header({"CTYPE1": "RA---TAN", "CDELT1": -side / 3600})
        header.update({"CTYPE2": "DEC--TAN", "CDELT2": side / 3600})
        fits.writeto(tmp_path / "a.fits", 17 + 5 * light[:, ::-1], header, overwrite=True)
        theirs = simulation.render(row, size, seed=4).astype(int)
        apart.append(read_image(tmp_path / "a.fits").astype(int) - theirs)
    apart = np.stack(apart)
    # Mostly sky. Haloes that reach the edge are taken for sky there, so it comes out a little darker.
    assert -2 < np.median(apart.mean(axis=(1, 2, 3))) < 1
    assert (abs(apart.mean(axis=(0, 1, 2))) < 4).all()  # in each colour
    # The galaxies: 9 levels are a factor of 1.3. A little darker, because neighbours at the edge count as noise.
    middle = slice(3 * size // 8, 5 * size // 8)
    assert -5 < np.median(apart[:, middle, middle].mean(axis=(1, 2, 3))) < 2


@pytest.mark.parametrize(("cards", "arcsec"), [
    ({"CDELT1": -0.5 / 3600, "CDELT2": 0.5 / 3600}, 0.5),
    ({"CDELT1": -0.5, "CDELT2": 0.5, "CUNIT1": "arcsec", "CUNIT2": "arcsec"}, 0.5),
    ({"CD1_1": 0, "CD1_2": 0.4 / 3600, "CD2_1": 0.4 / 3600, "CD2_2": 0}, 0.4),
    ({"CDELT1": -0.5 / 3600, "CDELT2": 0.5 / 3600, "CTYPE3": "FREQ"}, 0.5),
    ({}, np.nan),  # of a header without scale, the standard says one degree
    ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR", "CDELT1": 3.0, "CDELT2": 3.0}, np.nan),
    ({"CTYPE1": "", "CTYPE2": ""}, np.nan),
])  # fmt: skip
def test_fits_size_of_a_pixel(cards, arcsec):
    header = fits.PrimaryHDU(np.zeros((3, 20, 20))).header
    header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"} | cards)
    assert fits_images.pixel_arcsec(header) == pytest.approx(arcsec, nan_ok=True)


def test_fits_with_an_empty_filter_keeps_the_brightness_of_the_others(tmp_path):
    planes = np.stack([galaxy(20, 0.5), galaxy(40, 1), galaxy(80, 3)])
    unit = np.mean([sky_and_noise(plane)[1] for plane in planes[:2]] / SKY_NOISE[:2])
    planes[2] = 0
    fits.writeto(tmp_path / "a.fits", planes)
    light = np.stack([*((plane - sky_and_noise(plane)[0]) / unit for plane in planes[:2]), planes[2]])
    assert abs(read_image(tmp_path / "a.fits")[::-1].astype(int) - colour(light)).max() <= 1


def test_fits_nan_is_sky_and_a_picture_without_noise_shows(tmp_path):
    flux = galaxy()
    flux[60:80, 60:80] = np.nan
    fits.writeto(tmp_path / "a.fits", flux)
    hole = read_image(tmp_path / "a.fits")[::-1][60:80, 60:80]
    assert hole.min() == hole.max() and 10 < hole[0, 0, 0] < 22
    fits.writeto(tmp_path / "b.fits", galaxy(noise=0) * 1e-9)
    clean = read_image(tmp_path / "b.fits")
    assert clean.max() > 250 and np.median(clean) < 80


@pytest.mark.parametrize("values, sky, wide", [
    ((-9999,), 0, 9), ((1e30,), 0, 9), ((0,), 1000, 9),  # the last: no data beyond an edge
    ((-9999, 1e30), 0, 18), ((-9999, -999), 0, 18), ((1e38, -1e38), 0, 18), ((-5432,), 0, 30), ((0,), -7, 30),
    ((-9999,), 0, 0.5), ((1e30,), 0, 0.5), ((-32768,), 300, 0.5),
    ((0, 0, 0), -7, 60), ((0, 0, 0), -7, 72),  # more than half of the image
])  # fmt: skip
def test_values_that_stand_for_no_observation_are_gaps(tmp_path, values, sky, wide):
    pictures = []
    for name, gaps in (("value", values), ("nan", [np.nan] * len(values)), ("whole", None)):
        flux = galaxy().astype(np.float32) + np.float32(sky)
        for n, gap in enumerate(gaps or ()):
            flux[(3 if n or wide < 50 else 0) + 40 * n : 43 + 40 * n if wide >= 1 else 9, : max(1, int(wide))] = gap
        fits.writeto(tmp_path / f"{name}.fits", flux)
        pictures.append(read_image(tmp_path / f"{name}.fits"))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


COUNTS = np.random.default_rng(2).poisson(0.3 + galaxy(noise=0) / 20 - 0.35)


@pytest.mark.parametrize("data", [
    np.pad(galaxy(noise=0)[20:-20, 20:-20] - 7, 20),  # black around it, as segmented stamps are
    np.pad(galaxy()[25:-35, 25:-35] - 7, (25, 35)),  # with some of the noise around
    np.where(galaxy(noise=0) > 30, 60000, galaxy()),  # saturated
    np.where(galaxy(noise=0) > 30, 255, np.clip(galaxy(), 0, 20)),
    np.round(galaxy() * 3), galaxy() - 99, np.round(galaxy() * 2 - 14) / 2, np.round((galaxy() - 7) * 4) * 0.25,
    COUNTS, COUNTS / 1234.5, (COUNTS - 0.3) / 1000, (galaxy() - 7) * 1e21,
], ids=str)  # fmt: skip
def test_light_is_not_taken_for_a_stand_in(data):
    assert not checks.find_gaps(data.astype(float)).any()


@pytest.mark.parametrize("name", ["PSF_MATCHED", "SIGMA-CLIPPED MEAN", "VAR_STAR_FIELD", "NOISE_FREE", "WHT COADD",
                                  "MASKED_IMAGE", "IMAGE_DATA", "SKY_IMAGE", "LONG_EXPOSURE", "MAP"])  # fmt: skip
def test_images_whose_names_hold_such_words_are_images(tmp_path, name):
    hdus = [fits.ImageHDU(galaxy(), name=name), fits.ImageHDU(galaxy(noise=9), name="MODEL")]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits")
    fits.writeto(tmp_path / "b.fits", galaxy())
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits"), read_image(tmp_path / "b.fits"))


def test_weights_are_never_taken_for_the_image(tmp_path):
    flux, weight = galaxy(), galaxy(noise=5) ** 2 + 1
    fits.writeto(tmp_path / "plain.fits", np.stack([flux] * 3))
    for n, words in enumerate([("IMAGE_{}", "INVVAR_{}"), ("{}", "{}_WEIGHT"), ("{}", "WHT-{}"), ("SCI_{}", "ERR_{}")]):
        for order in (1, -1):
            hdus = [fits.ImageHDU(pixels, name=word.format(band)) for band in "GRZ"
                    for word, pixels in list(zip(words, (flux, weight), strict=True))[::order]]  # fmt: skip
            file = tmp_path / f"{n}{order}.fits"
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(file)
            np.testing.assert_array_equal(read_image(file), read_image(tmp_path / "plain.fits"))
    fits.writeto(tmp_path / "grey.fits", flux)
    for name in ("VARIANCE", "MASKBITS", "IVM", "VAR_POISSON", "DATA_QUALITY", "STD", "STDEV", "WEIGHT_IMAGE", "SKYVAR",
                 "BADPIXELS", "NAN_MASK", "OBJECTS_MASK", "CRMASK", "RMS_MAP", "BKG_RMS"):  # fmt: skip
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(weight, name=name), fits.ImageHDU(flux, name="INTENSITY")]
        fits.HDUList(hdus).writeto(tmp_path / "b.fits", overwrite=True)
        np.testing.assert_array_equal(read_image(tmp_path / "b.fits"), read_image(tmp_path / "grey.fits"), name)


def test_unsigned_64_bit_pixels_keep_their_digits(tmp_path):
    flux = np.round(1e6 + 1000 * galaxy())
    for kind in ("u8", "i8"):
        fits.writeto(tmp_path / f"{kind}.fits", flux.astype(kind))
    np.testing.assert_array_equal(read_image(tmp_path / "u8.fits"), read_image(tmp_path / "i8.fits"))


def bad_files(folder):
    """One of each kind of bad file, with what must be said of it."""
    png, jpg = (folder / "ok.png"), (folder / "ok.jpg")
    big = RNG.integers(0, 256, (100, 100, 3), dtype=np.uint8)
    save(big, png), save(big, jpg)

    def made(name, data):
        (folder / name).write_bytes(data)
        return folder / name

    flux = galaxy().astype(np.float32)
    fits.writeto(folder / "ok.fits", flux)
    fits.writeto(folder / "nan.fits", np.where(np.arange(100) < 20, flux, np.nan))
    fits.writeto(folder / "flat.fits", np.ones((50, 50)))
    fits.writeto(folder / "five.fits", np.ones((5, 50, 50)))
    fits.writeto(folder / "plane.fits", np.stack([flux, flux, np.full_like(flux, -9999)]))
    fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(3))]).writeto(folder / "table.fits")
    bomb = png.read_bytes()[:16] + struct.pack(">II", 60000, 60000) + png.read_bytes()[24:29]
    edge = np.zeros((100, 100, 3), np.uint8)
    edge[:, :20] = big[:, :20]
    return [
        (folder / "none.png", "the file is missing"),
        (made("cut.png", png.read_bytes()[: png.stat().st_size // 2]), "truncated or damaged"),
        (made("cut.jpg", jpg.read_bytes()[: jpg.stat().st_size // 2]), "truncated or damaged"),
        (made("empty.jpg", b""), r"empty \(0 bytes\)"),
        (made("text.png", b"id_str,file_loc\n"), r"no image file.*b'id_str,file_'"),
        (made("bomb.png", bomb + struct.pack(">I", zlib.crc32(bomb[12:])) + png.read_bytes()[33:]), "100,000,000"),
        (save(big[:1, :1], folder / "one.png"), "too small: 1 × 1 pixels"),
        (save(edge, folder / "edge.png"), "80% of it is blank"),
        (save(edge * 0 + 9, folder / "constant.jpg"), "100% of it is blank"),
        (folder / "nan.fits", "80% of its pixels are blank"),
        (folder / "flat.fits", "all pixels have the same value"),
        (folder / "five.fits", r"shape \(5, 50, 50\)"),
        (folder / "plane.fits", "one of its planes is blank"),
        (folder / "table.fits", "a FITS file without an image"),
        (made("cut.fits", (folder / "ok.fits").read_bytes()[:20000]), "not a whole FITS file"),
        (made("text.fits", b"hello"), "not a FITS file.*b'hello'"),
        (made("cut.fits.gz", gzip.compress((folder / "ok.fits").read_bytes())[:9000]), "not a whole FITS file"),
        (folder, "cannot be read"),
    ]


@pytest.mark.filterwarnings("ignore:File may have been truncated", "ignore:Image size")
def test_bad_files_are_named_with_their_cause(tmp_path):
    picture, more = Image.fromarray(RGB), {"print.jpg": "CMYK.*save it as RGB", "float.tif": "floating-point"}
    picture.convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    picture.convert("I").save(tmp_path / "whole.tif")
    more["whole.tif"] = "32-bit numbers"  # of which nobody knows what is white
    for name in ("two.gif", "two.png", "two.tiff"):
        picture.save(tmp_path / name, save_all=True, append_images=[Image.fromarray(255 - RGB)])
        more[name] = "2 frames or pages"
    for path, cause in bad_files(tmp_path) + [(tmp_path / name, cause) for name, cause in more.items()]:
        with pytest.raises(BadImage, match=cause) as error:
            read_image(path)
        assert str(error.value) == f"{path}: {error.value.cause}"


# ---- the store


def test_store_holds_what_the_files_hold(tmp_path):
    catalog, pictures = galaxies(tmp_path / "in")
    store = ImageStore.build(catalog, tmp_path / "out" / "a.arrow", size=40)
    assert store.pixels.dtype == np.uint8 and (store.pixels == pictures).all()
    assert store.ids.tolist() == catalog["id_str"].tolist() and len(store) == 12 and store.size == 40
    assert len(store.quarantine) == 0 and list(store.quarantine.columns) == ["id_str", "file_loc", "cause"]
    assert store.rows(["g3", "g0", "g3"]).tolist() == [3, 0, 3]
    with pytest.raises(ValueError, match=r"2 of 3 galaxies are not in the image store .*a\.arrow: 'x', '7'"):
        store.rows(["x", "g1", 7])
    assert {*os.listdir(tmp_path / "out")} - {".a.arrow.lock"} == {"a.arrow"}  # some versions of filelock delete theirs
    with pa.memory_map(str(store.path)) as file:  # any reader of Arrow can read it
        whole = pa.ipc.open_file(file).read_all()
        assert (whole.column("image").chunk(0).to_numpy_ndarray() == pictures).all()


def test_store_is_mapped_not_read(tmp_path):
    catalog, pictures = galaxies(tmp_path / "in")
    store = ImageStore.build(catalog, tmp_path / "a.arrow", size=40)
    assert not store.pixels.flags.writeable and not store.pixels.flags.owndata
    before = pa.total_allocated_bytes()
    again = pickle.loads(pickle.dumps(store))
    assert pa.total_allocated_bytes() - before < pictures.nbytes / 10 and (again.pixels == pictures).all()
    assert len(pickle.dumps(store)) < 500  # what a worker process is sent


def test_images_are_cut_to_a_square_and_resized_by_area(tmp_path):
    checks = (np.indices((64, 96)).sum(axis=0) % 2 * 255).astype(np.uint8)
    ramp = np.repeat(np.arange(96, dtype=np.uint8)[None] * 2, 64, axis=0)
    files = [str(save(checks, tmp_path / "c.png")), str(save(ramp, tmp_path / "r.png"))]
    store = ImageStore.build(pd.DataFrame({"id_str": ["c", "r"], "file_loc": files}), tmp_path / "a.arrow", size=16)
    assert abs(store.pixels[0].astype(int) - 127.5).max() < 20  # fine checks become grey, not other checks
    centres = 16 + 4 * np.arange(16) + 1.5  # columns 16 to 80 remain
    assert abs(store.pixels[1, :, 1:-1, 0] - 2 * centres[1:-1]).max() <= 1


def test_a_store_states_its_framing(tmp_path, decoded):
    catalog, pictures = galaxies(tmp_path / "in")
    (tmp_path / "in" / "4.png").write_bytes(b"oops")
    path = tmp_path / "a.arrow"
    assert ImageStore.build(catalog, path, size=40, bad="quarantine").framing == 17
    again = ImageStore.build(catalog, path, size=40, bad="quarantine", framing=np.float32(8.5))
    assert again.framing == ImageStore.open(path).framing == pickle.loads(pickle.dumps(again)).framing == 8.5
    assert len(decoded) == 12 and (again.pixels == np.delete(pictures, 4, axis=0)).all()  # only the statement is new
    assert len(again.quarantine) == 1 and len(ImageStore.open(path).quarantine) == 1


def test_second_build_decodes_nothing_and_changes_are_seen(tmp_path, decoded):
    catalog, _ = galaxies(tmp_path / "in")
    ImageStore.build(catalog, tmp_path / "a.arrow", size=16)
    assert len(decoded) == 12
    changed = (tmp_path / "a.arrow").stat().st_mtime_ns
    (tmp_path / ".a.arrow.lock").unlink(missing_ok=True)
    ImageStore.build(catalog, tmp_path / "a.arrow", size=16)
    assert len(decoded) == 12 and (tmp_path / "a.arrow").stat().st_mtime_ns == changed
    assert not (tmp_path / ".a.arrow.lock").exists()  # nothing is written: the folder may be read-only
    save(RGB[:32], catalog["file_loc"][5])
    store = ImageStore.build(catalog, tmp_path / "a.arrow", size=32)
    assert (store.pixels[5] == RGB[:32]).all() and len(decoded) == 24
    assert ImageStore.build(catalog[::-1], tmp_path / "a.arrow", size=32).ids[0] == "g11"


def test_bad_files_are_an_error_that_keeps_the_others(tmp_path, decoded):
    catalog, pictures = galaxies(tmp_path / "in")
    for row in (2, 7):
        (tmp_path / "in" / f"{row}.png").write_bytes(b"oops")
    with pytest.raises(BadImage, match=r"(?s)2 of 12 images cannot be used:.*2\.png: .*b'oops'.*7\.png: .*quarantine"):
        ImageStore.build(catalog, tmp_path / "a.arrow", size=40)
    assert not (tmp_path / "a.arrow").exists() and len(decoded) == 12
    for row in (2, 7):
        save(pictures[row], catalog["file_loc"][row])
    assert (ImageStore.build(catalog, tmp_path / "a.arrow", size=40).pixels == pictures).all()
    assert sorted(decoded[12:]) == [catalog["file_loc"][2], catalog["file_loc"][7]]  # by threads, in any order


@pytest.mark.filterwarnings("ignore:File may have been truncated", "ignore:Image size")
def test_quarantine(tmp_path, decoded):
    catalog, pictures = galaxies(tmp_path / "in")
    (tmp_path / "bad").mkdir()
    bad = bad_files(tmp_path / "bad")
    mixed = pd.DataFrame({"id_str": [f"b{i}" for i in range(len(bad))], "file_loc": [str(file) for file, _ in bad]})
    catalog = pd.concat([mixed[:3], catalog[:5], mixed[3:9], catalog[5:], mixed[9:]], ignore_index=True)
    store = ImageStore.build(catalog, tmp_path / "a.arrow", size=40, bad="quarantine")
    assert (store.pixels == pictures).all() and store.ids.tolist() == [f"g{i}" for i in range(12)]
    listed = pd.read_parquet(tmp_path / "a.arrow.quarantine.parquet")
    assert store.quarantine.equals(listed) and listed["cause"][0] == "the file is missing"
    assert listed[["id_str", "file_loc"]].to_numpy().tolist() == mixed[["id_str", "file_loc"]].to_numpy().tolist()
    count = len(decoded)
    assert len(ImageStore.build(catalog, tmp_path / "a.arrow", size=40, bad="quarantine")) == 12
    with pytest.raises(BadImage, match=f"{len(bad)} of {len(catalog)} images cannot be used"):
        ImageStore.build(catalog, tmp_path / "a.arrow", size=40)
    assert len(decoded) == count and len(ImageStore.open(tmp_path / "a.arrow")) == 12  # nothing is lost by asking
    with pytest.raises(BadImage, match=f"{len(bad)} of {len(bad)}"):
        ImageStore.build(mixed, tmp_path / "b.arrow", size=40, bad="quarantine")


KILLED = """
import os, pandas as pd
from zoobook.images import store, store_file
read, count = store.read_image, []
def slow(path, *more):
    count.append(path)
    if len(count) > 30:
        os.kill(os.getpid(), 9)
    return read(path, *more)
store.read_image = slow
store_file._BATCH = 4
store.ImageStore.build(pd.read_csv("catalog.csv"), "a.arrow", size=40)
"""


def test_killed_and_resumed(tmp_path, decoded):
    catalog, pictures = galaxies(tmp_path / "in", count=60)
    catalog.to_csv(tmp_path / "catalog.csv", index=False)
    assert subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, capture_output=True).returncode == -9
    store = ImageStore.build(catalog, tmp_path / "a.arrow", size=40)
    assert (store.pixels == pictures).all() and 30 <= len(decoded) <= 36


@pytest.mark.parametrize("limit", [100_000, 292_200])  # bytes: met while decoding; while completing the file
def test_a_write_that_fails_keeps_what_is_done(tmp_path, decoded, limit):
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    catalog, pictures = galaxies(tmp_path / "in", count=60)  # 288,000 bytes of pixels, from byte 4096 on
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        with pytest.raises(OSError, match="cannot write to the folder .*What is finished is kept"):
            ImageStore.build(catalog, tmp_path / "a.arrow", size=40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert not (tmp_path / "a.arrow").exists()
    decoded.clear()
    assert (ImageStore.build(catalog, tmp_path / "a.arrow", size=40).pixels == pictures).all()
    assert len(decoded) == 60 - min((limit - 4096) // 4800, 60)


def test_a_link_that_leads_elsewhere_now_is_another_image_and_rights_are_none(tmp_path, decoded):
    catalog, pictures = galaxies(tmp_path / "in", count=3)
    files = [Path(file).with_suffix(".bmp") for file in catalog["file_loc"]]  # all of one size and age
    for file, picture in zip(files, pictures, strict=True):
        save(picture, file)
        os.utime(file, ns=(10**18, 10**18))
    link = tmp_path / "link.bmp"
    link.symlink_to(files[0])
    catalog["file_loc"] = [str(link), *map(str, files[1:])]
    assert (ImageStore.build(catalog, tmp_path / "a.arrow", size=40).pixels == pictures).all()
    link.unlink()
    link.symlink_to(files[1])
    assert (ImageStore.build(catalog, tmp_path / "a.arrow", size=40).pixels == pictures[[1, 1, 2]]).all()
    decoded.clear()
    files[2].chmod(0o644)
    os.link(files[2], tmp_path / "twice.bmp")
    ImageStore.build(catalog, tmp_path / "a.arrow", size=40)
    assert not decoded


def test_what_could_not_be_read_is_tried_again_once_it_can(tmp_path, monkeypatch):
    catalog, pictures = galaxies(tmp_path / "in", count=3)
    closed = catalog["file_loc"][1]
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda file, mode: file != closed)
        patch.setattr(store, "read_image", lambda file, *more: read_image(tmp_path if file == closed else file))
        assert len(ImageStore.build(catalog, tmp_path / "a.arrow", size=40, bad="quarantine")) == 2
    assert (ImageStore.build(catalog, tmp_path / "a.arrow", size=40, bad="quarantine").pixels == pictures).all()


def test_a_store_reached_by_a_link_stays_where_it_is(tmp_path):
    catalog, pictures = galaxies(tmp_path / "in", count=3)
    (tmp_path / "disk").mkdir()
    link, there = tmp_path / "link.arrow", tmp_path / "disk/a.arrow"
    link.symlink_to(there)
    Path(catalog["file_loc"][0]).unlink()
    for framing in (17, 6):
        made = ImageStore.build(catalog, link, size=40, bad="quarantine", framing=framing)
        assert link.is_symlink() and made.path == there and (made.pixels == pictures[1:]).all()
        assert len(ImageStore.open(link).quarantine) == 1 and ImageStore.open(there).framing == framing


def test_no_room_and_no_folder(tmp_path, monkeypatch):
    catalog, _ = galaxies(tmp_path / "in")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write to the folder .*file"):
        ImageStore.build(catalog, tmp_path / "file" / "a.arrow", size=40)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    needed = "12 images of 40 × 40 pixels need 61,696 bytes more in .* has 1,000 free"
    with pytest.raises(OSError, match=needed) as error:
        ImageStore.build(catalog, tmp_path / "a.arrow", size=40)
    assert error.value.errno == errno.ENOSPC


def test_two_builds_at_once_share_the_work(tmp_path, decoded):
    catalog, pictures = galaxies(tmp_path / "in")
    with ThreadPoolExecutor(2) as pool:
        stores = list(pool.map(lambda _: ImageStore.build(catalog, tmp_path / "a.arrow", size=40), range(2)))
    assert len(decoded) == 12 and all((store.pixels == pictures).all() for store in stores)


def test_another_size_in_between_mixes_nothing(tmp_path, monkeypatch):
    """What an interrupted build of one size has left is not taken for pixels of the other."""
    catalog, pictures = galaxies(tmp_path / "in")

    def until(row, size):
        left = iter(range(row))
        monkeypatch.setattr(store, "read_image", lambda *args: next(left) + 1 and read_image(*args))
        with pytest.raises((RuntimeError, StopIteration)):
            ImageStore.build(catalog, tmp_path / "a.arrow", size=size)

    until(8, 40)
    until(3, 32)
    monkeypatch.setattr(store, "read_image", read_image)
    assert (ImageStore.build(catalog, tmp_path / "a.arrow", size=40).pixels == pictures).all()


def test_what_is_no_store(tmp_path):
    catalog, _ = galaxies(tmp_path / "in")
    store = ImageStore.build(catalog, tmp_path / "a.arrow", size=40)
    with pytest.raises(FileNotFoundError, match=r"no image store at .*none\.arrow"):
        ImageStore.open(tmp_path / "none.arrow")
    whole = store.path.read_bytes()
    other = tmp_path / "other.arrow"
    with pa.OSFile(str(other), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("x", pa.int8())])) as writer:
        writer.write_batch(pa.record_batch([pa.array([1], pa.int8())], names=["x"]))
    foreign = other.read_bytes()
    for data, message in ((foreign, "is not an image store"), (b"hello world " * 9, "is not an image store"),
                          (b"", "was cut short"), (whole[: len(whole) // 2], "was cut short")):  # fmt: skip
        other.write_bytes(data)
        with pytest.raises(ValueError, match=rf"other\.arrow {message}"):
            ImageStore.open(other)
        if "not" in message:
            with pytest.raises(ValueError, match="choose another name"):
                ImageStore.build(catalog, other, size=40)
            assert other.read_bytes() == data
    assert len(ImageStore.build(catalog, other, size=40)) == 12  # a broken store is made again


def test_how_much_of_an_image_may_be_blank_is_ones_own_choice(tmp_path):
    """Another limit judges every image anew, whatever the limit before."""
    catalog, _ = galaxies(tmp_path / "in", count=3)
    flux = galaxy().astype(np.float32)
    half = flux.shape[-1] // 2
    flux[..., half:] = np.nan  # half of it, as at the edge of a survey
    fits.writeto(tmp_path / "half.fits", flux)
    catalog.loc[1, "file_loc"] = str(tmp_path / "half.fits")
    catalog.loc[2, "file_loc"] = str(save(np.full((60, 60, 3), 9, np.uint8), tmp_path / "constant.png"))
    left_out = {0.4: ["g1", "g2"], 0.75: ["g2"], 1: [], 0.3: ["g1", "g2"]}
    for max_blank, ids in left_out.items():
        store = ImageStore.build(catalog, tmp_path / "a.arrow", size=40, bad="quarantine", max_blank=max_blank)
        assert store.quarantine["id_str"].tolist() == ids
        assert store.ids.tolist() == [name for name in ("g0", "g1", "g2") if name not in ids]
    assert "max_blank=0.3" in store.quarantine["cause"][0] and "max_blank=0.3" in store.quarantine["cause"][1]


def test_arguments_are_checked(tmp_path):
    catalog, _ = galaxies(tmp_path / "in", count=2)
    for frame, options, message in [
        (catalog, {"size": 4}, "size must be a whole number, at least 8, not 4"),
        (catalog, {"size": 40, "framing": 0}, "framing must be a positive number"),
        (catalog, {"size": 40, "framing": float("inf")}, "framing must be a positive number.*not inf"),
        (catalog, {"size": 40, "bad": "skip"}, "bad must be 'error' or 'quarantine', not 'skip'"),
        (catalog, {"size": 40, "max_blank": 75}, "max_blank must be a share from 0 to 1, not 75"),
        (catalog.drop(columns="file_loc"), {"size": 40}, "no column .file_loc."),
        (catalog.iloc[:0], {"size": 40}, "the catalogue is empty"),
        (catalog.assign(id_str="a"), {"size": 40}, "'a' in rows 0, 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            ImageStore.build(frame, tmp_path / "a.arrow", **options)


def test_real_galaxies(tmp_path, shared):
    files = sorted((shared / "real" / "originals").glob("*.png"))
    catalog = pd.DataFrame({"id_str": [f.stem for f in files], "file_loc": list(map(str, files))})
    store = ImageStore.build(catalog, tmp_path / "a.arrow", size=53)
    for file, stored in zip(files, store.pixels, strict=True):
        whole = np.asarray(Image.open(file))
        assert (read_image(file) == whole).all()
        by_area = whole.reshape(53, 8, 53, 8, 3).mean(axis=(1, 3))
        assert np.corrcoef(by_area.ravel(), stored.ravel())[0, 1] > 0.98
        assert abs(by_area.mean() - stored.mean()) < 0.5
    assert checks.blank_share(store.pixels[0]) == 0


@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i1", "scaled"])
def test_pixels_declared_undefined_are_gaps(tmp_path, kind):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] - 32
    sky = np.round(60 + 50 * np.exp(-np.hypot(x, y) / 5) + rng.normal(0, 3, (64, 64)))
    gap = x < -12
    if kind == "scaled":  # stored = (value - 40) * 10
        hdu = fits.PrimaryHDU(np.where(gap, -32768, (sky - 40) * 10).astype("i2"))
        hdu.header.update({"BSCALE": 0.1, "BZERO": 40.0, "BLANK": -32768})
    else:
        top, offset = np.iinfo(kind).max, {"u2": 2**15, "u4": 2**31}.get(kind, 128 if kind == "i1" else 0)
        hdu = fits.PrimaryHDU(np.where(gap, top, sky).astype(kind))
        hdu.header["BLANK"] = int(top) - offset if kind != "i1" else int(top) + offset  # as the file stores it
    hdu.writeto(tmp_path / "whole.fits", output_verify="ignore")
    fits.PrimaryHDU(np.where(gap, np.nan, sky)).writeto(tmp_path / "real.fits")
    assert np.array_equal(read_image(tmp_path / "whole.fits"), read_image(tmp_path / "real.fits"))


def test_colours_in_separate_extensions(tmp_path):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:64, :64] - 32
    planes = {band: (scale * np.exp(-np.hypot(x, y) / radius) + rng.normal(0, 0.01, (64, 64))).astype("f4")
              for band, scale, radius in (("g", 1, 4), ("r", 2, 6), ("z", 3, 9))}  # fmt: skip
    fits.PrimaryHDU(np.stack(list(planes.values()))).writeto(tmp_path / "cube.fits")
    fits.PrimaryHDU(planes["z"]).writeto(tmp_path / "one.fits")
    cube, one = read_image(tmp_path / "cube.fits"), read_image(tmp_path / "one.fits")
    named = {"swapped": [("z", "z"), ("g", "g"), ("r", "r")], "words": [(f"DECam {b}", b) for b in "zrg"],
             "more": [("i", "g"), ("z", "z"), ("y", "g"), ("r", "r"), ("g", "g")],
             "unnamed": [("", "g"), ("", "r"), ("", "z")]}  # fmt: skip
    for name, hdus in named.items():
        images = [fits.ImageHDU(planes[band], name=extension) for extension, band in hdus]
        fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / f"{name}.fits")
        assert np.array_equal(read_image(tmp_path / f"{name}.fits"), cube), name
    filters = [fits.ImageHDU(planes[band], fits.Header({"FILTER": band})) for band in "rzg"]
    fits.HDUList([fits.PrimaryHDU(), *filters]).writeto(tmp_path / "filters.fits")
    assert np.array_equal(read_image(tmp_path / "filters.fits"), cube)
    empty = [fits.ImageHDU(planes[band], fits.Header({"FILTER": fits.card.Undefined()}), name=band) for band in "rzg"]
    fits.HDUList([fits.PrimaryHDU(), *empty]).writeto(tmp_path / "empty.fits")
    assert np.array_equal(read_image(tmp_path / "empty.fits"), cube)
    parts = [fits.ImageHDU(planes[band], name=name) for band, name in zip("zgr", ("SCI", "WHT", "ERR"), strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *parts]).writeto(tmp_path / "parts.fits")
    assert np.array_equal(read_image(tmp_path / "parts.fits"), one)  # an image and what belongs to it
    mask = np.zeros((64, 64), np.int16)
    unnamed = [fits.PrimaryHDU(planes["z"]), fits.ImageHDU(planes["g"]), fits.ImageHDU(mask)]
    fits.HDUList(unnamed).writeto(tmp_path / "unnamed_parts.fits")
    named = [fits.PrimaryHDU(), fits.ImageHDU(mask, name="MASK"), fits.ImageHDU(planes["z"], name="IMAGE")]
    fits.HDUList(named).writeto(tmp_path / "mask_first.fits")
    for name in ("unnamed_parts", "mask_first"):
        assert np.array_equal(read_image(tmp_path / f"{name}.fits"), one), name


def test_numbers_of_a_header_may_be_text(tmp_path):
    pixels = RNG.normal(500, 20, (32, 32)).astype(np.int16)
    pixels[:9] = 9000
    numbers = {"BSCALE": 0.5, "BZERO": 3, "BLANK": 9000}
    for name, cards in {"a": numbers, "b": {key: str(value) for key, value in numbers.items()}}.items():
        fits.PrimaryHDU(pixels).writeto(tmp_path / f"{name}.fits")
        with fits.open(tmp_path / f"{name}.fits", mode="update", do_not_scale_image_data=True) as hdus:
            hdus[0].header.update(cards)
    assert np.array_equal(read_image(tmp_path / "a.fits"), read_image(tmp_path / "b.fits"))


def test_what_the_primary_header_says_of_its_extensions(tmp_path):
    cards = {"BLANK": 7, "EXTNAME": "ALL", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-4, "CDELT2": 1e-4}
    pixels, bands = np.round(galaxy()).astype("i2"), [fits.Header({"FILTER": band}) for band in "zrg"]
    for name, own, common in (("own", cards, {}), ("inherited", {"INHERIT": True}, cards), ("none", {}, cards)):
        primary = fits.PrimaryHDU(header=fits.Header(common))
        images = [fits.ImageHDU(pixels + n, header.copy()) for n, header in enumerate(bands)]
        for image in images:
            image.header.update({key: value for key, value in own.items() if key not in ("BLANK", "EXTNAME")})
        fits.HDUList([primary, *images]).writeto(tmp_path / f"{name}.fits")
    own, inherited, none = (read_image(tmp_path / f"{name}.fits") for name in ("own", "inherited", "none"))
    assert (own == inherited).all() and (own != none).any()


def test_a_store_whose_table_of_what_it_leaves_out_is_lost(tmp_path):
    catalog = galaxies(tmp_path / "in")[0].assign(file_loc=lambda table: ["gone.png", *table["file_loc"][1:]])
    path = tmp_path / "a.arrow"
    ImageStore.build(catalog, path, size=40, bad="quarantine")
    (tmp_path / "a.arrow.quarantine.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="quarantine.parquet, the table of what .* leaves out, is missing"):
        _ = ImageStore.open(path).quarantine
    assert len(ImageStore.build(catalog, path, size=40, bad="quarantine").quarantine) == 1


@pytest.mark.parametrize("axes", [(20000, 20000), (64, 64, 300)])
def test_size_is_checked_before_the_pixels_are_read(tmp_path, monkeypatch, axes):
    header = fits.Header([("SIMPLE", True), ("BITPIX", 16), ("NAXIS", len(axes))])
    header.extend([(f"NAXIS{n}", length) for n, length in enumerate(axes, 1)])
    with open(tmp_path / "m.fits", "wb") as file:
        file.write(header.tostring().encode())
        file.truncate(file.tell() + -(-2 * int(np.prod(axes)) // 2880) * 2880)

    def read(hdu):
        raise AssertionError("its pixels were read")

    monkeypatch.setattr(fits.PrimaryHDU, "data", property(read))
    with pytest.raises(BadImage, match="too large|has the shape"):
        read_image(tmp_path / "m.fits")


def test_the_home_folder_in_a_catalogue(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16), "uint8")).save(tmp_path / "a.png")
    table = pd.DataFrame({"id_str": [" 7 "], "file_loc": ["~/a.png"]})
    table.to_csv(tmp_path / "c.csv", index=False)
    assert read_image("~/a.png").shape == (16, 16, 3)
    for catalog in (table, catalogs.read(table), catalogs.read("~/c.csv")):
        store = ImageStore.build(catalog, "~/s.arrow", 16)
        assert store.path == tmp_path / "s.arrow" and store.rows([7]).tolist() == store.rows("7").tolist() == [0]
    with pytest.raises(ValueError, match="floating-point"):
        store.rows([7.0])


@pytest.mark.parametrize(("image", "options", "message"), [
    (np.ones((32, 32, 3), np.float32), {}, "0 to 255, not float32 .32, 32, 3.; read_image"),
    (np.ones((32, 64, 3), np.uint8), {}, "one square picture.*not uint8 .32, 64, 3."),
    (np.ones((32, 32), np.uint8), {}, "not uint8 .32, 32."), (np.ones((32, 32, 4), np.uint8), {}, "32, 32, 4"),
    ([[[1, 2, 3]]], {}, "not this list"), (Image.new("RGB", (8, 8)), {}, "not this Image"),
    (np.ones((8, 8, 3), np.uint8), {"seed": -1}, "seed must be"),
    (np.ones((8, 8, 3), np.uint8), {"share": np.nan}, "share must be"),
    (np.ones((8, 8, 3), np.uint8), {"channels": 2}, "channels must be"),
])  # fmt: skip
def test_what_is_no_picture_has_no_preview(image, options, message):
    with pytest.raises(ValueError, match=message):
        views.preview(image, 1, **options)


@pytest.mark.parametrize(("count", "size", "message"), [(2, 0, "image_size must be"), (1, 8, "2 images and 1 views")])
def test_images_that_cannot_be_seen(count, size, message):
    with pytest.raises(ValueError, match=message):
        views.apply_view(np.zeros((2, 8, 8, 3), np.uint8), views.centre_views(count), 3, size)
