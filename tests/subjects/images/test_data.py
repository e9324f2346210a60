"""Images come in checked, or not at all."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.images import load_images


def write_idx(path: Path, array: np.ndarray, *, magic: bytes | None = None, cut: int = 0) -> Path:
    header = (magic or bytes([0, 0, 8, array.ndim])) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    data = data[: len(data) - cut]
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 6, 5)).astype(np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return (np.arange(50) % 5).astype(np.uint8)


def test_digits_are_split_by_label_and_in_unit_range() -> None:
    data = load_images("digits", seed=1)
    assert data.image_shape == (8, 8)
    assert data.n_classes == 10
    assert len(data.train_labels) + len(data.test_labels) == 1797
    assert data.train_images.min() == 0
    assert data.train_images.max() == 1
    shares = np.bincount(data.test_labels) / np.bincount(np.concatenate([data.train_labels, data.test_labels]))
    assert np.allclose(shares, 0.2, atol=0.01)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path: Path, images: np.ndarray, labels: np.ndarray, suffix: str) -> None:
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", images)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", labels)
    data = load_images(str(tmp_path))
    assert len(data.train_labels) == 40
    together = np.concatenate([data.train_images, data.test_images]) * 255
    assert sorted(together.sum(axis=(1, 2)).round()) == sorted(images.astype(float).sum(axis=(1, 2)))


@pytest.mark.parametrize(
    ("magic", "cut", "message"),
    [(b"\x00\x00\x0d\x03", 0, "magic number 0x00000d03"), (None, 7, "truncated or damaged"), (None, 1494, "truncated")],
)
def test_bad_idx(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray, magic: bytes | None, cut: int, message: str
) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", images, magic=magic, cut=cut)
    write_idx(tmp_path / "train-labels-idx1-ubyte", labels)
    with pytest.raises(InputError, match=message):
        load_images(str(tmp_path))


def test_sets_of_two_sizes(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for prefix, stack in (("train", images), ("t10k", images[:, :5])):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", stack)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", labels)
    with pytest.raises(InputError, match="6 × 5 and those to test on 5 × 5"):
        load_images(str(tmp_path))


def test_npz_round_trip_and_bad_ones(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    good = tmp_path / "good.npz"
    np.savez(good, images=images, labels=labels)
    assert load_images(str(good)).image_shape == (6, 5)
    bad = {
        "one class": (images, np.zeros(50), "every image has the label 0"),
        "count": (images, labels[:-1], "50 images and 49 labels"),
        "flat": (images.reshape(50, 30), labels, r"shape \(50, 30\)"),
        "half": (images, labels + 0.5, "whole numbers"),
    }
    nan = images.astype(np.float32)
    nan[3, 0, 0] = np.nan
    bad["nan"] = (nan, labels, "image 3 has NaN")
    for name, (pictures, marks, message) in bad.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, images=pictures, labels=marks)
        with pytest.raises(InputError, match=message):
            load_images(str(path))
    np.savez(tmp_path / "other.npz", pixels=images)
    with pytest.raises(InputError, match="holds pixels; it needs images and labels"):
        load_images(str(tmp_path / "other.npz"))


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nearest: digits"):
        load_images("digit")
    with pytest.raises(InputError, match="no image data at"):
        load_images(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no IDX files"):
        load_images(str(tmp_path))
