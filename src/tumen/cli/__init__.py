"""cli: one file per verb, and the only place that knows every room.

What: `tumen run | launch | status | logs | cancel | nodes | drain | watch | resize | drill | ledger | arms | recipe | plan | fit |
    lineage | talk | serve | score | keys | sign | promote | rollback | export | import | train | metrics`.
In: arguments. Out: text for people (or `--json`), exit codes from the error tree.
Never: work that a room could do.
Read next: run.py.
"""

from __future__ import annotations

import sys

import typer

from tumen import __version__
from tumen.core.errors import TumenError
from tumen.core.extras import needs

app = typer.Typer(
    name="tumen",
    help="One recipe from a cluster plan to a lamp that switches on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    """One recipe from a cluster plan to a lamp that switches on."""
    if show:
        print(f"tumen {__version__}")
        raise typer.Exit


def _add_verbs() -> None:
    from tumen.cli import (
        arms,
        drill,
        fitting,
        goodput_report,
        launch,
        lineage,
        metrics,
        planning,
        promote,
        recipe,
        run,
        score,
        serve,
        signatures,
        status,
        talk,
        train,
        watch,
        weights,
    )

    app.command("run")(run.run)
    app.command("launch")(launch.launch)
    app.command("status")(status.status)
    app.command("logs")(launch.logs)
    app.command("cancel")(launch.cancel)
    app.command("nodes")(status.nodes)
    app.command("drain")(launch.drain)
    app.command("drill")(drill.drill)
    app.command("ledger")(goodput_report.ledger)
    app.command("watch")(watch.watch)
    app.command("resize")(watch.resize)
    app.command("arms")(arms.arms)
    app.add_typer(recipe.app, name="recipe")
    app.add_typer(planning.app, name="plan")
    app.command("fit")(fitting.fit)
    app.command("lineage")(lineage.lineage)
    app.command("talk")(talk.talk)
    app.command("serve")(serve.serve)
    app.command("score")(score.score_)
    app.command("keys")(signatures.keys)
    app.command("sign")(signatures.sign)
    app.command("promote")(promote.promote)
    app.command("rollback")(promote.rollback)
    app.command("export")(weights.export)
    app.command("import")(weights.import_)
    app.command("train")(train.train)
    app.command("metrics")(metrics.metrics)


def main() -> None:
    """Run the command line; errors for people become one line and an exit code."""
    _add_verbs()
    try:
        with needs("this command"):  # whichever package of an extra is missing
            app()
    except TumenError as error:
        print(f"tumen: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("\ntumen: stopped; nothing is lost, the same command goes on", file=sys.stderr)
        sys.exit(130)
