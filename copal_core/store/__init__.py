"""Folders of runs and groups: configuration, tables, arrays, state."""
