"""help and completion: what the program itself can tell of how it is used."""

from collections.abc import Callable

import click
from click.shell_completion import get_completion_class

from aetherflow_hooks.config import RELOADABLE, Settings, render
from aetherflow_hooks.watch.log import LogEvent
from aetherflow_hooks.watch.metrics import METRICS

PROGRAM = "aetherflow-hooks"
COMPLETE_VARIABLE = "_AETHERFLOW_HOOKS_COMPLETE"  # as click makes it of the program's name
SIGNALS = """\
SIGTERM, SIGINT   Take nothing new, let POSTs under way end within engine.grace_seconds, write their
                  results, and go. A second one ends at once; what was under way is sent again.
SIGHUP            Read the settings anew, unless it runs in a terminal. These change while it runs:
                  {reloadable}
                  The log names others that differ; they need a restart.
"""
EXITS = """\
0   It is done.
1   It could not be done, or something was found: one line on stderr, or a table, says what.
2   It was asked for in a way that it does not understand.
"""


def _settings() -> str:
    return render(Settings())


def _signals() -> str:
    return SIGNALS.format(reloadable=("\n" + " " * 18).join(RELOADABLE))


def _metrics() -> str:
    return _table({metric.full_name: metric.help for metric in METRICS.values()})


def _log() -> str:
    return _table({event.value: f"{event.level}: {event.meaning}" for event in LogEvent})


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows)) + 2
    return "".join(f"{name:<{width}}{text}\n" for name, text in rows.items())


TOPICS: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("every setting, with its default and its range", _settings),
    "metrics": ("what /metrics tells", _metrics),
    "log": ("the events of the log", _log),
    "signals": ("what a daemon does when it is sent one", _signals),
    "exits": ("what the exit codes mean", lambda: EXITS),
}


@click.command("help")
@click.argument("words", nargs=-1, metavar="[TOPIC | COMMAND]")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Explain a topic or a command; without one, name the topics."""
    whole = context.find_root()
    if not words:
        click.echo(whole.get_help())
        click.echo("\nTopics, as in `aetherflow-hooks help signals`:")
        click.echo(_table({f"  {name}": text for name, (text, _) in TOPICS.items()}), nl=False)
        return
    if words[0] in TOPICS and len(words) == 1:
        click.echo(TOPICS[words[0]][1](), nl=False)
        return
    command: click.Command = whole.command
    inner = whole
    for word in words:
        found = command.get_command(inner, word) if isinstance(command, click.Group) else None
        if found is None:
            raise click.UsageError(f"there is neither a topic nor a command {' '.join(words)!r}")
        command, inner = found, click.Context(found, info_name=word, parent=inner)
    click.echo(command.get_help(inner))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what lets a shell complete commands and options: eval "$(… completion bash)"."""
    made = get_completion_class(shell)
    assert made is not None
    whole = context.find_root().command
    click.echo(made(whole, {}, PROGRAM, COMPLETE_VARIABLE).source())
