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
    root = click.Context(lbnode, info_name="lbnode", **lbnode.context_settings)
    return INTRO + "".join(f"\n## {name}\n\n```\n{text}\n```\n" for name, text in helps(root))


def helps(parent: click.Context) -> list[tuple[str, str]]:
    """Full name and help text of every command under a group's context, in the group's order."""
    found: list[tuple[str, str]] = []
    group = parent.command
    if not isinstance(group, click.Group):
        return found
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is not None and not command.hidden:
            context = click.Context(command, parent, name, max_content_width=100, terminal_width=100)
            found += [(context.command_path, command.get_help(context)), *helps(context)]
    return found


if __name__ == "__main__":
    sys.stdout.write(page())
