"""One readable training loop: a loss with named terms, an optimizer, exact resumption.

It knows nothing of any model. Where the loop is the lesson, it stands in the notebook instead.
"""

import copy
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save as save_bytes
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from helpers.checkpoints import write_atomic
from helpers.widgets import live

Terms = Mapping[str, torch.Tensor]
Loss = Callable[[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]], Terms]


class Source(Protocol):
    """What `fit` needs of batches; helpers.data.Batches is one."""

    @property
    def steps_per_epoch(self) -> int: ...

    def at(self, step: int, part: int = 0, parts: int = 1) -> tuple[torch.Tensor, torch.Tensor]: ...


class TrainingError(RuntimeError):
    """A loss that is not finite, or a saved state of another run."""


@dataclass
class Result:
    """The trained model (its moving average, where one was asked for), and the history as plain numbers.

    `history` has "step", one list per loss term (means over the steps since the last entry), "images_per_second";
    and "epoch" with one list per number that the hook returned. `seconds` is the wall time over all resumptions.
    """

    model: torch.nn.Module
    history: dict[str, list[float]]
    seconds: float


def fit(
    model: torch.nn.Module,
    loss: Loss,
    batches: Source,
    *,
    steps: int,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    lr: float = 1e-3,
    schedule: Callable[[int], float] | None = None,
    seed: int = 0,
    clip: float | None = None,
    ema: float | None = None,
    hook: Callable[[torch.nn.Module, int], Mapping[str, float]] | None = None,
    state: Path | None = None,
    every: int = 100,
    save_seconds: float = 20.0,
    device: torch.device | None = None,
) -> Result:
    """Minimise `loss(model, batch)["loss"]` for `steps` steps; the other terms are only recorded.

    The loss calls `model(…)` alone, so that Accelerate may wrap it: on one CPU or GPU (bfloat16 there), or in each
    process of `accelerate launch`, where every process takes its share of each batch. `schedule(step)` multiplies
    `lr`; `clip` bounds the gradient's norm; `ema` is the decay of a moving average of the weights; `hook(model,
    epoch)` runs after each epoch. Every `every` steps the history gets an entry.

    Step t draws its noise from a seed made of (seed, t, process), so a run that was killed and started again with
    the same `state` file ends with the numbers of an uninterrupted one. The file is written atomically at most every
    `save_seconds`, and deleted at the end. Raises TrainingError for a term that is not finite (step, term, value),
    or for a state file of another run.
    """
    from accelerate import Accelerator

    gpu = torch.cuda.is_available() and (device is None or device.type == "cuda")
    accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no")
    part, parts, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    model.to(accelerator.device).train()
    wrapped, opt = accelerator.prepare(model, optimizer(model.parameters(), lr=lr))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None
    identity = {
        "seed": seed,
        "lr": lr,
        "clip": clip,
        "ema": ema,
        "every": every,
        "optimizer": type(opt.optimizer).__name__,
    }
    keep = {"model": model} | ({"ema": average} if average else {})
    done, history, seconds = _restore(state, keep, opt.optimizer, identity) if state else (0, {}, 0.0)

    began = saved = window = time.perf_counter()
    before, terms, images = seconds, [], 0
    bar = _progress(steps, done) if main else None
    with torch.random.fork_rng(devices=[accelerator.device] if gpu else []):
        for step in range(done, steps):
            torch.manual_seed(((seed * 1_000_003 + step) * 64 + part) % 2**63)
            if schedule is not None:
                for group in opt.param_groups:
                    group["lr"] = lr * schedule(step)
            batch = batches.at(step, part, parts)
            named = loss(wrapped, batch)
            opt.zero_grad(set_to_none=True)
            accelerator.backward(named["loss"])
            if clip is not None:
                accelerator.clip_grad_norm_(wrapped.parameters(), clip)
            opt.step()
            if average:
                average.update_parameters(model)
            terms.append(torch.stack([value.detach().float() for value in named.values()]))
            images += len(batch[0]) * parts
            if bar is not None:
                bar.update()

            end = step + 1 == steps
            if (step + 1) % every == 0 or end:
                means = _means(list(named), torch.stack(terms), step + 1 - len(terms), accelerator)
                now = time.perf_counter()
                _append(history, {"step": step + 1, **means, "images_per_second": images / (now - window)})
                if bar is not None:
                    bar.set_postfix(
                        {k: f"{v:.4g}" for k, v in means.items()} | {"img/s": f"{images / (now - window):.0f}"}
                    )
                terms, images = [], 0
            if hook is not None and (step + 1) % batches.steps_per_epoch == 0:
                epoch = (step + 1) // batches.steps_per_epoch
                _append(history, {"epoch": epoch, **_evaluate(hook, average.module if average else model, epoch)})
                model.train()
            if not terms:
                window = time.perf_counter()
                seconds = before + window - began
                if state and main and not end and window - saved >= save_seconds:
                    _save(
                        state,
                        keep,
                        opt.optimizer,
                        {"step": step + 1, "seconds": seconds, "identity": identity},
                        history,
                    )
                    saved = time.perf_counter()
    if bar is not None:
        bar.close()
    if state and main:
        state.unlink(missing_ok=True)
    final = copy.deepcopy(average.module) if average else model
    return Result(final.eval(), history, seconds)


def _progress(steps: int, done: int):  # noqa: ANN202
    from tqdm.auto import tqdm

    return tqdm(total=steps, initial=done, unit="step", disable=not (live() or sys.stderr.isatty()))


def _append(history: dict[str, list[float]], entry: Mapping[str, float]) -> None:
    for key, value in entry.items():
        history.setdefault(key, []).append(value)


def _evaluate(hook: Callable, model: torch.nn.Module, epoch: int) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        return {key: float(value) for key, value in hook(model, epoch).items()}


def _means(names: list[str], terms: torch.Tensor, first: int, accelerator: object) -> dict[str, float]:
    """Means over the window and the processes; stops at the first value that is not finite."""
    terms = accelerator.reduce(terms, reduction="mean").cpu()  # type: ignore[attr-defined]
    bad = (~terms.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise TrainingError(
            f"step {first + row}: term {names[column]!r} is {terms[row, column].item()}; "
            "lower the learning rate, clip the gradient, or look at this batch"
        )
    return dict(zip(names, terms.double().mean(0).tolist(), strict=True))


def _save(
    path: Path, keep: Mapping[str, torch.nn.Module], opt: torch.optim.Optimizer, meta: dict, history: dict
) -> None:
    tensors = {f"{name}/{k}": v for name, module in keep.items() for k, v in module.state_dict().items()}
    for index, values in opt.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in values.items() if v is not None}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write_atomic(path, save_bytes(tensors, {"fit": json.dumps(meta | {"history": history})}))


def _restore(
    path: Path, keep: Mapping[str, torch.nn.Module], opt: torch.optim.Optimizer, identity: dict
) -> tuple[int, dict[str, list[float]], float]:
    if not path.exists():
        return 0, {}, 0.0
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["fit"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    if meta["identity"] != identity:
        raise TrainingError(
            f"{path} is the state of {meta['identity']}, this run is {identity}; delete it to start anew"
        )
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, rest = key.partition("/")
        groups.setdefault(name, {})[rest] = tensor
    for name, module in keep.items():
        module.load_state_dict(groups[name])
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in groups.get("optimizer", {}).items():
        index, _, slot = key.partition("/")
        slots.setdefault(int(index), {})[slot] = tensor
    opt.load_state_dict({"state": slots, "param_groups": opt.state_dict()["param_groups"]})
    return meta["step"], meta["history"], meta["seconds"]


def cosine(steps: int, warmup: int = 0) -> Callable[[int], float]:
    """Linear warm-up over `warmup` steps, then half a cosine to zero at `steps` (Loshchilov & Hutter 2017, eq. 5)."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor


def sweep(keys: Sequence[str], one: Callable[[str], dict], state: Path) -> dict[str, dict]:
    """`{key: one(key)}`; results (plain numbers) are kept in the JSON file `state`, so a killed sweep goes on there.

    The caller ships the whole and then deletes the file.
    """
    rows = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    for key in keys:
        if key not in rows:
            rows[key] = one(key)
            write_atomic(state, json.dumps(rows).encode("utf-8"))
    return {key: rows[key] for key in keys}
