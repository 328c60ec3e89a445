"""Vendored assets: what ships is what its makers published, with its licence, and nothing else."""

from __future__ import annotations

import gzip
from hashlib import sha256
from pathlib import Path

import pytest

from router.edge.docs import Docs, VendoredFile, manifest, static, takes_gzip

VENDOR = Path(str(static())) / "vendor"


@pytest.mark.parametrize("vendored", manifest().files, ids=lambda vendored: vendored.file)
def test_a_vendored_file_is_unchanged(vendored: VendoredFile) -> None:
    """Its hash is that of the published file."""
    stored = (VENDOR / vendored.file).read_bytes()
    original = gzip.decompress(stored) if vendored.file.endswith(".gz") else stored
    assert sha256(original).hexdigest() == vendored.sha256


def test_the_manifest_lists_everything() -> None:
    """No stray file, and a licence text beside each package."""
    listed = {each.file for each in manifest().files}
    present = {path.relative_to(VENDOR).as_posix() for path in VENDOR.rglob("*") if path.is_file()}
    assert present == listed | {"MANIFEST.json"}
    for package in {each.package for each in manifest().files}:
        assert f"{package}/LICENSE" in listed
    assert {(each.package, each.version) for each in manifest().files} == {
        ("swagger-ui-dist", "5.35.0"),
        ("redoc", "3.0.1"),
    }


async def test_a_client_without_gzip_gets_the_original() -> None:
    """Decompressed, under the same name."""
    docs = Docs()
    page = docs.swagger().body.decode()
    name = page.partition('src="/assets/')[2].partition('"')[0]
    packed = await docs.asset(name, "gzip, deflate, br")
    plain = await docs.asset(name, "")
    assert packed.headers is not None
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "immutable" in packed.headers["Cache-Control"]
    assert plain.headers is not None
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body


def test_no_placeholder_is_left_in_a_page() -> None:
    """Every name in a template was given a value."""
    for page in (Docs().swagger(), Docs().redoc()):
        assert b"[[" not in page.body
        assert page.headers is not None
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip", True),
        ("GZIP;q=0.5, br", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*;q=0, gzip", True),
        ("gzip;q=0, *", False),
    ],
)
def test_accept_encoding(header: str, takes: bool) -> None:
    """RFC 9110: a weight of zero refuses."""
    assert takes_gzip(header) is takes
