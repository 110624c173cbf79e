"""The header that runs CUDA C on the CPU: what is wrong in a launch or a kernel does not pass."""

import numpy as np
import pytest

from tests.cuda_on_cpu import MULTIPROCESSORS, SHARED_MEMORY, LaunchError, RawModule

CODE = """
extern __shared__ float shared[];

extern "C" __global__ void places(int *x)
{
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    x[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1000 * block + thread;
}

extern "C" __global__ void add(float *x, float a, long n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += a;
}

extern "C" __global__ void mirrored(float *x)
{
    shared[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void half_meet(float *x)
{
    if (threadIdx.x < blockDim.x / 2) __syncthreads();
}

extern "C" __global__ void meet_elsewhere(float *x)
{
    if (threadIdx.x == 3)
        __syncthreads();
    else
        __syncthreads();
}

extern "C" __global__ void writes_behind_shared(float *x) { shared[4] = 1; }
extern "C" __global__ void reads_what_nobody_wrote(float *x) { x[0] = shared[1]; }
extern "C" __global__ void writes_before(float *x) { x[-1] = 1; }

extern "C" __global__ void all_arrive(unsigned *count, unsigned wanted)
{
    atomicAdd(count, 1u);
    WAIT_WHILE(*(volatile unsigned *)count < wanted);
}
"""


def kernel(name, cooperative=False):
    return RawModule(code=CODE, enable_cooperative_groups=cooperative).get_function(name)


def test_every_thread_of_every_block_runs_once():
    x = np.zeros(2 * 3 * 2 * 4 * 2 * 3, "int32")
    kernel("places")((2, 3, 2), (4, 2, 3), (x,))
    blocks, threads = np.divmod(np.arange(x.size), 4 * 2 * 3)
    np.testing.assert_array_equal(x, 1000 * blocks + threads)


@pytest.mark.parametrize("descending", [False, True])
def test_threads_of_a_block_meet(descending, monkeypatch):
    monkeypatch.setattr(RawModule, "descending", descending)
    x = np.arange(100, dtype="float32")
    kernel("mirrored")((1,), (100,), (x,), shared_mem=400)
    np.testing.assert_array_equal(x, np.arange(100)[::-1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half_meet", "thread 0 of block 0 waits in line .*, where not all come"),
        ("meet_elsewhere", "where not all come"),
        ("writes_behind_shared", "block 0 wrote 0 bytes behind the end of its shared memory"),
        ("writes_before", "argument 0: the kernel wrote before it"),
        ("missing", "there is no kernel missing"),
    ],
)
def test_what_is_wrong_in_a_kernel_is_said(name, message):
    with pytest.raises(LaunchError, match=message):
        kernel(name)((1,), (32,), (np.zeros(32, "float32"),), shared_mem=16)


def test_shared_memory_begins_as_nan():
    x = np.zeros(1, "float32")
    kernel("reads_what_nobody_wrote")((1,), (1,), (x,), shared_mem=16)
    assert np.isnan(x[0])


def test_blocks_wait_for_each_other_in_a_cooperative_launch_alone():
    kernel("all_arrive", True)((7,), (1,), (np.zeros(1, "uint32"), np.uint32(7)))
    for cooperative, wanted in ((False, 7), (True, 8)):
        with pytest.raises(LaunchError, match="every block that was started waits for another"):
            arguments = np.zeros(1, "uint32"), np.uint32(wanted)
            kernel("all_arrive", cooperative)((7,), (1,), arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3, "float64"), np.float32(1), 3), "argument 0: expected f4, got an array of f"),
        ((np.zeros(3, "float32"), 1.0, 3), "argument 1: expected f4, got f8"),
        ((np.zeros(3, "float32"), np.float32(1), np.int32(3)), "argument 2: expected i8, got i4"),
        ((3, np.float32(1), 3), "argument 0: expected an array, got int"),
        ((np.zeros(3, "float32"), np.float32(1)), "2 arguments for 3"),
    ],
)
def test_arguments_of_another_type_are_refused(arguments, message):
    with pytest.raises(LaunchError, match=message):
        kernel("add")((1,), (32,), arguments)


@pytest.mark.parametrize(
    ("cooperative", "grid", "block", "shared", "message"),
    [
        (False, (0,), (32,), 0, "a grid"),
        (False, (1,), (1025,), 0, "of blocks"),
        (False, (1,), (32,), (48 << 10) + 4, "49156 bytes of shared memory, 49152 at most"),
        (True, (MULTIPROCESSORS + 1,), (32,), 0, "cannot run side by side"),
    ],
)
def test_a_launch_that_a_device_refuses_is_refused(cooperative, grid, block, shared, message):
    arguments = np.zeros(3, "float32"), np.float32(1), 3
    with pytest.raises(LaunchError, match=message):
        kernel("add", cooperative)(grid, block, arguments, shared_mem=shared)


def test_more_shared_memory_is_asked_for():
    run, x = kernel("add"), np.zeros(3, "float32")
    run.max_dynamic_shared_size_bytes = SHARED_MEMORY
    run((1,), (32,), (x, np.float32(2), 3), shared_mem=SHARED_MEMORY)
    assert x.tolist() == [2, 2, 2]
    with pytest.raises(LaunchError, match="at most"):
        run.max_dynamic_shared_size_bytes = SHARED_MEMORY + 1


def test_arrays_may_share_memory_or_be_held_by_another_object():
    class Held:
        _values = np.zeros(6, "float32")

    kernel("add")((1,), (32,), (Held, np.float32(1), 6))
    kernel("add")((1,), (32,), (Held._values[2:4], np.float32(1), 2))
    assert Held._values.tolist() == [1, 1, 2, 2, 1, 1]
