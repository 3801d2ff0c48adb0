"""What was certified beside what came of it, and each task's policy used on the others, in Markdown."""

from collections.abc import Mapping

from specexit_jax.evaluation.report.tables import markdown_table

POOLED = "pooled"


def risk_text(risk: Mapping) -> str:
    """risk: of `exit_sections.realised_risk`."""
    low, high = (100 * limit for limit in risk["risk_ci95"])
    shown = (
        f"Of {risk['problems']} problems {risk['harmed']} were turned from right to wrong, or never closed their thinking and were "
        f"not right: a risk of {100 * risk['risk']:.2f} % ({low:.2f} to {high:.2f})."
    )
    certificate = risk.get("certificate")
    if certificate is None:
        return f"{shown} The policy has no certificate: its thresholds were chosen by grid."
    return (
        f"{shown} Certified was P(risk ≤ {100 * certificate['epsilon']:g} %) ≥ {100 * (1 - certificate['delta']):g} %, on "
        f"{certificate['problems']} problems of `{certificate['split']}` with {certificate['harmed']} harmed (p "
        f"{certificate['p_value']:.2g}; path fixed on `{certificate['path_split']}`). This bounds harm, not net accuracy: see the "
        "pairs for both."
    )


def transfer_table(transfer: Mapping[str, Mapping[str, Mapping]]) -> str:
    """transfer: of `certify.transfer`; rows are the tasks that a policy was certified on, columns where it is used."""
    names = sorted(transfer, key=lambda name: (name != POOLED, name))
    tasks = sorted(transfer[names[0]])
    rows = []
    for name in names:
        cells = []
        for task in tasks:
            used = transfer[name][task]
            cell = (
                f"{100 * (used['tokens_ratio'] - 1):+.0f} % / {100 * used['harmed'] / used['problems']:.1f} %".replace(
                    "-", "−"
                )
            )
            cells.append(f"**{cell}**" if name == task else cell)
        rows.append([name, *cells])
    return (
        "Change of tokens / share of problems harmed; rows: what the policy was certified on, columns: where it is used.\n\n"
        + markdown_table(["certified on", *tasks], rows)
    )
