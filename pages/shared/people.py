"""Identity of people on a shared server: a secret in the browser's cookies, never shown to anyone.

It is derived from the random token that Streamlit stores in a cookie against forged requests. That cookie is deleted
when the browser is closed, so a cookie of this product stores the derived secret for a year.
"""

from __future__ import annotations

import hashlib
import re

import streamlit as st

from copal_core.system import sharing

_COOKIE, _YEAR = "copal-person", 31_536_000
_SECRET = re.compile(r"[0-9a-f]{64}\Z")
_TOKEN = re.compile(r"2\|([0-9a-f]{8})\|([0-9a-f]{32,})\|[0-9]+\Z")


def introduce() -> None:
    """Tell the core how to identify people, and set the cookie on a shared server; called by the app."""
    sharing.identify_by(_person)
    if sharing.enabled():
        known = st.context.cookies.get(_COOKIE)
        secret = _from_token()
        if secret is not None and not (known and _SECRET.match(known)):
            _keep(secret)


def _person() -> str:
    """Return a hash that does not reveal the secret; without cookies it is valid while the page is open."""
    known = st.context.cookies.get(_COOKIE) or ""
    secret = known if _SECRET.match(known) else _from_token() or _of_session()
    return hashlib.sha256(f"owner {secret}".encode()).hexdigest()[:32]


def _from_token() -> str | None:
    """Derive the secret that all tabs of a browser share before they have the cookie; None without a token.

    Streamlit masks the token with new random bytes each time: token = masked XOR mask.
    """
    match = _TOKEN.match((st.context.cookies.get("_streamlit_xsrf") or "").strip("\"'"))
    if match is None:
        return None
    mask, masked = bytes.fromhex(match[1]), bytes.fromhex(match[2][: len(match[2]) // 2 * 2])
    token = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
    return hashlib.sha256(b"person " + token).hexdigest()


def _of_session() -> str:
    import secrets

    return st.session_state.setdefault("person-without-cookies", secrets.token_hex(32))


def _keep(secret: str) -> None:
    """Set the cookie. Raises ValueError unless the secret, which becomes part of a script, is hexadecimal."""
    st.html(
        f"<script>document.cookie = '{_COOKIE}={bytes.fromhex(secret).hex()}; Path=/; Max-Age={_YEAR}; SameSite=Lax'"
        " + (location.protocol === 'https:' ? '; Secure' : '')</script>",
        unsafe_allow_javascript=True,
    )
