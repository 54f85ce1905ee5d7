"""The command line; `mpm.commands` holds those that check, run, verify and start studies."""

import argparse
import contextlib
import errno
import os
import sys
from dis import opmap
from pathlib import Path
from typing import Any, TypeGuard

from mpm.commands import add_parsers
from mpm.commands import check as _check
from mpm.commands import short as _short

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk, a quota, a file
# Modules that take a while to import are imported by the commands that need them.


def main(words: list[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    words : list of str, optional
        By default those of the command line.

    Returns
    -------
    int
        0 if all went well, 1 if a notebook failed or a result changed, 2 if something has to be
        corrected first, 130 if interrupted.
    """
    arguments = _parser().parse_args(words)
    try:
        code = arguments.command(arguments)
        sys.stdout.flush()  # a full disk or a closed pipe may only show now
        return code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command resumes where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as of `mpm status | head`: the reader has had enough
        _silence()
        return 1
    except (ValueError, KeyError, OSError, MemoryError) as error:
        if not (_is_ours(error) or isinstance(error, MemoryError) or _is_of_the_system(error)):
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        return 2


_PRETRAIN = """\
Pretrain the backbones that notebook 02 would make, where it would put them; notebook 01 must have
run. A fold that was interrupted goes on from its last checkpoint; finished ones are trained again,
unless --split and --fold name others.

On one machine, with all of its GPUs:

  mpm pretrain STUDY --preset paper --devices 8

On four machines that see the same files, by SLURM or by torchrun (on each machine):

  srun --nodes 4 --ntasks-per-node 8 --gpus-per-node 8 mpm pretrain STUDY --devices 8 --nodes 4
  torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
      -m mpm pretrain STUDY --devices 8 --nodes 4
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mpm", description="Mineral prospectivity mapping with masked autoencoders."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    check = commands.add_parser("check", help="open every file of a study, report what is wrong")
    check.set_defaults(command=_check)
    fetch = commands.add_parser("fetch", help="generate or download a study's files")
    fetch.set_defaults(command=_fetch)
    add_parsers(commands)
    pretrain = commands.add_parser(
        "pretrain",
        help="pretrain the backbones of notebook 02, on one device or many",
        description=_PRETRAIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pretrain.set_defaults(command=_pretrain)
    compare = commands.add_parser(
        "compare", help="compare pretext tasks, inputs and heads on a study, for data/comparisons"
    )
    compare.set_defaults(command=_compare)
    explain = commands.add_parser("explain", help="draw one page that explains a place")
    explain.set_defaults(command=_explain)
    draw = commands.add_parser("map", help="map a region larger than memory, tile by tile")
    draw.set_defaults(command=_map)
    for command in (check, fetch, pretrain, compare, explain, draw):
        command.add_argument(
            "study", metavar="STUDY", help="name under data/studies, or path of a YAML file"
        )
    _add_pretrain_options(pretrain)
    _add_compare_options(compare)
    _add_explain_options(explain)
    _add_map_options(draw)
    datacube = commands.add_parser("datacube", help="convert the data cube of Lawley et al. 2022")
    _add_datacube_options(datacube.add_subparsers(metavar="ACTION", required=True))
    return parser


def _add_pretrain_options(pretrain: argparse.ArgumentParser) -> None:
    pretrain.add_argument("--preset", default="demo", help="demo (default) or paper")
    pretrain.add_argument("--split", default="all", help="blocks, random, final or all (default)")
    pretrain.add_argument("--fold", type=int, metavar="N", help="of that split; all by default")
    pretrain.add_argument("--seed", type=int, default=7, help="seed of all that is random (7)")
    pretrain.add_argument(
        "--steps",
        type=int,
        default=0,
        metavar="N",
        help="steps a backbone; the preset's by default",
    )
    pretrain.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    pretrain.add_argument(
        "--devices", type=int, default=1, metavar="N", help="processes on a machine, one a GPU (1)"
    )
    pretrain.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (1)")


def _add_compare_options(compare: argparse.ArgumentParser) -> None:
    words: dict[str, Any] = {"type": _words, "metavar": "A,B"}
    compare.add_argument("--variants", default=[], help="names of them; all by default", **words)
    compare.add_argument(
        "--heads", default=["probe"], help="probe (default), frozen, last, full", **words
    )
    ways = "how networks are fine-tuned, names of probes.CHOICES; the preset's way"
    compare.add_argument("--choices", default=[], help=ways, **words)
    compare.add_argument("--targets", default=[], help="all of the study's by default", **words)
    compare.add_argument("--splits", default=["blocks"], help="blocks (default), region", **words)
    compare.add_argument("--folds", type=int, default=3, help="of the block split (3)")
    compare.add_argument("--seeds", default=["7"], help="each is a run of everything (7)", **words)
    compare.add_argument("--preset", default="demo", help="demo (default) or paper")
    compare.add_argument("--steps", type=int, default=400, help="of pretraining (400)")
    compare.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    compare.add_argument(
        "--without", metavar="TARGET:REGION", help="left out of training and scores, for the end"
    )
    compare.add_argument(
        "--control", default="random network", help="the variant that others are compared with"
    )


def _add_explain_options(explain: argparse.ArgumentParser) -> None:
    explain.add_argument(
        "--at",
        nargs=2,
        type=float,
        required=True,
        metavar=("LON", "LAT"),
        help="place in degrees, WGS 84; west and south are negative",
    )
    explain.add_argument("--target", help="what was predicted; the study's first by default")
    explain.add_argument(
        "--out", metavar="FILE.png", type=Path, help="by default in the study's figures"
    )
    explain.add_argument("--seed", type=int, help="of the ground of comparison; that of the map")
    explain.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")


def _add_map_options(draw: argparse.ArgumentParser) -> None:
    draw.add_argument(
        "--network",
        metavar="STUDY",
        help="whose final network draws the map; that of the study itself by default",
    )
    draw.add_argument("--target", help="what is predicted; the first of that study by default")
    draw.add_argument("--tile", type=int, default=1024, help="cells along a side (1024)")
    draw.add_argument("--samples", type=int, default=100, help="dropout samples a cell (100)")
    draw.add_argument(
        "--share",
        type=float,
        default=0.1,
        help="of the cells, the most likely ones that are explained (0.1); 1 for all, 0 for none",
    )
    draw.add_argument(
        "--every",
        type=int,
        default=10,
        metavar="N",
        help="explain a grid of every Nth row and column, too (10); 0 for none",
    )
    draw.add_argument("--seed", type=int, default=7, help="of the dropout samples (7)")
    draw.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")


def _add_datacube_options(actions: argparse._SubParsersAction) -> None:
    build = actions.add_parser(
        "build", help="from the published CSV to Parquet, labels and raster cubes"
    )
    build.set_defaults(command=_datacube)
    build.add_argument("csv", metavar="FILE.csv", type=Path, help="2021_Table04_Datacube.csv")
    build.add_argument("out", metavar="OUT", type=Path, help="folder, e.g. data/raw/lawley2022")
    build.add_argument(
        "--degrees", type=float, default=0.02, help="cell size of the raster cubes (0.02)"
    )
    build.add_argument(
        "--features",
        default="preferred",
        metavar="SET",
        help="their layers: preferred (default), baseline, updated, all, column names with commas "
        "between, or none for no raster cubes",
    )


def _fetch(arguments: argparse.Namespace) -> int:
    from mpm import fetch, study

    setup = study.load(arguments.study)
    print(f"files of {setup.name} ...", flush=True)
    files = fetch.fetch(setup)
    print(f"{setup.name}: {len(files)} files in {_short(setup.raw)}")
    return 0


def _pretrain(arguments: argparse.Namespace) -> int:
    from mpm import pretraining, study

    options = vars(arguments).copy()
    del options["command"]
    pretraining.pretrain_study(study.load(options.pop("study")), **options)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from mpm import comparison, study, variants

    setup = study.load(arguments.study)
    counts = {"blocks": arguments.folds, "region": len(setup.regions)}
    if unknown := [split for split in arguments.splits if split not in counts]:
        raise ValueError(f"--splits {unknown[0]!r} is none of {', '.join(counts)}")
    plan = comparison.Plan(
        variants.choose(arguments.variants, len(setup.regions)),
        runs=tuple((split, fold) for split in arguments.splits for fold in range(counts[split])),
        seeds=tuple(map(_seed, arguments.seeds)),
        heads=tuple(arguments.heads),
        choices=tuple(arguments.choices or comparison.Plan.choices),
        targets=tuple(arguments.targets),
        preset=arguments.preset,
        steps=arguments.steps,
        without=_without(arguments.without),
    )
    made = comparison.compare_study(
        setup,
        plan,
        folds=arguments.folds,
        control=arguments.control,
        device=arguments.device,
    )
    print(f"{setup.name}: {len(made)} rows in data/comparisons/{setup.name}.csv")
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from mpm import cell_page

    longitude, latitude = arguments.at
    options = {name: getattr(arguments, name) for name in ("target", "out", "seed", "device")}
    place = cell_page.write(arguments.study, longitude, latitude, **options)
    print(f"explained in {_short(place)}")
    return 0


def _map(arguments: argparse.Namespace) -> int:
    from mpm import continent, study

    setup = study.load(arguments.study)
    network = study.load(arguments.network) if arguments.network else setup
    target = arguments.target or next(iter(network.targets))
    names = ("tile", "samples", "share", "every", "seed", "device")
    options = {name: getattr(arguments, name) for name in names}
    for place in continent.draw(setup, target, network=network, **options):
        print(_short(place))
    return 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _seed(word: str) -> int:
    if not word.isdecimal():
        raise ValueError(f"--seeds {word!r} is no whole number; give e.g. --seeds 7,8,9")
    return int(word)


def _without(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    target, colon, region = text.partition(":")
    if not (target and colon and region):
        raise ValueError(f"--without {text!r} is not TARGET:REGION")
    return target, region


def _datacube(arguments: argparse.Namespace) -> int:
    from mpm import lawley2022

    print(f"{arguments.csv} to {arguments.out} ...", flush=True)
    counts = lawley2022.build(
        arguments.csv, arguments.out, degrees=arguments.degrees, words=arguments.features
    )
    print(counts.to_string(index=False, na_rep="-"))
    cubes = "" if arguments.features == "none" else " and a raster cube a continent"
    print(f"datacube.parquet, deposits.csv{cubes} in {arguments.out}")
    return 0


def _is_ours(error: Exception) -> bool:
    """Tell a message of this package from an error that surprised it, whose traceback we need.

    A message comes from a `raise` in one of its modules; `rows["x"]` and `int("x")` there are
    defects.
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    code = last.tb_frame.f_code
    stated = code.co_code[last.tb_lasti] == opmap["RAISE_VARARGS"]
    return stated and Path(code.co_filename).parent == Path(__file__).parent


def _is_of_the_system(error: Exception) -> TypeGuard[OSError]:
    """Tell what the operating system refused, whoever asked for it."""
    return isinstance(error, OSError) and error.errno is not None


def _message(error: Exception) -> str:
    """Return what went wrong and what to do about it."""
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); take larger cells (`resolution`) or a larger machine"
    if not _is_of_the_system(error):
        # str() of a KeyError puts its message in quotes
        return str(error.args[0] if isinstance(error, KeyError) else error)
    is_full = error.errno in _FULL
    if is_full:
        _silence()
    place = error.filename or "what was written last, or the output of this command"
    remedy = "free some space" if is_full else "check the place and who may use it"
    return f"{place}: {error.strerror}; {remedy}, then give the same command again"


def _silence() -> None:
    """Send what is left of the output nowhere: Python would fail on it again when it ends."""
    with contextlib.suppress(OSError, ValueError):  # not a file, as in tests
        number = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


if __name__ == "__main__":
    sys.exit(main())
