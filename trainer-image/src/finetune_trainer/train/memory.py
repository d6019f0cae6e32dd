"""Out of memory: recognised whatever raises it, with the numbers that explain it. Works before torch is loaded."""

import errno
import re
import resource
import sys
from collections.abc import Iterator

from finetune_contract.failure import FailureReason

_GPU_SIGNS = re.compile(
    r"(CUDA|HIP|NCCL|GPU)\b.{0,200}out of memory"
    r"|CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_(ALLOC_FAILED|INTERNAL_ERROR_HOST_ALLOCATION_FAILED)"
    r"|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory|Failed to CUDA (m|c)alloc",
    re.IGNORECASE | re.DOTALL,
)
"""torch's allocator; CUDA calls outside it, such as Triton's; libraries with workspaces of their own; NCCL."""

_HOST_SIGNS = re.compile(r"DefaultCPUAllocator|can't allocate memory|Cannot allocate memory|std::bad_alloc")


def out_of_memory(error: BaseException) -> FailureReason | None:
    """GpuOutOfMemory or HostOutOfMemory if that is what went wrong, at whatever depth; else None."""
    for each in _chain(error):
        text = str(each)
        if type(each).__name__ == "OutOfMemoryError" or _GPU_SIGNS.search(text):
            return FailureReason.GPU_OUT_OF_MEMORY
        is_refused = isinstance(each, OSError) and each.errno == errno.ENOMEM
        if isinstance(each, MemoryError) or is_refused or _HOST_SIGNS.search(text):
            return FailureReason.HOST_OUT_OF_MEMORY
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def peak_memory() -> int:
    """The most bytes this process has held so far: of GPU memory where there is a GPU, else resident memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def evidence() -> str:
    """Peak, free and all memory, of the GPU where there is one, for people."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
    else:
        free, whole = _host_memory()
    return f"peak {_gib(peak_memory())}, free {_gib(free)} of {_gib(whole)}"


def _host_memory() -> tuple[int, int]:
    with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 - no file that a path stands for
        found = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in lines)}
    return found["MemAvailable"], found["MemTotal"]


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
