"""What several test files share: how hypothesis draws, and the real vocabulary."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings

from diffcode import hub
from diffcode.loading import folder_of
from diffcode.tokens import Tokens

# The same examples in every run; the deadline allows for a busy machine and still notices a hang.
settings.register_profile(
    "diffcode", derandomize=True, deadline=timedelta(seconds=5), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("diffcode")


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    """The default model's vocabulary, without its weights."""
    return Tokens.from_folder(folder_of(hub.pull()))
