#!/usr/bin/env python3
"""Trains the small model for a given time, from nothing or from the files of an earlier run.

    python3 -m vlm.train OUT [--resume DIR] [--minutes 9]     (in training/)

Writes to OUT at 30, 60 and 85 % of the time and at its end, each time whole files: the weights (f16), model.json,
log.csv; at the end eval.json. Time alone decides what the learning rate is and when to stop, so a slower machine
trains less, not longer. All times count from LOWBEAM_TRAIN_START (seconds since 1970), or else from the start.
"""
import argparse
import csv
import json
import os
import signal
import sys
import time

START = float(os.environ.get("LOWBEAM_TRAIN_START", time.time()))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from . import dialogue, losses as L, model as M, targets, tokenizer  # noqa: E402
from .feed import Feed, Pool, to_tensors  # noqa: E402

SAVE_AT = (0.3, 0.6, 0.85)
FALL_FROM = 0.75  # of the time: constant until here, then down in a straight line
LAST_AUX = 0.1  # what the auxiliary losses still count for at the end


def say(text):
    print(f"[{time.time() - START:6.1f}] {text}", flush=True)


def options():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out"), ap.add_argument("--resume", help="folder with the files of an earlier run")
    ap.add_argument("--minutes", type=float, default=9.0, help="whole time, loading and writing included")
    ap.add_argument("--reserve", type=float, default=25.0, help="seconds of it for the last evaluation and writing")
    ap.add_argument("--size", choices=sorted(M.SIZES), default="small")
    ap.add_argument("--batch", type=int, default=64, help="clips a step"), ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--warm-up", type=int, default=300, help="steps"), ap.add_argument("--decay", type=float, default=0.05)
    ap.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    ap.add_argument("--pool", type=int, default=12288, help="clips kept on the device")
    ap.add_argument("--ring", type=int, default=384, help="clips that wait, a worker")
    ap.add_argument("--first", type=int, default=1024, help="clips drawn before the first step")
    ap.add_argument("--held", type=int, default=1024, help="held-out clips of the last evaluation")
    ap.add_argument("--often", type=int, default=256, help="held-out clips of the evaluations in between")
    ap.add_argument("--every", type=float, default=20.0, help="seconds between them")
    ap.add_argument("--seed", type=int, default=0, help="another one draws other clips")
    ap.add_argument("--compile", choices=("layers", "none"), default="layers")
    ap.add_argument("--device", help="default: cuda where there is one")
    return ap.parse_args()


class Log:
    """log.csv: a row an evaluation, written whole each time, so that it is never half a row."""

    def __init__(self, path, kinds):
        self.path, self.kinds, self.rows = path, kinds, []

    def add(self, values, table):
        row = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in values.items()}
        n = table[:, 0].clip(min=1)
        asked = table[:, 0] > 0
        row["mean"] = f"{100 * table[:, 1].sum() / max(1, table[:, 0].sum()):.2f}"
        for column, prefix in ((1, ""), (3, "retrieve_")):
            for i, kind in enumerate(self.kinds):
                row[prefix + kind] = f"{100 * table[i, column] / n[i]:.1f}" if asked[i] else ""
        self.rows.append(row)
        with open(self.path + ".part", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader(), writer.writerows(self.rows)
        os.replace(self.path + ".part", self.path)
        return row


def compile_layers(model, mode):
    """Layer by layer: all of one kind share their code, so that this takes a part of a whole compilation's time."""
    if mode == "none":
        return False
    import torch._dynamo
    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(torch._dynamo.config, name):
            setattr(torch._dynamo.config, name, 64)
    for layer in (*model.net.model.vision_tower.encoder.layer, *model.net.model.language_model.layers):
        layer.compile(dynamic=False)
    return True


def not_compiled(model):
    for layer in (*model.net.model.vision_tower.encoder.layer, *model.net.model.language_model.layers):
        layer._compiled_call_impl = None


def optimizer(model, args, device):
    decayed, others = [], []
    for name, p in model.named_parameters():
        plain = p.ndim < 2 or "embed" in name or name.endswith("cls_token")
        (others if plain else decayed).append(p)
    return torch.optim.AdamW([{"params": decayed, "weight_decay": args.decay}, {"params": others, "weight_decay": 0.0}],
                             lr=args.lr, betas=(0.9, 0.98), fused=device.type == "cuda")


class Trainer:
    def __init__(self, args):
        self.args = args
        self.classes = targets.load_classes()
        self.lines = dialogue.Dialogue(tokenizer.load())
        self.letters, self.end_id = self.lines.letter[:targets.MAX_CHOICES], self.lines.id["<|im_end|>"]
        os.makedirs(args.out, exist_ok=True)
        self.feed = Feed(self.lines, self.classes, args.workers, args.held, args.seed, args.ring)
        # From here on CUDA may be touched: the workers are forked.
        self.device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.set_float32_matmul_precision("high")
        self.model = M.packed(args.size, self.lines, self.classes, self.classes["slot"], seed=args.seed)
        if args.resume:
            afresh = M.load(self.model, args.resume)
            say(f"going on from {args.resume}" + (f", heads anew: {', '.join(afresh)}" if afresh else ""))
        self.model.to(self.device)
        self.compiled = compile_layers(self.model, args.compile)
        self.optimizer = optimizer(self.model, args, self.device)
        self.pool = Pool(self.feed, args.pool, self.device)
        self.log = Log(os.path.join(args.out, "log.csv"), self.classes["kinds"])
        self.end = START + 60 * args.minutes - args.reserve
        self.step, self.scale, self.sums, self.summed = 0, 1.0, None, 0
        self.good, self.events = None, []

    def forward(self, tiles, records):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return L.compute(self.model, tiles, records, self.end_id)

    def part(self):
        """How much of the training time is over, 0 to 1."""
        return min(1.0, max(0.0, (time.time() - self.begin) / max(1.0, self.end - self.begin)))

    def one_step(self, part):
        fall = min(1.0, (1 - part) / (1 - FALL_FROM))
        rate = self.args.lr * self.scale * max(0.01, fall) * min(1.0, (self.step + 1) / self.args.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        aux = LAST_AUX + (1 - LAST_AUX) * fall
        tiles, records = self.pool.batch(self.args.batch)
        losses, _ = self.forward(tiles, records)
        L.total(losses, aux).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.stack([loss.detach() for loss in losses.values()])
        self.names, self.sums = list(losses), values if self.sums is None else self.sums + values
        self.summed += 1
        self.step += 1
        return rate, aux

    def evaluate(self, n):
        """[kinds, 4] sums over the first n held-out clips. With gradients, which are thrown away: the compiled code is
        the same."""
        n -= n % min(self.args.batch, n)
        table = np.zeros((len(self.classes["kinds"]), 4))
        for at in range(0, n, self.args.batch):
            chosen = slice(at, min(n, at + self.args.batch))
            records = to_tensors(self.held_records[chosen], self.device)
            _, out = self.forward(torch.from_numpy(self.held_tiles[chosen]).to(self.device), records)
            table += L.hits(out, records, self.letters, len(table)).cpu().numpy()
        return table

    def report(self, rate, aux):
        means = (self.sums / self.summed).tolist()
        self.sums, self.summed = None, 0
        table = self.evaluate(min(self.args.often, len(self.held_records)))
        now = time.time()
        row = self.log.add({"step": self.step, "seconds": now - self.begin, "clips": self.feed.drawn(), "lr": rate,
                            "aux": aux, **{"loss_" + name: value for name, value in zip(self.names, means)}}, table)
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
        """Compiles; where that fails or takes too long, goes on without; where memory is short, with half the batch."""
        def too_long(*_):
            raise TimeoutError("compiling took more than 150 s")

        before = signal.signal(signal.SIGALRM, too_long)
        while True:
            signal.alarm(150 if self.compiled else 0)
            try:
                result = self.one_step(0.0)
                self.sums.tolist()  # waits for the device
                return result
            except Exception as error:
                signal.alarm(0)
                short = isinstance(error, torch.OutOfMemoryError)
                say(f"first step: {type(error).__name__}: {str(error)[:2000]}")
                if not short and not self.compiled or self.args.batch < 4:
                    raise
                if short:
                    self.args.batch //= 2
                else:
                    not_compiled(self.model)
                    self.compiled = False
                say(f"again, {'' if self.compiled else 'not '}compiled, {self.args.batch} clips a step")
            finally:
                signal.alarm(0)
            self.sums, self.summed, self.step = None, 0, 0
            self.put_back()
            if self.device.type == "cuda":
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
        M.save(self.model, self.args.out,
               {"size": self.args.size, "step": self.step, "seconds": time.time() - self.begin, "classes": self.classes,
                "resumed": self.args.resume, "options": vars(self.args)})
        say(f"saved at step {self.step}")

    def run(self):
        args = self.args
        say(f"{sum(p.numel() for p in self.model.net.parameters()) / 1e6:.2f} M parameters, prefix "
            f"{len(self.lines.prefix)} tokens, {args.workers} workers, {self.device}")
        self.held_tiles, self.held_records = self.feed.held(seconds=min(60, 15 * args.minutes))
        say(f"{len(self.held_records)} held-out clips drawn")
        if not len(self.held_records):
            raise SystemExit("no clip could be drawn")
        while self.pool.filled < min(args.first, args.pool):
            if not self.pool.take():
                time.sleep(0.01)
            if time.time() > START + 30 * args.minutes:
                raise SystemExit("too few clips are drawn")
        say(f"{self.pool.filled} clips in the pool; the first step compiles")
        self.begin = time.time()
        self.keep()
        rate, aux = self.first_step()
        say("first step done")
        self.begin = time.time()
        saves, next_report = list(SAVE_AT), self.begin + min(args.every, 5.0)
        while True:
            part = self.part()
            if part >= 1:
                break
            self.pool.take()
            rate, aux = self.one_step(part)
            self.hold()
            if time.time() >= next_report:
                if self.report(rate, aux):
                    self.keep()
                else:
                    self.restore()
                next_report = time.time() + args.every
            if saves and part >= saves[0]:
                saves.pop(0)
                self.save()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        say(f"{self.step} steps in {time.time() - self.begin:.1f} s; {self.feed.drawn()} clips drawn, "
            f"{self.feed.failed()} failed")
        if self.summed and not all(torch.isfinite(self.sums).tolist()):
            self.restore()
        self.save()
        if self.device.type == "cuda":
            say(f"device memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        self.finish(self.evaluate(len(self.held_records)))

    def finish(self, table):
        kinds = {kind: {"questions": int(n), "right": round(100 * a / max(1, n), 2),
                        "right_among_choices": round(100 * b / max(1, n), 2), "retrieved": round(100 * c / max(1, n), 2)}
                 for kind, (n, a, b, c) in zip(self.classes["kinds"], table)}
        n = max(1, table[:, 0].sum())
        result = {"steps": self.step, "train_seconds": round(time.time() - self.begin, 1),
                  "clips_drawn": self.feed.drawn(), "clips": len(self.held_records), "questions": int(table[:, 0].sum()),
                  "right": round(100 * table[:, 1].sum() / n, 2), "kinds": kinds, "compiled": self.compiled,
                  "resumed": self.args.resume, "lr": self.args.lr, "seed": self.args.seed}
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
