"""``fetch`` is the only command that uses the network."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest

from braindecode_pipe.cli import main
from braindecode_pipe.simulate.dataset import simulate_tiny


@pytest.fixture
def attempts(monkeypatch) -> list[str]:
    """Every attempt to reach another machine; each of them is refused."""
    seen: list[str] = []

    def is_local(host: object) -> bool:
        if host in (None, "", "localhost"):
            return True
        try:
            return ipaddress.ip_address(str(host)).is_loopback
        except ValueError:
            return False

    def guarded(name: str):
        real = getattr(socket.socket, name)

        def connect(self, address):
            if self.family != socket.AF_UNIX and not is_local(address[0]):
                seen.append(f"{name} {address}")
                raise OSError("the network is blocked")
            return real(self, address)

        return connect

    lookup = socket.getaddrinfo

    def getaddrinfo(host, *rest, **options):
        if not is_local(host):
            seen.append(f"getaddrinfo {host}")
            raise socket.gaierror("the network is blocked")
        return lookup(host, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded("connect"))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded("connect_ex"))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return seen


def test_the_guard_notices(attempts):
    with pytest.raises(OSError, match="blocked"):
        socket.create_connection(("example.org", 80), timeout=1)
    with pytest.raises(OSError, match="blocked"), socket.socket() as opened:
        opened.connect(("192.0.2.1", 80))
    assert attempts == ["getaddrinfo example.org", "connect ('192.0.2.1', 80)"]


def test_every_other_command_works_without_a_network(attempts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    assert main(["simulate", "data", "--subjects", "1", "--help"]) == 0
    simulate_tiny(tmp_path / "data")
    assert main(["init", "data", "-o", "study.toml"]) == 0
    assert main(["check", "study.toml", "--data", "data"]) == 0
    small = ["--set", "evaluate.permutations=20", "--set", "evaluate.bootstrap=20",
             "--set", "train.decoders=['ridge']"]  # fmt: skip
    where = ["study.toml", "--data", "data", "--out", "out", *small]
    assert main(["run", *where, "--quiet"]) == 0, capsys.readouterr()
    assert main(["report", *where, "--force", "report"]) == 0
    assert Path("out/report.html").is_file()
    for command in (["audit", "out"], ["verify", "out"], ["inspect", "out"], ["clean", "out"]):
        assert main(command) == 0, command
    assert main(["doctor"]) == 0
    assert attempts == []


def test_fetch_does_try(attempts, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NILEARN_DATA", str(tmp_path / "nilearn"))
    assert main(["fetch", "haxby2001", str(tmp_path / "data")]) == 2
    told = capsys.readouterr().err
    assert "could not be downloaded" in told and "remedy" in told
    assert attempts
    assert not (tmp_path / "data").exists()
