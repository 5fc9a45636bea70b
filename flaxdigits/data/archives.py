"""Zip and 7z archives read in memory, within the sizes that they declare."""

import bz2
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

_LOCAL_HEADER = 30  # bytes; the lengths of name and extra field are its last four
_ENCRYPTED = 1  # of an entry's flags
_LZMA_MEMORY = 1 << 28


class ArchiveError(Exception):
    """An archive is damaged, larger than expected or of a kind that is not read."""


def zip_entries(file: BinaryIO) -> list[zipfile.ZipInfo]:
    """Returns the entries of a zip's directory.

    Raises:
      ArchiveError: the file is no zip or its directory is damaged.
    """
    try:
        return zipfile.ZipFile(file).infolist()
    except Exception as error:  # many kinds, of which only BadZipFile is documented
        raise ArchiveError(_one_line(error)) from error


def check_size(name: str, declared: int, largest: int) -> None:
    """Raises ArchiveError if a file in an archive is declared larger than `largest` bytes."""
    if declared > largest:
        raise ArchiveError(
            f"{name!a:.80} is declared as {declared} bytes, and at most {largest} are "
            "expected")


def read_zip_entry(file: BinaryIO, entry: zipfile.ZipInfo) -> bytes:
    """Returns the content of a zip's entry: as many bytes as its directory declares.

    `ZipFile.read` expands LZMA and bzip2 without a bound. The CRC is not compared here: whoever
    reads has a better checksum.

    Raises:
      ArchiveError: the entry is damaged, encrypted, or compressed in another way than stored,
        deflated, bzip2 or LZMA.
    """
    name = ascii(entry.filename)[:80]
    if entry.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"{name} is encrypted")
    try:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER)
        skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:], "little")
        file.seek(skipped, os.SEEK_CUR)
        # Nothing grows by half when it is compressed, but for a header.
        compressed = file.read(min(entry.compress_size, 3 * entry.file_size // 2 + 1024))
        content = _expand(compressed, entry.compress_type, entry.file_size + 1)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError) as error:
        raise ArchiveError(f"{name}: {_one_line(error)}") from error
    if len(content) != entry.file_size:
        raise ArchiveError(f"{name} is not as long as its {entry.file_size} bytes declared")
    return content


def read_7z(
    file: BinaryIO, is_wanted: Callable[[str], bool], largest: int, largest_sum: int
) -> Iterator[tuple[str, bytes]]:
    """Reads those files of a 7z archive whose names are wanted.

    Args:
      largest: the most bytes that one of them may have.
      largest_sum: the most bytes that all files of the archive may have together.

    Yields: names and contents.

    Raises:
      ArchiveError: the archive is damaged or declares larger files.
      ImportError: py7zr is not installed.
    """
    import py7zr

    contents = py7zr.io.BytesIOFactory(largest)
    try:
        with py7zr.SevenZipFile(file) as archive:
            files = archive.list()
            wanted = [info for info in files if is_wanted(info.filename)]
            check_size("the whole", sum(info.uncompressed for info in files), largest_sum)
            for info in wanted:
                check_size(info.filename, info.uncompressed, largest)
            archive.extract(targets=[info.filename for info in wanted], factory=contents)
    except ArchiveError:
        raise
    except Exception as error:  # of a damaged archive py7zr lets many kinds through
        raise ArchiveError(_one_line(error)) from error
    for name, content in contents.products.items():
        content.seek(0)
        yield name, content.read()


def _expand(content: bytes, method: int, largest: int) -> bytes:
    match method:
        case zipfile.ZIP_STORED:
            return content[:largest]
        case zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, largest)
        case zipfile.ZIP_BZIP2:
            return bz2.BZ2Decompressor().decompress(content, largest)
        case zipfile.ZIP_LZMA:
            # A version and the length of the properties, then those, then the stream. With an
            # unknown length after the properties it is a file as LZMADecompressor reads it.
            length = int.from_bytes(content[2:4], "little")
            stream = content[4:4 + length] + b"\xff" * 8 + content[4 + length:]
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY)
            return decompressor.decompress(stream, largest)
    raise ValueError(f"compressed by method {method}, which is not read")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
