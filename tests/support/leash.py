"""Leash: become another program that the kernel kills when the process that asked for it dies.

Run as `python -I -S leash.py PARENT_PID CORES PROGRAM ARGUMENT…`; CORES is `0,2` or `-` for all. The death signal
survives exec, so the program itself needs to know nothing. It follows the *thread* that started us, so start leashed
programs from a thread that lives as long as they should. Where the kernel has no such signal (macOS) it is skipped.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, pin it, and turn into the program."""
    parent, cores, program = int(arguments[0]), arguments[1], arguments[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if cores != "-":
            os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the signal was asked for: nobody would ever end us
    os.execv(program[0], program)  # noqa: S606  no shell is what is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
