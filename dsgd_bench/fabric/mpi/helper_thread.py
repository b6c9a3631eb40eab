"""The helper thread of a rank: what `base.Helper` is where time is real."""

import threading
from collections.abc import Callable


class HelperThread:
    """`base.Helper` as one thread that waits for work; made before the clock starts."""

    def __init__(self) -> None:
        self._work: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._begin, self._ended = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._work = work
        self._begin.release()

    def _run(self) -> None:
        while True:
            self._begin.acquire()
            if self._work is None:
                return
            try:
                self._work()
            except BaseException as error:  # noqa: BLE001 - raised again by `join`
                self._error = error
            self._ended.release()

    def join(self) -> None:
        self._ended.acquire()
        self.check()

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        if self._thread is not None:
            self._work = None
            self._begin.release()
            self._thread.join()
            self._thread = None
