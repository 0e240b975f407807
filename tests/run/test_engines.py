#!/usr/bin/env python3
"""Several engines in one run, on pretended GPUs (tests/nn/fake_gpu.c): the answers are those of one engine, each device takes
part, and engines that die, cannot begin or are given up cost no answer while another one lives.

lowbeam_fake is built here, as in test_devices."""
import contextlib
import json
import os
import re
import shutil
import signal
import time
import unittest

import harness
import test_devices
import test_storage

FAKE, MIB, LARGE = test_devices.FAKE, test_devices.MIB, test_devices.LARGE
EXACT = "--exact"  # answers of the CPU and of pretended devices are compared
N_VIDEOS = 12
MS = 10  # a graph: engines are being waited for, as with real ones, and not this machine's two cores
SLOW = {"LOWBEAM_FAKE_GPU_MS": "120" if test_devices.SANITIZED else "30"}  # something is done to the run meanwhile
TWO, THREE = f"{LARGE},{LARGE}", f"{LARGE},{LARGE},{LARGE}"
SIDE = 112  # of a tile in pixels: 16 tokens. What several engines do is the same with small pictures and takes a tenth of the time
CLIP = 2 * 3 * (48 * 32 + SIDE * SIDE)  # bytes of two frames with their tiles
BUDGET = ("--device", "auto", "--vram", "200MiB")


def make_model(*options):
    return dict(zip(("model", "mmproj"), harness.model_files(harness.make_model("--image-size", str(SIDE), "--seed", "1", *options))))


class Engines(harness.Test):
    kept_reference = None

    def setUp(self):
        super().setUp()
        self.prompt = self.write("prompt.txt", "{frames}\n{question}\n{choices}")
        for v in range(4, N_VIDEOS):  # each its own pictures in its own order
            os.mkdir(self.path(f"v{v}"))
            for i in range(4):
                shutil.copy(self.path(f"v{(v + i) % 4}", f"{(v // 4 + i) % 4}.png"), self.path(f"v{v}", f"{i}.png"))
        self.pairs = [(f"q{v}_{i}", f"v{v}") for i in range(2) for v in range(N_VIDEOS)]
        self.file = self.questions(self.pairs)

    def prepare(self, gpus, options, env):
        log = self.path(f"log{self.n_runs}")
        return ("--max-new-tokens", "4", "--prompt", self.prompt, "--trace", log + ".trace", EXACT, *options), {
            "LOWBEAM_FAKE_GPUS": gpus, "LOWBEAM_FAKE_GPU_LOG": log, "LOWBEAM_FAKE_GPU_MS": str(MS), **(env or {})}

    @staticmethod
    def logs(command):
        """What prepare had written: (lines of the log, each split, events of the trace)."""
        trace, lines, events = command[command.index("--trace") + 1], [], []
        for name, found, read in ((trace[:-len(".trace")], lines, str.split), (trace, events, json.loads)):
            if os.path.exists(name):
                with open(name, encoding="utf-8") as file:  # the last line may not be whole yet
                    found.extend(read(line) for line in file if line.endswith("\n"))
        return lines, events

    def together(self, n):
        """The environment in which so many engines begin their first videos at the same time."""
        return {"LOWBEAM_FAKE_GPU_TOGETHER": f"{n}:" + self.path(f"opened{self.n_runs}")}

    def ask(self, gpus, *options, env=None, file=None, **more):
        options, env = self.prepare(gpus, options, env)
        return self.look(self.answer(file or self.file, *options, env=env, frames=2, program=FAKE, **{**make_model(), **more}))

    def begin(self, gpus, *options, env=None, **more):
        options, env = self.prepare(gpus, options, env)
        return self.start(self.file, *options, env=env, frames=2, program=FAKE, **make_model(), **more)

    def plan(self, gpus, *options, file=None, **more):
        """What `lowbeam plan` says: exit status, document, stderr."""
        options, _ = self.prepare(gpus, options, None)
        command, _ = self.command(file or self.file, *options, "--json", frames=2, program=FAKE, **{**make_model(), **more})
        planned = self.run_program([FAKE, "plan", *command[2:]], env={"LOWBEAM_FAKE_GPUS": gpus})
        return planned.status, json.loads(planned.out), planned.err

    def look(self, run):
        """run.videos: by device or devices ("FAKE0"), what the engines on it worked on; run.devices: of each process."""
        run.devices, run.videos = {}, {}
        lines, events = self.logs(run.command)
        for pid, device, *_ in lines:
            run.devices.setdefault(int(pid), set()).add(device)
        for event in events:
            if event["pid"] in run.devices and event.get("video"):
                name = ",".join(sorted(run.devices[event["pid"]]))
                run.videos.setdefault(name, set()).add(os.path.basename(event["video"]))
        return run

    def reference(self):
        """What one engine answers to self.file; asked once."""
        if not Engines.kept_reference:
            run = self.ask(LARGE, "--engines", "1", *BUDGET, env={"LOWBEAM_FAKE_GPU_MS": "0"})
            self.assertEqual((run.status, list(run.videos)), (0, ["FAKE0"]), run)
            Engines.kept_reference = self.results(run)
            self.assertGreater(len(set(run.answers().values())), 1, run)
            logits = [values for _, values in sorted(run.logits().items())]
            for at, one in enumerate(logits):  # no question's answer can be taken for another's
                for other in logits[:at]:
                    self.assertGreater(max(abs(a - b) for a, b in zip(one, other)), 1e-3)
        return Engines.kept_reference

    def results(self, run):
        with open(run.csv_path, "rb") as file:
            return {"csv": file.read(), "answers": run.answers(), "logits": run.logits()}

    def assert_same(self, run, reference, most=1e-4):
        """To the byte: letters, texts and prompts in the file's order, and nothing by fallback. Logits as near as most."""
        self.assertEqual(run.status, 0, run)
        found = self.results(run)
        self.assertEqual(found["csv"], reference["csv"], run)
        self.assert_close(found["logits"], reference["logits"], most)
        for row in run.journal().values():
            self.assertIsNone(row["error"], run)

    def assert_shared(self, run, *devices, least=2):
        """Each video was answered on one of these, and each of these answered some."""
        self.assertEqual(sorted(run.videos), sorted(devices), run)
        print("  " + ", ".join(f"{name} {len(videos)} videos" for name, videos in sorted(run.videos.items())))
        self.assertEqual(set().union(*run.videos.values()), {f"v{v}" for v in range(N_VIDEOS)}, run)
        self.assertEqual(sum(map(len, run.videos.values())), N_VIDEOS, run)  # none on two of them
        for name, videos in run.videos.items():
            self.assertGreaterEqual(len(videos), least, f"{name}\n{run}")

    def assert_left_out(self, run, *words, n=1):
        """One line for each lane that is left out."""
        lines = [line for line in run.err.splitlines() if "left out" in line]
        self.assertEqual(len(lines), n, run)
        for word in words:
            self.assertIn(word, lines[0], run)

    @staticmethod
    def said(process):
        """What it has written to stderr so far."""
        with open(f"/proc/{os.getpid()}/fd/{process.streams[1].fileno()}", "rb") as file:
            return file.read()

    def engines_of(self, process):
        return harness.children(process.pid, "engine-child")

    def kill_all_but(self, spared, process):
        pids = set(self.engines_of(process)) - set(spared)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(pid, 9)
        return pids

    def stop_second(self, process):
        """Stops the engine that is started as the second one; None where it ended before."""
        seen = []
        while len(seen) < 2 and process.poll() is None:
            seen += [pid for pid in self.engines_of(process) if pid not in seen]
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.kill(seen[-1], signal.SIGSTOP)
        until = time.monotonic() + 5
        while harness.is_alive(seen[-1]) and time.monotonic() < until:
            if harness.processes().get(seen[-1], (0, "X", ""))[1] == "T":
                return seen[-1]
        return None

    def engine_on(self, process, device):
        """The process that holds memory on the device, when there is one."""
        pids = {int(pid) for pid, name, *_ in self.logs(process.args)[0] if name == device}
        return next((pid for pid in self.engines_of(process) if pid in pids), None)

    def are_at_work(self, process, *devices):
        """Whether the engines on these devices have been given a video each."""
        pids = [self.engine_on(process, device) for device in devices]
        return None not in pids and set(pids) <= {event["pid"] for event in self.logs(process.args)[1] if event.get("video")}

    def lost(self, *devices):
        """The environment in which these devices cannot compute."""
        return {"LOWBEAM_FAKE_GPU_LOST": self.write("lost " + " ".join(devices), " ".join(devices))}

    # what several engines are for

    def test_answers_are_those_of_one(self):
        reference = self.reference()
        cpu = self.ask("1MiB", "--device", "cpu", env={"LOWBEAM_FAKE_GPU_MS": "0"})
        self.assert_same(cpu, reference)
        self.assertEqual(cpu.videos, {})
        one = self.ask(TWO, "--engines", "1", *BUDGET)
        self.assert_same(one, reference)
        self.assert_shared(one, "FAKE0")
        self.assertNotIn("Engine", one.out, one)
        for gpus, n, options in ((TWO, 2, ()), (THREE, 3, ()), (THREE, 2, ("--engines", "2"))):
            run = self.ask(gpus, *BUDGET, *options, env=self.together(n))
            self.assert_same(run, reference, most=0)
            self.assert_shared(run, *(f"FAKE{i}" for i in range(n)))
            self.assertIn(f"Engines: {n} side by side\n", run.out, run)
            self.assertEqual(run.complaints(), [], run)
            told = re.findall(r"^(\w+), most at once \(MiB\)", run.out, re.M)
            self.assertEqual(told, [f"FAKE{i}" for i in range(n)], run)
            self.assertEqual(re.findall(r"^\[VRAM (Start|End)", run.out, re.M), ["Start", "End"], run)

    @unittest.skipIf(test_devices.SANITIZED, "the engines' own work takes longer than they are made to wait")
    def test_it_takes_less_time(self):
        seconds = []
        for engines in ("1", "auto"):
            run = self.ask(THREE, *BUDGET, "--engines", engines, env={"LOWBEAM_FAKE_GPU_MS": "50"})
            seconds.append(float(re.search(r"answered in (\S+) s", run.out)[1]))
        print(f"  one engine {seconds[0]} s, three {seconds[1]} s")
        self.assertLess(seconds[1], 0.7 * seconds[0])

    def test_several_devices_each(self):
        """A KV cache that one device has no room for, and three have."""
        model = make_model("--layers", "24")
        gpus = ",".join([LARGE] * 7)
        _, planned, _ = self.plan(gpus, *BUDGET, **model)
        alone, = planned["devices"]
        self.assertEqual(planned["engines"], 7)
        options = ("--device", "auto", "--vram", str(alone["peak"] - MIB))
        runs = [self.ask(gpus, *options, "--engines", engines, **model,
                         env={"LOWBEAM_FAKE_GPU_MS": "0"}) for engines in ("1", "2", "3")]
        self.assert_same(runs[1], self.results(runs[0]), most=0)
        self.assert_shared(runs[0], "FAKE0,FAKE1,FAKE2")
        self.assert_shared(runs[1], "FAKE0,FAKE1,FAKE2", "FAKE3,FAKE4,FAKE5")
        self.assert_refused(runs[2], "--engines 3: there can be 2, since each takes 3 of the 7 devices; --engines auto takes")
        status, planned, _ = self.plan(gpus, *options, **model)
        self.assertEqual((status, planned["engines"], len(planned["devices"])), (0, 2, 3))

    def test_how_many(self):
        for gpus, device, engines, words in ((TWO, "auto", "3", "there can be 2, since each takes 1 of the 2 devices"),
                                             (TWO, "fake1", "2", "there can be 1, since there is one device"),
                                             (TWO, "cpu", "2", "there can be 1, since there is one device")):
            options = ("--device", device, "--vram", "200MiB", "--engines", engines)
            run = self.ask(gpus, *options)
            self.assertEqual(run.status, 1, run)
            self.assertIn(f"--engines {engines}: {words}", run.err)
            self.assert_nothing_left(run)
            status, planned, err = self.plan(gpus, *options)
            self.assertEqual((status, len(planned["devices"])), (1, 1))  # and the plan of one, all the same
            self.assertIn(f"--engines {engines}: {words}", err)
        for engines in ("0", "17", "two", "-1"):
            run = self.ask(TWO, *BUDGET, f"--engines={engines}")
            self.assert_refused(run, f"--engines {engines}", "auto", status=2)
        few = self.questions([("q0", "v0"), ("q1", "v1")], name="few.json")
        for gpus, options, n in ((TWO, (), 2), (THREE, (), 3), (THREE, ("--engines", "2"), 2), (THREE, ("--engines", "1"), 1),
                                 (THREE, ("--device", "cpu"), 1)):
            self.assertEqual(self.plan(gpus, *BUDGET, *options)[1]["engines"], n)
        self.assertEqual(self.plan(THREE, *BUDGET, file=few)[1]["engines"], 2)
        command, _ = self.command(few, *BUDGET, **make_model())
        told = self.run_program([FAKE, "plan", *command[2:]], env={"LOWBEAM_FAKE_GPUS": THREE})
        self.assertIn("\nEngines: 2 side by side, each with such a plan for devices of its own\n", told.out)

    def test_no_more_engines_than_videos(self):
        for n in (1, 2):
            few = self.questions([(f"q{v}", f"v{v}") for v in range(n)], name="few.json")
            for options, file in (((), few), (("--samples", str(n)), self.file)):
                run = self.ask(THREE, *BUDGET, *options, file=file)
                self.assertEqual((run.status, len(run.rows())), (0, n), run)
                self.assertLessEqual(set().union(*run.devices.values()), {f"FAKE{i}" for i in range(n)}, run)
                self.assertEqual(run.complaints(), [], run)
        run = self.ask(THREE, *BUDGET, "--engines", "3", file=self.questions([("q0", "v0"), ("q1", "v1")], name="few.json"))
        self.assertEqual(run.status, 0, run)
        self.assertNotIn("FAKE2", set().union(*run.devices.values()), run)

    # engines that cannot begin

    def test_a_device_that_is_too_small(self):
        reference = self.reference()
        for vram, words in (("200MiB,2MiB", ("smallest --vram",)), ("200MiB,5MiB", ("other answers",))):
            run = self.ask(TWO, "--device", "auto", "--vram", vram, env=SLOW)
            self.assert_same(run, reference)
            self.assert_left_out(run, "engine 2 (FAKE1)", "goes on with 1 engine", *words)
            self.assertEqual(run.complaints(), [line for line in run.err.splitlines() if "left out" in line], run)
            self.assert_shared(run, "FAKE0")
        run = self.ask(THREE, "--device", "auto", "--vram", "200MiB,2MiB,200MiB", env=SLOW)  # the last one in the order of size
        self.assert_same(run, reference)
        self.assert_left_out(run, "engine 3 (FAKE1)", "goes on with 2 engines")
        self.assert_shared(run, "FAKE0", "FAKE2")

    def test_an_engine_that_does_not_start(self):
        """Killed whenever it appears, three times; the other one answers all."""
        reference = self.reference()
        process, killed = self.begin(TWO, *BUDGET, env=SLOW), set()
        self.wait_for_answers(process, 1)
        first = self.engine_on(process, "FAKE0")
        while process.poll() is None:
            killed.update(self.kill_all_but({first, *killed}, process))
            time.sleep(0.002)
        run = self.look(self.finish(process))
        self.assert_same(run, reference)
        self.assertGreaterEqual(len(killed), 3)
        self.assert_left_out(run, "engine 2 (FAKE1)", "signal 9")

    def test_a_first_engine_that_does_not_start(self):
        """The run ends, and says how it would go on without that device."""
        run = self.ask(TWO, *BUDGET, env=self.lost("FAKE0:1"))
        self.assert_refused(run, "FAKE0 is lost", "if it is FAKE0, --device FAKE1 leaves that out")
        self.assert_same(self.ask(TWO, "--device", "FAKE1", "--vram", "200MiB", env=self.lost("FAKE0:1")), self.reference())
        run = self.ask(TWO, "--device", "fake0", "--vram", "200MiB", env=self.lost("FAKE0:1"))
        self.assertNotIn("--device", self.assert_refused(run, "FAKE0 is lost") or run.err.splitlines()[-1])

    def test_a_first_engine_without_room(self):
        """It is loaded again with a smaller plan, for which it may have all devices: the other one, which was begun with the
        plan before, gives back its own."""
        run = self.ask(TWO, *BUDGET, env={"LOWBEAM_FAKE_GPU_FULL_ONCE": self.write("full", "FAKE0"), **SLOW})
        self.assert_same(run, self.reference())
        self.assertIn("starting another engine with a smaller plan", run.err)
        self.assertEqual(list(run.videos), ["FAKE0,FAKE1"], run)
        self.assertNotIn("left out", run.err)
        self.assertFalse(os.path.exists(self.path("full")))

    def test_an_engine_that_never_gets_ready(self):
        """The run waits for it no longer than there are questions, or until it is interrupted."""
        reference = self.reference()
        processes = []
        for interrupt in (False, True):
            for _ in range(20):  # until it is stopped before it has loaded anything, which it does beside the first
                process = self.begin(TWO, *BUDGET, env=SLOW)
                second = self.stop_second(process)
                if second and not self.engine_on(process, "FAKE1"):
                    break
                self.end(process)
            self.assertIsNone(process.poll(), "never stopped in time")
            processes.append((interrupt, process, second))
            if interrupt:
                self.wait_for_answers(process, 1)
                process.send_signal(signal.SIGINT)
        for interrupt, process, second in processes:
            run = self.look(self.finish(process))
            self.assertFalse(harness.is_alive(second), run)
            self.assertEqual(run.status, 130 if interrupt else 0, run)
            self.assertNotIn("left out", run.err)
            if not interrupt:
                self.assert_same(run, reference)
                self.assert_shared(run, "FAKE0")

    def test_the_last_engine_comes_back(self):
        """The first one gives way to another one for lack of memory; that turns out to have no room at all. Then the first one
        is asked again, when its memory is back."""
        reference = self.reference()
        ballast = self.write("ballast", "0")
        for attempt in range(20):  # until the second one is stopped before it has found that it has no room
            process = self.begin(TWO, "--device", "auto", "--vram", "200MiB,2MiB", env={
                "LOWBEAM_FAKE_GPU_BALLAST": ballast, "LOWBEAM_TEST_FAULT": f"abort:q3_0:{self.path(f'count{attempt}')}:1", **SLOW})
            second = self.stop_second(process)
            if second:
                break
            self.end(process)
        self.assertTrue(second, "never stopped in time")
        self.wait_for_answers(process, 1)
        os.replace(self.write("ballast.new", str(255 * MIB)), ballast)
        self.wait_for(lambda: b"engine 1 (FAKE0): " in self.said(process) and b"it is left out" in self.said(process), "one that gives way")
        os.replace(self.write("ballast.new", "0"), ballast)
        os.kill(second, signal.SIGCONT)
        run = self.look(self.finish(process))
        self.assert_same(run, reference)
        self.assert_left_out(run, "engine 1 (FAKE0)", n=2)
        self.assertIn("engine 1 (FAKE0): no other engine is left; it is tried again", run.err)

    # engines that die

    def test_a_killed_engine_costs_nothing(self):
        reference = self.reference()
        processes = {device: self.begin(TWO, *BUDGET, env=SLOW) for device in ("FAKE0", "FAKE1")}
        for device, process in processes.items():
            self.wait_for(lambda: self.are_at_work(process, "FAKE0", "FAKE1"), "two engines")
            os.kill(self.engine_on(process, device), 9)
        for device, process in processes.items():
            run = self.look(self.finish(process))
            self.assert_same(run, reference)
            self.assertIn(f"({device}): the engine process died of signal 9", run.err)
            self.assertEqual(sorted(run.videos), ["FAKE0", "FAKE1"], run)
            self.assertEqual(len(run.devices), 3, run)  # it was started again, on its own device

    def test_a_lost_device(self):
        """It aborts at each video, late in each, or from some moment of the run on. The others answer, whichever it is."""
        reference = self.reference()
        # the first two graphs are computed when an engine opens
        cases = ((TWO, ["FAKE1:3"]), (TWO, ["FAKE0:9"]), (THREE, ["FAKE0:3", "FAKE2:3"]))
        # room for one clip: that of a video that is given back must not be waited for by who could take it
        processes = [self.begin(gpus, *BUDGET, "--cache", str(CLIP), env={**self.lost(*lost), **self.together(1 + gpus.count(","))})
                     for gpus, lost in cases]
        for (_, lost), process in zip(cases, processes):
            run = self.look(self.finish(process))
            self.assert_same(run, reference)
            for name in lost:
                self.assertIn(name.split(":")[0] + " is lost", run.err)
        process = self.begin(TWO, *BUDGET, env={**self.lost(), **SLOW})
        self.wait_for_answers(process, 6)
        os.replace(self.write("lost.new", "FAKE0"), self.path("lost "))
        self.assert_same(self.look(self.finish(process)), reference)

    def test_a_device_that_vanished(self):
        """Its engine dies and none can be opened there any more."""
        reference = self.reference()
        processes, spared = [self.begin(TWO, *BUDGET, env=SLOW) for _ in range(2)], []
        for process, other in zip(processes, ("FAKE1", "FAKE0")):
            self.wait_for(lambda: self.are_at_work(process, "FAKE0", "FAKE1"), "two engines")
            spared.append(self.engine_on(process, other))
            self.kill_all_but(spared, process)
        while any(process.poll() is None for process in processes):
            for process in processes:
                self.kill_all_but(spared, process)
            time.sleep(0.005)
        for process, device, number in zip(processes, ("FAKE0", "FAKE1"), (1, 2)):
            run = self.look(self.finish(process))
            self.assert_same(run, reference)
            self.assert_left_out(run, f"engine {number} ({device})", "goes on with 1 engine")

    def test_all_devices_lost(self):
        """As with one engine: after some tries the rest is answered by fallback, and the run ends."""
        run = self.ask(TWO, *BUDGET, env=self.lost("FAKE0:3", "FAKE1:3"))
        self.assertEqual(run.status, 3, run)
        journal = run.journal()
        self.assertEqual(len(journal), len(self.pairs))
        for question, row in journal.items():
            self.assertEqual((row["answer"], row["fallback"]), ("A", 1), question)
            self.assertIn("is lost", row["error"])
        print(f"  {run.err.count('died of signal')} deaths told")
        self.assertLess(len(run.devices), 40, run)

    def test_a_question_that_kills(self):
        """It is lost alone, after no more engines than that takes."""
        reference = self.reference()
        run = self.ask(TWO, *BUDGET, env={"LOWBEAM_TEST_FAULT": "abort:q5_0", **self.together(2)})
        self.assertEqual(run.status, 3, run)
        self.assert_fallback(run, "q5_0", "test fault at question q5_0")
        answers, expected = run.answers(), reference["answers"]
        self.assertEqual({i: a for i, a in answers.items() if i != "q5_0"}, {i: a for i, a in expected.items() if i != "q5_0"})
        self.assertEqual([i for i, row in run.journal().items() if row["error"]], ["q5_0"])
        self.assertLessEqual(run.err.count("test fault at question"), 6, run)  # and the line of its failure
        self.assertNotIn("left out", run.err)

    # the run as a whole

    def test_full_disk(self):
        """Who cannot store an answer ends the run of all; what is stored counts, and the rest is answered when there is room."""
        options, env = self.prepare(TWO, BUDGET, {"LOWBEAM_FAKE_GPU_MS": "5"})
        command, csv_path = self.command(self.file, *options, frames=2, program=FAKE, out=self.path("mount", "run.csv"),
                                         **make_model())
        words = " ".join(f"'{word}'" for word in ("env", *(f"{name}={value}" for name, value in env.items()), *command))
        run = test_storage.Storage.in_mount(
            self, f'mount -t tmpfs -o size=96k none "$M"; {words}; echo "first $?"; mount -o remount,size=16m "$M"; {words} --resume; '
            f'echo "second $?"; cp "$M"/run.csv "$M"/run.db .')
        self.assertIn("first 1\n", run.out, run)
        self.assertIn("second 0\n", run.out, run)
        line, = (line for line in run.err.splitlines() if "No space left on device" in line)
        stored = int(re.search(r"(\d+) of 24 answers are stored: --resume goes on from there", line)[1])
        resumed = int(re.search(r"resumed (\d+) of 24", run.out)[1])
        self.assertTrue(0 < stored <= resumed < 24, run)
        run.csv_path, run.status = self.path("run.csv"), 0
        self.assert_same(run, self.reference())

    def test_nothing_left_to_answer(self):
        """A resumed run that is complete starts no engine, whatever number of them is asked for."""
        reference = self.reference()
        run = self.ask(TWO, *BUDGET, env={"LOWBEAM_FAKE_GPU_MS": "0"})
        os.unlink(run.csv_path)
        for options in ((), ("--engines", "5")):
            again = self.ask(TWO, *BUDGET, *options, "--resume", out=run.csv_path)
            self.assert_same(again, reference)
            self.assertIn("resumed 24 of 24", again.out)
            self.assertEqual((again.devices, again.complaints()), ({}, []), again)

    def test_resumed(self):
        reference = self.reference()
        for kill in (signal.SIGINT, signal.SIGKILL):
            process = self.begin(TWO, *BUDGET, env={**SLOW, **self.together(2)})
            self.wait_for_answers(process, 5)
            engines = self.engines_of(process)
            process.send_signal(kill)
            process.wait(timeout=60)
            self.wait_for(lambda: not any(map(harness.is_alive, engines)), "engines that outlive the run")
            again = self.ask(TWO, *BUDGET, "--resume", out=process.csv_path)
            self.assert_same(again, reference)
            self.assertRegex(again.out, r"resumed ([5-9]|1\d|2[0-3]) of 24")
            if kill == signal.SIGINT:
                self.assertEqual(process.returncode, 130)

    def test_interrupted_while_loading_and_twice(self):
        process = self.begin(TWO, *BUDGET, env={"LOWBEAM_FAKE_GPU_MS": "300"})
        self.wait_for(lambda: len(self.engines_of(process)) == 2, "the second engine")
        engines = self.engines_of(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(process.returncode, 130)
        self.wait_for(lambda: not any(map(harness.is_alive, engines)), "engines that outlive the run")

    def test_host_memory(self):
        """A clip's room for all lanes together: they take turns. Less --ram than two engines need: one."""
        reference = self.reference()
        for size in (CLIP, 2 * CLIP):
            run = self.ask(THREE, *BUDGET, "--cache", str(size), env=self.together(3))
            self.assert_same(run, reference)
            self.assert_shared(run, "FAKE0", "FAKE1", "FAKE2")
        run = self.ask(THREE, *BUDGET, "--cache", str(CLIP - 1))
        self.assertEqual((run.status, len(run.rows())), (3, 2 * N_VIDEOS), run)  # none fits, none is waited for
        host = self.plan(THREE, *BUDGET)[1]["host"]
        each = CLIP + host["embeddings"] + host.get("host_weights", 0)  # of --ram
        run = self.ask(THREE, *BUDGET, "--ram", str(3 * each - 1), "--engines", "3")
        self.assertEqual(run.status, 1, run)
        self.assertRegex(run.err, "there can be 2, since each takes .* of --ram")
        for n in (1, 2, 3):
            run = self.ask(THREE, *BUDGET, "--ram", str(n * each), env=self.together(n))
            self.assert_same(run, reference)
            self.assert_shared(run, *(f"FAKE{i}" for i in range(n)))

    def test_cache_folder(self):
        reference = self.reference()
        folder = self.path("kept")
        for known in (0, N_VIDEOS):
            run = self.ask(TWO, *BUDGET, "--cache-dir", folder, env={} if known else self.together(2))
            self.assert_same(run, reference)
            self.assertIn(f"cache: {known} of {N_VIDEOS} videos", run.out)

    def test_dump_and_deadline(self):
        trees = []
        for engines in ("1", "2"):
            folder = self.path(f"dump{engines}")
            run = self.ask(TWO, *BUDGET, "--engines", engines, "--dump", folder, "--deadline", "60", env=SLOW)
            self.assertEqual((run.status, len(run.videos)), (0, int(engines)), run)
            self.assertIn("24 of 24 in time", run.out)
            trees.append({os.path.relpath(os.path.join(path, name), folder): open(os.path.join(path, name), "rb").read()
                          for path, _, names in os.walk(folder) for name in names})
        self.assertEqual(trees[0].keys(), trees[1].keys())
        self.assertGreater(len(trees[0]), N_VIDEOS)
        self.assertEqual([name for name in trees[0] if trees[0][name] != trees[1][name]], [])


if __name__ == "__main__":
    test_devices.main()
