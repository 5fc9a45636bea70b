"""Reads zip and 7z archives in memory, without exceeding the sizes that they declare."""

import bz2
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

_LOCAL_HEADER = 30  # bytes before an entry's name; the last four: lengths of name and extra field
_ENCRYPTED = 1  # the flag of an encrypted entry
_LZMA_MEMORY = 1 << 28  # bytes; bounds the dictionary size that a damaged entry may declare


class ArchiveError(Exception):
    """An archive is damaged, larger than expected, or of an unsupported kind."""


def zip_entries(file: BinaryIO) -> list[zipfile.ZipInfo]:
    """Returns the entries in the directory of a zip file.

    Raises:
      ArchiveError: if the file is not a zip file, or its directory is damaged.
    """
    try:
        return zipfile.ZipFile(file).infolist()
    except Exception as error:  # of many types, of which only BadZipFile is documented
        raise ArchiveError(_one_line(error)) from error


def check_size(name: str, declared: int, largest: int) -> None:
    """Raises ArchiveError if a file in an archive is declared larger than `largest` bytes."""
    if declared > largest:
        printable = name.encode("unicode_escape").decode()[:80]
        raise ArchiveError(
            f"{printable} is declared as {declared} bytes, and at most {largest} are expected")


def read_zip_entry(file: BinaryIO, entry: zipfile.ZipInfo) -> bytes:
    """Returns the content of an entry of a zip file: as many bytes as the directory declares.

    `ZipFile.read` is not used, since it expands LZMA and bzip2 without a bound. The CRC is not
    checked, since the callers verify the content by a better checksum.

    Raises:
      ArchiveError: if the entry is damaged or encrypted, or its compression method is not stored,
        deflate, bzip2 or LZMA.
    """
    name = ascii(entry.filename)[:80]
    if entry.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"{name} is encrypted")
    try:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER)
        skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:], "little")
        file.seek(skipped, os.SEEK_CUR)
        # Apart from a header, no compressed content is longer than 3/2 of the original.
        compressed = file.read(min(entry.compress_size, 3 * entry.file_size // 2 + 1024))
        content = _expand(compressed, entry.compress_type, entry.file_size + 1)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError) as error:
        raise ArchiveError(f"{name}: {_one_line(error)}") from error
    if len(content) != entry.file_size:
        raise ArchiveError(f"{name} does not have its declared size of {entry.file_size} bytes")
    return content


def read_7z(
    file: BinaryIO, is_wanted: Callable[[str], bool], largest: int, largest_sum: int
) -> Iterator[tuple[str, bytes]]:
    """Reads files of a 7z archive.

    Args:
      file: the archive.
      is_wanted: returns whether the file of a name is to be read.
      largest: the maximum size of one of these files, in bytes.
      largest_sum: the maximum size of all files in the archive together, in bytes.

    Yields:
      Names and contents of the files.

    Raises:
      ArchiveError: if the archive is damaged, or declares larger files.
      ImportError: if py7zr is not installed.
    """
    import py7zr.io

    contents = py7zr.io.BytesIOFactory(largest)
    try:
        with py7zr.SevenZipFile(file) as archive:
            files = archive.list()
            wanted = [info for info in files if is_wanted(info.filename)]
            check_size("the archive", sum(info.uncompressed for info in files), largest_sum)
            for info in wanted:
                check_size(info.filename, info.uncompressed, largest)
            archive.extract(targets=[info.filename for info in wanted], factory=contents)
    except ArchiveError:
        raise
    except Exception as error:  # py7zr raises many types for a damaged archive
        raise ArchiveError(_one_line(error)) from error
    for name, content in contents.products.items():
        content.seek(0)
        yield name, content.read()


def _expand(content: bytes, method: int, largest: int) -> bytes:
    """Returns at most `largest` bytes of the decompressed content of a zip entry.

    Raises:
      ValueError: if the compression method is not supported.
    """
    match method:
        case zipfile.ZIP_STORED:
            return content[:largest]
        case zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, largest)
        case zipfile.ZIP_BZIP2:
            return bz2.BZ2Decompressor().decompress(content, largest)
        case zipfile.ZIP_LZMA:
            # The entry has a version, the length of the properties, the properties and the stream.
            # LZMADecompressor expects the properties, an unknown length (-1), and the stream.
            length = int.from_bytes(content[2:4], "little")
            stream = content[4:4 + length] + b"\xff" * 8 + content[4 + length:]
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY)
            return decompressor.decompress(stream, largest)
    raise ValueError(f"the compression method {method} is not supported")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
