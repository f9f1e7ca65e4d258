"""Write command_line.md, beside this file, from the help of the command ``denoiseg-flow``."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from denoiseg_flow import cli

PAGE = Path(__file__).with_suffix(".md")
HEAD = """\
# Command line

`denoiseg-flow` starts studies anywhere and uses trained models. `python
docs/reference/command_line.py` writes this page from its help texts. In a clone, studies are
started by Snakemake itself; see [how to run a study](../how-to/run_a_study.md).
"""


def render() -> str:
    """Return the page."""
    parser = cli._parser()
    (commands,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    parts = [part for command in commands.choices.values() for part in _section(command)]
    return "\n".join([HEAD, *parts])


def _section(command: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {command.prog}\n\n{command.description}\n"
    for group in command._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if actions:
            rows = [f"| `{_spelled(action)}` | {_help(command, action)} |" for action in actions]
            yield "\n".join([f"| {group.title} | |", "|---|---|", *rows, ""])
    if command.epilog:
        yield f"```text\n{command.epilog.strip()}\n```\n"


def _help(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = command._get_formatter()._expand_help(action)
    return f"{text} (required)" if action.option_strings and action.required else text


def _spelled(action: argparse.Action) -> str:
    """How an argument is written, such as ``--device {auto,cpu,cuda}`` or ``images ...``."""
    choices = f"{{{','.join(action.choices)}}}" if action.choices else None
    if not action.option_strings:
        words = [choices or action.metavar or action.dest]
        if action.nargs == "?":
            words = [f"[{words[0]}]"]
    elif action.nargs == 0:
        words = action.option_strings[-1:]
    else:
        value = choices or action.metavar or action.dest.upper()
        words = [action.option_strings[-1], f"[{value}]" if action.nargs == "?" else value]
    return " ".join([*words, *(["..."] if action.nargs == "+" else [])])


if __name__ == "__main__":
    PAGE.write_text(render())
