"""The command line's root: nouns and verbs, each imported only when it is called; and the exit codes.

0 done, 1 failed, 2 wrong usage or configuration, 3 not found, 4 denied, 5 blocked by protection.
"""

import sys

from cyclopts import App, CycloptsError

from tenure import __version__

USAGE = 2

#: what it is called, where it lives, what it does
COMMANDS = (
    ("serve", "tenure.cli.serve:serve", "Serve the registry, by default with SQLite and a folder."),
    ("migrate", "tenure.cli.serve:migrate", "Bring the database to this version's schema."),
    ("check", "tenure.cli.check:check", "Prove by doing that database and store grant what Tenure needs."),
    ("config", "tenure.cli.check:config_app", "Look at the configuration."),
    ("repo", "tenure.cli.repo:repo_app", "Repositories."),
    ("tag", "tenure.cli.tag:tag_app", "Tags."),
    ("history", "tenure.cli.history:history", "Every move of a tag, newest first."),
)


def make_app() -> App:
    """The tree of commands, none of them imported yet."""
    app = App(name="tenure", version=__version__, help="An OCI registry that never removes an image in use.")
    for name, path, text in COMMANDS:
        app.command(path, name=name, help=text)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and leaves the process with its exit code."""
    try:
        result = make_app()(arguments, exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        sys.exit(USAGE)
    sys.exit(result if isinstance(result, int) else 0)
