"""`make bench`: measures here what can be measured here, the rest on the lab's kernel; writes results.json, RESULTS.md.

python -m bench [--rounds N] [QUESTION...]      some questions alone: printed, not written
python -m bench --keep QUESTION...              and put into results.json, in place of the older answers
python -m bench --render                        the page again, from results.json
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import agentcheck, chance, hitless, machine, maintenance, manyservers, page, start
from bench.figure import Figure
from bench.inside import QUESTIONS
from lbnode.lab import kernel

HERE = Path(__file__).parent
HERE_QUESTIONS: dict[str, Callable[[int], list[Figure]]] = {
    "start": start.measure_here,
    "chance": chance.measure_here,
    "hitless": hitless.measure_here,
    "maintenance": maintenance.measure_here,
    "agentcheck": agentcheck.measure_here,
    "manyservers": manyservers.measure_here,
}
RESULTS, PAGE = HERE / "results.json", HERE / "RESULTS.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("questions", nargs="*", metavar="QUESTION")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="put the answers to some questions into results.json")
    parser.add_argument("--render", action="store_true", help="only write the page again")
    arguments = parser.parse_args()
    if not arguments.render:
        results = measure(arguments.rounds, arguments.questions)
        if arguments.questions and not arguments.keep:
            print(page.render(results))
            return 0
        if arguments.questions:
            results = kept(json.loads(RESULTS.read_text()), results)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page.render(json.loads(RESULTS.read_text())))
    print(PAGE.read_text())
    return 0


def kept(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The old results with the figures of the new ones; what was not measured anew stays, with the old machine."""
    fresh = {figure["what"]: figure for figure in new["figures"]}
    figures = [fresh.pop(figure["what"], figure) for figure in old["figures"]]
    return {**old, "versions": {**old["versions"], **new["versions"]}, "figures": [*figures, *fresh.values()]}


def measure(rounds: int, questions: list[str]) -> dict[str, Any]:
    """Everything, or the named questions."""
    before = machine.load()
    here = [
        figure
        for name, question in HERE_QUESTIONS.items()
        if not questions or name in questions
        for figure in question(rounds)
    ]
    inside: dict[str, Any] = {"kernel": "", "seconds": {}, "figures": []}
    asked = [name for name in questions if name in QUESTIONS]
    if asked or not questions:
        with tempfile.TemporaryDirectory() as directory:
            answer = Path(directory, "answer.json")
            status = kernel.run([sys.executable, "-m", "bench.inside", str(rounds), str(answer), *asked])
            if status:
                sys.exit(status)
            inside = json.loads(answer.read_text())
    return {
        "machine": machine.describe(),
        "lab_kernel": inside["kernel"],
        "versions": machine.versions(),
        "load": {"before": before, "after": machine.load()},
        "rounds": rounds,
        "seconds": inside["seconds"],
        "figures": [*inside["figures"], *(figure.as_json() for figure in here)],
    }


if __name__ == "__main__":
    sys.exit(main())
