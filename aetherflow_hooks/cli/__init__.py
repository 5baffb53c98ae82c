"""The command line: each command reads the settings, calls one thing and prints."""

import sys

import click

from aetherflow_hooks.cli.attempt import attempt
from aetherflow_hooks.cli.audit import audit
from aetherflow_hooks.cli.bench import bench
from aetherflow_hooks.cli.config import config
from aetherflow_hooks.cli.container import container_file
from aetherflow_hooks.cli.delivery import delivery
from aetherflow_hooks.cli.demo import demo
from aetherflow_hooks.cli.doctor import doctor
from aetherflow_hooks.cli.emit import emit
from aetherflow_hooks.cli.endpoint import endpoint
from aetherflow_hooks.cli.event import event
from aetherflow_hooks.cli.event_type import event_type
from aetherflow_hooks.cli.help import completion, help_
from aetherflow_hooks.cli.keys import keys
from aetherflow_hooks.cli.link import link
from aetherflow_hooks.cli.listen import listen
from aetherflow_hooks.cli.monitoring import monitoring
from aetherflow_hooks.cli.poll import poll
from aetherflow_hooks.cli.replay import replay
from aetherflow_hooks.cli.restore import restore
from aetherflow_hooks.cli.roles import roles
from aetherflow_hooks.cli.run import migrate, run
from aetherflow_hooks.cli.session import plain
from aetherflow_hooks.cli.status import numbers, status
from aetherflow_hooks.cli.systemd import systemd_unit
from aetherflow_hooks.cli.token import token
from aetherflow_hooks.cli.trial import try_
from aetherflow_hooks.errors import HooksError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="aetherflow-hooks", prog_name="aetherflow-hooks")
def commands() -> None:
    """Webhook delivery for applications on Postgres."""


COMMANDS = (
    *(demo, run, migrate, endpoint, emit, event, event_type, delivery, attempt, replay),
    *(
        listen,
        status,
        numbers,
        doctor,
        token,
        link,
        audit,
        restore,
        keys,
        roles,
        config,
        monitoring,
        bench,
        systemd_unit,
        container_file,
        completion,
        help_,
    ),
)
for command in COMMANDS:
    commands.add_command(command)
endpoint.add_command(try_)
endpoint.add_command(poll)


def main() -> None:
    """Run a command; an error of ours is one clear message and exit code 1."""
    try:
        commands(prog_name="aetherflow-hooks")
    except HooksError as error:
        lines = str(error).split("\n")
        click.echo("error: " + "\n".join(plain(line) for line in lines), err=True)
        sys.exit(1)
