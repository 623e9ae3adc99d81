"""Calls a user's own code: ``package.module:factory`` becomes a PyTorch module and what describes it.

Nothing here runs but by the word of the user, who typed ``py:…`` or ``--trust-code``. As with
``python -m``, the current directory is importable and comes first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed, nearest
from vit_deploy.model.module_config import FACTORY, PREFIX
from vit_deploy.torchvision_schemas import let_torchvision_import

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

DESCRIPTIONS = ("example_inputs", "input_names", "output_names", "preprocessing", "labels")
"""What may be said beside the module: fields of a dataclass, NamedTuple or dict that holds it under
``module``, or attributes of the factory, or of the module, in this order."""

_FORM = f"{PREFIX}package.module:factory"


@contextlib.contextmanager
def foreign_code() -> Iterator[None]:
    """What a user's code prints goes to stderr: stdout is for what a command gives."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@dataclass(frozen=True)
class Made:
    """A module as its factory gave it, and what was said of it."""

    module: nn.Module
    said: Mapping[str, Any] = field(default_factory=dict)


def make(name: str, seed: int = 0) -> Made:
    """Import and call the factory ``package.module:factory``, torch's generator seeded.

    A factory that gives random weights thus gives the same ones in every process.

    Raises:
        ImportFailed: saying which step failed, and the next one.
    """
    import torch
    from torch import nn

    with foreign_code(), torch.random.fork_rng(devices=[]):
        target = _find(name)
        torch.manual_seed(seed)
        returned = _called(target, name)
    inside = _inside(returned)
    module = inside.get("module", returned)
    if not isinstance(module, nn.Module):
        raise ImportFailed(
            f"{name} gives {_kind(returned)}",
            expected="a torch.nn.Module, or a dataclass or dict that holds one under 'module'",
            next_command="let the factory return the module itself",
        )
    said = {
        key: value
        for key in DESCRIPTIONS
        for value in (_said(key, inside, target, module),)
        if value is not None
    }
    return Made(module, said)


def _said(key: str, inside: Mapping[str, Any], target: Any, module: nn.Module) -> Any:
    if key in inside:
        return inside[key]
    for holder in (target, module):
        value = getattr(holder, key, None)
        # A method of that name is the module's own affair.
        if value is not None and not inspect.isroutine(value):
            return value
    return None


def _find(name: str) -> Any:
    """The object behind ``package.module:factory``."""
    if not FACTORY.fullmatch(name):
        raise ImportFailed(
            f"{PREFIX}{name} names no factory",
            expected=_FORM,
            next_command=f"-m {_FORM}, with the module as `import` writes it and a function of it",
        )
    path, _, qualified = name.partition(":")
    found: Any = _imported(path)
    for word in qualified.split("."):
        if not hasattr(found, word):
            raise _missing(name, path, found, word)
        found = getattr(found, word)
    return found


def _imported(path: str) -> Any:
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return _import(path)
    except ModuleNotFoundError as error:
        if error.name is not None and (path == error.name or path.startswith(f"{error.name}.")):
            raise ImportFailed(
                f"there is no Python module {path!r}: {error}",
                expected="a module that `import` finds; the current directory is searched first",
                next_command=f"run this where `python -c 'import {path}'` works, or set PYTHONPATH",
            ) from error
        raise ImportFailed(
            f"importing {path!r} failed: it needs {error.name!r}, which is not installed here",
            expected="an environment in which the module can be imported",
            next_command=f"pip install what provides {error.name!r}",
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise ImportFailed(
            f"importing {path!r} failed: {_told(error)}",
            expected="a module that can be imported",
            next_command=f"python -c 'import {path}'",
        ) from error


def _import(path: str) -> Any:
    """The module, also where it imports a torchvision whose compiled part does not fit."""
    try:
        return importlib.import_module(path)
    except RuntimeError as error:
        if "torchvision::" not in str(error) or not let_torchvision_import():
            raise
    return importlib.import_module(path)


def _missing(name: str, path: str, holder: Any, word: str) -> ImportFailed:
    public = [entry for entry in vars(holder) if not entry.startswith("_") and callable(getattr(holder, entry))]
    near = nearest(word, public)
    others = near + [entry for entry in public if entry not in near]
    where = path if inspect.ismodule(holder) else f"{path}:{getattr(holder, '__qualname__', '')}"
    file = getattr(holder, "__file__", None)
    return ImportFailed(
        f"{where} has no {word!r}" + (f" ({file})" if file else ""),
        expected=f"one of {', '.join(others[:8])}" if others else "a function that returns the module",
        next_command=f"-m {PREFIX}{path}:{near[0]}" if near else f"define {name.partition(':')[2]} in {path}",
    )


def _called(target: Any, name: str) -> Any:
    from torch import nn

    if isinstance(target, nn.Module) or _inside(target).get("module") is not None:
        return target
    if not callable(target):
        raise ImportFailed(
            f"{name} is {_kind(target)}, which cannot be called",
            expected="a function or class that gives a torch.nn.Module, or a module itself",
        )
    _require_no_arguments(target, name)
    try:
        return target()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise ImportFailed(
            f"{name} failed: {_told(error)}",
            expected="a factory that returns a torch.nn.Module",
            next_command="run the same command with --debug for the whole traceback",
        ) from error


def _require_no_arguments(target: Callable[..., Any], name: str) -> None:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # a builtin does not tell; calling it will
        return
    loose = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [entry.name for entry in parameters if entry.default is entry.empty and entry.kind not in loose]
    if needed:
        path, _, qualified = name.partition(":")
        raise ImportFailed(
            f"{name} needs arguments: {', '.join(needed)}",
            expected="a callable without required arguments",
            next_command=f"write one: def exported(): return {path}.{qualified}({', '.join(needed)})",
        )


def _inside(returned: Any) -> Mapping[str, Any]:
    """The fields of a dataclass, NamedTuple or dict that stands around a module."""
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        return {entry.name: getattr(returned, entry.name) for entry in dataclasses.fields(returned)}
    if isinstance(returned, tuple) and hasattr(returned, "_asdict"):
        return dict(returned._asdict())
    return returned if isinstance(returned, Mapping) else {}


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"


def _told(error: BaseException) -> str:
    """An exception of the user's code: its kind, its first line, and where it was raised."""
    first = (str(error).splitlines() or [""])[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first}{where}" if first else f"{type(error).__name__}{where}"
