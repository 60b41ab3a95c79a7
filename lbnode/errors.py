"""What can go wrong, as one tree. Every message reads "cannot X: why"; the exit code stands on the class.

LbnodeError             70  a bug, when raised bare
├── ConfigError         78  the cluster file (carries every problem found, each with its place)
├── UnsafePlan           1  a plan that would hurt; `--force` carries it out all the same
├── ApplyFailed         75  a change did not take; the next pass tries again
├── NotReady            75  something that should answer does not answer yet
├── Missing             69  a program, kernel module or file that is needed is not there
└── NotPermitted        77  the kernel or the file system refuses this user
"""

from dataclasses import dataclass


class LbnodeError(Exception):
    """The root: catch this at the edge (the CLI, the agent's pass) and nowhere else."""

    exit_code = 70


class UnsafePlan(LbnodeError):
    """A plan was refused because carrying it out would break flows or take a service away."""

    exit_code = 1


class ApplyFailed(LbnodeError):
    """One or more changes failed; the message lists them."""

    exit_code = 75


class NotReady(LbnodeError):
    """A peer, socket or program does not answer (yet)."""

    exit_code = 75


class Missing(LbnodeError):
    """Something that must be installed or written first is absent."""

    exit_code = 69


class NotPermitted(LbnodeError):
    """The operation needs a capability or a file permission that this process lacks."""

    exit_code = 77


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a file. `line` and `column` count from 1; 0 means the whole file."""

    line: int
    column: int
    message: str
    hint: str = ""
    file: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(LbnodeError):
    """The cluster file cannot be used; `problems` holds every mistake, in the order of the file."""

    exit_code = 78

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
