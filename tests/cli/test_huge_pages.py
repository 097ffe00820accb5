"""Trainings ask for huge pages, once, and only where that helps."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from stride_jax.cli import huge_pages


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What was started again, on a machine that grants huge pages on request."""
    calls: list[Any] = []
    kernel = tmp_path / "enabled"
    kernel.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "KERNEL", kernel)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "train.py", "beijing"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return calls


def test_a_training_starts_again_with_huge_pages(started: list[Any]) -> None:
    """It would spend a quarter of its time on page faults, or lose its arguments."""
    huge_pages.restart_with_huge_pages()
    ((program, arguments, environment),) = started
    assert program == sys.executable
    assert arguments == [sys.executable, "-X", "dev", "train.py", "beijing"]
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("value", ["", "glibc.malloc.hugetlb=1", "glibc.malloc.check=3"])
def test_it_starts_again_only_once(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """It would start itself for ever, or overwrite what the user wishes."""
    monkeypatch.setenv("GLIBC_TUNABLES", value)
    huge_pages.restart_with_huge_pages()
    assert not started


@pytest.mark.parametrize("mode", ["[always] madvise never", "always madvise [never]"])
def test_other_modes_of_the_kernel_need_no_request(started: list[Any], mode: str) -> None:
    """A start of two seconds would be for nothing."""
    huge_pages.KERNEL.write_text(mode)
    huge_pages.restart_with_huge_pages()
    assert not started


@pytest.mark.parametrize("library", ["glibc 2.34", "musl 1.2", None])
def test_other_libraries_have_no_such_tunable(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, library: str | None
) -> None:
    """The same, on an older or another system."""
    monkeypatch.setattr(os, "confstr", lambda name: library)
    huge_pages.restart_with_huge_pages()
    assert not started


def test_other_systems_are_left_alone(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """MacOS has no such file, and Windows no confstr."""
    monkeypatch.setattr(huge_pages, "KERNEL", tmp_path / "nowhere")
    huge_pages.restart_with_huge_pages()
    monkeypatch.setattr(sys, "platform", "win32")
    huge_pages.restart_with_huge_pages()
    assert not started
