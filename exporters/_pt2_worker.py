"""The process that compiles a package: AOTInductor's settings and the C++ compiler are its own.

    compile    {program, package, level, bits, device, freeze} -> {facts}

It is another process so that the memory of compiling is given back, that a compile can be cancelled, and that
the hundreds of settings and caches which PyTorch keeps per process are left alone in ours. When its stdin is
closed it ends, with the compilers it has started, and takes its folder with it.

What depends on the version of PyTorch stands in this file alone (written against 2.13, of ``torch._inductor``:
``aot_compile``, ``cpp_builder.run_compile_cmd``, ``package.package_aoti``).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.exporters._pt2_objects import ObjectCache
from vit_deploy.worker_process import run_worker, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOREIGN = ("TORCHINDUCTOR_", "AOT_INDUCTOR_", "AOTINDUCTOR_", "TORCH_COMPILE", "TORCH_LOGS", "TORCH_TRACE")
"""Variables of the user's that would change what is compiled: the same input must give the same bytes."""

NAME = "model"
"""Of the files in a package, which PyTorch would name after a hash that has paths of this machine in it."""

POLL_S = 0.01

_TRAILER = re.compile(r"\n// Compile cmd\n.*", re.DOTALL)
_REFERENCE = re.compile(r"^// Triton kernels are embedded as comments in .*\n", re.MULTILINE)
_SOURCE = re.compile(r"\S+\.(?:(?:wrapper|kernel)\.cpp|S)(?=\s)")
_EXTERNAL = re.compile(r"\baoti_torch_(?:cpu|cuda)_+(\w+)\(")
_GENERATED = re.compile(r'extern "C"\s+void\s+\w+\(')
_BOOKKEEPING = re.compile(r"^(?:empty|new|grad|get|dtype|device|delete|copy|assign)")


class Compiler:
    """Runs the commands that PyTorch has for the C++ compiler, so that no path gets into what they make.

    Sources that are independent are compiled side by side, and only where they have not been before.
    """

    def __init__(self, folder: Path, cache: ObjectCache, run: Callable[[str, str], None]) -> None:
        import torch
        from torch._inductor.cpp_builder import get_compiler_version_info, get_cpp_compiler

        self._folder = folder
        self._cache = cache
        self._run = run
        self._pool = ThreadPoolExecutor(2)
        self._begun: list[Future[None]] = []
        self._made_by = (get_compiler_version_info(get_cpp_compiler()), torch.__version__)
        library = shlex.quote(f"-ffile-prefix-map={Path(torch.__file__).parent}=torch")
        self._compile = (
            f" {library} -frandom-seed={NAME} -g0 "
            "-ffile-prefix-map="  # and the folder that its source lies in
        )
        self._link = " -Wl,--build-id=none -s"

    def __call__(self, command: str, cwd: str) -> None:
        """Run one; those that compile a source go on beside what PyTorch does next."""
        source = _SOURCE.search(command)
        if source is None or " -c " not in command:
            for compiled in self._begun:
                compiled.result()  # what it raised is raised here
            self._begun.clear()
            self._run(command + self._link, cwd)
        elif source[0].endswith(".cpp"):
            # PyTorch removes its own folder as soon as this returns.
            self._begun.append(self._pool.submit(self._object, command, Path(source[0])))
        else:
            self._run(f"{command}{self._compile}{Path(source[0]).parent}=.", cwd)

    def _object(self, command: str, source: Path) -> None:
        whole = f"{command}{self._compile}{source.parent}=."
        words = shlex.split(whole)
        target = Path(words[words.index("-o") + 1])
        key = self._cache.key(source, whole.replace(str(source.parent), "."), *self._made_by)
        if not self._cache.fetch(key, target):
            self._run(whole, str(self._folder))
            self._cache.keep(key, target)


def compile_package(message: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Compile a program into a package; gives what is known of what was built."""
    import torch
    from torch._inductor import config, cpp_builder
    from torch._inductor.package.package import package_aoti

    torch.manual_seed(0)  # weights of 2 GB and more are marked by a number that is drawn
    config.cpp.vec_isa_ok = True  # PyTorch would compile a test for each instruction set, for seconds
    config.cpp.simdlen = message["bits"]
    cache = ObjectCache(folder.parent / "objects")
    compiler = Compiler(folder, cache, cpp_builder.run_compile_cmd)
    cpp_builder.run_compile_cmd = compiler  # type: ignore[assignment]
    program = torch.export.load(message["program"])
    Path(message["program"]).unlink()
    args, kwargs = program.example_inputs or ((), {})
    with torch.no_grad():
        module: Any = program.module(check_guards=False)
        del program
        made: Any = torch._inductor.aot_compile(module, args, kwargs, options=settings(message))
    files: list[Any] = [str(file) for file in made]
    facts = _facts(files)
    for file in files:
        if file.endswith(".cpp"):
            _strip(Path(file))
    package_aoti(message["package"], {NAME: sorted(files)})
    return facts


def settings(message: Mapping[str, Any]) -> dict[str, Any]:
    """What AOTInductor is told; see ``torch/_inductor/config.py``."""
    on_cpu = message["device"] == "cpu"
    return {
        "aot_inductor.package": True,
        "aot_inductor.model_name_for_generated_files": NAME,
        "aot_inductor.precompile_headers": False,  # of use only where a cache is kept
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.enable_frame_pointer": False,
        "aot_inductor.embed_kernel_binary": not on_cpu,
        "compile_threads": 1,
        "size_asserts": False,  # their messages hold addresses of Python objects; sessions check the inputs
        "alignment_asserts": False,
        # Weights in the layout that oneDNN computes in, and bias, GELU and residual sums in its products.
        "freezing": on_cpu and message["freeze"],
        "max_autotune": not on_cpu,
        "cpp.march": message["level"],
        "cpp.simdlen": message["bits"],
        "cpp.vec_isa_ok": True,
        "cpp.dynamic_threads": True,  # as many as the session has, not as this process has
    }


def _facts(files: list[str]) -> dict[str, Any]:
    """What was built: calls of library kernels by name, kernels that were generated, flags of the code."""
    import torch
    from torch._inductor.cpp_builder import get_compiler_version_info, get_cpp_compiler
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    sources = "\n".join(Path(file).read_text(encoding="utf-8") for file in files if file.endswith(".cpp"))
    calls = Counter(name for name in _EXTERNAL.findall(sources) if not _BOOKKEEPING.match(name))
    return {
        "calls": dict(sorted(calls.items())),
        "kernels": len(_GENERATED.findall(sources)),
        "arch_flags": sorted(set(pick_vec_isa().build_arch_flags().split())),
        "compiler": _version(get_compiler_version_info(get_cpp_compiler())),
        "packed_for": os.environ.get("ONEDNN_MAX_CPU_ISA") or torch.backends.cpu.get_cpu_capability(),
        "proxied": any(file.endswith(f"{NAME}.wrapper.json") for file in files),
    }


def _version(told: str) -> str:
    """The line of what a compiler says of itself that has its version."""
    found = re.search(r"((?:gcc|clang) version [^_\n]*)", told)
    return found[1].strip() if found else told.strip()[:80]


def _strip(source: Path) -> None:
    """Take out of a generated source what says where it was compiled; the machine code is made by then."""
    text = _TRAILER.sub("\n", _REFERENCE.sub("", source.read_text(encoding="utf-8")))
    source.write_text(text, encoding="utf-8")


def _failure(error: Exception) -> dict[str, Any]:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    compiler = [line.strip() for line in str(error).splitlines() if " error: " in line or "fatal error" in line]
    return {"error": f"{type(error).__name__}: {text}", "compiler": compiler[:1], "text": str(error)[-4000:]}


def _clear_with_the_coordinator(folder: Path) -> None:
    """Wait until stdin is closed at the other end, then remove the folder for as long as this process lives.

    What still compiles may write into it meanwhile; :func:`serve` ends it all a second later.
    """
    import select

    watched = select.poll()
    watched.register(sys.stdin.fileno(), 0)
    watched.poll()
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(POLL_S)


def main(arguments: list[str] | None = None) -> None:
    """``python -m vit_deploy.exporters._pt2_worker DESCRIPTOR FOLDER``."""
    answers, work = sys.argv[1:] if arguments is None else arguments
    folder = Path(work)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    threading.Thread(target=_clear_with_the_coordinator, args=(folder,), daemon=True).start()
    run_worker(lambda: serve(int(answers), lambda message: compile_package(message, folder), _failure))


if __name__ == "__main__":
    main()
