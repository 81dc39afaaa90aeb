"""Laws of batches and of drawn data; damaged or unfitting files; no network; speed."""

import importlib.util
import os
import re
import subprocess
import sys
import time
import urllib.error
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers import data, drawn, folders
from helpers.folders import DataError

ROOT = Path(__file__).parent.parent
COUNTS = {  # of MNIST's digits, from the label files of LeCun, Cortes and Burges
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


def no_network(*arguments, **options):
    raise urllib.error.URLError("no network in tests")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty DGM_DATA, an empty cache, no network."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("DGM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    data.reachable.cache_clear()
    yield tmp_path / "data"
    monkeypatch.undo()
    data.reachable.cache_clear()


def picture(shade=100, size=(16, 16), mode="RGB", form="PNG"):
    """The bytes of a plain image."""
    out = BytesIO()
    Image.new(mode, size, shade if mode in "LP" else (shade, 50, 200, 255)[: len(mode)]).save(out, form)
    return out.getvalue()


def layout(classes=data.SMILE, n=5, **options):
    """Paths and bytes of class folders; image k of a class has shade 10 k."""
    return {f"{name}/{k}.png": picture(10 * k, **options) for name in classes for k in range(n)}


def write(place, files, zipped=False):
    """Write files as a folder, or as a zip beside it."""
    if zipped:
        with zipfile.ZipFile(place.with_suffix(".zip"), "w") as opened:
            for name, content in files.items():
                opened.writestr(name, content)
        return place.with_suffix(".zip")
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def refused(place, *words, name="faces", error=DataError):
    """Loading fails with every word in the message, and nothing is cached."""
    with pytest.raises(error) as caught:
        data.load(name)
    for word in words:
        assert word in str(caught.value)
    assert not list(place.parent.glob("cache/*"))


# Batches


def numbered(n=103):
    """Images whose pixels spell their own number."""
    number = torch.arange(n)
    images = torch.stack([number // 256, number % 256], 1).byte().reshape(n, 1, 1, 2)
    return data.Batches(images, number, 16, seed=3)


def spelled(images):
    """The numbers that the pixels spell."""
    return (images * 255).round().long().flatten(1) @ torch.tensor([256, 1])


def test_an_epoch_visits_an_image_once_and_labels_follow():
    batches = numbered(300)
    for epoch in range(3):
        seen = []
        for x, y in batches.epoch(epoch):
            assert torch.equal(spelled(x), y)
            seen += y.tolist()
        assert len(seen) == len(set(seen)) == 16 * batches.steps_per_epoch == 288


def test_parts_partition_a_batch():
    batches = numbered()
    for step in (0, 5, 17):
        whole = batches.at(step)[1].tolist()
        shares = [batches.at(step, part, 3)[1].tolist() for part in range(3)]
        assert sorted(sum(shares, [])) == sorted(whole)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_does_not_depend_on_history():
    steps = [0, 40, 3, 12, 3, 0]
    mixed = [numbered().at(step)[1] for step in steps]
    data._order.cache_clear()
    for step, found in reversed(list(zip(steps, mixed, strict=True))):
        assert torch.equal(numbered().at(step)[1], found)
    assert not torch.equal(numbered().at(0)[1], numbered().at(6)[1])  # another epoch, another order
    other = data.Batches(numbered().images, numbered().labels, 16, seed=4)
    assert not torch.equal(other.at(0)[1], numbered().at(0)[1])


def test_values_are_exactly_the_bytes_over_255():
    images = torch.arange(256).byte().reshape(256, 1, 1, 1)
    x, y = data.Batches(images, torch.arange(256), 256).at(0)
    assert x.dtype == torch.float32 and x.min() == 0 and x.max() == 1
    assert torch.equal(x.flatten(), y / 255)


# Real data, where it is


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_mnist_has_its_counts(split, tmp_path, monkeypatch, capsys):
    if not (data.folder("DGM_DATA", "data") / "MNIST" / "raw").is_dir():
        pytest.skip("no MNIST below DGM_DATA")
    monkeypatch.setenv("DGM_CACHE", str(tmp_path))
    found = data.load("mnist", split)
    assert found.real and found.images.shape[1:] == (1, 28, 28) and found.images.dtype == torch.uint8
    assert found.labels.bincount().tolist() == COUNTS[split]
    assert f"{sum(COUNTS[split]):,} images 1 × 28 × 28 from real MNIST" in capsys.readouterr().out


# Folders and zips


@pytest.mark.parametrize("zipped", [False, True])
def test_class_folders_are_read_split_and_cached(place, zipped, capsys, monkeypatch):
    junk = {"smile/Thumbs.db": b"x", "smile/.DS_Store": b"x", "__MACOSX/smile/._0.png": b"x", "notes.txt": b"x"}
    where = write(place / "faces", layout(n=10) | junk, zipped)
    train, test = data.load("faces"), data.load("faces", "test")
    assert len(train.images) == 16 and len(test.images) == 4
    assert train.labels.bincount().tolist() == [8, 8] and test.labels.bincount().tolist() == [2, 2]
    shades = [torch.cat([s.images[s.labels == k, 0, 0, 0] for s in (train, test)]).sort().values for k in (0, 1)]
    assert all(torch.equal(s, torch.arange(0, 100, 10).byte()) for s in shades)  # every image in exactly one split
    assert train.real and "80/20" in train.source and where.name in train.source
    assert str(place) not in capsys.readouterr().out
    monkeypatch.setattr(folders, "read", None)  # the second load decodes nothing
    assert torch.equal(data.load("faces").images, train.images)


def test_folder_and_zip_with_splits_give_the_same(place):
    files = {f"{split}/{name}": image for split in data.SPLITS for name, image in layout(n=3).items()}
    write(place / "faces", files)
    first = data.load("faces", "test")
    (place / "faces").rename(place / "elsewhere")
    write(place / "faces", {f"faces/{name}": image for name, image in files.items()}, zipped=True)
    second = data.load("faces", "test")
    assert torch.equal(first.images, second.images) and first.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_colours_keep_their_place_and_size_scales(place):
    write(place / "faces", layout(n=5))
    found = data.load("faces", size=8)
    assert found.images.shape == (8, 3, 8, 8)
    assert set(found.images[:, 1].unique().tolist()) == {50} and set(found.images[:, 2].unique().tolist()) == {200}


def test_a_changed_source_is_decoded_again(place):
    write(place / "faces", layout(n=5), zipped=True)
    before = data.load("faces")
    write(place / "faces", layout(n=6), zipped=True)
    assert len(data.load("faces").images) > len(before.images)


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_a_damaged_cache_is_made_again(place, damage):
    write(place / "faces", layout())
    before = data.load("faces")
    (file,) = (place.parent / "cache").glob("*.safetensors")
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 255
    file.write_bytes({"cut": whole[:-100], "changed": whole, "emptied": b""}[damage])
    assert torch.equal(data.load("faces").images, before.images)
    assert torch.equal(data._kept(file).images, before.images)  # raises where it is still damaged


# Bad input


def test_a_missing_folder_is_an_error_when_asked_for(place, monkeypatch):
    monkeypatch.setenv("DGM_DATA", str(place / "absent"))
    refused(place, "absent", "unset DGM_DATA", error=FileNotFoundError)


def test_a_missing_default_folder_is_none(place, monkeypatch, tmp_path):
    monkeypatch.delenv("DGM_DATA")
    monkeypatch.setattr("helpers.settings.PROJECT", tmp_path / "elsewhere")
    assert not data.load("mnist").real


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (layout(["smile"]), ["1 classes", "wanted 2", "non_smile"]),
        (layout() | {"smile/deeper/a.png": picture()}, ["deeper/a.png", "move it"]),
        (layout() | {"smile/a.png": picture()[:60]}, ["smile/a.png", "replace or remove"]),
        (layout() | {"smile/a.jpg": picture(form="JPEG")[:-200]}, ["smile/a.jpg", "replace or remove"]),
        (layout() | {"smile/a.png": b""}, ["smile/a.png", "replace or remove"]),
        (layout() | {"smile/a.png": picture(size=(16, 20))}, ["smile/a.png", "16 × 20", "16 × 16"]),
        (layout() | {"smile/a.png": picture(mode="L")}, ["smile/a.png", "grey", "wanted RGB"]),
        (layout() | {"smile/a.png": picture(mode="RGBA")}, ["smile/a.png", "transparency", "wanted RGB"]),
        (layout() | {"smile/a.png": picture(mode="P")}, ["smile/a.png", "palette", "wanted RGB"]),
        (layout(size=(16, 20)), ["16 × 20", "squares"]),
        ({f"test/{name}": image for name, image in layout().items()}, ["no 'train'"]),
    ],
    ids="class depth png jpg empty size grey rgba palette oblong split".split(),
)
@pytest.mark.parametrize("zipped", [False, True])
def test_unfitting_files_are_named(place, files, words, zipped, monkeypatch):
    monkeypatch.setattr(folders, "KEPT", 1.0)  # the odd image is then in the training split
    name = write(place / "faces", files, zipped).name
    refused(place, name, *words)


def test_cifar_wants_ten_classes(place):
    files = {f"train/{name}": image for name, image in layout(["cat", "dog"], size=(32, 32)).items()}
    write(place / "cifar10", files, zipped=True)
    refused(place, "2 classes", "wanted 10", "airplane", name="cifar10")


@pytest.mark.parametrize("zipped", [False, True])
def test_an_empty_class_is_named(place, zipped):
    files = layout(["non_smile"])
    if zipped:
        files["smile/"] = b""
    else:
        (place / "faces" / "smile").mkdir(parents=True)
    write(place / "faces", files, zipped)
    refused(place, "'smile' has 0 images", "add some")


def test_a_truncated_or_damaged_zip_is_named(place):
    file = write(place / "faces", layout(), zipped=True)
    whole = file.read_bytes()
    file.write_bytes(whole[:-300])
    refused(place, "faces.zip", "copy or make it again")
    middle = whole.index(b"IDAT") + 8
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    refused(place, "faces.zip", "CRC")


def test_a_member_that_does_not_inflate_is_named(place):
    with zipfile.ZipFile(place / "faces.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in layout().items():
            opened.writestr(name, content)
        at = [info.header_offset + 30 + len(info.filename) for info in opened.infolist()]
    whole = bytearray((place / "faces.zip").read_bytes())
    for start in at:
        whole[start : start + 8] = bytes([255] * 8)
    (place / "faces.zip").write_bytes(whole)
    refused(place, "faces.zip", "copy or make it again")


def test_a_member_that_points_outside_is_refused(place, tmp_path):
    write(place / "faces", layout() | {"../smile/a.png": picture()}, zipped=True)
    refused(place, "faces.zip", "../smile/a.png", "outside")
    assert not (tmp_path / "smile").exists()


@pytest.mark.parametrize("cut", [True, False], ids=["truncated", "wrong"])
def test_a_wrong_checksum_is_named(place, cut):
    raw = place / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in data.MNIST_MD5:
        (raw / name).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 9]) + bytes(4 if cut else 9))
    wanted = data.MNIST_MD5["train-images-idx3-ubyte"]
    refused(place, "train-images-idx3-ubyte", "MD5", wanted, "download", name="mnist")
    (raw / "train-labels-idx1-ubyte").unlink()
    refused(place, "train-labels-idx1-ubyte is missing", name="mnist", error=FileNotFoundError)


def test_cifar_pickles_are_not_opened_unless_their_checksums_are_right(place, monkeypatch):
    batches = place / "cifar-10-batches-py"
    batches.mkdir()
    (batches / "data_batch_1").write_bytes(b"not a batch")
    monkeypatch.setattr("pickle.load", lambda *a, **k: pytest.fail("opened"))
    refused(place, "data_batch_1", "c99cafc152244af753f735de768cd75f", name="cifar10")


def test_an_idx_file_with_its_checksum_is_read(place, monkeypatch):
    raw = place / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(12)])
    for name, content in (("images-idx3", images), ("labels-idx1", bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 4]))):
        (raw / f"train-{name}-ubyte").write_bytes(content)
        monkeypatch.setitem(data.MNIST_MD5, f"train-{name}-ubyte", data.hashlib.md5(content).hexdigest())
    found = data.load("mnist")
    assert found.images.flatten().tolist() == list(range(12)) and found.images.shape == (2, 1, 2, 3)
    assert found.labels.tolist() == [7, 4]


@pytest.mark.parametrize("arguments", [("minst",), ("mnist", "valid"), ("mnist", "train", 0), ("mnist", "train", 28.0)])
def test_unknown_names_splits_and_sizes(place, arguments):
    with pytest.raises(DataError, match="wanted"):
        data.load(*arguments)
    assert not list(place.parent.glob("cache/*"))


# Stand-ins


@pytest.mark.parametrize("name", ["mnist", "cifar10", "faces"])
def test_without_a_network_a_stand_in_comes_soon_and_says_so(place, name, capsys):
    start = time.process_time()  # not wall time: the machine may be busy with other tests
    found = data.load(name)
    assert time.process_time() - start < 10
    assert not found.real and "STAND-IN" in found.source and "nothing below DGM_DATA" in found.source
    assert found.source in capsys.readouterr().out


def test_a_network_that_hangs_is_given_up(place, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: time.sleep(30))
    start = time.perf_counter()
    found = data.load("cifar10", "test")
    assert time.perf_counter() - start < 10 and "no network" in found.source
    start = time.perf_counter()
    data.load("cifar10", "train")  # asked once per process
    assert time.perf_counter() - start < 10


def test_a_download_that_fails_ends_in_the_stand_in(place, monkeypatch):
    def fails(name, root):
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(data, "reachable", lambda url: True)
    monkeypatch.setattr(data, "download", fails)
    assert "the download failed with RuntimeError" in data.load("mnist", "test").source


def test_a_download_appears_whole_or_not_at_all(place, monkeypatch):
    def fetch(root, download):
        assert download and data.socket.getdefaulttimeout() == 10
        (Path(root) / "MNIST" / "raw").mkdir(parents=True)
        (Path(root) / "MNIST" / "raw" / "part").touch()
        if fails:
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.MNIST", fetch)
    fails = True
    with pytest.raises(RuntimeError):
        data.download("mnist", place)
    assert not list(place.iterdir()) and data.socket.getdefaulttimeout() is None
    fails = False
    data.download("mnist", place)
    assert [path.name for path in place.rglob("*")] == ["MNIST", "raw", "part"]


@pytest.mark.parametrize("name", ["mnist", "cifar10", "drawn_faces"])
def test_stand_ins_are_repeatable_balanced_and_fresh_in_the_test_split(place, name):
    train, test = data.load(name), data.load(name, "test")
    for file in (place.parent / "cache").iterdir():
        file.unlink()
    again = data.load(name)
    assert torch.equal(train.images, again.images) and torch.equal(train.labels, again.labels)
    for part in (train, test):
        counts = part.labels.bincount(minlength=len(part.classes))
        assert counts.min() > 0.85 * counts.max()
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in test.images)


def test_drawn_classes_can_be_told_apart():
    (x, y), (u, v) = ((x.flatten(1) / 255, y) for x, y in (drawn.scenes("train"), drawn.scenes("test")))
    nearest = torch.cdist(u, x).argmin(1)
    assert (y[nearest] == v).float().mean() > 0.8  # chance is 0.1
    assert x.shape[1] == 3 * 32 * 32 and torch.equal(y.unique(), torch.arange(10))


@pytest.mark.parametrize("size", [32, 64])
def test_each_factor_changes_the_face_and_only_where_it_should(size):
    base = torch.zeros(1, len(drawn.FACTORS))
    base[:, 0] = 0.6
    face = drawn.draw_faces(base, size).float()
    for k, name in enumerate(drawn.FACTORS):
        changed = base.clone()
        changed[:, k] = -0.6
        moved = (drawn.draw_faces(changed, size).float() - face).abs().amax(1)[0] > 16
        assert moved.float().mean() > 0.005, name
        if name == "smile":  # the lower half of the face alone
            assert not moved[: size // 2].any()
        if name == "background":
            assert moved[0].all() and not moved[size // 2, size // 2]


def test_the_smile_can_be_read_from_the_pixels_and_is_the_class():
    x, y, factors = drawn.faces("train", 32)
    assert torch.equal(y, (factors[:, 0] > 0).long()) and factors.abs().max() <= 1
    correlation = torch.corrcoef(factors.T) - torch.eye(len(drawn.FACTORS))
    assert correlation.abs().max() < 5 / len(factors) ** 0.5  # independent: five standard errors
    features = torch.cat([x.flatten(1) / 255, torch.ones(len(x), 1)], 1).double()
    gram = features[:3000].T @ features[:3000] + 10 * torch.eye(features.shape[1])
    weights = torch.linalg.solve(gram, features[:3000].T @ (2.0 * y[:3000] - 1).double())
    assert ((features[3000:] @ weights > 0) == (y[3000:] == 1)).float().mean() > 0.8


def test_a_face_is_the_same_at_every_size():
    factors = torch.rand(4, len(drawn.FACTORS), generator=torch.Generator().manual_seed(0)) * 2 - 1
    small, large = drawn.draw_faces(factors, 32), drawn.draw_faces(factors, 128)
    difference = (folders.resized(large, 32).float() - small.float()).abs().mean()
    assert difference < 8
    assert difference < 0.3 * (small.float() - small.float().roll(1, 0)).abs().mean()


# Speed


def test_the_second_load_is_quick_and_needs_no_torchvision(place):
    data.load("drawn_faces")
    code = (
        "import sys, time, torch\nfrom helpers import data, drawn\n"
        "start = time.perf_counter()\ndata.load('drawn_faces')\n"
        "read, imported = time.perf_counter(), 'torchvision' in sys.modules\ndrawn.faces('train')\n"
        "print('ratio', (time.perf_counter() - read) / (read - start), imported)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    ratio, imported = re.search(r"ratio (\S+) (\S+)", out.stdout).groups()
    assert float(ratio) > 3 and imported == "False"  # drawing them again against reading them back


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["mnist", "cifar10"])
def test_batches_come_ten_times_as_fast_as_from_a_loader(shape):
    spec = importlib.util.spec_from_file_location("bench_data", ROOT / "bench" / "data.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8192, *shape), generator=g, dtype=torch.uint8)
    _, ratios = bench.compare(images, torch.arange(8192) % 10, repetitions=5, count=8)
    for workers, found in ratios.items():
        assert sorted(found)[2] >= 10, (workers, found)  # the median of five
