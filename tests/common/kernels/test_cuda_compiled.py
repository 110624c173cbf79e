"""Every CUDA kernel compiled for real architectures, without a device: what it needs is bounded."""

import pytest

from common.kernels import device
from tests.cuda_on_cpu import nvrtc

needs_nvrtc = pytest.mark.skipif(
    nvrtc.library() is None,
    reason="the wheel nvidia-cuda-nvrtc (time-layers[cuda-check]) is missing",
)
# The last two are CuPy's.
OPTIONS = (*device.OPTIONS, "-ftz=true", "--device-as-default-execution-space")
ARCHITECTURES = [75, 80, 90]
REGISTERS = 65536  # of a multiprocessor
WINDOWS = [f"{cell}_window_{way}" for cell in ("lstm", "gru") for way in ("forward", "backward")]


def compiled(text, architecture):
    if architecture not in nvrtc.architectures():
        pytest.skip(f"this NVRTC does not compile for sm_{architecture}")
    return nvrtc.resources(nvrtc.cubin(text, architecture, OPTIONS))


@needs_nvrtc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", device.FILES)
def test_no_kernel_spills_a_register(file, architecture, record_property):
    found = compiled(device.source(file), architecture)
    assert set(found) == set(kernels_of(file))
    for name, needs in found.items():
        record_property(f"{name} sm_{architecture}", str(needs))
        print(f"sm_{architecture} {name}: {needs}")
        assert needs.stack == 0
        assert needs.shared <= 1024  # what the system keeps for itself from sm_80 on
        if name in WINDOWS:  # one block with all its threads fills a multiprocessor
            assert 0 < needs.registers <= REGISTERS // device.THREADS
        else:  # eight blocks
            assert 0 < needs.registers <= REGISTERS // (8 * device.BLOCK)


def kernels_of(file):
    """The names of the kernels in that file."""
    pieces = device.source(file).split('extern "C" __global__ void ')[1:]
    return [piece.removeprefix("__launch_bounds__(THREADS) ").split("(")[0] for piece in pieces]


@needs_nvrtc
def test_a_spilled_register_would_be_seen():
    text = """
    extern "C" __global__ void __launch_bounds__(1024, 2) spills(volatile float *x)
    {
        float kept[64], sum = 0;
    #pragma unroll
        for (int i = 0; i < 64; i++) kept[i] = x[i];
    #pragma unroll
        for (int i = 0; i < 64; i++) sum = sum * kept[i] + kept[63 - i];
        x[0] = sum;
    }
    """  # 64 numbers at once, and 32 registers for each of two times 1,024 threads
    (needs,) = compiled(text, 80).values()
    assert needs.registers <= 32
    assert needs.stack >= 4 * 32


@needs_nvrtc
def test_what_the_compiler_says_is_passed_on():
    with pytest.raises(RuntimeError, match=r"sm_80: .*\n.*identifier \"missing\" is undefined"):
        compiled('extern "C" __global__ void k(float *x) { *x = missing; }', 80)
