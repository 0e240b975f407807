#!/usr/bin/env python3
"""Trains the small detector for a given time, from nothing or from the files of an earlier run.

    python3 -m detector.train OUT [--resume DIR] [--minutes 9]     (in training/)

Writes to OUT at 30, 60 and 85 % of the time and at its end, each time whole files: the weights (f16), config.json,
model.json, log.csv; at the end eval.json. Time alone decides what the learning rate is and when to stop, so a slower
machine trains less, not longer. All times count from LOWBEAM_TRAIN_START (seconds since 1970), or else from the start.
"""
import argparse
import csv
import json
import os
import random
import sys
import time

START = float(os.environ.get("LOWBEAM_TRAIN_START", time.time()))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from . import losses as L, model as M, score as S, vocabulary  # noqa: E402
from .feed import Feed, Pool  # noqa: E402

SAVE_AT = (0.3, 0.6, 0.85)
FALL_FROM = 0.6  # of the time: constant until here, then down in a straight line
LAST_RATE = 0.01  # of the learning rate, at the end
THRESHOLD = 0.3  # lowbeam's box threshold


def say(text):
    print(f"[{time.time() - START:6.1f}] {text}", flush=True)


def options(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out"), ap.add_argument("--resume", help="folder with the files of an earlier run")
    ap.add_argument("--minutes", type=float, default=9.0, help="whole time, loading and writing included")
    ap.add_argument("--reserve", type=float, default=20.0, help="seconds of it for the last evaluation and writing")
    ap.add_argument("--size", choices=sorted(M.SIZES), default="small")
    ap.add_argument("--batch", type=int, default=64, help="frames a step"), ap.add_argument("--lr", type=float, default=6e-4)
    ap.add_argument("--warm-up", type=int, default=200, help="steps"), ap.add_argument("--decay", type=float, default=0.02)
    ap.add_argument("--groups", type=int, default=3, help="groups of denoising queries")
    ap.add_argument("--some-labels", type=float, default=0.15, help="part of the steps with some of the labels only")
    ap.add_argument("--workers", type=int, default=max(1, min(14, (os.cpu_count() or 2) - 2)))
    ap.add_argument("--pool", type=int, default=24576, help="frames kept on the device")
    ap.add_argument("--ring", type=int, default=256, help="frames that wait, a worker")
    ap.add_argument("--first", type=int, default=2048, help="frames drawn before the first step")
    ap.add_argument("--held", type=int, default=1024, help="held-out frames of the last evaluation")
    ap.add_argument("--often", type=int, default=256, help="held-out frames of the evaluations in between")
    ap.add_argument("--every", type=float, default=30.0, help="seconds between them")
    ap.add_argument("--seed", type=int, default=0, help="another one draws other frames")
    ap.add_argument("--overfit", action="store_true", help="score on the first frames drawn for training, and teach no others")
    ap.add_argument("--device", help="default: cuda where there is one")
    return ap.parse_args(argv)


def resumed_name(folder):
    """Of the folder that a run went on from: where it lay on that machine is nobody's business."""
    return folder and os.path.basename(os.path.normpath(folder))


class Log:
    """log.csv: a row an evaluation, written whole each time, so that it is never half a row."""

    def __init__(self, path):
        self.path, self.rows = path, []

    def add(self, values):
        row = {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in values.items()}
        self.rows.append(row)
        names = list(dict.fromkeys(name for one in self.rows for name in one))
        with open(self.path + ".part", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader(), writer.writerows(self.rows)
        os.replace(self.path + ".part", self.path)
        return row


def optimizer(model, args, device):
    groups = {"decayed": [], "plain": [], "offsets": []}
    for name, p in model.named_parameters():
        plain = p.ndim < 2 or "embed" in name and "bbox" not in name or "relative_position" in name
        # Where samples lie decides what gradients there are: these move more slowly.
        groups["offsets" if "sampling_offsets" in name else "plain" if plain else "decayed"].append(p)
    return torch.optim.AdamW(
        [{"params": groups["decayed"], "weight_decay": args.decay, "part": 1.0},
         {"params": groups["plain"], "weight_decay": 0.0, "part": 1.0},
         {"params": groups["offsets"], "weight_decay": 0.0, "part": 0.2}],
        lr=args.lr, betas=(0.9, 0.99), fused=device.type == "cuda")


class Trainer:
    def __init__(self, args):
        self.args = args
        os.makedirs(args.out, exist_ok=True)
        self.feed = Feed(args.workers, args.held, args.seed, args.ring)
        # From here on CUDA may be touched: the workers are forked.
        self.device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.set_float32_matmul_precision("high")
        net = M.load(args.resume) if args.resume else M.build(args.size, args.seed)
        self.model = M.Detector(net).to(self.device).train()
        self.prompt = M.Prompt(vocabulary.LABELS, self.device)
        self.choice = random.Random(args.seed)
        self.others = [M.Prompt(self.choice.sample(vocabulary.LABELS, self.choice.randint(1, 12)), self.device)
                       for _ in range(48 if args.some_labels else 0)]
        self.optimizer = optimizer(self.model, args, self.device)
        self.pool = Pool(self.feed, args.pool, self.device)
        self.log = Log(os.path.join(args.out, "log.csv"))
        self.end = START + 60 * args.minutes - args.reserve
        self.step, self.scale, self.sums, self.summed = 0, 1.0, None, 0
        self.good, self.events = None, []

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def part(self):
        """How much of the training time is over, 0 to 1."""
        return min(1.0, max(0.0, (time.time() - self.begin) / max(1.0, self.end - self.begin)))

    def one_step(self, part):
        fall = min(1.0, (1 - part) / (1 - FALL_FROM))
        rate = self.args.lr * self.scale * max(LAST_RATE, fall) * min(1.0, (self.step + 1) / self.args.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["part"]
        some = self.step > self.args.warm_up and self.choice.random() < self.args.some_labels
        prompt = self.choice.choice(self.others) if some else self.prompt
        pictures, targets = self.pool.batch(self.args.batch)
        with self.autocast():
            losses, _ = L.compute(self.model, pictures, targets, prompt, self.args.groups)
        L.total(losses).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not some:
            values = torch.stack([value.detach() for value in losses.values()] + [norm.detach()])
            self.names, self.sums = [*losses, "norm"], values if self.sums is None else self.sums + values
            self.summed += 1
        self.step += 1
        return rate

    @torch.no_grad()
    def evaluate(self, n):
        """Mean average precision at IoU 0.5 of the first n held-out frames, {label: AP}, and of boxes above THRESHOLD."""
        scores, labels, boxes = [], [], []
        self.model.eval()
        for at in range(0, n, self.args.batch):
            pictures = torch.from_numpy(self.held_pictures[at:min(n, at + self.args.batch)]).to(self.device)
            with self.autocast():
                out = self.model(pictures, self.prompt)
            for have, got in zip((scores, labels, boxes), S.detections(out, self.prompt, out["layers"][-1][1].shape[1])):
                have.append(got.float().cpu().numpy())
        self.model.train()
        found = [np.concatenate(x) for x in (scores, labels, boxes)]
        table = S.average_precision(*found, self.held_targets[:n])
        above = S.average_precision(*found, self.held_targets[:n], THRESHOLD)
        return np.mean(list(table.values())), table, np.mean(list(above.values()))

    def report(self, rate):
        means = (self.sums / max(1, self.summed)).tolist() if self.sums is not None else []
        mean, table, above = self.evaluate(min(self.args.often, len(self.held_pictures)))
        row = self.log.add({"step": self.step, "seconds": time.time() - self.begin, "frames": self.feed.drawn(), "lr": rate,
                            "map50": float(mean), "map50_above": float(above),
                            **{"loss_" + name: value for name, value in zip(getattr(self, "names", []), means)},
                            **{"ap_" + label.replace(" ", "_"): value for label, value in table.items()}})
        self.sums, self.summed = None, 0
        say(" ".join(f"{name} {value}" for name, value in row.items()))
        return all(np.isfinite(means))

    def hold(self):
        """The host stays at most four steps ahead of the device: the clock decides when to stop."""
        if self.device.type == "cuda":
            self.events.append(torch.cuda.Event())
            self.events[-1].record()
            if len(self.events) > 4:
                self.events.pop(0).synchronize()

    def first_step(self):
        """Where memory is short, with half the batch."""
        while True:
            try:
                rate = self.one_step(0.0)
                self.sums.tolist()  # waits for the device
                return rate
            except torch.OutOfMemoryError as error:
                say(f"first step: {str(error)[:300]}")
                if self.args.batch < 4:
                    raise
                self.args.batch //= 2
                say(f"again, {self.args.batch} frames a step")
            self.sums, self.summed, self.step = None, 0, 0
            self.put_back()
            torch.cuda.empty_cache()

    def keep(self):
        self.good = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def put_back(self):
        """The weights that keep() kept, without gradients and with a fresh optimizer."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(self.good[name])
        self.optimizer = optimizer(self.model, self.args, self.device)

    def restore(self):
        say("the losses are no numbers any more: back to the last good weights at half the learning rate")
        self.scale *= 0.5
        self.put_back()

    def save(self):
        M.save(self.model.net, self.args.out,
               {"size": self.args.size, "step": self.step, "seconds": time.time() - self.begin, "labels": vocabulary.LABELS,
                "resumed": self.args.resume, "options": vars(self.args)})
        say(f"saved at step {self.step}")

    def run(self):
        args = self.args
        say(f"{sum(p.numel() for p in self.model.parameters()) / 1e6:.2f} M parameters, {args.workers} workers, {self.device}, "
            f"torch {torch.__version__}")
        self.held_pictures, self.held_targets = self.feed.held(seconds=min(60, 15 * args.minutes))
        say(f"{len(self.held_pictures)} held-out frames drawn")
        if not len(self.held_pictures):
            raise SystemExit("no frame could be drawn")
        while self.pool.filled < min(args.first, args.pool):
            if not self.pool.take(256):
                time.sleep(0.01)
            if time.time() > START + 30 * args.minutes:
                raise SystemExit("too few frames are drawn")
        if args.overfit:
            n = min(args.often, self.pool.filled)
            self.held_pictures, self.held_targets = self.pool.pictures[:n].cpu().numpy(), self.pool.targets[:n].cpu().numpy()
        say(f"{self.pool.filled} frames in the pool")
        self.begin = time.time()
        self.keep()
        rate = self.first_step()
        say("first step done")
        saves, next_report = list(SAVE_AT), time.time() + min(args.every, 10.0)
        while True:
            part = self.part()
            if part >= 1:
                break
            if not args.overfit:
                self.pool.take()
            rate = self.one_step(part)
            self.hold()
            if time.time() >= next_report:
                if self.report(rate):
                    self.keep()
                else:
                    self.restore()
                next_report = time.time() + args.every
            if saves and part >= saves[0]:
                saves.pop(0)
                self.save()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        say(f"{self.step} steps in {time.time() - self.begin:.1f} s; {self.feed.drawn()} frames drawn, "
            f"{self.feed.failed()} clips failed")
        if self.summed and not all(torch.isfinite(self.sums).tolist()):
            self.restore()
        self.save()
        if self.device.type == "cuda":
            say(f"device memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        self.finish()

    def finish(self):
        mean, table, above = self.evaluate(len(self.held_pictures))
        result = {"steps": self.step, "train_seconds": round(time.time() - self.begin, 1), "frames_drawn": self.feed.drawn(),
                  "frames": len(self.held_pictures), "map50": round(float(mean), 4),
                  "map50_above_threshold": round(float(above), 4),
                  "labels": {label: round(value, 4) for label, value in table.items()},
                  "resumed": resumed_name(self.args.resume), "lr": self.args.lr, "batch": self.args.batch, "seed": self.args.seed}
        path = os.path.join(self.args.out, "eval.json")
        with open(path + ".part", "w", encoding="utf-8") as file:
            json.dump(result, file, ensure_ascii=False, indent=1)
        os.replace(path + ".part", path)
        say(json.dumps(result, ensure_ascii=False))


def main():
    trainer = Trainer(options())
    try:
        trainer.run()
    finally:
        trainer.feed.close()
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
