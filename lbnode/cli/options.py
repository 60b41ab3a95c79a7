"""Options that many verbs share, and the node identity they add up to."""

import json
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from lbnode.config.model import Role
from lbnode.node import Identity
from lbnode.paths import Paths

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Common:
    """What the shared options said."""

    paths: Paths
    node: str
    as_json: bool

    def identity(self, role: str | None) -> Identity:
        """This node in the cluster file; the role is the file's, and a role that was asked for must agree with it."""
        if role is None:
            from lbnode.config.load import load

            found = load(self.paths.cluster_file).nodes.get(self.node)
            role = found.role if found else "l4"
        wanted: Role = "l4" if role == "l4" else "l7" if role == "l7" else "backend"
        return Identity(self.node, wanted, self.paths)

    def show(self, value: Any, text: str) -> None:
        """Prints one result: JSON or words, from the same value."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2, default=str))
        elif text:
            click.echo(text)


def common(command: Command) -> Command:
    """Adds -c, --node, --etc-dir, --run-dir, --json and -v; the command gets one `Common` as `common`."""

    def collected(
        config: Path | None, node: str | None, etc_dir: Path, run_dir: Path, as_json: bool, verbose: bool, **rest: Any
    ) -> Any:
        if verbose:
            logging.getLogger("lbnode").setLevel(logging.DEBUG)
        paths = Paths(etc_dir, run_dir)
        name = node or socket.gethostname().partition(".")[0]
        return command(common=Common(replace(paths, config=config), name, as_json), **rest)

    collected.__name__, collected.__doc__ = command.__name__, command.__doc__
    collected.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Say more on stderr."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option(
            "--run-dir",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("/run/lbnode"),
            envvar="LBNODE_RUN_DIR",
            show_default=True,
            help="State of this boot.",
        ),
        click.option(
            "--etc-dir",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("/etc/lb"),
            envvar="LBNODE_ETC_DIR",
            show_default=True,
            help="The operator's files.",
        ),
        click.option("--node", help="This node's name in the cluster file; the host name if left out."),
        click.option(
            "-c",
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            help="The cluster file; cluster.yaml in the operator's directory if left out.",
        ),
    ):
        collected = option(collected)
    return collected  # type: ignore[return-value]


role_option = click.option(
    "--role", type=click.Choice(["l4", "l7", "backend"]), help="The node's role; the cluster file's if left out."
)
