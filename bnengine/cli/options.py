"""Options that several commands share, and the settings as options, grouped in the help."""

from collections.abc import Callable
from dataclasses import Field
from typing import Any

import click

from ..arrays.backend import CHOICES
from ..data.loading import with_target_column
from ..runtime.modes import MODES
from .settings import flag, table

target_option = click.option(
    "--target", metavar="COLUMN", help=f"The target column of a {with_target_column()} file.  [as in training]"
)
backend_option = click.option("--backend", metavar="NAME", help=f"{CHOICES}  [BNENGINE_BACKEND or auto]")
kernels_option = click.option(
    "--kernels", type=click.Choice(MODES), default="auto", help="As in train: auto, fused or reference.  [auto]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

TITLES = {"data": "Data", "network": "Network", "training": "Training", "run": "Machine and repeatability"}


class SettingOption(click.Option):
    """The option of a setting; None unless the user gives it."""

    def __init__(self, row: "Field[Any]") -> None:
        self.kind, shown = row.metadata["kind"], row.metadata["shown"]
        line = row.metadata["help"] + (f"  [{shown}]" if shown else "")
        super().__init__([flag(row.name)], type=self.kind.type, metavar=self.kind.metavar, help=line, default=None)
        self.section = row.metadata["section"]

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """The value, checked like one of config.toml."""
        value = super().process_value(ctx, value)
        return None if value is None else self.kind.check(ctx.info_name, self.opts[0], value)


def setting_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every setting but the path of the data as an option."""
    params: list[click.Parameter] = function.__dict__.setdefault("__click_params__", [])
    params.extend(SettingOption(row) for row in reversed(table().values()) if row.name != "path")
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
