"""`describe_options`: what `--help` says where Lightning's words are not true of this program, or say little."""

from __future__ import annotations

from jsonargparse import ArgumentParser

TITLES = {
    "trainer": "How long, how often and on what (Lightning's Trainer)",
    "model": "What is trained: a net with its loss and its optimizer",
    "data": "Where the batches come from",
}
FIT_CHECKPOINT = (
    "Checkpoint from which the training goes on: a file, or `last` or `best` of the newest run that has one, or of the "
    "run that --trainer.logger.init_args.version names; with `last` and `best` it goes on in the folder of that run."
)
CHECKPOINT = (
    "Checkpoint with the weights to measure: a file, or `last` or `best` of the newest run that has one, or of the run "
    "that --trainer.logger.init_args.version names. Without it they are those that the net is made with, pretrained or "
    "random."
)
WEIGHTS_ONLY = "Changes nothing: a checkpoint is data, and one with code in it is refused (SECURITY.md)."


def describe_options(parser: ArgumentParser, subcommand: str) -> None:
    """Gives groups of options, and those of a checkpoint, words of this project."""
    groups = parser.groups or {}
    for group, title in (*TITLES.items(), (subcommand, "With which weights it begins")):
        groups[group].title = title
    helps = {"ckpt_path": FIT_CHECKPOINT if subcommand == "fit" else CHECKPOINT, "weights_only": WEIGHTS_ONLY}
    for action in parser._actions:
        action.help = helps.get(action.dest, action.help)
