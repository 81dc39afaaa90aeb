"""Execute one notebook and say what went wrong: error replies, error outputs, dead kernels, widgets, shell lines.

nbclient drives the kernel; what it lets pass is caught here. Reports are made in course.run.
"""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from course.notebooks import ROOT, name_of
from helpers.checks import MIME

ANSI = re.compile(r"\x1b\[[0-9;]*m")
GRACE = 5.0  # seconds that a cell gets to obey an interrupt
# Run before the first cell: a shell line or %pip that fails raises, as every other line does.
GUARD = """
def _guard():
    import subprocess
    shell = get_ipython()
    def system(command):
        code = subprocess.run(shell.var_expand(command, depth=1), shell=True).returncode
        shell.user_ns["_exit_code"] = code
        if code:
            raise RuntimeError(f"shell command failed with exit status {code}: {command}")
    shell.system = system
    output = shell.getoutput
    def getoutput(command, *args, **kwargs):
        code = subprocess.run(shell.var_expand(command, depth=1), shell=True, capture_output=True).returncode
        if code:
            raise RuntimeError(f"shell command failed with exit status {code}: {command}")
        return output(command, *args, **kwargs)
    shell.getoutput = getoutput
_guard()
del _guard
"""


@dataclass
class Outcome:
    """What became of one notebook; `failures` are (cell id, message with traceback), in order."""

    notebook: str
    seconds: float = 0.0
    cells: int = 0
    executed: int = 0
    checks: int = 0
    expected: int = 0
    points: dict[str, float] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """No failure at all."""
        return not self.failures

    def as_dict(self) -> dict:
        """Plain data for the JSON report."""
        return asdict(self) | {"passed": self.passed, "points total": sum(self.points.values())}


class Client(NotebookClient):
    """nbclient that polls in slices (an `interact` cell stalls it otherwise) and sees a dead kernel within a second."""

    async def _async_poll_for_reply(self, msg_id: str, cell: object, timeout: int | None, *poll: object) -> object:
        end = None if timeout is None else time.monotonic() + timeout
        output_poll = poll[0]
        while True:
            left = 0.25 if end is None else max(0.01, min(0.25, end - time.monotonic()))
            try:
                reply = await self.kc.shell_channel.get_msg(timeout=left)
            except Empty:
                if not await self.km.is_alive():
                    await asyncio.sleep(0.2)  # let the last outputs arrive
                    raise DeadKernelError("the kernel died while running this cell") from None
                if end is not None and time.monotonic() >= end:
                    raise CellTimeoutError.error_from_timeout_and_cell(
                        "the cell ran longer than its limit", timeout or 0, cell
                    ) from None
                continue
            if reply["parent_header"].get("msg_id") == msg_id:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(output_poll, self.iopub_timeout)
                return reply


def execute(
    path: Path,
    target: Path | None = None,
    limit: float | None = 300,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Run a notebook in a fresh kernel of this environment, in its own folder; write the executed copy to `target`.

    A cell above `limit` seconds is interrupted, its failure recorded, and the next cells are run, so that later
    failures show; any other error ends the notebook. Nothing is raised for what a notebook does.
    """
    outcome, began = Outcome(name_of(path)), time.monotonic()
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:
        outcome.failures.append(("", f"{path.name} is not a readable notebook: {error}"))
        return outcome
    asyncio.run(_run(notebook, path, outcome, limit, progress))
    outcome.seconds = round(time.monotonic() - began, 2)
    _judge(notebook, outcome)
    if target is not None:
        notebook.metadata.pop("widgets", None)
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
    return outcome


async def _run(
    notebook: nbformat.NotebookNode, path: Path, outcome: Outcome, limit: float | None, progress: Callable | None
) -> None:
    client = Client(
        notebook,
        timeout=int(limit) if limit else None,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        allow_errors=False,
    )
    code = [(i, c) for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip()]
    outcome.cells = len(code)
    for _, cell in code:
        cell.outputs, cell.execution_count = [], None
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "DGM_LIVE": "0"}
    try:
        manager = client.async_setup_kernel(env=environment, cleanup_kc=True)
        async with manager:
            process = getattr(client.km.provisioner, "process", None)
            await _quietly(client, GUARD)
            for number, (index, cell) in enumerate(code):
                if progress:
                    progress(number, len(code))
                if not await _one(client, cell, index, outcome):
                    break
            client.set_widgets_metadata()
            if process is not None and process.poll() is None:
                await client.km.shutdown_kernel(now=True)
    except (DeadKernelError, RuntimeError, TimeoutError) as error:
        outcome.failures.append(("", f"the kernel did not start or stop: {type(error).__name__}: {error}"))


async def _quietly(client: Client, source: str) -> None:
    """Run source without a trace in the notebook or its execution counts."""
    msg_id = client.kc.execute(source, silent=True, store_history=False)
    while (await client.kc.shell_channel.get_msg(timeout=60))["parent_header"].get("msg_id") != msg_id:
        pass


async def _one(client: Client, cell: nbformat.NotebookNode, index: int, outcome: Outcome) -> bool:
    """Execute a cell; whether to go on."""
    try:
        await client.async_execute_cell(cell, index)
    except CellExecutionError as error:
        _fail(outcome, cell, f"{error.ename}: {error.evalue}\n{error.traceback}")
        return False
    except DeadKernelError as error:
        _fail(outcome, cell, str(error))
        return False
    except CellTimeoutError:
        _fail(outcome, cell, f"the cell ran longer than {client.timeout} s")
        return await _interrupt(client)
    outcome.executed += 1
    return True


async def _interrupt(client: Client) -> bool:
    """Stop the running cell; False, with the kernel killed, where it does not obey."""
    await client.km.interrupt_kernel()
    end = time.monotonic() + GRACE
    while time.monotonic() < end:
        with suppress(Empty):
            await client.kc.shell_channel.get_msg(timeout=0.25)
            return True
    process = getattr(client.km.provisioner, "process", None)
    if process is not None:
        os.kill(process.pid, signal.SIGKILL)
    return False


def _fail(outcome: Outcome, cell: nbformat.NotebookNode, message: str) -> None:
    text = ANSI.sub("", message).replace(str(ROOT), ".").replace(sys.prefix, "<environment>")
    outcome.failures.append((cell.get("id", ""), text))


def _judge(notebook: nbformat.NotebookNode, outcome: Outcome) -> None:
    """What the replies did not say: error outputs, widgets that failed, checks that were not made, cells not run."""
    known = {cell for cell, _ in outcome.failures}
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    for cell in code:
        errors = [o for o in cell.outputs if o.output_type == "error"]
        if errors and cell.get("id", "") not in known:
            _fail(outcome, cell, "\n".join([f"{errors[0].ename}: {errors[0].evalue}", *errors[0].traceback]))
    state = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    for widget in state.values():
        for output in widget.get("state", {}).get("outputs", []) or []:
            if output.get("output_type") == "error":
                text = "\n".join([f"in a widget: {output['ename']}: {output['evalue']}", *output["traceback"]])
                outcome.failures.append(("", ANSI.sub("", text).replace(str(ROOT), ".")))
    report = next((o.data[MIME] for o in code[-1].outputs if MIME in o.get("data", {})), None) if code else None
    if report:
        outcome.checks, outcome.expected, outcome.points = report["passed"], report["expected"], report["points"]
    if not outcome.failures:
        if outcome.executed < outcome.cells:
            outcome.failures.append(("", f"{outcome.cells - outcome.executed} cells were not run"))
        elif not report:
            outcome.failures.append(("", "the last cell did not show checks.report(…): not proved that all cells ran"))
        elif len(report["records"]) != report["expected"]:
            outcome.failures.append(("", f"{len(report['records'])} checks recorded, {report['expected']} expected"))
