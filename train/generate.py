"""Let a trained model write.

python -m train.generate runs/rnnlm-ptb-1 --prompt "the company said" --temperature 0.8
python -m train.generate runs/rnnlm-ptb-1 --interactive
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy
import tyro

from common import kernels
from datasets.text import read_lines
from datasets.vocabulary import UNK, Vocabulary
from models.writer import Sampling, Writer, probabilities
from train.dialogue import Dialogue, say_unknown, shown, unknown_tokens
from train.run.command import run_command
from train.run.options import check_counts
from train.run.saved_run import open_model


@dataclass(frozen=True)
class Options:
    """Print a text that a trained model makes up, word by word or character by character.

    With --interactive a text is written in turns: a line of yours, then the model, then you again.
    Commands change how it chooses, show what it expects next, and go back; :help lists them. From a
    pipe the lines are read alike.
    """

    GROUPS: ClassVar[dict[str, str]] = {
        "text": "prompt prompt_file length count interactive",
        "choice": "temperature top_k top_p greedy allow_unk seed",
        "output": "show_probabilities json",
        "run": "run gpu",
    }

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    prompt: str = ""
    """The text to continue; by default a new sentence begins."""
    prompt_file: Path | None = None
    """In place of --prompt: a UTF-8 file with the text to continue. The end of its last line is
    left out, so that the model goes on with that line; by default there is none."""
    length: int = 100
    """How many tokens to add."""
    count: int = 1
    """How many texts to write, each drawn from a stream of its own."""
    interactive: bool = False
    """Write in turns with the model."""
    temperature: float = 1.0
    """Below 1 plays safe, above 1 takes risks."""
    top_k: int | None = None
    """Draw from the k most likely tokens only; by default from all."""
    top_p: float | None = None
    """Draw from the fewest tokens whose probabilities reach p; by default from all."""
    greedy: bool = False
    """Always take the most likely token."""
    allow_unk: bool = False
    """Let <unk> be drawn too."""
    seed: int = 1
    """Another seed, another text."""
    show_probabilities: bool = False
    """Print the tokens that are added one a line, each behind the probability that the model gave
    it, whatever --temperature and the like made of that."""
    json: bool = False
    """Print each text as a JSON object in a line of its own: prompt, text, and the tokens that were
    added with their ids and probabilities."""
    gpu: bool = False
    """Compute on the GPU."""


def check_options(options: Options) -> None:
    """Raise ValueError for what cannot work, before the run is opened."""
    check_counts(options, "count")
    if options.length < 0:
        raise ValueError(f"--length: expected 0 or more, got {options.length}")
    if options.prompt and options.prompt_file is not None:
        raise ValueError("expected --prompt or --prompt-file, got both")
    if options.show_probabilities and options.json:
        raise ValueError("expected --show-probabilities or --json, which has them too; got both")
    if options.interactive:
        if options.count > 1 or options.show_probabilities or options.json:
            raise ValueError(
                "--interactive: expected no --count, --show-probabilities or --json; "
                ":show has the probabilities"
            )
        check_counts(options, "length")


def read_prompt(options: Options, vocabulary: Vocabulary) -> str:
    """The text to continue.

    Raises:
        FileNotFoundError, ValueError: as ``datasets.text.read_lines`` does.
    """
    prompt = options.prompt
    if options.prompt_file is not None:
        lines = read_lines(options.prompt_file, "word" if vocabulary.level == "word" else "char")
        prompt = "".join(lines).removesuffix("\n")
    return prompt


def sampling_of(options: Options, vocabulary: Vocabulary) -> Sampling:
    """How the tokens are chosen."""
    unk = vocabulary.word_to_id.get(UNK)
    skip_ids = () if unk is None or options.allow_unk else (unk,)
    return Sampling(options.temperature, options.top_k, options.top_p, options.greedy, skip_ids)


def sample_stream(seed: int, number: int) -> numpy.random.Generator:
    """What text ``number``, from 0, is drawn from; the first is what the seed alone gives."""
    return numpy.random.default_rng(seed if number == 0 else [seed, number])


def answer(
    options: Options,
    vocabulary: Vocabulary,
    writer: Writer,
    prompt: str,
    rng: numpy.random.Generator,
) -> str:
    """Let the model go on; what is printed of that."""
    added = writer.write(options.length, sampling_of(options, vocabulary), rng)
    if not (options.json or options.show_probabilities):
        for _ in added:
            pass
        return vocabulary.decode(writer.ids)
    tokens = [(i, float(probabilities(scores)[i])) for i, scores in added]
    words = vocabulary.words
    if not options.json:
        return "\n".join(f"{p:.6f}  {shown(words[i])}" for i, p in tokens)
    described = [{"token": words[i], "id": i, "probability": p} for i, p in tokens]
    text = vocabulary.decode(writer.ids)
    return json.dumps({"prompt": prompt, "text": text, "tokens": described})


def main(options: Options) -> None:
    """Run the command."""
    check_options(options)
    model, vocabulary = open_model(options.run)
    kernels.print_notice()
    prompt = read_prompt(options, vocabulary)
    if options.interactive:
        writer, rng = Writer(model, vocabulary.first_id), sample_stream(options.seed, 0)
        sampling = sampling_of(options, vocabulary)
        Dialogue(writer, vocabulary, sampling, options.length, rng).run(prompt)
        return
    if unknown := unknown_tokens(prompt, vocabulary):
        say_unknown(unknown)
    ids = vocabulary.encode(prompt)
    for number in range(options.count):
        if options.count > 1 and not options.json:
            print(f"--- {number + 1} of {options.count} ---")
        writer, rng = Writer(model, vocabulary.first_id), sample_stream(options.seed, number)
        writer.read(ids)
        print(answer(options, vocabulary, writer, prompt, rng), flush=True)


if __name__ == "__main__":
    run_command(main, Options)
