"""The command line: one file per command, imported only when that command runs."""

from __future__ import annotations

import importlib
import io
import os
import sys

import click

COMMANDS = {
    "export": "Export a model to one or more formats, each proven equal to eager PyTorch.",
    "verify": "Check the artefacts of a bundle against eager PyTorch.",
    "bench": "Measure latency and throughput, each case in a process of its own.",
    "tune": "Find the fastest way to run a bundle here, and make it the default of predict.",
    "predict": "Classify images with an artefact of a bundle.",
    "eval": "Measure accuracy on labelled pictures, each artefact beside eager PyTorch.",
    "inspect": "Show a model's layers, or what a bundle holds.",
    "models": "List the named architectures.",
    "formats": "List the formats and backends, and what this machine can do with them.",
    "doctor": "Check this machine: fact, verdict and mend, a line each.",
    "demo": "Export, verify and run the built-in digits model, offline.",
}
"""Every command and its summary: the help page is made of these without importing any command."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that was asked for."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"vit_deploy.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest command named when there is none of that name."""
        name = args[0]
        if not name.startswith("-") and name not in COMMANDS:
            from vit_deploy.errors import unknown_name

            raise unknown_name("command", name, COMMANDS, "vit-deploy --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands on the help page."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "VIT_DEPLOY",
        "max_content_width": 100,
    },
    epilog="Start with `vit-deploy demo`, or `vit-deploy export -m DIRECTORY --format onnx`.",
)
@click.version_option(package_name="vit-deploy", prog_name="vit-deploy")
def group() -> None:
    """Take a Vision Transformer from its checkpoint to an artefact that is fast and proven equal to PyTorch."""


def main(arguments: list[str] | None = None) -> None:
    """The console script: runs a command, and turns what goes wrong into a message and an exit code."""
    from vit_deploy.errors import VitDeployError

    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given or os.environ.get("VIT_DEPLOY_DEBUG", "0") not in ("", "0")
    _prepare_process()
    try:
        result = group.main(
            args=[word for word in given if word != "--debug"], prog_name="vit-deploy", standalone_mode=False
        )
        sys.exit(result if isinstance(result, int) else 0)
    except VitDeployError as error:
        if debug:
            raise
        click.echo(f"vit-deploy: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        click.echo("vit-deploy: stopped; nothing half-written was left", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader went away (`| head`); there is no one to tell.
        sys.stdout = None
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        click.echo(f"vit-deploy: {error.strerror or error}: {error.filename or ''}".rstrip(": "), err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        click.echo(f"vit-deploy: an error that was not foreseen: {type(error).__name__}: {error}", err=True)
        click.echo("  next: run the same command with --debug, and report what it prints", err=True)
        sys.exit(1)


def _prepare_process() -> None:
    """A stop by the system is a stop by the user, and text that a stream cannot encode is replaced."""
    import signal

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
