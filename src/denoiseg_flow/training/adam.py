"""Adam without its preparation for ``torch.compile``.

The methods of PyTorch's optimisers have decorators that import the compiler, only to exclude them
from compilation. In each training this takes longer than reading the images of a study.
"""

from inspect import unwrap

import torch


class Adam(torch.optim.Adam):
    """Bit-identical to ``torch.optim.Adam`` (Kingma & Ba 2015), but starts faster."""

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)
    # One of the removed decorators disabled gradients.
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
