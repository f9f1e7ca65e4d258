"""Functions of the workers of TensorFlow: limit threads, keep weights by time."""

from typing import Any

import tensorflow as tf
from job import CLOCKS
from snapshots import Snapshots


def limit_threads(job: dict[str, Any]) -> None:
    """Let TensorFlow use the cores that the job may use."""
    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(job["threads"])


class Keeper(tf.keras.callbacks.Callback):
    """Keeps the weights of every time point. Keeping is not training: the clock stops for it."""

    def __init__(self, points: list[float], clock: str) -> None:
        super().__init__()
        self.snapshots = Snapshots(points)
        self.clock = CLOCKS[clock]
        self.started = self.paused = 0.0
        self.steps = 0

    def minutes(self) -> float:
        """Training time so far, validation included."""
        return (self.clock() - self.started - self.paused) / 60

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.started = self.clock()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.steps += 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        stopped = self.clock()
        minutes = self.minutes()
        weights = self.model.get_weights()
        self.snapshots.after_epoch(minutes, self.steps, logs["val_loss"], weights)
        self.model.stop_training |= self.snapshots.complete
        print(f"minute {minutes:.2f}, step {self.steps}, validation {logs['val_loss']:.4f}")
        self.paused += self.clock() - stopped
