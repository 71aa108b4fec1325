"""The pages in headless Chromium: they draw, log nothing, ask for nothing and run nothing."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from braindecode_pipe.report import run
from braindecode_pipe.report.sounds import excerpt
from braindecode_pipe.store import list_extra_files, read_file

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("headless Chromium is not installed")
    return found


@pytest.fixture(scope="module")
def pages(make_study, make_names, tmp_path_factory):
    """A report whose names try to run a script, as files."""
    folder = tmp_path_factory.mktemp("browser")
    payload = "<img src=http://x.invalid/a onerror=document.title='pwned'>"
    names = make_names(subjects=("01",), title=f"Study {payload}", licence=payload)
    inputs = make_study(folder / "in", origin="simulated", names=names, n_runs=2, draws=20)
    run(inputs, folder / "out.zarr")
    for name in list_extra_files(folder / "out.zarr"):
        path = folder / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_file(folder / "out.zarr", name))
    return folder / "site"


def visit(chromium, page, profile, *options, width=1280):
    command = [
        chromium, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},2400", *options,
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done


@pytest.mark.parametrize("name", ["report.html", "qc/sub-01_task-see_run-01.html", "qc/index.html"])
def test_page_draws_without_errors_or_requests(chromium, pages, tmp_path, name):
    shot, log = tmp_path / "shot.png", tmp_path / "net.json"
    done = visit(
        chromium, pages / name, tmp_path / "profile", f"--screenshot={shot}", f"--log-net-log={log}"
    )
    assert b"CONSOLE" not in done.stderr, done.stderr.decode()
    image = np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("RGB"), float)
    banner = (np.abs(image - [255, 227, 168]).max(axis=2) < 6).mean()
    ink = (image.max(axis=2) < 90).mean()
    assert banner > 0.005 and ink > 0.003
    assert not [text for text in asked_for(log) if "x.invalid" in text]


def asked_for(log):
    """Every address and host in a net log."""
    params = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    return [str(p[key]) for p in params for key in ("url", "host") if key in p]


def test_a_request_would_be_seen(chromium, tmp_path):
    page, log = tmp_path / "page.html", tmp_path / "net.json"
    page.write_text("<script>console.log(1)</script><img src=http://x.invalid/a>")
    shot = f"--screenshot={tmp_path / 'shot.png'}"
    done = visit(chromium, page, tmp_path / "profile", shot, f"--log-net-log={log}")
    assert b"CONSOLE" in done.stderr
    assert any("x.invalid" in text for text in asked_for(log))


def test_nothing_of_the_data_is_run(chromium, pages, tmp_path):
    done = visit(chromium, pages / "report.html", tmp_path / "profile", "--dump-dom")
    dom = done.stdout.decode()
    assert "<title>Study &lt;img" in dom
    assert "<script" not in dom and '<img src="http' not in dom


@pytest.mark.parametrize("name", ["report.html", "qc/sub-01_task-see_run-01.html", "qc/index.html"])
def test_page_fits_a_narrow_window(chromium, pages, tmp_path, name):
    shot = tmp_path / "shot.png"
    visit(chromium, pages / name, tmp_path / "profile", f"--screenshot={shot}", width=500)
    image = np.asarray(Image.open(shot).convert("L"), float)
    assert image.shape[1] == 500
    assert image[:, -8:].min() > 200  # nothing runs out of the window on the right


def test_an_excerpt_of_a_sound_is_decoded(chromium, tmp_path):
    """The page itself runs no script; one that does tells how long the browser finds the sound."""
    time = np.arange(5 * 16000) / 16000
    wavfile.write(tmp_path / "a.wav", 16000, (9000 * np.sin(2765 * time)).astype(np.int16))
    sound = base64.b64encode(excerpt(tmp_path / "a.wav", None, None, "a")).decode()
    page = tmp_path / "page.html"
    page.write_text(
        f"<audio src='data:audio/wav;base64,{sound}' "
        "onloadedmetadata='document.title=this.duration' onerror='document.title=this.error.code'>"
    )
    done = visit(chromium, page, tmp_path / "profile", "--virtual-time-budget=8000", "--dump-dom")
    assert "<title>3</title>" in done.stdout.decode()


@pytest.mark.parametrize("name", ["report.html", "qc/sub-01_task-see_run-01.html", "qc/index.html"])
def test_everything_that_scrolls_or_acts_is_reached_by_keyboard(pages, name):
    """Only elements that take the focus by themselves act; what scrolls is given the focus."""
    html = (pages / name).read_text()
    body = html.partition("<body>")[2]
    assert not re.search(r"\bon\w+=|role=.?(?:button|link)\b|tabindex=.?-?[1-9]", re.sub(
        r">[^<]*<", "><", body))  # fmt: skip
    for tag in re.findall(r"<(?:div class=.scroll|pre(?= ))[^>]*>", body):
        assert 'tabindex="0"' in tag and "aria-label=" in tag
    targets = re.findall(r'<a[^>]*href="#([^"]+)"', body)
    assert all(f'id="{target}"' in body for target in targets)
    if name == "report.html":
        assert body.index('class="skip"') < body.index("<h1>") and "content" in targets
