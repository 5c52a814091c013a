"""The server around the pages: which names it answers to, who may frame it, and the browser that it opens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from streamlit.cli_util import open_browser
from streamlit.runtime.pages_manager import PagesManager
from streamlit.web.server.server_util import get_display_address, get_url

from copal_core.system import sharing

# A folder named pages makes Streamlit look for page files of its own until the first visit has called st.navigation: a
# deep link as the very first request would then be "Page not found".
PagesManager.uses_pages_directory = False


def middleware() -> list[Middleware]:
    """Guards of every request, and of the handshake of every WebSocket.

    Raises InvalidValueError when COPAL_HOSTS cannot be read.
    """
    names = sharing.hosts(st.get_option("server.address"))
    return [
        Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False),
        Middleware(BaseHTTPMiddleware, dispatch=_unframed),
    ]


async def _unframed(request: Request, answer: RequestResponseEndpoint) -> Response:
    """Let no page of somebody else's lay the app under its own buttons."""
    response = await answer(request)
    response.headers["X-Frame-Options"] = "DENY"
    return response


@asynccontextmanager
async def opened(_: st.App) -> AsyncIterator[None]:
    """Open the browser unless the server is headless; Streamlit does so only for apps without guards."""
    if not st.get_option("server.headless"):
        address = get_display_address(st.get_option("server.address") or "localhost")
        # a moment later, for the server listens only once this has returned
        asyncio.get_running_loop().call_later(1, open_browser, get_url(address))
    yield
