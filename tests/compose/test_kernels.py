"""Whether Triton can build and load what it needs in a worker's container, whose /tmp runs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.support.compose import ON_CPU, ROOT, UID, Box

STUB = """
import json
import os
from pathlib import Path

from cloner.engine.kernel_trial.cache import KernelCache
from cloner.engine.kernel_trial.support import missing_for_kernels
from cloner.settings import load_settings

settings = load_settings()
folder = KernelCache(settings.kernel_cache, settings.out_dir).open()
missing = missing_for_kernels()

from triton.backends import nvidia
from triton.runtime.build import compile_module_from_src

source = '''
#include <Python.h>
#include <cuda.h>
static PyObject *version(PyObject *self, PyObject *none) { return PyLong_FromLong(CUDA_VERSION); }
static PyMethodDef methods[] = {{"version", version, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "stub", NULL, -1, methods};
PyMODINIT_FUNC PyInit_stub(void) { return PyModule_Create(&module); }
'''
stub = compile_module_from_src(src=source, name="stub", include_dirs=[str(Path(nvidia.__path__[0]) / "include")])
file = Path(stub.__file__)
print(json.dumps({
    "missing": missing, "version": stub.version(), "folder": str(folder), "inside": file.is_relative_to(folder),
    "mode": folder.stat().st_mode & 0o777, "owner": folder.stat().st_uid, "built": file.stat().st_mtime_ns,
    "tmp runs programs": not os.statvfs("/tmp").f_flag & os.ST_NOEXEC,
}))
"""


def test_triton_builds_and_loads_a_stub_in_the_kernels_volume(make_box: Callable[..., Box]) -> None:
    """The CPU image has no Triton, so it is the one that the other tests use."""
    triton = next((ROOT / ".venv").resolve().glob("lib/python3.*/site-packages/triton"))
    box = make_box(*ON_CPU)
    there = ["--volume", f"{triton}:/packages/triton:ro", "--env", "PYTHONPATH=/packages"]
    first, second = (
        json.loads(box.compose("run", "--rm", "--no-deps", *there, "fleet", "python", "-c", STUB)) for _ in range(2)
    )
    assert first["missing"] is None
    assert first["version"] >= 12_000
    assert (first["folder"], first["inside"]) == (f"/cloner/kernels/{UID}", True)
    assert (first["mode"], first["owner"]) == (0o700, UID)
    assert first["tmp runs programs"] is False, "so a stub there could not be loaded"
    assert second == first, "the next container loads what this one has built"
