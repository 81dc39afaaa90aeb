"""nbgrader's settings for this course: folders, what the release clears, limits. One function, `config`.

The traps behind each line: widget state keeps printed output, cell metadata keeps times, `timeout=None` hangs.
"""

import os
import sys
from pathlib import Path

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.converters import GenerateAssignment
from traitlets.config import Config

CODE_STUB = "raise NotImplementedError"
TEXT_STUB = "YOUR ANSWER HERE"
FOLDERS = ("release", "submitted", "autograded", "feedback", "solution")


def config(root: Path, database: str = "", timeout: int = 300) -> Config:
    """Settings for a course whose notebooks lie in `root`/notebooks; everything made goes to `root`/build.

    `database` is an SQLAlchemy address (default: SQLite in build); `timeout` is seconds per cell. Puts this Python's
    folder on PATH, because nbgrader calls the program alembic that lies there.
    """
    folder = str(Path(sys.executable).parent)
    if folder not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([folder, os.environ["PATH"]])
    build = root / "build"
    build.mkdir(parents=True, exist_ok=True)
    c = Config()
    c.CourseDirectory.root = str(root)
    c.CourseDirectory.source_directory = "notebooks"
    for name in FOLDERS:
        c.CourseDirectory[f"{name}_directory"] = f"build/{name}"
    c.CourseDirectory.db_url = database or f"sqlite:///{build}/gradebook.db"
    c.ClearSolutions.code_stub = {"python": CODE_STUB}
    c.ClearSolutions.text_stub = TEXT_STUB
    c.ExecutePreprocessor.timeout = timeout
    c.Execute.timeout = timeout
    c.Execute.record_timing = False
    c.ClearMetadataPreprocessor.enabled = True  # off by default, although listed
    c.ClearMetadataPreprocessor.preserve_cell_metadata_mask = {("nbgrader",), ("tags",), ("deletable",), ("editable",)}
    c.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {("kernelspec",), ("language_info",)}
    c.GenerateAssignment.preprocessors = [*GenerateAssignment().preprocessors, ClearMetadataPreprocessor]
    return c
