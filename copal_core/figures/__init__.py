"""Tables and plotly figures of a run's records. Nothing here imports torch or streamlit.

Each module pairs a function that builds a small table with one that draws it, so that a page can show, and offer for
download, exactly the numbers in the figure.
"""
