"""Which files are pictures, and which of these are not decoded: by name, and by how a file begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrad.storage.impostors import impostor

DECODED = frozenset(("apng", "avif", "bmp", "dib", "gif", "jfi", "jfif", "jif", "jpe", "jpeg", "jpg")) | frozenset(
    ("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp")
)
_BY_PLUGIN = frozenset(("heic", "heif", "hif", "jxl"))
_RAW = (
    *("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "iiq", "k25", "kdc", "mef", "mos", "mrw", "nef"),
    *("nrw", "orf", "pef", "raf", "rw2", "rwl", "sr2", "srf", "srw", "x3f"),
)
_UNREAD = {
    **dict.fromkeys(_RAW, "camera RAW"),  # Pillow may find a thumbnail in such, and nothing else
    **dict.fromkeys(("j2c", "j2k", "jp2", "jpc", "jpf", "jph", "jpm", "jpx"), "JPEG 2000"),
    **dict.fromkeys(("hdp", "jxr", "wdp"), "JPEG XR"),
    **dict.fromkeys(("psb", "psd"), "Photoshop"),
    **dict.fromkeys(("svg", "svgz"), "SVG"),
    **dict.fromkeys(("dcm", "dicom"), "DICOM"),
    **{name: name.upper() for name in ("dds", "exr", "ico", "pcx", "qoi", "tga", "xcf")},
}
_PLUGINS = "install regrad[heif], or convert the files to JPEG or PNG"
_CONVERT = "convert the files to JPEG, PNG or TIFF"
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
_JXL = b"\xff\x0a"
_JXL_RATIOS = ((1, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_BEGINNINGS = (
    (_JXL, "JPEG XL", _PLUGINS),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", _PLUGINS),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", _CONVERT),
    (b"\xff\x4f\xff\x51", "JPEG 2000", _CONVERT),
    (b"8BPS", "Photoshop", _CONVERT),
    (b"<svg", "SVG", _CONVERT),
    (b"FUJIFILMCCD-RAW", "camera RAW", _CONVERT),
    (b"IIU\0", "camera RAW", _CONVERT),
    (b"IIRO", "camera RAW", _CONVERT),
    (b"IIRS", "camera RAW", _CONVERT),
    (b"MMOR", "camera RAW", _CONVERT),
    (b"FOVb", "camera RAW", _CONVERT),
)
_DNG_VERSION, _NEW_SUBFILE_TYPE, _SUB_IFDS = 50706, 254, 330  # tags of TIFF


def is_image(name: str) -> bool:
    """Whether a file's name ends like an image's, decoded here or not."""
    ending = _ending(name)
    return ending in DECODED or ending in _BY_PLUGIN or ending in _UNREAD


def is_decoded(name: str) -> bool:
    """Whether a file's name ends like that of an image that is decoded here."""
    return _ending(name) in DECODED


def why_unread(name: str) -> str | None:
    """Why a picture of this name is not even read, and what to do; None for one that is, since its content decides.

    >>> why_unread("IMG_1.NEF")
    'camera RAW pictures are not decoded here: convert the files to JPEG, PNG or TIFF'
    >>> why_unread("a.jpg"), why_unread("a.heic")
    (None, None)
    """
    what = _UNREAD.get(_ending(name))
    return what and _not_decoded(what, _CONVERT)


def why_unknown(content: bytes) -> str | None:
    """What a file is that no decoder took, if its first bytes tell, and what to do.

    >>> why_unknown(bytes(4) + b"ftypheic")
    'HEIC pictures are not decoded here: install regrad[heif], or convert the files to JPEG or PNG'
    """
    begin = content[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, what, remedy in _BEGINNINGS:
        if content.startswith(magic) or (what == "SVG" and _is_svg(begin)):
            return _not_decoded(what, remedy)
    if content[4:8] == b"ftyp":
        return _of_brands(content)
    if content[128:132] == b"DICM":
        return _not_decoded("DICOM", _CONVERT)
    return impostor(content)


def is_raw(tags: Mapping[int, Any], content: bytes) -> bool:
    """Whether a TIFF file with these ``tags`` is what a camera's sensor saw, and the picture in it a small preview."""
    reduced = bool(int(tags.get(_NEW_SUBFILE_TYPE) or 0) & 1) and _SUB_IFDS in tags
    return _DNG_VERSION in tags or reduced or content[8:10] == b"CR"


def raw_refused() -> str:
    """Why a file with :func:`is_raw` is not decoded."""
    return _not_decoded("camera RAW", _CONVERT)


def is_jxl(content: bytes) -> bool:
    """Whether a decoder of JPEG XL would take it, which tells no size before it has decoded all of a picture."""
    return content.startswith(_JXL) or content[4:7] == b"JXL"


def jxl_size(content: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG XL file, from its header alone; None where that is missing."""
    if content.startswith(_JXL):
        start = 0
    else:
        boxes = [(place, 8 + 4 * (kind == b"jxlp")) for kind in (b"jxlc", b"jxlp") if (place := content.find(kind)) > 0]
        if not boxes:
            return None
        start = min(place - 4 + length for place, length in boxes)
    if content[start : start + 2] != _JXL:
        return None
    bits = int.from_bytes(content[start + 2 : start + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def length() -> int:
        return 8 * (1 + take(5)) if small else 1 + take((9, 13, 18, 30)[take(2)])

    height = length()
    ratio = take(3)
    above, below = _JXL_RATIOS[ratio]
    return (height * above // below if ratio else length()), height


def _of_brands(content: bytes) -> str | None:
    brands = [content[8:12], *(content[place : place + 4] for place in range(16, min(len(content), 64), 4))]
    if b"avif" in brands or b"avis" in brands:
        return _not_decoded("AVIF", "install Pillow 11.3 or later, or convert the files to JPEG or PNG")
    if brands[0] == b"crx ":
        return raw_refused()
    return _not_decoded("HEIC", _PLUGINS) if _HEIF_BRANDS.intersection(brands) else None


def _is_svg(begin: bytes) -> bool:
    return begin.startswith((b"<?xml", b"<!--", b"<svg", b"<!DOCTYPE svg")) and b"<svg" in begin


def _not_decoded(what: str, remedy: str) -> str:
    return f"{what} pictures are not decoded here: {remedy}"


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()
