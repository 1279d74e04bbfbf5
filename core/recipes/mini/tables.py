"""An evaluation as tables for the terminal."""

from __future__ import annotations

from development import HALF, NONE, PARAPHRASES, RIGHT, WRONG
from rich.table import Table
from targets import Report, targets


def targets_table(report: Report) -> Table:
    table = Table("target", "wanted", title=f"{report['model']}: targets")
    table.add_column("value", justify="right")
    table.add_column("")
    for target in targets(report):
        if target.value is None:
            table.add_row(target.name, target.condition, "", "[dim]not measured[/dim]")
        else:
            mark = "[green]met[/green]" if target.met else "[red]missed[/red]"
            table.add_row(target.name, target.condition, f"{target.value:.2f}", mark)
    return table


def families_table(report: Report) -> Table | None:
    """Points of each family under each setting, with the deviation over the seeds; the paraphrases as their range."""
    suite = report["suite"]
    columns = {setting: suite[setting] for setting in (RIGHT, HALF, NONE, WRONG) if setting in suite}
    if report["teacher"] is not None:
        columns["all-MiniLM-L6-v2, none"] = report["teacher"]
    if not columns:
        return None
    table = Table("", title=f"{report['model']}: development suite, points ± standard deviation over the seeds")
    for name in columns:
        table.add_column(name, justify="right")
    paraphrases = [suite[setting] for setting in PARAPHRASES if setting in suite]
    if paraphrases:
        table.add_column(f"{len(paraphrases)} paraphrases", justify="right")
    for family in next(iter(columns.values()))["families"]:
        cells = [
            points(found["families"][family], found["family_seed_deviations"][family]) for found in columns.values()
        ]
        if paraphrases:
            cells.append(spread([found["families"][family] for found in paraphrases]))
        table.add_row(family, *cells)
    table.add_section()
    cells = [points(found["overall"], found["overall_seed_deviation"]) for found in columns.values()]
    if paraphrases:
        cells.append(spread([found["overall"] for found in paraphrases]))
    table.add_row("mean", *cells)
    return table


def points(value: float, deviation: float) -> str:
    return f"{100 * value:.2f}" + (f" ± {100 * deviation:.2f}" if deviation else "")


def spread(values: list[float]) -> str:
    return f"{100 * min(values):.2f} to {100 * max(values):.2f}"


def listening_table(report: Report) -> Table | None:
    """Agreement of the neighbours in each attribute, by the instruction given."""
    controlled = report["controlled"]
    if controlled is None:
        return None
    table = Table(
        "asked",
        "form",
        title=f"{report['model']}: controlled set, % of nearest neighbours with the attribute asked for",
    )
    for given in next(iter(controlled["plain"].values())):
        table.add_column({"none": "none", "chance": "chance"}.get(given, f"for its {given}"), justify="right")
    table.add_column("other wordings", justify="right")
    teacher = report["teacher_controlled"]
    if teacher is not None:
        table.add_column("all-MiniLM-L6-v2, none", justify="right")
    for asked in controlled["plain"]:
        for form in ("plain", "hard"):
            row = controlled[form][asked]
            cells = [f"[bold]{value:.1f}[/bold]" if given == asked else f"{value:.1f}" for given, value in row.items()]
            wordings = [found[form] for found in controlled["other_wordings"][asked].values()]
            cells.append(f"{min(wordings):.1f} to {max(wordings):.1f}")
            table.add_row(asked, form, *cells, *([] if teacher is None else [f"{teacher[form][asked]:.1f}"]))
    table.caption = f"topic's neighbour is not sentiment's: {controlled['changed']:.1f}%"
    return table
