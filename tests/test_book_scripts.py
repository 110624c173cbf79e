"""The scripts of the book's chapters 5 to 8, unchanged, on its ``common`` and on ours.

TIMELAYERS_BOOK names a copy of the book's repository, which is no part of this one, and
TIMELAYERS_DATA the Penn Treebank. Every script runs in a copy of its folder, with less data and one
epoch, from the same weights; what differs is the folder in which ``common`` is found. So does every
layer by itself.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets import ptb, sequence
from models import AttentionSeq2seq

BOOK = os.environ.get("TIMELAYERS_BOOK") and Path(os.environ["TIMELAYERS_BOOK"]).resolve()
ROOT = Path(__file__).parent.parent
CHAPTERS = ("ch05", "ch06", "ch07", "ch08")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BOOK, reason="TIMELAYERS_BOOK does not name the book's repository"),
]

TOKENS = {"train": 20 * 35 * 3 + 1, "valid": 10 * 35 * 2 + 1, "test": 10 * 35 * 2 + 1}
READ_PTB = """
import json
from pathlib import Path
import numpy

def load_data(data_type="train"):
    data = json.loads(Path(__file__).with_name("ptb.json").read_text())
    ids = numpy.array(data[{"val": "valid"}.get(data_type, data_type)])
    return ids, {w: k for k, w in enumerate(data["words"])}, dict(enumerate(data["words"]))
"""
READ_PAIRS = """
import importlib.util

spec = importlib.util.spec_from_file_location("of_the_book", PATH)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
get_vocab = module.get_vocab

def load_data(*args, **options):
    (x, t), (x_test, t_test) = module.load_data(*args, **options)
    return (x[:384], t[:384]), (x_test[:12], t_test[:12])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run(side, script, change, weights): the losses, what was printed, the script's folder.

    Args:
        side: "book" or "ours".
        script: such as "ch05/train.py".
        change: two texts, the first of which is replaced by the second: one of the variants that
            the book offers in a comment.
        weights: a file to copy into the tree, and where to.
    """
    if not os.environ.get(ptb.DATA_VARIABLE):
        pytest.skip(f"{ptb.DATA_VARIABLE} does not name PTB")
    root = tmp_path_factory.mktemp("book")
    dataset = root / "dataset"
    dataset.mkdir()
    (dataset / "__init__.py").touch()
    (dataset / "ptb.py").write_text(READ_PTB, encoding="utf-8")
    pairs = READ_PAIRS.replace("PATH", repr(str(BOOK / "dataset" / "sequence.py")))
    (dataset / "sequence.py").write_text(pairs, encoding="utf-8")
    corpus = ptb.load_corpus()
    ids = {split: getattr(corpus, split)[:size].tolist() for split, size in TOKENS.items()}
    words = [corpus.id_to_word[k] for k in range(corpus.vocab_size)]
    (dataset / "ptb.json").write_text(json.dumps({**ids, "words": words}), encoding="utf-8")
    (root / "common").symlink_to(BOOK / "common")

    @functools.cache
    def run(side, script, change=None, weights=None):
        tree = tmp_path_factory.mktemp(side)
        copy_chapters(tree)
        (tree / "dataset").symlink_to(dataset)
        if weights:
            shutil.copy(weights[0], tree / weights[1])
        path = tree / script
        if change:
            text = path.read_text(encoding="utf-8")
            assert text.count(change[0]) == 1
            path.write_text(text.replace(*change), encoding="utf-8")
        home = root if side == "book" else ROOT
        modules = [home, tree / "ch07"]  # a script of chapter 8 leans on one of chapter 7
        printed = python(modules, path.parent, "book_runner.py", path.name, tree / "losses.json")
        return json.loads((tree / "losses.json").read_text()), printed, path.parent

    return run


def copy_chapters(tree):
    """The scripts and weights of the book, for which ``common`` and data have to be found."""
    for chapter in CHAPTERS:
        (tree / chapter).mkdir()
        for file in (BOOK / chapter).iterdir():
            if file.suffix in (".py", ".pkl"):
                shutil.copy(file, tree / chapter)


def python(modules, folder, script, *arguments):
    """What a script beside this one prints, in a folder, with ``common`` from the first module."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, modules))}
    environment |= {"MPLBACKEND": "Agg", "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", Path(__file__).with_name(script), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(str(modules[0]))
    return done.stdout


PEEKY = ("model = Seq2seq(v", "model = PeekySeq2seq(v")
PLAIN = ("model = AttentionSeq2seq(v", "model = Seq2seq(v")


@pytest.mark.parametrize(
    ("script", "change", "least"),
    [
        ("ch05/train.py", None, 19),
        ("ch05/train_custom_loop.py", None, 19),
        ("ch06/train_rnnlm.py", None, 3 + 2),
        ("ch06/train_better_rnnlm.py", None, 3 + 2 + 2),
        ("ch06/eval.py", None, 2),
        ("ch07/train_seq2seq.py", None, 3),
        ("ch07/train_seq2seq.py", PEEKY, 3),
        ("ch08/train.py", None, 3),
        ("ch08/train.py", PLAIN, 3),
        ("ch08/visualize_attention.py", None, 5),
    ],
)
def test_a_script_has_the_losses_that_it_has_on_the_book_s_code(run, script, change, least):
    (expected, *_), (losses, *_) = (run(side, script, change) for side in ("book", "ours"))
    assert least == len(expected) <= len(losses)  # ours reads the end of a corpus too
    np.testing.assert_allclose(losses[:least], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "script",
    [
        "ch06/clip_grads.py",
        "ch06/rnn_gradient_graph.py",
        "ch07/generate_text.py",
        "ch07/show_addition_dataset.py",
    ],
)
def test_a_script_prints_what_it_prints_on_the_book_s_code(run, script):
    (_, expected, _), (_, printed, _) = (run(side, script) for side in ("book", "ours"))
    assert len(expected) > 50
    assert printed == expected


def test_the_better_model_s_text_is_that_of_the_book_s_code(run):
    *_, folder = run("book", "ch06/train_better_rnnlm.py")
    weights = folder / "BetterRnnlm.pkl", "ch06"
    script = "ch07/generate_better_text.py"
    (_, expected, _), (_, printed, _) = (
        run(side, script, weights=weights) for side in ("book", "ours")
    )
    assert len(expected) > 50
    assert printed == expected


@pytest.mark.parametrize(
    ("scripts", "weights"),
    [
        (["ch07/train_seq2seq.py"], []),
        (["ch08/train.py", "ch08/visualize_attention.py"], ["AttentionSeq2seq.safetensors"]),
    ],
)
def test_a_script_trains_on_our_pairs_by_the_two_lines_of_the_readme(scripts, weights, tmp_path):
    line = "from datasets import *"
    assert f'\necho "{line}" > dataset.py\nPYTHONPATH=' in (ROOT / "README.md").read_text("utf-8")
    copy_chapters(tmp_path)
    for script in scripts:
        path, losses = tmp_path / script, tmp_path / "losses.json"
        (path.parent / "dataset.py").write_text(f"{line}\nsequence.EXAMPLES = 400\n")
        modules = [ROOT, tmp_path / "ch07"]
        printed = python(modules, path.parent, "book_runner.py", path.name, losses)
        found = json.loads(losses.read_text())
        if "train" in path.name:
            assert len(found) == 3  # of 360 pairs, 128 at once
            assert printed.count("\n---\n") == 10 and "\nval acc " in printed
        else:
            assert len(found) == 5  # maps, from the weights that were saved before
    assert [file.name for file in tmp_path.rglob("*.safetensors")] == weights


def test_our_attention_model_answers_the_dates_of_the_book_with_its_weights():
    pairs = sequence.load_pairs(BOOK / "dataset" / "date.txt")
    model = AttentionSeq2seq(len(pairs.char_to_id), 16, 256, rng=0)
    model.load_params(BOOK / "ch08" / "AttentionSeq2seq.pkl")
    x, t = pairs.x_test[:500, ::-1], pairs.t_test[:500, 1:]
    right = (model.generate_batch(x, pairs.start_id, t.shape[1]) == t).all(axis=1)
    assert right.mean() > 0.99


ANOTHER_WAY = {"GRU", "TimeGRU", "Dropout", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"}


def test_every_layer_gives_what_the_book_s_gives_but_for_those_that_the_readme_lists(tmp_path):
    found = {}
    for side, home in (("book", BOOK), ("ours", ROOT)):
        python([home], tmp_path, "book_layers.py", tmp_path / f"{side}.npz")
        found[side] = np.load(tmp_path / f"{side}.npz")
    assert found["ours"].files == found["book"].files
    differ = set()
    for name in found["book"].files:
        expected, got = found["book"][name], found["ours"][name]
        assert got.shape == expected.shape, name
        if not np.allclose(got, expected, rtol=1e-5, atol=1e-5):
            differ.add(name.split()[0])
    assert differ == ANOTHER_WAY
