"""What tests of refusals share."""

import pytest

from denoiseg_flow.errors import InputError


def refusal(function, *arguments, **options):
    """Return the message of the InputError, having checked that it is one short sentence."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message
