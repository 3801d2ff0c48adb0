"""--strict_policy: refuses a run that the policy was not made for; without it a note is printed."""

from absl import flags

from specexit_jax.notes import note

flags.DEFINE_bool(
    "strict_policy",
    False,
    "Refuse a run that the policy's certificate does not cover; default: say so in one line and go on.",
)


def enabled() -> bool:
    return flags.FLAGS.strict_policy


def report(sentence: str | None) -> None:
    """Prints one line; raises ValueError with --strict_policy."""
    if sentence is not None and enabled():
        raise ValueError(f"{sentence} (--strict_policy)")
    if sentence is not None:
        note(sentence)
