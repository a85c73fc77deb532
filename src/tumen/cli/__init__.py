"""cli: the commands of `tumen`, one file for each group of `tumen --help`.

What: parse options, call one door of another room, print.
In: arguments.
Out: text for people (or `--json`), exit codes of the error tree.
Never: work that a room could do.
Read next: commands.py (the table), then build.py.
"""

from __future__ import annotations

import sys

import typer

from tumen import __version__
from tumen.cli.commands import CommandGroup
from tumen.core.errors import TumenError
from tumen.core.extras import needs

SUMMARY = "One recipe from a cluster plan to a lamp that switches on."
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

app = typer.Typer(
    name="tumen",
    cls=CommandGroup,
    help=SUMMARY,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """One recipe from a cluster plan to a lamp that switches on."""
    if show:
        print(f"tumen {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; an error of the error tree becomes one line and an exit code."""
    try:
        with needs("this command"):  # the safety net; rooms say more precisely what needs it
            app()
    # Errors of other kinds are bugs: their traceback helps to report them.
    except TumenError as error:
        print(f"tumen: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("\ntumen: interrupted; rerun the same command to resume", file=sys.stderr)
        sys.exit(INTERRUPTED)
