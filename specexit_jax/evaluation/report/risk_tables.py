"""Markdown: the certified bound beside the realised risk, and each task's policy used on the other tasks."""

from collections.abc import Mapping

from specexit_jax.evaluation.certified.phrases import FEW, harm_text
from specexit_jax.evaluation.report.tables import markdown_table

POOLED = "pooled"


def risk_text(risk: Mapping) -> str:
    """risk: of `exit_sections.realised_risk`."""
    low, high = (100 * limit for limit in risk["risk_ci95"])
    several = risk.get("traces", risk["problems"]) != risk["problems"]
    counted = f"{risk['traces']} traces of {risk['problems']} problems" if several else f"{risk['problems']} problems"
    shown = (
        f"Of {counted} {risk['harmed']} were turned from right to wrong, or never closed their thinking and were "
        f"not right: a risk of {100 * risk['risk']:.2f} % ({low:.2f} to {high:.2f}; one problem is one observation)."
    )
    certificate = risk.get("certificate")
    if certificate is None:
        where = risk.get("chosen_on")
        told = f" on {where['problems']} problems of `{where['split']}`" if where else ""
        few = f"; fewer than {FEW} say little about so rare a harm" if where and where["problems"] < FEW else ""
        return f"{shown} The policy has no certificate: its thresholds were chosen by grid{told}{few}."
    return (
        f"{shown} Certified was P(risk ≤ {100 * certificate['epsilon']:g} %) ≥ {100 * (1 - certificate['delta']):g} %, on "
        f"{certificate['problems']} problems of `{certificate['split']}` with {_seen(certificate)} (p "
        f"{certificate['p_value']:.2g}; path fixed on `{certificate['path_split']}`). The certificate {_scope(certificate)}. It "
        "bounds harm, not net accuracy: see the pairs for both."
    )


def _seen(certificate: Mapping) -> str:
    if certificate.get("traces") in (None, certificate["problems"]):
        return f"{certificate['harmed']} harmed"
    return harm_text(certificate)


def _scope(certificate: Mapping) -> str:
    return certificate.get("scope") or (
        "is of an earlier version, which did not record the mixture of tasks that it holds for, nor how many traces a problem had"
    )


def _several(together: int | None) -> str:
    if together and together > 1:
        return f"those of the {together} tasks hold at once, each having been given its part of delta"
    return "each policy of a task holds by itself with probability 1 − δ, not all of them at once"


def transfer_table(transfer: Mapping[str, Mapping[str, Mapping]], together: int | None = None) -> str:
    """transfer: of `certify.transfer`; rows are the tasks that a policy was certified on, columns where it is used. together: how
    many of the policies' certificates hold at once."""
    names = sorted(transfer, key=lambda name: (name != POOLED, name))
    tasks = sorted(transfer[names[0]])
    rows = []
    for name in names:
        cells = []
        for task in tasks:
            used = transfer[name][task]
            harmed = used.get("risk", used["harmed"] / used["problems"])
            cell = f"{100 * (used['tokens_ratio'] - 1):+.0f} % / {100 * harmed:.1f} %".replace("-", "−")
            cells.append(f"**{cell}**" if name == task else cell)
        rows.append([name, *cells])
    return (
        "Change of tokens / share of problems harmed; rows: what the policy was certified on, columns: where it is used. The "
        f"pooled certificate holds for the mixture of tasks that it was made on, not for each of them; {_several(together)}.\n\n"
        + markdown_table(["certified on", *tasks], rows)
    )
