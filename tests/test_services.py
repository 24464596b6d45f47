"""The servers that the demo and the tests bring along."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from example.services import EmbeddedPostgres, LocalRedis, ServiceError


def test_postgres_keeps_its_data_over_a_restart_in_a_long_and_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    folder = closed / ("long" * 25) / "with spaces" / "data"
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


def test_postgres_says_in_a_sentence_why_it_does_not_start(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "data"):
        pass
    (tmp_path / "data/PG_VERSION").write_text("9.6\n")
    with pytest.raises(ServiceError, match=r"PostgreSQL doesn't start: .*FATAL.*incompatible"):
        EmbeddedPostgres(tmp_path / "data").start()


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
