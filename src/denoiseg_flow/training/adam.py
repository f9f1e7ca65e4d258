"""Adam without what prepares it for ``torch.compile``.

The methods of PyTorch's optimisers are wrapped in decorators that import its compiler, only to tell
it to leave them alone. That takes longer than reading the images of a study, in every training.
"""

from inspect import unwrap

import torch


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` to the last bit (Kingma & Ba 2015), faster to start."""

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)
    # One of the decorators switched the gradients off.
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
