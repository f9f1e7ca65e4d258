"""Adam: PyTorch's own, without its compiler."""

import subprocess
import sys

import torch

from denoiseg_flow.training.adam import Adam


def trained(optimiser_class, steps=6):
    """Weights after some steps on random numbers, with the state written and read half-way."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(8, generator=generator, requires_grad=True)
    optimiser = optimiser_class([weights], lr=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    for step in range(steps):
        optimiser.zero_grad(set_to_none=True)
        (weights * torch.rand(8, generator=generator)).square().sum().backward()
        optimiser.step()
        schedule.step()
        if step == steps // 2:
            state = optimiser.state_dict()
            optimiser = optimiser_class([weights], lr=0.1, fused=True)
            optimiser.load_state_dict(state)
            schedule.optimizer = optimiser
    return weights


def test_weights_are_those_of_torch():
    assert torch.equal(trained(Adam), trained(torch.optim.Adam))


def test_a_step_is_not_recorded():
    """The step itself must not become part of the graph, as PyTorch's decorator sees to."""
    weights = trained(Adam)
    assert weights.is_leaf and weights.requires_grad
    assert torch.is_grad_enabled()


def test_compiler_is_not_imported():
    """What the class is for: the import takes seconds at the start of every training."""
    program = (
        "import sys, torch; from denoiseg_flow.jobs.devices import select_device; "
        "from denoiseg_flow.training.adam import Adam; select_device('cpu', 1); "
        "weights = torch.ones(3, requires_grad=True); adam = Adam([weights], fused=True); "
        "adam.zero_grad(); weights.sum().backward(); adam.step(); "
        "adam.load_state_dict(adam.state_dict()); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
