"""Checks of the machine: GPU, processor, cores, memory, folders, and our own environment variables."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.diagnosis.finding import Finding
from vit_deploy.environment import cache_folder, cpu_model, gpu_names, usable_cores
from vit_deploy.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LITTLE_MEMORY = 2e9
"""Less than this, and a ViT-B/16 (346 MB of weights) is exported and verified at the limit."""

LITTLE_DISK = 2e9
"""Less than this, and the artefacts of a ViT-L/16 (1.2 GB each) do not fit."""

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "bf16", "i8mm")
"""Flags that decide how fast, and in what precision, CPU kernels compute."""

CGROUP = Path("/sys/fs/cgroup")


def check_gpu() -> Finding:
    """The NVIDIA driver and the GPUs that it shows to this process."""
    from vit_deploy.tensorrt_flavours import find_gpus

    found = find_gpus()
    if not found.capabilities:
        return Finding.ok(f"none: {found.reason}")
    names = gpu_names()
    shown = names if len(names) == len(found.capabilities) else ["NVIDIA GPU"] * len(found.capabilities)
    gpus = ", ".join(
        f"{name} (compute capability {capability})"
        for name, capability in zip(shown, found.capabilities, strict=True)
    )
    return Finding.ok(f"{gpus}{_driver()}")


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return ""
    words = text.split("\n", 1)[0].split()
    version = next((word for word in words if word[:1].isdigit() and "." in word), "")
    return f", driver {version}" if version else ""


def check_processor() -> Finding:
    """The processor and those of its flags that matter here."""
    return Finding.ok(describe_processor(cpu_model(), cpu_flags()))


def cpu_flags() -> set[str]:
    """The processor's flags as Linux tells them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return set(value.split())
    return set()


def describe_processor(model: str, flags: set[str]) -> str:
    """The flags as a fact, and what follows from them without anyone saying so."""
    known = [flag for flag in CPU_FLAGS if flag in flags]
    fact = f"{model}: {', '.join(known) if known else 'no flags that matter here are known'}"
    if flags & {"avx512_bf16", "amx_bf16"}:
        fact += "; OpenVINO computes in bf16 on it unless INFERENCE_PRECISION_HINT is f32"
    return fact


def check_cores() -> Finding:
    """The cores this process may use, and whether a quota gives it less time than that."""
    return judge_cores(usable_cores(), os.cpu_count() or 1, cpu_quota())


def cpu_quota(root: Path = CGROUP) -> float | None:
    """How many cores' time the control group allows; ``None`` without a limit."""
    try:
        quota, _, period = (root / "cpu.max").read_text(encoding="utf-8").partition(" ")
    except OSError:
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (root / "cpu" / "cpu.cfs_period_us").read_text(encoding="utf-8")
        except OSError:
            return None
    quota = quota.strip()
    if not quota.isdigit() or not period.strip().isdigit():
        return None  # "max", or -1 in the first version
    return int(quota) / int(period)


def judge_cores(usable: int, all_cores: int, quota: float | None) -> Finding:
    """Threads beyond a quota wait for each other and make times jump."""
    fact = f"{usable} of {all_cores} cores may be used"
    if quota is not None and quota < usable:
        threads = max(1, int(quota))
        return Finding.warn(
            f"{fact}, but a quota allows the time of {quota:.3g}: {usable} threads would wait for each other",
            f"pass --threads {threads} to verify and bench",
        )
    return Finding.ok(fact)


def check_memory() -> Finding:
    """The memory that this process can still get."""
    import psutil

    memory = psutil.virtual_memory()
    limit = memory_limit()
    total = min(memory.total, limit) if limit else memory.total
    return judge_memory(min(memory.available, total), total)


def memory_limit(root: Path = CGROUP) -> int | None:
    """The control group's limit in bytes; ``None`` without one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def judge_memory(available: float, total: float) -> Finding:
    """Against what the most usual model needs."""
    fact = f"{available / 1e9:.1f} GB available of {total / 1e9:.1f} GB"
    if available < LITTLE_MEMORY:
        return Finding.warn(fact, "end other programs, or use a machine with more memory")
    return Finding.ok(fact)


def check_cache_folder() -> Finding:
    """Whether the cache folder can be written, and has room."""
    mend = "export VIT_DEPLOY_CACHE=FOLDER, with one that is writable and has room"
    problem, free = try_folder(cache_folder())
    if problem:
        return Finding.warn(f"{cache_folder()}: {problem}", mend)
    return judge_room(f"{cache_folder()}", free, mend)


def check_temporary_folder() -> Finding:
    """Whether there is a temporary folder, and it has room."""
    mend = "export TMPDIR=FOLDER, with one that is writable and has room"
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        return Finding.bad(str(error), mend)
    problem, free = try_folder(folder)
    if problem:
        return Finding.bad(f"{folder}: {problem}", mend)
    return judge_room(str(folder), free, mend)


def try_folder(folder: Path) -> tuple[str, int]:
    """Write in a folder, or in its nearest parent that exists; why not, and the bytes that are free."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        return f"{existing} is a file", 0
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"vit-deploy")
        return "", shutil.disk_usage(existing).free
    except OSError as error:
        return f"cannot be written: {error.strerror}", 0


def judge_room(folder: str, free: int, mend: str) -> Finding:
    """Against what the artefacts of a large model take."""
    fact = f"{folder}: writable, {free / 1e9:.1f} GB free"
    return Finding.warn(fact, mend) if free < LITTLE_DISK else Finding.ok(fact)


def judge_variables(environment: Mapping[str, str], known: Iterable[str]) -> Finding:
    """Variables that begin with ``VIT_DEPLOY_`` and that nothing reads, with the nearest that is read."""
    names = list(known)
    given = sorted(name for name in environment if name.startswith("VIT_DEPLOY_"))
    unknown = [name for name in given if name not in names]
    if not unknown:
        return Finding.ok(f"set: {', '.join(given)}" if given else "no VIT_DEPLOY_ variable is set")
    close = nearest(unknown[0], names, limit=1)
    hint = f", or name it {close[0]}" if close else ""
    return Finding.warn(f"nothing reads {', '.join(unknown)}", f"unset {' '.join(unknown)}{hint}")
