"""Run one training in a separate process, to be killed or to share a GPU with others."""

import sys
import time
from pathlib import Path

import torch

from denoiseg_flow.jobs.devices import select_device
from denoiseg_flow.jobs.gpu_slots import visible_gpus
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.models import tensor_file
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.patches import ImageBank
from denoiseg_flow.training.trainer import Trainer

WARM_UP = 10  # steps before the clock runs


class Watched(Trainer):
    """A training that writes down how far it is."""

    folder: Path
    go: Path | None = None
    pause_at: int | None = None
    first_step: int | None = None
    began = 0.0

    def _train_step(self) -> None:
        if self.first_step is None:
            self.first_step = self.step
        if self.step == WARM_UP and self.go:
            self._synchronise()
            (self.folder / "ready").touch()
            while not self.go.exists():
                time.sleep(0.001)
            self.began = time.time()
        if self.step == self.pause_at:
            self._synchronise()
            (self.folder / "paused").touch()
            time.sleep(3600)
        super()._train_step()

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    """Train as the file says that is named on the command line, and write ``report.pt``."""
    order = tensor_file.load(Path(sys.argv[1]))
    folder = Path(order["folder"])
    shares = {"gpu": 1, "jobs_per_gpu": order.get("jobs_per_gpu", 1)}
    device = select_device(order["device"], 1, shares)
    recipe = Recipe(**order["recipe"])
    held = tensor_file.load(Path(order["bank"]), device)
    method = Method(**order["method"])
    trainer = Watched(method, recipe, ImageBank(**held), ImageBank(**held), 1, device)
    trainer.folder, trainer.pause_at = folder, order.get("pause_at")
    trainer.go = Path(order["go"]) if "go" in order else None
    # A checkpoint at every tenth of the training, whatever it takes.
    saved = Checkpoints(folder / "checkpoint.pt", 1e9)
    every = max(1, recipe.steps // 10)
    saved.due = lambda: trainer.step % every == every // 2
    run = Run("simulated", "n0", method.name, 0, 1)
    trainer.run(TrainingJob(run, method, recipe, saved, device), "")
    trainer._synchronise()
    report = {
        "weights": {key: value.cpu() for key, value in trainer.average.state_dict().items()},
        "first_step": trainer.first_step,
        "began": trainer.began,
        "ended": time.time(),
        "gpu": ",".join(visible_gpus()),
    }
    tensor_file.save(report, folder / "report.pt")


if __name__ == "__main__":
    main()
