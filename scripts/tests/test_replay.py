"""The host's reader of traces, and what it makes of the kernel's account."""

import gzip
import json
import random
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from lib import replay, replay_trace
from lib.replay_trace import HEADER, PAGE, Refused, Trace, need, parse
from tests.make_trace import make

TRACES = Path(__file__).resolve().parents[1] / "traces"


def trace(*lines: str) -> Trace:
    return parse("".join(line + "\n" for line in (HEADER, *lines)).encode())


class TheReader(unittest.TestCase):
    def test_every_malformed_trace_is_refused_with_its_line_and_the_reason(self) -> None:
        files = sorted((TRACES / "refused").glob("*.csv"))
        self.assertGreaterEqual(len(files), 30)
        for path in files:
            with self.subTest(path.stem), self.assertRaises(Refused) as refused:
                parse(path.read_bytes())
            self.assertEqual(str(refused.exception), path.with_suffix(".txt").read_text().rstrip("\n"), path.stem)

    def test_a_number_has_digits_and_nothing_else_and_any_number_of_zeros_in_front(self) -> None:
        for text, value in ((b"0", 0), (b"0" * 5000, 0), (b"0" * 5000 + b"7", 7), (b"18446744073709551615", (1 << 64) - 1)):
            self.assertEqual(replay_trace.number("id", text), value)
        for text in (b"", b"+1", b"-1", b" 1", b"1 ", b"1_0", b"0x1", b"1.0", "٣".encode(), b"18446744073709551616", b"0" * 5000 + b"18446744073709551616", b"9" * 5000):
            with self.subTest(text[:30]), self.assertRaisesRegex(Refused, r"^id: expected a number below 2\^64, found `"):
                replay_trace.number("id", text)

    def test_a_text_that_is_too_long_is_refused_before_it_is_all_unpacked(self) -> None:
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(replay_trace, "MAX_TEXT", 1 << 20):
            path = Path(folder) / "trace.csv.gz"
            path.write_bytes(gzip.compress(bytes(1 << 20)))
            self.assertEqual(len(replay_trace.read(path)), 1 << 20)
            path.write_bytes(gzip.compress(bytes((1 << 20) + 1)))
            with self.assertRaisesRegex(Refused, "more than 1 MiB of text"):
                replay_trace.read(path)

    def test_the_boot_of_linux_is_as_its_readme_says(self) -> None:
        boot = parse(replay_trace.read(TRACES / "linux-7.2-boot.csv.gz"))
        self.assertEqual((len(boot.events), len(boot.areas), boot.nr_cpus, boot.nr_skipped), (8081, 3171, 4, 0))
        calls = boot.calls()
        self.assertEqual(sum(nr for (op, _), nr in calls.items() if op == "alloc"), 3171)
        self.assertEqual(sum(nr for (op, _), nr in calls.items() if op == "free"), 1737)
        self.assertEqual(calls["purge", "unmap_aliases"], 3173)
        self.assertEqual(calls["alloc", "module"], calls["protect", "module"])
        peak = need(boot, 1)
        self.assertEqual((peak.peak_areas, peak.peak_bytes, peak.peak_ram), (1434, 344_666_112, 59_535_360))

    def test_a_guard_page_is_no_part_of_an_area_where_the_size_has_one(self) -> None:
        areas = trace("1,0,alloc,1,20480,32768,stack", "2,0,alloc,2,20480,4096,percpu").areas
        self.assertEqual([area.size for area in areas], [16384, 20480])

    def test_blocks_are_left_out_beside_calls_and_kept_without(self) -> None:
        block = ("1,0,alloc,1,4194304,4194304,vmap_block", "2,0,free,1,4194304,4194304,vmap_block")
        self.assertEqual(len(trace(*block).events), 2)
        beside = trace(*block, "3,0,alloc,2,8192,1,vm_map_ram")
        self.assertEqual((len(beside.events), beside.nr_skipped), (1, 2))

    def test_several_cpus_may_hold_what_one_does_not(self) -> None:
        rows = []
        for number in range(1, 1001):
            rows += [f"{2 * number},0,alloc,{number},1052672,1,vmalloc", f"{2 * number + 1},1,free,{number},1052672,1,vmalloc"]
        many = trace(*rows)
        self.assertEqual(need(many, 1).peak_ram, 1 << 20)
        more = need(many, 2).free_ram - need(many, 1).free_ram
        self.assertGreaterEqual(more, (replay_trace.WINDOW // 2 - 1) << 20)
        self.assertLess(more, replay_trace.WINDOW << 20)

    def test_what_is_cut_off_of_a_gzip_file_is_told(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.csv.gz"
            path.write_bytes(gzip.compress(f"{HEADER}\n".encode()))
            self.assertEqual(parse(replay_trace.read(path)).events, [])
            path.write_bytes(path.read_bytes()[:-6])
            with self.assertRaisesRegex(Refused, "not a whole gzip file"):
                replay_trace.read(path)


class TheGenerator(unittest.TestCase):
    def test_the_same_seed_makes_the_same_trace_and_another_another(self) -> None:
        one, same, other = (list(make(seed, 500, 60, 20)) for seed in (1, 1, 2))
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)

    def test_a_trace_is_as_large_as_asked_and_has_every_kind(self) -> None:
        made = parse("".join(line + "\n" for line in make(3, 20_000, 2_400, 770)).encode())
        self.assertEqual(len(made.pre) + len(made.events) + made.nr_skipped, 20_000)
        self.assertGreater(made.nr_skipped, 0)
        found = need(made, 1)
        self.assertAlmostEqual(found.peak_areas, 2_400, delta=120)
        self.assertAlmostEqual(found.peak_bytes / (1 << 20), 770, delta=160)
        kinds = {area.kind for area in made.areas}
        self.assertEqual(kinds, set(replay_trace.KINDS) - set(replay_trace.BEHIND_CALLS))

    def test_no_order_that_the_window_allows_holds_more_than_is_asked_for(self) -> None:
        made = parse("".join(line + "\n" for line in make(4, 3_000, 200, 40)).encode())
        bound = replay_trace.most_ram(made, replay_trace.WINDOW)
        rng = random.Random(5)
        for _ in range(5):
            self.assertLessEqual(most_held(made, rng), bound)


def most_held(made: Trace, rng: random.Random) -> int:
    """Performs a trace in some order that its CPUs might take."""
    waiting = list(enumerate(made.events))
    there = {area.id for area in made.pre}
    held = most = sum(area.ram for area in made.pre)
    while waiting:
        low = waiting[0][0]
        ready = [
            at
            for at, (index, event) in enumerate(waiting[: replay_trace.WINDOW])
            if index < low + replay_trace.WINDOW and (event.op != "free" or (event.area and event.area.id in there))
        ]
        _, event = waiting.pop(max(rng.choice(ready) for _ in range(2)))
        if event.area:
            if event.op == "alloc":
                there.add(event.area.id)
            held += event.area.ram if event.op == "alloc" else -event.area.ram
        most = max(most, held)
    return most


ROWS = ("1,0,alloc,1,20480,1,module", "2,0,free,1,20480,1,module", "3,0,purge,0,0,0,drain")


def account(**changes: object) -> list[str]:
    """What a kernel prints that has performed ROWS."""
    found = need(trace(*ROWS), 1)
    told = {
        "machine": {"cpus": 1, "instructions": True},
        "trace": {"needs": found.free_ram, "peak_areas": 1, "peak_bytes": 16384, "peak_ram": 16384, "skipped": 0},
        "peak": dict.fromkeys(("live_areas", "live_bytes", "lazy_areas", "lazy_bytes", "ram_bytes", "tables"), 7),
        "verified": dict.fromkeys(("pages", "code_pages", "device_pages", "guards", "gone"), 9),
        "failures": 0,
    } | changes
    instructions = {"median": 10, "p99": 20, "max": 30, "total": 4000}
    rows = [("alloc", "module", 1), ("protect", "module", 1), ("free", "module", 1), ("purge", "drain", 1)]
    lines = [
        json.dumps({"op": op, "kind": kind, "count": nr, "instructions": instructions, "tlbi": 1, "dsb": 2, "isb": 3}) for op, kind, nr in rows
    ]
    lines += [json.dumps({part: value}) for part, value in told.items() if value is not None]
    return ["vmwalk: entered at EL1", *(f"replay {line}" for line in lines), "vmwalk: done"]


class TheAccount(unittest.TestCase):
    def test_a_whole_account_becomes_a_table(self) -> None:
        run = replay.parse(account())
        rows = trace(*ROWS)
        replay.check(run, rows, need(rows, 1))
        text = "\n".join(replay.table(run))
        self.assertIn("16,000", text, "the instructions of all four calls")
        self.assertRegex(text, r"free +module +1 +10 +20 +30 +4,000 +1 +2 +3")

    def test_an_account_without_its_end_is_refused(self) -> None:
        for part in ("failures", "verified", "machine"):
            with self.subTest(part), self.assertRaisesRegex(replay.BadOutput, "not complete"):
                replay.parse(account(**{part: None}))

    def test_a_line_that_is_none_is_refused(self) -> None:
        for line in ("replay {", 'replay {"op": "alloc"}', 'replay {"unheard": 1}'):
            with self.subTest(line), self.assertRaises(replay.BadOutput):
                replay.parse([*account(), line])

    def test_an_event_that_the_kernel_left_out_is_noticed(self) -> None:
        rows = trace(*ROWS, "4,0,purge,0,0,0,drain")
        with self.assertRaisesRegex(replay.BadOutput, "purge drain: 1 of 2"):
            replay.check(replay.parse(account()), rows, need(rows, 1))

    def test_another_need_than_the_hosts_is_noticed(self) -> None:
        rows = trace(*ROWS)
        told = json.loads(account()[-5].removeprefix("replay "))["trace"] | {"needs": 1}
        with self.assertRaisesRegex(replay.BadOutput, "needs"):
            replay.check(replay.parse(account(trace=told)), rows, need(rows, 1))

    def test_failures_are_kept_with_their_words(self) -> None:
        run = replay.parse([*account(failures=None), 'replay {"failure":"line 3: stack 1: lost"}', 'replay {"failures":1}'])
        self.assertEqual((run["failures"], run["nr_failures"]), (["line 3: stack 1: lost"], 1))


if __name__ == "__main__":
    unittest.main()
