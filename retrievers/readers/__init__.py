"""Files in, documents out.

    files = list_files("docs")                      # cheap: for progress, and to show what will be read
    for document in read_files(files, skipped.append): ...

Nothing here opens a network connection, expands an XML entity or runs code from a file.
"""

from __future__ import annotations

from retrievers.readers.reading import SUFFIXES, Skipped, read, read_files
from retrievers.readers.source import MAX_BYTES, SourceFile, list_files

__all__ = ["MAX_BYTES", "SUFFIXES", "Skipped", "SourceFile", "list_files", "read", "read_files"]
