"""Report the progress of a training: in the log of the job, and as a bar on a terminal."""

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger(__name__)


class Progress:
    """Count the steps of one training.

    Parameters
    ----------
    name
        Label of the bar.
    steps, done
        Number of steps of the whole training, and of those done before it was interrupted.
    batch_size
        Patches per step.
    """

    def __init__(self, name: str, steps: int, done: int, batch_size: int) -> None:
        self.steps = steps
        self.step = self.first = done
        self.batch_size = batch_size
        self._started = time.monotonic()
        # disable=None: show the bar only on a terminal.
        self._bar = tqdm(
            total=steps,
            initial=done,
            desc=name,
            unit="step",
            leave=False,
            disable=None,
            file=sys.stderr,
        )

    def advance(self) -> None:
        """Count one step."""
        self.step += 1
        self._bar.update()

    def report(self, loss: float, val_loss: float) -> None:
        """Log step, losses, throughput and remaining time."""
        seconds_per_step = self._seconds() / max(self.step - self.first, 1)
        self._bar.set_postfix(loss=f"{loss:.4f}")
        logger.info(
            "step %d of %d, loss %.4f, validation %.4f, %.0f patches/s, %.0f s left",
            self.step,
            self.steps,
            loss,
            val_loss,
            self.batch_size / seconds_per_step,
            seconds_per_step * (self.steps - self.step),
        )

    def close(self) -> None:
        """Remove the bar and log the duration of the training."""
        self._bar.close()
        logger.info("%d steps in %.0f s", self.step - self.first, self._seconds())

    def _seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)
