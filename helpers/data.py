"""Data sets as uint8 tensors, and batches of them.

`load` looks below DGM_DATA, then asks torchvision to download, then falls back on a stand-in; it prints which it was.
"""

import contextlib
import functools
import hashlib
import json
import os
import socket
import tempfile
import threading
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from helpers import drawn, folders
from helpers.checkpoints import write_atomic
from helpers.folders import DataError
from helpers.settings import folder

SPLITS = ("train", "test")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SMILE = ("non_smile", "smile")
CLASSES = {"mnist": tuple("0123456789"), "cifar10": CIFAR, "faces": SMILE, "drawn_faces": SMILE}
TITLE = {"mnist": "MNIST", "cifar10": "CIFAR-10", "faces": "faces"}
FORMAT = 1  # of the cache; raise it when decoding changes
MNIST_MD5 = {  # of the four original files, LeCun, Cortes and Burges
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
PROBE = {  # a small request to the host that torchvision downloads from
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
}


@dataclass(frozen=True)
class Data:
    """One split: uint8 `images` [N, C, H, W], int64 `labels` [N], `classes`, where it came from, whether it is real.

    Drawn faces also have their `factors` [N, K], named in `drawn.FACTORS`.
    """

    name: str
    split: str
    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    source: str
    real: bool
    factors: torch.Tensor | None = None


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
        order = _order(len(self.images), self.seed, epoch, self.images.device)
        index = order[k * self.size : (k + 1) * self.size][part::parts]
        return self.images.index_select(0, index).float().div_(255), self.labels.index_select(0, index)

    def epoch(self, epoch: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All batches of one epoch, for loops that stand in a notebook."""
        for k in range(self.steps_per_epoch):
            yield self.at(epoch * self.steps_per_epoch + k)


@functools.lru_cache(maxsize=8)
def _order(n: int, seed: int, epoch: int, device: torch.device) -> torch.Tensor:
    """The shuffle of one epoch [n] on `device`; never written to. A few are kept: training and test sets take turns."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).to(device)


@dataclass(frozen=True)
class Origin:
    """Where a split can be read: `files` are what the cached copy depends on, `read` decodes."""

    files: tuple[Path, ...]
    read: Callable[[], Data]


def load(name: str, split: str = "train", size: int | None = None) -> Data:
    """The split of "mnist", "cifar10", "faces" or "drawn_faces", scaled to `size` × `size` where `size` is given.

    Looked for below DGM_DATA (torchvision's layout, a folder, a zip), then through torchvision's download, then the
    stand-in. Decoded once, then read from DGM_CACHE. Prints one line that says what it is.

    Raises DataError, a ValueError, for an unknown name or split and for damaged or unfitting data; FileNotFoundError
    for a missing folder or file.
    """
    if name not in CLASSES:
        raise DataError(f"the data set is {name!r}; wanted one of {tuple(CLASSES)}")
    if split not in SPLITS:
        raise DataError(f"the split is {split!r}; wanted one of {SPLITS}")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 8 <= size <= 1024):
        raise DataError(f"the size is {size!r}; wanted an integer from 8 to 1024, or None")
    origin, why = (None, "") if name == "drawn_faces" else _find(name, split)
    data = _cached(name, split, size, origin or _stand_in(name, split, size))
    if why:
        data = replace(data, source=f"STAND-IN: {data.source} ({why})")
    shape = " × ".join(str(n) for n in data.images.shape[1:])
    print(f"{name} {split}: {len(data.images):,} images {shape} from {data.source}")
    return data


def _find(name: str, split: str) -> tuple[Origin | None, str]:
    """The real data's origin, or None and why there is none."""
    root = folder("DGM_DATA", "data")
    if os.environ.get("DGM_DATA") and not root.is_dir():
        raise FileNotFoundError(f"DGM_DATA is {root}, which is no folder; create it, correct it, or unset DGM_DATA")
    origin = _below(root, name, split)
    if origin or name not in PROBE:
        return origin, "" if origin else "nothing below DGM_DATA"
    if not reachable(PROBE[name]):
        return None, "no network, nothing below DGM_DATA"
    try:
        download(name, root)
    except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError for a wrong checksum
        return None, f"the download failed with {type(error).__name__}, nothing below DGM_DATA"
    return _below(root, name, split), ""


def _below(root: Path, name: str, split: str) -> Origin | None:
    """What lies below `root`: torchvision's layout, then the folder `name`, then `name`.zip."""
    if name == "mnist" and (raw := root / "MNIST" / "raw").is_dir():
        stem = "train" if split == "train" else "t10k"
        files = tuple(raw / file for file in MNIST_MD5 if file.startswith(stem))
        return Origin(files, lambda: _mnist(files, split))
    if name == "cifar10" and (batches := root / "cifar-10-batches-py").is_dir():
        return Origin(tuple(sorted(batches.iterdir())), lambda: _cifar(root, split))
    for place in (root / name, root / f"{name}.zip"):
        if place.exists():
            return Origin(folders.files(place), lambda place=place: _classes(place, name, split))
    return None


def _classes(place: Path, name: str, split: str) -> Data:
    """A folder or zip of class folders."""
    wanted = {"mnist": (28, "L"), "cifar10": (32, "RGB"), "faces": (None, "RGB")}[name]
    images, labels, note = folders.read(place, split, CLASSES[name], *wanted)
    return Data(name, split, images, labels, CLASSES[name], f"real {TITLE[name]} ({place.name}, {note})", True)


def _mnist(files: tuple[Path, ...], split: str) -> Data:
    """The original idx files by torchvision's reader, after their checksums."""
    for file in files:
        folders.verify(file, MNIST_MD5[file.name])
    from torchvision.datasets.mnist import read_image_file, read_label_file  # 2 s, and not needed once cached

    images, labels = read_image_file(str(files[0])).unsqueeze(1), read_label_file(str(files[1]))
    return Data("mnist", split, images, labels, CLASSES["mnist"], "real MNIST (torchvision layout)", True)


def _cifar(root: Path, split: str) -> Data:
    """The original pickles by torchvision, which opens them only when their checksums are right."""
    from torchvision.datasets import CIFAR10

    for file, md5 in [
        *CIFAR10.train_list,
        *CIFAR10.test_list,
        (CIFAR10.meta["filename"], CIFAR10.meta["md5"]),
    ]:
        folders.verify(root / CIFAR10.base_folder / file, md5)
    found = CIFAR10(root, train=split == "train")
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    source = "real CIFAR-10 (torchvision layout)"
    return Data("cifar10", split, images, torch.tensor(found.targets), CLASSES["cifar10"], source, True)


@functools.cache  # once per process: training and test split then come from the same place
def reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether `url` answers within `seconds`; in a thread, because looking up a name knows no time limit."""
    answers = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with contextlib.suppress(Exception), urllib.request.urlopen(request, timeout=seconds):
            answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)


def download(name: str, root: Path) -> None:
    """torchvision's download, verified by its checksums; below `root` only when it is whole."""
    from torchvision import datasets

    make, kept = {
        "mnist": (datasets.MNIST, "MNIST"),
        "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
    }[name]
    root.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)  # torchvision sets none, and would wait for ever on a silent host
    try:
        with tempfile.TemporaryDirectory(dir=root) as temporary:
            make(temporary, download=True)
            os.replace(Path(temporary) / kept, root / kept)
    finally:
        socket.setdefaulttimeout(before)


def _stand_in(name: str, split: str, size: int | None) -> Origin:
    """What is drawn, or ships with scikit-learn, instead."""

    def read() -> Data:
        if name == "mnist":
            parts, source = drawn.digits(split), "scikit-learn digits scaled to 28 × 28"
        elif name == "cifar10":
            parts, source = drawn.scenes(split), "drawn 32 × 32 pictures of ten classes"
        else:
            parts, source = drawn.faces(split, size or drawn.FACE_SIZE), "drawn faces with known factors"
        images, labels, *factors = parts
        return Data(name, split, images, labels, CLASSES[name], source, False, *factors)

    return Origin((Path(drawn.__file__),), read)


def _cached(name: str, split: str, size: int | None, origin: Origin) -> Data:
    """The decoded split from DGM_CACHE, else decoded now and kept there. A damaged copy is made again."""
    for file in origin.files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; put it there, or delete its folder to download the set again")
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in origin.files]
    key = hashlib.sha256(json.dumps([FORMAT, name, split, size, stats]).encode()).hexdigest()[:16]
    path = folder("DGM_CACHE", "data/cache") / f"{name}-{split}-{size or 'native'}-{key}.safetensors"
    with contextlib.suppress(OSError, SafetensorError, ValueError, KeyError, TypeError):
        return _kept(path)
    data = origin.read()
    data = data if size is None else replace(data, images=folders.resized(data.images, size))
    with contextlib.suppress(OSError):  # a folder that cannot be written costs time alone
        _keep(path, data)
    return data


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    """CRC-32 over the tensors' bytes: safetensors itself notices a file cut short, no changed byte."""
    return str(functools.reduce(lambda crc, key: zlib.crc32(tensors[key].numpy(), crc), sorted(tensors), 0))


def _keep(path: Path, data: Data) -> None:
    """Write `data` to `path` atomically."""
    tensors = {"images": data.images, "labels": data.labels}
    tensors |= {} if data.factors is None else {"factors": data.factors}
    fields = {
        "name": data.name,
        "split": data.split,
        "classes": data.classes,
        "source": data.source,
        "real": data.real,
    }
    write_atomic(path, save(tensors, metadata={"fields": json.dumps(fields), "crc": _checksum(tensors)}))


def _kept(path: Path) -> Data:
    """Read what `_keep` wrote; raises where the file is missing or damaged."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}
    if _checksum(tensors) != metadata["crc"]:
        raise ValueError(f"{path} is damaged")
    fields = json.loads(metadata["fields"])
    return Data(**{**fields, "classes": tuple(fields["classes"])}, **tensors)
