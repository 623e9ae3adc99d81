"""Checks of what is installed: versions against our own floors, builds, and whether it loads."""

from __future__ import annotations

import re
import sys
import warnings
from importlib import metadata
from typing import TYPE_CHECKING

from vit_deploy.diagnosis.finding import Finding
from vit_deploy.environment import package_version

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_PYTHON, LAST_PYTHON = (3, 10), (3, 13)
"""What the tests run on. On 3.14 PyTorch no longer supports TorchScript."""

ORT_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""All of them write the folder ``onnxruntime``, so that only the last one installed is whole."""

INSTALL = "pip install --upgrade vit-deploy"


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: ``2.13.0+cpu`` gives ``(2, 13, 0)``."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def floors() -> dict[str, str]:
    """The oldest version of each package that our own metadata asks for, extras included."""
    found = {}
    for requirement in metadata.requires("vit-deploy") or []:
        match = re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
        if match:
            found[match[1]] = match[2]
    return found


def core() -> list[str]:
    """The packages that are needed whatever is exported or run."""
    return [
        re.split(r"[^A-Za-z0-9._-]", requirement)[0]
        for requirement in metadata.requires("vit-deploy") or []
        if "extra ==" not in requirement
    ]


def check_python() -> Finding:
    """The interpreter's version against those that are tested."""
    found = sys.version_info[:2]
    fact = f"Python {found[0]}.{found[1]}.{sys.version_info[2]}"
    supported = f"a Python from {FIRST_PYTHON[0]}.{FIRST_PYTHON[1]} to {LAST_PYTHON[0]}.{LAST_PYTHON[1]}"
    if found < FIRST_PYTHON:
        return Finding.bad(f"{fact} is too old", f"use {supported}")
    if found > LAST_PYTHON:
        return Finding.warn(f"{fact}: PyTorch does not support TorchScript on it", f"use {supported}")
    return Finding.ok(fact)


def check_packages() -> Finding:
    """Everything the core needs, but for torch, which has a line of its own."""
    names = [name for name in core() if name != "torch"]
    return judge_versions({name: package_version(name) for name in names}, floors())


def judge_versions(installed: Mapping[str, str | None], oldest: Mapping[str, str]) -> Finding:
    """Each installed version against the oldest one that will do."""
    missing = [name for name, version in installed.items() if version is None]
    if missing:
        return Finding.bad(f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    old = [
        name
        for name, version in installed.items()
        if version is not None and numbers(version) < numbers(oldest.get(name, ""))
    ]
    if old:
        shown = ", ".join(f"{name} {installed[name]} (needs {oldest[name]})" for name in old)
        wanted = " ".join(f"'{name}>={oldest[name]}'" for name in old)
        return Finding.warn(f"too old: {shown}", f"pip install --upgrade {wanted}")
    shown = ", ".join(f"{name} {version}" for name, version in installed.items() if name.startswith("onnx"))
    return Finding.ok(f"all {len(installed)} as needed; {shown}")


def check_torch() -> Finding:
    """PyTorch's version, its build, and whether a CUDA build reaches its GPU."""
    version = package_version("torch")
    if version is None:
        return Finding.bad("torch is not installed", INSTALL)
    oldest = floors()["torch"]
    if numbers(version) < numbers(oldest):
        return Finding.warn(
            f"torch {version}: before {oldest}, torch.load(weights_only=True) could be made to run code",
            f"pip install --upgrade 'torch>={oldest}'",
        )
    import torch

    from vit_deploy.tensorrt_flavours import find_gpus

    if torch.version.cuda is None:
        if find_gpus().capabilities:
            return Finding.warn(
                f"torch {version} is a CPU build, and this machine has an NVIDIA GPU",
                "install the CUDA build of torch: see https://pytorch.org/get-started/locally",
            )
        return Finding.ok(f"torch {version}, CPU build")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        reached = torch.cuda.is_available()
    if find_gpus().capabilities and not reached:
        reason = " ".join(str(said[0].message).split()) if said else "torch gives no reason"
        return Finding.bad(
            f"torch {version} (CUDA {torch.version.cuda}) does not reach the GPU: {reason}",
            "update the NVIDIA driver, or install a torch built for the CUDA that the driver has",
        )
    return Finding.ok(f"torch {version}, CUDA {torch.version.cuda} build")


def check_exporters() -> Finding:
    """Whether the folder ``exporters/`` came along, which is a link in a checkout."""
    from vit_deploy import registry

    try:
        names = registry.formats()
    except ImportError:
        names = []
    if not names:
        return Finding.bad(
            "vit_deploy/exporters holds no exporters: the checkout has lost its symbolic link",
            "git config core.symlinks true && git checkout -- vit_deploy/exporters",
        )
    return Finding.ok(f"{len(names)} formats: {', '.join(names)}")


def check_onnxruntime() -> Finding:
    """ONNX Runtime: one distribution, whole, with its providers read back."""
    found = {name: version for name in ORT_DISTRIBUTIONS if (version := package_version(name))}
    if not found:
        return Finding.warn("ONNX Runtime is not installed", "pip install 'vit-deploy[cpu]'")
    if len(found) > 1:
        kept = next((name for name in found if name != "onnxruntime"), "onnxruntime")
        return Finding.bad(
            f"{' and '.join(found)} are both installed: they write the same folder, and one has lost its files",
            f"pip uninstall -y {' '.join(found)} && pip install {kept}",
        )
    (name, version) = next(iter(found.items()))
    try:
        import onnxruntime

        providers = list(onnxruntime.get_available_providers())
    except (ImportError, AttributeError, OSError) as error:
        return Finding.bad(
            f"{name} {version} is installed but does not load: {error}", f"pip install --force-reinstall {name}"
        )
    return judge_providers(name, version, providers, floors().get(name, ""))


def judge_providers(name: str, version: str, providers: list[str], oldest: str) -> Finding:
    """Whether the providers are those of the distribution that says it is installed."""
    fact = (
        f"{name} {version}: {', '.join(provider.removesuffix('ExecutionProvider') for provider in providers)}"
    )
    if name == "onnxruntime-gpu" and "CUDAExecutionProvider" not in providers:
        return Finding.bad(
            f"{fact}; another ONNX Runtime has written over it",
            f"pip uninstall -y onnxruntime {name} && pip install {name}",
        )
    if numbers(version) < numbers(oldest):
        return Finding.warn(f"{fact}; older than {oldest}", f"pip install --upgrade '{name}>={oldest}'")
    return Finding.ok(fact)


def check_tensorrt() -> Finding:
    """Both TensorRT packages: whether they load, and whether they can build here."""
    from vit_deploy.tensorrt_flavours import FLAVOURS, find_gpus

    facts, broken, usable = [], [], False
    for flavour in FLAVOURS.values():
        if package_version(flavour.module.replace("_", "-")) is None:
            continue
        installed, build = flavour.installed(), flavour.can_build()
        usable = usable or build.ok
        broken.extend([] if installed.ok else [flavour])
        state = "builds engines here" if build.ok else build.reason
        facts.append(f"{flavour.title} {installed.version}: {state}" if installed.ok else installed.reason)
    if broken:
        return Finding.bad("; ".join(facts), f"pip install --force-reinstall {broken[0].module}")
    gpus = find_gpus()
    if not facts and gpus.capabilities:
        return Finding.warn("not installed, and this machine has an NVIDIA GPU", FLAVOURS["tensorrt"].install)
    if not facts:
        return Finding.ok("not installed (optional)")
    if not usable:
        return Finding.warn("; ".join(facts), FLAVOURS["rtx"].install)
    runs = "" if gpus.capabilities else f"; it cannot run them: {gpus.reason}"
    return Finding.ok("; ".join(facts) + runs)


def check_openvino() -> Finding:
    """OpenVINO, if there is one."""
    version = package_version("openvino")
    return Finding.ok(f"OpenVINO {version}" if version else "not installed (optional)")


def check_backends() -> Finding:
    """What can run an exported artefact here; eager PyTorch alone runs none."""
    from vit_deploy import registry

    found = {name: registry.runtime(name).available() for name in registry.backends()}
    ready = [name for name, availability in found.items() if availability.ok]
    if not [name for name in ready if name != "eager"]:
        return Finding.warn(
            "nothing here runs an exported artefact, so none can be verified", "pip install 'vit-deploy[cpu]'"
        )
    others = [name for name in found if name not in ready]
    return Finding.ok(
        f"ready: {', '.join(ready)}"
        + (f"; not here: {', '.join(others)} (vit-deploy formats)" if others else "")
    )
