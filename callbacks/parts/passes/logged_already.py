"""`refuse_logged`: a figure of a measurement never takes the place of one that the program has logged before it."""

from __future__ import annotations

import lightning.pytorch as pl


def refuse_logged(trainer: pl.Trainer, tag: str, who: str) -> None:
    """Raises ValueError where the running pass has a figure under this tag by now, from the module or a callback.

    At the end of an epoch callbacks come first: what the module logs there is not known yet.

    Lightning would keep the last of the two, and weights would be ranked by it. Two that are logged in one hook, it
    refuses itself, or takes the mean of.

    Args:
        trainer: in a validation or test.
        tag: as TensorBoard shows it, with the number of the loader where there are several.
        who: the class that is about to log one.
    """
    results = trainer._results
    assert results is not None
    for figure in results.values():
        # Those of earlier passes stay, reset.
        if not figure.has_reset and tag in results._forked_name(figure, on_step=False):
            raise ValueError(
                f"{who} would log {tag!r}, which {figure.meta.fx.split('.')[0]} has logged: one would replace the "
                f"other, and weights be ranked by it; give the measurement another name"
            )
