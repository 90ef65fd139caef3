"""Learning rate and decay of the average as functions of the steps done."""

from equigrid.generators.dit.parts import Schedule, Training


def learning_rate(schedule: Schedule, step: int) -> float:
    """The rate of the step after `step` steps: a linear rise and a linear fall around a
    constant.
    """
    up, down = schedule.lr_rampup_part * schedule.steps, schedule.lr_decay_part * schedule.steps
    rising = min((step + 1) / up, 1.0) if up else 1.0
    falling = min((schedule.steps - step) / down, 1.0) if down else 1.0
    return schedule.lr * min(rising, falling)


def ema_decay(training: Training, step: int) -> float:
    """The part of the old average that the step after `step` steps keeps; less at first, to forget
    the start.
    """
    return min(training.ema_decay, (1 + step) / (10 + step))
