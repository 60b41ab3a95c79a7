"""The cure for user-mode-linux on processors with AMX, whose register state is larger than it can write back.

Without it the guest dies at its first instruction ("ptrace set fp regs failed, errno = 14"). The cure is 60 lines of C
(`xstate.c` says how it works), compiled when needed, with nothing but a bare compiler, into the guest's work directory
and preloaded into linux.uml alone. Doing without extended state instead is no way out: programs then lose half of
their AVX registers at every page fault.
"""

import shutil
import subprocess
from pathlib import Path

from lbnode.lab.errors import LabError

SOURCE = Path(__file__).with_name("xstate.c")


def needed(cpuinfo: str) -> bool:
    """Whether /proc/cpuinfo describes a processor whose XSAVE area outgrows 2,696 bytes."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return "amx_tile" in flags.split()


def build(directory: Path) -> Path:
    """Compiles the shared object into `directory` and returns its path. Raises LabError."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise LabError(
            "cannot start user-mode-linux: this processor has AMX, for which a small library must be compiled, "
            "and there is no C compiler (apt-get install gcc)"
        )
    library = directory / "xstate.so"
    argv = [compiler, "-shared", "-fPIC", "-O2", "-nostdlib", "-o", str(library), str(SOURCE)]
    built = subprocess.run(argv, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise LabError(f"cannot compile {SOURCE}: {built.stderr.strip()}")
    return library
