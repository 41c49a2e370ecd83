"""What all pictures of the documentation have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include>/etc/fonts/fonts.conf</include>
  <match target="pattern">
    <test name="family" qual="any" compare="contains"><string>sans</string></test>
    <test name="family" qual="all" compare="not_contains"><string>mono</string></test>
    <edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit>
  </match>
</fontconfig>
"""
"""What a desktop has as its font, where it is installed (apt install fonts-inter)."""


def use_fonts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For browsers started from now on; `place` is a directory."""
    path = place / "fonts.conf"
    path.write_text(FONTS)
    monkeypatch.setenv("FONTCONFIG_FILE", str(path))
