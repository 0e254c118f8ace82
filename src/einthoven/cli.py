"""The ``einthoven`` command line: flags for every setting, and errors as one message."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from einthoven.errors import ConfigError, EinthovenError, ProcessLost, RunStopped
from einthoven.stages import STAGES, OwnOption, Stage
from einthoven.version import __version__

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

# The demo is over within two minutes on two cores.
DEMO_DEFAULTS = {"root": Path("demo"), "epochs": 8}
# Commands that keep what they have done when they are stopped.
RESUMED = (
    "demo", "download", "label", "prepare", "train", "evaluate", "run", "crossval", "tune",
    "report",
)  # fmt: skip
INTERRUPTED = 130  # what shells expect of a command that Ctrl-C has ended


# The command line --------------------------------------------------------------------------------


class Stages(click.Group):
    """Commands that are built when they are called for, so that listing them costs nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(STAGES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        stage = STAGES.get(cmd_name)
        return make_command(cmd_name, stage) if stage else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in STAGES:
            import difflib

            nearest = difflib.get_close_matches(args[0], STAGES, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, stage.help) for name, stage in STAGES.items()])


class StageCommand(click.Command):
    """A command whose help lists its settings under the stage that they concern."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from einthoven.settings import Settings, setting_group

        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            info = Settings.model_fields.get(parameter.name or "")
            title = setting_group(info).capitalize() if info else "Options"
            line = parameter.get_help_record(ctx)
            # Words stand in the line of usage; they have no explanation of their own.
            if line and line[1]:
                sections.setdefault(title, []).append(line)
        for title, lines in sections.items():
            with formatter.section(title):
                formatter.write_dl(lines)


HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Stages, context_settings=HELP_SETTINGS)
@click.version_option(__version__, prog_name="einthoven")
def command_line() -> None:
    """Raw 12-lead ECG archives in, a trained and honestly evaluated classifier out.

    Start with `einthoven demo`, which needs no data. With archives in Dataset/, `einthoven run`
    does everything. `einthoven COMMAND --help` lists a command's settings; every setting is also
    an environment variable and a line of einthoven.toml.

    Research software, not a medical device.
    """


def make_command(name: str, stage: Stage) -> click.Command:
    """A command that takes every setting of its stage as a flag of the same name."""
    from einthoven.configuration import load_settings
    from einthoven.settings import Settings, setting_names

    known = setting_names(stage.groups)

    def callback(config: Path | None, **flags: Any) -> None:
        refuse_several_processes(name)
        given = {key: flags.pop(key) for key in own_names}
        flags |= unknown_flags(click.get_current_context().args, name)
        loaded = load_settings(flags, config, DEMO_DEFAULTS if name == "demo" else None)
        from einthoven.console import setup_logging

        setup_logging(loaded.settings.quiet)
        try:
            sys.exit(stage.action(loaded, **given))
        except KeyboardInterrupt:
            said = "The same command goes on from here." if name in RESUMED else "Nothing is kept."
            click.echo(f"Stopped. {said}", err=True)
            sys.exit(INTERRUPTED)

    options = [setting_option(field, Settings.model_fields[field]) for field in known]
    own = [*map(own_word, stage.words), *map(own_option, stage.options)]
    own_names = [str(parameter.name) for parameter in own]
    toml = click.Option(
        ["--config"], type=click.Path(path_type=Path), metavar="FILE",
        help="TOML file of settings (default: einthoven.toml in the workspace)",
    )  # fmt: skip
    return StageCommand(
        name,
        callback=callback,
        params=[*own, *options, toml],
        help=stage.help + ".",
        # `load_settings` reports unknown flags, together with all other problems; a command that
        # takes words of its own would take them for words.
        context_settings={
            "ignore_unknown_options": not stage.words, "allow_extra_args": not stage.words,
        },
    )  # fmt: skip


def own_word(word: str) -> click.Argument:
    """A word that a command takes."""
    if word.endswith("..."):
        kind = click.Path(path_type=Path) if word == "paths..." else click.STRING
        return click.Argument([word[:-3]], nargs=-1, required=True, type=kind)
    return click.Argument([word.removesuffix("?")], required=not word.endswith("?"))


def own_option(option: OwnOption) -> click.Option:
    """An option of one command that is no setting."""
    names = [option.flag, option.dest] if option.dest else [option.flag]
    if option.kind is bool:
        return click.Option(names, is_flag=True, help=option.help)
    return click.Option(
        names, type=option.kind, help=option.help, default=option.default,
        show_default=bool(option.default),
    )  # fmt: skip


def refuse_several_processes(command: str) -> None:
    """Refuse to do with several processes what one does.

    Raises:
        ConfigError: ``torchrun`` has started more than one.
    """
    if command != "train" and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            f"torchrun is for `einthoven train`; run `einthoven {command}` without it, once"
        )


def setting_option(name: str, info: FieldInfo) -> click.Option:
    """The flag of a setting; its value is checked by `load_settings`, not here."""
    from einthoven.settings import allowed_values

    flag = "--" + name.replace("_", "-")
    shown = "" if info.default in (None, "") else f"; default {info.default}"
    if info.annotation is bool:
        default = "on" if info.default else "off"
        return click.Option(
            [f"{flag}/--no-{flag[2:]}"], is_flag=True, default=None,
            help=f"{info.description} [default {default}]",
        )  # fmt: skip
    metavar = "INTEGER" if info.annotation is int else "VALUE"
    metavar = "NUMBER" if info.annotation is float else metavar
    help_text = f"{info.description} [{allowed_values(name)}{shown}]"
    return click.Option([flag], metavar=metavar, help=help_text)


def unknown_flags(words: list[str], command: str) -> dict[str, str]:
    """What click could not place, as settings for `load_settings` to judge.

    Raises:
        ConfigError: words that are no flag, or settings that do not concern the command.
    """
    from einthoven.settings import Settings

    flags: dict[str, str] = {}
    problems: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--"):
            problems.append(f"`einthoven {command}` takes no argument {word!r}; see --help")
            continue
        flag, _, value = word.partition("=")
        if not value and waiting and not waiting[0].startswith("--"):
            value = waiting.pop(0)
        name = flag[2:].replace("-", "_")
        if name.removeprefix("no_") in Settings.model_fields:
            problems.append(f"{flag} does not concern `einthoven {command}`; leave it out")
        else:
            flags[name] = value
    if problems:
        raise ConfigError("\n".join(problems))
    return flags


def report_error(error: EinthovenError) -> int:
    """Print what a user can mend, once for all processes of a job; returns the exit code."""
    from einthoven.console import is_first_process

    is_told = is_first_process() or error.is_of_one_process
    # Where the first process has died, the second tells of it.
    if isinstance(error, ProcessLost):
        is_told = os.environ.get("RANK", "0") in ("0", "1")
    if is_told:
        click.echo(
            str(error) if isinstance(error, ConfigError) else f"einthoven: {error}", err=True
        )
    if isinstance(error, RunStopped):
        return error.exit_code
    return 2 if isinstance(error, ConfigError) else 1


def main() -> None:
    """Run the command line; errors that a user can mend are one message, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A label or path may hold what a pipe's encoding cannot, on Windows above all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        command_line(prog_name="einthoven")
    except EinthovenError as error:
        sys.exit(report_error(error))
    except OSError as error:
        # A full disk or a folder that may not be written to; without a file it is our defect.
        if error.filename is None:
            raise
        click.echo(f"einthoven: {error.filename}: {error.strerror}", err=True)
        sys.exit(1)
