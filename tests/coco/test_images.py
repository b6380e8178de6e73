"""Pixels as the reference preprocessing has them, and broken images found before anything starts."""

import numpy as np
import pytest
from PIL import Image

from kvtune.coco import check_images, load_image
from kvtune.errors import RequestError


@pytest.fixture
def photo():
    values = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "LA", "1", "I;16", "I", "F", "YCbCr"])
def test_every_mode_gives_the_pixels_of_a_plain_conversion(tmp_path, photo, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg", "F": "tiff", "I": "tiff"}.get(mode, "png")
    image = photo.convert("L").convert(mode) if mode in ("I;16", "I", "F") else photo.convert(mode)
    path = tmp_path / f"image.{suffix}"
    image.save(path)
    loaded = load_image(path)
    assert (loaded.mode, loaded.size) == ("RGB", (20, 12))
    assert np.array_equal(np.asarray(loaded), np.asarray(Image.open(path).convert("RGB")))


def test_exif_orientation_is_not_applied(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to display
    path = tmp_path / "turned.jpg"
    photo.save(path, exif=exif)
    assert Image.open(path).getexif()[0x0112] == 6
    loaded = load_image(path)
    assert loaded.size == (20, 12)
    assert np.array_equal(np.asarray(loaded), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (6000, 4000)])
def test_odd_sizes(tmp_path, size):
    path = tmp_path / "odd.png"
    Image.new("RGB", size, (1, 2, 3)).save(path)
    assert load_image(path).size == size


@pytest.fixture
def broken(tmp_path, photo):
    """One file of each kind that is no image, by what is said about it."""
    whole, cut_jpeg, cut_png = tmp_path / "whole.jpg", tmp_path / "cut.jpg", tmp_path / "cut.png"
    photo.save(whole)
    cut_jpeg.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    photo.save(cut_png)
    cut_png.write_bytes(cut_png.read_bytes()[:200])
    text, empty, folder = tmp_path / "text.jpg", tmp_path / "empty.jpg", tmp_path / "folder.jpg"
    text.write_text("<html>not found</html>")
    empty.write_bytes(b"")
    folder.mkdir()
    return {
        cut_jpeg: "truncated",
        cut_png: "",
        text: "not an image",
        empty: "not an image",
        folder: "directory",
        tmp_path / "none.jpg": "no such file",
    }


def test_broken_images_are_one_line(broken):
    for path, reason in broken.items():
        with pytest.raises(RequestError) as error:
            load_image(path)
        assert str(path) in str(error.value)
        assert reason in str(error.value).lower()
        assert "\n" not in str(error.value)


def test_check_counts_and_names_the_broken_ones(tmp_path, photo, broken):
    good = []
    for number in range(30):
        photo.save(tmp_path / f"{number}.jpg")
        good.append(tmp_path / f"{number}.jpg")
    seen = []
    check_images(good, lambda done, total: seen.append((done, total)))
    assert seen == [(number, 30) for number in range(1, 31)]
    with pytest.raises(RequestError) as error:
        check_images([*good, *broken])
    first = next(iter(broken))
    assert str(error.value).startswith(f"{len(broken)} of {30 + len(broken)} images cannot be read: {first}")
    assert "kvtune data download" in str(error.value)


def test_real_images(shared_data):
    paths = sorted((shared_data / "coco-mini" / "val2017").glob("*.jpg"))
    assert len(paths) == 79
    check_images(paths)


def test_a_huge_image_is_loaded_and_one_beyond_pillows_limit_is_one_line(tmp_path, photo, monkeypatch):
    photo.save(tmp_path / "huge.png")
    pixels = photo.width * photo.height
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels - 1)  # Pillow warns from here and refuses from twice as many
    with pytest.warns(Image.DecompressionBombWarning):
        assert load_image(tmp_path / "huge.png").size == photo.size
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels // 2 - 1)
    with pytest.raises(
        RequestError, match=rf"huge.png cannot be read: Image size \({pixels} pixels\) .*attack; replace"
    ):
        load_image(tmp_path / "huge.png")
