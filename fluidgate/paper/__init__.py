"""The published evaluation: one module for each figure and table, on top of the library."""
