"""What the pieces of scoring cost: a head of 128 x 5120, one thread, the least CPU time of many repetitions.

    python -m benchmarks.products

The forms that were tried for the Gram product and for the widening, the chosen ones among them; with `pip install
mkl` also the product of bfloat16 numbers of that library.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np

from benchmarks.machine import machine
from benchmarks.run import blas_kernel
from gatenorm_stream.floats import widen_into

RESULTS = Path(__file__).parent / "results" / "products.json"
DIM, HIDDEN, APART, REPEATED = 128, 5120, 16, 60


def least(act: Callable[[], object]) -> float:
    """Milliseconds of CPU time."""
    best = float("inf")
    for _ in range(REPEATED):
        begun = time.thread_time()
        act()
        best = min(best, time.thread_time() - begun)
    return best * 1000


def mkl_product(a: np.ndarray, out: np.ndarray) -> Callable[[], object] | None:
    """Fills `out` with A A^T of bfloat16 numbers in float32 (cblas_gemm_bf16bf16f32), if the library is there."""
    path = next(Path(sys.prefix, "lib").glob("libmkl_rt.so*"), None)
    if path is None:
        return None
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    by_row, as_it_is, transposed = 101, 111, 112
    rows, columns = a.shape
    one, none = ctypes.c_float(1), ctypes.c_float(0)
    narrow, wide = (x.ctypes.data_as(ctypes.c_void_p) for x in (a, out))
    sizes = (by_row, as_it_is, transposed, rows, rows, columns)
    return lambda: library.cblas_gemm_bf16bf16f32(*sizes, one, narrow, columns, narrow, columns, none, wide, rows)


def main() -> None:
    rng = np.random.default_rng(0)
    packed = rng.standard_normal((DIM, HIDDEN), dtype=np.float32)
    apart = np.empty((DIM, HIDDEN + APART), np.float32)[:, :HIDDEN]
    apart[:] = packed
    across = np.ascontiguousarray(packed.T)
    column_blocks = [packed[:, n : n + 640] for n in range(0, HIDDEN, 640)]
    upper, lower = apart[: DIM // 2], apart[DIM // 2 :]
    other = apart.copy()
    half = (packed * 0.02).astype(np.float16)
    brain = (packed.view(np.uint32) >> 16).astype(np.uint16)
    upper_halves = np.zeros((DIM, HIDDEN, 2), np.uint16)
    acts: dict[str, Callable[[], object]] = {
        "A A^T, rows one after the other": lambda: packed @ packed.T,
        "A A^T, rows 64 bytes apart": lambda: apart @ apart.T,
        "A A^T, transposed": lambda: across.T @ across,
        "A A^T, by blocks of 640 columns": lambda: sum(b @ b.T for b in column_blocks),
        "A A^T, by halves": lambda: (upper @ upper.T, lower @ lower.T, upper @ lower.T),
        "A B^T (no symmetry used)": lambda: apart @ other.T,
        "transposing": lambda: np.copyto(across, apart.T),
        "float16, numpy's cast": lambda: np.copyto(apart, half),
        "float16, by integers": lambda: widen_into(apart, half.view(np.uint16), "F16"),
        "float16, numpy's cast to a new array": lambda: half.astype(np.float32),
        "bfloat16, by a shift": lambda: widen_into(apart, brain, "BF16"),
        "bfloat16, as the upper halves": lambda: np.copyto(upper_halves[..., 1], brain),
    }
    by_mkl = mkl_product(brain, np.empty((DIM, DIM), np.float32))
    if by_mkl:
        acts["A A^T of bfloat16 by MKL"] = by_mkl
    found = {name: least(act) for name, act in acts.items()}
    for name, milliseconds in found.items():
        print(f"{name:40} {milliseconds:.3f} ms")
    content = {"machine": {**machine(), "blas": blas_kernel()}, "milliseconds": found}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
