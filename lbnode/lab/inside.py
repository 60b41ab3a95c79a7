"""The lab's process inside the kernel it was given: what `lbnode lab run` and `lbnode lab up` start there.

python -m lbnode.lab.inside run FOLDER SCALE LOGS [--rounds=N] [--only=STEP ...]
python -m lbnode.lab.inside disruption FOLDER SCALE LOGS STACK [--flows=N] [--event=NAME ...]
python -m lbnode.lab.inside faults FOLDER SCALE LOGS [--only=PROGRAM ...] [--fault=NAME ...]
python -m lbnode.lab.inside serve FOLDER SCALE STATE
python -m lbnode.lab.inside traffic STATE FLOWS SECONDS       # while that serves; no end: 0 seconds
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lbnode.errors import LbnodeError
from lbnode.lab import programs, serve
from lbnode.lab.attach import Note
from lbnode.lab.build import Lab, build, load
from lbnode.lab.supervisor import Supervisor


@contextmanager
def running(folder: Path, scale: str, state: Path) -> Iterator[Lab]:
    """A topology with all its programs, until the block ends; others find it by the note in `state`."""
    with build(load(folder, scale), state / "work") as lab, Supervisor(lab.logs) as supervisor:
        programs.start_network(lab, supervisor)
        programs.start_nodes(lab, supervisor)
        Note.of(lab).leave(state)
        yield lab


def main(arguments: Sequence[str]) -> int:
    """One of the forms above; returns the exit status."""
    try:
        if arguments[0] == "traffic":
            from lbnode.lab.scenarios import traffic

            return traffic.run(Path(arguments[1]), int(arguments[2]), float(arguments[3]))
        what, folder, scale, place, *options = arguments
        if what == "serve":
            serve.serve(Path(place), lambda: running(Path(folder), scale, Path(place)))
            return 0
        from lbnode.lab import scenarios

        shows = {"disruption": scenarios.disrupt, "faults": scenarios.harm}
        show = shows.get(what, scenarios.run)
        return show(Path(folder), scale, Path(place), options)
    except LbnodeError as error:
        sys.stderr.write(f"lbnode lab: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
