"""The command line: one module per verb, imported only when it is used; errors become exit codes here and nowhere else.

Nothing but data goes to stdout; progress, logs and errors go to stderr.
"""

import gc
import importlib
import logging
import sys
import traceback

import click

from lbnode import __version__
from lbnode.errors import LbnodeError, NotPermitted

VERBS = {
    "check": ("lbnode.cli.check", "Validate the cluster file (FILE, or the one in use)."),
    "plan": ("lbnode.cli.plan", "Show what `apply` would change on this node."),
    "apply": ("lbnode.cli.apply", "Make this node right, and say what was done."),
    "agent": ("lbnode.cli.agent", "Keep this node right until SIGTERM."),
    "status": ("lbnode.cli.status", "Say what this node does and why."),
    "explain": ("lbnode.cli.explain", "Say which real server a flow goes to, and why."),
    "doctor": ("lbnode.cli.doctor", "Check this host, and say how to mend what is wrong."),
    "drain": ("lbnode.cli.maintenance", "Take no new flows; keep the ones there are."),
    "maint": ("lbnode.cli.maintenance", "Take this node out of service."),
    "ready": ("lbnode.cli.maintenance", "Put this node back into service."),
    "render": ("lbnode.cli.render", "Print haproxy.cfg, exabgp.conf, the IPVS table or gdnsd's files of this node"),
    "schema": ("lbnode.cli.schema", "Print the JSON Schema of the cluster file."),
    "lab": ("lbnode.cli.lab", "Run whole networks on a real kernel: routers, L4, L7, backends, clients."),
}
"""Verb -> its module, and the first sentence of its help, so that `--help` imports none of them."""


class Verbs(click.Group):
    """Knows the verbs' names; imports a verb's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(importlib.import_module(VERBS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lbnode")
def lbnode() -> None:
    """Turn plain Linux machines into a three-tier load balancer, and keep them so."""


def main(arguments: list[str] | None = None) -> None:
    """Runs one command line and exits with its code (docs/reference/commands.md lists them)."""
    collect_seldom()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def collect_seldom() -> None:
    """A pass makes some 100,000 small objects without a cycle among them, and looking for cycles at every 700 new ones,
    as Python does by itself, takes a third of its time."""
    gc.set_threshold(50_000, 20, 20)


def run(arguments: list[str]) -> int:
    """Runs one command line; returns its exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        code = lbnode.main(arguments, prog_name="lbnode", standalone_mode=False)
    except LbnodeError as error:
        click.echo(str(error), err=True)
        return error.exit_code
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        return 0
    except PermissionError as error:
        click.echo(f"cannot go on: {error}", err=True)
        return NotPermitted.exit_code
    except Exception:  # noqa: BLE001 - the edge: a bug is shown whole and has its own code
        traceback.print_exc()
        return LbnodeError.exit_code
    return code if isinstance(code, int) else 0
