"""COPAL Explorer: page settings and navigation, nothing else. Streamlit runs this file for every visit."""

from __future__ import annotations

import streamlit as st

from pages.shared import ICON, accessible, links, people, serving

if __name__ == "__main__":  # a visit
    st.set_page_config("COPAL Explorer", page_icon=ICON, layout="wide")
    people.introduce()
    links.restore()
    sections = {
        "": [
            # the default page answers at / alone; what it calls its path is taken from others, so not "start"
            st.Page(
                "pages/start/page.py", title="Start", url_path="home", icon=":material/home:", default=True
            ),
            st.Page(links.start, title="Start", url_path="start", visibility="hidden"),
            st.Page("pages/learn/page.py", title="Learn", url_path="learn", icon=":material/school:"),
        ],
        "Set up": [
            st.Page(
                "pages/checkpoint/page.py",
                title="Checkpoint",
                url_path="checkpoint",
                icon=":material/deployed_code:",
            ),
            st.Page("pages/domains/page.py", title="Domains", url_path="domains", icon=":material/timeline:"),
            st.Page("pages/prune/page.py", title="Prune", url_path="prune", icon=":material/content_cut:"),
        ],
        "Look": [
            st.Page(
                "pages/sensitivity/page.py",
                title="Sensitivity",
                url_path="sensitivity",
                icon=":material/grid_on:",
            ),
            st.Page(
                "pages/stasis/page.py",
                title="Stasis and forgetting",
                url_path="stasis",
                icon=":material/trending_up:",
            ),
            st.Page(
                "pages/lowrank/page.py",
                title="Masks and low rank",
                url_path="lowrank",
                icon=":material/compare_arrows:",
            ),
            st.Page(
                "pages/families/page.py",
                title="Families",
                url_path="families",
                icon=":material/account_tree:",
            ),
            st.Page("pages/neurons/page.py", title="Neurons", url_path="neurons", icon=":material/share:"),
            st.Page(
                "pages/diagnose/page.py",
                title="Diagnose",
                url_path="diagnose",
                icon=":material/troubleshoot:",
            ),
        ],
        "Keep": [
            st.Page("pages/runs/page.py", title="Runs", url_path="runs", icon=":material/folder_open:"),
            st.Page("pages/sweep/page.py", title="Sweep", url_path="sweep", icon=":material/scatter_plot:"),
            st.Page("pages/report/page.py", title="Report", url_path="report", icon=":material/description:"),
        ],
    }
    page = st.navigation(sections)
    accessible.improve()
    page.run()
else:  # the server, before anybody visits
    app = st.App(__file__, middleware=serving.middleware(), lifespan=serving.opened)
