"""What the framework's own widgets lack for people who use a screen reader or need contrast.

Style and script here are constants of our own; nothing that a person typed is ever part of them.
"""

from __future__ import annotations

import streamlit as st

# white on the dark theme's light blue cannot be read; the same button and the same tag serve both themes;
# an option of a command line is too pale on the light one
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
# the navigation puts sections straight into a list, where only items may be: each section becomes a list;
# a table wider than a phone scrolls by itself, which the keyboard can do only once it has the focus
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
    """Called by the app before a page runs; takes no room on it."""
    st.html(_STYLE)
    with st.container(key="mends"):
        st.html(_SCRIPT, unsafe_allow_javascript=True)
