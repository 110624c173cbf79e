"""The checkpoint of a language model's run: written between two iterations, taken up later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.files.model_state import holds_generators
from common.files.tensors import read_checkpoint, write_checkpoint
from train.run.folder import RunFolder, fixed_options, note_differences, read_results, version_of

__all__ = ["save", "resume"]


def save(training: Any) -> None:
    """Write the checkpoint of a run; of several processes, the first writes what all have.

    Args:
        training: the ``train.run.language_model.Training`` of the run.

    Raises:
        DivergenceError: where something is not finite; the checkpoint before it stays.
        OSError: where it cannot be written; the checkpoint before it stays.
        RuntimeError: where the weights of the processes differ; likewise.
    """
    options = training.options
    state = training.trainer.state_dict()
    if not training.run.writes:
        return
    checkpoint = {
        "trainer": {**state, "curve": None},  # the log has it
        "best": training.best,
        "valid_points": training.valid_points,
        "seconds": training.seconds(),
        "log": training.run.log_state(),
        "options": fixed_options(options, options.changeable()),
        "version": version_of("time-layers"),
    }
    write_checkpoint(training.run.checkpoint_file, checkpoint)


def resume(training: Any, script: str) -> bool:
    """Go back to the last checkpoint; return whether there is anything left to do.

    Args:
        training: the ``train.run.language_model.Training`` of the run, newly made.
        script: the command.

    Raises:
        ValueError: where the checkpoint, the config and the corpus do not fit together, or
            more epochs are done than asked for.
    """
    checkpoint = training.process.from_first(lambda: _read(training, script))
    if checkpoint is None:
        return True
    try:
        _go_back(training, checkpoint)
        return training.process.from_first(lambda: _open(training, checkpoint, script))
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(
            f"{training.run.checkpoint_file}: not a checkpoint of this version ({error!r})"
        ) from error


def _read(training: Any, script: str) -> dict[str, Any] | None:
    """The checkpoint; None where there is none yet, and the run begins anew."""
    run = training.run
    if run.checkpoint_file.exists():
        return read_checkpoint(run.checkpoint_file)
    if run.weights_file.exists():
        raise ValueError(f"{run.path} has weights but no checkpoint to go on from")
    _, config = RunFolder.open(run.path)
    run.expect_text(config, training.corpus)
    print("no checkpoint yet: starts from the beginning", flush=True)
    run.go_back()
    run.write_config(script, training.options, training.corpus)
    return None


def _go_back(training: Any, checkpoint: dict[str, Any]) -> None:
    """Bring the training back to where the checkpoint was made."""
    trainer, epochs = training.trainer, training.options.epochs
    if training.run.writes:
        _check(training, checkpoint)
    if checkpoint["trainer"].get("average") is not None:
        training.average()
    trainer.load_state_dict(checkpoint["trainer"])
    begun = trainer.epoch + (trainer.column > 0)
    if epochs < begun:
        raise ValueError(f"--epochs {epochs}: the run in {training.run.path} is in epoch {begun}")
    training.go_back_to(
        best=float(checkpoint["best"]),
        valid_points=[(int(step), float(valid)) for step, valid in checkpoint["valid_points"]],
        seconds=float(checkpoint["seconds"]),
    )


def _open(training: Any, checkpoint: dict[str, Any], script: str) -> bool:
    """Bring the folder back to there; return whether there is anything left to do."""
    run, trainer, epochs = training.run, training.trainer, training.options.epochs
    is_reported = run.curve_file.exists() and read_results(run).get("epochs") == trainer.epoch
    early = training.early_stop()
    if is_reported and (early or trainer.epoch == epochs):
        may_grow = "epochs" in training.options.changeable()
        grows = "--stop-after" if early else "--epochs" if may_grow else ""
        more = f"; more with a larger {grows}" if grows else ""
        print(f"{run.path} is finished: {trainer.epoch} epochs done{early}{more}")
        return False
    run.results_file.unlink(missing_ok=True)  # they are of weights that will change
    records = run.go_back(checkpoint["log"])
    trainer.curve = [record for record in records if _is_report(record)]
    run.write_config(script, training.options, training.corpus)
    print(f"goes on after iteration {trainer.iteration}, {trainer.epoch} epochs done", flush=True)
    return True


def _is_report(record: Mapping[str, Any]) -> bool:
    """Whether a record of the log is a point of the curve; a damaged one is not."""
    return all(isinstance(record.get(name), int | float) for name in ("step", "perplexity"))


def _check(training: Any, checkpoint: dict[str, Any]) -> None:
    """Raise ValueError where config, corpus or format have changed; note another version."""
    options, file = training.options, training.run.checkpoint_file
    if holds_generators(checkpoint["trainer"]):
        raise ValueError(
            f"{file}: made by an earlier version ({checkpoint['version']}), which kept random "
            "generators where this one counts; the run cannot go on, its weights can be used"
        )
    fixed = fixed_options(options, options.changeable())
    defaults = fixed_options(type(options)(), options.changeable())
    then = {**defaults, **checkpoint["options"]}  # an option may be younger than the checkpoint
    changed = [
        f"{name} {then.get(name)}, now {fixed.get(name)}"
        for name in sorted(then.keys() | fixed.keys())
        if then.get(name) != fixed.get(name)
    ]
    if changed:
        raise ValueError(f"{file}: made with {'; '.join(changed)} in config.json")
    _, config = RunFolder.open(training.run.path)
    training.run.expect_text(config, training.corpus)
    note_differences(config, checkpoint["version"])
