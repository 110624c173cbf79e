"""Sums and rows of what lies on GPUs, and training on them, with a strict double of CuPy and NCCL.

A thread stands for a process with a GPU of its own.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest

from common import config
from common.data_parallel import DataParallelTrainer
from common.nccl import DeviceArrays, use_device
from common.np import np, to_cpu
from common.optimizer import Momentum
from common.processes import Processes
from common.trainer import RnnlmTrainer
from models import AwdRnnlm, BetterRnnlm
from tests import cupy_double
from tests.builders import H, close, generator, same


@pytest.fixture
def nccl(waits, monkeypatch):
    """Two GPUs and NCCL, as far as they are the double's; what the host waits for."""
    yield from with_nccl(waits, monkeypatch, available=True)


@pytest.fixture
def no_nccl(waits, monkeypatch):
    yield from with_nccl(waits, monkeypatch, available=False)


def with_nccl(waits, monkeypatch, available):
    cuda = sys.modules["cupy"].cuda
    monkeypatch.setattr(cuda.runtime, "getDeviceCount", lambda: 2)
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)
    finders = [cupy_double.Nccl(available), *sys.meta_path]
    monkeypatch.setattr(sys, "meta_path", finders)
    yield waits
    sys.modules.pop("cupy.cuda.nccl", None)


class Threads:
    """What ``Processes`` asks of a communicator of mpi4py, of threads that stand for processes."""

    def __init__(self, rank, values, barrier):
        self.rank, self.size = rank, len(values)
        self.values, self.barrier = values, barrier

    def allgather(self, value):
        self.values[self.rank] = value
        self.barrier.wait()
        everyone = list(self.values)
        self.barrier.wait()
        return everyone

    def bcast(self, value):
        return self.allgather(value)[0]


def on_gpus(number, work):
    """What ``work(processes)`` returns in each of so many processes with a GPU."""
    values, barrier = [None] * number, threading.Barrier(number)

    def process(rank):
        processes = object.__new__(Processes)  # without MPI
        processes.comm = Threads(rank, values, barrier)
        processes.rank, processes.size, processes.hosts = rank, number, ["a"] * number
        processes.device = None
        cupy_double.log().clear()
        try:
            return work(processes)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(process, range(number)))


# ---- sums and rows ----


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("number", [2, 3])
def test_a_sum_takes_the_place_of_what_was_added_and_the_host_waits_for_nothing(
    number, dtype, nccl
):
    def work(processes):
        array = np.arange(6, dtype=dtype).reshape(2, 3) * (processes.rank + 1)
        end = processes.begin_sum(array)
        end()
        return array

    arrays = on_gpus(number, work)
    assert nccl == []
    expected = numpy.arange(6, dtype=dtype).reshape(2, 3) * sum(range(number + 1))
    for array in arrays:
        same(array, expected)


@pytest.mark.usefixtures("nccl")
def test_before_the_end_of_a_sum_there_is_none():
    def work(processes):
        array = np.ones(3)
        end = processes.begin_sum(array)
        before = array.get().tolist()
        end()
        return before, array.get().tolist()

    for before, after in on_gpus(2, work):
        assert all(number != number for number in before)
        assert after == [2, 2, 2]


@pytest.mark.usefixtures("nccl")
def test_a_transfer_waits_for_what_was_computed_and_what_is_computed_next_for_the_transfer():
    def work(processes):
        ends = [processes.begin_sum(np.ones(size, dtype="float32")) for size in (3, 5)]
        for end in ends:
            end()
        return list(cupy_double.log())

    begin = [("computes", "record"), ("transfers", "wait")]
    for log in on_gpus(2, work):
        assert log == [
            *(*begin, ("transfers", "allReduce", 3, "float32"), ("transfers", "record")),
            *(*begin, ("transfers", "allReduce", 5, "float32"), ("transfers", "record")),
            *[("computes", "wait")] * 2,
        ]


@pytest.mark.parametrize("counts", [[2, 1], [1, 0, 3]])
def test_rows_lie_in_the_order_of_the_processes_and_the_host_waits_for_nothing(counts, nccl):
    def work(processes):
        own = np.full((counts[processes.rank], 2), processes.rank, dtype="float32")
        ids = np.full(counts[processes.rank], processes.rank)
        found = [processes.rows_of_all(array, counts) for array in (own, ids)]
        return found, list(cupy_double.log())

    everyone = on_gpus(len(counts), work)
    assert nccl == []
    ids = numpy.repeat(numpy.arange(len(counts)), counts)
    for (rows, all_ids), log in everyone:
        assert all_ids.get().tolist() == ids.tolist()
        assert rows.get().tolist() == numpy.stack([ids, ids], axis=1).tolist()
        assert (rows.dtype, all_ids.dtype) == ("float32", "int64")
        assert log[:3] == [
            *(("computes", "record"), ("transfers", "wait")),
            ("transfers", "broadcast", 2 * counts[0], "float32"),
        ]
        assert log[-2:] == [("transfers", "record"), ("computes", "wait")]


def test_a_transfer_that_did_not_wait_would_be_seen(nccl, monkeypatch):
    monkeypatch.setattr(DeviceArrays, "_after_what_was_asked", lambda self: None)
    with pytest.raises(AssertionError, match=r"^allReduce: the stream has not waited for what it"):
        on_gpus(1, lambda processes: processes.begin_sum(np.ones(3)))
    assert nccl == []


# ---- training ----

N, T = 5, 4
MODELS = {
    "BetterRnnlm": lambda V: BetterRnnlm(V, H, H, 0.4, 1, "float64"),
    "AwdRnnlm": lambda V: AwdRnnlm(V, H, H, 2, rng=1, dtype="float64"),
}


def trained(name, V, kind=RnnlmTrainer, **options):
    """Losses and weights after two epochs, on the CPU."""
    ids = generator(2).integers(0, V, N * 10 + 1)
    trainer = kind(MODELS[name](V), Momentum(0.5), rng=generator(3), **options)
    sizes = {"max_grad": 0.25, "eval_interval": None, "batch_size": N, "time_size": T}
    for _ in trainer.iterations(ids[:-1], ids[1:], 2, **sizes):
        pass
    losses = [record["loss"] for record in trainer.curve]
    return losses, [to_cpu(param) for param in trainer.model.params]


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("V", [7, 30])  # the table of an embedding travels, or its rows
@pytest.mark.parametrize("name", MODELS)
def test_several_gpus_learn_what_one_process_learns_here_and_wait_for_reports_alone(
    name, V, number, nccl, monkeypatch
):
    def work(processes):
        return trained(name, V, DataParallelTrainer, processes=processes)

    there = on_gpus(number, work)
    assert nccl.count("float") == 3 * number  # the first iteration and both ends of an epoch
    assert set(nccl) == {"float", "get"}  # of the weights, at the end
    monkeypatch.setattr(config, "GPU", False)
    losses, weights = trained(name, V)
    for losses_there, weights_there in there:
        assert losses_there == pytest.approx(losses, rel=1e-9)
        for on_device, on_cpu in zip(weights_there, weights, strict=True):
            close(on_device, on_cpu, 1e-9)


# ---- what is missing ----


@pytest.mark.usefixtures("nccl")
def test_each_process_of_a_machine_has_a_gpu_of_its_own():
    try:
        use_device(1, 2)
        assert np.cuda.Device().id == 1
    finally:
        np.cuda.Device(0).use()


@pytest.mark.usefixtures("nccl")
def test_fewer_gpus_than_processes_are_an_error():
    with pytest.raises(
        RuntimeError, match=r"^expected a GPU for each process, got 3 processes on a machine of 2$"
    ):
        use_device(0, 3)


@pytest.mark.usefixtures("no_nccl")
def test_without_nccl_the_error_says_what_to_install():
    with pytest.raises(RuntimeError, match=r"^several GPUs need NCCL.*nvidia-nccl-cu12.*-cu13"):
        DeviceArrays(0, 1, lambda value: value)
