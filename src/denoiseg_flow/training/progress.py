"""Report the progress of a training: in the log of the job, as a bar, and for TensorBoard."""

import logging
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Recipe

logger = logging.getLogger(__name__)

# What :meth:`Progress.report` logs.
_REPORTED = re.compile(
    r"(?:network (?P<network>\d+) of (?P<networks>\d+), )?epoch (?P<epoch>\d+) of (?P<epochs>\d+), "
    r".* (?P<seconds>\d+) s left$"
)


class Reported(NamedTuple):
    """What the log says of a running training."""

    place: str
    """Which network, if there are several, and which epoch, e.g. ``epoch 3 of 10``."""
    seconds: int
    """The remaining time when it was logged."""


def last_reported(log: str) -> Reported | None:
    """Return the latest progress in the text of a log; None before the end of the first epoch."""
    for line in reversed(log.splitlines()):
        if found := _REPORTED.search(line):
            place = f"epoch {found['epoch']} of {found['epochs']}"
            if found["network"]:
                place = f"network {found['network']} of {found['networks']}, {place}"
            return Reported(place, int(found["seconds"]))
    return None


class Progress:
    """Count the steps of one training.

    Parameters
    ----------
    name
        Label of the bar.
    recipe
        Its steps, epochs and patches per step.
    done
        Number of steps that were done before it was interrupted.
    network, networks
        Number of the network, from 1, and how many the job trains one after the other.
    events
        Folder for TensorBoard event files; None writes none.

    Raises
    ------
    InputError
        If there is such a folder, and TensorBoard is not installed.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        done: int,
        network: int = 1,
        networks: int = 1,
        events: Path | None = None,
    ) -> None:
        self.recipe = recipe
        self.step = self.first = done
        self._network, self._networks = network, networks
        self._writer = _event_writer(events, done) if events else None
        self._started = time.monotonic()
        # disable=None: show the bar only on a terminal.
        self._bar = tqdm(
            total=recipe.steps,
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

    def report(self, epoch: Mapping[str, float]) -> None:
        """Log epoch, step, losses, throughput and the remaining time of the job.

        Parameters
        ----------
        epoch
            The last row of the history.
        """
        recipe = self.recipe
        seconds_per_step = self._seconds() / max(self.step - self.first, 1)
        steps_left = (self._networks - self._network + 1) * recipe.steps - self.step
        several = f"network {self._network} of {self._networks}, " if self._networks > 1 else ""
        self._bar.set_postfix(loss=f"{epoch['loss']:.4f}")
        logger.info(
            "%sepoch %d of %d, step %d of %d, loss %.4f, validation %.4f, %.0f patches/s, "
            "%.0f s left",
            several,
            self.step // recipe.steps_per_epoch,
            recipe.epochs,
            self.step,
            recipe.steps,
            epoch["loss"],
            epoch["val_loss"],
            recipe.batch_size / seconds_per_step,
            seconds_per_step * steps_left,
        )
        if self._writer:
            for name, value in epoch.items():
                if name != "step":
                    self._writer.add_scalar(name, value, self.step)
            self._writer.flush()

    def close(self) -> None:
        """Remove the bar and log the duration of the training."""
        self._bar.close()
        if self._writer:
            self._writer.close()
        logger.info("%d steps in %.0f s", self.step - self.first, self._seconds())

    def _seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)


def _event_writer(folder: Path, done: int) -> Any:
    """Return the writer of TensorBoard events; those after ``done`` steps become void."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "config key 'tensorboard' is true, but TensorBoard is not installed; install it with "
            "`python -m pip install tensorboard`, or set the key to false"
        ) from None
    return SummaryWriter(str(folder), purge_step=done + 1)
