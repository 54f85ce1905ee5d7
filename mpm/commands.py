"""Commands on studies: `mpm check`, `run`, `status`, `verify` and `new`."""

import argparse
import sys
from pathlib import Path
from typing import Any

# Modules that take a while to import are imported by the commands that need them.


def add_parsers(actions: argparse._SubParsersAction) -> None:
    """Add the parsers of `run`, `status`, `verify` and `new`."""
    one = "name under data/studies, or path of a YAML file"
    run = actions.add_parser("run", help="run the notebooks on a study, or resume")
    run.set_defaults(command=_run)
    run.add_argument("study", metavar="STUDY", nargs="?", help=one)
    _add_run_options(run)
    status = actions.add_parser("status", help="what is up to date, what is stale and why")
    status.set_defaults(command=_status)
    status.add_argument("study", metavar="STUDY", nargs="*", help=f"{one}; all by default")
    verify = actions.add_parser(
        "verify", help="run a study again elsewhere and compare every figure, table and map"
    )
    verify.set_defaults(command=_verify)
    verify.add_argument("study", metavar="STUDY", help=one)
    verify.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="compare with the run whose processed/STUDY and figures/STUDY lie here; run nothing",
    )
    verify.add_argument(
        "--tolerance",
        type=float,
        default=1e-6,
        metavar="T",
        help="relative for numbers, mean difference of pixels (0 to 1) for figures (1e-6)",
    )
    new = actions.add_parser("new", help="start a study of your own: study file, data folder")
    new.set_defaults(command=_new)
    new.add_argument("name", metavar="NAME", help="letters, digits and underscores")


def _add_run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--only", metavar="01,02", help="notebook numbers; all by default")
    run.add_argument("--target", help="what to predict; the study's first target by default")
    run.add_argument("--seed", type=int, help="seed of all that is random")
    run.add_argument("--preset", help="demo or paper: size of the model and length of training")
    run.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    run.add_argument(
        "--set",
        dest="settings",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any other parameter of the notebooks; may be given several times",
    )
    run.add_argument(
        "--parameters",
        type=Path,
        metavar="FILE",
        help="YAML file of parameters, as `mpm new` writes it; other options come before it",
    )
    run.add_argument("--all", action="store_true", help="every study at hand, instead of STUDY")
    run.add_argument("--jobs", type=int, metavar="N", help="studies side by side, with --all (1)")
    run.add_argument("--force", action="store_true", help="run notebooks that are up to date too")


def check(arguments: argparse.Namespace) -> int:
    """Open every file of a study, print a table, and say what looks odd."""
    from mpm import align, doctor, study

    setup = study.load(arguments.study)
    print(f"{setup.path} is well formed; opening its files ...", flush=True)
    table = align.check(setup)
    print(table.to_string(index=False, float_format="{:.4g}".format))
    for line in align.remarks(setup, table) + doctor.notes(setup):
        print(f"note: {line}")
    print(f"{setup.name}: all {table['layer'].nunique()} layers can be read")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from mpm import kernel, pipeline, study

    if arguments.all == bool(arguments.study):
        raise ValueError("name one STUDY, or say --all")
    if arguments.jobs is not None and not arguments.all:
        raise ValueError("--jobs is how many studies run side by side: say --all, or leave it out")
    options = _options(arguments)
    if arguments.all:
        return _run_all(arguments)
    try:
        pipeline.run(arguments.study, **options)
    except kernel.NotebookFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    setup = study.load(arguments.study)
    made = short(setup.processed)
    print(
        f"{setup.name}: figures in {short(setup.figures)}, maps and scores in {made}, "
        f"executed notebooks in {made / 'notebooks'}"
    )
    return 0


def _run_all(arguments: argparse.Namespace) -> int:
    from mpm import batch

    jobs = 1 if arguments.jobs is None else arguments.jobs
    outcome = batch.run_all(_words(arguments), jobs=jobs)
    for name, end in outcome.items():
        print(f"{name:<24}{end}")
    return 1 if any(end.startswith("failed") for end in outcome.values()) else 0


def _words(arguments: argparse.Namespace) -> list[str]:
    """Return the options of `mpm run` as words of a command line, for one study of many."""
    words = [f"--device={arguments.device}"] + (["--force"] if arguments.force else [])
    for name in ("only", "target", "seed", "preset", "parameters"):
        value = getattr(arguments, name)
        words += [] if value is None else [f"--{name}={value}"]
    return words + [f"--set={pair}" for pair in arguments.settings]


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `pipeline.run`; the command line comes before a file of parameters."""
    parameters = _read(arguments.parameters)
    given = {}
    for name, kind in (("target", str), ("seed", int), ("preset", str)):
        stated, typed = parameters.pop(name, None), getattr(arguments, name)
        if stated is not None and type(stated) is not kind:
            wanted = {str: "a text", int: "a whole number"}[kind]
            raise ValueError(f"{arguments.parameters}: `{name}` takes {wanted}, not {stated!r}")
        given[name] = stated if typed is None else typed
    return given | {
        "only": _numbers(arguments.only),
        "device": arguments.device,
        "settings": _settings(arguments.settings),
        "parameters": parameters,
        "force": arguments.force,
    }


def _status(arguments: argparse.Namespace) -> int:
    from mpm import status

    table = status.table(arguments.study or None)
    rows = [list(table), *table.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from mpm import kernel, study, verify

    setup = study.load(arguments.study)
    with verify.scratch() as scratch:
        folder = arguments.against or Path(scratch)
        try:
            if arguments.against is None:
                verify.rerun(setup, folder)
        except kernel.NotebookFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        verdicts = verify.compare(setup, folder, tolerance=arguments.tolerance)
    for each in verdicts:
        print(f"{each.state:<17} {each.file}{f'  ({each.detail})' if each.detail else ''}")
    wrong = sum(not each.passes for each in verdicts)
    print(f"{setup.name}: {len(verdicts) - wrong} of {len(verdicts)} as recorded")
    return 1 if wrong else 0


def _new(arguments: argparse.Namespace) -> int:
    from mpm import new_study

    made = new_study.create(arguments.name, Path.cwd())
    for path in (made.study, made.readme, made.parameters):
        print(f"wrote {short(path)}")
    print(f"next: put your files beside the README, then `mpm check {made.call}`")
    return 0


def _numbers(text: str | None) -> list[str] | None:
    return None if text is None else [number.strip().zfill(2) for number in text.split(",")]


def _settings(pairs: list[str]) -> dict[str, object]:
    """Read `name=value` pairs, values as YAML scalars or lists."""
    import yaml

    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"--set {pair!r} is not NAME=VALUE")
        try:
            settings[name] = _plain(yaml.safe_load(text), f"--set {pair!r}")
        except yaml.YAMLError as error:
            raise ValueError(f"--set {pair!r}: the value is not a YAML scalar or list") from error
    return settings


def _read(path: Path | None) -> dict[str, object]:
    """Read a file of parameters."""
    import yaml

    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no `name: value` lines")
    return {name: _plain(value, f"{path}: `{name}`") for name, value in content.items()}


def _plain(value: object, place: str) -> object:
    """Return a value that a parameters cell can hold; 1e-3, a text in YAML, as a number."""
    if isinstance(value, list):
        return [_plain(entry, place) for entry in value]
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"{place}: give a number, a text, true, false, null or a list of them")


def short(path: Path) -> Path:
    """Return a path relative to the working folder, if it lies in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
