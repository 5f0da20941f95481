"""Read data files and hub datasets: ``for row in read_rows("my_rows.jsonl"): row.text("question")``.

Every error is a one-line RecipeError that names the file and the line or row. Torch-free.
"""

from reasonrl.datafiles.held_out import hold_out
from reasonrl.datafiles.reader import FORMATS, is_local, local_size, read_rows
from reasonrl.datafiles.rows import DataRow

__all__ = ["FORMATS", "DataRow", "hold_out", "is_local", "local_size", "read_rows"]
