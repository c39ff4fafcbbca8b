"""Proofs derived from the cookie of an instance directory. Pure.

Who can read the cookie file is the user. The cookie itself never travels: what does is an HMAC of it with a
label, so that a proof taken from one door opens no other.
"""

import hashlib
import hmac
from typing import Final

_HTTP: Final = b"http"


def http_token(cookie: bytes) -> str:
    """The bearer token of the HTTP API, in hex: HMAC-SHA256(cookie, "http")."""
    return hmac.new(cookie, _HTTP, hashlib.sha256).hexdigest()
