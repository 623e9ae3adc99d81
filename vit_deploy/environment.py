"""What a result was made on: machine, system, versions. No names of users, hosts or folders."""

from __future__ import annotations

import functools
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "vit-deploy",
    "torch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "openvino",
    "timm",
    "transformers",
    "numpy",
)


def package_version(name: str) -> str | None:
    """The installed version of a distribution, or ``None``; nothing is imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_names() -> list[str]:
    """The names of the NVIDIA GPUs, from the driver's own files; empty where there are none."""
    names = []
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    return names


def cache_folder() -> Path:
    """Where things that can be made again are kept: ``VIT_DEPLOY_CACHE``, or the user's cache folder."""
    import platformdirs

    named = os.environ.get("VIT_DEPLOY_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("vit-deploy")


@functools.cache
def environment() -> dict[str, Any]:
    """The environment as plain data, alike for every command."""
    import psutil

    versions = {name: package_version(name) for name in PACKAGES}
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpu_names(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name, version in versions.items() if version},
    }
