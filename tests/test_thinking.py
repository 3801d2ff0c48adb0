"""Where thinking begins and ends: for templates that open it, that leave it to the model, that never heard of it."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from specexit_jax.thinking import chat_prompt, find_thinking

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
