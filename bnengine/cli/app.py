"""The commands' common roof: the version, and the one place where an error becomes a message and an exit code."""

import importlib
import os
import sys
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
    """A training was stopped by a signal, its checkpoint saved; `code` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Commands(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}", __package__).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; whatever a user or a run does wrong ends here. A defect of the program keeps its traceback."""
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
            # Whoever read the output has gone, as `head` does; what is still buffered goes nowhere, without a word.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)
        return done


def _say(message: str) -> None:
    click.echo(message, err=True)


def _usage(error: click.ClickException) -> str:
    """Click's message behind the command's name, with the way to its help."""
    context = getattr(error, "ctx", None)
    if context is None:
        return f"bnengine: {error.format_message()}"
    name = context.info_name if context.parent else "bnengine"
    return f"{name}: {error.format_message()} ({context.command_path} --help lists what there is)"


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="bnengine %(version)s")
def cli() -> None:
    """Train batch-normalised networks on the arrays you have, and use them.

    \b
      bnengine train digits                      learn handwritten digits; makes the folder runs/digits-1
      bnengine train table.csv --target price    learn from your own table
      bnengine evaluate runs/digits-1 validation
      bnengine predict runs/table-1 new.csv -o answers.csv
      bnengine info                              what bnengine can use on this machine
      bnengine verify                            that all array libraries agree on this machine
      bnengine bench                             how fast this machine trains, beside PyTorch
      bnengine explain                           what is true of batch normalisation, by experiments
      bnengine gap runs/digits-1 validation      why training and evaluation differ
      bnengine recalibrate runs/digits-1 train   exact statistics, in a new checkpoint
      bnengine report runs/digits-1              a page on a run: curves, network, statistics
      bnengine doctor runs/digits-1 train        what is wrong with its batch normalisation, and the cure

    Every command has its own --help.
    """
