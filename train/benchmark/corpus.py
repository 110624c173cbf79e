"""The text of the measurements: the Penn Treebank where it is at hand, else random ids."""

from __future__ import annotations

import os
from pathlib import Path

import numpy
import pooch

from datasets import ptb
from train.benchmark.ids import Ids

__all__ = ["read_ids"]


def read_ids(data_dir: Path | None = None, V: int = 10_000) -> tuple[Ids, str]:
    """Ids, and what they are; nothing is downloaded.

    Args:
        data_dir: folder with the files of the Penn Treebank; by default $TIMELAYERS_DATA, or the
            cache if they have been downloaded before.
        V: how many words there are where the ids are random.

    Raises:
        FileNotFoundError: where a folder is named that does not hold them.
        ValueError: where a file in it is not the one expected.
    """
    cache = Path(pooch.os_cache("time-layers"))
    cached = all((cache / file.name).is_file() for file in ptb.FILES.values())
    if data_dir or os.environ.get(ptb.DATA_VARIABLE) or cached:
        corpus = ptb.load_corpus(data_dir)
        ids = Ids(corpus.train, corpus.test, corpus.first_id, corpus.vocab_size)
        return ids, "ids of the Penn Treebank"
    rng = numpy.random.default_rng(1)
    train, test = (rng.integers(0, V, size, dtype="int32") for size in (200_000, 20_000))
    return Ids(train, test, 0, V), "random ids, since the Penn Treebank is not at hand"
