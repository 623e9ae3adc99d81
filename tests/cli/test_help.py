from __future__ import annotations

import time

import click
import pytest

from vit_deploy.cli import COMMANDS, group
from vit_deploy.errors import UsageFailed


def help_page(*words: str) -> str:
    """A help page at a fixed width, as a terminal of 100 columns shows it."""
    context = click.Context(group, info_name="vit-deploy", terminal_width=100, **group.context_settings)
    command: click.Command = group
    for word in words:
        found = group.get_command(context, word)
        assert found is not None
        command = found
        context = click.Context(command, parent=context, info_name=word, terminal_width=100)
    return command.get_help(context) + "\n"


def test_the_first_page_is_golden(golden):
    golden("help/vit-deploy.txt", help_page())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_every_command_is_golden(golden, name: str):
    golden(f"help/{name}.txt", help_page(name))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_gives_json_and_explains_its_flags(name: str):
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert command.name == name
    options = [entry for entry in command.params if isinstance(entry, click.Option)]
    assert "--json" in {word for option in options for word in option.opts}
    assert [option.name for option in options if not option.help] == []
    assert command.help


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_goes_to_stdout_and_exits_with_0(invoke, flag: str):
    result = invoke(flag)
    assert result.code == 0
    assert result.err == ""
    assert all(name in result.out for name in COMMANDS)


def test_an_unknown_command_names_the_nearest(invoke):
    result = invoke("exprt")
    assert result.code == UsageFailed.exit_code == 2
    assert "did you mean 'export'?" in result.err


def test_an_unknown_flag_is_a_usage_error(invoke):
    result = invoke("models", "--jsn")
    assert result.code == 2
    assert "--json" in result.err


def test_a_flag_can_stand_in_the_environment(invoke, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIT_DEPLOY_MODELS_AS_JSON", "1")
    assert invoke("models", "tiny").json["models"]


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch, invoke):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = invoke("models", "tiny")
    assert "\x1b[3" not in result.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_offered(shell: str):
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None
    words = completion(group, {}, "vit-deploy", "_VIT_DEPLOY_COMPLETE").get_completions([], "ver")
    assert [word.value for word in words] == ["verify"]


def test_help_is_quick():
    started = time.perf_counter()
    help_page()
    # A guard against a heavy import, not a measurement: torch alone takes seconds.
    assert time.perf_counter() - started < 0.5
