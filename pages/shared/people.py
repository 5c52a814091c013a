"""Who asks, on a server that several people share: a secret that the browser keeps, never shown to anybody.

At first it is the random token that Streamlit keeps in a cookie of the browser against forged requests; that one is
forgotten when the browser is closed, so a cookie of this product's own keeps what follows from it for a year.
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
    """Let the core know who asks. Called by the app; nothing happens unless the server is shared."""
    sharing.identify_by(_person)
    if sharing.enabled():
        known = st.context.cookies.get(_COOKIE)
        secret = _from_token()
        if secret is not None and not (known and _SECRET.match(known)):
            _keep(secret)


def _person() -> str:
    """A hash that says nothing of the secret; a person without cookies lasts as long as the page is open."""
    known = st.context.cookies.get(_COOKIE) or ""
    secret = known if _SECRET.match(known) else _from_token() or _of_session()
    return hashlib.sha256(f"owner {secret}".encode()).hexdigest()[:32]


def _from_token() -> str | None:
    """What all tabs of one browser agree on before they have the cookie. The token is masked anew each time."""
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
    """Set the cookie. secret: hexadecimal digits; anything else is a ValueError, for it becomes part of a script."""
    st.html(
        f"<script>document.cookie = '{_COOKIE}={bytes.fromhex(secret).hex()}; Path=/; Max-Age={_YEAR}; SameSite=Lax'"
        " + (location.protocol === 'https:' ? '; Secure' : '')</script>",
        unsafe_allow_javascript=True,
    )
