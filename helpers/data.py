"""Data sets as uint8 tensors with their origin, and batches of them.

`load` looks below DGM_DATA, then downloads where there is a network, then falls back to a stand-in, and says which.
Folders and zips of images are read by helpers.folders, stand-ins are drawn by helpers.drawn.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes

from helpers import drawn
from helpers.checkpoints import write_atomic
from helpers.folders import DataError, read_classes
from helpers.settings import PROJECT, folder

# MD5 of the four files of MNIST (LeCun, Cortes, Burges), unpacked
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SMILE = ("non_smile", "smile")
FACE_SIZE = 128


@dataclass(frozen=True)
class Data:
    """One split: uint8 `images` [N, C, H, W], int64 `labels` [N], class names, and where it came from.

    `real` is False for a stand-in; `factors` [N, K] are the known factors of drawn faces (`drawn.FACTORS`).
    """

    name: str
    split: str
    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    source: str
    real: bool
    factors: torch.Tensor | None = None


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


@dataclass(frozen=True)
class Batches:
    """Batches by index-select from uint8 images [N, C, H, W] and labels [N].

    The order depends on (seed, epoch) alone, so that a run resumed at any step sees the same batches.
    """

    images: torch.Tensor
    labels: torch.Tensor
    size: int
    seed: int = 0
    steps_per_epoch: int = field(init=False)

    def __post_init__(self) -> None:
        """Whole batches only; the remainder waits for the next epoch's shuffle."""
        if not 0 < self.size <= len(self.images) == len(self.labels):
            raise ValueError(
                f"batches of {self.size} from {len(self.images)} images and {len(self.labels)} labels; "
                "wanted 1 to as many as there are images, each with a label"
            )
        object.__setattr__(self, "steps_per_epoch", len(self.images) // self.size)

    def at(self, step: int, part: int = 0, parts: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch number `step` (from 0): float images in [0, 1] [B, C, H, W] and labels [B], on the data's device.

        Process `part` of `parts` gets its share of that batch.
        """
        epoch, k = divmod(step, self.steps_per_epoch)
        order = _order(len(self.images), self.seed, epoch)
        index = order[k * self.size : (k + 1) * self.size][part::parts].to(self.images.device)
        return self.images[index].float().div_(255), self.labels[index]

    def epoch(self, epoch: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All batches of one epoch, for loops that stand in a notebook."""
        for k in range(self.steps_per_epoch):
            yield self.at(epoch * self.steps_per_epoch + k)


def load(name: str, split: str = "train", size: int = FACE_SIZE) -> Data:
    """Load "mnist", "cifar10", "faces" or "drawn_faces"; print one line that says what it is.

    `size` is the width of faces. Looked for: below DGM_DATA in torchvision's layout, or as `<name>/` or `<name>.zip`
    with `<split>/<class>/*.png|jpg` (faces: `<class>/*`, split 80/20 here by a fixed shuffle); then torchvision's
    download; then a stand-in. Decoded once, then read from DGM_CACHE.

    Raises DataError for files that are there but damaged or of another kind, naming file and remedy; ValueError for
    an unknown name or split.
    """
    if name not in _READERS or split not in ("train", "test"):
        raise ValueError(f"{name!r}, {split!r}: wanted one of {sorted(_READERS)} and 'train' or 'test'")
    result = _READERS[name](split, size)
    n, c, h, w = result.images.shape
    sign = "from" if result.real else "STAND-IN:"
    print(f"{name} {split}: {n:,} images {c} × {h} × {w} {sign} {result.source}")
    return result


def _root() -> Path:
    root = folder("DGM_DATA", "data")
    if not root.is_dir() and root != PROJECT / "data":
        raise DataError(f"DGM_DATA names {root}, which is not a folder; correct it, or unset it to use what is there")
    return root


def _mnist(split: str, size: int) -> Data:
    classes = tuple("0123456789")
    prefix = "train" if split == "train" else "t10k"
    names = [name for name in MNIST_MD5 if name.startswith(prefix)]
    for fetch in (False, True):
        paths = [_root() / "MNIST" / "raw" / name for name in names]
        if all(path.exists() for path in paths):
            images, labels = _cached(f"mnist-{split}", paths, lambda p=paths: _read_idx(p))
            return Data("mnist", split, images, labels, classes, "real MNIST (torchvision's layout)", True)
        if fetch or not _download("MNIST"):
            break
    x, y = drawn.digits(split)
    return Data("mnist", split, x, y, classes, "scikit-learn's handwritten digits scaled to 28 × 28", False)


def _read_idx(paths: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    for path in paths:
        found = hashlib.md5(path.read_bytes()).hexdigest()
        if found != MNIST_MD5[path.name]:
            raise DataError(
                f"{path}: MD5 is {found}, wanted {MNIST_MD5[path.name]} ({path.stat().st_size} bytes); "
                "the file is truncated or changed: delete it and download it again"
            )
    return read_image_file(str(paths[0]))[:, None].contiguous(), read_label_file(str(paths[1]))


def _cifar10(split: str, size: int) -> Data:
    for fetch in (False, True):
        batches = _root() / "cifar-10-batches-py"
        if batches.is_dir():
            files = sorted(p for p in batches.iterdir() if p.is_file())
            images, labels = _cached(f"cifar10-{split}", files, lambda: _read_cifar10(split))
            return Data("cifar10", split, images, labels, CIFAR10, "real CIFAR-10 (torchvision's layout)", True)
        for place in (_root() / "cifar10", _root() / "cifar10.zip"):
            if place.exists():
                images, labels = _cached(
                    f"cifar10-{split}", [place], lambda p=place: read_classes(p, CIFAR10, (32, 32), split)
                )
                return Data("cifar10", split, images, labels, CIFAR10, f"real CIFAR-10 ({place.name})", True)
        if fetch or not _download("CIFAR10"):
            break
    x, y = drawn.scenes(split)
    return Data("cifar10", split, x, y, CIFAR10, "drawn 32 × 32 pictures of ten classes", False)


def _read_cifar10(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    from torchvision.datasets import CIFAR10 as Reader

    try:
        data = Reader(_root(), train=split == "train", download=False)  # compares every file's MD5 before reading it
    except RuntimeError as error:
        raise DataError(
            f"{_root() / 'cifar-10-batches-py'}: a file is missing, truncated or changed ({error}); "
            "delete the folder and download it again"
        ) from error
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


def _faces(split: str, size: int) -> Data:
    for place in (_root() / "faces", _root() / "faces.zip"):
        if place.exists():
            images, labels = _cached(
                f"faces-{size}", [place], lambda p=place: read_classes(p, SMILE, (size, size), None)
            )
            index = _split(labels, split)
            return Data("faces", split, images[index], labels[index], SMILE, f"photographs ({place.name})", True)
    return _drawn_faces(split, size, "faces")


def _drawn_faces(split: str, size: int, name: str = "drawn_faces") -> Data:
    x, y, factors = drawn.faces(split, size)
    return Data(name, split, x, y, SMILE, "drawn faces with known factors", False, factors)


def _split(labels: torch.Tensor, split: str) -> torch.Tensor:
    """Indices of a fixed 80/20 split, class by class."""
    chosen = []
    for k in range(len(SMILE)):
        mine = (labels == k).nonzero()[:, 0]
        mine = mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(k))]
        cut = len(mine) * 4 // 5
        chosen.append(mine[:cut] if split == "train" else mine[cut:])
    return torch.cat(chosen).sort().values


_READERS: dict[str, Callable[[str, int], Data]] = {
    "mnist": _mnist,
    "cifar10": _cifar10,
    "faces": _faces,
    "drawn_faces": _drawn_faces,
}


def _download(name: str) -> bool:
    """Torchvision's download into DGM_DATA; False where there is no network, found out in at most 3 seconds a host."""
    from torchvision import datasets

    kind = getattr(datasets, name)
    addresses = kind.mirrors if name == "MNIST" else [kind.url]
    if not any(_reachable(address) for address in addresses[:2]):
        return False
    try:
        kind(_root(), download=True)
    except (OSError, RuntimeError) as error:
        print(f"download of {name} failed ({type(error).__name__}: {error})")
        return False
    return True


def _reachable(address: str, seconds: float = 3.0) -> bool:
    """Whether the host answers; in a thread, for a name look-up has no time limit of its own."""
    answered = threading.Event()

    def probe() -> None:
        host = "{0.scheme}://{0.netloc}/".format(urlsplit(address))
        try:
            urlopen(host, timeout=seconds).close()
        except OSError as error:
            if not hasattr(error, "code"):  # an HTTP error is an answer, too
                return
        answered.set()

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


def _cached(
    key: str, sources: list[Path], read: Callable[[], tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels from DGM_CACHE while the sources are the same files; decoded and stored otherwise."""
    files = [f for s in sources for f in (sorted(s.rglob("*")) if s.is_dir() else [s])]
    identity = json.dumps([[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    stamp = hashlib.sha256(identity.encode()).hexdigest()
    path = folder("DGM_CACHE", "data/cache") / f"{key}.safetensors"
    if path.exists():
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("sources") == stamp:
                    return file.get_tensor("images"), file.get_tensor("labels")
        except (SafetensorError, OSError):
            pass  # a damaged cache is made again
    images, labels = read()
    write_atomic(path, save_bytes({"images": images, "labels": labels}, {"sources": stamp}))
    return images, labels
