"""A filter of system calls: no network, no way to other processes, no new namespaces. Linux on x86-64 and arm64.

A program needs none of these calls; a refused one fails with EPERM, so that the program fails, not the sandbox.
"""

import ctypes
import errno
import struct

from reasonrl_code.inside.system import PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, machine, prctl

# name: (x86-64, arm64); None where the machine has no such call.
ALWAYS: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "personality": (135, 92),
    "quotactl": (179, 60),
    "iopl": (172, None),
    "ioperm": (173, None),
    # Memory that no limit of the address space counts.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    # Where programs share the machine's IPC namespace, semaphores outlive the process that made them.
    "semget": (64, 190),
}
NETWORK: dict[str, tuple[int | None, int | None]] = {"socket": (41, 198)}
# Without a process namespace, and without a mount namespace.
SHARED: dict[str, tuple[int | None, int | None]] = {
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_NEW_NAMESPACES = 0x7E020000
_ALLOW, _REFUSE, _END = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16

Instruction = tuple[int, int, int, int]


def is_supported() -> bool:
    """Whether there is a table for this machine."""
    return machine() in MACHINES


def program(*, network: bool, shared: bool, pid: int) -> bytes:
    """Return the filter.

    Args:
        network: whether sockets are allowed. shared: whether other processes are in sight; then signals may go to
            ``pid`` alone, and files keep their modes, owners and times.
    """
    column, arch = MACHINES[machine()]
    tables = [ALWAYS, {} if network else NETWORK, SHARED if shared else {}]
    numbers = [calls[column] for table in tables for calls in table.values()]
    code: list[Instruction] = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _END)]
    code += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)]
    for number in numbers:
        if number is not None:
            code += _refuse(number, errno.EPERM)
    code += _refuse(_CLONE3[column], errno.ENOSYS)  # the C library then uses clone, whose flags can be read
    code += [(_EQUAL, 0, 4, _CLONE[column]), (_LOAD, 0, 0, _ARGUMENT), (_ANY_BIT, 0, 1, _NEW_NAMESPACES)]
    code += [(_RETURN, 0, 0, _REFUSE | errno.EPERM), (_LOAD, 0, 0, _NUMBER)]
    if shared:
        for numbers_of in (_KILL, _TGKILL):
            code += _only_to(numbers_of[column], pid)
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def install(code: bytes) -> None:
    """Filter the system calls of this process and of all that it starts, for good.

    Raises:
        OSError: if the kernel refuses.
    """
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP" if struct.calcsize("P") == 8 else "HxxP", len(code) // 8, ctypes.addressof(buffer))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, 2, ctypes.create_string_buffer(header, len(header)))


def _refuse(number: int, error: int) -> list[Instruction]:
    return [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE | error)]


def _only_to(number: int, pid: int) -> list[Instruction]:
    return [
        (_EQUAL, 0, 5, number),
        (_LOAD, 0, 0, _ARGUMENT),
        (_EQUAL, 2, 0, pid),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _REFUSE | errno.EPERM),
        (_LOAD, 0, 0, _NUMBER),
    ]
