"""The training step as one CUDA graph, with a recorder of our own in the place of the GPU's."""

import logging
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from denoiseg_flow.methods.definition import Method
from denoiseg_flow.training import batch_norm
from denoiseg_flow.training.cuda_graphs import WARM_UP, Replayed, side_stream
from denoiseg_flow.training.patches import ImageBank
from denoiseg_flow.training.trainer import Trainer

CPU = torch.device("cpu")
N2V = Method(name="n2v", target="blind_spot", alpha=1)
JOINT = Method(name="joint", target="blind_spot", alpha=0.5)


class Recorded(TorchDispatchMode):
    """What was computed, to be computed once more on the same memory, like a CUDA graph."""

    made: ClassVar[list] = []

    def __init__(self):
        super().__init__()
        self.calls, self.generators, self.replays = [], [], 0
        Recorded.made.append(self)

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, output))
        return output

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for function, args, kwargs, output in self.calls:
            repeated = function(*args, **kwargs)
            for old, new in zip(tree_leaves(output), tree_leaves(repeated), strict=True):
                # Views, and what was changed in place, are where they were.
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def recorder(monkeypatch):
    """Put the recorder into the place of CUDA's, and return all recordings made with it."""
    changed = []  # tensors that the recorded function changes

    @contextmanager
    def record(graph, stream):
        """Recording runs nothing on a GPU: afterwards, all is as it was before."""
        before = [values.clone() for values in changed]
        states = [generator.get_state() for generator in graph.generators]
        with graph:
            yield
        with torch.no_grad():
            for values, old in zip(changed, before, strict=True):
                values.copy_(old)
        for generator, state in zip(graph.generators, states, strict=True):
            generator.set_state(state)

    monkeypatch.setattr(batch_norm, "BATCHES", 5)
    monkeypatch.setattr(Recorded, "made", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    return changed


def make_bank():
    """Three noisy images, two of them annotated, and other ones to denoise towards."""
    rng, shape = np.random.default_rng(0), (24, 24)
    classes = [[torch.from_numpy(rng.integers(0, 3, shape).astype(np.int8))] for _ in range(2)]
    images, targets = ([rng.normal(size=(1, *shape)) for _ in range(3)] for _ in range(2))
    return ImageBank.load(images, [*classes, None], [shape] * 3, CPU, targets)


def trained(method, recipe, enabled, changed):
    """Return the trainer after all its steps; every one is replayed that can be, or none."""
    images = make_bank()
    trainer = Trainer(method, recipe, images, images, 1, CPU)
    trainer.compute_gradients.enabled = enabled
    changed[:] = [
        *trainer.network.buffers(), *trainer.average.buffers(), trainer.loss_sums,
    ]  # fmt: skip
    trainer._set_training_mode()
    while trainer.step < recipe.steps:
        if trainer.step == recipe.first_frozen_step:
            trainer._measure_statistics()
        trainer._train_step()
    return trainer


METHODS = [
    N2V,
    JOINT,
    Method(name="baseline", alpha=0),
    Method(name="n2n", target="second_noisy", alpha=1),
    Method(name="dae", target="clean", network="autoencoder", alpha=1),
    replace(N2V, name="n2v2", masking="median", network="unet_blurpool"),
    replace(N2V, name="struct", masking="uniform_without_centre", struct_mask=[[1, 1, 1]]),
    replace(N2V, name="n2s", masking="grid_interpolate", mask_channel=True),
    replace(N2V, name="n2s_dncnn", masking="grid_zero", network="dncnn"),
]


@pytest.mark.parametrize(
    "method, schedule",
    [*((method, "one_cycle") for method in METHODS), (JOINT, "reduce_on_plateau")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_replayed_steps_end_in_the_same_bits(make_recipe, recorder, method, schedule):
    """Nothing that changes from step to step is fixed in the recording, in any phase."""
    recipe = make_recipe(
        patch_size=8, epochs=1, steps_per_epoch=20, freeze_batch_norm=0.3, pseudo_labels=0.5,
        schedule=schedule, ema_decay=0.9,
    )  # fmt: skip
    plain, replayed = (trained(method, recipe, enabled, recorder) for enabled in (False, True))
    for name, values in plain.network.state_dict().items():
        assert torch.equal(values, replayed.network.state_dict()[name]), name
    for name, values in plain.average.state_dict().items():
        assert torch.equal(values, replayed.average.state_dict()[name]), name
    assert torch.equal(plain.loss_sums, replayed.loss_sums)
    assert torch.equal(plain.generator.get_state(), replayed.generator.get_state())
    # A recording each: of the first steps, with pseudo-labels, and with frozen statistics.
    phases = [6, 8, 6] if method is JOINT else [14, 6]
    assert [graph.replays for graph in Recorded.made] == [steps - WARM_UP for steps in phases]


def test_cpu_records_nothing(make_recipe, recorder):
    images = make_bank()
    trainer = Trainer(N2V, make_recipe(patch_size=8), images, images, 1, CPU)
    for _ in range(WARM_UP + 2):
        trainer._train_step()
    assert Recorded.made == []
    with side_stream(CPU):
        pass


class Dice:
    """A generator whose state a failed recording spoils."""

    def __init__(self, state=0):
        self.state = state

    def clone_state(self):
        return Dice(self.state)

    def graphsafe_set_state(self, other):
        self.state = other.state


def test_goes_on_without_recording_where_that_fails(recorder, monkeypatch, caplog):
    calls, dice = [], Dice()

    @contextmanager
    def fail(graph, stream):
        dice.state = "spoiled"
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")

    monkeypatch.setattr(torch.cuda, "graph", fail)
    work = Replayed(lambda: calls.append(dice.state), dice, enabled=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(WARM_UP + 3):
            work()
    # The call inside of the recording did not run: a GPU only notes it.
    assert calls == [0] * WARM_UP + ["spoiled"] + [0] * 3
    (message,) = caplog.messages
    assert "(operation not permitted when stream is capturing)" in message


def test_lack_of_memory_is_not_taken_for_a_failed_recording(recorder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: nullcontext())
    calls = []

    def work():
        calls.append(1)
        if len(calls) > WARM_UP:
            raise torch.OutOfMemoryError("CUDA out of memory")

    replayed = Replayed(work, Dice(), enabled=True)
    for _ in range(WARM_UP):
        replayed()
    with pytest.raises(torch.OutOfMemoryError):
        replayed()
