"""A text written in turns: its states, the way back, and what an interrupt leaves."""

import numpy as np
import pytest

from models import writer as module
from models.writer import Sampling, Writer
from tests.builders import MODELS, V, close, generator, same, tiny_model

FIRST = 2
SAMPLING = Sampling(temperature=0.8)

every_model = pytest.mark.parametrize("name", MODELS)


def writer_of(name="Rnnlm"):
    return Writer(tiny_model(name, "float64", scale=1.0), FIRST)


def wrote(writer, length, sampling=SAMPLING, rng=None):
    """The ids that the model adds."""
    rng = generator(7) if rng is None else rng
    return [chosen for chosen, _ in writer.write(length, sampling, rng)]


def probabilities(model, ids):
    """Of the id after ``ids``, read from their beginning."""
    model.reset_state()
    scores = model.predict(np.asarray([ids]))[0, -1]
    model.reset_state()
    p = np.exp(scores - scores.max())
    return p / p.sum()


@pytest.mark.usefixtures("backend")
@every_model
def test_it_writes_what_generate_writes(name):
    model = tiny_model(name, scale=1.5)
    for prompt in ([], [3, 1, 4]):
        writer = Writer(model, FIRST)
        writer.read(prompt)
        expected = model.generate(prompt or FIRST, 12, temperature=0.8, rng=7)
        wrote(writer, 12)
        assert writer.ids == (expected if prompt else expected[1:])


@pytest.mark.parametrize(
    "settings",
    [{}, {"greedy": True}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 3.0, "skip_ids": (1, 5)}],
)
def test_settings_are_those_of_generate(settings):
    model = tiny_model("Rnnlm", scale=1.5)
    writer = Writer(model, FIRST)
    expected = model.generate(FIRST, 40, rng=7, **settings)
    assert wrote(writer, 40, Sampling(**settings)) == expected[1:]


@every_model
def test_a_text_in_turns_is_that_of_one_reading(name):
    writer = writer_of(name)
    rng = generator(7)
    writer.read([3, 1])
    wrote(writer, 5, rng=rng)
    writer.read([4])
    writer.read([0, 6])
    wrote(writer, 1, rng=rng)
    wrote(writer, 4, rng=rng)
    model, ids = writer.model, writer.ids
    assert ids[:2] == [3, 1] and ids[7:10] == [4, 0, 6] and len(ids) == 15
    close(writer.next_probabilities(), probabilities(model, ids), 1e-10)


def test_probabilities_are_the_models_whatever_the_settings_make_of_them():
    writer = writer_of()
    writer.read([3, 1])
    sampling = Sampling(temperature=0.1, top_k=3, skip_ids=(0,))
    ids = [3, 1]
    for chosen, scores in writer.write(9, sampling, generator(1)):
        close(module.probabilities(scores), probabilities(tiny_again(), ids), 1e-10)
        ids.append(chosen)
    assert ids == writer.ids


def tiny_again():
    return tiny_model("Rnnlm", "float64", scale=1.0)


def test_what_may_come_next_leaves_the_text_alone():
    writer, other = writer_of(), writer_of()
    for each in (writer, other):
        each.read([3, 1])
        wrote(each, 3, rng=generator(1))
    first = writer.next_probabilities()
    same(writer.next_probabilities(), first)
    assert first.sum() == pytest.approx(1)
    assert wrote(writer, 5) == wrote(other, 5)


def test_before_there_is_a_text_the_first_id_has_been_read():
    writer = writer_of()
    close(writer.next_probabilities(), probabilities(tiny_again(), [FIRST]), 1e-12)
    assert writer.ids == []


@every_model
def test_back_takes_away_what_was_added_last_and_the_state_with_it(name):
    writer = writer_of(name)
    writer.read([3, 1])
    before = writer.next_probabilities()
    wrote(writer, 6)
    middle, after = writer.ids, writer.next_probabilities()
    writer.read([5])
    wrote(writer, 4)
    assert writer.back() and writer.ids == [*middle, 5]
    assert writer.back() and writer.ids == middle
    close(writer.next_probabilities(), after, 1e-12)
    assert writer.back() and writer.ids == [3, 1]
    close(writer.next_probabilities(), before, 1e-12)
    assert writer.back() and writer.ids == []
    assert not writer.back()
    assert not writer.back()


def test_a_text_that_the_model_has_begun_can_be_taken_back_and_begun_again():
    writer = writer_of()
    first = wrote(writer, 5)
    assert writer.back() and writer.ids == []
    assert wrote(writer, 5) == first
    assert writer.back()
    writer.read([3])
    close(writer.next_probabilities(), probabilities(tiny_again(), [3]), 1e-12)


def test_an_addition_of_nothing_is_no_step_back():
    writer = writer_of()
    writer.read([3, 1])
    writer.read([])
    assert wrote(writer, 0) == []
    assert writer.back() and writer.ids == []


def test_who_stops_asking_stops_the_model_and_can_go_on():
    writer, other = writer_of(), writer_of()
    whole = wrote(other, 9)
    rng = generator(7)
    for k, _ in enumerate(writer.write(100, SAMPLING, rng), start=1):
        if k == 4:
            break
    assert writer.ids == whole[:4]
    assert wrote(writer, 5, rng=rng) == whole[4:]


class Stop(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("after", [1, 2, 5])
def test_an_interrupt_while_the_model_reads_leaves_the_text_and_a_state_that_fits(
    after, monkeypatch
):
    writer = writer_of("BetterRnnlm")
    layer = writer.model.layers[4]  # the second LSTM: the first has gone on already
    forward, calls = layer.forward, []

    def stops(xs):
        calls.append(1)
        if len(calls) == after:
            raise Stop
        return forward(xs)

    writer.read([3, 1])
    wrote(writer, 2)
    monkeypatch.setattr(layer, "forward", stops)
    with pytest.raises(Stop):
        wrote(writer, 9)
    assert len(writer.ids) == 4 + after - 1
    again = tiny_model("BetterRnnlm", "float64", scale=1.0)
    close(writer.next_probabilities(), probabilities(again, writer.ids), 1e-10)
    calls.append(1)
    assert len(wrote(writer, 3)) == 3
    assert writer.back()
    close(writer.next_probabilities(), probabilities(again, writer.ids), 1e-10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature above 0, got 0"),
        ({"top_k": 0}, "top_k of 1 or more, got 0"),
        ({"top_p": 1.5}, r"top_p in \(0, 1\], got 1.5"),
    ],
)
def test_settings_that_make_no_distribution_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)


def test_ids_out_of_range_are_refused_and_can_be_taken_back():
    writer = writer_of()
    writer.read([3])
    before = writer.next_probabilities()
    writer.read([V])
    with pytest.raises(ValueError, match=f"expected xs in 0..{V - 1}, got {V}"):
        wrote(writer, 1)
    assert writer.back()
    close(writer.next_probabilities(), before, 1e-12)
    with pytest.raises(ValueError, match=r"Writer.write: expected length of 0 or more, got -1"):
        wrote(writer, -1)
