#!/usr/bin/env python3
"""Draws a run of training/train.sh: loss and accuracy on held-out drawn frames over time.

    plot.py runs/RUN/log.csv runs/RUN/log.png        needs matplotlib
"""
import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

LOSSES = ("loss_letter", "loss_retrieve", "loss_right", "loss_sign")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])
    kinds = [name for name in columns[columns.index("mean") + 1:] if not name.startswith(("retrieve_", "all_", "alone_"))]
    ways = [name for name in columns if name.startswith("all_")]  # frames, tiles, detector: vlm/shapes.py
    time = [float(row["seconds"]) for row in rows]
    figure, (loss, right) = plt.subplots(2, 1, figsize=(10, 8), sharex=True, height_ratios=(2, 3))
    for name in LOSSES:
        loss.plot(time, [float(row[name]) for row in rows], label=name.removeprefix("loss_"))
    loss.set_yscale("log")
    loss.set_ylabel("training loss")
    loss.legend(loc="lower left", ncols=len(LOSSES), frameon=False)
    for name, style in zip(kinds, [dict(color=f"C{i}") for i in range(10)]):
        right.plot(time, [float(row[name] or "nan") for row in rows], label=name, linewidth=1.2, **style)
    for name in ways:
        right.plot(time, [float(row[name] or "nan") for row in rows], label="all, " + name[4:], linewidth=1, linestyle="--")
    right.plot(time, [float(row["mean"]) for row in rows], label="all", color="black", linewidth=2.4)
    right.set_ylabel("right of the held-out questions, %")
    right.set_xlabel("seconds of training")
    right.set_ylim(20, 102)
    right.legend(loc="lower right", ncols=2, frameon=False)
    for axes in (loss, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=90)


if __name__ == "__main__":
    main()
