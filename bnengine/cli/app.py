"""The group of all commands. Here errors become messages and exit codes."""

import importlib
import os
import sys
from difflib import get_close_matches
from typing import Any

import click

from .._version import __version__
from ..errors import InputError, TrainingFailed

FAILED, MISTAKE, FOUND, INTERRUPTED, TERMINATED, BROKEN_PIPE = 1, 2, 3, 130, 143, 141
COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "info",
    "verify",
    "bench",
    "explain",
    "gap",
    "recalibrate",
    "report",
    "doctor",
)


class Interrupted(Exception):
    """A signal stopped a training after it saved a checkpoint; `code` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Commands(click.Group):
    """Imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}", __package__).command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Report a wrong option of the group in one line, like those of its commands."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            _say(_usage(error))
            ctx.exit(error.exit_code)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of a name; a misspelled name gets a suggestion."""
        similar = get_close_matches(args[0], COMMANDS, 1)
        if args[0] not in COMMANDS and similar:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {similar[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and report errors of the user or the run; a defect of the program keeps its traceback."""
        try:
            done = super().invoke(ctx)
            if sys.stdout is not None:  # None where it was closed before the start
                sys.stdout.flush()
        except click.ClickException as error:
            _say(_usage(error))
            ctx.exit(error.exit_code)
        except InputError as error:
            _say(str(error))
            ctx.exit(MISTAKE)
        except TrainingFailed as error:
            _say(str(error))
            ctx.exit(FAILED)
        except Interrupted as error:
            _say(str(error))
            ctx.exit(error.code)
        except KeyboardInterrupt:
            _say(f"{ctx.invoked_subcommand}: interrupted")
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader of the output closed it, as `head` does. Python would report what is still buffered.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)
        return done


def _say(message: str) -> None:
    click.echo(message, err=True)


def _usage(error: click.ClickException) -> str:
    """Click's message, with the command's name and a pointer to its help."""
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".?")
    end = "?" if error.format_message().endswith("?") else "."
    if context is None:
        return f"bnengine: {message}{end}"
    name = context.info_name if context.parent else "bnengine"
    return f"{name}: {message}{end} Run {context.command_path} --help for what it takes."


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="bnengine %(version)s")
def cli() -> None:
    """Train batch-normalized networks on the arrays you have, and use them.

    \b
      bnengine train digits                      learn handwritten digits; creates the folder runs/digits-1
      bnengine train table.csv --target price    learn from your own table
      bnengine evaluate runs/digits-1 validation
      bnengine predict runs/table-1 new.csv -o answers.csv

    Every command has examples in its --help.
    """
