"""What the processes of a run tell each other, and how they end."""

import platform
import sys
import types

import numpy as np
import pytest

from common.processes import connected
from tests.mpi import call, needs_mpi, on_processes

# ---- what every process does ----


def shares(processes):
    """Of 7 streams: how many each has, and which are this one's; the error for too few."""
    rows = processes.rows(7)
    try:
        processes.rows(processes.size - 1)
    except ValueError as error:
        return processes.shares(7), [rows.start, rows.stop], str(error)
    return []


def from_first(processes):
    """What the first makes, and how often it was made here."""
    made = []

    def make():
        made.append(processes.rank)
        return {"rank": processes.rank}

    return processes.from_first(make), len(made)


def numbers(processes):
    """The highest of three, in which each process is the highest once."""
    mine = [float(processes.rank == k) for k in range(3)]
    return processes.highest(*mine, -processes.rank)


def sums(processes):
    """Two sums that are begun and waited for in another order, in each of two dtypes."""
    found = []
    for dtype in ("float32", "float64"):
        few, many = np.full(2, processes.rank, dtype), np.arange(100_000, dtype=dtype)
        ends = [processes.begin_sum(array) for array in (few, many)]
        for end in reversed(ends):
            end()
        found.append([few.tolist(), many[[0, 1, -1]].tolist(), str(many.dtype)])
    return found


def rows(processes):
    """As many rows of each process as its number, none of the first; then a number of each."""
    counts = list(range(processes.size))
    own = np.full((processes.rank, 2), processes.rank, "float32")
    ids = np.full(processes.rank + 1, processes.rank)
    below = processes.rows_of_all(own, counts)
    all_ids = processes.rows_of_all(ids, [count + 1 for count in counts])
    return below.tolist(), str(below.dtype), all_ids.tolist(), str(all_ids.dtype)


def copies(processes):
    """Arrays of every order in memory, filled with those of the first."""
    whole, wide = np.zeros((2, 3)), np.zeros((4, 4), "float32")
    arrays = [whole, whole.copy("F"), wide.T[1:3], np.array(0)]
    if processes.first:
        for k, array in enumerate(arrays):
            array[...] = np.arange(array.size).reshape(array.shape) + k
    processes.copy_first(arrays)
    beside = wide[:, [0, 3]]  # of the view
    return [array.tolist() for array in arrays], beside.any().item()


def everything(processes):
    """What each of these finds, by its name."""
    work = (shares, from_first, numbers, sums, rows, copies)
    found = {function.__name__: function(processes) for function in work}
    found["of_all"] = processes.of_all(["process", processes.rank])
    names = ("rank", "size", "first", "local", "num_local")
    return {**found, **{name: getattr(processes, name) for name in names}}


# ---- and what is expected of it ----


@pytest.fixture(scope="module", params=[2, 3])
def found(request):
    """What each of the processes has found."""
    return on_processes(request.param, everything)


@needs_mpi
def test_each_process_knows_its_number_and_that_of_its_machine(found):
    P = len(found)
    assert [process["rank"] for process in found] == list(range(P))
    assert [process["local"] for process in found] == list(range(P))
    assert {(process["size"], process["num_local"]) for process in found} == {(P, P)}
    assert [process["first"] for process in found] == [True, *[False] * (P - 1)]


@needs_mpi
def test_the_first_processes_have_a_stream_more_where_the_number_does_not_divide(found):
    P = len(found)
    numbers, own = {
        2: ([4, 3], [[0, 4], [4, 7]]),
        3: ([3, 2, 2], [[0, 3], [3, 5], [5, 7]]),
    }[P]
    error = f"expected a stream or more for each of {P} processes, got a batch of {P - 1}"
    assert [process["shares"] for process in found] == [[numbers, rows, error] for rows in own]


@needs_mpi
def test_what_the_first_makes_is_made_there_alone(found):
    made = [process["from_first"] for process in found]
    assert made == [[{"rank": 0}, int(rank == 0)] for rank in range(len(found))]


@needs_mpi
def test_numbers_of_all_are_there_in_all(found):
    P = len(found)
    ones = [float(k < P) for k in range(3)]
    for process in found:
        assert process["of_all"] == [["process", rank] for rank in range(P)]
        assert process["numbers"] == [*ones, 0]


@needs_mpi
def test_sums_take_the_place_of_what_was_added(found):
    P = len(found)
    few, many = [sum(range(P))] * 2, [0, P, 99_999 * P]
    for process in found:
        assert process["sums"] == [[few, many, dtype] for dtype in ("float32", "float64")]


@needs_mpi
def test_rows_lie_below_each_other_in_the_order_of_the_processes(found):
    below, ids = {
        2: ([[1, 1]], [0, 1, 1]),
        3: ([[1, 1], [2, 2], [2, 2]], [0, 1, 1, 2, 2, 2]),
    }[len(found)]
    for process in found:
        assert process["rows"] == [below, "float32", ids, "int64"]


@needs_mpi
def test_arrays_of_any_order_are_filled_with_those_of_the_first(found):
    for process in found:
        arrays, has_changed_beside = process["copies"]
        assert arrays == [
            *([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]]),
            *([[2, 3, 4, 5], [6, 7, 8, 9]], 3),
        ]
        assert not has_changed_beside


# ---- the end ----


def one_gives_up(processes, rank):
    """One process ends all; the others would wait for ever."""
    if processes.rank == rank:
        processes.end(7, "error: no more")
    processes.wait()


def all_give_up(processes):
    processes.end(7, "error: no more")


@needs_mpi
@pytest.mark.slow
def test_a_process_that_gives_up_says_who_it_is_and_ends_all():
    message = f"process 2 of 3 on {platform.node()}: error: no more\n"
    assert call(3, one_gives_up, 1) == (7, "", message)


@needs_mpi
@pytest.mark.slow
def test_what_the_first_process_has_to_say_is_an_ordinary_message():
    assert call(2, one_gives_up, 0) == (7, "", "error: no more\n")


@needs_mpi
@pytest.mark.slow
def test_an_error_of_all_is_told_once():
    assert call(3, all_give_up) == (7, "", "error: no more\n")


# ---- errors before there are processes ----


@pytest.fixture
def library(monkeypatch):
    """An mpi4py that has found two processes."""
    module = types.ModuleType("mpi4py")
    module.MPI = types.SimpleNamespace(
        COMM_WORLD=types.SimpleNamespace(size=2),
        Get_library_version=lambda: "Some MPI 5.0 \n of some day",
    )
    monkeypatch.setitem(sys.modules, "mpi4py", module)


def test_without_mpi4py_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    message = r'^2 processes were started, but mpi4py cannot be used .*install "time-layers\[mpi\]"'
    with pytest.raises(RuntimeError, match=message):
        connected(2)


@pytest.mark.usefixtures("library")
def test_processes_of_another_launcher_do_not_find_each_other():
    message = (
        r"^4 processes were started, but they do not find each other: the launcher is not that of "
        r"Some MPI 5\.0, with which mpi4py works$"
    )
    with pytest.raises(RuntimeError, match=message):
        connected(4)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("patience", ["0", "-1", "nan", "soon", ""])
def test_a_patience_that_is_no_time_is_refused(patience, monkeypatch):
    monkeypatch.setenv("TIMELAYERS_PATIENCE", patience)
    with pytest.raises(ValueError, match=rf"^TIMELAYERS_PATIENCE: .* above 0, got '{patience}'$"):
        connected(2)
