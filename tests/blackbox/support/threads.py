"""One thread of a process, held or harmed as a debugger can: it stands still, or its event loop breaks. Linux on x86-64."""

import ctypes
import os
from pathlib import Path

from gatecast import eventually

SEIZE, INTERRUPT, DETACH, GET_REGISTERS, SET_REGISTERS, STEP = 0x4206, 0x4207, 17, 12, 13, 9
DUP2, EPOLL_WAIT = 33, 232
SYSCALL_BYTES, INTERRUPTED, ALL_THREADS = 2, -4, 0x40000000
NAMES = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in NAMES.split()]


def ptrace(request, thread, data=None):
    assert LIBC.ptrace(request, thread, None, data) != -1, os.strerror(ctypes.get_errno())


class HeldThread:
    """Stands still from here to the end of the block; the rest of its process goes on."""

    def __init__(self, process, name):
        # A thread that has not run yet has its process's name.
        self.thread = eventually(lambda: self._find(Path(f"/proc/{process.pid}/task"), name))

    @staticmethod
    def _find(tasks, name):
        return next((int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == name), None)

    def __enter__(self):
        ptrace(SEIZE, self.thread)
        ptrace(INTERRUPT, self.thread)
        self._stopped()
        return self

    def __exit__(self, *_):
        if LIBC.ptrace(DETACH, self.thread, None, None) == -1:
            # Its process has ended, and waits for us to look at this thread.
            os.waitpid(self.thread, ALL_THREADS)

    def _stopped(self):
        _, status = os.waitpid(self.thread, ALL_THREADS)
        assert os.WIFSTOPPED(status)

    def break_event_loop(self):
        """Puts standard input in the place of what the thread waits on, so that it cannot wait there again."""
        saved, registers = Registers(), Registers()
        ptrace(GET_REGISTERS, self.thread, ctypes.byref(saved))
        assert saved.orig_rax == EPOLL_WAIT, "it does not wait for events"
        ctypes.pointer(registers)[0] = saved
        registers.rip -= SYSCALL_BYTES
        registers.rax, registers.orig_rax, registers.rdi, registers.rsi = DUP2, -1, 0, saved.rdi
        ptrace(SET_REGISTERS, self.thread, ctypes.byref(registers))
        ptrace(STEP, self.thread)
        self._stopped()
        saved.rax, saved.orig_rax = INTERRUPTED, -1
        ptrace(SET_REGISTERS, self.thread, ctypes.byref(saved))
