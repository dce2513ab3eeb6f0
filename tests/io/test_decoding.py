"""Compressed pixels: decoded as they were stored, refused where the codestream is damaged or of
another size, and never more than one scan lost."""

import io
import os
import struct
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest
from limits import refusal
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from scan_builders import dicom_datasets, save

from pathology_screen.errors import InputError
from pathology_screen.io import decoding, read_scan
from pathology_screen.io.decoding import DecoderProcess, check_frame

ROWS, COLUMNS = 96, 80
JPEGS = (uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1)
MARKED = (*JPEGS, uid.JPEGLSLossless, uid.JPEG2000Lossless)
"""Their codestreams end with a marker."""
SYNTAXES = (*MARKED, uid.RLELossless)
each_of_marked, each_syntax = (
    pytest.mark.parametrize("syntax", syntaxes, ids=lambda syntax: syntax.keyword)
    for syntaxes in (MARKED, SYNTAXES)
)


def picture(k=0):
    """A smooth head with texture, on black: 8 bit."""
    i, j = np.indices((ROWS, COLUMNS), float)
    radius = np.hypot((i - 48) / 40, (j - 40 - k) / 32)
    texture = np.random.default_rng(k).integers(0, 60, radius.shape)
    return np.where(radius < 1, 90 + 80 * (1 - radius) + texture, 0).astype("uint8")


def jpeg(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def lossless_jpeg(pixels):
    """Process 14, selection value 1, with a Huffman table of codes of four and five bits for
    categories 0 to 16."""
    counts = [0, 0, 0, 15, 2, *[0] * 11]
    rows, columns = pixels.shape
    left = np.empty(pixels.shape, int)
    left[:, 1:], left[1:, 0], left[0, 0] = pixels[:, :-1], pixels[:-1, 0], 128
    bits = []
    for difference in (pixels.astype(int) - left).ravel():
        category = int(abs(difference)).bit_length()
        bits.append(f"{category:04b}" if category < 15 else f"{category + 15:05b}")
        if category:
            code = difference if difference > 0 else difference + 2**category - 1
            bits.append(f"{code:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = b"\xff\xc3" + struct.pack(">HBHHB3B", 11, 8, rows, columns, 1, 1, 0x11, 0)
    table = b"\xff\xc4" + struct.pack(">HB", 19 + 17, 0) + bytes(counts) + bytes(range(17))
    scan = b"\xff\xda" + struct.pack(">HB5B", 8, 1, 1, 0, 1, 0, 0)
    return b"\xff\xd8" + frame + table + scan + data + b"\xff\xd9"


VOLUME = np.stack([picture(k) for k in range(3)])


def encoded(syntax, k=0):
    """A slice as one compressed frame."""
    if syntax in JPEGS:
        return (jpeg if syntax == uid.JPEGBaseline8Bit else lossless_jpeg)(VOLUME[k])
    (dataset,) = dicom_datasets(VOLUME[k : k + 1], transfer_syntax=syntax)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    return frame.rstrip(b"\0") if syntax in MARKED else frame


def series(folder, syntax, change=lambda frame: frame):
    """A series of three slices, the second of which is changed once it is compressed."""
    datasets = dicom_datasets(VOLUME, spacing=(8, 2, 2))
    for k, dataset in enumerate(datasets):
        frame = encoded(syntax, k)
        frame = change(frame) if k == 1 else frame
        dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    return save(datasets, folder)


def put(frame, at, new):
    return frame[:at] + new + frame[at + len(new) :]


def sized(frame, rows, columns):
    """The same codestream, claiming another size."""
    for marker in (b"\xff\xc0", b"\xff\xc3", b"\xff\xf7"):
        if (at := frame.find(marker)) > 0:
            return put(frame, at + 5, struct.pack(">HH", rows, columns))
    return put(frame, frame.index(b"\xff\x51") + 6, struct.pack(">II", columns, rows))


@each_syntax
def test_whole_streams_are_read(tmp_path, syntax):
    scan = read_scan(series(tmp_path, syntax))
    tolerance = 16 if syntax == uid.JPEGBaseline8Bit else 0
    assert np.abs(scan.voxels - VOLUME.transpose(2, 1, 0)).max() <= tolerance


@each_syntax
@pytest.mark.parametrize("share", [0.98, 0.3])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["bare", "ended"])
def test_streams_cut_short_inside_a_whole_file_are_refused(tmp_path, syntax, share, end):
    def cut(frame):
        return frame[: int(share * len(frame))].rstrip(b"\xff") + end

    error = refusal(series(tmp_path, syntax, cut))
    assert error.code == "unreadable" and "file 2 of 3" in error.detail


@each_of_marked
def test_what_goes_on_behind_the_end_is_refused(tmp_path, syntax):
    assert refusal(series(tmp_path, syntax, lambda frame: frame + b"more")).code == "unreadable"


@each_of_marked
@pytest.mark.parametrize("rows, columns", [(65535, 65535), (ROWS // 2, COLUMNS), (0, COLUMNS)])
def test_streams_of_another_size_reach_no_decoder(tmp_path, syntax, rows, columns):
    with patch.object(
        DecoderProcess, "decode", autospec=True, side_effect=DecoderProcess.decode
    ) as decode:
        error = refusal(series(tmp_path, syntax, lambda frame: sized(frame, rows, columns)))
    assert error.code == "unreadable" and f"{rows} x {columns}" in error.detail
    assert decode.call_count <= 2  # the slice before it, and for JPEG its check


def test_codestreams_that_contradict_themselves_are_refused():
    """More bits or samples than are allocated, no marker where one should be, no size or two of
    them; no start, no marker, a tile part without data, and a tile for every pixel."""
    jpg, j2k = encoded(uid.JPEGBaseline8Bit), encoded(uid.JPEG2000Lossless)
    sof = jpg.index(b"\xff\xc0")
    siz, cod, sot = map(j2k.index, (b"\xff\x51", b"\xff\x52", b"\xff\x90"))
    wrong = [put(jpg, sof + 4, b"\x0c"), put(jpg, sof + 9, b"\3"), put(jpg, 2, b"\0")]
    wrong += [put(jpg, sof, b"\xff\xc8"), jpg[: sof + 13] + jpg[sof:]]
    wrong += [put(j2k, 0, b"\0"), put(j2k, cod, b"\0"), put(j2k, sot + 6, b"\0\0\0\5")]
    wrong += [put(j2k, siz + 22, struct.pack(">II", 1, 1))]
    filled = jpg[:2] + b"\xff\xff" + jpg[2:]  # is no fault
    for number, frame in enumerate([*wrong, j2k, filled]):
        syntax = uid.JPEG2000Lossless if 5 <= number <= len(wrong) else uid.JPEGBaseline8Bit
        with pytest.raises(InputError, match="unreadable") if frame in wrong else nullcontext():
            check_frame(frame, syntax, ROWS, COLUMNS, 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame[:64] + b"\x81",  # an escape without the byte that it repeats
        lambda frame: frame[:64] + b"\x7f\1\2",  # a literal run of 128 bytes of which two are there
        lambda frame: frame[:64] + b"\x80" * 600,  # nothing
        lambda frame: struct.pack("<16I", 15, *[64] * 15) + frame[64:],
        lambda frame: struct.pack("<16I", 1, 2**31, *[0] * 14) + frame[64:],
        lambda frame: struct.pack("<16I", 0, *[0] * 15) + frame[64:],
        lambda frame: frame[:40],
        lambda frame: frame[:64] + b"\x81\0" * 100_000,  # more pixels than rows x columns
    ],
)
def test_run_lengths_that_lie(tmp_path, change):
    assert refusal(series(tmp_path, uid.RLELossless, change)).code == "unreadable"


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
@pytest.mark.parametrize("number", [0x10060, 0xFFFFFFFF])
def test_rows_and_columns_as_long_numbers(tmp_path, syntax, keyword, number):
    """No more is read than Rows x Columns of the file can hold."""
    compressed = syntax == uid.RLELossless
    folder = series(tmp_path, syntax) if compressed else save(dicom_datasets(VOLUME), tmp_path)
    tag = {"Rows": b"\x28\0\x10\0", "Columns": b"\x28\0\x11\0"}[keyword]
    for file in folder.iterdir():
        content = file.read_bytes()
        at = content.index(tag + b"US\2\0")
        long = tag + b"UL\4\0" + struct.pack("<I", number)
        file.write_bytes(content[:at] + long + content[at + 10 :])
    assert refusal(folder).code in ("too_large", "unreadable")


@pytest.mark.parametrize(
    "code",
    ["os.kill(os.getpid(), 11)", "bytearray(2**40)", "time.sleep(60)", "os.write(2, b'bad')"],
)
def test_a_decoder_that_fails_costs_one_scan(code, monkeypatch, tmp_path):
    """The process is killed or dies, says so, and the next frame is decoded by a new one."""
    script = tmp_path / "process.py"
    source, before = Path(decoding.decoder_process.__file__).read_text(), "        pixels = "
    failing = f"        import time\n        if frame == b'bad!':\n            {code}\n"
    script.write_text(source.replace(before, failing + before))
    monkeypatch.setattr(decoding.decoder_process, "__file__", str(script))
    monkeypatch.setattr(decoding, "SECONDS", 3)
    monkeypatch.setattr(decoding, "_process", DecoderProcess())
    monkeypatch.setattr(decoding, "check_frame", lambda *arguments: None)
    bad = series(tmp_path / "bad", uid.JPEGBaseline8Bit, lambda frame: b"bad!")
    assert refusal(bad).code == ("unreadable" if "write" in code else "undecodable")
    read_scan(series(tmp_path / "whole", uid.JPEGBaseline8Bit))
    decoding._process.stop()


def test_a_process_that_cannot_be_started_is_no_damage_of_the_scan(monkeypatch, tmp_path):
    monkeypatch.setattr(decoding, "_process", DecoderProcess())
    monkeypatch.setattr(decoding.subprocess, "Popen", Mock(side_effect=OSError(24, "too many")))
    error = refusal(series(tmp_path / "s", uid.JPEGBaseline8Bit))
    assert error.code == "undecodable" and "cannot be started" in str(error)


def test_one_process_a_run_and_its_end_while_workers_have_their_own(tmp_path):
    folder, script = series(tmp_path / "s", uid.JPEGLSLossless), tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathology_screen.io import decoding, read_scan

def job(_):
    return float(read_scan({str(folder)!r}).voxels.sum())

if __name__ == "__main__":
    own = job(0)
    first = decoding._process.process.pid
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(job, range(8))] == [own] * 8
    assert decoding._process.process.pid == first
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(job, range(6)) == [own] * 6
    print(first)
""")
    paths = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    command, env = [sys.executable, script], {**os.environ, "PYTHONPATH": paths}
    pid = int(subprocess.check_output(command, timeout=120, env=env))
    time.sleep(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_uncompressed_pixels_need_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(DecoderProcess, "decode", None)
    read_scan(save(dicom_datasets(VOLUME), tmp_path))
