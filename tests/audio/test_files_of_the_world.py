"""What real folders of sounds hold: each kind of odd file, row and name is read, or is told in one line."""

from __future__ import annotations

import struct

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from esc_folder import make_folder, tone

from audioxai_utils.audio import inputs, listing
from audioxai_utils.audio.audio_files import by_reason, check_rates, load_waveform, read_length, shown
from audioxai_utils.audio.datasets import load_dataset, load_noise, load_waveforms
from audioxai_utils.audio.own_data import load_own_dataset

CLIP = "5-105-B-5.wav"


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "sounds")


def rows_of(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "meta" / "esc50.csv", dtype=str)


def write_rows(folder, table: pd.DataFrame) -> None:
    table.to_csv(folder / "meta" / "esc50.csv", index=False)


def rename_last(folder, name: str) -> None:
    """The last row's file, in the csv alone."""
    table = rows_of(folder)
    table.loc[len(table) - 1, "filename"] = name
    write_rows(folder, table)


def left_out(folder, n: int = 1) -> str:
    """The one line on the ``n`` clips that are left out of thirty."""
    dataset = load_dataset("esc50", folder)
    (line,) = dataset.problems
    assert len(dataset.clips) == 30 - n and dataset.n_listed == 30 and line.isprintable()
    return line


# One name a clip


def test_clips_of_one_stem_are_named_by_their_folder(folder):
    table = rows_of(folder)
    for place, take in (("yes", "A"), ("no", "B")):
        (folder / "audio" / place).mkdir()
        (folder / "audio" / f"1-100-{take}-0.wav").rename(folder / "audio" / place / "a.wav")
        table["filename"] = table["filename"].replace(f"1-100-{take}-0.wav", f"{place}/a.wav")
    write_rows(folder, table)
    clips = load_dataset("esc50", folder).clips
    assert clips["clip"].tolist()[:3] == ["yes-a", "no-a", "1-105-A-5"] and clips["clip"].is_unique


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.wav", "b.wav"], ["a", "b"]),
        (["a.wav", "a.flac"], ["a.wav", "a.flac"]),
        (["x/a.wav", "x/a.flac", "y/a.wav", "b.wav"], ["x-a.wav", "x-a.flac", "y-a", "b"]),
        (["A.wav", "x/a.wav"], ["A", "x-a"]),
        (["x/e\u0301.wav", "y/\u00e9.wav"], ["x-e\u0301", "y-\u00e9"]),  # one accent in two spellings
        (["./x/../a.wav", "x/a.wav"], ["a", "x-a"]),
    ],
)
def test_names_are_told_apart_by_folder_then_by_suffix(files, expected):
    assert listing.clip_names(files) == expected


@pytest.mark.parametrize(
    "files", [["x/a.wav", "y/a.wav", "x-a.wav"], ["A.wav", "a.wav"], ["x/a.wav", "X/A.wav"]]
)
def test_names_that_nothing_tells_apart_are_refused_with_both(files):
    with pytest.raises(ValueError, match="would share their results; rename one of them") as caught:
        listing.clip_names(files)
    assert sum(name in str(caught.value) for name in files) == 2


@pytest.mark.parametrize("twin", ["./1-100-A-0.wav", "x/../1-100-A-0.wav"])
def test_one_file_is_not_listed_under_two_spellings(folder, twin):
    rename_last(folder, twin)
    with pytest.raises(ValueError, match=r"lists 1-100-A-0\.wav more than once"):
        load_dataset("esc50", folder)


# Names are text


@pytest.mark.parametrize(
    "names",
    [
        ("0", "1", "2"),
        ("007", "7", "07"),
        ("NA", "nan", "None"),
        ("True", "False", "null"),
        ("1.0", "1e3", "-inf"),
        ("<b>x</b>", "a, b", 'say "no"'),
        ("2024-01-02", " lead", "Ünï"),
    ],
)
def test_categories_are_the_text_that_stands_there(folder, names):
    table = rows_of(folder)
    table["category"] = table["target"].map(dict(zip(("0", "5", "41"), names, strict=True)))
    write_rows(folder, table)
    assert load_dataset("esc50", folder).classes == names


@pytest.mark.parametrize("stem", ["001", "1e5", "NA", "True"])
def test_file_names_are_the_text_that_stands_there(folder, stem):
    (folder / "audio" / "5-141-B-41.wav").rename(folder / "audio" / f"{stem}.wav")
    rename_last(folder, f"{stem}.wav")
    dataset = load_dataset("esc50", folder)
    assert dataset.clips["clip"].iloc[-1] == stem and not dataset.problems


def test_a_csv_of_a_spreadsheet_is_read(folder):
    path = folder / "meta" / "esc50.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert len(load_dataset("esc50", folder).clips) == 30


@pytest.mark.parametrize("value", ["1.5", "one", "", "1e0", "9" * 30])
@pytest.mark.parametrize("column", ["fold", "target"])
def test_numbers_are_whole_numbers(folder, column, value):
    table = rows_of(folder)
    table.loc[3, column] = value
    write_rows(folder, table)
    with pytest.raises(
        ValueError, match=f"column {column} must hold whole numbers in every row; got {value!r}"
    ):
        load_dataset("esc50", folder)


def test_one_category_has_one_target(folder):
    write_rows(folder, rows_of(folder).replace({"category": {"cat": "dog"}}))
    with pytest.raises(ValueError, match="category dog has more than one target: 0, 5"):
        load_dataset("esc50", folder)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x.wav,5,0", "its number of fields is not the header's"),
        ("x.wav,5,0,dog,True,1,A,more", "its number of fields is not the header's"),
        (",5,0,dog,True,1,A", "its filename is empty"),
        ("x.wav,5,0, ,True,1,A", "its category is empty"),
        ("x\0.wav,5,0,dog,True,1,A", r"its filename holds a NUL (x\x00.wav)"),
        ("x.wav,5,0,d\0g,True,1,A", r"its category holds a NUL (d\x00g)"),
        ("caf\udce9.wav,5,0,dog,True,1,A", r"its filename is not UTF-8 (caf\udce9.wav)"),
        ("x.wav,5,0,d\udcffg,True,1,A", r"its category is not UTF-8 (d\udcffg)"),
        ("/etc/passwd,5,0,dog,True,1,A", "lies outside"),
        ("a/../../x.wav,5,0,dog,True,1,A", "lies outside"),
    ],
)
def test_a_row_that_says_too_little_is_a_line_and_the_others_go_on(folder, row, reason):
    path = folder / "meta" / "esc50.csv"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:-1], row.encode("utf-8", "surrogateescape")]))
    line = left_out(folder)
    assert line.startswith(f"{path}, line 31: ") and reason in line


# Rows do not vanish


def test_folds_that_are_not_used_are_one_line(folder):
    table = rows_of(folder)
    more = [table.assign(fold=fold, filename=f"{fold}-" + table["filename"]) for fold in ("6", "10", "0")]
    for name in pd.concat(more)["filename"]:
        (folder / "audio" / name).symlink_to(folder / "audio" / name.partition("-")[2])
    write_rows(folder, pd.concat([table, *more]))
    dataset = load_dataset("esc50", folder)
    assert dataset.problems == [
        "90 clips: in a fold that is not used (0, 6, 10; folds 1 to 3 train, 4 validates, 5 is tested)"
    ]
    assert set(dataset.clips["fold"]) == {1, 2, 3, 4, 5}
    assert dataset.summary == "30 of 120 listed clips are used: 18 train, 6 validation, 6 test"


@pytest.mark.parametrize(("fold", "split"), [("4", "validation"), ("5", "test")])
def test_an_empty_split_is_said(folder, fold, split):
    table = rows_of(folder)
    write_rows(folder, table[table["fold"] != fold])
    with pytest.raises(
        ValueError, match=rf"no clip that can be used in fold {fold} \({split}\); folds 1 to 3 train"
    ):
        load_dataset("esc50", folder)
    write_rows(folder, table)
    for path in (folder / "audio").glob(f"{fold}-*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"no clip that can be used in fold {fold}"):
        load_dataset("esc50", folder)


def test_many_faults_are_a_line_a_reason(folder):
    for path in sorted((folder / "audio").glob("[23]-*"))[:11]:
        path.unlink()
    (folder / "audio" / CLIP).write_bytes(b"")
    dataset = load_dataset("esc50", folder)
    assert len(dataset.clips) == 18 and dataset.n_listed == 30
    assert dataset.problems[0] == (
        "11 clips: no such file (2-100-A-0.wav, 2-100-B-0.wav, 2-105-A-5.wav and 8 more)"
    )
    assert len(dataset.problems) == 2 and CLIP in dataset.problems[1]


def test_reasons_of_one_kind_are_one_line_whatever_their_details():
    faults = [(f"/a: b/{i}.wav", f"/a: b/{i}.wav: decodes only in part ({i} of 9 samples)") for i in range(3)]
    assert by_reason(faults) == ["3 clips: decodes only in part (0.wav, 1.wav, 2.wav)"]
    assert by_reason(faults[:1]) == [faults[0][1]] and by_reason([]) == []


# Sound that is not sound


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_cancel_are_told(folder, subtype, channels):
    left = 0.5 * tone(440, 16000)
    both = np.stack([left, -left] * (channels // 2), axis=1)
    soundfile.write(folder / "audio" / CLIP, both, 16000, subtype=subtype)
    with pytest.raises(ValueError, match="its channels cancel each other"):
        load_waveform(folder / "audio" / CLIP, 16000)
    waveforms, problems = load_waveforms(load_dataset("esc50", make_folder(folder / "b")).clips[:1], 16000)
    assert not problems and waveforms.isfinite().all()


@pytest.mark.parametrize("other", [0.0, 1.0, -0.9])
def test_channels_that_do_not_cancel_are_read(tmp_path, other):
    left = 0.5 * tone(440, 16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, other * left], axis=1), 16000)
    np.testing.assert_allclose(
        load_waveform(tmp_path / "a.wav", 16000), 2 * left, atol=2e-3
    )  # 16 bits of 0.025


def noise_of(seconds: float, rate: int = 16000) -> np.ndarray:
    return 0.2 * np.random.default_rng(0).standard_normal(round(seconds * rate))


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        ("wav", {}),
        ("wav", {"endian": "BIG"}),
        ("aiff", {}),
        ("flac", {}),
        ("ogg", {}),
        ("mp3", {}),
        ("opus", {"format": "OGG", "subtype": "OPUS"}),
    ],
)
def test_half_a_file_is_told_and_never_padded(tmp_path, suffix, form):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise_of(3), 16000, **form)
    whole = load_waveform(path, 16000)
    assert whole[40000:48000].abs().max() > 0.1
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="decodes only in part|damaged audio file"):
        load_waveform(path, 16000)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_a_hole_in_a_compressed_file_is_told(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise_of(3), 16000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="decodes only in part|damaged audio file"):
        load_waveform(path, 16000)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "ogg", "mp3"])
def test_joined_files_are_told(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise_of(1), 16000)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(
        ValueError, match="decodes only in part .only the first of the|not a readable audio file"
    ):
        load_waveform(path, 16000)


@pytest.mark.parametrize("loud_first", [True, False])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_an_mp3_without_a_tag_is_read_whole_or_told(tmp_path, mode, loud_first):
    """libsndfile guesses its length from the first frame, and reads no further."""
    path, sound = tmp_path / "a.mp3", noise_of(4)
    sound[slice(32000, None) if loud_first else slice(0, 32000)] *= 1e-4
    soundfile.write(path, sound, 16000, bitrate_mode=mode, compression_level=0.3)
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 100) :])
    try:
        waveform = load_waveform(path, 16000)
    except ValueError as error:
        assert "decodes only in part" in str(error) and mode == "VARIABLE"
    else:
        assert waveform[slice(40000, 60000)].any() and not waveform[70000:].any()


@pytest.mark.parametrize("place", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_one_changed_byte_of_an_ogg_is_told(tmp_path, suffix, place):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise_of(2), 16000, format="OGG", subtype={"ogg": "VORBIS", "opus": "OPUS"}[suffix])
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="decodes only in part|damaged audio file|file is malformed"):
        load_waveform(path, 16000)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac", "ogg", "mp3"])
def test_what_lies_after_five_seconds_is_nobodys_loss(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise_of(20), 16000)
    whole, content = load_waveform(path, 16000), path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert torch.equal(load_waveform(path, 16000), whole)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF024])
def test_a_wav_from_a_pipe_is_read(tmp_path, size):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise_of(1), 16000)
    whole, content = load_waveform(path, 16000), bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    assert torch.equal(load_waveform(path, 16000), whole)


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), b"LIST\x04\0\0\0abcd", b"\0"])
@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_tags_at_the_end_are_no_loss(tmp_path, suffix, tail):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise_of(1), 16000)
    whole = load_waveform(path, 16000)
    path.write_bytes(path.read_bytes() + tail)
    torch.testing.assert_close(load_waveform(path, 16000), whole)


# Files of the world


def test_sounds_behind_links_are_read(folder, tmp_path):
    store = tmp_path / "store"
    (folder / "audio").rename(store)
    (folder / "audio").mkdir()
    for path in store.iterdir():
        (folder / "audio" / path.name).symlink_to(path)
    links = load_dataset("esc50", folder)
    assert len(links.clips) == 30 and not links.problems
    (store / CLIP).unlink()
    assert f"no such file (a link to {store / CLIP}, which is not there)" in left_out(folder)
    for path in (folder / "audio").iterdir():
        path.unlink()
    (folder / "audio").rmdir()
    (folder / "audio").symlink_to(store)
    assert len(load_dataset("esc50", folder).clips) == 29


def forget_length(path):
    """As a recorder leaves it that streams: 36 bits of STREAMINFO, the number of samples, are 0."""
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)


@pytest.mark.parametrize("seconds", [0.1, 1, 4.9, 5, 7])
def test_a_flac_of_unknown_length_is_read(tmp_path, seconds):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise_of(seconds), 16000)
    whole = load_waveform(path, 16000)
    forget_length(path)
    assert torch.equal(load_waveform(path, 16000), whole)
    assert read_length(path) == round(16000 * seconds) / 16000


def test_flacs_of_unknown_length_are_no_longer_than_they_are(tmp_path):
    """Of clips of 1.5 s, neither padded to 5 s nor said to be longer than 30 s; a damaged one is a line."""
    root = make_folder(tmp_path / "set", ".flac")
    for path in (root / "audio").iterdir():
        soundfile.write(path, noise_of(1.5), 16000)
        forget_length(path)
    dataset = load_dataset("esc50", root)
    assert dataset.seconds == 1.5 and dataset.problems == []
    own = load_own_dataset(root / "audio")
    assert own.seconds == 1.5 and own.problems == []
    content = bytearray(path.read_bytes())
    content[42:] = b"no frame"
    path.write_bytes(content)
    dataset = load_dataset("esc50", root)
    (line,) = dataset.problems
    assert path.name in line and len(dataset.clips) == 29 and dataset.seconds == 1.5


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.raw", "samples without a header; convert it to WAV first"),
        ("A.RAW", "samples without a header; convert it to WAV first"),
        ("a.txt", "not a readable audio file (no format that is known)"),
        ("a", "not a readable audio file (no format that is known)"),
        ("n" * 300 + ".wav", "File name too long"),
        ("gone\nnext.wav", r"gone\nnext.wav: no such file"),
    ],
)
def test_a_row_of_no_sound_is_a_line(folder, name, reason):
    if len(name) < 9:
        (folder / "audio" / name).write_bytes(b"\1\2" * 400)
    rename_last(folder, name)
    assert reason in left_out(folder)


@pytest.mark.parametrize("n_bytes", [3, 400, 5000])
def test_junk_before_an_mp3_is_read_or_told_in_our_words(folder, n_bytes):
    path = folder / "audio" / "a.mp3"
    soundfile.write(path, noise_of(1), 16000)
    path.write_bytes(b"\0j" * n_bytes + path.read_bytes())
    rename_last(folder, "a.mp3")
    dataset = load_dataset("esc50", folder)
    if dataset.problems:
        assert "not a readable audio file (no format that is known)" in dataset.problems[0]
    else:
        assert load_waveform(path, 16000)[:16000].abs().max() == 1


def test_names_that_are_not_utf_8_end_nothing(folder):
    plain = inputs.fingerprint(folder)
    (folder / "audio" / "caf\udce9.wav").write_bytes(b"sound")
    assert inputs.fingerprint(folder)["files"] == plain["files"] + 1
    assert inputs.dataset_state(folder) != inputs.ABSENT
    assert not load_dataset("esc50", folder).problems  # no row lists it
    assert shown("caf\udce9\n.wav") == r"caf\udce9\n.wav"


@pytest.mark.parametrize("other", ["._white.wav", ".white.wav", "white/"])
def test_what_systems_leave_in_a_folder_is_no_noise(tmp_path, other):
    soundfile.write(tmp_path / "white.wav", noise_of(5), 16000)
    path = tmp_path / other.replace("/", ".wav2.wav")
    path.mkdir() if other.endswith("/") else path.write_bytes(b"\0\5\x16\7")
    assert load_noise("white", 16000, tmp_path).abs().max() == 1


@pytest.mark.parametrize("rate", [44101, 47999, 31999])
def test_rates_that_never_meet_are_refused_with_what_to_do(rate):
    with pytest.raises(
        ValueError, match=f"sample_rate: cannot resample its {rate} Hz to 32000 Hz; convert it first"
    ):
        check_rates(rate, 32000, "sample_rate")


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_a_rate_that_no_sound_has_is_a_damaged_header(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", noise_of(0.1), rate)
    with pytest.raises(ValueError, match="its sample rate is not between 1,000 and 1,000,000 Hz"):
        load_waveform(tmp_path / "a.wav", 16000)


# A change of any sound is seen


def test_a_changed_sound_in_a_folder_or_behind_a_link_is_seen(folder, tmp_path):
    (folder / "audio" / "yes").mkdir()
    (tmp_path / "store").mkdir()
    inside, behind = folder / "audio" / "yes" / "a.wav", tmp_path / "store" / "b.wav"
    for path in (inside, behind):
        path.write_bytes(b"sound")
    (folder / "audio" / "no").symlink_to(tmp_path / "store")
    (folder / "audio" / "loop").symlink_to(folder / "audio")
    for path in (inside, behind):
        state, print_ = inputs.dataset_state(folder), inputs.fingerprint(folder)["sha256"]
        path.write_bytes(b"other sound")
        assert inputs.dataset_state(folder) != state and inputs.fingerprint(folder)["sha256"] != print_
