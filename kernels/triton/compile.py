"""Compiles kernels for GPUs that aren't there, and reads what they take of one.

Run as a program, in a process without ``TRITON_INTERPRET``: prints a line of JSON a kernel.
"""

import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from tristate.kernels.triton.cases import CASES
from tristate.kernels.triton.launch import Launch, for_nvidia, recording
from tristate.kernels.triton.targets import TARGETS

Row = dict[str, Any]


def gpu(target: str) -> GPUTarget:
    """The GPU of a name such as ``cuda:90`` or ``hip:gfx942``."""
    kind, _, architecture = target.partition(":")
    return GPUTarget(
        kind, int(architecture) if kind == "cuda" else architecture, TARGETS[target].warp_size
    )


def rows(names: Sequence[str], target: str) -> Iterator[Row]:
    """What each kernel of the named ops takes on ``target``, by every plan that may be chosen.

    A kernel that several configurations compile to is there once.
    """
    for name in names:
        seen = set()
        for configuration, call in CASES[name]():
            with recording() as launches:
                call()
            for launch in launches:
                source, options = specialised(launch, gpu(target))
                identity = (source.hash(), *sorted(map(str, options.items())))
                if identity in seen:
                    continue
                seen.add(identity)
                yield {
                    "kernel": f"{name}.{launch.kernel.__name__}",
                    "config": f"{configuration}; {_tiles(launch)}",
                    "target": target,
                    **resources(source, options, gpu(target)),
                }


def _tiles(launch: Launch) -> str:
    sizes = {k.lower(): v for k, v in launch.arguments.items() if k.startswith("BLOCK")}
    return ", ".join(f"{name} {size}" for name, size in (sizes | launch.options).items())


def specialised(launch: Launch, target: GPUTarget) -> tuple[ASTSource, dict[str, Any]]:
    """What Triton would compile on the device for a launch, and by which options."""
    backend = make_backend(target)
    kernel = launch.kernel
    options = for_nvidia(launch.options) if target.backend == "cuda" else launch.options
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(**launch.arguments, **options)
    options, signature, constants, attributes = kernel._pack_args(
        backend, options, bound, specialization, options
    )
    return ASTSource(kernel, signature, constants, attributes), options.__dict__


def resources(source: ASTSource, options: dict[str, Any], target: GPUTarget) -> Row:
    """Compile a kernel: registers, spilled bytes, shared memory."""
    # What ptxas says is told once, when it runs.
    with (
        knobs.compilation.scope(),
        knobs.nvidia.scope(),
        contextlib.redirect_stdout(io.StringIO()) as log,
    ):
        knobs.compilation.always_compile = True
        knobs.nvidia.dump_ptxas_log = True
        compiled = triton.compile(source, target, options)
    if target.backend == "cuda":
        found = _of_ptxas(log.getvalue())
    else:
        found = _of_amdgcn(compiled.asm["amdgcn"])
    return {**found, "shared_bytes": compiled.metadata.shared}


def _of_ptxas(log: str) -> Row:
    """Registers, and bytes stored and loaded for want of them."""
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", log)
    registers = re.search(r"Used (\d+) registers", log)
    if not spills or not registers:
        raise RuntimeError(f"ptxas tells no resources: {log}")
    return {"registers": int(registers[1]), "spill_bytes": sum(map(int, spills))}


def _of_amdgcn(assembly: str) -> Row:
    """Vector registers, and the scratch memory of a thread, which spills alone make."""

    def field(name: str) -> int:
        found = re.search(rf"\.{name}:\s*(\d+)", assembly)
        if not found:
            raise RuntimeError(f"the assembly has no .{name}")
        return int(found[1])

    spilled = max(field("private_segment_fixed_size"), 4 * field("vgpr_spill_count"))
    return {"registers": field("vgpr_count"), "spill_bytes": spilled}


def main(words: Sequence[str]) -> None:
    """``TARGET OP...``: a line of JSON a kernel."""
    target, *names = words
    for row in rows(names or list(CASES), target):
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
