"""Artifacts: digests that time does not change, damage that is found, and disks that say no."""

from __future__ import annotations

import errno
import hashlib
import json
import locale
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tumen.core.artifact import (
    MANIFEST,
    Manifest,
    Payload,
    add_facts,
    done,
    hash_of,
    manifest_of,
    replace_folder,
    verify,
    write_text,
    writing,
)
from tumen.core.errors import ArtifactError, DiskError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def make(folder: Path, text: str = "hello", **facts: object) -> Manifest:
    with writing(folder, "corpus", "asked", ["parent"], dict(facts)) as stage:
        (stage / "a.txt").write_text(text)
        (stage / "deep").mkdir()
        (stage / "deep" / "b.bin").write_bytes(b"\x00" * 100)
    return verify(folder)


class Place(BaseModel):
    """A section of a recipe with a field that JSON does not have."""

    path: Path
    wide: bool


def rewrite(folder: Path, **changes: object) -> None:
    """Change fields of a manifest, as one with an editor would."""
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "corpus")
    return tmp_path / "corpus"


class TestDigest:
    def test_is_of_kind_and_content_alone(self, tmp_path: Path) -> None:
        first = make(tmp_path / "x", seconds=1.0)
        time.sleep(0.02)
        second = make(tmp_path / "elsewhere" / "y", seconds=2.0)
        assert first.digest == second.digest
        assert first.facts != second.facts

    def test_changes_with_content_name_and_kind(self, tmp_path: Path) -> None:
        digests = {make(tmp_path / "a").digest, make(tmp_path / "b", "hellp").digest}
        with writing(tmp_path / "c", "dataset", "asked", []) as stage:
            shutil.copytree(tmp_path / "a", stage, dirs_exist_ok=True)
        with writing(tmp_path / "d", "corpus", "asked", []) as stage:
            (stage / "b.txt").write_text("hello")
        digests |= {manifest_of(tmp_path / "c").digest, manifest_of(tmp_path / "d").digest}
        assert len(digests) == 4

    def test_facts_may_come_later(self, folder: Path) -> None:
        before = manifest_of(folder)
        assert add_facts(folder, {"agreement": 1.0}).facts == {"agreement": 1.0}
        assert verify(folder).digest == before.digest

    @given(JSON)
    def test_hash_is_of_the_value(self, value: object) -> None:
        assert hash_of(value) == hash_of(json.loads(json.dumps(value)))
        assert len(hash_of(value)) == 16

    def test_hash_knows_no_order_of_keys(self) -> None:
        assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1}) != hash_of({"a": 2, "b": 1})

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ({"b": [1, 2.5], "a": None}, '{"a":null,"b":[1,2.5]}'),
            (["Küche", "厨房"], '["Küche","厨房"]'),
            (Place(path=Path("a/b"), wide=True), '{"path":"a/b","wide":true}'),
            ([Place(path=Path("c"), wide=False)], '[{"path":"c","wide":false}]'),
        ],
    )
    def test_hash_is_of_this_text(self, value: object, text: str) -> None:
        """Artifacts of earlier versions keep their digests: UTF-8, no spaces, keys in order."""
        assert hash_of(value) == hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

    def test_digests_that_writers_know_are_not_computed_again(self, tmp_path: Path) -> None:
        known = {"a.txt": Payload(bytes=3, sha256="0" * 64)}
        with writing(tmp_path / "x", "corpus", "asked", [], known=known) as stage:
            (stage / "a.txt").write_text("abc")
            (stage / "b.txt").write_text("abc")
        files = manifest_of(tmp_path / "x").files
        assert files["a.txt"].sha256 == "0" * 64
        assert files["b.txt"].sha256 == hashlib.sha256(b"abc").hexdigest()

    def test_hash_refuses_what_json_cannot_say(self) -> None:
        with pytest.raises(TypeError, match="set has no plain form"):
            hash_of({1, 2})


class TestDamage:
    def damaged(self, folder: Path, part: str) -> None:
        with pytest.raises(ArtifactError) as caught:
            verify(folder)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)
        assert done(folder, "corpus", "asked") is None

    def test_whole(self, folder: Path) -> None:
        assert sorted(verify(folder).files) == ["a.txt", "deep/b.bin"]
        assert done(folder, "corpus", "asked") == manifest_of(folder)

    def test_asked_for_something_else(self, folder: Path) -> None:
        assert done(folder, "corpus", "other") is None
        assert done(folder, "dataset", "asked") is None

    def test_missing_file(self, folder: Path) -> None:
        (folder / "deep" / "b.bin").unlink()
        self.damaged(folder, "b.bin: missing")

    def test_truncated_file(self, folder: Path) -> None:
        os.truncate(folder / "deep" / "b.bin", 40)
        self.damaged(folder, "40 bytes, the manifest says 100")

    def test_changed_file(self, folder: Path) -> None:
        (folder / "a.txt").write_text("jello")
        self.damaged(folder, "content is not what was written")

    def test_no_folder_and_no_manifest(self, tmp_path: Path) -> None:
        self.damaged(tmp_path / "nothing", "no such artifact")
        (tmp_path / "empty").mkdir()
        self.damaged(tmp_path / "empty", "has no manifest.json")

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": "corpus"}', "\xff"])
    def test_manifest_that_is_none(self, folder: Path, text: str) -> None:
        (folder / MANIFEST).write_bytes(text.encode("latin-1"))
        self.damaged(folder, "damaged manifest")

    def test_truncated_manifest(self, folder: Path) -> None:
        os.truncate(folder / MANIFEST, (folder / MANIFEST).stat().st_size // 2)
        self.damaged(folder, "damaged manifest")

    def test_other_digest(self, folder: Path) -> None:
        rewrite(folder, digest="0" * 16)
        self.damaged(folder, f"{MANIFEST}: digest '{'0' * 16}' does not fit its files")

    def test_a_digest_of_any_length_is_shown_short(self, folder: Path) -> None:
        rewrite(folder, digest="x" * 10_000)
        self.damaged(folder, f"{MANIFEST}: digest '{'x' * 19} does not fit its files")

    def test_file_left_out_of_the_manifest(self, folder: Path) -> None:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        del files["a.txt"]
        rewrite(folder, files=files)
        self.damaged(folder, "does not fit its files")

    def test_other_kind(self, folder: Path) -> None:
        rewrite(folder, kind="bundle")
        self.damaged(folder, "does not fit its files")
        with pytest.raises(ArtifactError, match="is a bundle, a corpus is needed"):
            manifest_of(folder, "corpus")

    def test_newer_schema(self, folder: Path) -> None:
        rewrite(folder, schema_version=99)
        self.damaged(folder, "upgrade tumen")

    @pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "deep/../../secret"])
    def test_no_way_out_of_the_folder(self, folder: Path, name: str) -> None:
        folder.with_name("secret").write_text("s")
        rewrite(folder, files={name: {"bytes": 1, "sha256": "0"}})
        self.damaged(folder, "outside of it; refused")

    def test_no_way_out_by_a_link(self, folder: Path) -> None:
        folder.with_name("secret").write_text("hello")
        (folder / "a.txt").unlink()
        (folder / "a.txt").symlink_to(folder.with_name("secret"))
        self.damaged(folder, "outside of it; refused")


class TestReplacing:
    def test_an_error_while_writing_leaves_the_old(self, folder: Path) -> None:
        with pytest.raises(RuntimeError), writing(folder, "corpus", "new", []) as stage:
            (stage / "a.txt").write_text("half")
            raise RuntimeError
        assert verify(folder).inputs == "asked"
        assert [path.name for path in folder.parent.iterdir()] == ["corpus"]

    def test_a_new_one_replaces_all_of_the_old(self, folder: Path) -> None:
        with writing(folder, "corpus", "new", []) as stage:
            (stage / "c.txt").write_text("c")
        assert list(verify(folder).files) == ["c.txt"]
        assert sorted(path.name for path in folder.parent.rglob("*")) == [
            "c.txt",
            "corpus",
            MANIFEST,
        ]

    def test_a_kill_while_writing_leaves_the_old(self, folder: Path) -> None:
        code = (
            "import os, signal; from pathlib import Path; from tumen.core.artifact import writing\n"
            f"with writing(Path({str(folder)!r}), 'corpus', 'new', []) as stage:\n"
            "    (stage / 'a.txt').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
        )
        assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
        assert verify(folder).inputs == "asked"

    def test_a_refused_swap_puts_the_old_back(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.replace

        def refuse(source: Path, target: Path) -> None:
            if Path(source).suffix == ".new":
                raise OSError(errno.EROFS, "read-only")
            real(source, target)

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(DiskError, match="read-only"):
            make(folder, "new")
        assert (folder / "a.txt").read_text() == "hello"
        assert verify(folder)

    def test_swap_of_folders(self, tmp_path: Path) -> None:
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).touch()
        replace_folder(tmp_path / "new", tmp_path / "old")
        assert [path.name for path in (tmp_path / "old").iterdir()] == ["new"]
        assert [path.name for path in tmp_path.iterdir()] == ["old"]


class TestOrderOnDisk:
    """After a power cut a name stands for the old content or the new, so the content goes first."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What is forced to the disk, with its bytes, and what takes a new name, in order."""
        calls: list[str] = []
        real_fsync, real_replace = os.fsync, os.replace

        def fsync(number: int) -> None:
            path = Path(f"/proc/self/fd/{number}").readlink()
            shown = "folder" if path.is_dir() else path.read_text("utf-8")[:9]
            calls.append(f"fsync {path.name}: {shown}")
            real_fsync(number)

        def replace(source: Path, target: Path) -> None:
            calls.append(f"replace {Path(source).name} {Path(target).name}")
            real_replace(source, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)
        return calls

    def test_a_text_is_on_disk_before_it_has_its_name(
        self, tmp_path: Path, calls: list[str]
    ) -> None:
        part = f".t.{os.getpid()}.part"
        write_text(tmp_path / "t", "content")
        assert calls == [f"fsync {part}: content", f"replace {part} t"]

    def test_payload_then_manifest_are_on_disk_before_their_folder_has_its_name(
        self, tmp_path: Path, calls: list[str]
    ) -> None:
        make(tmp_path / "corpus")
        part = f".{MANIFEST}.{os.getpid()}.part"
        stage = f".corpus.{os.uname().nodename}.{os.getpid()}.new"
        manifest = calls.index(f'fsync {part}: {{\n "kind"')
        payload = manifest_of(tmp_path / "corpus").files
        names = [call.split(":")[0].removeprefix("fsync ") for call in calls[:manifest]]
        assert {Path(name).name for name in payload} <= set(names)
        assert calls[manifest + 1 :] == [
            f"replace {part} {MANIFEST}",
            f"fsync {stage}: folder",
            f"replace {stage} corpus",
            f"fsync {tmp_path.name}: folder",
        ]

    def test_added_facts_are_on_disk_before_the_old_ones_go(
        self, folder: Path, calls: list[str]
    ) -> None:
        add_facts(folder, {"agreement": 1.0})
        part = f".{MANIFEST}.{os.getpid()}.part"
        assert calls == [f'fsync {part}: {{\n "kind"', f"replace {part} {MANIFEST}"]


class TestDisk:
    def test_full(self, small_disk: Path) -> None:
        make(small_disk / "corpus")
        with (
            pytest.raises(DiskError, match="the disk is full") as caught,
            writing(small_disk / "corpus", "corpus", "new", []) as stage,
        ):
            (stage / "big").write_bytes(b"x" * (2 << 20))
        assert "\n" not in str(caught.value)
        assert verify(small_disk / "corpus").inputs == "asked"
        assert [path.name for path in small_disk.iterdir()] == ["corpus"], (
            "the half-written one went away"
        )

    def test_full_for_a_text(self, small_disk: Path) -> None:
        write_text(small_disk / "t", "old")
        (small_disk / "filler").write_bytes(b"x" * ((1 << 20) - 4096 * 3))
        with pytest.raises(DiskError, match="the disk is full") as caught:
            write_text(small_disk / "t", "n" * 100_000)
        assert str(small_disk / "t") in str(caught.value)
        assert (small_disk / "t").read_text() == "old"
        assert {path.name for path in small_disk.iterdir()} == {"t", "filler"}

    def test_read_only(self, small_disk: Path, make_read_only: Callable[[], None]) -> None:
        make(small_disk / "corpus")
        make_read_only()
        with pytest.raises(DiskError, match=r"read-only.*make it writable"):
            make(small_disk / "corpus", "new")
        with pytest.raises(DiskError, match="read-only"):
            write_text(small_disk / "t", "text")
        assert (small_disk / "corpus" / "a.txt").read_text() == "hello"

    def test_a_text_is_utf8_in_every_locale(
        self, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        before = locale.setlocale(locale.LC_CTYPE)
        request.addfinalizer(lambda: locale.setlocale(locale.LC_CTYPE, before) and None)
        locale.setlocale(locale.LC_CTYPE, "C")
        write_text(tmp_path / "t", "厨房")
        assert (tmp_path / "t").read_bytes() == "厨房".encode()

    @pytest.mark.parametrize(
        "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM]
    )
    def test_every_refusal(self, folder: Path, number: int) -> None:
        with pytest.raises(DiskError) as caught, writing(folder, "corpus", "new", []):
            raise OSError(number, "no")
        assert caught.value.exit_code == 5
        assert verify(folder).inputs == "asked"

    def test_other_errors_pass_as_they_are(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), writing(tmp_path / "x", "corpus", "", []):
            (tmp_path / "not there").read_text()
