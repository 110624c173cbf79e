"""Both rivals do the same work as this project, and the numbers about it are right."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from common.gates import LSTM_GATES, TORCH_LSTM_GATES, reorder_gates
from common.tying import UniqueParameters

from common.util import eval_perplexity, eval_perplexity_exact
from train.benchmark import book, ours, speed
from train.benchmark.corpus import read_ids
from train.benchmark.cost import Curve, fitted_exponent
from train.benchmark.figure import draw
from train.benchmark.floor import matrix_peak, step_flops
from train.benchmark.ids import Ids, training_chunk
from train.benchmark.report import Report
from train.benchmark.workers import Result, Worker, measure_memory
from train.benchmark.works import MEMORY, TIMED, Sizes

SMALL = Sizes(N=3, T=5, D=4, H=6, V=11)
LARGE = Sizes("BetterRnnlm", N=3, T=5, D=6, H=6, V=11)
BOTH = pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=lambda sizes: sizes.model)


def some_ids(V=11):
    rng = np.random.default_rng(2)
    return Ids(rng.integers(0, V, 400, dtype="int32"), rng.integers(0, V, 800, dtype="int32"), 3, V)


def model_of(sizes, dtype):
    """This project's model with weights far from zero, where errors would show."""
    model = ours.build_model(sizes, dtype)
    rng = np.random.default_rng(3)
    for param in model.params:
        param[...] = 0.5 * rng.standard_normal(param.shape)
    return model


def two_windows(sizes):
    rng = np.random.default_rng(4)
    return [rng.integers(0, sizes.V, (2, sizes.N, sizes.T)) for _ in range(2)]


@pytest.fixture
def rival():
    """PyTorch's side; the number of threads is left as it was."""
    torch = pytest.importorskip("torch", reason="the rival is PyTorch")
    from train.benchmark import rival

    threads = torch.get_num_threads()
    yield rival
    torch.set_num_threads(threads)
    torch.backends.mkldnn.enabled = True


class TestFloor:
    def test_operations_of_a_small_step_counted_by_hand(self):
        sizes = Sizes(N=2, T=3, D=5, H=7, V=11)
        forward = (
            6 * 5 * 28  # x Wx: 6 rows, D = 5, 4 H = 28
            + 6 * 7 * 28  # h Wh
            + 6 * 7 * 11  # output
        )
        assert step_flops(sizes) == 3 * 2 * forward == 14_868

    def test_the_second_layer_reads_what_the_first_one_wrote_and_a_gru_has_three_gates(self):
        sizes = Sizes("BetterRnnlm", "GRU", N=1, T=1, D=2, H=2, V=3)
        assert step_flops(sizes) == 6 * (2 * (2 + 2) * 6 + 2 * 3)

    def test_operations_of_the_two_models_of_the_table(self):
        assert step_flops(TIMED[0].sizes) == 4_536_000_000
        assert step_flops(TIMED[1].sizes) == 55_692_000_000

    def test_the_peak_is_that_of_the_fastest_product(self, monkeypatch):
        times = iter([0.0, 4.0, 4.0, 5.0, *range(10, 38, 2)])  # the second takes one second
        clock = SimpleNamespace(perf_counter=lambda: next(times))
        monkeypatch.setattr("train.benchmark.floor.time", clock)
        monkeypatch.setattr("train.benchmark.floor.SHAPES", ((2, 3, 5),))
        assert matrix_peak(lambda M, K, N: lambda: None) == 2 * 2 * 3 * 5

    def test_products_of_both_sides_have_the_shape_asked_for(self, rival):
        for side in (ours, rival):
            assert tuple(side.make_product(2, 3, 5)().shape) == (2, 5)


class TestExponents:
    @pytest.mark.parametrize("exponent", [0.0, 1.0, 1.7])
    def test_of_a_pure_power_it_is_found(self, exponent):
        sizes = [10, 20, 40, 80]
        assert fitted_exponent(sizes, [3.0 * s**exponent for s in sizes]) == pytest.approx(exponent)

    def test_a_fixed_cost_lowers_it(self):
        sizes = [10, 20, 40, 80]
        assert 0.5 < fitted_exponent(sizes, [50 + 3.0 * s for s in sizes]) < 1

    def test_one_point_is_no_curve(self):
        with pytest.raises(ValueError, match="two points or more, got 1"):
            fitted_exponent([10], [1.0])

    def test_a_curve_takes_the_median_of_each_point(self):
        curve = Curve("H", [1, 2], [[1.0, 1.0, 9.0], [4.0, 4.0, 0.1]])
        assert curve.costs == [1, 4]
        assert curve.exponent == pytest.approx(2)


class TestIds:
    def test_a_larger_vocabulary_is_used_from_end_to_end(self):
        ids = some_ids(10).stretched(1000)
        assert (ids.vocab_size, ids.first_id) == (1000, 300)
        assert ids.train.dtype == np.int32
        assert set(ids.train) == set(range(0, 1000, 100))

    def test_what_is_saved_is_loaded(self, tmp_path):
        ids = some_ids()
        ids.save(tmp_path / "ids.npz")
        loaded = Ids.load(tmp_path / "ids.npz")
        np.testing.assert_array_equal(loaded.train, ids.train)
        np.testing.assert_array_equal(loaded.test, ids.test)
        assert (loaded.first_id, loaded.vocab_size) == (3, 11)

    def test_without_the_penn_treebank_the_ids_are_random_and_the_same_each_time(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.delenv("TIMELAYERS_DATA", raising=False)
        monkeypatch.setattr("train.benchmark.corpus.pooch.os_cache", lambda name: tmp_path)
        (a, text), (b, _) = read_ids(), read_ids()
        np.testing.assert_array_equal(a.train, b.train)
        assert a.vocab_size == 10_000 and a.train.max() > 9_900
        assert text.startswith("random ids")

    def test_a_folder_that_is_named_must_hold_the_penn_treebank(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"ptb\.train\.txt is missing"):
            read_ids(tmp_path)

    def test_chunks_follow_each_other_and_share_the_token_between(self):
        chunks = [training_chunk(np.arange(50), k, 10) for k in range(4)]
        assert [len(chunk) for chunk in chunks] == [11] * 4
        assert all(a[-1] == b[0] for a, b in pairwise(chunks))
        with pytest.raises(ValueError, match="more than 50 ids, got 50"):
            training_chunk(np.arange(50), 0, 50)


class TestBook:
    @BOTH
    def test_two_windows_give_the_same_losses_and_gradients_as_this_project(self, sizes):
        model = model_of(sizes, "float64")
        book_model = book.Model(sizes, model.params)
        for xs, ts in zip(*two_windows(sizes), strict=True):
            assert book_model.forward(xs, ts) == pytest.approx(model.forward(xs, ts), rel=1e-13)
            book_model.backward()
            model.backward()
            params, grads = book.merge_tied(book_model.params, book_model.grads)
            assert len(params) == len(model.params)
            for param, grad, own_param, own in zip(
                params, grads, model.params, model.grads, strict=True
            ):
                assert param is own_param
                np.testing.assert_allclose(grad, own, rtol=1e-10, atol=1e-13)

    @BOTH
    def test_its_steps_change_the_weights_as_ours_do(self, sizes):
        model = ours.Side(sizes, some_ids(), 1)
        model.model = model_of(sizes, "float64")
        model.trainer.model = model.model
        rival = book.Side(sizes, some_ids(), 1)
        rival.model = book.Model(sizes, [param.copy() for param in model.model.params])
        model.step(3)
        rival.step(3)
        params, _ = book.merge_tied(rival.model.params, rival.model.grads)
        for param, own in zip(params, model.model.params, strict=True):
            np.testing.assert_allclose(param, own, rtol=1e-9, atol=1e-12)

    def test_dropout_zeroes_and_scales(self):
        xs = np.ones((4, 5, 6), dtype="float32")
        ys = book.Dropout(0.25).forward(xs)
        assert set(np.unique(ys)) == {0, np.float32(4 / 3)}
        assert ys.dtype == np.float32


class TestPyTorch:
    def side(self, rival, sizes, model):
        """PyTorch's side with the weights of ``model``."""
        import torch

        side = rival.Side(sizes, some_ids(), 1)
        weights = model.named_params()

        def copy(target, *source):
            target.data.copy_(torch.from_numpy(np.ascontiguousarray(*source)))

        copy(side.network.embedding.weight, weights["embedding.W"])
        gates = (LSTM_GATES, TORCH_LSTM_GATES) if sizes.cell == "LSTM" else ("rzn", "rzn")
        for k in range(sizes.L):
            layer = f"{sizes.cell.lower()}{k + 1 if sizes.L > 1 else ''}"
            for own, other in (("Wx", "weight_ih"), ("Wh", "weight_hh"), ("b", "bias_ih")):
                weight = reorder_gates(weights[f"{layer}.{own}"], *gates).T
                copy(getattr(side.network.rnn, f"{other}_l{k}"), weight)
            # The second bias of PyTorch says nothing new, but doubles the bias's step.
            getattr(side.network.rnn, f"bias_hh_l{k}").requires_grad_(False).zero_()
        if sizes.model == "Rnnlm":
            copy(side.network.output.weight, weights["affine.W"].T)
        copy(side.network.output.bias, weights["affine.b"])
        return side

    @BOTH
    @pytest.mark.parametrize("cell", ["LSTM", "GRU"])
    @pytest.mark.parametrize("time_major", [True, False])
    def test_the_same_weights_give_the_same_loss_in_every_layout(
        self, rival, sizes, cell, time_major
    ):
        import torch

        sizes = replace(sizes, cell=cell)
        model = model_of(sizes, "float32")
        side = self.side(rival, sizes, model)
        side.apply(replace(side.settings, time_major=time_major))
        state = None
        for xs, ts in zip(*two_windows(sizes), strict=True):
            loss, state = side.loss(torch.from_numpy(xs), torch.from_numpy(ts), state)
            assert loss.item() == pytest.approx(float(model.forward(xs, ts)), rel=1e-5)

    @BOTH
    def test_its_steps_change_the_weights_as_ours_do(self, rival, sizes):
        own = ours.Side(sizes, some_ids(), 1)
        own.model = model_of(sizes, "float32")
        own.trainer.model = own.model
        side = self.side(rival, sizes, own.model)
        for sgd in ("fused", "foreach", "single"):
            side.apply(replace(side.settings, sgd=sgd, clip_foreach=sgd == "foreach"))
            own.step(2)
            side.step(2)
            np.testing.assert_allclose(
                side.network.embedding.weight.detach().numpy(),
                UniqueParameters(own.model.params, own.model.grads).params[0],
                rtol=1e-4,
                atol=1e-5,
            )

    @BOTH
    def test_both_protocols_give_the_same_perplexity(self, rival, sizes):
        model = model_of(sizes, "float32")
        side = self.side(rival, sizes, model)
        ids = some_ids()
        exact = eval_perplexity_exact(model, ids.test[:70], ids.first_id)
        assert side.exact(70) == pytest.approx(exact, rel=1e-5)
        side.apply(replace(side.settings, window=32, onednn=False))
        assert side.exact(70) == pytest.approx(exact, rel=1e-5)
        of_book = eval_perplexity(model, ids.test[:701], 10, 35)
        assert side.book_protocol(700) == pytest.approx(of_book, rel=1e-5)

    @BOTH
    @pytest.mark.parametrize("cell", ["LSTM", "GRU"])
    def test_cells_and_windows_of_one_step_draw_the_same_text(self, rival, sizes, cell):
        import torch

        sizes = replace(sizes, cell=cell)
        side = self.side(rival, sizes, model_of(sizes, "float32"))
        texts = []
        for cells in (False, True):
            side.apply(replace(side.settings, cells=cells))
            torch.manual_seed(5)
            texts.append(side.generation(20))
        assert texts[0] == texts[1]
        assert len(texts[0]) == 21 and texts[0][0] == 3

    def test_tuning_keeps_the_fastest_of_every_setting(self, rival, monkeypatch):
        side = rival.Side(SMALL, some_ids(), 4)
        costs = {
            "threads": {4: 3, 2: 1, 1: 2},
            "onednn": {True: 2, False: 1},
            "time_major": {True: 1, False: 2},
            "sgd": {"fused": 2, "foreach": 1, "single": 2},
            "clip_foreach": {True: 1, False: 2},
        }
        monkeypatch.setattr(
            side,
            "_seconds",
            lambda kind, count, tries: sum(
                cost[getattr(side.settings, name)] for name, cost in costs.items()
            ),
        )
        best = {"threads": 2, "onednn": False, "time_major": True, "sgd": "foreach"}
        assert side.tune("step", 1, 1) == {**best, "clip_foreach": True}


class TestReport:
    def result(self):
        pairs = {"ours": [10.0, 14.0, 12.0], "torch": [20.0, 20.0, 20.0]}
        samples = {**pairs, "torch_as_is": [25.0], "book": [50.0]}
        return Result(TIMED[0], samples, {"threads": 2})

    def report(self):
        machine = dict.fromkeys(("cpu", "cores", "system", "python", "numpy", "blas", "torch"), "?")
        report = Report(machine, 2, "some text", {"ours": 4.536e11, "torch": 1e11})
        report.results = [self.result(), Result(MEMORY[0], {"ours": [90.0], "torch": [400.0]})]
        report.curves = [Curve("H", [1, 2], [[1.0], [2.0]])]
        return report

    def test_ratios_are_taken_pair_by_pair(self):
        result = Result(TIMED[0], {"ours": [1.0, 4.0, 9.0], "torch": [1.0, 2.0, 3.0]})
        assert result.ratio == (2, 1.5, 2.5)

    def test_the_floor_is_that_of_the_faster_product(self):
        report = self.report()
        assert report.floor(report.results[0]) == pytest.approx(10)
        assert report.reached(report.results[0], "ours") == pytest.approx(10 / 12)
        assert report.floor(report.results[1]) is None

    def test_a_person_reads_every_number(self):
        printed = str(self.report())
        line = next(line for line in printed.splitlines() if line.startswith("Rnnlm step"))
        numbers = ["12.0", "20.0", "0.60", "0.55-0.65", "25.0", "50.0", "10.0", "83%", "50%"]
        assert line.split() == ["Rnnlm", "step,", "ms/step", *numbers]
        assert "threads=2" in printed
        assert "H^1.00" in printed

    def test_a_program_reads_every_sample(self):
        content = json.loads(json.dumps(self.report().as_dict()))
        work = content["works"][0]
        assert work["samples"]["ours"] == [10, 14, 12]
        assert work["median"] == {"ours": 12, "torch": 20, "torch_as_is": 25, "book": 50}
        assert work["work"]["sizes"]["V"] == 10_000
        assert content["curves"][0]["exponent"] == pytest.approx(1)

    @pytest.mark.parametrize("part", ["results", "curves", "both"])
    def test_the_figure_shows_what_there_is_in_a_small_file(self, part, tmp_path):
        report = self.report()
        if part != "both":
            setattr(report, "curves" if part == "results" else "results", [])
        draw(report, tmp_path / "speed.png")
        assert 5_000 < (tmp_path / "speed.png").stat().st_size < 120_000


class TestWorkers:
    def test_a_worker_that_fails_is_named_with_its_last_words(self, tmp_path):
        with Worker("ours", tmp_path / "nothing.npz", 1, {}) as worker:
            with pytest.raises(RuntimeError, match=r"(?s)side 'ours' has ended.*nothing\.npz"):
                worker.build(SMALL)
            with pytest.raises(RuntimeError, match="has ended"):
                worker.build(SMALL)

    def test_memory_is_that_of_a_fresh_process(self, tmp_path):
        some_ids().save(tmp_path / "ids.npz")
        ballast = np.ones(40_000_000)  # a worker that inherited it would report 320 MB more
        work = replace(MEMORY[0], sizes=SMALL, count=2, sides=("ours", "book"))
        result = measure_memory(
            work, lambda side: Worker(side, tmp_path / "ids.npz", 1, {}), advance=lambda: None
        )
        assert ballast.nbytes == 320_000_000
        assert all(20 < megabytes < 150 for (megabytes,) in result.samples.values())


class TestCommand:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"repeats": 1}, "--repeats: expected 2 or more, got 1"),
            ({"threads": 0}, "--threads: expected 1 to "),
            ({"only": "transformer"}, "expected part of one of Rnnlm step"),
            ({"only": "better", "quick": True}, "expected part of one of Rnnlm step"),
        ],
    )
    def test_what_cannot_be_measured_is_refused(self, changes, message, monkeypatch):
        monkeypatch.setattr(speed, "find_spec", lambda name: name)
        with pytest.raises(ValueError, match=message):
            speed.main(speed.Options(**changes))

    def test_without_pytorch_it_says_how_to_install_it(self, monkeypatch):
        monkeypatch.setattr(speed, "find_spec", lambda name: None)
        with pytest.raises(RuntimeError, match=r'pip install -e "\.\[bench\]"'):
            speed.main(speed.Options())

    def test_help_names_the_command_and_its_options(self):
        done = subprocess.run(
            [sys.executable, "-m", "train.benchmark", "speed", "--help"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0
        assert "usage: python -m train.benchmark speed" in done.stdout
        assert "--quick" in done.stdout

    @pytest.mark.slow
    def test_a_quick_run_measures_prints_and_draws(self, tmp_path, monkeypatch, capsys):
        pytest.importorskip("torch", reason="the rival is PyTorch")
        small = [replace(w, sizes=replace(w.sizes, N=3, T=5, D=4, H=6, V=11)) for w in TIMED]
        monkeypatch.setattr(speed, "TIMED", small)
        call = Worker.call  # the fastest product takes most of a quick run's time
        monkeypatch.setattr(
            Worker,
            "call",
            lambda worker, name, **arguments: (
                1e11 if name == "matrix_peak" else call(worker, name, **arguments)
            ),
        )
        run, file = tmp_path / "run", tmp_path / "speed.json"
        speed.main(speed.Options(quick=True, only="Rnnlm step", threads=1, out=run, json=file))
        printed = capsys.readouterr().out
        assert printed.endswith(f"figure saved to {tmp_path / 'run' / 'speed.png'}\n")
        assert (tmp_path / "run" / "speed.png").stat().st_size < 120_000
        content = json.loads((tmp_path / "speed.json").read_text())
        assert [work["work"]["name"] for work in content["works"]] == [
            "Rnnlm step",
            "Rnnlm step with GRU",
        ]
        for work in content["works"]:
            assert len(work["samples"]["ours"]) == len(work["samples"]["torch"]) == 2
            assert math.isfinite(work["ratio"]) and work["torch_settings"]["threads"] == 1
        assert set(content["peak_gflops"]) == {"ours", "torch"}
