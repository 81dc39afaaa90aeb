"""pytest plugin (`-p course.nbval_alive`): nbval notices within about a second that a kernel has died.

Without it nbval waits out the whole cell limit, and blames a timeout.
"""

from queue import Empty
from time import monotonic

from nbval.kernel import RunningKernel

SLICE = 1.0  # s between looks at the kernel


def await_reply(self: RunningKernel, msg_id: str, timeout: float | None = None) -> None:
    """As nbval's: wait for the reply to `msg_id`; queue.Empty after `timeout` s. RuntimeError: it died."""
    end = float("inf") if timeout is None else monotonic() + timeout
    while True:
        try:
            reply = self.get_message("shell", timeout=min(SLICE, max(0.0, end - monotonic())))
        except Empty:
            if not self.is_alive():
                raise RuntimeError("the kernel died while running this cell") from None
            if monotonic() >= end:
                raise
            continue
        if reply["parent_header"].get("msg_id") == msg_id:
            if reply["content"]["status"] == "aborted":
                raise RuntimeError("the kernel aborted this cell")
            return


def pytest_configure() -> None:
    """Put it in nbval's place."""
    RunningKernel.await_reply = await_reply
