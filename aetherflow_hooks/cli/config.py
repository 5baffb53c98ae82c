"""config: the settings in force, and whether a file can be used."""

from pathlib import Path

import click

from aetherflow_hooks.config import load, render, shown


@click.group()
def config() -> None:
    """Settings."""


@config.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A settings file, to be shown with what it leaves as it is.",
)
@click.option("--comments/--no-comments", default=True, help="With what each setting means.")
def show(file: Path | None, comments: bool) -> None:
    """Print every setting as it is in force, from the file, the environment and the defaults."""
    click.echo(render(shown(load(file)), comments=comments), nl=False)


@config.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def check(file: Path) -> None:
    """Tell every problem of a settings FILE at once."""
    load(file)
    click.echo(f"{file}: no problem")
