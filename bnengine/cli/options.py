"""The settings as options of a command, with help by subject."""

from collections.abc import Callable
from dataclasses import Field
from typing import Any

import click

from ..data.loading import with_target_column
from ..runtime.modes import MODES
from .settings import Kind, flag, table

# What commands that look at a run and data have alike.
target_option = click.option(
    "--target", metavar="COLUMN", help=f"The target column of a {with_target_column()} file.  [as in training]"
)
backend_option = click.option(
    "--backend", metavar="NAME", help="auto, numpy, cupy, cupy:1, torch ...  [BNENGINE_BACKEND or auto]"
)
kernels_option = click.option(
    "--kernels", type=click.Choice(MODES), default="auto", help="As in train: auto, fused or reference.  [auto]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

TITLES = {"data": "Data", "network": "Network", "training": "Training", "run": "Machine and repeatability"}


class SettingType(click.ParamType[Any]):
    """What a setting may be, as click asks for it."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = kind.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.kind.of_text(value)
        except ValueError as reason:
            self.fail(str(reason), param, ctx)


class SettingOption(click.Option):
    """An option of a setting; None where it is not given."""

    def __init__(self, one: "Field[Any]") -> None:
        kind, shown = one.metadata["kind"], one.metadata["shown"]
        told = one.metadata["help"] + (f"  [{shown}]" if shown else "")
        super().__init__([flag(one.name)], type=SettingType(kind), metavar=kind.metavar, help=told, default=None)
        self.section = one.metadata["section"]


def setting_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every setting but the data's path as an option."""
    held: list[click.Parameter] = function.__dict__.setdefault("__click_params__", [])
    held.extend(SettingOption(one) for one in reversed(table().values()) if one.name != "path")
    return function


class SettingsCommand(click.Command):
    """A command whose help shows the options of each section under its title."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            line = param.get_help_record(ctx)
            if line is not None:
                section = getattr(param, "section", "")
                groups.setdefault(TITLES.get(section, "The run"), []).append(line)
        for title, lines in groups.items():
            with formatter.section(title):
                formatter.write_dl(lines)
