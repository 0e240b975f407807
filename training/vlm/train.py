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
from .shapes import CHUNK, MIXES, SHAPES  # noqa: E402

MAIN = "f8d"  # whose kinds log.csv has under their own names: how lowbeam answers by itself
SAVE_AT = (0.3, 0.6, 0.85)
FALL_FROM = 0.75  # of the time: constant until here, then down in a straight line
LAST_AUX = 0.1  # what the auxiliary losses still count for at the end


def say(text):
    print(f"[{time.time() - START:6.1f}] {text}", flush=True)


def options():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out"), ap.add_argument("--resume", help="folder with the files of an earlier run, or with its two f16 GGUF files")
    ap.add_argument("--minutes", type=float, default=9.0, help="whole time, loading and writing included")
    ap.add_argument("--reserve", type=float, default=25.0, help="seconds of it for the last evaluation and writing")
    ap.add_argument("--size", choices=sorted(M.SIZES), default="small")
    ap.add_argument("--lr", type=float, help="default 1e-3, with --resume 6e-4")
    ap.add_argument("--warm-up", type=int, default=300, help="steps"), ap.add_argument("--decay", type=float, default=0.05)
    ap.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    for name, what in (("batch", "clips a step"), ("pool", "clips kept on the device"), ("ring", "clips that wait")):
        ap.add_argument("--" + name, type=float, default=1.0, help=f"times what shapes.py says of {what}")
    ap.add_argument("--first", type=float, default=4.0, help="batches of each shape drawn before the first step")
    ap.add_argument("--held", type=int, default=384, help="held-out clips of the last evaluation")
    ap.add_argument("--often", type=int, default=64, help="held-out clips of the evaluations in between")
    ap.add_argument("--every", type=float, default=40.0, help="seconds between them")
    ap.add_argument("--chunk", type=int, default=CHUNK, help="tiles that go through the encoder at a time")
    ap.add_argument("--seed", type=int, default=0, help="another one draws other clips")
    ap.add_argument("--compile", choices=("layers", "none"), default="layers")
    ap.add_argument("--device", help="default: cuda where there is one")
    args = ap.parse_args()
    if args.lr is None:
        args.lr = 6e-4 if args.resume else 1e-3
    return args


def resumed_name(folder):
    """Of the folder that a run went on from: where it lay on that machine is nobody's business."""
    return folder and os.path.basename(os.path.normpath(folder))


class Log:
    """log.csv: a row an evaluation, written whole each time, so that it is never half a row."""

    def __init__(self, path, kinds):
        self.path, self.kinds, self.rows = path, kinds, []

    def add(self, values, table):
        """table [mixes, kinds, 4], as losses.hits gives it."""
        row = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in values.items()}

        def share(cells, column):
            return f"{100 * cells[..., column].sum() / cells[..., 0].sum():.1f}" if cells[..., 0].sum() else ""

        main = table[list(MIXES).index(MAIN)]
        row["mean"] = share(main, 1)
        for i, mix in enumerate(MIXES):
            row["all_" + mix] = share(table[i], 1)
        for i, kind in enumerate(self.kinds):
            row[kind] = share(main[i], 1)
        for i, kind in enumerate(self.kinds):
            row["alone_" + kind] = share(table[list(MIXES).index("f8"), i], 1)
        for i, kind in enumerate(self.kinds):
            row["retrieve_" + kind] = share(main[i], 3)
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
    # cuDNN's attention would be chosen where there is a mask; PyTorch's own has served in all runs.
    torch.backends.cuda.enable_cudnn_sdp(False)
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
        self.batch = {name: max(1, round(args.batch * shape.batch)) for name, shape in SHAPES.items()}
        self.turns = np.random.default_rng(args.seed)
        # From here on CUDA may be touched: the workers are forked.
        self.device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.set_float32_matmul_precision("high")
        self.model = M.packed(args.size, self.lines, self.classes, targets.SEGMENTS, args.chunk, args.seed)
        if args.resume:
            afresh = M.load(self.model, args.resume)
            say(f"going on from {args.resume}" + (f", heads anew: {', '.join(afresh)}" if afresh else ""))
        self.model.to(self.device)
        self.compiled = compile_layers(self.model, args.compile)
        self.optimizer = optimizer(self.model, args, self.device)
        self.pools = {name: Pool(self.feed, name, max(4, round(args.pool * shape.pool)), self.device)
                      for name, shape in SHAPES.items()}
        self.log = Log(os.path.join(args.out, "log.csv"), self.classes["kinds"])
        self.end = START + 60 * args.minutes - args.reserve
        self.step, self.scale, self.sums, self.summed, self.steps = 0, 1.0, None, 0, dict.fromkeys(SHAPES, 0)
        self.good, self.events = None, []

    def forward(self, tiles, records):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return L.compute(self.model, tiles, records, self.end_id)

    def part(self):
        """How much of the training time is over, 0 to 1."""
        return min(1.0, max(0.0, (time.time() - self.begin) / max(1.0, self.end - self.begin)))

    def next_shape(self):
        shares = np.array([shape.share for shape in SHAPES.values()])
        return list(SHAPES)[self.turns.choice(len(shares), p=shares / shares.sum())]

    def one_step(self, part, name):
        fall = min(1.0, (1 - part) / (1 - FALL_FROM))
        rate = self.args.lr * self.scale * max(0.01, fall) * min(1.0, (self.step + 1) / self.args.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        aux = LAST_AUX + (1 - LAST_AUX) * fall
        tiles, records = self.pools[name].batch(self.batch[name])
        losses, _ = self.forward(tiles, records)
        L.total(losses, aux).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.stack([loss.detach() for loss in losses.values()])
        self.names, self.sums = list(losses), values if self.sums is None else self.sums + values
        self.summed += 1
        self.step += 1
        self.steps[name] += 1
        return rate, aux

    def evaluate(self, part):
        """[mixes, kinds, 4] sums over the first part of the held-out clips, whole batches alone. With gradients, which are
        thrown away: the compiled code is the same."""
        kinds = len(self.classes["kinds"])
        table = torch.zeros(len(MIXES), kinds, 4, device=self.device)
        for name, (tiles, records) in self.held.items():
            size = self.batch[name]
            n = int(len(records) * part)
            for at in range(0, max(min(size, len(records)), n - n % size), size):
                chosen = slice(at, min(len(records), at + size))
                numbers = to_tensors(records[chosen], self.device)
                _, out = self.forward(torch.from_numpy(tiles[chosen]).to(self.device), numbers)
                table += L.hits(out, numbers, self.letters, len(MIXES), kinds)
        return table.cpu().numpy()

    def report(self, rate, aux):
        means = (self.sums / self.summed).tolist()
        self.sums, self.summed = None, 0
        table = self.evaluate(min(1.0, self.args.often / self.args.held))
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

    def first_step(self, name):
        """Compiles for a shape; where that fails or takes too long, goes on without; where memory is short, with half the batch."""
        def too_long(*_):
            raise TimeoutError("compiling took more than 150 s")

        before = signal.signal(signal.SIGALRM, too_long)
        while True:
            signal.alarm(150 if self.compiled else 0)
            try:
                result = self.one_step(0.0, name)
                self.sums.tolist()  # waits for the device
                return result
            except Exception as error:
                signal.alarm(0)
                short = isinstance(error, torch.OutOfMemoryError)
                say(f"first step of {name}: {type(error).__name__}: {str(error)[:2000]}")
                if not short and not self.compiled or self.batch[name] < 4:
                    raise
                if short:
                    self.batch[name] //= 2
                else:
                    not_compiled(self.model)
                    self.compiled = False
                say(f"again, {'' if self.compiled else 'not '}compiled, {self.batch[name]} clips a step")
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
        self.held = self.feed.wait_held(seconds=min(60, 15 * args.minutes))
        say("held-out clips drawn: " + ", ".join(f"{name} {len(records)}" for name, (_, records) in self.held.items()))
        if not all(len(records) for _, records in self.held.values()):
            raise SystemExit("no clip could be drawn")
        while any(pool.filled < min(args.first * self.batch[name], pool.size) for name, pool in self.pools.items()):
            if not sum(pool.take() for pool in self.pools.values()):
                time.sleep(0.01)
            if time.time() > START + 30 * args.minutes:
                raise SystemExit("too few clips are drawn")
        say(f"clips in the pools: {self.in_pools()}; the first steps compile")
        self.begin = time.time()
        self.keep()
        for name in reversed(SHAPES):  # the largest first: memory is then known to suffice
            rate, aux = self.first_step(name)
            say(f"first step of {name} done")
            for pool in self.pools.values():
                pool.take()
        self.step = 0
        self.begin = time.time()
        saves, next_report = list(SAVE_AT), self.begin + min(args.every, 5.0)
        while True:
            part = self.part()
            if part >= 1:
                break
            name = self.next_shape()
            self.pools[name].take()
            rate, aux = self.one_step(part, name)
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
        say(f"{self.step} steps in {time.time() - self.begin:.1f} s, {self.steps}; {self.feed.drawn()} clips drawn, "
            f"{self.feed.failed()} failed; taken {({name: pool.taken for name, pool in self.pools.items()})}")
        if self.summed and not all(torch.isfinite(self.sums).tolist()):
            self.restore()
        self.save()
        if self.device.type == "cuda":
            say(f"device memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        self.finish(self.evaluate(1.0))

    def in_pools(self):
        return ", ".join(f"{name} {pool.filled}" for name, pool in self.pools.items())

    def finish(self, table):
        def about(cells):
            n, right = int(cells[..., 0].sum()), float(cells[..., 1].sum())
            return {"questions": n, "right": round(100 * right / max(1, n), 2)}

        shown = {mix: {**about(rows), "kinds": {kind: about(row) for kind, row in zip(self.classes["kinds"], rows)}}
                 for mix, rows in zip(MIXES, table)}
        result = {"steps": self.step, "train_seconds": round(time.time() - self.begin, 1),
                  "clips_drawn": self.feed.drawn(), "clips": self.args.held, "main": MAIN, "mixes": shown,
                  "compiled": self.compiled, "steps_of": self.steps, "batch": self.batch,
                  "resumed": resumed_name(self.args.resume), "lr": self.args.lr, "seed": self.args.seed}
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
