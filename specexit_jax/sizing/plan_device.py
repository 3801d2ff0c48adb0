"""The bytes on a device of what the stages do there, by what they are: plan_memory.py with a plan's sizes."""

from specexit_jax.sizing import plan_memory
from specexit_jax.sizing.plan import Work

CHUNK = 1024  # tokens that one pass of a prefill reads (engine/slots.py)
FEATURE_TOKENS = 2**17  # tokens of traces that one pass of feature extraction reads (annotation/features.py)


def decoding_memory(work: Work, rows: int, drafts: bool, mesh: plan_memory.Mesh, capacity: int) -> dict[str, int]:
    """Bytes on a device of a loop with `rows` rows."""
    draft = work.draft if drafts else None
    weights = plan_memory.target_bytes(work.target, mesh) + (plan_memory.draft_bytes(work.draft, mesh) if drafts else 0)
    drafted = work.drafted if drafts else 0
    return {
        "weights": weights,
        "caches": plan_memory.cache_bytes(work.target, draft, rows, capacity, mesh),
        "working": plan_memory.decode_working(work.target, draft, rows, drafted, CHUNK, mesh),
    }


def annotating_memory(work: Work, rows: int, branches: int, mesh: plan_memory.Mesh, capacity: int) -> dict[str, int]:
    """Bytes on a device of forced answers: `rows` traces with `branches` answers of each at a time."""
    own = plan_memory.rows_a_device(rows, mesh)
    return {
        "weights": plan_memory.target_bytes(work.target, mesh),
        "caches": plan_memory.branches_bytes(work.target, rows, branches, capacity, work.max_answer, mesh),
        "working": plan_memory.decode_working(work.target, None, rows * branches, 0, own * CHUNK // 2, mesh),
    }


def training_memory(work: Work, rows: int, row_length: int, mesh: plan_memory.Mesh) -> dict[str, int]:
    """Bytes on a device of a step of draft training."""
    return {
        "weights": plan_memory.target_bytes(work.target, mesh),
        "state": plan_memory.state_bytes(work.draft, work.optimizer, work.losses, mesh, work.learn),
        "working": plan_memory.train_working(work.target, work.draft, work.losses, rows, row_length, mesh),
    }


def reading_memory(work: Work, mesh: plan_memory.Mesh) -> dict[str, int]:
    """Bytes on a device of a pass that reads signals and features of whole traces."""
    return {
        "weights": plan_memory.target_bytes(work.target, mesh) + plan_memory.draft_bytes(work.draft, mesh),
        "working": plan_memory.pass_working(work.target, FEATURE_TOKENS, mesh),
    }
