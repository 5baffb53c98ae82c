"""container-file: the daemon in a container."""

from importlib.metadata import version
from importlib.resources import files
from string import Template

import click


@click.command("container-file")
def container_file() -> None:
    """Print a file from which docker or podman build an image of this release."""
    text = (files("aetherflow_hooks.cli") / "Containerfile").read_text("utf-8")
    click.echo(Template(text).substitute(version=version("aetherflow-hooks")), nl=False)
