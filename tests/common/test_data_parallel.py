"""Training on P processes is training on one: weights, averages, states, losses, checkpoints.

Each number of processes is started once, by a fixture; they do ``everything`` beside the same work
in one process, and say how far the two are apart.
"""

import copy
import math
import os
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest

from common import data_parallel
from common.averaging import WeightAverage
from common.cells.min_gru import MinGRU
from common.data_parallel import DataParallelTrainer, differing_weights, share_cores
from common.files.tensors import read_checkpoint, write_checkpoint
from common.kernels.passes import add_rows
from common.masks import Masks
from common.np import memory_address
from common.optimizer import Momentum, UniqueParameters
from common.processes import Processes
from common.time_layers import TimeDropout
from common.trainer import RnnlmTrainer
from models import AwdRnnlm, BetterRnnlm, Rnnlm, SimpleRnnlm
from models.char_rnn import CharRnn
from models.language_model import LanguageModel
from models.memory import ConcatReciter, Reciter
from tests.builders import generator, same, snapshot
from tests.mpi import needs_mpi, on_processes

N, T, D, H = 7, 5, 4, 6  # neither 2 nor 3 divides N
COLUMNS = 23  # of an epoch: windows of 5, 5, 5, 5 and 3 steps
FEW, MANY = 11, 60  # words: with more than N T the rows of an embedding travel, not the table
SIZES = {"batch_size": N, "time_size": T, "max_grad": 0.2, "eval_interval": 2}
EQUAL, OTHER = 1e-10, 1e-6  # at most, at least


def awd_rnnlm(V, dtype, **options):
    places = ["embed_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_drop"]
    ratios = dict.fromkeys(places, 0.3)
    return AwdRnnlm(V, D, H, 2, alpha=2.0, beta=1.0, rng=1, dtype=dtype, **ratios, **options)


MODELS = {
    "SimpleRnnlm": lambda V, dtype: SimpleRnnlm(V, D, H, 1, dtype),
    "Rnnlm": lambda V, dtype: Rnnlm(V, D, H, 1, dtype),
    "Rnnlm of GRUs": lambda V, dtype: Rnnlm(V, D, H, 1, dtype, cell="gru", num_layers=2),
    "Rnnlm sparse": lambda V, dtype: Rnnlm(V, D, H, 1, dtype, sparse=True),
    "Rnnlm of a cell": lambda V, dtype: Rnnlm(V, D, H, 1, dtype, cell=MinGRU),
    "BetterRnnlm": lambda V, dtype: BetterRnnlm(V, H, H, 0.4, 1, dtype),
    "BetterRnnlm untied": lambda V, dtype: BetterRnnlm(V, D, H, 0.4, 1, dtype, tied=False),
    "AwdRnnlm": awd_rnnlm,
    "AwdRnnlm of GRUs": lambda V, dtype: awd_rnnlm(V, dtype, cell="gru"),
    "AwdRnnlm with projection": lambda V, dtype: awd_rnnlm(V, dtype, projection=True),
    "AwdRnnlm with sampled classes": lambda V, dtype: awd_rnnlm(V, dtype, sampled_classes=4),
    "AwdRnnlm with adaptive softmax": lambda V, dtype: awd_rnnlm(V, dtype, cutoffs=(3, 7)),
    "BetterRnnlm with adaptive softmax untied": lambda V, dtype: BetterRnnlm(
        V, D, H, 0.4, 1, dtype, tied=False, cutoffs=(3, 7)
    ),
    "CharRnn": lambda V, dtype: CharRnn(V, H, rng=1, dtype=dtype),
    "Reciter": lambda V, dtype: Reciter(V, H, "lstm", rng=1, dtype=dtype),
    "ConcatReciter": lambda V, dtype: ConcatReciter(V, H, "gru", "squared", rng=1, dtype=dtype),
}

RANDOM = {"random_offset": True, "random_sizes": True}
FIXED = {"fits": [{}, {}], "bucket": 1}  # a sum for every layer
WAYS = {
    "one sum for all layers": {"fits": [{}, {}]},
    "random windows": {"fits": [RANDOM, RANDOM]},
    "windows that grow": {"fits": [{}, {"time_size": 13}]},
    "windows that shrink": {"fits": [{"time_size": 13}, {}]},
    "ignored targets": {**FIXED, "ignored": True},
    "an average": {**FIXED, "decay": None},
    "an exponential average": {**FIXED, "decay": 0.9},
    "no clipping": {"fits": [{"max_grad": None}] * 2},
    "sums at the end of the backward pass": {**FIXED, "overlap": False},
}
CASES = {
    **{f"{name}, {V} words": (name, V, FIXED) for name in MODELS for V in (FEW, MANY)},
    **{
        f"{name}, {V} words, {way}": (name, V, settings)
        for way, settings in WAYS.items()
        for name in ("BetterRnnlm", "AwdRnnlm")
        for V in (FEW, MANY)
    },
    **{
        f"Rnnlm sparse, {V} words, {way}": ("Rnnlm sparse", V, WAYS[way])
        for way in ("an average", "an exponential average", "windows that grow")
        for V in (FEW, MANY)
    },
}

# What would be wrong without a line of the product, and a case that must show it.
FAULTS = {
    "masks by the number in the process": (
        lambda: patch.object(
            Masks, "first_stream", property(lambda self: 0, lambda self, first: None), create=True
        ),
        f"AwdRnnlm, {FEW} words",
    ),
    "shares by streams where targets are ignored": (
        lambda: patch.object(data_parallel, "num_counted", lambda model, ts: ts.size),
        f"BetterRnnlm, {FEW} words, ignored targets",
    ),
    "penalties that count P times": (
        lambda: patch.object(
            LanguageModel,
            "backward_by_layer",
            lambda self, dout, _, real=LanguageModel.backward_by_layer: real(self, dout, 1.0),
        ),
        f"AwdRnnlm, {FEW} words",
    ),
    "no sum": (
        lambda: patch.object(Processes, "begin_sum", lambda self, array: lambda: None),
        f"Rnnlm, {FEW} words",
    ),
    "rows that do not travel": (
        lambda: patch.object(DataParallelTrainer, "_add_rows_of_all", staticmethod(add_rows)),
        f"Rnnlm, {MANY} words",
    ),
    "rows of a gradient of rows that do not travel": (
        lambda: patch.object(DataParallelTrainer, "_add_rows_of_all", staticmethod(add_rows)),
        f"Rnnlm sparse, {FEW} words",
    ),
    "rows of a tied weight that do not travel": (
        lambda: patch.object(DataParallelTrainer, "_add_rows_of_all", staticmethod(add_rows)),
        f"BetterRnnlm, {MANY} words",
    ),
}


# ---- what every process does ----


def silent(record):
    pass


def text(V, columns=COLUMNS, ignored=False):
    """Ids, and the ids that follow; with ``ignored`` many of these are -1."""
    ids = generator(2).integers(0, V, N * columns + 1)
    xs, ts = ids[:-1], ids[1:].copy()
    if ignored:
        ts[: 3 * columns] = -1  # all that the first of three processes has
        ts[3 * columns : 5 * columns : 3] = -1
    return xs, ts


def trainer_of(name, V, processes=None, dtype="float64", **options):
    """On all processes, or on this one alone."""
    options |= {"on_record": silent, "rng": generator(3)}
    model, optimizer = MODELS[name](V, dtype), Momentum(0.5)
    if processes is None:
        return RnnlmTrainer(model, optimizer, **options)
    return DataParallelTrainer(model, optimizer, processes=processes, **options)


def trained(name, V, settings, processes=None):
    """The trainer after its fits of one epoch each."""
    trainer = trainer_of(name, V, processes)
    if "decay" in settings:
        unique = UniqueParameters(trainer.model.params, trainer.model.grads)
        trainer.average = WeightAverage(unique.params, settings["decay"])
    if processes is not None:
        trainer.overlap = settings.get("overlap", True)
    xs, ts = text(V, ignored=settings.get("ignored", False))
    with patch.object(data_parallel, "BUCKET", settings.get("bucket", data_parallel.BUCKET)):
        for changed in settings["fits"]:
            for _ in trainer.iterations(xs, ts, 1, **{**SIZES, **changed}):
                pass
    return trainer


def kept(trainer):
    """Its ``state_dict`` without what a clock says."""
    state = trainer.state_dict()
    state["progress"].pop("seconds")
    losses = [[record["step"], record["loss"]] for record in trainer.curve]
    return {**state, "curve": losses}


def distance(a, b):
    """The largest difference of two numbers of two states; infinite where something else differs.

    A state that was read from a file has lists for tuples.
    """
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return math.inf
        a, b = list(a.values()), [b[key] for key in a]
    if isinstance(a, list | tuple):
        parts = [distance(*pair) for pair in zip(a, b, strict=True)]
        return float(np.max(parts, initial=0.0))  # NaN if one is
    if isinstance(a, str | None):
        return 0.0 if a == b else math.inf
    a, b = np.asarray(a, dtype="float64"), np.asarray(b, dtype="float64")
    return float(np.max(abs(a - b), initial=0.0)) if a.shape == b.shape else math.inf


def distances(processes):
    """How far each case is from that of one process."""
    found = {}
    for case, settings in CASES.items():
        alone = processes.from_first(partial(lambda how: kept(trained(*how)), settings))
        found[case] = distance(kept(trained(*settings, processes)), alone)
    return found


def distances_with_faults(processes):
    """The same of the weights, with something wrong."""
    found = {}
    for fault, (patched, case) in FAULTS.items():
        expected = snapshot(trained(*CASES[case]).model)
        with patched():
            found[fault] = distance(snapshot(trained(*CASES[case], processes).model), expected)
    return found


def losses(processes=None):
    """Of 100 iterations in float32."""
    trainer = trainer_of("BetterRnnlm", FEW, processes, "float32")
    for _ in trainer.iterations(*text(FEW, 20 * T), 5, **{**SIZES, "eval_interval": 1}):
        pass
    return [record["loss"] for record in trainer.curve]


def losses_in_float32(processes):
    """On all processes, and on one."""
    return losses(processes), processes.from_first(losses)


STOPS = {2: 3, 3: 7}  # the number of processes that stop after so many iterations of two epochs


def of_chain(processes=None):
    """A trainer of everything that a state holds."""
    trainer = trainer_of("AwdRnnlm", MANY, processes)
    trainer.average = WeightAverage(trainer.model.params)
    return trainer


def go_on(trainer, stop=None):
    """Up to iteration ``stop``, or to the end of the second epoch."""
    for _ in trainer.iterations(*text(MANY), 2 - trainer.epoch, **SIZES, **RANDOM):
        if trainer.iteration == stop:
            break
    return trainer


def chain(processes, folder):
    """Go on from what fewer processes have left, and leave a state for more.

    Returns:
        How far off the state is before the first iteration, then, and at the end of the run.
    """
    trainer, stop = of_chain(processes), STOPS[processes.size]
    begun = distance(kept(trainer), kept(of_chain()))
    if processes.size == 3:
        trainer.load_state_dict(read_checkpoint(f"{folder}/2"))
    state = go_on(trainer, stop).state_dict()
    if processes.first:
        write_checkpoint(f"{folder}/{processes.size}", state)
    stopped = distance(kept(trainer), kept(go_on(of_chain(), stop)))
    return begun, stopped, distance(kept(go_on(trainer)), kept(go_on(of_chain())))


def error_of(function, *arguments):
    """What a ValueError or a RuntimeError says; empty where there is none."""
    try:
        function(*arguments)
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


def fitted(processes):
    """How far ``fit`` is from that of one process, or why it fails."""
    trainers = [trainer_of("Rnnlm", FEW, where) for where in (processes, None)]
    try:
        for trainer in trainers:
            trainer.fit(*text(FEW), 2, N, T, 0.2, 2, random_sizes=True)
    except TypeError as error:
        return str(error)
    return distance(*map(kept, trainers))


def spoilt(processes):
    """What is said of weights: before, after one of the last process was changed, on saving."""
    trainer = trainer_of("BetterRnnlm", FEW, processes)
    before = differing_weights(trainer.model, processes)
    if processes.rank == processes.size - 1:
        trainer.model.params[2][1] += 1e-15
    after = differing_weights(trainer.model, processes)
    return before, after, error_of(trainer.state_dict)


def too_few_streams(processes):
    """The error."""
    trainer = trainer_of("Rnnlm", FEW, processes)
    return error_of(next, trainer.iterations(*text(FEW), 1, processes.size - 1, T))


def not_finite_in_the_last(processes, on_nan):
    """A trainer after one iteration, whose last process has a state that is not finite."""
    trainer = trainer_of("Rnnlm", FEW, processes, on_nan=on_nan)
    iterations = trainer.iterations(*text(FEW), 1, N, T)
    next(iterations)
    if processes.rank == processes.size - 1:
        (state,) = trainer.model.get_state()
        trainer.model.set_state([tuple(np.full_like(array, np.nan) for array in state)])
    return trainer, iterations


def skipping(processes):
    """What the next iteration leaves, and whether the one after it is as usual."""
    trainer, iterations = not_finite_in_the_last(processes, "skip")
    before = snapshot(trainer.model)
    next(iterations)
    after = {
        "skipped": trainer.skipped,
        "weights have changed": distance(before, snapshot(trainer.model)) > 0,
        "has a state": trainer.model.get_state() != [None],
    }
    next(iterations)
    differing = differing_weights(trainer.model, processes)
    return {**after, "skipped in all": trainer.skipped, "differing weights": differing}


def stopping(processes):
    """The error."""
    _, iterations = not_finite_in_the_last(processes, "stop")
    return error_of(next, iterations)


def owner(array):
    """The array whose memory it is."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return id(array)


def memory_of_gradients(processes):
    """In how many arrays the gradients lie, before and after; whether those that were one are."""
    trainer = trainer_of("BetterRnnlm", FEW, processes)
    before = {owner(grad) for grad in trainer.model.grads}
    next(trainer.iterations(*text(FEW), 1, N, T))
    after = {owner(grad) for grad in trainer.model.grads}
    ends = trainer.model.layers[0], trainer.model.layers[-1]
    (first,), (last, _) = (layer.grads for layer in ends)
    return len(before), len(after), memory_address(first) == memory_address(last)


def order_of_sums(processes):
    """What one backward pass does, in order."""
    trainer, order = trainer_of("Rnnlm", FEW, processes), []
    begin_sum = processes.begin_sum

    def noted(what, function, *arguments):
        order.append(what)
        return function(*arguments)

    for layer in [*trainer.model.layers[:-1], trainer.model.loss_layer]:
        layer.backward = partial(noted, type(layer).__name__, layer.backward)
    with (
        patch.object(data_parallel, "BUCKET", 1),
        patch.object(processes, "begin_sum", partial(noted, "sum", begin_sum)),
    ):
        next(trainer.iterations(*text(FEW), 1, N, T))
    return order


def copied(processes):
    """What a copy of a model says that was trained here: its loss, or why there is none."""
    model = trained("Rnnlm", MANY, FIXED, processes).model
    xs = ts = np.zeros((2, 3), dtype=int)
    try:
        other = copy.deepcopy(model)
        other.reset_state()
        return float(other.forward(xs, ts))
    except TypeError as error:
        return str(error)


MACHINES = {  # and the cores that each process may use
    "one machine": [("a", 8), ("a", 8), ("a", 8)],
    "2 machines": [("a", 8), ("b", 4), ("b", 4)],
}


def threads(processes):
    """What is said of all, and how many threads are used, on such machines."""
    found = {}
    for name, machines in MACHINES.items():
        hosts = [host for host, _ in machines[: processes.size]]
        cores, used = set(range(machines[processes.rank][1])), []
        with (
            patch.object(processes, "hosts", hosts),
            patch.object(os, "sched_getaffinity", lambda _, cores=cores: cores, create=True),
            patch.object(data_parallel, "threads_are_named", lambda: False),
            patch.object(data_parallel, "use_threads", used.append),
        ):
            found[name] = [share_cores(processes, N)[0], *used]
    return found


def computing_otherwise(processes):
    """What is said of each process, and the error where the last one has another NumPy."""
    version = "0.1" if processes.rank == processes.size - 1 else np.__version__
    lines = share_cores(processes, N)[1:]
    with patch.object(np, "__version__", version):
        return lines, error_of(share_cores, processes, N)


def everything(processes, folder):
    """What each of these finds, by its name."""
    work = (
        *(distances, distances_with_faults, losses_in_float32, fitted, spoilt, too_few_streams),
        *(skipping, stopping, memory_of_gradients, order_of_sums, copied),
        *(threads, computing_otherwise),
    )
    found = {function.__name__: function(processes) for function in work}
    return {**found, "chain": chain(processes, folder), "host": processes.hosts[0]}


# ---- and what is expected of it ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the states of the chain lie."""
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def two(folder):
    return on_processes(2, everything, str(folder))


@pytest.fixture(scope="module")
def three(folder, two):  # they go on from what two have left
    return on_processes(3, everything, str(folder))


@pytest.fixture(params=["two", "three"])
def found(request):
    """What each of the processes has found."""
    return request.getfixturevalue(request.param)


def on_several(test):
    """Marks of a test that starts processes."""
    return pytest.mark.slow(needs_mpi(test))


@on_several
@pytest.mark.parametrize("case", CASES)
def test_everything_that_is_kept_of_a_run_is_that_of_a_run_on_one(case, found):
    for process in found:
        assert process["distances"][case] < EQUAL


@on_several
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_would_be_seen(fault, found):
    assert max(process["distances_with_faults"][fault] for process in found) > OTHER


@on_several
def test_fit_is_that_of_one_process(found):
    for process in found:
        assert process["fitted"] == pytest.approx(0, abs=EQUAL)


@on_several
def test_the_losses_of_100_iterations_in_float32_are_close(found):
    for process in found:
        together, alone = process["losses_in_float32"]
        assert len(together) == 100
        assert together == pytest.approx(alone, rel=1e-5)
        assert len(set(together)) > 90


@on_several
def test_a_run_goes_on_from_the_state_of_another_number_of_processes(found):
    for process in found:
        assert max(process["chain"]) < EQUAL


@on_several
@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("number", [2, 3])
def test_a_run_on_one_process_goes_on_from_the_state_of_several(number, folder):
    state = read_checkpoint(folder / str(number))
    assert state["trainer"] == "RnnlmTrainer"
    for arrays in state["model"]["recurrent"]:
        assert {len(array) for array in arrays} == {N}
    trainer = of_chain()
    trainer.load_state_dict(state)
    assert trainer.iteration == STOPS[number]
    assert distance(kept(go_on(trainer)), kept(go_on(of_chain()))) < EQUAL


@on_several
def test_weights_that_differ_are_named_with_their_process_and_not_saved(found):
    P = len(found)
    said = f"the weights of process {P} of {P} are not those of the first: lstm1.Wh"
    for process in found:
        assert process["spoilt"] == ["", said, f"DataParallelTrainer: {said}"]


@on_several
def test_fewer_streams_than_processes_are_refused(found):
    P = len(found)
    said = f"expected a stream or more for each of {P} processes, got a batch of {P - 1}"
    assert [process["too_few_streams"] for process in found] == [said] * P


@on_several
def test_what_is_not_finite_in_one_process_is_skipped_by_all_and_all_begin_from_zeros(found):
    for process in found:
        assert process["skipping"] == {
            "skipped": 1,
            "weights have changed": False,
            "has a state": False,
            "skipped in all": 1,
            "differing weights": "",
        }


@on_several
def test_what_is_not_finite_in_one_process_stops_all(found):
    for process in found:
        assert process["stopping"].startswith(
            "DataParallelTrainer: the loss is nan at iteration 2 of epoch 1, first in "
        )


@on_several
def test_all_gradients_lie_in_one_memory_and_a_tie_is_kept(found):
    for process in found:
        assert process["memory_of_gradients"] == [8, 1, True]


@on_several
def test_a_sum_begins_while_the_layers_below_still_work(found):
    for process in found:
        assert process["order_of_sums"] == [
            *("sum", "TimeOutputWithLoss"),  # of the loss, which is known before
            *("sum", "TimeLSTM", "sum", "TimeEmbedding", "sum"),
        ]


@on_several
def test_a_model_that_has_learned_on_several_can_be_copied(found):
    for process in found:
        assert process["copied"] == pytest.approx(math.log(MANY), rel=0.5)


@on_several
def test_processes_share_the_cores_of_their_machine_and_all_use_as_many_threads(found):
    P = len(found)
    for process in found:
        assert process["threads"] == {
            where: [f"7 streams on {P} processes, {where}", {2: 4, 3: 2}[P]] for where in MACHINES
        }


@on_several
def test_each_process_has_its_streams_and_must_compute_like_the_first(found):
    P, host = len(found), found[0]["host"]
    streams = {2: ["0 to 3", "4 to 6"], 3: ["0 to 2", "3 to 4", "5 to 6"]}[P]
    lines, error = found[0]["computing_otherwise"]
    assert lines == [
        f"process {k} on {host}: streams {at}, threads: 1" for k, at in enumerate(streams, 1)
    ]
    assert error.startswith(f"process {P} of {P} on {host} computes with NumPy 0.1, the first with")
    for process in found:
        assert process["computing_otherwise"] == [lines, error]


# ---- in one process ----


def addresses(model):
    """Of the gradients of all layers."""
    return [memory_address(grad) for layer in model.layers for grad in layer.grads]


@pytest.mark.parametrize("V", [FEW, MANY])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_written_into_other_arrays_and_ties_are_kept(name, V):
    model, twin = (MODELS[name](V, "float64") for _ in range(2))
    before = addresses(model)
    arrays = [np.full_like(grad, np.nan) for grad in model.grads]
    model.replace_gradients(arrays)
    assert all(grad is array for grad, array in zip(model.grads, arrays, strict=True))
    xs, ts = (ids.reshape(N, -1)[:, :T] for ids in text(V))
    for one in (model, twin):
        one.forward(xs, ts)
        one.backward()
    for array, expected in zip(arrays, twin.grads, strict=True):
        same(array, expected)
    now = addresses(model)
    assert [now.index(at) for at in now] == [before.index(at) for at in before]


def test_gradients_of_another_number_or_shape_are_refused():
    model = MODELS["Rnnlm"](FEW, "float64")
    before = list(model.grads)
    for wrong in (before[1:], [before[0].T, *before[1:]]):
        with pytest.raises(ValueError, match=r"^Rnnlm\.replace_gradients: expected an array for"):
            model.replace_gradients(wrong)
    assert all(a is b for a, b in zip(model.grads, before, strict=True))


def test_a_gradient_of_rows_above_the_lowest_layer_is_refused():
    model = Rnnlm(FEW, D, H, 1, sparse=True)
    model.layers.insert(0, TimeDropout(0.5))
    trainer = DataParallelTrainer(model, Momentum(), processes=None)
    with pytest.raises(TypeError, match=r"of an embedding below .* got one of TimeEmbedding\(W"):
        trainer._lay_out(N * T)


class AnotherWay(Rnnlm):
    """Goes back by a rule of its own, which layer by layer would leave out."""

    def backward(self, dout=1):
        super().backward(2 * dout)


def test_a_model_that_goes_back_another_way_is_refused():
    with pytest.raises(TypeError, match="AnotherWay has another backward"):
        DataParallelTrainer(AnotherWay(FEW, D, H, 1), Momentum(), processes=None)
