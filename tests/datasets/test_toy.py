import numpy as np
import pytest

from datasets import toy

TASKS = [
    toy.blood_pressure,
    toy.digit_names,
    toy.opinions,
    toy.sums,
    toy.running_parity,
]
every_task = pytest.mark.parametrize("make", TASKS, ids=lambda make: make.__name__)


def read(task, x):
    """The symbols of one-hot rows (T, D)."""
    return [task.inputs[k] for k in x.argmax(axis=1)]


def answer(task, ids):
    return [task.answers[k] for k in ids]


@every_task
def test_arrays_have_the_shapes_dtypes_and_sizes_that_were_asked_for(make):
    task = make(train_size=30, test_size=20)
    for x, t, size in [(task.x, task.t, 30), (task.x_test, task.t_test, 20)]:
        assert len(x) == len(t) == size
        assert (x.dtype, t.dtype) == (np.float32, np.int32)
        assert x.shape[-1] == len(task.inputs)
        assert t.min() >= 0 and t.max() < len(task.answers)


@every_task
def test_every_answer_occurs_and_none_is_nearly_always_right(make):
    task = make()
    for t in (task.t, task.t_test):
        shares = np.bincount(t.ravel(), minlength=len(task.answers)) / t.size
        assert shares.min() > 0
        assert shares.max() < 0.6


@every_task
def test_nothing_that_is_asked_was_shown(make):
    task = make(train_size=500, test_size=200)
    shown = {x.tobytes() for x in task.x}
    assert not any(x.tobytes() in shown for x in task.x_test)


@every_task
def test_the_seed_decides(make):
    first, same, other = (make(seed, train_size=50, test_size=5) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.x, same.x)
    np.testing.assert_array_equal(first.t_test, same.t_test)
    assert not np.array_equal(first.x, other.x)


@every_task
@pytest.mark.parametrize("sizes", [(0, 5), (5, 0)])
def test_a_task_without_examples_is_refused(make, sizes):
    expected = f"^{make.__name__}: expected sizes of at least 1, got {sizes[0]} and {sizes[1]}"
    with pytest.raises(ValueError, match=expected):
        make(train_size=sizes[0], test_size=sizes[1])


@pytest.mark.parametrize(
    ("body_mass", "age", "pressure"),
    [(19, 30, 0), (19, 70, 0), (22, 30, 1), (22, 70, 1), (25, 30, 1), (25, 70, 2), (30, 30, 2)],
)
def test_the_rule_of_blood_pressure(body_mass, age, pressure):
    assert toy.pressure_rule(np.array([body_mass]), np.array([age])) == pressure


def test_no_straight_line_parts_the_blood_pressures():
    """Least squares on the measures, a linear classifier, is wrong far more often than 3 %."""
    task = toy.blood_pressure()

    def with_one(x):
        return np.c_[x, np.ones(len(x))]

    W, *_ = np.linalg.lstsq(with_one(task.x), np.eye(3)[task.t], rcond=None)
    assert ((with_one(task.x_test) @ W).argmax(axis=1) == task.t_test).mean() < 0.93


def test_measures_are_those_of_people():
    body_mass, age = toy.body_mass_and_age(toy.blood_pressure().x)
    assert 20 < age.min() < age.max() < 80
    assert 20 < np.median(body_mass) < 28


def test_a_picture_of_a_digit_asks_for_its_name():
    task = toy.digit_names(train_size=200, test_size=20)
    names = {"".join(answer(task, ids)) for ids in task.t}
    assert names == {name.ljust(5) for name in toy.NAMES}


def test_the_nearest_clean_picture_tells_the_digit():
    """So the noise leaves the task possible; the pictures are the means of their noisy copies."""
    task = toy.digit_names()
    _, which = np.unique(task.t, axis=0, return_inverse=True)
    means = np.stack([task.x[which == k].mean(axis=0) for k in range(10)])
    names = np.stack([task.t[which == k][0] for k in range(10)])
    nearest = ((task.x_test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (names[nearest] == task.t_test).all(axis=1).mean() > 0.998


@pytest.mark.parametrize(
    ("review", "opinion"),
    [
        ("the film is good", "positive"),
        ("the film is not good", "negative"),
        ("not the film is good", "negative"),
        ("not not good", "positive"),
        ("not bad", "positive"),
        ("not good and good", "mixed"),
        ("not good bad", "negative"),
        ("bad not good good good", "mixed"),
        ("the film is not", "mixed"),
    ],
)
def test_the_rule_of_opinions(review, opinion):
    ids = [[toy.WORDS.index(word) for word in review.split()]]
    answers = ("negative", "mixed", "positive")
    assert answers[int(toy.opinion_rule(np.array(ids))[0])] == opinion


def test_reviews_of_the_same_words_have_several_opinions():
    """So counting words is not enough; who reads must read in order."""
    task = toy.opinions()
    bags = {}
    for x, t in zip(task.x, task.t, strict=True):
        bags.setdefault(x.sum(axis=0).tobytes(), []).append(int(t))
    best = sum(np.bincount(opinions).max() for opinions in bags.values())
    assert best / len(task.t) < 0.93


def test_sums_are_right_and_written_with_the_ones_first():
    task = toy.sums(train_size=300, test_size=10)
    for x, ids in zip(task.x, task.t, strict=True):
        text = "".join(read(task, x))
        a, b = text.split("+")
        assert text == f"{int(a)}+{int(b)}".rjust(5)
        assert "".join(answer(task, ids)) == str(int(a) + int(b))[::-1].ljust(3)


def test_the_first_digit_written_waits_for_the_last_one_read():
    """So no model that answers step by step can do sums."""
    task = toy.sums(train_size=9999, test_size=1)
    first = {}
    for x, ids in zip(task.x, task.t, strict=True):
        text = "".join(read(task, x))
        first.setdefault(text[:-1], set()).add(int(ids[0]))
    assert len(first["27+4"]) == 10


def test_there_are_ten_thousand_sums():
    with pytest.raises(ValueError, match=r"^sums: expected at most 10000 pairs .*, got 10001"):
        toy.sums(train_size=10_000, test_size=1)


def test_parity_is_that_of_all_bits_so_far():
    task = toy.running_parity(train_size=20, test_size=5, length=6, test_length=9)
    assert task.x.shape == (20, 6, 2) and task.x_test.shape == (5, 9, 2)
    for x, t in [*zip(task.x, task.t, strict=True), *zip(task.x_test, task.t_test, strict=True)]:
        ones = 0
        for bit, parity in zip(read(task, x), answer(task, t), strict=True):
            ones += int(bit)
            assert parity == ("odd" if ones % 2 else "even")


def test_reviews_that_do_not_exist_cannot_be_asked_for():
    with pytest.raises(ValueError, match=r"^opinions: expected at most .* reviews, got 30"):
        toy.opinions(train_size=20, test_size=10, length=1)


class TestLastWords:
    def test_words_before_the_last_are_one_hot_rows_in_order_of_appearance(self):
        x, t, words = toy.last_words(["i like dog", "i love coffee", "you like dog"])
        assert words == ("i", "like", "dog", "love", "coffee", "you")
        assert (x.shape, x.dtype, t.dtype) == ((3, 2, 6), np.float32, np.int32)
        assert x.argmax(axis=2).tolist() == [[0, 1], [0, 3], [5, 1]]
        assert x.sum() == x.max() * 6 == 6
        assert t.tolist() == [2, 4, 2]

    def test_two_words_are_enough(self):
        x, t, _ = toy.last_words(["hello world"])
        assert x.shape == (1, 1, 2)
        assert t.tolist() == [1]

    @pytest.mark.parametrize(
        ("sentences", "message"),
        [
            ([], "at least one sentence, got none"),
            ([""], "two words or more in a sentence, got ''"),
            (["i like dog", "hello"], "two words or more in a sentence, got 'hello'"),
            (
                ["i like dog", "i really like dog"],
                "of one length; 'i like dog' has 3 words, 'i really like dog' has 4",
            ),
        ],
    )
    def test_sentences_without_a_last_word_to_find_are_refused(self, sentences, message):
        with pytest.raises(ValueError, match=f"^last_words: expected .*{message}"):
            toy.last_words(sentences)
