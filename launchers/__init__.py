"""Recipes (data) and the server programs that they start. Nothing here is imported by loadgen; it is read by path."""
