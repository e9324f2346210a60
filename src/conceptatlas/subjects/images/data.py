"""Labelled images from scikit-learn, Hugging Face, IDX files or an NPZ, checked and split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.subjects.images.idx import find_idx_pair, read_idx

# The share of a set that comes without a test set of its own which is used to train.
TRAIN_SHARE = 0.8

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageData:
    """Images to train on and images to test on.

    Attributes:
        name: What the set is called.
        train_images: [N, H, W], float32, in 0–1.
        train_labels: [N], int64, from 0.
        test_images: [M, H, W], as ``train_images``.
        test_labels: [M].
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels

    @property
    def n_classes(self) -> int:
        """How many classes there are: the highest label, and one."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.train_images.shape[1]), int(self.train_images.shape[2])


def load_images(dataset: str, *, seed: int = 42) -> ImageData:
    """Load labelled images.

    Args:
        dataset: ``digits`` (scikit-learn's 1,797 images of 8 × 8), ``mnist`` (``ylecun/mnist`` from the Hugging Face hub),
            a folder of IDX files (gzipped or not), or an ``.npz`` with ``images`` and ``labels``, or with
            ``x_train, y_train, x_test, y_test``.
        seed: Decides the split of a set that comes without a test set (80% to train on, stratified by label).

    Raises:
        InputError: There is no such set, or it is not sound (see ``check_images``).
    """
    if dataset in _BUILT_IN:
        return _BUILT_IN[dataset](seed)
    path = Path(dataset)
    if path.is_dir():
        return _from_idx_folder(path, seed)
    if path.suffix == ".npz" and path.is_file():
        return _from_npz(path, seed)
    if path.suffix == ".npz" or "/" in dataset:
        raise InputError(
            f"There is no image data at {dataset}; give a folder of IDX files or an .npz file that exists."
        )
    raise unknown_name("image data set", dataset, _BUILT_IN)


def check_images(
    images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], source: str
) -> tuple[Images, Labels]:
    """Return images as float32 in 0–1 and labels as int64, or say what is wrong with them.

    Raises:
        InputError: Not [N, H, W], counts that differ, NaN pixels, labels that are not whole numbers from 0, or one class only.
    """
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3 or len(images) == 0:
        raise InputError(f"{source}: images have the shape {images.shape}, and [N, height, width] is needed.")
    if len(images) != len(labels):
        raise InputError(f"{source}: there are {len(images)} images and {len(labels)} labels; make them match.")
    pixels = images.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2)))
    if len(bad):
        raise InputError(
            f"{source}: image {bad[0]} has NaN or infinite pixels ({len(bad)} images in all); remove them."
        )
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels.astype(np.float64)) or whole.min() < 0:
        raise InputError(f"{source}: labels must be whole numbers from 0; the lowest is {labels.min()}.")
    if len(np.unique(whole)) < 2:
        raise InputError(f"{source}: every image has the label {whole[0]}; a classifier needs two classes or more.")
    scale = 255.0 if images.dtype == np.uint8 or pixels.max() > 16 else max(1.0, float(pixels.max()))
    return pixels / np.float32(scale), whole


def _split(images: Images, labels: Labels, name: str, seed: int) -> ImageData:
    """Split a set, stratified by label, with a seeded shuffle within each."""
    generator = np.random.default_rng(seed)
    train = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        train[members[: round(TRAIN_SHARE * len(members))]] = True
    return ImageData(name, images[train], labels[train], images[~train], labels[~train])


def _digits(seed: int) -> ImageData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = check_images(digits.images, digits.target, "digits")
    return _split(images, labels, "digits", seed)


def _mnist(_seed: int) -> ImageData:
    try:
        from datasets import load_dataset

        hub = load_dataset("ylecun/mnist")
    except Exception as error:
        raise InputError(
            f"Cannot fetch MNIST (ylecun/mnist, 15 MB) from the Hugging Face hub ({type(error).__name__}); without a "
            "network put its four IDX files into a folder and pass that folder as --dataset."
        ) from error
    parts = {}
    for name in ("train", "test"):
        stack = np.stack([np.asarray(image) for image in hub[name]["image"]])
        parts[name] = check_images(stack, np.asarray(hub[name]["label"]), f"ylecun/mnist {name}")
    return ImageData("mnist", *parts["train"], *parts["test"])


def _from_idx_folder(folder: Path, seed: int) -> ImageData:
    sets: list[tuple[Images, Labels]] = []
    for prefix in ("train", "t10k"):
        pair = find_idx_pair(folder, prefix)
        if pair:
            images, labels = read_idx(pair[0], dimensions=3), read_idx(pair[1], dimensions=1)
            sets.append(check_images(images, labels, str(pair[0])))
    if not sets:
        raise InputError(
            f"{folder} holds no IDX files (train-images-idx3-ubyte, t10k-labels-idx1-ubyte and so on, .gz or not); "
            "check the folder."
        )
    if len(sets) == 1:
        return _split(*sets[0], folder.name, seed)
    if sets[0][0].shape[1:] != sets[1][0].shape[1:]:
        raise InputError(
            f"{folder}: the images to train on are {_size(sets[0][0])} and those to test on {_size(sets[1][0])}; "
            "both must be of one size."
        )
    return ImageData(folder.name, *sets[0], *sets[1])


def _size(images: Images) -> str:
    return f"{images.shape[1]} × {images.shape[2]}"


def _from_npz(path: Path, seed: int) -> ImageData:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as NPZ ({error}); save plain arrays with np.savez.") from error
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        train = check_images(arrays["x_train"], arrays["y_train"], f"{path} x_train")
        test = check_images(arrays["x_test"], arrays["y_test"], f"{path} x_test")
        if train[0].shape[1:] != test[0].shape[1:]:
            raise InputError(
                f"{path}: x_train holds images of {_size(train[0])} and x_test of {_size(test[0])}; "
                "both must be of one size."
            )
        return ImageData(path.stem, *train, *test)
    if {"images", "labels"} <= arrays.keys():
        return _split(*check_images(arrays["images"], arrays["labels"], str(path)), path.stem, seed)
    raise InputError(
        f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; it needs images and labels, "
        "or x_train, y_train, x_test and y_test."
    )


_BUILT_IN: dict[str, Callable[[int], ImageData]] = {"digits": _digits, "mnist": _mnist}
