"""Figures of what explanations are worth: curves, agreement, shuffled weights, verdicts."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mpm.plots import panels

VERDICTS = {"holds": "#c7e3c7", "unclear": "#eeeeee", "differs": "#d3e0ee", "fails": "#f3c6b5"}
NOT_ASKED = "not asked"  # e.g. trees have no weights to shuffle, and a pair is tested once


def removal_figure(curves: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw mean scores as what speaks most is taken away, or brought in, first.

    Parameters
    ----------
    curves : mapping of mapping of array (n, players + 1)
        Title, which ends in what is taken away, e.g. "Shapley, layers", to curves of
        `faithfulness.removal_curves`, a panel each.
    """
    fig, axes = panels(len(curves), size=(3.6, 3.4), sharey=True)
    colors = {"deletion": "C3", "insertion": "C0"}
    for ax, (title, each) in zip(axes, curves.items(), strict=True):
        for way, color in colors.items():
            steps = np.linspace(0, 100, each[way].shape[1])
            low, high = np.nanpercentile(each[way], [25, 75], axis=0)
            ax.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
            ax.plot(steps, np.nanmean(each[way], axis=0), color=color, label=way)
            at_random = np.nanmean(each[f"{way} at random"], axis=0)
            ax.plot(steps, at_random, color=color, linestyle=":", label=f"{way} at random")
        for level in (0, 1):
            ax.axhline(level, color="0.8", linewidth=0.8, zorder=0)
        what = title.rpartition(", ")[2]
        ax.set(xlabel=f"{what} taken away, or brought in (%)", title=title, xlim=(0, 100))
    axes[0].set_ylabel("score (0: background, 1: the cell)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    sns.despine(fig)
    return fig


def randomisation_figure(stages: Mapping[str, pd.DataFrame], *, limit: float) -> Figure:
    """Draw how alike explanations stay while more and more weights are shuffled.

    Parameters
    ----------
    stages : mapping
        Method to a table of `sanity.randomisation`, the first stage being the network as it is.
    limit : float
        Below it explanations have changed.
    """
    fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for k, (method, table) in enumerate(stages.items()):
        place = np.arange(len(table)) + 0.08 * k
        ax.vlines(place, table["low"], table["high"], color=f"C{k}", alpha=0.6)
        ax.plot(place, table["value"], "os^"[k % 3] + "-", color=f"C{k}", label=method)
        ax.vlines(place + 0.04, table["size_low"], table["size_high"], color=f"C{k}", alpha=0.3)
        ax.plot(
            place + 0.04, table["size"], "os^"[k % 3] + ":", color=f"C{k}", markerfacecolor="white",
            label=f"{method}, sizes alone",
        )  # fmt: skip
    ax.axhline(limit, color="0.6", linestyle=":", linewidth=0.8)
    ax.axhline(0, color="0.8", linewidth=0.8)
    ax.set_xticks(range(len(table)), table["stage"])
    ax.set(
        xlabel="shuffled down to",
        ylabel="rank correlation\nwith the explanation",
        ylim=(-0.5, 1.05),
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig


def agreement_table(pairs: pd.DataFrame) -> Figure:
    """Draw rank correlations of pairs of methods with their intervals.

    Parameters
    ----------
    pairs : DataFrame
        Of `faithfulness.agreement`.
    """
    names = list(dict.fromkeys([*pairs["method"], *pairs["other"]]))
    rows, columns = names[1:], names[:-1]
    value = np.full((len(rows), len(columns)), np.nan)
    text = np.full(value.shape, "", dtype=object)
    for row in pairs.itertuples():
        place = rows.index(row.other), columns.index(row.method)
        value[place] = row.value
        text[place] = f"{row.value:.2f}\n{row.low:.2f} to {row.high:.2f}"
    size = 1.5 * len(columns) + 2.6, 0.75 * len(rows) + 1.1
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    sns.heatmap(
        value, annot=text, fmt="", cmap="RdBu_r", vmin=-1, vmax=1, ax=ax, annot_kws={"size": 8},
        xticklabels=columns, yticklabels=rows, cbar_kws={"label": "rank correlation"},
    )  # fmt: skip
    ax.set_title("do they name the same layers?")
    ax.tick_params(axis="x", rotation=0)
    ax.tick_params(axis="y", rotation=0)
    return fig


def verdict_table(table: pd.DataFrame) -> Figure:
    """Draw methods across and tests down, coloured by verdict.

    Parameters
    ----------
    table : DataFrame
        Of `faithfulness.verdicts`.
    """
    methods, tests = (list(dict.fromkeys(table[key])) for key in ("method", "test"))
    size = 1.75 * len(methods) + 2.4, 0.42 * len(tests) + 0.9
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    for row in table.itertuples():
        x, y = methods.index(row.method), len(tests) - 1 - tests.index(row.test)
        ax.add_patch(plt.Rectangle((x, y), 1, 1, color=VERDICTS[row.verdict], linewidth=0))
        value = f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f})"
        ax.text(x + 0.5, y + 0.5, f"{value}\n{row.verdict}", ha="center", va="center", fontsize=7)
    asked = set(zip(table["method"], table["test"], strict=True))
    for x, method in enumerate(methods):
        for y, test in enumerate(reversed(tests)):
            if (method, test) not in asked:
                ax.text(
                    x + 0.5, y + 0.5, NOT_ASKED, ha="center", va="center", fontsize=7, color="0.5"
                )
    needed = table.groupby("test")["needed"].agg(lambda limits: " / ".join(dict.fromkeys(limits)))
    labels = [f"{test}  ({needed[test]})" for test in reversed(tests)]
    ax.set_yticks(np.arange(len(tests)) + 0.5, labels)
    ax.set_xticks(np.arange(len(methods)) + 0.5, methods)
    ax.set(xlim=(0, len(methods)), ylim=(0, len(tests)))
    ax.hlines(range(len(tests) + 1), 0, len(methods), color="white", linewidth=2)
    ax.vlines(range(len(methods) + 1), 0, len(tests), color="white", linewidth=2)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    sns.despine(fig, left=True, bottom=True)
    return fig
