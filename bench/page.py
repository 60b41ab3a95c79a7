"""From results.json to the page RESULTS.md. PURE: a test renders the page again and compares."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.figure import OURS, Figure

HEAD = """\
# Measured

Made by `make bench` from `results.json`, which holds every round; the table shows medians. A ratio says how many times
as much the other side takes. All sides run on the same kernel in the same boot, each in a namespace of its own, one
after the other, alternating from round to round.
"""
NOTES = """\
## What is in a figure

- **The IPVS pass** runs in a Python process that is there already, as the agent's does: read the kernel's state,
  compare it with the wanted rows, carry out the changes. `ipvsadm` and keepalived are processes, because that is how
  they are used; neither reads back what it has done.
- **`lbnode apply`** is the whole process: start Python, read the cluster file, probe every real server (two probes
  each; the servers answer, on the same processor), set 100 VIP addresses and the sysctls, program IPVS, leave 100
  announcements to a running ExaBGP and wait until it has taken them, read everything back. It starts as after a reboot:
  ExaBGP's configuration file is there already. keepalived does the IPVS part alone: it has no checkers here.
- **SIGHUP** is measured from the signal to the weight in the kernel; so is the agent, from the saving of the file.
- **The router's kernel**: one LAN with a router (BIRD, `merge paths`), lbnode by ExaBGP, lbnode by BIRD with BFD (three
  packets in 600 ms), and twice ExaBGP with `exabgp healthcheck --withdraw-on-down` (every 1 s and every 10 s, else as
  it comes: three checks to rise and to fall), a web server and a `disable` file each. From the moment it happens to the
  moment the kernel has, or has no more, the route. lbnode is a backend that announces itself, with its own defaults (a
  check every second, two to rise and to fall). The four go through their rounds side by side, on
  one processor; then lbnode's two alone.
- **HAProxy** is measured on loopback of the host. The plain side of the 60 changes starts a new process with `-sf` each
  time, with the same file but for `option idle-close-on-response`; its clients mostly notice a closed connection before
  they use it, and have to connect again. The layout beside the maintenance file has socat as its
  agent-check responder and the enabler behind the other servers. «Plain render and reload» renders with lbnode's code,
  and waits for the new process. A pass with nothing to do is the agent's: the configuration is made anew only when
  something has changed, and what HAProxy holds is read each time. HAProxy's memory is the most that all its processes
  have while one server comes (shared pages counted once): after a reload the old one is there for a while. lbnode's is
  that of the measuring process.
- **1,000 prefixes** are counted at the router, a BIRD in the same kernel. lbnode's relay looks at every prefix before
  it is told, tells those with the same attributes 20 at a time, keeps few commands on their way, and writes down what
  became of each prefix; the plain script writes a line for each, all at once, and reads the answers.
- user-mode-linux has one processor and slow system calls (some 20 us), and starting a program is dear there. Python's
  own work runs at native speed. On other kernels programs of many system calls (ipvsadm) do better.
- **The classifier** runs by BPF_PROG_TEST_RUN, with real sockets: a million times the same packet (warm), or one packet
  of each of 1,000 flows (single runs, each with the reading of the clock in it, which the empty program's have too).
  A table is written beside the one in use; the memory is that of one, whatever is in it.

## Why some goals are not reached

- **The whole `lbnode apply`.** A no-op `apply` of a small cluster takes most of the time that the large one takes:
  Python's start, some 650 modules (on this kernel every one is looked for and read through the host's file system;
  the largest parts are aiohttp, pydantic and pyroute2), ExaBGP's answer. What grows with the table is the smaller
  part.
- **One weight changes.** A pass reads all 10,000 rows and compares them before it writes one, because it trusts
  nothing that it remembers; reading alone is half of the figure, and comparing a quarter. keepalived does not look at
  the kernel: its time is that of reading its own file. A pass that read only the rows it is about to change would
  repair no drift, and would be another path than the one that is tested.
- **The agent, from a saved file.** Beside the pass it reads the file and works out the rows that are wanted anew;
  both are Python. What many services say of the same real servers is worked out once.
- **The worst reactions.** The four sides share one processor and start programs all the time: a pass of the agent that
  is under way takes up to a second then, and the order waits for it. Alone the worst was under 0.1 s. One of 20 nodes
  that were cut off was noticed by BFD after just over a second, for the same reason.
- **The idle agent.** Drift has to be found within 10 s, so every row must be read every 10 s. IPVS tells nobody that
  its table has changed, has no counter that would show it, and says how many destinations a service has only by
  listing them: one request, one answer and one end per service, 9,000 system calls for 3,000 services, and some 400
  bytes per destination, most of them counters. Looking at a part of the services each time would spread the work, not
  lessen it. `/proc/net/ip_vs` is shorter, but lacks tunnels and thresholds, and leaves services out where other
  namespaces have some too. What is left is to promise a longer time; for so large a table that is not worth 3 % of
  one processor.
"""


def render(results: Mapping[str, Any]) -> str:
    """The page. `results` as `bench.__main__` writes them."""
    figures = [Figure.from_json(data) for data in results["figures"]]
    peers = list(dict.fromkeys(side for figure in figures for side in figure.others))
    return "\n".join([HEAD, *_machine(results), "", *_table(figures, peers), "", NOTES])


def _machine(results: Mapping[str, Any]) -> list[str]:
    machine, load = results["machine"], results["load"]
    processors = f"{machine['processors']} x {machine['processor']}"
    last = f"load average of the last minute {load['before'][0]} before, {load['after'][0]} after"
    return [
        f"- Machine: {processors}, {machine['memory_gb']} GB of memory, {machine['kernel']}",
        f"- Lab kernel: {results['lab_kernel']}",
        "- Versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        f"- Rounds: {results['rounds']}, unless another number is given; {last}",
    ]


def _table(figures: Sequence[Figure], peers: Sequence[str]) -> list[str]:
    head = ["what", "where", "unit", OURS, *(f"{peer}" for peer in peers), "goal", "reached"]
    lines = [_line(head), _line(["---", "---", "---", *["---:"] * (1 + len(peers)), "---", "---"])]
    for figure in figures:
        cells = [figure.what, figure.where, figure.unit, _side(figure, OURS)]
        cells += [_beside(figure, peer) if peer in figure.values else "" for peer in peers]
        lines.append(_line([*cells, _goal(figure), {None: "", True: "yes", False: "**no**"}[figure.reached]]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _side(figure: Figure, side: str) -> str:
    middle = _number(figure.median(side))
    values = figure.values[side]
    return f"{middle}; worst of {len(values)}: {_number(max(values))}" if figure.worst else middle


def _beside(figure: Figure, peer: str) -> str:
    if figure.worst:  # times of which many are 0 have no ratio
        return _side(figure, peer)
    ratio = f" ({figure.ratio(peer):.1f}x)" if figure.median(OURS) else ""
    return _number(figure.median(peer)) + ratio


def _goal(figure: Figure) -> str:
    if not figure.goal:
        return ""
    return f"{figure.goal:g}x" if figure.others else f"under {figure.goal:g} {figure.unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
