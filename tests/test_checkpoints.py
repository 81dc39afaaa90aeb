"""What is saved comes back; what was touched is refused and left as it is."""

import json

import pytest
import torch
from torch import nn

from helpers import checkpoints
from helpers.checkpoints import CheckpointError

RECORD = {"notebook": "here", "seed": 0}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DGM_CHECKPOINTS", str(tmp_path))
    return tmp_path


def build(width=3):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def save(name="net", half=False):
    model = build()
    checkpoints.save(
        name, model, arguments={"width": 3}, metrics={"m": {"value": 1, "n": 2, "error": 0}}, record=RECORD, half=half
    )
    return model


def test_save_then_load_changes_nothing(folder):
    model, other = save(), build(3)
    nn.init.zeros_(other[0].weight)
    entry = checkpoints.load("net", other)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert entry["arguments"] == {"width": 3} and entry["notebook"] == "here"
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "net.safetensors"]


def test_half_precision_rounds_and_keeps_the_models_type():
    model = save(half=True)
    other = build()
    checkpoints.load("net", other)
    assert other[0].weight.dtype == torch.float32
    assert torch.equal(other[0].weight, model[0].weight.half().float())


def test_a_second_save_keeps_the_first():
    save("one"), save("two")
    assert set(checkpoints.manifest()) == {"one", "two"}


def test_every_changed_byte_is_refused(folder):
    save()
    path = folder / "net.safetensors"
    content = path.read_bytes()
    for at in (0, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        changed = path.read_bytes()
        with pytest.raises(CheckpointError, match="SHA-256"):
            checkpoints.load("net", build())
        assert path.read_bytes() == changed
    path.write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match="SHA-256"):
        checkpoints.load("net", build())


def test_manifest_without_the_file_and_file_without_the_entry(folder):
    save()
    (folder / "net.safetensors").unlink()
    with pytest.raises(CheckpointError, match="not on disk"):
        checkpoints.load("net", build())
    with pytest.raises(CheckpointError, match=r"no checkpoint 'other'.*there are: net.*DGM_PROFILE=full"):
        checkpoints.load("other", build())


def test_wrong_shape_and_missing_tensor_leave_the_model_alone():
    save()
    wide = build(4)
    before = wide[0].weight.clone()
    with pytest.raises(CheckpointError, match=r"0\.weight has shape \(3, 2\), the model wants \(4, 2\).*'width': 3"):
        checkpoints.load("net", wide)
    assert torch.equal(wide[0].weight, before)
    with pytest.raises(CheckpointError, match=r"not wanted \['1\.bias'"):
        checkpoints.load("net", nn.Sequential(nn.Linear(2, 3)))
    with pytest.raises(CheckpointError, match=r"missing \['2\.bias', '2\.weight'\]"):
        checkpoints.load("net", build().append(nn.Linear(3, 1)))


def test_too_large_is_refused_before_anything_is_written(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "LIMIT", 10)
    with pytest.raises(CheckpointError, match="at most 10"):
        save()
    assert not list(folder.iterdir())


def test_a_write_that_fails_leaves_the_old_file(folder, monkeypatch):
    path = folder / "x"
    checkpoints.write_atomic(path, b"old")
    monkeypatch.setattr(checkpoints.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoints.write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in folder.iterdir()] == ["x"]


def test_tables(folder):
    checkpoints.save_table("t", [{"a": 0.1 + 0.2}], RECORD)
    assert checkpoints.load_table("t") == {"provenance": RECORD, "rows": [{"a": 0.1 + 0.2}]}
    assert json.loads((folder / "t.json").read_text())
    with pytest.raises(CheckpointError, match="u.json is missing"):
        checkpoints.load_table("u")
