"""Published tables: their figures as data, what their columns mean, and how measured cells are laid beside their rows.

A name in a scenario (``published: qwen2_vllm``) is a pair of files in this folder: the figures as they were published
(.csv, copied and never changed) and what is known of them (.yaml). README.md lists them.
"""
