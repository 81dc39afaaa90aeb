"""Images from a folder or zip of class folders, checked one by one. What is done with them does not belong here."""

import io
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch

ENDINGS = {".png", ".jpg", ".jpeg"}


class DataError(ValueError):
    """A data file that is missing, damaged or of another kind; the message names it and the remedy."""


def read_classes(
    place: Path, classes: Sequence[str], size: tuple[int, int], split: str | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """RGB images below `[<split>/]<class>/` of a folder or .zip → uint8 [N, 3, H, W] and labels [N].

    Labels are positions in `classes`; order is by class, then by name. Only .png, .jpg and .jpeg files count; hidden
    files and `__MACOSX` are passed over. Raises DataError for a damaged zip, a missing or empty class, an image that
    does not decode, or one of another size (`size` is height, width) or mode.
    """
    names, read, close = _open(place)
    try:
        found = {c: sorted(_members(names, c, split)) for c in classes}
        empty = [c for c in classes if not found[c]]
        if empty:
            where = f"{split}/" if split else ""
            raise DataError(
                f"{place}: no .png or .jpg image in {', '.join(f'{where}{c}/' for c in empty)}; "
                f"wanted one folder each of {', '.join(classes)}" + (f" below {where}" if split else "")
            )
        items = [name for c in classes for name in found[c]]
        with ThreadPoolExecutor(4) as pool:
            arrays = list(pool.map(lambda name: _decode(place, name, read(name), size), items))
    finally:
        close()
    labels = torch.tensor([k for k, c in enumerate(classes) for _ in found[c]])
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(), labels


def _open(place: Path) -> tuple[list[str], Callable[[str], bytes], Callable[[], None]]:
    if place.is_dir():
        names = [p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()]
        return names, lambda name: (place / name).read_bytes(), lambda: None
    try:
        archive = zipfile.ZipFile(place)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{place}: not a complete zip file ({error}); copy or download it again") from error

    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise DataError(f"{place}: {name} is damaged ({error}); copy or download the zip again") from error

    return archive.namelist(), read, archive.close


def _members(names: list[str], name: str, split: str | None) -> list[str]:
    """Images whose folder is `[<split>/]<name>`, at the top or below one enclosing folder."""
    want = (split, name) if split else (name,)
    result = []
    for member in names:
        path = PurePosixPath(member)
        hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
        if path.suffix.lower() in ENDINGS and not hidden and path.parts[:-1][-len(want) :] == want:
            if len(path.parts) - 1 - len(want) <= 1:
                result.append(member)
    return result


def _decode(place: Path, name: str, content: bytes, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            mode, (width, height) = image.mode, image.size
            array = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{place}: {name} does not decode ({error}); replace or remove this file") from error
    if mode != "RGB":
        raise DataError(f"{place}: {name} has mode {mode}, wanted RGB; convert it with image.convert('RGB')")
    if (height, width) != size:
        raise DataError(
            f"{place}: {name} is {height} × {width}, wanted {size[0]} × {size[1]}; "
            "crop and resize all images to one size (or load faces with size=…)"
        )
    return array
