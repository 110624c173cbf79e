"""``python -m train.seq2seq`` from options to run folder, on runs of moments."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from datasets.sequence import additions, load_pairs
from models import AttentionSeq2seq, PeekySeq2seq
from tests.train.run.interrupting import Broken, break_at
from train import seq2seq
from train.run.saved_options import saved_options
from train.seq2seq import Options, answer, attention_maps, draw_maps, show

QUICK = {"examples": 60, "epochs": 2, "hidden_size": 6, "wordvec_size": 4, "batch_size": 16}
ALL = ("plain", "peeky", "attention")


def run(out, **options):
    seq2seq.main(Options(out=out, **{**QUICK, **options}))
    return out


def without_seconds(value):
    """What a run has written, but for the time that it took."""
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


def written(out):
    results = json.loads((out / "results.json").read_text())
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return without_seconds([results, log])


# ---- what a run leaves and prints ----


@pytest.mark.parametrize("task", ["addition", "date"])
def test_three_models_leave_accuracies_weights_and_figures(task, tmp_path, capsys):
    out = run(tmp_path / "run", task=task, model=ALL, reverse=True)
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "log.jsonl", "checkpoint.safetensors", "results.json"),
        *("seq2seq.png", "seq2seq_attention.png"),
        *(f"{kind}.safetensors" for kind in ALL),
    }
    models = json.loads((out / "results.json").read_text())["models"]
    assert tuple(models) == ALL
    for kind, result in models.items():
        assert [record["epoch"] for record in result["epochs"]] == [1, 2], kind
        assert result["accuracy"] == result["epochs"][-1]["accuracy"]
        assert 0 <= result["accuracy"] <= result["best"] <= 1
        seconds = sum(record["seconds"] for record in result["epochs"])
        assert result["seconds"] == pytest.approx(seconds)
        first, second = (record["loss"] for record in result["epochs"])
        assert second < first < 5
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(line["model"], line["epoch"]) for line in log] == [
        (kind, epoch) for kind in ALL for epoch in (1, 2)
    ]
    printed = capsys.readouterr().out
    assert f"{task}: 54 pairs to learn from, 6 for the test, " in printed
    for kind in ALL:
        assert f"{kind}: epoch 2 of 2, loss " in printed and f"\n{kind}: 0.00% right, " in printed
    assert printed.count("  WRONG  ") == 3 * 2 * 5
    assert printed.endswith(f"seq2seq saved to {out / 'seq2seq.png'}\n")


def test_without_attention_there_is_no_map(tmp_path):
    out = run(tmp_path / "run", model=("plain",))
    assert not (out / "seq2seq_attention.png").exists() and (out / "seq2seq.png").exists()


def test_the_weights_that_are_left_answer_as_the_run_did(tmp_path):
    out = run(tmp_path / "run", model=("peeky",), reverse=True, lr=0.05)
    pairs, options = load_pairs("addition.txt", 1, 60), Options(reverse=True)
    model = PeekySeq2seq(len(pairs.char_to_id), 4, 6)
    model.load_params(out / "peeky.safetensors")
    right = (answer(model, pairs.x_test, pairs, options) == pairs.t_test[:, 1:]).all(axis=1)
    assert json.loads((out / "results.json").read_text())["models"]["peeky"]["accuracy"] == (
        right.mean()
    )


def test_the_weights_that_are_left_are_for_the_letters_that_the_results_name(tmp_path):
    out = run(tmp_path / "run", task="date")
    pairs = load_pairs("date.txt", 1, 60)
    assert json.loads((out / "results.json").read_text())["letters"] == "".join(pairs.char_to_id)
    others = replace(pairs, char_to_id=dict.fromkeys(reversed(pairs.char_to_id)))
    model = seq2seq.build("peeky", others, Options(**QUICK))
    with pytest.raises(ValueError, match="belong to another vocabulary than the model"):
        model.load_params(out / "peeky.safetensors")


def test_one_seed_writes_one_result(tmp_path):
    first, again, other = (
        written(run(tmp_path / name, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


@pytest.mark.parametrize("changed", [{"reverse": True}, {"lr": 0.01}, {"batch_size": 20}])
def test_options_change_what_is_learnt(changed, tmp_path):
    assert written(run(tmp_path / "a")) != written(run(tmp_path / "b", **changed))


def test_sizes_that_are_not_given_are_those_of_the_task(tmp_path):
    assert Options().sizes() == (25, 128)
    assert Options(task="date").sizes() == (6, 256)
    assert Options(data=tmp_path / "addition.txt").sizes() == (6, 256)
    assert Options(epochs=3, hidden_size=7).sizes() == (3, 7)
    rates = [Options(task=task).learning_rate() for task in ("addition", "date")]
    assert [*rates, Options(task="date", lr=0.5).learning_rate()] == [0.001, 0.003, 0.5]


# ---- a file of one's own ----


def file_of_additions(tmp_path, number=40, seed=1):
    path = tmp_path / "sums.txt"
    path.write_text("".join(f"{q}_{a}\n" for q, a in additions(number, 2, seed)))
    return path


def test_a_file_of_pairs_takes_the_place_of_the_task(tmp_path, capsys, monkeypatch):
    path = file_of_additions(tmp_path)
    monkeypatch.chdir(tmp_path)
    seq2seq.main(Options(data=path, **{**QUICK, "examples": None}))
    out = tmp_path / "runs" / "seq2seq-sums-1"
    assert json.loads((out / "results.json").read_text())["models"]["peeky"]
    assert "sums: 36 pairs to learn from, 4 for the test, 13 letters" in capsys.readouterr().out


def test_a_file_that_has_changed_is_noticed_when_the_run_goes_on(tmp_path, monkeypatch):
    path, out = file_of_additions(tmp_path), tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "train.seq2seq.answer", 2)
        run(out, data=path, examples=None)
    again = saved_options("seq2seq", Options, out)
    file_of_additions(tmp_path, seed=2)
    with pytest.raises(ValueError, match=r"is a run of other pairs than .*sums\.txt has now"):
        seq2seq.main(again)
    file_of_additions(tmp_path)
    seq2seq.main(again)
    assert (out / "results.json").exists()


def test_a_run_of_a_file_that_lies_elsewhere_now_goes_on_with_it_there(tmp_path, monkeypatch):
    path, out = file_of_additions(tmp_path), tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "train.seq2seq.answer", 2)
        run(out, data=path, examples=None)
    again = saved_options("seq2seq", Options, out)
    moved = path.rename(tmp_path / "moved.txt")
    with pytest.raises(FileNotFoundError, match=r"--data: there is no such file: .*sums\.txt"):
        seq2seq.main(again)
    with pytest.raises(ValueError, match=r"--max-grad 5\.0, got 0\.1; .* only --data may change"):
        seq2seq.main(replace(again, data=moved, max_grad=0.1))
    seq2seq.main(replace(again, data=moved))
    assert (out / "results.json").exists()


# ---- a run that is broken off ----


@pytest.mark.parametrize("call", [1, 2, 4, 6])
def test_a_run_that_is_broken_off_goes_on_after_its_last_epoch(call, tmp_path, monkeypatch, capsys):
    whole = run(tmp_path / "whole", model=("peeky", "attention"), epochs=3)
    out = tmp_path / "broken"
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "train.seq2seq.answer", call)
        run(out, model=("peeky", "attention"), epochs=3)
    again = saved_options("seq2seq", Options, out)
    capsys.readouterr()
    with monkeypatch.context() as context:
        done = count_epochs(context)
        seq2seq.main(again)
    assert len(done) == 6 - (call - 1)  # the epoch that was broken off, and those behind it
    printed = capsys.readouterr().out
    assert f"{out}: {(call - 1) // 3} trainings are finished" in printed
    assert (", one has begun" in printed) == ((call - 1) % 3 != 0)
    assert written(out) == written(whole)
    for kind in ("peeky", "attention"):
        weights = f"{kind}.safetensors"
        assert (out / weights).read_bytes() == (whole / weights).read_bytes()
    assert (out / "seq2seq_attention.png").exists()


def count_epochs(monkeypatch):
    done, iterations = [], seq2seq.Trainer.iterations

    def counted(trainer, *arguments, **options):
        done.append(1)
        return iterations(trainer, *arguments, **options)

    monkeypatch.setattr(seq2seq.Trainer, "iterations", counted)
    return done


def test_a_finished_run_repeats_its_report_and_keeps_its_options(tmp_path, monkeypatch, capsys):
    out = run(tmp_path / "run", model=("attention",))
    before = written(out)
    (out / "seq2seq_attention.png").unlink()
    again = saved_options("seq2seq", Options, out)
    done = count_epochs(monkeypatch)
    seq2seq.main(again)
    assert done == [] and written(out) == before and (out / "seq2seq_attention.png").exists()
    assert "the run is finished; this repeats its report" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--epochs 2, got 3; a run goes on with its own options"):
        seq2seq.main(replace(again, epochs=3))


def test_a_checkpoint_that_lacks_something_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "train.seq2seq.answer", 2)
        save = seq2seq.RestartableRun.save_begun
        context.setattr(
            seq2seq.RestartableRun,
            "save_begun",
            lambda run, name, state: save(run, name, {"pairs": state["pairs"]}),
        )
        run(out)
    with pytest.raises(ValueError, match="not a checkpoint of this version"):
        seq2seq.main(saved_options("seq2seq", Options, out))


# ---- answers ----


def trained(**options):
    """An attention model of a moment, its pairs, and the options."""
    pairs = load_pairs("date.txt", 1, 100)
    return AttentionSeq2seq(len(pairs.char_to_id), 8, 12, rng=1), pairs, Options(**options)


def test_answers_are_shown_as_right_or_with_what_is_right(capsys):
    _, pairs, _ = trained()
    answers = pairs.t_test[:, 1:].copy()
    answers[1] = answers[0]
    show(pairs, answers, 3)
    first, second, third = capsys.readouterr().out.splitlines()
    dates = [pairs.decode(t)[1:] for t in pairs.t_test[:3]]
    assert first == f"  right  {pairs.decode(pairs.x_test[0])}  {dates[0]}"
    assert second == f"  WRONG  {pairs.decode(pairs.x_test[1])}  {dates[0]}  not {dates[1]}"
    assert third.startswith("  right  ")
    show(pairs, answers, 0)
    assert capsys.readouterr().out == ""


def test_a_wide_beam_is_written_for_fewer_questions_at_once(monkeypatch):
    model, pairs, options = trained(beam_size=250)
    sizes, write = [], model.generate_batch
    monkeypatch.setattr(
        model, "generate_batch", lambda x, *rest: sizes.append(len(x)) or write(x, *rest)
    )
    answer(model, pairs.x_test[:3], pairs, options)
    assert sizes == [2, 1]
    sizes.clear()
    answer(model, pairs.x_test[:2], pairs, replace(options, beam_size=501))
    assert sizes == [1, 1]


def test_the_maps_of_long_texts_fit_into_a_figure():
    maps = [{"read": "ab" * 450, "written": "cd", "right": True, "weights": np.ones((2, 900))}] * 2
    draw_maps(maps)
    assert plt.gcf().get_size_inches()[0] == 100
    plt.close()


@pytest.mark.parametrize("beam_size", [1, 3])
def test_questions_are_answered_in_parts_as_all_at_once(beam_size, monkeypatch):
    model, pairs, options = trained(beam_size=beam_size, reverse=True)
    expected = answer(model, pairs.x_test, pairs, options)
    monkeypatch.setattr(seq2seq, "AT_ONCE", 3)
    np.testing.assert_array_equal(answer(model, pairs.x_test, pairs, options), expected)
    one = model.generate(pairs.x_test[:1, ::-1], pairs.start_id, 10, beam_size)
    assert expected[0].tolist() == one


def test_the_map_has_the_weights_of_each_letter_in_the_order_of_the_text():
    model, pairs, options = trained(reverse=True)
    for param in model.params:
        param *= 5
    maps = attention_maps(model, pairs, options)
    assert len(maps) == 4
    assert len({len(each["read"].rstrip()) for each in maps}) == 4
    x = np.array([[pairs.char_to_id[char] for char in maps[1]["read"]]])
    t = np.array([[pairs.char_to_id[char] for char in "_" + maps[1]["written"]]])
    model.predict(x[:, ::-1], t)
    weights = model.decoder.attention.attention_weights[0]
    np.testing.assert_allclose(maps[1]["weights"][:, ::-1], weights, rtol=1e-4, atol=1e-6)
    assert abs(weights - weights[:, ::-1]).max() > 0.01
    assert [each["right"] for each in maps] == [False] * 4


# ---- what is refused ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ()}, "--model: expected one or more of plain, peeky, attention, got none"),
        ({"model": ("peeky", "peeky")}, "--model: expected one or more of .*, got peeky peeky"),
        ({"epochs": 0}, "--epochs: expected 1 or more, got 0"),
        ({"examples": 0}, "--examples: expected 1 or more, got 0"),
        ({"examples": 9}, "expected 10 pairs or more, since one of 10 is for the test, got 9"),
        ({"hidden_size": 0}, "--hidden-size: expected 1 or more, got 0"),
        ({"wordvec_size": 0}, "--wordvec-size: expected 1 or more, got 0"),
        ({"batch_size": 0}, "--batch-size: expected 1 or more, got 0"),
        ({"beam_size": 0}, "--beam-size: expected 1 or more, got 0"),
        ({"show": -1}, "--show: expected 0 or more, got -1"),
        ({"lr": 0.0}, "--lr: expected a number above 0, got 0.0"),
        ({"max_grad": float("nan")}, "--max-grad: expected a number above 0, got nan"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        run(tmp_path / "run", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_file_of_pairs_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no such file"):
        run(tmp_path / "run", data=tmp_path / "nowhere.txt", examples=None)
    (tmp_path / "text.txt").write_text("no pair\n" * 20)
    with pytest.raises(ValueError, match=r"text\.txt: line 1: expected source_target"):
        run(tmp_path / "run", data=tmp_path / "text.txt", examples=None)
    with pytest.raises(ValueError, match="is read as it is"):
        run(tmp_path / "run", data=file_of_additions(tmp_path), examples=20)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_explodes_stops_with_advice(tmp_path):
    with pytest.raises(RuntimeError, match="smaller learning rate"):
        run(tmp_path / "run", lr=1e38, epochs=5)
