"""Credentials in code: a document with one is left out as a whole.

The patterns are detect-secrets' own, of the kinds that are recognised by their form alone. Its scanner goes line by
line through every plugin (3.5 ms a KB), and its keyword and entropy plugins find more test data than secrets; here a
document is searched for the literal start of each kind first, which for most ends the matter (0.015 ms a KB).
"""

from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.private_key import PrivateKeyDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector

# (what every credential of the kind contains, who decides)
_KINDS: tuple[tuple[tuple[str, ...], RegexBasedDetector], ...] = (
    (("AKIA", "ASIA", "ABIA", "ACCA", "A3T", "aws", "AWS", "Aws"), AWSKeyDetector()),
    (("AccountKey=",), AzureStorageKeyDetector()),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), GitHubTokenDetector()),
    (
        ("glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "GR1348941", "glcbt-", "glptt-", "gloas-"),
        GitLabTokenDetector(),
    ),
    (("eyJ",), JwtTokenDetector()),
    (("T3BlbkFJ",), OpenAIDetector()),
    (("PRIVATE KEY", "PuTTY-User-Key-File"), PrivateKeyDetector()),
    (("pypi-AgE", "pypi-AgEN"), PypiTokenDetector()),
    (("SG.",), SendGridDetector()),
    (("xox", "XOX", "hooks.slack.com"), SlackDetector()),
    (("sq0csp-",), SquareOAuthDetector()),
    (("k_live_",), StripeDetector()),
)


def credential_in(text: str) -> str | None:
    """The kind of the first credential in `text`."""
    for starts, detector in _KINDS:
        if any(start in text for start in starts) and next(iter(detector.analyze_string(text)), None):
            return str(detector.secret_type)
    return None
