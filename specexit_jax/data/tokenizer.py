"""The bundled model's tokenizer: byte-level BPE with single digits and paragraph ends as tokens of their own."""

import json
import pathlib
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

THINK, END_THINK = "<think>", "</think>"
# <|end|> closes a turn; <think> is opened by the prompt, as in Qwen3-Thinking and the R1 distills.
SPECIAL_TOKENS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", THINK, END_THINK)
# Punctuation with the line ends behind it | one digit | a word | one sign | other space: "." and ".\n\n" are two tokens.
_PIECES = r"[^\s\p{L}\p{N}]?\n+| ?\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]|\s"
# The space after <|user|> gives a question's first word the same token as in the middle of a sentence.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}<|user|> {{ message.content }}{% else %}"
    "<|assistant|>{{ message.content.split('</think>')[-1].strip('\\n') }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n"
    "{% if enable_thinking is defined and not enable_thinking %}\n</think>{% endif %}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train on texts; the result has the special tokens, the chat template and the pieces described above."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def has_tokenizer(folder: str | pathlib.Path) -> bool:
    return any((pathlib.Path(folder) / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))


def load_tokenizer(folder: str | pathlib.Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder; raises FileNotFoundError or ValueError in one sentence."""
    if not has_tokenizer(folder):
        raise FileNotFoundError(f"{folder} has no tokenizer.json: it is not a model folder")
    try:
        if _is_plain(pathlib.Path(folder)):
            return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        from transformers import AutoTokenizer  # imports PyTorch wherever that is installed: seconds

        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise ValueError(f"the tokenizer in {folder} cannot be read: {error}") from error


def _is_plain(folder: pathlib.Path) -> bool:
    """Whether the tokenizer is all in its tokenizer.json, and says so: no class of a model's own has to be looked up."""
    told = folder / "tokenizer_config.json"
    if not (told.exists() and (folder / "tokenizer.json").exists()):
        return False
    settings = json.loads(told.read_text())
    return settings.get("tokenizer_class") == PreTrainedTokenizerFast.__name__ and "auto_map" not in settings


def prompt_text(
    tokenizer: PreTrainedTokenizerBase, question: str | Sequence[dict[str, str]], thinking: bool = True
) -> str:
    """The chat prompt for one question, or for a conversation ({role, content} messages, the last one the user's).

    The thinking is opened, or opened and closed at once. The chat template decides whether the thinking of earlier
    turns is kept.
    """
    turns = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
