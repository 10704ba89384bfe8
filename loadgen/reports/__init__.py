"""Reports: what was measured, for people and for programs. Each file renders one thing; nothing here measures."""

FORMATS = ("text", "markdown", "csv", "json", "junit", "html")
"""The formats of ``loadgen report``."""

LAYOUTS = ("published",)
"""Its layouts: the columns of a published table in place of our own."""
