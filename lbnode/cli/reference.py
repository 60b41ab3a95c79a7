"""The page docs/reference/commands.md, made from the commands themselves: `python -m lbnode.cli.reference`."""

import sys

import click

from lbnode.cli import lbnode

INTRO = """# Commands

Made from the commands' own help; `make docs` renews it.

Every verb that prints has `--json`. Only data goes to stdout; progress, logs and errors go to stderr.

| exit code | means |
| --- | --- |
| 0 | done |
| 1 | there are changes (`plan --exit-code`), a check failed, or a dangerous plan was refused |
| 2 | the command line is wrong |
| 69 | something that is needed is not there |
| 70 | a bug |
| 75 | try again: a change did not take, or something does not answer yet |
| 77 | no permission |
| 78 | the cluster file has mistakes |
"""


def page() -> str:
    """The whole page, in Markdown."""
    return INTRO + "".join(f"\n## lbnode {name}\n\n```\n{text}\n```\n" for name, text in helps(lbnode, "lbnode"))


def helps(group: click.Group, path: str) -> list[tuple[str, str]]:
    """Name and help text of every command under a group, in the group's order."""
    found = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if command is None or command.hidden:
            continue
        label = f"{path} {name}".removeprefix("lbnode ")
        context = click.Context(command, info_name=f"lbnode {label}", max_content_width=100, terminal_width=100)
        found.append((label, command.get_help(context)))
        if isinstance(command, click.Group):
            found += helps(command, f"{path} {name}")
    return found


if __name__ == "__main__":
    sys.stdout.write(page())
