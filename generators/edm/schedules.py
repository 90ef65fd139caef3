"""Learning rate and EMA decay as functions of the images seen before the step."""

from equigrid.generators.edm.config import Training


def learning_rate(training: Training, nimg: int) -> float:
    """Linear from 0 over the first lr_rampup_nimg, then constant; linear to 0 over the last
    lr_decay_nimg.
    """
    up = min(nimg / training.lr_rampup_nimg, 1.0) if training.lr_rampup_nimg else 1.0
    left = max(training.total_nimg - nimg, 0)
    down = min(left / training.lr_decay_nimg, 1.0) if training.lr_decay_nimg else 1.0
    return training.lr * min(up, down)


def ema_decay(training: Training, nimg: int) -> float:
    """The part of the old average that a step keeps: half is left after the half-life, in images.

    Early on the half-life is ema_rampup_ratio of the images seen, so that the start is forgotten;
    the first step keeps nothing.
    """
    halflife = float(training.ema_halflife_nimg)
    if training.ema_rampup_ratio is not None:
        halflife = min(halflife, nimg * training.ema_rampup_ratio)
    return 0.5 ** (training.batch / halflife) if halflife > 0 else 0.0
