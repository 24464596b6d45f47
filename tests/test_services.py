"""The servers that the demo and the tests bring along."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from example.services import EmbeddedPostgres, LocalRedis, ServiceError, postgres, reach, running_url, temporary_folder
from example.services.postgres import _binaries

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which root's PostgreSQL may have its data: pytest's own are closed to its account."""
    folder = temporary_folder("messaging_services_")
    yield folder
    shutil.rmtree(folder)


def modes(path: Path) -> dict[Path, int]:
    """Who may do what with a folder and all those above it."""
    return {folder: folder.stat().st_mode for folder in (path, *path.parents)}


def test_postgres_keeps_its_data_over_a_restart_in_a_long_folder(open_folder: Path) -> None:
    folder = open_folder / ("long" * 25) / "with spaces" / "data"
    with EmbeddedPostgres(folder) as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 'É' AS letter")
        server.restart()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT lower(letter) FROM kept").fetchone() == ("é",)
        socket_folder = Path(str(conninfo_to_dict(server.url())["host"]))
        assert socket_folder.exists()
    assert not folder.joinpath("postmaster.pid").exists()
    assert not socket_folder.exists()


@pytest.mark.parametrize("temporary", ["", "closed"])
def test_postgres_in_a_closed_folder_opens_none_and_keeps_its_data(
    temporary: str, tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "SHELTER", open_folder / "shelter")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    if temporary:
        monkeypatch.setattr(tempfile, "tempdir", str(closed))
    programs = _binaries().parent
    before = modes(closed) | {path: path.lstat().st_mode for path in programs.rglob("*")} | modes(programs)
    with EmbeddedPostgres(closed / "data") as server, psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    with EmbeddedPostgres(closed / "data") as server:
        assert running_url(closed / "data") == server.url()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (1,)
    assert {path: path.lstat().st_mode for path in before} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="another account runs PostgreSQL for root alone")
class TestRoot:
    def test_what_belongs_to_folders_that_are_gone_is_removed(
        self, tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reach, "SHELTER", open_folder / "shelter")
        for name in ("first", "second"):
            with EmbeddedPostgres(tmp_path / name):
                pass
            assert len(list((open_folder / "shelter").glob("*/data/PG_VERSION"))) == 1
            (tmp_path / name).unlink()

    def test_programs_that_the_account_cannot_read_are_copied(
        self, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reach, "SHELTER", open_folder / "shelter")
        strict, installed = open_folder / "strict", _binaries()
        for part in (f"{installed.parents[1].name}/{installed.parent.name}", f"{installed.parents[1].name}.libs"):
            shutil.copytree(installed.parents[2] / part, strict / part, symlinks=True)
        programs = strict / installed.relative_to(installed.parents[2])
        (programs / "postgres").chmod(0o700)
        monkeypatch.setattr(postgres, "_binaries", lambda: programs)
        for _ in range(2):
            with EmbeddedPostgres(open_folder / "data") as server:
                psycopg.connect(server.url()).close()
        assert (programs / "postgres").stat().st_mode & 0o777 == 0o700

    def test_no_place_for_the_data_is_a_sentence(
        self, tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (open_folder / "shelter").write_text("a file in its place")
        monkeypatch.setattr(reach, "SHELTER", open_folder / "shelter")
        with pytest.raises(ServiceError, match=r"can't reach .*data, and .*shelter can't be used .*DATABASE_URL"):
            EmbeddedPostgres(tmp_path / "data").start()

    def test_data_that_its_owner_cannot_reach_is_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir(mode=0o700)
        os.chown(tmp_path / "data", 12345, 12345)
        with pytest.raises(ServiceError, match=r"account 12345, which owns .*data, can't reach it"):
            EmbeddedPostgres(tmp_path / "data").start()


def test_postgres_says_in_a_sentence_why_it_does_not_start(open_folder: Path) -> None:
    with EmbeddedPostgres(open_folder / "data"):
        pass
    (open_folder / "data/PG_VERSION").write_text("9.6\n")
    with pytest.raises(ServiceError, match=r"PostgreSQL doesn't start: .*FATAL.*incompatible"):
        EmbeddedPostgres(open_folder / "data").start()


def test_redis_comes_back_on_its_port_and_empty(redis_server: LocalRedis) -> None:
    assert ask(redis_server, "SET key value") == "+OK"
    redis_server.stop(signal.SIGKILL)
    with pytest.raises(ConnectionRefusedError):
        ask(redis_server, "PING")
    redis_server.start()
    assert ask(redis_server, "GET key") == "$-1"


def ask(server: LocalRedis, command: str) -> str:
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(100).decode().strip()
