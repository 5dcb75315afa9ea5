"""What trace files look like: which columns, in which unit, in which kind of file."""

from fluidgate.workloads.formats.brought import read_by_others
from fluidgate.workloads.formats.catalogue import FORMATS
from fluidgate.workloads.formats.format import Format
from fluidgate.workloads.formats.reading import read_table
from fluidgate.workloads.formats.recognise import recognise
from fluidgate.workloads.formats.table import Table

__all__ = ["FORMATS", "Format", "Table", "read_by_others", "read_table", "recognise"]
