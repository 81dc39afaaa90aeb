"""Trained weights and measured tables that ship with the course, each with its provenance.

Weights are safetensors beside `manifest.json`; tables are small JSON. No pickle is read or written.
"""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes

from helpers.settings import Settings, folder

LIMIT = 12_000_000  # bytes a file
LIBRARIES = ("torch", "torchvision", "accelerate", "safetensors")


class CheckpointError(RuntimeError):
    """A checkpoint or table that is missing, changed, or does not fit; the file is left as it is."""


def directory() -> Path:
    """Where what is shipped lies: DGM_CHECKPOINTS, or `checkpoints/` of the project."""
    return folder("DGM_CHECKPOINTS", "checkpoints")


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def provenance(run: Settings, notebook: str, data: str, seconds: float, **more: object) -> dict:
    """Where a result comes from: notebook, data, profile, seed, device, wall time, versions, date, and `more`."""
    device = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else f"{platform.machine()} CPU"
    return {
        "notebook": notebook,
        "data": data,
        "profile": run.profile,
        "seed": run.seed,
        "device": f"{device}, {torch.get_num_threads()} threads" if run.device.type == "cpu" else device,
        "seconds": round(seconds, 1),
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        **more,
    }


def manifest() -> dict[str, dict]:
    """All shipped checkpoints by name."""
    path = directory() / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save(
    name: str,
    model: torch.nn.Module,
    *,
    arguments: Mapping[str, object],
    metrics: Mapping[str, Mapping[str, float]],
    record: Mapping[str, object],
    half: bool = True,
) -> None:
    """Write `<name>.safetensors` and its manifest entry.

    `arguments` rebuild the model, `metrics` are {name: {"value", "n", "error"}}, `record` is its `provenance`.
    `half` stores floating-point tensors in 16 bits. Raises CheckpointError above 12 MB.
    """
    tensors = {
        key: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    content = save_bytes(tensors)
    if len(content) > LIMIT:
        raise CheckpointError(f"{name}: {len(content)} bytes, at most {LIMIT} are shipped; use a smaller model")
    write_atomic(directory() / f"{name}.safetensors", content)
    entry = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "arguments": dict(arguments),
        "metrics": {key: dict(value) for key, value in metrics.items()},
        **record,
    }
    entries = manifest() | {name: entry}
    write_atomic(directory() / "manifest.json", (json.dumps(entries, indent=1, sort_keys=True) + "\n").encode("utf-8"))


def load(name: str, model: torch.nn.Module) -> dict:
    """Fill `model` in place with the shipped weights and return their manifest entry.

    Raises CheckpointError for an unknown name, a missing file, a changed byte, or tensors that do not fit.
    """
    entries = manifest()
    if name not in entries:
        raise CheckpointError(
            f"no checkpoint {name!r} in the manifest (there are: {', '.join(sorted(entries)) or 'none'}); "
            "train it: set DGM_PROFILE=full and run the notebook"
        )
    path, entry = directory() / f"{name}.safetensors", entries[name]
    if not path.exists():
        raise CheckpointError(f"{path} is in the manifest but not on disk; restore it with git, or train it again")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != entry["sha256"]:
        raise CheckpointError(
            f"{path}: SHA-256 is {found[:16]}…, the manifest says {entry['sha256'][:16]}…; "
            "the file was changed: restore it with git, or train it again"
        )
    tensors, wanted = load_bytes(content), model.state_dict()
    if tensors.keys() != wanted.keys():
        raise CheckpointError(
            f"{path}: tensors missing {sorted(wanted.keys() - tensors.keys())}, "
            f"not wanted {sorted(tensors.keys() - wanted.keys())}; build the model with {entry['arguments']}"
        )
    for key, want in wanted.items():
        if tensors[key].shape != want.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(tensors[key].shape)}, the model wants {tuple(want.shape)}; "
                f"build the model with {entry['arguments']}"
            )
    model.load_state_dict({key: tensors[key].to(want.dtype) for key, want in wanted.items()})
    return entry


def save_table(name: str, rows: object, record: Mapping[str, object]) -> None:
    """Write a measured table (plain numbers, lists, dicts) as `<name>.json` with its provenance."""
    content = json.dumps({"provenance": dict(record), "rows": rows}, indent=None, separators=(",", ":"))
    write_atomic(directory() / f"{name}.json", (content + "\n").encode("utf-8"))


def load_table(name: str) -> dict:
    """The table `<name>.json`: {"provenance": …, "rows": …}. Raises CheckpointError where there is none."""
    path = directory() / f"{name}.json"
    if not path.exists():
        raise CheckpointError(f"{path} is missing; restore it with git, or set DGM_PROFILE=full and run the notebook")
    return json.loads(path.read_text(encoding="utf-8"))
