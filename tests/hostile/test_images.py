"""Pictures that are none, or that mean harm: refused in words, with exit code 6."""

from __future__ import annotations

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.model.images import MAX_PIXELS, load_image


def _png_of(width, height):
    """A PNG whose header promises a size, with almost no data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def _refused(path, kind=HostileInput):
    with pytest.raises(kind) as caught:
        load_image(path)
    assert caught.value.exit_code == 6
    assert str(path) in caught.value.found
    assert caught.value.expected
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"\0" * 4096,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
    ids=["text", "zeros", "svg", "pdf", "eps"],
)
def test_no_image(tmp_path, content):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert "JPEG" in _refused(path)


def test_empty(tmp_path):
    path = tmp_path / "photo.png"
    path.touch()
    assert "is empty" in _refused(path)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated(tmp_path, format, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    Image.fromarray(noise).save(whole, format=format)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    _refused(cut)


def test_missing_and_folder(tmp_path):
    assert "there is no image" in _refused(tmp_path / "none.png", ImportFailed)
    assert "is a folder" in _refused(tmp_path, ImportFailed)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in _refused(tmp_path / "pipe", ImportFailed)


@pytest.mark.parametrize("side", [9_460, 20_000, 60_000])
def test_decompression_bomb(tmp_path, side):
    """From just over the limit to far beyond Pillow's own error."""
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_of(side, side))
    message = _refused(path)
    assert "too large" in message
    assert f"{MAX_PIXELS:,}" in message


def test_decompression_bomb_where_pillow_was_told_not_to_look(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_of(60_000, 60_000))
    assert "60000 by 60000" in _refused(path)


def test_no_global_state_is_left_behind(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_of(20_000, 20_000))
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    _refused(path)
    assert (list(warnings.filters), limit) == (filters, Image.MAX_IMAGE_PIXELS)


def test_text_bomb_in_png(tmp_path):
    """A compressed comment of 100 MB in a picture of one pixel."""
    path = tmp_path / "x.png"
    Image.new("RGB", (1, 1)).save(path)
    data = path.read_bytes()
    text = b"Comment\0\0" + zlib.compress(b"\0" * 100_000_000)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    path.write_bytes(data[:33] + chunk + data[33:])
    _refused(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything: run the tests as another user")
def test_unreadable(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (1, 1)).save(path)
    path.chmod(0)
    assert "may not be read" in _refused(path, ImportFailed)


def test_a_name_that_is_too_long(tmp_path):
    assert "cannot be reached" in _refused(tmp_path / ("x" * 300), ImportFailed)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter everything: run the tests as another user")
def test_a_folder_that_may_not_be_entered(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    Image.new("RGB", (1, 1)).save(folder / "x.png")
    folder.chmod(0o600)
    try:
        assert "cannot be reached" in _refused(folder / "x.png", ImportFailed)
    finally:
        folder.chmod(0o700)


def test_a_picture_without_an_agreed_white_is_named(tmp_path):
    path = tmp_path / "x.tiff"
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(path)
    assert "nobody has agreed on" in _refused(path, ImportFailed)
