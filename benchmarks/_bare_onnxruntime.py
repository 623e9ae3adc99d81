"""A bare loop around ONNX Runtime, with nothing of ours in it: what `benchmarks/agreement.py` compares with.

python benchmarks/_bare_onnxruntime.py model.onnx 2 3.0     # file, threads, seconds -> median in ms
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import onnxruntime as ort


def main(path: str, threads: int, seconds: float) -> None:
    """Warm up for a quarter of the time, then time one inference after another; print the median."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    pixels = np.random.default_rng(0).standard_normal(given.shape, dtype=np.float32)
    binding = session.io_binding()
    binding.bind_ortvalue_input(given.name, ort.OrtValue.ortvalue_from_numpy(pixels))
    for output in session.get_outputs():
        binding.bind_ortvalue_output(
            output.name, ort.OrtValue.ortvalue_from_shape_and_type(output.shape, np.float32)
        )
    times = []
    begin = time.perf_counter() + seconds / 4
    while time.perf_counter() < begin:
        session.run_with_iobinding(binding)
    while time.perf_counter() < begin + seconds:
        before = time.perf_counter()
        session.run_with_iobinding(binding)
        times.append(time.perf_counter() - before)
    print(statistics.median(times) * 1e3)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
