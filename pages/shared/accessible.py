"""Fixes of the framework's widgets for people who use a screen reader or need more contrast.

Style and script are constants; nothing that a person typed is ever part of them.
"""

from __future__ import annotations

import streamlit as st

# white text on the dark theme's light blue is unreadable, so buttons and tags have one colour in both themes;
# options of a command line are too pale on the light theme
_STYLE = """
<style>
.st-key-mends { display: none; }
button[data-testid="stBaseButton-primary"]:not(:disabled) {
  background-color: #1f5f8b; border-color: #1f5f8b; color: #ffffff;
}
button[data-testid="stBaseButton-primary"]:hover:not(:disabled) { background-color: #174a6d; color: #ffffff; }
[data-testid="stCode"] .token.variable { color: inherit; }
[data-testid="stMultiSelectTagsContainer"] [data-tag] { background-color: #1f5f8b; color: #ffffff; }
</style>
"""
# the navigation puts sections directly into a list, where only items are allowed: each section becomes a list;
# a table wider than the screen scrolls, which the keyboard can do only if the table can have the focus
_SCRIPT = """
<script>
if (!window.copalMends) {
  window.copalMends = true;
  const mend = () => {
    document.querySelectorAll('[data-testid="stSidebarNavItems"]').forEach((nav) => {
      const sections = Array.from(nav.children).filter((child) => child.tagName === 'DIV');
      if (!sections.length) return;
      nav.setAttribute('role', 'group');
      nav.querySelectorAll('li').forEach((item) => item.parentElement.setAttribute('role',
        item.parentElement === nav ? 'group' : 'list'));
      Array.from(nav.children).filter((child) => child.tagName === 'LI')
        .forEach((item) => item.setAttribute('role', 'none'));
    });
    document.querySelectorAll('[data-testid="stTable"] > div').forEach((frame) => {
      if (frame.scrollWidth > frame.clientWidth) frame.setAttribute('tabindex', '0');
    });
  };
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mend(); });
  }).observe(document.body, { childList: true, subtree: true });
  mend();
}
</script>
"""


def improve() -> None:
    """Add style and script to the page without taking up space; called by the app before a page runs."""
    st.html(_STYLE)
    with st.container(key="mends"):
        st.html(_SCRIPT, unsafe_allow_javascript=True)
