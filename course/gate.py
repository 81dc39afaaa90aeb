"""One notebook, executed in a clean kernel and judged: nothing that goes wrong may pass.

nbclient collects the outputs; what it lets through (an error shown inside a widget, a failed shell line, a
stalled reply) is caught here. Which notebooks run, and what is written about them, does not belong here.
"""

import asyncio
import logging
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from time import monotonic

import nbformat
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from course.verdict import Failure, Result, code_cells, plain, read_checks

SLICE = 0.2  # s between looks at the shell channel: what a lost wake-up (nbclient #312) costs at most
GRACE = 5.0  # s that an interrupted cell has to stop before its kernel is killed

# Runs silently before the first cell. Shell lines that fail raise, which is tried out at once; and on Linux
# the kernel dies with its runner even while native code keeps ipykernel's own watch from running.
GUARD = """
def _guard():
    import ctypes, signal, subprocess, sys
    shell = get_ipython()
    shell.system_raise_on_error = True
    try:
        shell.system("exit 3")
    except subprocess.CalledProcessError:
        pass
    else:
        raise RuntimeError("IPython lets failed shell lines pass: install the versions in constraints.txt")
    shell.user_ns.pop("_exit_code", None)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
_guard()
del _guard
"""

_QUIET = logging.getLogger("course.gate")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class _ThisEnvironment(KernelSpecManager):
    """Every kernel name means this Python, whatever is installed for the user or stored in the notebook."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class Gate(NotebookClient):
    """Executes one notebook; the failures found so far are in `failures`.

    `limit` is in seconds per cell (None: none). `on_cell(k)` is called when code cell k, from 1, begins.
    """

    def __init__(
        self,
        nb: NotebookNode,
        folder: Path,
        environment: dict[str, str],
        limit: float | None,
        on_cell: Callable[[int], None],
    ) -> None:
        # allow_errors: the verdict is made here, from the reply, after the outputs have been kept
        super().__init__(nb, allow_errors=True, skip_cells_with_tag="", record_timing=False, log=_QUIET)
        self.folder, self.environment, self.limit, self.on_cell = folder, environment, limit, on_cell
        self.failures: list[Failure] = []
        self.executed = 0
        self._errors: list[dict] = []
        self._widget_errors = 0
        self._group = 0
        self._over = False
        self._console = tempfile.TemporaryFile()  # the kernel's own stderr, where an abort leaves its message
        self.on_cell_executed = self._judge

    async def run(self) -> None:
        """Execute the code cells. After an error the rest is not run; after an interrupted cell it is."""
        cells, complete = code_cells(self.nb), False
        try:
            await self._start()
            for k, (index, cell) in enumerate(cells, 1):
                self.on_cell(k)
                self._errors, self._over, before = [], False, len(self.failures)
                self._now = k, cell.get("id", "")
                try:
                    await self.async_execute_cell(cell, index)
                except DeadKernelError:
                    if asyncio.current_task().cancelling():  # we are being stopped; nbclient takes it for a death
                        raise asyncio.CancelledError from None
                    self._dead()
                    break
                except Exception as error:  # nbclient could not digest what the cell sent
                    self._fail(f"{type(error).__name__}: {error}")
                    break
                if len(self.failures) > before and not self._over:
                    break
            else:
                complete = True
                self.set_widgets_metadata()
        finally:
            await self._stop(gently=complete)
        if self.executed < len(cells):
            left = len(cells) - self.executed
            self.failures.append(Failure(0, "", f"{left} of {len(cells)} code cells gave no reply or were not run"))

    async def _start(self) -> None:
        """Start a kernel and prepare it. A failed start is tried once more: ports may have been taken."""
        for attempt in (1, 2):
            self.km = AsyncKernelManager(kernel_spec_manager=_ThisEnvironment(), log=_QUIET)
            try:
                await self.km.start_kernel(
                    cwd=str(self.folder),
                    env=self.environment,
                    extra_arguments=["--HistoryManager.hist_file=:memory:"],
                    stdout=self._console,
                    stderr=self._console,
                )
                self._group = self.km.provisioner.pgid
                self.kc = self.km.client()
                self.kc.start_channels()
                await self.kc.wait_for_ready(timeout=self.startup_timeout)
                self.kc.allow_stdin = False
                reply = await self._reply(self.kc.execute(GUARD, silent=True, store_history=False), limit=60)
                if reply["content"]["status"] != "ok":
                    raise RuntimeError(reply["content"].get("evalue", "the kernel could not be prepared"))
                return
            except Exception as error:
                await self._stop()
                if attempt == 2:
                    raise RuntimeError(f"the kernel did not start, tried twice: {error}") from error

    async def _stop(self, gently: bool = False) -> None:
        """End the kernel, and whatever it started, for good."""
        if not gently:
            self._kill()
        if self.kc is not None:
            self.kc.stop_channels()
            self.kc = None
        if self.km is not None and self.km.has_kernel:
            await self.km.shutdown_kernel(now=not gently)
        self._kill()

    def _kill(self) -> None:
        if self._group:
            try:
                os.killpg(self._group, signal.SIGKILL)
            except ProcessLookupError:
                self._group = 0

    async def _reply(self, message: str, limit: float | None) -> dict:
        """The reply to the request `message`. Interrupts at the limit; DeadKernelError when it dies."""
        end = None if limit is None else monotonic() + limit
        while True:
            try:
                reply = await self.kc.shell_channel.get_msg(timeout=SLICE)
                if reply["parent_header"].get("msg_id") == message:
                    return reply
            except Empty:
                if not await self.km.is_alive():
                    raise DeadKernelError("the kernel died") from None
            if end is not None and monotonic() >= end:
                if self._over:
                    self._kill()
                    raise DeadKernelError("the interrupt was swallowed")
                self._over, end = True, monotonic() + GRACE
                await self.km.interrupt_kernel()

    async def _async_poll_for_reply(
        self,
        msg_id: str,
        cell: NotebookNode,
        timeout: float | None,
        task_poll_output_msg: asyncio.Future,
        task_poll_kernel_alive: asyncio.Future,
    ) -> dict:
        """As nbclient's, in slices, with a limit that is followed by the next cell."""
        task_poll_kernel_alive.cancel()  # _reply looks itself
        reply = await self._reply(msg_id, self.limit)
        try:
            await asyncio.wait_for(task_poll_output_msg, 60)
        except TimeoutError:
            self._fail("its outputs did not arrive within 60 s of its end")
        return reply

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int) -> NotebookNode | None:
        """Errors are noted on their way to the cell or widget, where a later clear_output could hide them."""
        if msg["msg_type"] == "error":
            self._errors.append(msg["content"])
        return super().output(outs, msg, display_id, cell_index)

    def _judge(self, cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
        """Called with each reply: the reply's status, the errors shown, the state of Output widgets."""
        self.executed += 1
        reply = execute_reply["content"]
        errors, hidden = self._errors, self._errors_in_widgets()
        new_hidden, self._widget_errors = hidden[self._widget_errors :], len(hidden)
        if self._over:
            self._fail(f"over its limit of {self.limit:g} s and interrupted", errors[0] if errors else None)
        elif reply["status"] != "ok":
            self._fail(f"{reply.get('ename', reply['status'])}: {reply.get('evalue', '')}", reply)
        elif errors or new_hidden:
            shown = (errors or new_hidden)[0]
            self._fail(f"shows an error: {shown.get('ename')}: {shown.get('evalue')}", shown)
        elif any(payload.get("source") == "ask_exit" for payload in reply.get("payload", [])):
            self._fail("asked the kernel to exit")

    def _errors_in_widgets(self) -> list[dict]:
        return [
            output
            for state in self.widget_state.values()
            if state.get("_model_name") == "OutputModel"
            for output in state.get("outputs", ())
            if output.get("output_type") == "error"
        ]

    def _dead(self) -> None:
        self._console.seek(0)
        last = self._console.read().decode(errors="replace")[-4000:]
        if self._over:
            self._fail(f"over its limit of {self.limit:g} s; the interrupt was swallowed and the kernel killed")
        else:
            self._fail("the kernel died (out of memory, or a crash in native code)", {"traceback": [last]})

    def _fail(self, message: str, error: dict | None = None) -> None:
        trace = plain("\n".join((error or {}).get("traceback") or []))[-8000:]
        self.failures.append(Failure(*self._now, plain(message).strip().splitlines()[0][:300], trace))


async def execute(
    name: str,
    source: Path,
    target: Path,
    environment: dict[str, str],
    limit: float | None = None,
    on_start: Callable[[int], None] = lambda cells: None,
    on_cell: Callable[[int], None] = lambda k: None,
) -> Result:
    """Execute the notebook `source` in its own folder, write it with new outputs to `target`, and judge it.

    `environment` is the kernel's whole environment. Never raises for what a notebook does.
    """
    result, begin = Result(name), monotonic()
    try:
        nb = nbformat.read(source, as_version=4)
    except Exception as error:
        result.failures.append(Failure(0, "", f"cannot be read: {str(error).splitlines()[0]}"))
        return result
    for cell in nb.cells:  # stored outputs may lie
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nb.metadata.pop("widgets", None)
    result.cells = len(code_cells(nb))
    on_start(result.cells)
    gate = Gate(nb, source.parent, environment, limit, on_cell)
    try:
        await gate.run()
    except Exception as error:
        gate.failures.append(Failure(0, "", plain(f"{type(error).__name__}: {error}").splitlines()[0]))
    result.failures, result.executed = gate.failures, gate.executed
    read_checks(nb, result)
    result.seconds = round(monotonic() - begin, 1)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, target)
    return result
