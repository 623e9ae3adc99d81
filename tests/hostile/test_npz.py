"""``.npz`` archives that are broken, hold objects, or unpack to more than they should."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from vit_deploy.errors import HostileInput, ImportFailed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.npz"


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    return {"embedding/kernel": generator.normal(size=(8, 8, 3, 32)).astype("float32")}


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


class _Code:
    marker = ""

    def __reduce__(self):
        return (open, (self.marker, "w"))


def test_objects_are_never_unpickled(path, arrays, tmp_path, refused):
    code = _Code()
    code.marker = str(tmp_path / "marker")
    np.savez(path, **arrays, extra=np.array([code, None], dtype=object))
    assert "holds pickled objects" in refused(path, HostileInput)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("keep", [0, 1, 30, 0.5, 0.99, -1])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated(path, arrays, save, keep, refused):
    save(path, **arrays)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)] if isinstance(keep, float) else data[:keep])
    assert "no whole .npz archive" in refused(path, HostileInput)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit(path, save, refused):
    """The names are right, and one number is not what was written."""
    save(
        path, **{"embedding/kernel": np.zeros((8, 8, 3, 32), "float32"), "cls": np.ones((1, 1, 32), "float32")}
    )
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("cls.npy").header_offset + 30 + len("cls.npy") + 40
    data = bytearray(path.read_bytes())
    data[at + (150 if save is np.savez else 0)] ^= 64
    path.write_bytes(data)
    assert "no whole .npz archive" in refused(path, HostileInput, arch="vit_tiny_patch16_224")


def test_a_bomb(path, refused):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embedding/kernel.npy", npy(np.zeros((1 << 25,), "float32")))
    assert path.stat().st_size < 1 << 20
    assert "would unpack to 134,217,856" in refused(path, HostileInput)


def test_a_header_that_lies(path, refused):
    member = npy(np.zeros(8, "float32")).replace(b"(8,)", b"(9,)")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("embedding/kernel.npy", member)
    assert "not of the size that its header says" in refused(path, HostileInput)


@pytest.mark.parametrize("member", [b"", b"no array at all", b"\x93NUMPY\x09\x09", npy(np.zeros(8))[:60]])
def test_members_that_are_no_arrays(path, member, refused):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("embedding/kernel.npy", member)
    assert "no whole .npz archive" in refused(path, HostileInput)


def test_a_name_that_stands_twice(path, refused):
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in (("cls.npy", 0), ("kls.npy", 1)):
            archive.writestr(name, npy(np.full(8, value, "float32")))
    path.write_bytes(path.read_bytes().replace(b"kls.npy", b"cls.npy"))
    assert "holds 'cls.npy' twice" in refused(path, HostileInput)


@pytest.mark.parametrize(
    "array", [np.array(["a", "b"]), np.zeros(3, "datetime64[s]"), np.zeros(2, [("a", "f4")])]
)
def test_arrays_of_something_else(path, array, refused):
    np.savez(path, **{"embedding/kernel": np.zeros((8, 8, 3, 32), "float32"), "cls": array})
    assert "'cls'" in refused(path, ImportFailed)


def test_integers(path, refused):
    np.savez(path, **{"embedding/kernel": np.zeros((8, 8, 3, 32), "int32")})
    assert "dtype int32" in refused(path, ImportFailed)


def test_a_zip_of_something(path, refused):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday/photo.txt", "hello")
    assert "no whole .npz archive" in refused(path, HostileInput)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ({"conv_root/kernel": (7, 7, 3, 8), "embedding/kernel": (1, 1, 8, 32)}, "a hybrid"),
        ({"stem/kernel": (8, 8, 3, 32), "MixerBlock_0/LayerNorm_0/scale": (32,)}, "MLP-Mixer"),
        ({"params/img/embedding/kernel": (192, 32)}, "NaFlex"),
        ({"Transformer/encoder_norm/scale": (32,)}, "holds 0 image towers"),
        ({"img/embedding/kernel": (8, 8, 3, 32), "embedding/kernel": (8, 8, 3, 32)}, "holds 2 image towers"),
        ({"embedding/kernel": (8, 3, 32)}, "4 axes"),
    ],
)
def test_other_networks_of_googles(path, names, word, refused):
    np.savez(path, **{name: np.zeros(shape, "float32") for name, shape in names.items()})
    assert word in refused(path, ImportFailed)
