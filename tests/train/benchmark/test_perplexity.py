"""The table of trained runs says what their files say, and a record keeps all of it."""

import json
from dataclasses import asdict, replace

import pytest

from train.awd_rnnlm import Options as AwdOptions
from train.benchmark import perplexity
from train.benchmark.perplexity import draw, markdown, plain_text
from train.benchmark.run_records import command, read_record, record_of_run, write_record
from train.rnnlm import Options as RnnlmOptions

RESULTS = {
    "parameters": 1234567,
    "seconds": 400.0,
    "valid_exact": 138.6081,
    "valid_book": 138.7,
    "test_exact": 134.7791,
    "test_book": 134.96,
}
DYNAMIC = {
    "valid": 120.5,
    "test": 118.25,
    "seconds": 60.0,
    "settings": {"rule": "rms", "lr": 2e-4, "decay": 0.0, "time_size": 5, "epsilon": 1e-4},
}
CACHE = {
    "valid": 119.5,
    "test": 117.25,
    "seconds": 9.0,
    "settings": {"cache_size": 2000, "theta": 0.5, "weight": 0.15},
}


def make_run(path, script="rnnlm", results=RESULTS, **options):
    """A run folder as training leaves it, apart from weights."""
    path.mkdir()
    places = {"data_dir": "/somewhere/ptb", "out": str(path), "checkpoint_every": 1.0}
    options = {"corpus": "ptb", "epochs": 2, "gpu": False, **places, **options}
    config = {"script": script, "options": options, "versions": {"numpy": "2.4.6"}}
    (path / "config.json").write_text(json.dumps(config))
    log = [
        {"epoch": 1, "step": 20, "loss": 6.0},
        {"epoch": 1, "step": 100, "valid": 200.0, "seconds": 190.0},
        {"epoch": 2, "step": 200, "valid": 138.6081, "seconds": 390.0},
    ]
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    if results is not None:
        (path / "results.json").write_text(json.dumps(results))
    return path


def test_a_run_is_what_its_files_say(tmp_path):
    run = record_of_run(make_run(tmp_path / "rnnlm-ptb-1"))
    assert (run.name, run.model, run.corpus, run.device) == ("rnnlm-ptb-1", "Rnnlm", "ptb", "CPU")
    assert run.epochs == 2
    assert run.curve == [(190.0, 100, 200.0), (390.0, 200, 138.6081)]
    assert run.results == RESULTS


def test_a_validation_that_was_not_finite_is_no_point_of_the_curve(tmp_path):
    run = make_run(tmp_path / "run")
    with open(run / "log.jsonl", "a") as file:
        file.write('{"epoch": 3, "step": 300, "valid": null, "seconds": 580.0}\n')
    assert record_of_run(run).curve == [(190.0, 100, 200.0), (390.0, 200, 138.6081)]


def test_a_row_has_every_figure_and_the_command(tmp_path):
    head, row = plain_text([record_of_run(make_run(tmp_path / "run"))]).splitlines()
    assert head.split()[:3] == ["model", "corpus", "parameters"]
    assert row.split() == [
        *("Rnnlm", "ptb", "1,234,567", "2", "7", "min", "CPU", "138.61", "134.78", "134.96"),
        *("python", "-m", "train.rnnlm", "--corpus", "ptb", "--epochs", "2"),
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--corpus ptb --epochs 2"),
        ({"epochs": RnnlmOptions().epochs}, "--corpus ptb"),
        ({"gpu": True, "max_vocab": 500}, "--corpus ptb --epochs 2 --gpu --max-vocab 500"),
        ({"corpus": "my text.txt", "lr": 5.0}, "--corpus 'my text.txt' --epochs 2 --lr 5.0"),
    ],
)
def test_the_command_names_what_is_not_the_default_and_no_place_of_a_machine(
    options, words, tmp_path
):
    run = record_of_run(make_run(tmp_path / "run", **options))
    assert run.command == f"python -m train.rnnlm {words}"
    assert "somewhere" not in json.dumps(run.config) and str(tmp_path) not in json.dumps(run.config)


def test_the_command_does_not_repeat_what_a_preset_says():
    preset = AwdOptions.PRESETS["cpu10"]
    options = asdict(AwdOptions(preset="cpu10", **{**preset, "corpus": "ptb", "seed": 2}))
    expected = "python -m train.awd_rnnlm --corpus ptb --seed 2 --preset cpu10"
    assert command("awd_rnnlm", AwdOptions, options) == expected
    assert "--lr 3.0" in command("awd_rnnlm", AwdOptions, {**options, "lr": 3.0})


def test_dynamic_evaluation_and_the_cache_have_rows_of_their_own(tmp_path):
    results = {**RESULTS, "dynamic_evaluation": DYNAMIC, "neural_cache": CACHE}
    plain, dynamic, cache = plain_text(
        [record_of_run(make_run(tmp_path / "run", results=results))]
    ).splitlines()[1:]
    assert "134.78" in plain and "118.25" not in plain
    assert dynamic.startswith("Rnnlm + dynamic evaluation  ptb ")
    assert dynamic.split()[5:] == [
        *("120.50", "118.25", "python", "-m", "train.dynamic_evaluation", "RUN"),
        *("--lr", "0.0002", "--decay", "0.0"),
    ]
    assert cache.split()[5:] == [
        *("119.50", "117.25", "python", "-m", "train.neural_cache", "RUN"),
        *("--cache-size", "2000"),
    ]


def test_runs_are_in_order_of_corpus_and_test_perplexity(tmp_path):
    values = {"a": ("ptb", 100.0), "b": ("ptb", 90.0), "c": ("mine.txt", 95.0)}
    runs = [
        record_of_run(
            make_run(tmp_path / name, results={**RESULTS, "test_exact": test}, corpus=corpus)
        )
        for name, (corpus, test) in values.items()
    ]
    rows = plain_text(runs).splitlines()[1:]
    assert [row.split()[1] for row in rows] == ["mine", "ptb", "ptb"]
    assert ["95.00" in rows[0], "90.00" in rows[1], "100.00" in rows[2]] == [True] * 3


def test_markdown_has_as_many_cells_in_every_row(tmp_path):
    results = {**RESULTS, "neural_cache": CACHE}
    del results["test_book"]  # a text too short for it
    lines = markdown([record_of_run(make_run(tmp_path / "run", results=results))]).splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {12}
    assert "| **134.78** | | `python -m train.rnnlm --corpus ptb --epochs 2` |" in lines[2]
    assert lines[3].startswith("| Rnnlm + neural cache | ptb | | | | | | 119.50 | **117.25** |")


@pytest.mark.parametrize(
    ("seconds", "spoken"), [(8.2, "8 s"), (400, "7 min"), (7100, "118 min"), (9000, "2.5 h")]
)
def test_time_is_spoken_in_the_unit_that_fits(seconds, spoken, tmp_path):
    run = make_run(tmp_path / "run", results={**RESULTS, "seconds": seconds})
    assert f" {spoken}  CPU" in plain_text([record_of_run(run)])


class TestSeeds:
    def group(self, tmp_path, **more):
        runs = []
        for seed, test in ((2, 131.0), (1, 130.0), (4, 135.0)):
            results = {**RESULTS, "test_exact": test, "seconds": 100.0 * seed}
            run = make_run(tmp_path / f"{seed}", results=results, seed=seed, **more)
            runs.append(record_of_run(run))
        return runs

    def test_runs_that_differ_by_their_seed_are_one_row_with_a_spread(self, tmp_path):
        (row,) = plain_text(self.group(tmp_path)).splitlines()[1:]
        assert "138.61 ± 0.00  132.00 ± 2.65" in row
        assert "  233 s" not in row and "  4 min  " in row
        assert row.startswith("Rnnlm, seeds 1, 2, 4  ptb ")
        assert row.endswith("python -m train.rnnlm --corpus ptb --epochs 2")

    def test_consecutive_seeds_are_told_by_the_first_and_the_last(self, tmp_path):
        runs = self.group(tmp_path)
        runs[2].config["options"]["seed"] = 3
        assert "Rnnlm, seeds 1 to 3  ptb " in plain_text(runs)

    @pytest.mark.parametrize("changes", [{"device": "GPU"}, {"corpus": "mine.txt"}, {"lr": 3.0}])
    def test_another_machine_text_or_option_is_another_row(self, changes, tmp_path):
        runs = self.group(tmp_path)
        if "device" in changes:
            runs[0] = replace(runs[0], **changes)
        else:
            runs[0].config["options"] |= changes
        assert len(plain_text(runs).splitlines()) == 3

    def test_an_adaptive_evaluation_says_of_which_seed_it_is(self, tmp_path):
        runs = self.group(tmp_path)
        runs[1].results["neural_cache"] = CACHE
        plain, cache = plain_text(runs).splitlines()[1:]
        assert "132.00" in plain
        assert cache.startswith("Rnnlm, seed 1 + neural cache  ptb ") and "117.25" in cache

    def test_a_figure_has_one_name_for_all_seeds_and_a_panel_for_each_corpus(
        self, tmp_path, monkeypatch
    ):
        runs = self.group(tmp_path)
        other = make_run(tmp_path / "other", corpus="cost $5$.txt", seed=1)
        figures = []
        monkeypatch.setattr(perplexity, "save", lambda figure, path, dpi: figures.append(figure))
        draw([*runs, record_of_run(other)], tmp_path / "figure.png")
        mine, ptb = figures[0].axes
        titles = [axes.get_title(loc="left") for axes in (mine, ptb)]
        assert titles == ["cost $5$", "Penn Treebank"]
        names = [[text.get_text() for text in axes.texts] for axes in (mine, ptb)]
        assert names == [
            ["Rnnlm: test 134.78\n7 min on CPU"],
            ["Rnnlm: test 132.00 ± 2.65\n4 min on CPU, 3 seeds"],
        ]
        assert (
            len(ptb.get_lines()) == 3 and len({line.get_color() for line in ptb.get_lines()}) == 1
        )


class TestKeeping:
    def test_what_is_kept_is_read_again_without_a_difference(self, tmp_path):
        run = record_of_run(make_run(tmp_path / "run"), "rnnlm-ptb", "CPU, 2 cores")
        path = write_record(run, tmp_path / "results")
        assert path == tmp_path / "results" / "rnnlm-ptb.json"
        assert read_record(path) == run

    def test_the_command_keeps_one_run_and_then_needs_its_folder_no_more(
        self, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.setattr(perplexity, "gflops_of_this_machine", lambda: 208.96)
        results = tmp_path / "results"
        options = {"keep": "first", "device": "CPU, 2 cores", "results": results}
        perplexity.main(perplexity.Options((make_run(tmp_path / "run"),), **options))
        assert capsys.readouterr().out.count("134.78") == 1
        (tmp_path / "run").rename(tmp_path / "away")
        figure = tmp_path / "figure.png"
        perplexity.main(perplexity.Options(results=results, readme=True, figure=figure))
        printed = capsys.readouterr().out
        assert "| CPU, 2 cores, 209 GFLOP/s | 138.61 | **134.78** |" in printed
        assert figure.stat().st_size > 1000

    def test_a_kept_run_is_never_overwritten(self, tmp_path):
        run = record_of_run(make_run(tmp_path / "run"), "name")
        path = write_record(run, tmp_path)
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match=r"name\.json exists already"):
            write_record(run, tmp_path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("name", ["", "../away", "a/b", ".hidden"])
    def test_a_name_is_a_plain_file_name(self, name, tmp_path):
        run = record_of_run(make_run(tmp_path / "run"), "name")
        with pytest.raises(ValueError, match="expected a name without folders"):
            write_record(type(run)(**{**vars(run), "name": name}), tmp_path)

    @pytest.mark.parametrize("count", [0, 2])
    def test_one_run_is_kept_at_a_time(self, count, tmp_path):
        runs = tuple(make_run(tmp_path / str(k)) for k in range(count))
        with pytest.raises(ValueError, match=f"expected one run to keep, got {count}"):
            perplexity.main(perplexity.Options(runs, keep="name", results=tmp_path / "results"))


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"results": None}, "there is no parameters in its results"),
            ({"results": {**RESULTS, "test_exact": "good"}}, "there is no test_exact"),
            ({"script": "char_rnn"}, "trains language models, got 'char_rnn'"),
        ],
    )
    def test_a_run_without_figures(self, changes, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            record_of_run(make_run(tmp_path / "run", **changes))

    @pytest.mark.parametrize("line", ["{", '{"valid": 3}', '{"valid": "x", "seconds": 1}', "3"])
    def test_a_log_that_is_damaged(self, line, tmp_path):
        run = make_run(tmp_path / "run")
        (run / "log.jsonl").write_text(line)
        with pytest.raises(ValueError, match=r"log\.jsonl: not the log of a run"):
            record_of_run(run)

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"curve": [[1, 2]]}', '{"curve": []}'])
    def test_a_record_that_is_damaged(self, text, tmp_path):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match=r"a\.json: not the record of a run"):
            read_record(tmp_path / "a.json")

    def test_no_run_at_all(self, tmp_path):
        with pytest.raises(ValueError, match="expected the folder of a run, or a record"):
            perplexity.main(perplexity.Options(results=tmp_path))

    def test_a_picture_of_nothing(self, tmp_path):
        with pytest.raises(ValueError, match="at least one run with a validation"):
            draw([], tmp_path / "figure.png")
