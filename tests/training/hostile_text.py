"""Sentences that are text, however strange: every command answers them, and none changes a byte of them."""

from __future__ import annotations

from tests.modeling_sentence_ordering.small_encoders import BERT_SPECIALS, ROBERTA_SPECIALS

SPECIAL_TOKENS = [
    *BERT_SPECIALS.values(), *ROBERTA_SPECIALS.values(),
    "<|endoftext|>", "<|im_start|>", "<bos>", "<eos>", "<unk>", "<extra_id_0>", "[unused1]", "[SENT]", "##ing", "▁",
    "Ġ",
]  # fmt: skip
LONGEST = "Tom baked a cake. " * 5556  # 100,008 letters

STORIES: dict[str, list[str]] = {
    "emoji": ["👩‍👩‍👧‍👦 went home 🏠.", "🇫🇷🏳️‍🌈!", "It rained ☔️."],
    "right to left": ["ذهب توم إلى البيت.", "הוא אכל עוגה.", "\u202eIt rained.\u202c", "آخر جملة؟"],
    "combining": ["e\u0301e\u0301 é", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳", "ﬁne", "ｗｉｄｅ"],
    "control characters": ["It\x01 rained\x7f.", "Tom\x1b[31m baked.", "She\x0bstayed\x0cdry.", "We\x85.", "\x1f\x02"],
    "line separators": ["It\u2028rained.", "Tom\u2029baked.", "\u00a0We walked.\u00a0"],
    "invisible": ["a\u200b", "It\u00ad rained.", "b\u200d\u2060", "\ufffd\ufffe", "\U0010ffff"],
    "special tokens": SPECIAL_TOKENS,
    "special tokens inside": [f"Tom {token}{token} baked {token}." for token in SPECIAL_TOKENS],
    "markup": ["<script>alert(1)</script>", "{{ it }} {% rained %}", '"; DROP TABLE stories; --', "| a | b |", "---"],
    "quotes": ['She said "no".', "It''s", "a,b;c", "\\", "\\n", '"'],
    "formulas": ["=1+1", "@SUM(A1)", "-2", "+3", "NaN", "null", "1e999"],
    "white space": ["  It  rained. ", "Tom\tbaked.", " a", "a ", "a"],
    "duplicates": ["It rained.", "It rained.", "It rained.", "Tom baked.", "Tom baked."],
    "one sentence": ["It rained."],
    "one letter each": list("abcdefghij"),
    "one word that does not end": ["a" * 5000, "b" * 5000, "c"],
    "a sentence of 100,000 letters": [LONGEST, "It rained.", "She stayed dry."],
}  # fmt: skip
