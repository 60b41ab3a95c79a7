"""Builds the classifier's object file from its source, for those who change it: `make classifier`.

The object stands in the repository, so that nodes and installations need no compiler. It holds the digest of the source
that it was made of, which a test compares; another test builds it again, with Debian 12's clang, and compares the code.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lbnode.chance import elf
from lbnode.chance.program import OBJECT
from lbnode.errors import LbnodeError, Missing

SOURCE = OBJECT.with_suffix(".c")
# v3: with 32-bit arithmetic and jumps, which Linux has had since 5.1.
OPTIONS = ("-O2", "-g0", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror")


def digest() -> str:
    """Of the source."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def build(target: Path) -> None:
    """Raises Missing without clang, LbnodeError when the source has mistakes."""
    kernel = ("-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu")  # <asm/types.h>, where Debian has it
    command = ["clang", *OPTIONS, *kernel, f'-DSOURCE="{digest()}"', "-c", SOURCE.name, "-o", str(target)]
    try:
        done = subprocess.run(command, cwd=SOURCE.parent, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Missing("cannot build the classifier: there is no clang: apt install clang") from error
    if done.returncode != 0:
        raise LbnodeError(f"cannot build the classifier: clang says: {done.stderr.strip()}")


def main() -> int:
    with tempfile.TemporaryDirectory(dir=OBJECT.parent) as folder:
        fresh = Path(folder, OBJECT.name)
        build(fresh)
        elf.parse(fresh.read_bytes())
        fresh.chmod(0o644)
        fresh.rename(OBJECT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
