"""The bench's reading, merging and judging: what is not there must not look like a figure."""

import json
import re
import socket
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any

from lib import bench, bench_breakdown, bench_text, stages
from lib.bench_boot import Failed
from lib.cases import Finished

MACHINE = 'bench {"machine":{"midr":1,"tlbi_range":true,"zva":64,"empty_pair":2}}'


def line(case: str, op: str, instructions: int, walker: str = "vmwalk", **more: Any) -> str:
    return bench.MARK + json.dumps({"case": case, "walker": walker, "op": op, "instructions": instructions, **more})


def counted(case: str, op: str, instructions: int) -> str:
    return line(case, op, instructions, loads=6, stores=2, allocated=1, freed=2, tlbi=3, dsb=4, isb=5)


def made(*lines: str, linux: dict[str, dict[str, bench.Json]] | None = None) -> bench.Json:
    return bench.document(bench.parse([MACHINE, *lines]), linux or {}, {"cpu": "max"})


class Reading(unittest.TestCase):
    def test_other_lines_of_the_console_are_passed_over(self) -> None:
        output = bench.parse(["vmwalk: hello", MACHINE, line("a", "map", 7), "vmwalk: done"])
        self.assertEqual(output.cases["a"]["vmwalk"]["map"]["instructions"], 7)

    def test_a_broken_line_is_an_error_that_shows_it(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "'bench .*expected JSON"):
            bench.parse([MACHINE, 'bench {"case":'])

    def test_a_line_without_instructions_is_an_error(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "not understood"):
            bench.parse([MACHINE, 'bench {"case":"a","walker":"vmwalk","op":"map"}'])

    def test_an_unknown_operation_is_an_error(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "not understood"):
            bench.parse([MACHINE, line("a", "remap", 1)])

    def test_the_same_operation_twice_is_an_error(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "measured twice"):
            bench.parse([MACHINE, line("a", "map", 1), line("a", "map", 1)])

    def test_output_without_its_machine_is_an_error(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "what it measures with"):
            bench.parse([line("a", "map", 1)])

    def test_a_case_that_only_peers_ran_is_an_error(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "a: vmwalk itself is missing"):
            bench.parse([MACHINE, line("a", "map", 1, walker="rewalk")])


class Merging(unittest.TestCase):
    def test_a_case_has_the_form_that_was_agreed(self) -> None:
        linux = {"linux-7.3": {"a": {"map": 390, "unmap": 219, "lazy": 30}}}
        document = made(counted("a", "map", 100), line("a", "map", 300, walker="rewalk"), linux=linux)
        (case,) = document["cases"]
        self.assertEqual(case["map"], {"instructions": 100, "loads": 6, "stores": 2, "tables": 3, "tlbi": 3, "dsb": 4, "isb": 5})
        self.assertEqual(case["peers"]["linux-7.3"]["map"], 390)
        self.assertEqual(case["peers"]["rewalk"]["map"], 300)

    def test_curves_keep_their_points_in_order(self) -> None:
        document = made('bench {"curve":"live areas","x":0,"y":5}', 'bench {"curve":"live areas","x":100,"y":6}')
        self.assertEqual(document["curves"], {"live areas": [[0, 5], [100, 6]]})

    def test_every_committed_table_of_linux_is_read(self) -> None:
        linux = bench.read_linux()
        self.assertEqual(linux["linux-7.3"]["range 4K, 4K pa"], {"map": 390, "unmap": 219, "lazy": 30, "tlb_entries": 1})
        self.assertEqual(linux["linux-7.3"]["range 64K, 64K pa"]["tlb_entries"], 1)
        self.assertEqual(linux["linux-7.3"]["vmap 25600, order 9"]["tlb_entries"], 25_600)
        self.assertEqual(linux["linux-7.3-series"]["vmap 25600, order 9"]["tlb_entries"], 50)
        self.assertEqual(linux["linux-7.3-series"]["vmap 25600, order 9"]["map"], 188_496)
        self.assertEqual(linux["linux-7.3"]["test_vmalloc long_busy_list_alloc, 101 pages"], {"loop": 43_937})
        self.assertEqual(linux["linux-7.3"]["test_vmalloc fix_size_alloc, 256 pages, huge"], {"loop": 63_189})

    def test_a_contiguous_group_is_one_tlb_entry_on_either_side(self) -> None:
        self.assertEqual(bench.tlb_entries("3x4K 16x64K 2x2M"), 21)
        self.assertEqual(bench.linux_entries("pud=1 pmd=2 contpte=48 pte=4 none=9"), {"tlb_entries": 10})
        self.assertEqual(bench.linux_entries("32xcont 1x2M"), {"tlb_entries": 3})
        self.assertEqual(bench.linux_entries(""), {})
        document = made(line("a", "map", 1, leaves="3x4K 16x64K"), line("b", "map", 1))
        self.assertEqual([case.get("tlb_entries") for case in document["cases"]], [19, None])

    def test_the_advantage_is_the_geometric_mean_and_names_what_is_dearer(self) -> None:
        linux = {"linux-7.3": {"a": {"map": 800, "unmap": 200}, "b": {"map": 50}}}
        document = made(line("a", "map", 100), line("a", "unmap", 100), line("b", "map", 100), linux=linux)
        mean, nr, slower = bench.advantage(document["cases"], "linux-7.3")
        self.assertAlmostEqual(mean, 2.0)
        self.assertEqual((nr, slower), (2, ["b (map: 100 > 50)"]))

    def test_a_peer_that_did_only_a_part_counts_for_no_advantage(self) -> None:
        document = made(line("a", "map", 100), line("a", "map", 300, walker="rewalk", note="the walk alone"))
        self.assertEqual(bench.advantage(document["cases"], "rewalk")[1], 0)

    def test_loops_have_an_advantage_of_their_own(self) -> None:
        linux = {"linux-7.3": {"a": {"loop": 600}, "b": {"map": 10}}}
        document = made(line("a", "loop", 200, steady=180), line("b", "map", 10), linux=linux)
        self.assertEqual([case["case"] for case in document["cases"]], ["b"])
        self.assertEqual(document["loops"][0]["loop"], {"instructions": 200, "steady": 180})
        mean, nr, slower = bench.advantage(document["loops"], "linux-7.3", ("loop",))
        self.assertAlmostEqual(mean, 3.0)
        self.assertEqual((nr, slower), (1, []))
        self.assertEqual(bench.advantage(document["cases"], "linux-7.3")[1], 1)

    def test_a_case_of_linux_that_did_not_run_is_named(self) -> None:
        names = [name for rows in bench.read_linux().values() for name in rows]
        document = made(*(line(name, "map", 1) for name in dict.fromkeys(names) if name != "vm_map_ram 16"))
        self.assertEqual(set(bench.unmatched(document)), {"vm_map_ram 16"})


class OtherMachines(unittest.TestCase):
    def test_are_told_apart_by_cpu_and_build(self) -> None:
        mine = {"cpu": "max", "build": "release", "midr": 1}
        self.assertEqual(bench.unlike(mine, {**mine, "midr": 2}), [])
        self.assertEqual(bench.unlike(mine, {**mine, "cpu": "cortex-a53"}), ["cpu is 'cortex-a53', not 'max'"])
        self.assertEqual(bench.unlike(mine, {**mine, "build": "dev"}), ["build is 'dev', not 'release'"])
        # A file of before it was said.
        self.assertEqual(bench.unlike({"cpu": "max"}, mine), [])


class ADocument(unittest.TestCase):
    def read(self, text: str) -> bench.Json:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.json"
            path.write_text(text)
            return bench.read_document(path)

    def test_that_was_written_is_read(self) -> None:
        document = made(counted("a", "map", 7), line("b", "loop", 5))
        self.assertEqual(self.read(json.dumps(document)), document)
        self.assertEqual(self.read(json.dumps(bench.baseline(document))), bench.baseline(document))

    def test_that_is_none_is_refused_with_the_place(self) -> None:
        whole = '{"machine":{},"cases":[{"case":"a","map":{"instructions":5}},%s]}'
        for text, message in (
            ("", r"bench.json: expected JSON, at line 1, column 1"),
            ("# a\n\n{", r"expected JSON, at line 1, column 1"),
            ('{\n "machine": {},\n 7}', r"expected JSON, at line 3, column 2"),
            ("[]", r"expected an object, found \[\]"),
            ("null", r"expected an object, found nothing"),
            ("{}", r"machine: expected an object, found nothing"),
            ('{"machine":{}}', r"cases: expected an array, found nothing"),
            (whole % "7", r"cases\[1\]: expected an object, found 7"),
            (whole % "{}", r"cases\[1\]: case: expected printable text, found nothing"),
            (whole % '{"case":"b"}', r"cases\[1\]: expected one of map, unmap"),
            (whole % '{"case":"b","map":{}}', r"cases\[1\]: map: instructions: expected a whole number from 0x0 .*, found nothing"),
            (whole % '{"case":"b","map":{"instructions":"5"}}', r'instructions: expected a whole number .*, found "5"'),
            (whole % '{"case":"b","map":{"instructions":1e3}}', r"instructions: expected a whole number .*, found 1000.0"),
            (whole % '{"case":"b","map":{"instructions":-1}}', r"instructions: expected a whole number .*, found -1"),
            (whole % '{"case":"b","map":{"instructions":true}}', r"instructions: expected a whole number .*, found true"),
            (whole % '{"case":"b","map":{"instructions":NaN}}', r"expected JSON: NaN is no number"),
            ("[" * 100_000, r"expected JSON"),
        ):
            with self.subTest(text[:60]), self.assertRaisesRegex(bench.BadOutput, message):
                self.read(text)


class SeveralCpus(unittest.TestCase):
    @staticmethod
    def record(cpus: int, waits: int, **more: Any) -> str:
        return bench.MARK + json.dumps({"work": "cpus: w", "cpus": cpus, "operations": 1000 * cpus, "waits": waits, **more})

    def test_a_cpu_that_took_no_part_is_an_error(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "3 of 4 CPUs took part"):
            bench.parse_work([self.record(3, 0)], 4)

    def test_one_cpu_alone_that_waits_is_an_error(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "waited 7 times"):
            bench.parse_work([self.record(1, 7)], 1)

    def test_what_is_no_work_is_an_error(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "not understood"):
            bench.parse_work([MACHINE], 1)

    def test_the_table_has_operations_per_million_instructions_and_waits_both_ways(self) -> None:
        turns = [bench.parse_work([self.record(nr, 3 * (nr - 1), instructions=2_000_000 * nr)], nr)[0] for nr in (1, 2)]
        once = [bench.parse_work([self.record(nr, 500 * (nr - 1))], nr)[0] for nr in (1, 2)]
        text = bench_text.cpus({"cpus": {"in turn": turns, "at once": once}})
        self.assertRegex(text[1], r"operations per million instructions +500 +500$")
        self.assertRegex(text[2], r"CPUs in turn +0 +1$")
        self.assertRegex(text[3], r"CPUs at once +0 +250$")


class Growing(unittest.TestCase):
    @staticmethod
    def steep(name: str, *points: tuple[int, int]) -> list[str]:
        return bench.too_steep({"curves": {name: [list(point) for point in points]}})

    def test_logarithmic_growth_is_allowed(self) -> None:
        self.assertEqual(self.steep("w, by live areas", (0, 5), (100, 200), (1_000, 300), (100_000, 500)), [])

    def test_more_than_that_is_not(self) -> None:
        (complaint,) = self.steep("w, by live areas", (0, 5), (100, 200), (1_000, 300), (100_000, 900))
        self.assertIn("900 at 100,000", complaint)

    def test_a_page_of_a_larger_mapping_is_no_dearer(self) -> None:
        self.assertEqual(self.steep("w, per 1,000 pages", (1, 900), (4, 400), (16, 410)), [])
        self.assertEqual(len(self.steep("w, per 1,000 pages", (1, 900), (4, 400), (16, 450))), 1)

    def test_other_curves_may_be_of_any_form(self) -> None:
        self.assertEqual(self.steep("KiB lazy", (0, 0), (100, 30_000), (200, 10)), [])


class BreakingDown(unittest.TestCase):
    WINDOW = bench_breakdown.Window(3, [0x10, 0x14, 0x10])
    PLACE = bench_breakdown.Place
    FUNCTIONS = {0x10: PLACE("a::inner", "a::outer", "f.rs:1"), 0x14: PLACE("a::outer", "a::outer", "f.rs:2")}

    def test_every_instruction_is_attributed_once(self) -> None:
        text = bench_breakdown.table("case, map", self.WINDOW, 3, self.FUNCTIONS)
        self.assertIn("3 instructions", text[0])
        self.assertRegex(text[1], r"^ +3 100\.0%  a::outer$")
        self.assertRegex(text[2], r"^ +2 +66\.7% +a::inner$")
        self.assertRegex(text[3], r"^ +1 +33\.3% +itself$")

    def test_a_log_that_is_not_what_was_counted_is_refused(self) -> None:
        with self.assertRaisesRegex(Failed, "3 instructions are in the log, and 4 were counted"):
            bench_breakdown.table("case, map", bench_breakdown.Window(4, [1, 2, 3]), 4, {})

    def test_an_instruction_that_was_entered_and_not_executed_is_none(self) -> None:
        lines = [
            "Trace 0: 0x7f00 [00000000/ffffffff80000010/00000000/ff000000] f\n",
            "Trace 0: 0x7f40 [00000000/ffffffff80000014/00000000/ff000000] f\n",
            "Stopped execution of TB chain before 0x7f40 [ffffffff80000014] f\n",
            "Trace 0: 0x7f40 [00000000/ffffffff80000014/00000000/ff000000] f\n",
        ]
        self.assertEqual(bench_breakdown.logged(lines), [0xFFFF_FFFF_8000_0010, 0xFFFF_FFFF_8000_0014])

    def test_paths_lose_their_type_arguments(self) -> None:
        self.assertEqual(bench_breakdown.short("a::b<c<d>, e>::{impl#0}::f<g>"), "a::b::{impl#0}::f")
        self.assertEqual(bench_breakdown.short("a::b<fn(c) -> d>::e"), "a::b::e")

    def test_what_is_called_of_the_library_is_its_caller_s(self) -> None:
        self.assertEqual(bench_breakdown.innermost(["core::ptr::read", "a::b", "a::c"]), "a::b")
        self.assertEqual(bench_breakdown.innermost(["core::ptr::drop_in_place"]), "core::ptr::drop_in_place")


class TheStub(unittest.TestCase):
    """The emulator's debugger stub is played by a thread, which knows some commands of the monitor."""

    def commands(self, known: tuple[str, ...]) -> tuple[list[str], str]:
        """What one is asked for to run one instruction at a time, and what came of it."""
        asked: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stub"
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(path))
            server.listen()

            def serve() -> None:
                connection = server.accept()[0]
                data = b""
                while more := connection.recv(4096):
                    data += more
                    while found := re.search(rb"\$([^#]*)#..", data):
                        data = data[found.end() :]
                        answers = [b"l"]
                        if found[1].startswith(b"qRcmd,"):
                            command = bytes.fromhex(found[1][6:].decode()).decode()
                            asked.append(command)
                            answers = [b"OK"] if command in known else [b"O" + f"unknown command: '{command}'\r\n".encode().hex().encode(), b"OK"]
                        for answer in answers:
                            connection.sendall(b"$" + answer + b"#" + f"{sum(answer) % 256:02x}".encode())
                connection.close()

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                stub = bench_breakdown.Stub(path)
                try:
                    stub.one_instruction_at_a_time("on")
                    outcome = "done"
                except Failed as failed:
                    outcome = str(failed)
                stub._socket.close()
            finally:
                thread.join()
                server.close()
        return asked, outcome

    def test_is_asked_by_the_name_that_its_emulator_has(self) -> None:
        new, old = "one-insn-per-tb on", "singlestep on"
        self.assertEqual(self.commands((new,)), ([new], "done"))
        self.assertEqual(self.commands((new, old)), ([new], "done"))
        self.assertEqual(self.commands((old,)), ([new, old], "done"))

    def test_that_knows_neither_name_is_a_failure_that_says_so(self) -> None:
        self.assertEqual(self.commands(())[1], "the emulator's monitor, asked for 'singlestep on': unknown command: 'singlestep on'")


class Judging(unittest.TestCase):
    def test_two_percent_is_allowed_and_more_is_not(self) -> None:
        base = made(line("a", "map", 100), line("b", "map", 100))
        new = made(line("a", "map", 102), line("b", "map", 103))
        self.assertEqual([change.case for change in bench.regressions(base, new, 2.0)], ["b"])

    def test_what_became_cheaper_is_no_regression(self) -> None:
        self.assertEqual(bench.regressions(made(line("a", "map", 100)), made(line("a", "map", 1)), 2.0), [])

    def test_another_build_may_take_other_instructions_and_no_other_accesses(self) -> None:
        release = made(counted("a", "map", 100), counted("a", "unmap", 90))
        self.assertEqual(bench.other_accesses(release, made(counted("a", "map", 900), counted("a", "unmap", 800))), [])
        more = {"allocated": 1, "freed": 2, "tlbi": 3, "dsb": 4, "isb": 5}
        debug = made(line("a", "map", 1, loads=7, stores=2, leaves="1x4K", **more), line("a", "unmap", 1, loads=6, stores=1, **more))
        self.assertEqual(
            bench.other_accesses(release, debug),
            ["a: leaves None, then 1x4K", "a (map): loads 6, then 7", "a (unmap): stores 2, then 1"],
        )
        self.assertEqual(bench.other_accesses(release, made(counted("b", "map", 1))), ["a did not run"])

    def test_an_operation_that_disappeared_is_missed(self) -> None:
        base = made(line("a", "map", 100), line("a", "unmap", 100), line("b", "map", 1))
        new = made(line("a", "map", 100), line("c", "map", 1))
        self.assertEqual(bench.missing(base, new), ["a (unmap)", "b (map)"])

    def test_a_baseline_judges_as_the_document_that_it_was_made_of(self) -> None:
        document = made(counted("a", "map", 100), counted("a", "lazy", 50))
        base = bench.baseline(document)
        self.assertEqual(bench.changes(base, document), bench.changes(document, document))
        self.assertEqual(len(bench.changes(base, document)), 2)


    def test_a_baseline_takes_new_cases_and_keeps_its_figures(self) -> None:
        base = bench.baseline(made(line("a", "map", 100), line("gone", "map", 5)))
        grown = bench.extended(base, made(line("b", "map", 7), line("a", "map", 90)))
        figures = [(case["case"], case["map"]["instructions"]) for case in grown["cases"]]
        self.assertEqual(figures, [("b", 7), ("a", 100), ("gone", 5)])


class Showing(unittest.TestCase):
    def setUp(self) -> None:
        linux = {"linux-7.3": {"a & b": {"map": 390, "unmap": 219, "tlb_entries": 256}}}
        self.document = made(
            counted("a & b", "map", 100),
            counted("a & b", "unmap", 90),
            line("a & b", "map", 300, walker="rewalk", note="the walk alone"),
            'bench {"curve":"pages < 10","x":1,"y":100}',
            'bench {"curve":"pages < 10","x":10,"y":200}',
            linux=linux,
        )

    def test_the_table_is_aligned_and_has_every_peer(self) -> None:
        text = bench_text.table(self.document)
        self.assertIn("390 / 219", text[1])
        self.assertIn("100 / 90", text[1])
        self.assertEqual(text[0].index("Linux 7.3") + len("Linux 7.3"), text[1].index("390 / 219") + len("390 / 219"))
        self.assertIn("* the walk alone", text)
        self.assertRegex(text[1], r"100 / 90 +- +- +256 +-$")

    def test_figures_of_another_build_are_marked(self) -> None:
        self.assertNotIn("build", "\n".join(bench_text.table(self.document)))
        self.document["machine"]["build"] = "dev"
        self.assertIn("of a dev build: these are not the figures of the release kernel", bench_text.table(self.document)[0])

    def test_the_difference_shows_what_changed_and_counts_the_rest(self) -> None:
        new = made(counted("a & b", "map", 50), counted("a & b", "unmap", 90))
        text = bench_text.difference(bench.changes(self.document, new))
        self.assertRegex(text[1], r"a & b +map +100 +50 +-50\.0%")
        self.assertEqual(text[-1], "1 of 2 operations cost the same")


class Counting(unittest.TestCase):
    """What the stage of `make test` makes of the script's output."""

    def outcome(self, text: str, status: int) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            log.write_text(text)
            return stages.count_closing(Finished(status, 1.0, log), "bench")

    def test_the_closing_line_is_counted(self) -> None:
        outcome = self.outcome("some table\nbench: 130 passed, 0 failed\n", 0)
        self.assertEqual((outcome.passed, outcome.failed), (130, 0))

    def test_a_regression_is_a_failure(self) -> None:
        outcome = self.outcome("bench: FAIL: a (map) became 3.0% dearer: 100 -> 103\nbench: 129 passed, 1 failed\n", 1)
        self.assertEqual((outcome.passed, outcome.failed), (129, 1))

    def test_an_end_without_a_closing_line_is_a_failure(self) -> None:
        outcome = self.outcome("bench: FAIL: two boots differ: 'a' and then 'b'\n", 1)
        self.assertEqual((outcome.passed, outcome.failed), (0, 1))


class Script(unittest.TestCase):
    def test_a_blank_in_a_glob_reaches_the_kernel_as_what_matches_it(self) -> None:
        from importlib.machinery import SourceFileLoader
        from importlib.util import module_from_spec, spec_from_loader

        path = Path(__file__).resolve().parents[1] / "bench"
        spec = spec_from_loader("bench_script", SourceFileLoader("bench_script", str(path)))
        assert spec and spec.loader
        script = module_from_spec(spec)
        spec.loader.exec_module(script)
        self.assertEqual(script.glob_argument("vmap 25600, order *"), "vmap?25600,?order?*")
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(bench.BadOutput, "none.json: No such file"):
                script.main(["--base", f"{folder}/none.json"])


if __name__ == "__main__":
    unittest.main()
