import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from neuroreel.core.errors import DataError
from neuroreel.datasets.archives import unpack


def make_tar(file: Path, members: dict[str, bytes], link: str = "") -> Path:
    with tarfile.open(file, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return file


def make_zip(file: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file


@pytest.mark.parametrize("make, suffix", [(make_tar, "tar.gz"), (make_zip, "zip")])
def test_files_and_folders_come_out(tmp_path: Path, make: object, suffix: str) -> None:
    archive = make(tmp_path / f"a.{suffix}", {"one.txt": b"1", "deep/er/two.txt": b"2"})  # type: ignore[operator]
    out = unpack(archive, tmp_path / "out")
    assert (out / "one.txt").read_bytes() == b"1" and (out / "deep" / "er" / "two.txt").read_bytes() == b"2"


@pytest.mark.parametrize("make, suffix", [(make_tar, "tar.gz"), (make_zip, "zip")])
@pytest.mark.parametrize("member", ["../x", "/etc/x", "a/../../x", "..\\x", "C:\\x"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, make: object, suffix: str, member: str) -> None:
    archive = make(tmp_path / f"a.{suffix}", {"good.txt": b"1", member: b"2"})  # type: ignore[operator]
    with pytest.raises(DataError, match=r"^path must stay inside its folder, got '.*x' \(.*\)$"):
        unpack(archive, tmp_path / "deep" / "out")
    assert [each.name for each in tmp_path.iterdir()] == [archive.name]


def test_links_and_broken_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^archive member must be a file or a folder, got 'link'"):
        unpack(make_tar(tmp_path / "a.tar.gz", {"x": b"1"}, link="/etc/passwd"), tmp_path / "out")
    whole = make_tar(tmp_path / "b.tar.gz", {"x": bytes(range(256)) * 4000}).read_bytes()
    (tmp_path / "b.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"^archive must be a whole zip or tar file, got "):
        unpack(tmp_path / "b.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
