"""Proofs derived from the cookie of an instance directory. Pure.

Who can read the cookie file is the user. The cookie itself never travels: what does is an HMAC of it with a
label, so that a proof taken from one door opens no other.
"""

import hashlib
import hmac
from typing import Final

NONCE_HEADER: Final = "X-Trackd-Nonce"
"""A client's challenge to a hub, 32 hex digits, sent without any credential."""

PROOF_HEADER: Final = "X-Trackd-Proof"
"""The hub's answer to it, on its 401: `http_proof`. Only then does the client send its token: after a daemon has
died, another user could listen on its port and collect it."""


def http_token(cookie: bytes) -> str:
    """The bearer token of the HTTP API, in hex: HMAC-SHA256(cookie, "http")."""
    return hmac.new(cookie, b"http", hashlib.sha256).hexdigest()


def http_proof(cookie: bytes, port: int, nonce: str) -> str:
    """What a hub on loopback port `port` answers to a nonce, in hex. The port keeps a relay on another one out."""
    return hmac.new(cookie, f"http-hub:{port}:{nonce}".encode(), hashlib.sha256).hexdigest()
