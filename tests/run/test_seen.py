#!/usr/bin/env python3
"""Which cards a process sees: CUDA makes a context, half a GiB, on each of them, whether it is used or not. Without a GPU:
tests/nn/fake_gpu.c as CUDA's devices, tests/nn/fake_nvml.c as the driver's library. lowbeam_fake is built as in
test_devices."""
import json
import os
import re

import harness
import test_devices

FAKE, EXACT, MIB = test_devices.FAKE, test_devices.EXACT, test_devices.MIB
NVML = os.path.join(harness.BUILD, "tests", "nvml")
ALL = "4GiB,4GiB,4GiB"


class Seen(harness.Test):
    def environment_of(self, gpus, more):
        path = os.environ.get("LD_LIBRARY_PATH")
        return {"LOWBEAM_FAKE_GPUS": gpus, "LOWBEAM_FAKE_GPU_CUDA": "1", "LOWBEAM_FAKE_GPU_LOG": self.path(f"log{self.n_runs}"),
                "LD_LIBRARY_PATH": NVML + (f":{path}" if path else ""), **(more or {})}

    def look(self, run, env):
        """run.processes: of each that saw cards, in their order, those that it saw and those that it held more on than the
        planner's small product."""
        run.processes = []
        by_pid = {}
        if os.path.exists(env["LOWBEAM_FAKE_GPU_LOG"]):
            with open(env["LOWBEAM_FAKE_GPU_LOG"], encoding="ascii") as file:
                for pid, card, what, n in map(str.split, file):
                    if pid not in by_pid:
                        by_pid[pid] = ([], [])
                        run.processes.append(by_pid[pid])
                    cards = by_pid[pid][0 if what == "seen" else 1]
                    if card not in cards and (what == "seen" or int(n) > MIB):
                        cards.append(card)
        return run

    def ask(self, gpus, *options, env=None, n_videos=2):
        env = self.environment_of(gpus, env)
        pairs = [(f"q{v}{i}", f"v{v}") for v in range(n_videos) for i in range(2)]
        files = harness.model_files(harness.make_model("--layers", "16"))
        command, csv_path = self.command(self.questions(pairs), EXACT, "--ubatch", "64", *options, model=files[0], mmproj=files[1], frames=2,
                                         program=FAKE)
        return self.look(self.run_program(command, csv_path, env), env)

    def plan(self, *options):
        """What one card would hold at most, in MiB."""
        env = self.environment_of("4GiB", None)
        files = harness.model_files(harness.make_model("--layers", "16"))
        command, _ = self.command(self.questions([("q", "v0")]), EXACT, "--ubatch", "64", *options, "--json", model=files[0], mmproj=files[1], frames=2,
                                  program=FAKE)
        planned = self.run_program([FAKE, "plan", *command[2:]], env=env)
        return json.loads(planned.out)["devices"][0]["peak"] // MIB

    def reference(self):
        run = self.ask(ALL, "--device", "cpu")
        self.assertEqual((run.status, run.processes), (0, [(["CUDA0", "CUDA1", "CUDA2"], [])]), run)
        return run

    def assert_seen(self, run, reference, *processes):
        self.assertEqual(run.status, 0, run)
        self.assertEqual(run.answers(), reference.answers(), run)
        self.assert_close(run.logits(), reference.logits())
        self.assertEqual([(",".join(saw), ",".join(sorted(held))) for saw, held in run.processes], list(processes), run)

        weights = re.findall(r"^  language weights +(\S+) +(\S+)$", run.out, re.M)
        self.assertEqual([(planned, planned) for planned, _ in weights], weights, run)  # read from libllama's log, by name

    def test_one_holds_all(self):
        reference = self.reference()
        run = self.ask(ALL, "--engines", "1")
        self.assert_seen(run, reference, ("CUDA0", "CUDA0"))
        run = self.ask(ALL, "--device", "Cuda2")
        self.assert_seen(run, reference, ("CUDA2", "CUDA2"))
        self.assertIn("(CUDA2)", run.out)
        self.assertRegex(run.out, "CUDA2, most at once")
        run = self.ask("2GiB,2GiB,4GiB", "--engines", "1", "--device", "cuda1,cuda2")
        self.assert_seen(run, reference, ("CUDA2", "CUDA2"))

    def test_an_engine_a_card(self):
        run = self.ask(ALL, "--device", "cuda2,cuda0", n_videos=8, env={"LOWBEAM_FAKE_GPU_MS": "30"})
        self.assertEqual(sorted(run.processes), [(["CUDA0"], ["CUDA0"]), (["CUDA2"], ["CUDA2"])], run)
        self.assertIn("Engines: 2", run.out)
        self.assertEqual(run.answers(), self.ask(ALL, "--device", "cpu", n_videos=8).answers(), run)

    def test_more_than_one_is_needed(self):
        """The first child sees that one card does not do, the second how many do, the third works on these."""
        reference, budget = self.reference(), f"{self.plan() - 4}MiB"
        run = self.ask("4GiB,4GiB", "--vram", budget)
        self.assert_seen(run, reference, ("CUDA0", ""), ("CUDA0,CUDA1", "CUDA0,CUDA1"))
        run = self.ask(ALL, "--vram", budget)
        self.assert_seen(run, reference, ("CUDA0", ""), ("CUDA0,CUDA1,CUDA2", ""), ("CUDA0,CUDA1", "CUDA0,CUDA1"))
        self.assertIn("the language model is spread over 2 devices", run.out)
        run = self.ask(ALL, "--vram", f"700MiB,{budget},{budget}")
        self.assert_seen(run, reference, ("CUDA1", ""), ("CUDA1,CUDA2,CUDA0", ""), ("CUDA1,CUDA2", "CUDA1,CUDA2"))

    def test_one_with_savings(self):
        """The other holds next to nothing: all are tried, and one is used, with what saves memory there. An engine on the
        other is tried, too."""
        run = self.ask("4GiB,4GiB", "--vram", f"{self.plan() - 4}MiB,200MiB")
        self.assert_seen(run, self.reference(), ("CUDA0", ""), ("CUDA0,CUDA1", ""), ("CUDA0", "CUDA0"), ("CUDA1", ""))
        self.assertIn("To fit:", run.out)

    def test_cards_that_the_user_allows(self):
        """CUDA_VISIBLE_DEVICES: counted anew from 0, here too."""
        reference = self.reference()
        for options, process in (((), ("CUDA2", "CUDA2")), (("--device", "cuda1"), ("CUDA1", "CUDA1"))):
            run = self.ask(ALL, "--engines", "1", *options, env={"CUDA_VISIBLE_DEVICES": "2,1"})
            self.assert_seen(run, reference, process)
            self.assertIn("(CUDA1)" if options else "(CUDA0)", run.out)
        run = self.ask(ALL, "--engines", "2", "--vram", "3GiB,3GiB", env={"CUDA_VISIBLE_DEVICES": "2, 1"})
        self.assertEqual((run.status, sorted(run.processes)), (0, [(["CUDA1"], ["CUDA1"]), (["CUDA2"], ["CUDA2"])]), run)
        run = self.ask(ALL, env={"CUDA_VISIBLE_DEVICES": ""})  # none
        self.assert_seen(run, reference)
        self.assertIn("(CPU)", run.out)
        run = self.ask(ALL, "--device", "cuda0,cuda1,", env={})
        self.assertEqual(run.status, 1, run)
        run = self.ask(ALL, "--device", "cuda2", env={"CUDA_VISIBLE_DEVICES": "2,1"})
        self.assertEqual(run.status, 1, run)
        self.assertIn("there is no such device; there are: CPU, CUDA0, CUDA1", run.err)

    def test_cards_that_cuda_does_not_show(self):
        """The driver's library knows one more, as of a card that is divided: what CUDA shows is used, all of it seen."""
        reference = self.reference()
        hidden = {"LOWBEAM_FAKE_GPU_HIDDEN": "0"}
        run = self.ask(ALL, "--engines", "1", env=hidden)
        self.assert_seen(run, reference, ("CUDA1,CUDA2", "CUDA1"))
        run = self.ask(ALL, "--engines", "2", env={"LOWBEAM_FAKE_GPU_MS": "30", **hidden}, n_videos=4)
        self.assertEqual(run.status, 0, run)
        self.assertEqual(sorted(",".join(held) for _, held in run.processes), ["CUDA1", "CUDA2"], run)
        budget = f"{self.plan() - 4}MiB"
        run = self.ask("4GiB,4GiB,2GiB", "--vram", budget, env={"LOWBEAM_FAKE_GPU_HIDDEN": "2"})
        self.assert_seen(run, reference, ("CUDA0", ""), ("CUDA0,CUDA1", ""), ("CUDA0,CUDA1", "CUDA0,CUDA1"))

    def test_replaced_engines(self):
        """What was found out of how many cards are needed is kept."""
        run = self.ask("4GiB,4GiB", "--engines", "1", "--vram", f"{self.plan() - 4}MiB,200MiB",
                       env={"LOWBEAM_TEST_FAULT": f"abort:q01:{self.path('mark')}:1"})
        self.assert_seen(run, self.reference(), ("CUDA0", ""), ("CUDA0,CUDA1", ""), ("CUDA0", "CUDA0"), ("CUDA0", "CUDA0"))
        self.assertIn("starting another one", run.err)

    def test_libraries_errors_name_the_card(self):
        lost = self.write("lost", "CUDA0:8")  # as the process on the second card calls it
        run = self.ask(ALL, "--device", "cuda1", env={"LOWBEAM_FAKE_GPU_LOST": lost})
        self.assertIn("CUDA1 is lost", run.err)
        self.assertNotIn("CUDA0", run.err)
        ballast = self.write("ballast", str(4090 * MIB))
        run = self.ask(ALL, "--device", "cuda1", "--vram", "1GiB", env={"LOWBEAM_FAKE_GPU_BALLAST": ballast})
        self.assertEqual(run.status, 4, run)
        self.assertIn("no room on CUDA1", run.err)
        self.assertNotIn("CUDA0", run.err)

    def test_without_the_drivers_library(self):
        run = self.ask(ALL, "--engines", "1", env={"LD_LIBRARY_PATH": ""})
        self.assert_seen(run, self.reference(), ("CUDA0,CUDA1,CUDA2", "CUDA0"))

    def test_a_card_that_kills_before_there_is_a_plan(self):
        lost = {"LOWBEAM_FAKE_GPU_LOST": self.write("lost", "CUDA0:0")}
        run = self.ask(ALL, env=lost)
        self.assertEqual(run.status, 1, run)
        self.assertIn("if it is CUDA0, --device CUDA1,CUDA2 leaves that out", run.err)

    def test_detect(self):
        for options, saw in (((), "CUDA0"), (("--device", "cuda1"), "CUDA1")):
            self.n_runs += 1
            env = self.environment_of(ALL, None)
            run = self.look(self.run_program([FAKE, "detect", self.path("v0"), "--detector", harness.detector_file(), *options],
                                             env=env), env)
            self.assertEqual((run.status, run.processes), (0, [([saw], [saw])]), run)


if __name__ == "__main__":
    test_devices.main()
