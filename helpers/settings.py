"""Profile, device, seed and folders of a run, read once from the environment.

Nothing about data or models belongs here.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

PROJECT = Path(__file__).resolve().parent.parent
PROFILES = ("quick", "full")


@dataclass(frozen=True)
class Settings:
    """One run: `profile` ("quick" or "full"), torch `device`, and the integer `seed`."""

    profile: str
    device: torch.device
    seed: int

    def pick(self, quick: T, full: T) -> T:
        """The value of the profile in force, both values side by side in the notebook."""
        return quick if self.profile == "quick" else full

    @property
    def full(self) -> bool:
        """Whether this run trains as the sheet or the paper says, and rewrites what is shipped."""
        return self.profile == "full"

    def generator(self, offset: int = 0) -> torch.Generator:
        """A CPU generator seeded with `seed + offset`, so that cells do not depend on their order."""
        return torch.Generator().manual_seed(self.seed + offset)


def start(seed: int = 0, profile: str | None = None) -> Settings:
    """Read DGM_PROFILE (default "quick") and DGM_DEVICE, seed torch, print one line, return the settings.

    `profile` given in the notebook wins over the environment. Raises ValueError for an unknown profile.
    """
    profile = profile or os.environ.get("DGM_PROFILE", "quick")
    if profile not in PROFILES:
        raise ValueError(f"DGM_PROFILE is {profile!r}; wanted one of {PROFILES}: set it and restart the kernel")
    name = os.environ.get("DGM_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    print(f"profile {profile} · device {name} · seed {seed} · torch {torch.__version__.split('+')[0]}")
    return Settings(profile, torch.device(name), seed)


def folder(variable: str, default: str) -> Path:
    """The folder that an environment variable names, else `default` below the project's root."""
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else PROJECT / default


def state_folder() -> Path:
    """Where unfinished training keeps its state, so that it can go on: `build/state/` of the project."""
    return PROJECT / "build" / "state"
