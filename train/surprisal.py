"""Print what every token of a text costs a trained model, and what it expected there.

python -m train.surprisal runs/rnnlm-ptb-1 --text my.txt > my.tsv
python -m train.surprisal runs/rnnlm-ptb-1 --split test | head
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy

from common import kernels
from common.perplexity.protocols import evaluation, perplexity_of, windows
from common.perplexity.surprisal import Predictions, predictions
from common.plotting import progress
from datasets.stream import Piece, open_text, read_pieces
from datasets.vocabulary import UNK, Vocabulary
from models.language_model import LanguageModel
from train.run.command import run_command
from train.run.saved_run import SavedRunOptions, open_model, open_run

WINDOW = 500  # tokens, as in the exact protocol
COLUMNS = ("sentence_id", "token_id", "token", "unk", "surprisal", "entropy", "rank", "best")
SPECIAL = re.compile(r"[\\\s\x00-\x1f\x7f-\x9f]")  # what would end a column or a line


@dataclass(frozen=True)
class Options(SavedRunOptions):
    r"""Print a line for every token of a text: its surprisal, -log2 of the probability that the
    model gave it, and what the model expected.

    Columns, separated by tabs: sentence_id and token_id, from 1; token, as it stands in the text;
    unk, 1 where the model reads it as <unk>; surprisal in bits; entropy of the prediction in bits;
    rank of the token, 1 being the likeliest; best, the likeliest tokens, separated by a blank. A
    blank, tab, end of line or backslash within a token is \x20, \t, \n or \\, as in Python. The end
    of a line is a token, too. The number of tokens, the mean and the perplexity come at the end, on
    standard error: those of train.evaluate for --split, whose protocol is followed.

    A text must look as that of training: words split on blanks, in lower case for pydoc and ptb. It
    can be of any length, and a line that is typed is answered at once. The run folder is all that
    is needed. To read it: pandas.read_csv(file, sep="\t", quoting=3, keep_default_na=False)
    """

    text: str | None = None
    """The text: a UTF-8 file, which may be compressed with gzip, or - for standard input;
    if not given, --split names one."""
    split: Literal["valid", "test"] | None = None
    """In place of --text: a part of the text of the run, which --corpus and --data-dir can find; if
    not given, --text names one."""
    per_sentence: bool = False
    """Let each line begin from the zero state, as if nothing had gone before; by default the state
    is carried on from line to line."""
    best: int = 5
    """How many of the likeliest tokens are printed."""
    json: bool = False
    """Print a JSON object a line, which also has the surprisal of each of the best tokens."""


def check_options(options: Options) -> None:
    """Raise ValueError for what cannot work."""
    if (options.text is None) == (options.split is None):
        raise ValueError("expected a text: either --text FILE (- is standard input) or --split")
    if options.text is not None and (options.corpus or options.data_dir) is not None:
        raise ValueError("--corpus and --data-dir find the text of --split; leave them out")
    if options.best < 0:
        raise ValueError(f"--best: expected 0 or more, got {options.best}")


def split_pieces(ids: numpy.ndarray, vocabulary: Vocabulary) -> Iterator[Piece]:
    """A part of a corpus as pieces; their size is in tokens."""
    for window in windows(len(ids), WINDOW):
        part = ids[window]
        tokens = [vocabulary.words[i] for i in part.tolist()]
        yield Piece(tokens, part, len(part), pauses=window.stop == len(ids))


def in_windows(
    pieces: Iterable[Piece], size: int, end: int | None
) -> Iterator[tuple[list[str], numpy.ndarray]]:
    """Tokens and ids, ``size`` at a time; fewer where the next ones would have to be waited for.

    Args:
        pieces: the text.
        size: of a window at most.
        end: an id after which a window ends in any case; None for none.
    """
    tokens: list[str] = []
    ids = numpy.empty(0, dtype="int32")
    for piece in pieces:
        tokens += piece.tokens
        ids = numpy.concatenate([ids, piece.ids])
        start = 0
        while start < len(ids):
            window = ids[start : start + size]
            ends = [] if end is None else numpy.flatnonzero(window == end).tolist()
            length = ends[0] + 1 if ends else len(window)
            if length < size and not ends and not piece.pauses:
                break
            yield tokens[start : start + length], window[:length]
            start += length
        del tokens[:start]
        ids = ids[start:]


def scored(
    model: LanguageModel,
    vocabulary: Vocabulary,
    pieces: Iterable[Piece],
    best: int,
    per_sentence: bool = False,
) -> Iterator[tuple[list[str], numpy.ndarray, Predictions]]:
    """Tokens, ids and predictions, window by window, from a zero state and the end of a line on.

    Args:
        model: the model; its training state is kept.
        vocabulary: its words.
        pieces: the text.
        best: how many of the likeliest tokens are wanted.
        per_sentence: whether each sentence begins from the zero state.
    """
    previous, end = vocabulary.first_id, vocabulary.eos_id
    with evaluation(model):
        for tokens, ids in in_windows(pieces, WINDOW, end if per_sentence else None):
            if per_sentence and previous == end:
                model.reset_state()
            xs = numpy.concatenate([[previous], ids[:-1]])
            yield tokens, ids, next(predictions(model, xs, ids, best=best, window=WINDOW))
            previous = int(ids[-1])


def escaped(token: str) -> str:
    r"""``token`` without blanks, tabs, ends of lines and other control characters, as in Python.

    A backslash is doubled, so that ``ast.literal_eval(f"'{token}'")`` has the token again where it
    has no quotation mark.
    """
    return SPECIAL.sub(lambda found: _code(found[0]), token)


def _code(character: str) -> str:
    return r"\x20" if character == " " else character.encode("unicode_escape").decode()


class Table:
    """Makes lines of predictions, counts sentences and tokens, and adds up what they cost.

    Args:
        vocabulary: of the model.
        as_json: whether a line is a JSON object.

    Attributes:
        tokens: how many there have been.
        unknown: how many of them were ``<unk>`` for the model.
        bits: what all of them cost.
    """

    def __init__(self, vocabulary: Vocabulary, as_json: bool) -> None:
        self.words, self.as_json = vocabulary.words, as_json
        self.unk, self.end = vocabulary.word_to_id.get(UNK), vocabulary.eos_id
        self.escaped = [escaped(word) for word in self.words]
        self.sentence = self.place = 1
        self.tokens, self.unknown, self.bits = 0, 0, 0.0

    def lines(self, tokens: list[str], ids: numpy.ndarray, found: Predictions) -> str:
        """Lines of the next tokens; before the first ones the names of the columns."""
        lines = [] if self.as_json or self.tokens else ["\t".join(COLUMNS)]
        arrays = (ids, found.surprisal, found.entropy, found.rank, found.best, found.best_bits)
        for token, i, bits, entropy, rank, best, best_bits in zip(
            tokens, *(array.tolist() for array in arrays), strict=True
        ):
            place, is_unknown = (self.sentence, self.place), i == self.unk
            if self.as_json:
                guesses = [self.words[guess] for guess in best]
                row = (*place, token, is_unknown, bits, entropy, rank, guesses)
                named = dict(zip(COLUMNS, row, strict=True))
                lines.append(json.dumps({**named, "best_surprisal": best_bits}))
            else:
                shown = escaped(token) if is_unknown else self.escaped[i]
                guesses = [self.escaped[guess] for guess in best]
                numbers = f"{is_unknown:d}\t{bits:.8g}\t{entropy:.8g}\t{rank}"
                lines.append(f"{place[0]}\t{place[1]}\t{shown}\t{numbers}\t{' '.join(guesses)}")
            self.place += 1
            if i == self.end:
                self.sentence, self.place = self.sentence + 1, 1
        self.tokens += len(ids)
        self.unknown += int((ids == self.unk).sum()) if self.unk is not None else 0
        self.bits += float(found.surprisal.sum())
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """One line on the whole text."""
        mean = self.bits / self.tokens
        return (
            f"{self.tokens:,} tokens, {100 * self.unknown / self.tokens:.3g} % of them {UNK}; mean "
            f"surprisal {mean:.4f} bits, perplexity {perplexity_of(mean * math.log(2)):.2f}"
        )


def size_of(source: io.BufferedIOBase) -> int | None:
    """How many bytes will be read; None where that is not known."""
    try:
        about = os.fstat(source.fileno())
    except OSError:
        return None
    is_plain = stat.S_ISREG(about.st_mode) and not isinstance(source, gzip.GzipFile)
    return about.st_size if is_plain else None


def print_lines(
    options: Options,
    model: LanguageModel,
    vocabulary: Vocabulary,
    pieces: Iterable[Piece],
    total: int | None,
    unit: str,
) -> None:
    """Print a line for each token as soon as it is known, and at the end what they have in common.

    Where nobody reads any more, it ends.
    """
    kernels.print_notice()
    table = Table(vocabulary, options.json)
    unseen = sys.stdout.isatty() or (total is None and not sys.stderr.isatty())
    with progress(total=total, unit=unit, unit_scale=True, desc="text", disable=unseen) as bar:

        def counted() -> Iterator[Piece]:
            for piece in pieces:
                yield piece
                bar.update(piece.size)

        for window in scored(model, vocabulary, counted(), options.best, options.per_sentence):
            sys.stdout.write(table.lines(*window))
            sys.stdout.flush()
            if getattr(sys.stdout, "goes_nowhere", False):
                return
    print(table.summary(), file=sys.stderr)


def main(options: Options) -> None:
    """Run the command."""
    check_options(options)
    if options.text is None:
        model, corpus = open_run(options.run, options.corpus, options.data_dir)
        ids, vocabulary = getattr(corpus, str(options.split)), corpus.vocabulary
        pieces = split_pieces(ids, vocabulary)
        print_lines(options, model, vocabulary, pieces, len(ids), " tokens")
        return
    with open_text(options.text) as source:
        model, vocabulary = open_model(options.run)
        name = "standard input" if options.text == "-" else options.text
        pieces = read_pieces(source, vocabulary, name)
        print_lines(options, model, vocabulary, pieces, size_of(source), "B")


if __name__ == "__main__":
    run_command(main, Options)
