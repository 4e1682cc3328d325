"""CLIP's tokenizer against transformers, against a brute-force reference and against the official ids."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import golden_io
from headclip.clip import tokenizer as module
from headclip.clip.tokenizer import (
    EOT,
    SOT,
    ClipTokenizer,
    byte_symbols,
    clean,
    clip_vocabulary,
)
from headclip.errors import BackboneError, InputError

TEXTS = [
    "a photo of a bottle.",
    "it's the inspector's part, isn't it? they'll say we've 'damaged' ones; I'd check, I'm sure you're right",
    "IT'S UPPER CASE: PCB-3 M8x20 2026-11-22 3.14159",
    "  several\twhite \n\n spaces\u00a0here\u2003too ",
    "café naïve Straße ÅNGSTRÖM cafe\u0301",
    "Ελληνικά κείμενο, русский текст, 検査画像の異常, صورة, हिन्दी",
    "emoji 🙂👩‍🔧 and ½ ² ⅷ ٣ symbols €£¥ © ™",
    "!!!??? --- ... ((())) #@$%^*_+=[]{}|\\/~`",
    "don''t '' 's 't ' s'",
    "under_score and-hyphen and/slash 100%",
    "a",
    "",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "null\x00byte, bell\x07, zero\u200bwidth",
]


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


@pytest.fixture(scope="module")
def small() -> ClipTokenizer:
    return ClipTokenizer(vocab_size=2000)


def brute_force(text: str, vocab: dict[str, int], merges: list[tuple[str, str]]) -> list[int]:
    """BPE by definition, for one word: apply the merge of lowest rank everywhere, until none applies."""
    rank = {pair: i for i, pair in enumerate(merges)}
    symbols = byte_symbols()
    order = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    order += [b for b in range(256) if b not in order]
    character = {byte: symbols[i] for i, byte in enumerate(order)}
    parts = [character[b] for b in text.encode()]
    parts[-1] += "</w>"
    while True:
        pairs = [pair for pair in itertools.pairwise(parts) if pair in rank]
        if not pairs:
            return [vocab[part] for part in parts]
        best = min(pairs, key=rank.__getitem__)
        merged: list[str] = []
        for part in parts:
            if merged and (merged[-1], part) == best:
                merged[-1] += part
            else:
                merged.append(part)
        parts = merged


def test_known_ids_of_the_full_vocabulary(tokenizer: ClipTokenizer) -> None:
    assert len(tokenizer) == 49408
    assert (tokenizer.sot_id, tokenizer.eot_id) == (49406, 49407)
    ids = tokenizer("a photo of a cat")
    assert ids.dtype == torch.long
    assert ids.shape == (1, 77)
    # Published with CLIP's own examples.
    assert ids[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert ids[0, 7:].sum() == 0


@pytest.mark.parity
def test_ids_of_the_official_code(tokenizer: ClipTokenizer) -> None:
    texts = json.loads(golden_io.metadata("clip")["texts"])
    assert torch.equal(tokenizer(texts), golden_io.load("clip")["token_ids"])


@pytest.mark.parametrize("vocab_size", [514, 2000, 49408])
def test_transformers_reads_the_saved_files_to_the_same_ids(tmp_path: Path, vocab_size: int) -> None:
    transformers = pytest.importorskip("transformers")
    ours = ClipTokenizer(vocab_size)
    ours.save(tmp_path)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == vocab_size
    for text in TEXTS:
        assert [ours.sot_id, *ours.encode(text), ours.eot_id] == theirs(text).input_ids, text


def test_brute_force_agrees(tokenizer: ClipTokenizer, small: ClipTokenizer) -> None:
    words = ["photo", "scratched", "anomaly", "wafer", "überprüfung", "検査画像", "zzzzzz", "aaaaaaa", "x"]
    for one in (tokenizer, small):
        vocab, merges = clip_vocabulary(len(one))
        for word in words:
            assert one.encode(word) == brute_force(word, vocab, merges), word


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_survives_a_round_trip(text: str) -> None:
    for one in (_FULL, _SMALL):
        ids = one.encode(text)
        assert all(0 <= i < one.vocab_size for i in ids)
        # Spaces between words are a matter of splitting, not of the text.
        if SOT not in clean(text) and EOT not in clean(text):
            assert "".join(one.decode(ids).split()) == "".join(clean(text).split())


_FULL, _SMALL = ClipTokenizer(), ClipTokenizer(1000)


def test_text_is_cleaned_as_in_clip(tokenizer: ClipTokenizer) -> None:
    assert clean("  A &amp;amp; B\n\tC ") == "a & b c"
    assert tokenizer.encode("DAMAGED   Part") == tokenizer.encode("damaged part")
    assert tokenizer.encode("e\u0301tat") == tokenizer.encode("\u00e9tat")
    assert tokenizer.encode("it's")[1:] == tokenizer.encode("'s")
    assert len(tokenizer.encode("2026")) == 4  # one token per digit
    assert tokenizer.encode("bad\udcffname") == tokenizer.encode("bad?name")


def test_decode_stops_at_the_end_mark(tokenizer: ClipTokenizer) -> None:
    row = tokenizer("A scratched  Metal nut!")[0]
    assert tokenizer.decode(row) == "a scratched metal nut !"
    assert tokenizer.decode([]) == ""
    with pytest.raises(InputError, match="49408"):
        tokenizer.decode([49408])


def test_too_long_text(tokenizer: ClipTokenizer) -> None:
    fits, too_long = " ".join(["part"] * 75), " ".join(["part"] * 76)
    assert tokenizer(fits)[0, -1] == tokenizer.eot_id
    with pytest.raises(InputError, match="76 tokens"):
        tokenizer(["short", too_long])
    assert torch.equal(tokenizer(too_long, truncate=True), tokenizer(fits))
    assert ClipTokenizer(600, context_length=5)("abcdef", truncate=True)[0, -1] == 599


def test_a_shorter_vocabulary_keeps_the_first_merges(tokenizer: ClipTokenizer, small: ClipTokenizer) -> None:
    full_vocab, full_merges = clip_vocabulary()
    vocab, merges = clip_vocabulary(2000)
    assert merges == full_merges[: 2000 - 514]
    assert all(full_vocab[token] == i for token, i in vocab.items() if token not in (SOT, EOT))
    assert (small.sot_id, small.eot_id) == (1998, 1999)
    assert small("a photo").max() == small.eot_id
    assert small.decode(small("a photo of a capacitor")[0]) == "a photo of a capacitor"


@pytest.mark.parametrize("vocab_size", [0, 513, 49409])
def test_impossible_lengths(vocab_size: int) -> None:
    with pytest.raises(BackboneError, match=str(vocab_size)):
        ClipTokenizer(vocab_size)


def test_folder_round_trip_and_length_check(tmp_path: Path, small: ClipTokenizer) -> None:
    small.save(tmp_path)
    again = ClipTokenizer.from_folder(tmp_path, vocab_size=2000)
    assert all(again.encode(text) == small.encode(text) for text in TEXTS)
    with pytest.raises(BackboneError, match=r"2000 tokens but the model expects 49408"):
        ClipTokenizer.from_folder(tmp_path, vocab_size=49408)


def test_tokenizer_json_as_transformers_writes_it(tmp_path: Path, small: ClipTokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    small.save(tmp_path / "ours")
    transformers.CLIPTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "tokenizer.json").is_file()
    again = ClipTokenizer.from_folder(tmp_path / "theirs", vocab_size=2000)
    assert all(again.encode(text) == small.encode(text) for text in TEXTS)


def test_the_two_token_vocabulary_of_a_failed_download_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({SOT: 0, EOT: 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(BackboneError, match="2 tokens"):
        ClipTokenizer.from_folder(tmp_path)


def _save_changed(folder: Path, small: ClipTokenizer, change: str) -> None:
    small.save(folder)
    vocab = json.loads((folder / "vocab.json").read_text())
    if change == "gap":
        vocab["!"] = 5000
    elif change == "marks first":
        vocab = {SOT: 0, EOT: 1} | {k: v + 2 for k, v in vocab.items() if k not in (SOT, EOT)}
    elif change == "byte missing":
        vocab = {("brand new" if k == "!" else k): v for k, v in vocab.items()}
    elif change == "foreign merges":
        (folder / "merges.txt").write_text("#version: 0.2\nqq zz\n")
    elif change == "not json":
        (folder / "vocab.json").write_text("{")
        return
    (folder / "vocab.json").write_text(json.dumps(vocab))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("gap", "gaps"),
        ("marks first", "last two"),
        ("byte missing", "byte symbols"),
        ("foreign merges", "merges do not belong"),
        ("not json", "cannot be read"),
    ],
)
def test_a_wrong_vocabulary_is_refused(tmp_path: Path, small: ClipTokenizer, change: str, message: str) -> None:
    _save_changed(tmp_path, small, change)
    with pytest.raises(BackboneError, match=message):
        ClipTokenizer.from_folder(tmp_path)


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")  # without merges.txt it is of no use
    with pytest.raises(BackboneError, match=r"merges\.txt"):
        ClipTokenizer.from_folder(tmp_path)


def test_tokenizer_json_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
    with pytest.raises(BackboneError, match="byte-pair"):
        ClipTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(BackboneError, match="cannot be read"):
        ClipTokenizer.from_folder(tmp_path)


def test_shipped_data_is_complete_and_licensed() -> None:
    folder = Path(module.__file__).parent / "vocabulary"
    with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        assert file.readline().startswith('"bpe_simple_vocab_16e6.txt#version')
    assert "MIT" in (folder / "LICENSE").read_text()
    vocab, merges = clip_vocabulary()
    assert (len(vocab), len(merges)) == (49408, 48894)
