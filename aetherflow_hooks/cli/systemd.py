"""systemd-unit: the daemon as a service that can do nothing else."""

import sys
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from aetherflow_hooks.config import DSN_CREDENTIAL, KEYS_CREDENTIAL, load
from aetherflow_hooks.engine import STOP_SECONDS
from aetherflow_hooks.errors import InputRefused

FOLDER = "/etc/aetherflow-hooks"
HOMES = ("/home/", "/root/", "/run/user/")


@click.command("systemd-unit")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A settings file that the service is to use.",
)
@click.option("--user", help="An account of its own; else systemd makes one for each start.")
@click.option(
    "--template", is_flag=True, help="For several engines on this machine: aetherflow-hooks@1, @2."
)
def systemd_unit(file: Path | None, user: str | None, template: bool) -> None:
    """Print a unit for systemd: hardened, watched, its secrets handed over as credentials."""
    settings = load(file, environment={})
    command = [str(Path(sys.executable).absolute()), "-m", "aetherflow_hooks", "run"]
    command += ["--config", str(file.absolute())] if file else []
    archive = settings.sweep.archive_folder
    if archive and not user:
        raise InputRefused(
            "an account made for each start owns no folder to archive into: name one by --user"
        )
    for text in (*command, user or "", archive):
        if not text.isprintable() or set(text) & set(" \"'\\%$"):
            raise InputRefused(f"{text!r} cannot stand in a unit as it is")
    wanted = {
        "dsn": DSN_CREDENTIAL if not settings.database.dsn else None,
        "keys": KEYS_CREDENTIAL if not settings.secrets.keys_file else None,
    }
    credentials = {name: credential for name, credential in wanted.items() if credential}
    setup = [f"#     install -d -m 700 {FOLDER}"]
    if "dsn" in credentials:
        setup.append(f"#     echo postgresql://… | install -m 600 /dev/stdin {FOLDER}/dsn")
    if "keys" in credentials:
        setup.append(
            f"#     {command[0]} -m aetherflow_hooks keys new | "
            f"install -m 600 /dev/stdin {FOLDER}/keys"
        )
    lines = [
        f"LoadCredential={credential}:{FOLDER}/{name}" for name, credential in credentials.items()
    ]
    if archive:
        setup.append(f"#     install -d -m 700 -o {user} {Path(archive).absolute()}")
        lines.append(f"ReadWritePaths={Path(archive).absolute()}")
    if template:
        setup.append("#     and, for what is to differ, such as AETHERFLOW_HOOKS_WEB__PORT=8081,")
        setup.append(f"#     {FOLDER}/1.env, {FOLDER}/2.env")
        lines.append(f"EnvironmentFile=-{FOLDER}/%i.env")
    text = (files("aetherflow_hooks.cli") / "aetherflow-hooks.service").read_text("utf-8")
    unit = Template(text).substitute(
        name="aetherflow-hooks@" if template else "aetherflow-hooks",
        first="aetherflow-hooks@1 aetherflow-hooks@2" if template else "aetherflow-hooks",
        setup="\n".join(setup),
        command=" ".join(command),
        credentials="\n".join(lines),
        stop_seconds=round(settings.engine.grace_seconds + STOP_SECONDS + 5),
        account=f"User={user}" if user else "DynamicUser=yes",
        # A program that lies in somebody's home has to be readable there.
        protect_home="read-only" if " ".join(command).startswith(HOMES) else "yes",
    )
    click.echo(unit, nl=False)
