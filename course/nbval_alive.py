"""A pytest plugin, `-p course.nbval_alive`: nbval notices within a second that a kernel has died.

nbval itself waits for the whole limit of the cell.
"""

from queue import Empty
from time import monotonic

from nbval.kernel import RunningKernel


def await_reply(self: RunningKernel, msg_id: str, timeout: float | None = None) -> None:
    """Wait for the reply in slices of a second, asking in between whether the kernel lives."""
    end = monotonic() + (timeout if timeout is not None else float("inf"))
    while True:
        try:
            message = self.get_message(stream="shell", timeout=min(1.0, max(0.01, end - monotonic())))
        except Empty:
            if not self.is_alive():
                raise RuntimeError("the kernel died while running this cell") from None
            if monotonic() >= end:
                raise
            continue
        if message["parent_header"].get("msg_id") == msg_id:
            return


RunningKernel.await_reply = await_reply
