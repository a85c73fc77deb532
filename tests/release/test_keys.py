"""Keys: a private key stays private and is never overwritten; only public keys make a trust store."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tumen.core.errors import DiskError, InputError
from tumen.release.keys import generate_keys, load_private_key, read_trust_store


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_keys(tmp_path / "keys" / "release", "release")
    return tmp_path / "keys" / "release"


class TestPrivateKey:
    def test_only_its_owner_can_read_it(self, key: Path) -> None:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert b"PRIVATE" in key.read_bytes()
        assert b"PRIVATE" not in key.with_name("release.pub").read_bytes()

    @pytest.mark.parametrize("existing", ["release", "release.pub"])
    def test_no_file_is_overwritten(self, tmp_path: Path, existing: str) -> None:
        (tmp_path / existing).write_text("dear")
        with pytest.raises(InputError, match="already exists"):
            generate_keys(tmp_path / "release", "x")
        assert [path.name for path in tmp_path.iterdir()] == [existing]
        assert (tmp_path / existing).read_text() == "dear"

    def test_a_full_disk_leaves_no_file_behind(self, small_disk: Path) -> None:
        with pytest.raises(OSError, match="No space"), open(small_disk / "full", "wb", 0) as file:
            while file.write(bytes(4096)):
                pass
        with pytest.raises(DiskError):
            generate_keys(small_disk / "release", "x")
        assert [path.name for path in small_disk.iterdir()] == ["full"]

    def test_one_that_others_can_read_is_rejected(self, key: Path) -> None:
        load_private_key(key)
        for mode in (0o640, 0o604):
            key.chmod(mode)
            with pytest.raises(InputError, match="chmod 600"):
                load_private_key(key)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hello",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "x" * 20_000,
        ],
    )
    def test_another_file_is_rejected(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "none"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(InputError, match="not a private key"):
            load_private_key(path)


class TestTrustStore:
    def test_it_is_a_file_or_a_folder_of_files(self, key: Path) -> None:
        (found,) = read_trust_store(key.with_name("release.pub")).items()
        assert read_trust_store(key.parent) == dict([found])
        name, public = found
        assert (name, public.name, public.revoked) == (public.id, "release", None)

    @pytest.mark.parametrize(
        ("text", "fragment"),
        [
            ("", "name"),
            ("[", "not a public key"),
            ('name = "x"\nkey = "AAAA"\n', "not an Ed25519 public key"),
            ('name = "x"\nkey = "not base64"\n', "not an Ed25519 public key"),
            ('name = "x"\nkey = "AAAA"\nrevokd = "x"\n', "revokd"),
            ('name = "x"\nkey = 3\n', "key"),
            ("a = " + "[" * 10_000, "not a public key"),
            ("#" * 20_000, "not a public key"),
        ],
    )
    def test_a_file_that_is_not_a_public_key_is_one_line(
        self, tmp_path: Path, text: str, fragment: str
    ) -> None:
        (tmp_path / "a.pub").write_text(text)
        for store in (tmp_path, tmp_path / "a.pub"):
            with pytest.raises(InputError, match=fragment) as caught:
                read_trust_store(store)
            assert "\n" not in str(caught.value)

    def test_an_empty_or_missing_store_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"holds no \.pub file"):
            read_trust_store(tmp_path)
        with pytest.raises(InputError, match="missing"):
            read_trust_store(tmp_path / "nowhere")

    def test_a_key_in_two_files_is_an_error(self, key: Path) -> None:
        text = key.with_name("release.pub").read_text()
        key.with_name("copy.pub").write_text(text + 'revoked = "stolen"\n')
        with pytest.raises(InputError, match="holds a key twice"):
            read_trust_store(key.parent)
