#!/usr/bin/env python3
"""Draws the log of a run over time: of training/train.sh losses and accuracy on held-out clips, of
training/train_detector.sh losses and average precision on held-out frames.

    plot.py runs/RUN/log.csv runs/RUN/log.png        needs matplotlib
"""
import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def language(columns):
    """(losses, {column: name} of the thin lines, of the broken ones, of the thick one, what they measure, factor)"""
    after = [name for name in columns[columns.index("mean") + 1:] if not name.startswith(("retrieve_", "alone_"))]
    ways = {name: "all, " + name[4:] for name in after if name.startswith("all_")}  # frames, tiles, detector: vlm/shapes.py
    return (("loss_letter", "loss_retrieve", "loss_right", "loss_sign"), {name: name for name in after if name not in ways}, ways,
            {"mean": "all"}, "right of the held-out questions, %", 1)


def detector(columns):
    labels = {name: name[3:].replace("_", " ") for name in columns if name.startswith("ap_")}
    return (("loss_enc_class", "loss_dec_class", "loss_last_class", "loss_last_giou"), labels,
            {"map50_above": "all, of boxes above the threshold"}, {"map50": "all"}, "average precision at IoU 0.5, %", 100)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])
    losses, thin, broken, thick, what, factor = (detector if "map50" in columns else language)(columns)
    time = [float(row["seconds"]) for row in rows]
    figure, (loss, right) = plt.subplots(2, 1, figsize=(10, 8), sharex=True, height_ratios=(2, 3))
    for name in losses:
        loss.plot(time, [float(row[name]) for row in rows], label=name.removeprefix("loss_"))
    loss.set_yscale("log")
    loss.set_ylabel("training loss")
    loss.legend(loc="lower left", ncols=len(losses), frameon=False)
    for names, style in ((thin, {"linewidth": 1.2}), (broken, {"linewidth": 1, "linestyle": "--"}),
                         (thick, {"linewidth": 2.4, "color": "black"})):
        for name, label in names.items():
            right.plot(time, [factor * float(row[name] or "nan") for row in rows], label=label, **style)
    right.set_ylabel(what)
    right.set_xlabel("seconds of training")
    right.set_ylim(20 if factor == 1 else -2, 102)
    right.legend(loc="lower right", ncols=2, frameon=False)
    for axes in (loss, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=90)


if __name__ == "__main__":
    main()
