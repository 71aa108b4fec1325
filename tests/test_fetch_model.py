"""Models from a hub: one commit, safetensors only, whole or absent, whoever asks at once."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from braindecode_pipe.errors import InputError, ModelError
from braindecode_pipe.fetch import fetch

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": bytes(range(256)) * 4000,
    "pytorch_model.bin": b"a pickle",
    "evil.py": b"raise SystemExit",
}


class Hub(BaseHTTPRequestHandler):
    """What the hub answers; every third answer with a large file breaks off in the middle."""

    files = FILES
    broken = 0
    lock = threading.Lock()

    def log_message(self, *_args):
        pass

    def _json(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        self._file(head=True)

    def do_GET(self):
        if not self.path.startswith("/api/"):
            return self._file(head=False)
        if "/tree/" in self.path:
            return self._json([{"type": "file", "path": n, "size": len(c), "oid": "0" * 40}
                               for n, c in self.files.items()])  # fmt: skip
        if "/lab/model" not in self.path:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        return self._json({"id": "lab/model", "sha": COMMIT, "tags": [], "private": False,
                           "siblings": [{"rfilename": n} for n in self.files]})  # fmt: skip

    def _file(self, head):
        content = self.files[self.path.rsplit("/", 1)[-1]]
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if head:
            return
        with self.lock:
            type(self).broken += len(content) > 10_000
            breaks = len(content) > 10_000 and self.broken % 3 == 1
        self.wfile.write(content[start : start + 300_000] if breaks else content[start:])
        if breaks:
            self.close_connection = True


@pytest.fixture
def hub(monkeypatch):
    handler = type("Own", (Hub,), {"files": dict(FILES), "broken": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield handler
    server.shutdown()
    server.server_close()


def test_f12_eight_threads_get_the_right_bytes_from_a_server_that_breaks_off(hub, tmp_path):
    found, errors = [], []

    def get():
        try:
            found.append(fetch("model:lab/model", tmp_path / "models" / "m"))
        except InputError as error:
            errors.append(error)

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors and len(found) == 8
    folder = tmp_path / "models" / "m"
    names = {file.name for file in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "model_source.json", "SHA256SUMS"}
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    source = json.loads((folder / "model_source.json").read_text())
    assert source == {"id": "lab/model", "revision": COMMIT}
    assert hub.broken >= 2  # the file was asked for again after it broke off


def test_pickles_come_only_when_they_are_named(hub, tmp_path):
    del hub.files["model.safetensors"]
    with pytest.raises(ModelError, match=r"no weights that are safe(.|\n)*#pytorch_model.bin"):
        fetch("model:lab/model", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    fetch("model:lab/model@main#pytorch_model.bin", tmp_path / "b")
    digest = hashlib.sha256(b"a pickle").hexdigest()
    assert f"{digest}  pytorch_model.bin" in (tmp_path / "b" / "SHA256SUMS").read_text()


def test_unknown_models_and_no_network_are_named(hub, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"the hub does not give lab/none"):
        fetch("model:lab/none", tmp_path / "a")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"could not be downloaded(.|\n)*where there is a network"):
        fetch("model:lab/model", tmp_path / "a")
    assert not (tmp_path / "a").exists()
