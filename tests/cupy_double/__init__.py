"""A strict double of CuPy 14: its arrays hold NumPy's, and refuse what CuPy refuses.

What it cannot know: how long anything takes; in which order cuBLAS, a reduction or atomics add, and
so how float32 rounds there; how many blocks fit on a device, or whether memory suffices; whether
the compiler for the device takes a kernel; errors of a driver. Calls of libraries (sorting, scans)
count as one launch, more or less. What it says about a run on a device are counts, not times.

What it knows is read off the wheel (``read_wheel``) and off the sources of CuPy:

- a device array never turns into a NumPy array silently, and an operation takes no NumPy array;
- a name, a keyword or a combination of dtypes that CuPy does not have is not there, and the dtype
  of a result is CuPy's;
- an index out of range wraps around, and one that occurs twice with two values is an error;
- new memory is full of NaN, or of integers far out of range;
- ``add.reduceat`` and running sums round as CuPy's;
- every launch, wait and transfer is counted, with the line that asked for it (``counters``).
"""

from tests.cupy_double.arrays import DeviceArray
from tests.cupy_double.counters import counters
from tests.cupy_double.module import module
from tests.cupy_double.streams import Nccl, log

__all__ = ["DeviceArray", "Nccl", "counters", "log", "module"]
