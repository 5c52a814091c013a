"""From records to tables and plotly figures. Nothing here imports torch or streamlit.

Each module pairs a function that makes a small table with one that draws it, so that a page can show
and offer for download exactly the numbers that are drawn.
"""
