"""Forked: a Python program of ours that begins as a fork of a server which has imported it already.

Saves the second that the imports take, where a test's subject is not how a process starts. From the fork on it is the
same program in a process of its own: its module runs as `__main__`, under its own environment and log files. The server
is multiprocessing's, one for each test worker; it ends with that, and with it whatever it forked.
Knows nothing of what the program does.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from contextlib import suppress

from tests.support.child import Launch
from tests.support.leash import PR_SET_PDEATHSIG

IMPORTED = ["tests.support.forked", "router.cli", "router.cli_inventory", "router.lifecycle", "router.workers"]
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(IMPORTED)


class Fork:
    """Runs `python -m MODULE ARGUMENT…` of a launch. Implements `tests.support.child.Process`; Linux."""

    def __init__(self, launch: Launch) -> None:
        assert launch.argv[:2] == (sys.executable, "-m"), "only a module of ours has been imported"
        for path in (launch.out, launch.err):
            path.touch()
        self._process = _server.Process(target=_become, args=(launch,), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._handle = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Block until it has ended and give its exit code. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal; nothing when it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, sig)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


def _become(launch: Launch) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    worker = multiprocessing.parent_process()
    if worker is None or not worker.is_alive():
        os._exit(1)  # it died before the signal was asked for: nobody would ever end us
    os.setsid()
    for descriptor, path in enumerate((os.devnull, str(launch.out), str(launch.err))):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND if descriptor else os.O_RDONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    if launch.cores:
        os.sched_setaffinity(0, launch.cores)
    os.chdir(launch.cwd)
    os.environ.clear()
    os.environ.update(launch.environment)
    sys.argv = list(launch.argv[2:])
    runpy.run_module(launch.argv[2], run_name="__main__", alter_sys=True)
