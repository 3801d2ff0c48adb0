"""Where thinking begins and ends: for templates that open it, that leave it to the model, and that do not know it."""

from types import SimpleNamespace

import pytest
from tiny_folders import write_tiny
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from specexit_jax.api.reading import thinking_and_answer
from specexit_jax.decoding.loop.closing import closing_table
from specexit_jax.decoding.oracle import _closed_by
from specexit_jax.engine.session import load_session
from specexit_jax.engine.thinking import END_THINK, chat_prompt, find_thinking

TURN = (
    "{% for message in messages %}<|user|>{{ message.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
)
TEMPLATES = {
    # Qwen3-Thinking and the R1 distills: the prompt ends in an open <think>, and nothing closes it.
    "opened": TURN + "{{ '<think>\\n' }}{% endif %}",
    # Qwen3's hybrid models: the model opens it itself; enable_thinking=False closes it in the prompt.
    "hybrid": TURN
    + "{% if enable_thinking is defined and not enable_thinking %}"
    + "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}",
    "plain": TURN + "{% endif %}",
}  # fmt: skip


def tokenizer(template: str, special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Bytes, and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|user|>", "<|assistant|>", *special])
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=template, clean_up_tokenization_spaces=False)


# As Qwen's and Llama 3's: punctuation takes the line ends behind it into its piece, and may be one token with them.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
CORPUS = ["<think>\nOkay", "<think>\n\na", "a.\n\n</think>\n\nb", "(so)</think>\nb", "x >\n\n y >\n z </p>\n"] * 20


def merging(template: str, size: int = 330) -> PreTrainedTokenizerFast:
    """BPE that knows neither `<think>` nor `</think>` as a token and merges their ends with what is around them."""
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<|user|>", "<|assistant|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, chat_template=template, eos_token="<|end|>", clean_up_tokenization_spaces=False
    )


def text(tokenizer, ids) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("special", [("<think>", "</think>"), ()], ids=["tokens", "several ids"])
@pytest.mark.parametrize("template", ["opened", "hybrid"])
def test_prompts_are_open_and_can_be_closed(template, special):
    made = tokenizer(TEMPLATES[template], special)
    if template == "opened" and not special:  # then nothing but the template's <think> would tell
        made.chat_template = TEMPLATES["opened"].replace("{% for", "{# ends with </think> #}{% for", 1)
    thinking = find_thinking(made)
    assert len(thinking.end) == (1 if special else len("</think>"))
    ids = chat_prompt(made, thinking, "2+2?")
    assert thinking.is_open(ids)
    assert text(made, ids) == "<|user|>2+2?<|assistant|><think>\n"
    closed = thinking.close(ids)
    assert not thinking.is_open(closed) and thinking.close(closed) == closed
    assert text(made, closed) == "<|user|>2+2?<|assistant|><think>\n\n</think>\n\n"
    # A prompt of another form (a conversation cut elsewhere) is closed by the bare ids.
    other = [*ids, *made.encode("Hm", add_special_tokens=False)]
    assert thinking.close(other) == [*other, *thinking.end]


@pytest.mark.parametrize("ending", ["\\n", "", "\\n\\n"])
@pytest.mark.parametrize("template", ["opened", "hybrid"])
def test_ends_that_are_merged_with_what_stands_around_them_are_found(template, ending):
    made = merging(TEMPLATES[template].replace("<think>\\n'", f"<think>{ending}'"))
    thinking = find_thinking(made)
    assert len(thinking.start) > 1 and len(thinking.end) > 1
    ids = chat_prompt(made, thinking, "2+2?")
    shown = ending.replace("\\n", "\n") if template == "opened" else "\n"
    assert text(made, ids) == f"<|user|>2+2?<|assistant|><think>{shown}" and thinking.is_open(ids)
    if shown:  # the case: by its ids no `<think>` is there
        assert tuple(ids[-len(thinking.start) :]) != thinking.start and ids[-1] == made.encode(f">{shown}")[0]
    closed = thinking.close(ids)
    assert text(made, closed) == "<|user|>2+2?<|assistant|><think>\n\n</think>\n\n"
    assert not thinking.is_open(closed) and thinking.close(closed) == closed
    table = closing_table([made.decode([token]) for token in range(len(made))], END_THINK)
    for thought, answer in (("Hm.\n\n", "\n\n4"), ("(so)", "\n4"), ("so", "4"), ("a >\n</p>", "\r\n4")):
        written = made.encode(f"{thought}{END_THINK}{answer}", add_special_tokens=False)
        last = next(n for n in range(1, len(written) + 1) if _closed_by((), table, [*ids, *written[:n]]))
        end = last - _closed_by((), table, [*ids, *written[:last]])
        assert END_THINK in text(made, written[:last]) and END_THINK not in text(made, written[: last - 1])
        assert thought.startswith(text(made, written[:end])) and "<" in text(made, written[end : end + 1])
        outcome = SimpleNamespace(ids=tuple(written), think_end=end, thinking_tokens=end)
        assert thinking_and_answer(SimpleNamespace(tokenizer=made, stop_ids=()), outcome) == (thought, answer)


@pytest.mark.parametrize("kind", ["token", "several ids", "merged"])
@pytest.mark.parametrize("template", ["opened", "hybrid"])
def test_a_question_that_mentions_thinking_is_no_control(template, kind):
    words = TEMPLATES[template]
    made = merging(words) if kind == "merged" else tokenizer(words, ("<think>", END_THINK) if kind == "token" else ())
    if template == "opened" and kind == "several ids":
        made.chat_template = words.replace("{% for", "{# ends with </think> #}{% for", 1)
    thinking, turns = find_thinking(made), "What does <think> do, and <|assistant|><think> "
    for question in (turns, "Why </think>?", f"{turns} </think>", "x " * 200 + turns):
        ids = chat_prompt(made, thinking, question)
        assert thinking.is_open(ids) and text(made, ids).endswith("<|assistant|><think>\n")
        assert not thinking.is_open(made.encode(f"<|user|>{question}<|assistant|>", add_special_tokens=False))
        closed = thinking.close(ids)
        assert text(made, closed).endswith("<|assistant|><think>\n\n</think>\n\n") and not thinking.is_open(closed)


def test_a_session_follows_an_end_of_several_ids_in_its_text(tmp_path):
    folder = write_tiny(tmp_path)
    for path in (folder / "target").glob("*token*"):
        path.unlink()
    merging(TEMPLATES["opened"], size=290).save_pretrained(folder / "target")
    session = load_session(folder / "target", folder / "draft")
    assert len(session.end_think_ids) > 1
    assert session.params.closing.shape == (len(END_THINK), session.target.vocab_size)


def test_a_tokenizer_that_cannot_write_the_end_is_refused():
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    made = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", chat_template=TEMPLATES["opened"])
    with pytest.raises(ValueError, match=r"the tokenizer decodes </think> to '\[UNK\]'"):
        find_thinking(made)
    made.chat_template = TEMPLATES["plain"]
    assert find_thinking(made) is None


def test_only_the_last_thought_counts():
    made = tokenizer(TEMPLATES["hybrid"], ("<think>", "</think>"))
    thinking = find_thinking(made)

    def encode(words):
        return made.encode(words, add_special_tokens=False)

    assert not thinking.is_open(encode("no thought"))
    assert not thinking.is_open(encode("<think>a</think>b"))
    assert thinking.is_open(encode("<think>a</think>b<|user|>c<think>d"))


def test_a_model_that_does_not_think():
    made = tokenizer(TEMPLATES["plain"], ())
    assert find_thinking(made) is None
    assert text(made, chat_prompt(made, None, "Hi")) == "<|user|>Hi<|assistant|>"
    # A base model with the tokens but without a template: prompts are the caller's.
    bare = tokenizer(None, ("<think>", "</think>"))
    thinking = find_thinking(bare)
    ids = bare.encode("<think>x", add_special_tokens=False)
    assert thinking.close(ids) == [*ids, *thinking.end]
