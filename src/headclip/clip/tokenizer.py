"""CLIP's byte-pair tokenizer, run by the `tokenizers` library on a vocabulary that is always checked.

The rules are those of Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(2021): lower-cased byte-level BPE with an end-of-word mark. The merge list ships in `vocabulary/` (MIT
licence). CLIP also passes text through ftfy, which repairs wrongly decoded text and straightens typographic
quotes; here text is HTML-unescaped and normalised to NFC only, so such text gets other tokens.
"""

from __future__ import annotations

import gzip
import html
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from headclip.errors import BackboneError, InputError
from headclip.files import load_json

SOT = "<|startoftext|>"
EOT = "<|endoftext|>"
CLIP_VOCAB_SIZE = 49408
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_BYTE_SYMBOLS = 512  # every byte inside a word, and every byte at the end of a word
_END_OF_WORD = "</w>"
_SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|"  # special marks, English contractions
    r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # a run of letters, one digit, a run of anything else
)

Merges = list[tuple[str, str]]


class ClipTokenizer:
    """Text to token ids and back, as CLIP does it.

    Args:
        vocab_size: ids in use, 514 to 49,408. Fewer than 49,408 keep only the first merges of CLIP's list.
        context_length: tokens in a row, start and end marks included.

    Example:
        >>> tokenizer = ClipTokenizer()
        >>> tokenizer(["a photo of a damaged object"]).shape
        torch.Size([1, 77])
        >>> tokenizer.encode("a photo")
        [320, 1125]

    Raises:
        BackboneError: `vocab_size` is outside the range that CLIP's merge list can fill.
    """

    def __init__(self, vocab_size: int = CLIP_VOCAB_SIZE, context_length: int = 77) -> None:
        vocab, merges = clip_vocabulary(vocab_size)
        self._build(vocab, merges, context_length)

    def _build(self, vocab: dict[str, int], merges: Merges, context_length: int) -> None:
        check_vocabulary(vocab)
        if context_length < 3:
            raise BackboneError(f"a context of {context_length} tokens leaves no room for text; at least 3 are needed")
        self.vocab_size = len(vocab)
        self.context_length = context_length
        self.sot_id = vocab[SOT]
        self.eot_id = vocab[EOT]
        self._vocab = vocab
        self._merges = merges
        self._engine = _make_engine(vocab, merges)

    @classmethod
    def from_vocabulary(cls, vocab: dict[str, int], merges: Merges, context_length: int = 77) -> ClipTokenizer:
        """Build from a vocabulary in CLIP's style: byte symbols, merges, then the start and the end mark.

        Raises:
            BackboneError: ids have gaps, the marks are not the last two, or a merge is not in the vocabulary.
        """
        tokenizer = cls.__new__(cls)
        tokenizer._build(vocab, merges, context_length)
        return tokenizer

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, vocab_size: int | None = None, context_length: int = 77
    ) -> ClipTokenizer:
        """Read `tokenizer.json`, or `vocab.json` and `merges.txt`, from a folder in Hugging Face layout.

        Args:
            folder: the folder of the model.
            vocab_size: the length that the model's configuration asks for; None accepts any.
            context_length: tokens in a row.

        Raises:
            BackboneError: the files are missing, unreadable, not in CLIP's style, or of another length.
        """
        folder = Path(folder)
        vocab, merges = _read_folder(folder)
        if vocab_size is not None and len(vocab) != vocab_size:
            raise BackboneError(
                f"the vocabulary in {folder} has {len(vocab)} tokens but the model expects {vocab_size}; "
                "take tokenizer.json (or vocab.json and merges.txt) from the same place as the weights"
            )
        return cls.from_vocabulary(vocab, merges, context_length)

    def __len__(self) -> int:
        return self.vocab_size

    def __call__(self, texts: str | Sequence[str], *, truncate: bool = False) -> torch.Tensor:
        """Token ids of shape (n, context_length), int64: start mark, text, end mark, zeros.

        Args:
            texts: one text or several.
            truncate: cut a text that is too long, keeping the end mark, instead of refusing it.

        Raises:
            InputError: a text is too long and `truncate` is False.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        room = self.context_length - 2
        rows = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = self.encode(text)
            if len(ids) > room:
                if not truncate:
                    raise InputError(
                        f"a text of {len(ids)} tokens does not fit in {room}: {text[:60]!r}; shorten it, "
                        "or pass truncate=True to cut it"
                    )
                ids = ids[:room]
            row[: len(ids) + 2] = torch.tensor([self.sot_id, *ids, self.eot_id])
        return rows

    def encode(self, text: str) -> list[int]:
        """Token ids of one text of any length, without start mark, end mark and padding."""
        ids: list[int] = self._engine.encode(clean(text), add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """Text of one row of ids, without the marks and whatever follows the end mark (the padding).

        Raises:
            InputError: an id is not in the vocabulary.
        """
        numbers = [int(i) for i in ids]
        outside = [i for i in numbers if not 0 <= i < self.vocab_size]
        if outside:
            raise InputError(f"token id {outside[0]} is not in a vocabulary of {self.vocab_size}")
        text = itertools.takewhile(lambda i: i != self.eot_id, numbers)
        joined: str = self._engine.decode([i for i in text if i != self.sot_id])
        return joined.replace(_END_OF_WORD, " ").strip()

    def symbol(self, number: int) -> tuple[str, bool]:
        """One token as text, and whether it ends a word; bytes that are no text by themselves read as U+FFFD.

        >>> tokenizer = ClipTokenizer()
        >>> [tokenizer.symbol(number) for number in tokenizer.encode("photo")]
        [('photo', True)]

        Raises:
            InputError: the id is not in the vocabulary.
        """
        if not 0 <= number < self.vocab_size:
            raise InputError(f"token id {number} is not in a vocabulary of {self.vocab_size}")
        text: str = self._engine.decode([number], skip_special_tokens=False)
        return text.removesuffix(_END_OF_WORD), text.endswith(_END_OF_WORD)

    def save(self, folder: str | Path) -> None:
        """Write vocab.json, merges.txt and the settings from which `transformers.CLIPTokenizer` is built."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        marks = {"bos_token": SOT, "eos_token": EOT, "unk_token": EOT, "pad_token": EOT}
        settings = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": self.context_length,
            "do_lower_case": True,
            "add_prefix_space": False,
            "errors": "replace",
            **marks,
        }
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self._merges)]
        (folder / "vocab.json").write_text(json.dumps(self._vocab, ensure_ascii=False), encoding="utf-8")
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        (folder / "special_tokens_map.json").write_text(json.dumps(marks, indent=2) + "\n", encoding="utf-8")


def clean(text: str) -> str:
    """Text as CLIP tokenizes it: HTML entities resolved, NFC, single spaces, lower case."""
    text = text.encode("utf-8", "replace").decode()  # names of files may hold bytes that are no text
    text = html.unescape(html.unescape(text))  # twice, because captions from the web are often escaped twice
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip().lower()


def byte_symbols() -> list[str]:
    """One printable character per byte, in the order of CLIP's first 256 ids.

    Bytes that print as themselves come first; the rest are moved to the code points from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [chr(256 + i) for i in range(256 - len(printable))]
    return [chr(b) for b in printable] + moved


def clip_vocabulary(vocab_size: int = CLIP_VOCAB_SIZE) -> tuple[dict[str, int], Merges]:
    """CLIP's vocabulary (token to id) and merges, cut to `vocab_size` ids.

    Raises:
        BackboneError: `vocab_size` is below 514 or above 49,408.
    """
    if not _BYTE_SYMBOLS + 2 <= vocab_size <= CLIP_VOCAB_SIZE:
        raise BackboneError(
            f"a vocabulary of {vocab_size} tokens cannot be made from CLIP's merge list: it gives "
            f"{_BYTE_SYMBOLS + 2} to {CLIP_VOCAB_SIZE}"
        )
    merges = list(_shipped_merges()[: vocab_size - _BYTE_SYMBOLS - 2])
    symbols = byte_symbols()
    tokens = [*symbols, *(s + _END_OF_WORD for s in symbols), *(a + b for a, b in merges), SOT, EOT]
    return {token: i for i, token in enumerate(tokens)}, merges


@lru_cache(maxsize=1)
def _shipped_merges() -> tuple[tuple[str, str], ...]:
    path = Path(__file__).parent / "vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        # The first line is a version mark; the list goes on far beyond what CLIP uses.
        lines = itertools.islice(file, 1, 1 + CLIP_VOCAB_SIZE - _BYTE_SYMBOLS - 2)
        return tuple(_pair(line) for line in lines)


def check_vocabulary(vocab: dict[str, int]) -> None:
    """Refuse a vocabulary that is not in CLIP's style.

    CLIP finds the end of a text as the highest id in its row, so the end mark has to be the last id.

    Raises:
        BackboneError: ids have gaps, byte symbols are missing, or the two marks are not the last two ids.
    """
    size = len(vocab)
    advice = "take the tokenizer files from the same place as the weights"
    numbered = all(isinstance(number, int) for number in vocab.values())
    if size < _BYTE_SYMBOLS + 2 or not numbered or sorted(vocab.values()) != list(range(size)):
        raise BackboneError(f"a vocabulary of {size} tokens is incomplete or has gaps in its ids; {advice}")
    if (vocab.get(SOT), vocab.get(EOT)) != (size - 2, size - 1):
        raise BackboneError(f"not a CLIP vocabulary: {SOT} and {EOT} are not its last two tokens; {advice}")
    missing = [s for s in byte_symbols() if s not in vocab or s + _END_OF_WORD not in vocab]
    if missing:
        raise BackboneError(f"not a CLIP vocabulary: {len(missing)} byte symbols are missing; {advice}")


def _make_engine(vocab: dict[str, int], merges: Merges) -> Tokenizer:
    try:
        engine = Tokenizer(BPE(vocab=vocab, merges=merges, end_of_word_suffix=_END_OF_WORD))
    except Exception as error:  # the library raises a bare Exception
        raise BackboneError(
            f"the merges do not belong to the vocabulary ({error}); take both files from the same place"
        ) from error
    engine.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in (SOT, EOT)])
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    engine.decoder = decoders.ByteLevel()
    return engine


def _read_folder(folder: Path) -> tuple[dict[str, int], Merges]:
    one = folder / "tokenizer.json"
    two = (folder / "vocab.json", folder / "merges.txt")
    try:
        if one.is_file():
            return _read_tokenizer_json(load_json(one))
        if all(path.is_file() for path in two):
            lines = two[1].read_text(encoding="utf-8").split("\n")
            merges = [_pair(line) for line in lines[lines[0].startswith("#version") :] if line.strip()]
            return dict(load_json(two[0])), merges
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise BackboneError(f"the tokenizer files in {folder} cannot be read: {error}; download them again") from error
    raise BackboneError(f"no tokenizer in {folder}: it needs tokenizer.json, or vocab.json and merges.txt")


def _read_tokenizer_json(content: dict[str, Any]) -> tuple[dict[str, int], Merges]:
    model = content["model"]
    if model.get("type", "BPE") != "BPE" or model.get("end_of_word_suffix") != _END_OF_WORD:
        raise BackboneError("tokenizer.json does not hold CLIP's byte-pair model; this backbone is not a CLIP model")
    vocab = dict(model["vocab"])
    vocab.update({token["content"]: token["id"] for token in content.get("added_tokens", [])})
    return vocab, [_pair(merge) for merge in model["merges"]]


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split() if isinstance(merge, str) else merge
    return left, right
