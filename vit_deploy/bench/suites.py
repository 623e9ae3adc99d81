"""Suites: what is measured, and how, in a TOML file that can be named, kept and shared.

A key that is not known is refused rather than passed over: a misspelt one would change what is measured
without a word. The format is described in docs/suites.md.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy import registry
from vit_deploy.assets import suites_directory
from vit_deploy.bench.grid import AllCores, Grid, PerThread
from vit_deploy.bench.plan import ALL
from vit_deploy.errors import HostileInput, UsageFailed, unknown_name
from vit_deploy.facts import Device

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vit_deploy.bench.settings import Settings
    from vit_deploy.spec import Contract, Precision

MAX_BYTES = 8 * 1024
"""Nobody writes a longer suite by hand. The time of the parser grows with the square of a dotted key's length:
64 KiB of it take 40 s, 8 KiB less than one."""

MAX_ENTRIES = 64
"""Of one list: a thousand batch sizes would be measured for days."""

_SIDE = "([1-9][0-9]{0,4})"
_GUIDE = "see docs/suites.md, or take one of vit_deploy/assets/suites as a start"


@dataclass(frozen=True)
class Suite:
    """What is measured, and how.

    Attributes:
        name: of a built-in suite, or the path of a file.
        title: a line that says what it is for.
        backends: their full names, or ``all``; what does not run here is left out.
        device: as :meth:`vit_deploy.facts.Device.parse` reads it; the best of each backend when empty.
        batch_sizes, image_sizes, threads, streams, contracts, precisions, emulate, cuda_graph: see
            :class:`Grid`.
        formats: those that are measured, and exported first where they are missing; when empty, those that
            the backends open.
        duration: seconds of samples for each case.
        rounds: turns that this time is cut into; as many as are worth it when ``None``.
        launches: processes that each case has in turn.
        precision_target: in percent; see ``vit-deploy bench --precision-target``.
        baseline: what ratios stand against.
        soundness: whether an artefact is measured against itself.
        scenarios: MLPerf's, in MLPerf's spelling.
        ceiling: whether the model's matrix products are timed, too.
    """

    name: str
    title: str
    backends: tuple[str, ...] = (ALL,)
    device: str = ""
    batch_sizes: tuple[int, ...] = (1,)
    image_sizes: tuple[tuple[int, int], ...] = ()
    threads: tuple[int | AllCores, ...] = ()
    streams: tuple[int | PerThread, ...] = (1,)
    contracts: tuple[Contract, ...] = ()
    precisions: tuple[Precision, ...] = ()
    formats: tuple[str, ...] = ()
    cuda_graph: bool = False
    emulate: bool = False
    duration: float = 10.0
    rounds: int | None = None
    launches: int = 5
    precision_target: float = 1.0
    baseline: str = ""
    soundness: bool = True
    scenarios: tuple[str, ...] = ()
    ceiling: bool = False

    def grid(self) -> Grid:
        """The cases that it asks for."""
        return Grid(**{entry.name: getattr(self, entry.name) for entry in fields(Grid)})

    def settings(self) -> Settings:
        """What governs the run; where it says nothing, what always does."""
        from vit_deploy.bench.settings import Settings

        return replace(
            Settings(),
            duration_s=self.duration,
            rounds=self.rounds,
            launches=self.launches,
            precision_target=self.precision_target / 100,
            baseline=self.baseline,
            soundness=self.soundness,
        )

    def plan(self) -> dict[str, Any]:
        """What else there is to do: ``backends``, ``scenarios`` and ``ceiling``."""
        return {"backends": self.backends, "scenarios": self.scenarios, "ceiling": self.ceiling}


def suite_names() -> list[str]:
    """The names of the built-in suites, in alphabetical order."""
    return sorted(path.stem for path in suites_directory().glob("*.toml"))


def load_suite(name_or_path: str | Path) -> Suite:
    """A built-in suite by its name, or one in a file of the user's.

    Args:
        name_or_path: a name of :func:`suite_names`; anything else is a path.

    Raises:
        UsageFailed: where there is neither a suite nor a file of that name.
        HostileInput: when the file is no TOML, is too long, or says what no suite can say.
    """
    text = str(name_or_path)
    if text in suite_names():
        return _suite(text, suites_directory() / f"{text}.toml")
    path = Path(name_or_path)
    if not path.exists():
        raise unknown_name("suite", text, suite_names(), "vit-deploy bench --suite FILE.toml")
    return _suite(text, path)


def _suite(name: str, path: Path) -> Suite:
    told = _parse(path)
    unknown = sorted(set(told) - set(_KEYS))
    if unknown:
        found = unknown_name("key", unknown[0], _KEYS)
        raise HostileInput(f"the suite {name!r}: {found.found}", expected=found.expected, next_command=_GUIDE)
    if "title" not in told:
        raise HostileInput(
            f"the suite {name!r} has no 'title'",
            expected="a line that says what it is for",
            next_command='add title = "…" to it',
        )
    return Suite(name=name, **{key: _value(name, key, value) for key, value in told.items()})


def _value(name: str, key: str, value: Any) -> Any:
    """The value of one key, read and checked as the field of the suite that it becomes."""
    entry = _KEYS[key]
    try:
        read = entry.read(value)
        if key in _OF_A_GRID:
            Grid(**{key: read})
        elif key in _OF_SETTINGS:
            Suite(name, "", **{key: read}).settings()
    except UsageFailed as error:
        raise HostileInput(
            f"the suite {name!r}: {key!r} is {_shown(value)}: {error.found}",
            expected=error.expected or entry.expected,
            next_command=_GUIDE,
        ) from error
    except (TypeError, ValueError) as error:
        raise HostileInput(
            f"the suite {name!r}: {key!r} is {_shown(value)}", expected=entry.expected, next_command=_GUIDE
        ) from error
    return read


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _parse(path: Path) -> Mapping[str, Any]:
    """The keys and values of a TOML file.

    Raises:
        HostileInput: when it is none.
    """
    expected = f"a TOML file of at most {MAX_BYTES // 1024} KiB"
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise HostileInput(
                f"{str(path)!r} is no plain file, or is larger than a suite can be",
                expected=expected,
                next_command=_GUIDE,
            )
        told: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a TOMLDecodeError is a ValueError
        raise HostileInput(
            f"the suite {str(path)!r} cannot be read: {error}", expected=expected, next_command=_GUIDE
        ) from error
    return told


@dataclass(frozen=True)
class _Key:
    """How the value of a key is read; ``read`` raises TypeError or ValueError for what it cannot be."""

    read: Callable[[Any], Any]
    expected: str


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _listed(read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def entries(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > MAX_ENTRIES:
            raise TypeError
        return tuple(dict.fromkeys(map(read, value)))

    return entries


def _some(read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def entries(value: Any) -> tuple[Any, ...]:
        found = _listed(read)(value)
        if not found:
            raise ValueError
        return found

    return entries


def _number_or(word: str) -> Callable[[Any], Any]:
    return lambda value: word if value == word else _whole(value)


def _size(value: Any) -> tuple[int, int]:
    """``224`` or ``"384x224"``, height first."""
    found = re.fullmatch(f"{_SIDE}(?:x{_SIDE})?", str(value) if type(value) is int else _text(value))
    if found is None:
        raise ValueError
    return int(found[1]), int(found[2] or found[1])


def _backend(value: Any) -> str:
    return ALL if _text(value) == ALL else registry.runtime(value).name


def _format(value: Any) -> str:
    name = registry.canonical(_text(value))
    if name not in registry.formats():
        raise unknown_name("format", name, registry.formats(), "vit-deploy formats")
    return name


def _scenario(value: Any) -> str:
    from vit_deploy.bench.scenarios import parse_scenarios

    (found,) = parse_scenarios(_text(value))
    return found


def _device(value: Any) -> str:
    return str(Device.parse(_text(value)))


_OF_A_GRID = frozenset(entry.name for entry in fields(Grid))
_OF_SETTINGS = frozenset({"duration", "rounds", "launches", "precision_target"})

_KEYS: Mapping[str, _Key] = {
    "title": _Key(_text, "a line of at most 200 characters"),
    "backends": _Key(_some(_backend), 'a list of backends: ["eager", "onnxruntime"], or ["all"]'),
    "device": _Key(_device, '"cpu", "cuda" or "cuda:1"'),
    "batch_sizes": _Key(_some(_whole), "a list of whole numbers above 0: [1, 8]"),
    "image_sizes": _Key(_listed(_size), 'a list of sides, or heights x widths: [224, "384x224"]'),
    "threads": _Key(_listed(_number_or("all")), 'a list of whole numbers above 0, or "all": [1, "all"]'),
    "streams": _Key(
        _some(_number_or("threads")), 'a list of whole numbers above 0, or "threads": [1, "threads"]'
    ),
    "contracts": _Key(_listed(_text), 'a list: ["pixel_values", "uint8"]'),
    "precisions": _Key(_listed(_text), 'a list: ["fp32", "int8"]'),
    "formats": _Key(_listed(_format), 'a list of formats: ["onnx", "torchscript"]'),
    "cuda_graph": _Key(_flag, "true or false"),
    "emulate": _Key(_flag, "true or false"),
    "duration": _Key(_number, "seconds"),
    "rounds": _Key(_whole, "a whole number above 0"),
    "launches": _Key(_whole, "a whole number above 0"),
    "precision_target": _Key(_number, "percent"),
    "baseline": _Key(_text, "what --baseline takes"),
    "soundness": _Key(_flag, "true or false"),
    "scenarios": _Key(_listed(_scenario), 'a list: ["SingleStream", "Server"]'),
    "ceiling": _Key(_flag, "true or false"),
}
