"""Folders and zips of class folders, read into one uint8 tensor; nothing is unpacked to disk."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

ENDINGS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
SPLITS = ("train", "test")
MODES = {
    "L": "grey",
    "RGB": "RGB colour",
    "RGBA": "RGB with transparency",
    "P": "palette",
    "1": "black and white",
}
KEPT = 0.8  # of each class for training, where the folder has no splits of its own
CHUNK = 256  # images per task of a thread


class DataError(ValueError):
    """Data that is damaged or does not fit; the message names the file, what was found, wanted and what to do."""


@dataclass(frozen=True)
class Listing:
    """What a folder or zip holds, as paths below it: image `files`, `folders` (empty ones too), `get` for the bytes."""

    files: tuple[PurePosixPath, ...]
    folders: frozenset[PurePosixPath]
    get: Callable[[PurePosixPath], bytes]


def files(place: Path) -> tuple[Path, ...]:
    """The files on disk that the content of `place` depends on: the zip itself, or every image of the folder."""
    return (place,) if place.is_file() else tuple(place / name for name in _folder(place).files)


def read(
    place: Path, split: str, classes: tuple[str, ...], side: int | None, mode: str
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """uint8 images [N, C, H, W], labels [N] (positions in `classes`) and a note on the files, from a folder or a zip.

    Laid out `<split>/<class>/<image>`, or `<class>/<image>` and then split per class by a fixed permutation. Images
    are `side` × `side` (square and all of one size where None) and of PIL's `mode`. Raises DataError otherwise.
    """
    if place.is_dir():
        return _read(place, _folder(place), split, classes, side, mode)
    try:
        with zipfile.ZipFile(place) as opened:
            return _read(place, _zip(place, opened), split, classes, side, mode)
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
    ) as error:  # also: encrypted, odd method
        raise DataError(f"{place} cannot be read as a zip ({error}): copy or make it again") from error


def _hidden(path: PurePosixPath) -> bool:
    """Whether a file manager left it there."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _folder(place: Path) -> Listing:
    """The listing of a folder, links followed, four levels deep."""
    found, inside = [], set()
    for here, below, names in os.walk(place, followlinks=True):
        at = PurePosixPath(Path(here).relative_to(place).as_posix())
        below[:] = [name for name in below if len(at.parts) < 4]
        inside.update(at / name for name in below)
        found += [at / name for name in names]
    return _listing(found, inside, lambda path: (place / path).read_bytes())


def _zip(place: Path, opened: zipfile.ZipFile) -> Listing:
    """The listing of a zip; a folder of the zip's own name around everything is looked through."""
    members = {PurePosixPath(info.filename): info for info in opened.infolist()}
    for path in members:
        if ".." in path.parts or path.is_absolute():
            raise DataError(f"{place} holds {str(path)!r}, which points outside the zip: make the zip again without it")
    members = {path: info for path, info in members.items() if not _hidden(path)}
    if members and all(path.parts[0] == place.stem for path in members):
        members = {PurePosixPath(*path.parts[1:]): info for path, info in members.items()}
    found = [path for path, info in members.items() if not info.is_dir()]
    inside = {path for path, info in members.items() if info.is_dir()}
    return _listing(found, inside, lambda path: opened.read(members[path]))


def _listing(found: list[PurePosixPath], inside: set[PurePosixPath], get: Callable[[PurePosixPath], bytes]) -> Listing:
    """Image files alone, sorted; hidden ones and other kinds of files are passed over."""
    images = sorted(path for path in found if path.suffix.lower() in ENDINGS and not _hidden(path))
    nodes = {image.parent for image in images} | inside
    shown = nodes.union(*(node.parents for node in nodes))
    return Listing(tuple(images), frozenset(path for path in shown if path.parts and not _hidden(path)), get)


def _read(
    place: Path, listing: Listing, split: str, classes: tuple[str, ...], side: int | None, mode: str
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """`read` on an open listing."""
    chosen, note = _select(place, listing, split, classes)
    paths = [path for some in chosen.values() for path in some]
    labels = torch.tensor([classes.index(name) for name, some in chosen.items() for _ in some])
    first = _decode(place, paths[0], listing.get, None, mode)
    shape = (side, side) if side else first.shape[:2]
    if shape[0] != shape[1]:
        raise DataError(f"{place}: {paths[0]} is {shape[1]} × {shape[0]}; wanted squares of one size: crop the images")
    images = np.empty((len(paths), *shape, *first.shape[2:]), np.uint8)

    def work(start: int) -> None:
        for k in range(start, min(start + CHUNK, len(paths))):
            images[k] = _decode(place, paths[k], listing.get, shape, mode)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, range(0, len(paths), CHUNK)):  # raises what a thread raised
            pass
    channels = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    kinds = "/".join(sorted({ENDINGS[path.suffix.lower()] for path in paths}))
    return torch.from_numpy(np.ascontiguousarray(channels)), labels, f"{kinds} files{note}"


def _select(
    place: Path, listing: Listing, split: str, classes: tuple[str, ...]
) -> tuple[dict[str, list[PurePosixPath]], str]:
    """The paths of each class of this split, and a note where the split was made here."""
    tops = {path.parts[0] for path in listing.folders}
    splits = tops & set(SPLITS)
    if splits and split not in splits:
        raise DataError(f"{place} has {sorted(splits)} and no {split!r}: add the folder {split}/<class>/<images>")
    depth = 1 if splits else 0
    folders = {path for path in listing.folders if not splits or path.parts[0] == split}
    found = sorted({path.parts[depth] for path in folders if len(path.parts) > depth})
    where = f"{split}/<class>/" if splits else "<class>/"
    if found != sorted(classes):
        raise DataError(
            f"{place} has {len(found)} classes in {where}: {found[:12]}; wanted {len(classes)}: {sorted(classes)}; "
            "name one folder per class"
        )
    chosen: dict[str, list[PurePosixPath]] = {name: [] for name in sorted(classes)}
    for path in listing.files:
        if splits and path.parts[0] != split:
            continue
        if len(path.parts) != depth + 2:
            raise DataError(f"{place}: {path} lies elsewhere than {where}<image>: move it into its class's folder")
        chosen[path.parts[depth]].append(path)
    for name, some in chosen.items():
        if len(some) < (1 if splits else 2):
            raise DataError(f"{place}: class {name!r} has {len(some)} images (*.png, *.jpg, *.jpeg): add some")
    if splits:
        return chosen, ""
    return {name: _part(some, split) for name, some in chosen.items()}, ", split 80/20 per class, fixed seed"


def _part(paths: list[PurePosixPath], split: str) -> list[PurePosixPath]:
    """One side of the 80/20 split of a class; numpy promises that this permutation never changes."""
    order = np.random.RandomState(0).permutation(len(paths))
    cut = min(max(1, round(KEPT * len(paths))), len(paths) - 1)
    return [paths[k] for k in sorted(order[:cut] if split == "train" else order[cut:])]


def verify(file: Path, wanted: str) -> None:
    """Raise unless the MD5 of `file` is `wanted`."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; put it there, or delete its folder to download the set again")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "md5").hexdigest()
    if found != wanted:
        raise DataError(
            f"{file} has MD5 {found}, wanted {wanted}: damaged, cut short or another file; "
            "delete its folder to download the set again, or copy the original there"
        )


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [N, C, H, W] → uint8 [N, C, size, size], bilinear with anti-aliasing."""
    if images.shape[-2:] == (size, size):
        return images
    scale = partial(torch.nn.functional.interpolate, size=(size, size), mode="bilinear", antialias=True)
    return torch.cat([scale(some.float()).round_().clamp_(0, 255).byte() for some in images.split(256)])


def _decode(
    place: Path,
    path: PurePosixPath,
    get: Callable[[PurePosixPath], bytes],
    shape: tuple[int, int] | None,
    mode: str,
) -> np.ndarray:
    """One image as uint8 [H, W] or [H, W, C]."""
    try:
        with Image.open(BytesIO(get(path))) as image:
            found = image.mode
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # PIL's own, by format
        raise DataError(f"{place}: {path} is no whole image ({error}): replace or remove it") from error
    if found != mode:
        names = MODES.get(found, found), MODES.get(mode, mode)
        raise DataError(f"{place}: {path} is {names[0]} (mode {found}), wanted {names[1]} (mode {mode}): convert it")
    if shape and pixels.shape[:2] != shape:
        raise DataError(
            f"{place}: {path} is {pixels.shape[1]} × {pixels.shape[0]}, wanted {shape[1]} × {shape[0]} as the others: "
            "crop or scale it"
        )
    return pixels
