//! `scripts/tests/read_traces.py` refuses the same traces in the same words, and makes the same of
//! the rest.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::sample::select;
use trace_replay::{HEADER, Machine, Trace};

const MAX_CPUS: u32 = 4096;
const LAZY: u64 = 32 << 20;
const CPUS: u32 = 3;

fn read_here(text: &[u8]) -> String {
    let trace = match Trace::parse(text, MAX_CPUS) {
        Ok(trace) => trace,
        Err(error) => return error.to_string(),
    };
    let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    let need = trace.need(
        lines,
        Machine {
            cpus: CPUS,
            lazy: LAZY,
        },
    );
    format!(
        "{} areas, {} events, {} CPUs, {} skipped; {} {} {} {}",
        trace.areas.len(),
        trace.events.len(),
        trace.nr_cpus,
        trace.nr_skipped,
        need.peak_areas,
        need.peak_bytes,
        need.peak_ram,
        need.free_ram
    )
}

fn read_by_the_host(traces: &[Vec<u8>]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut host = Command::new("python3")
        .args(["-B", "scripts/tests/read_traces.py", &CPUS.to_string()])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut input = Vec::new();
    for trace in traces {
        writeln!(input, "{}", trace.len()).unwrap();
        input.extend_from_slice(trace);
    }
    // The host reads all before it writes.
    host.stdin.take().unwrap().write_all(&input).unwrap();
    let output = host.wait_with_output().unwrap();
    assert!(output.status.success(), "the host's reader: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(String::from).collect()
}

fn digits(least: usize, most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(0u8..10, least..=most)
        .prop_map(|digits| digits.into_iter().map(|digit| char::from(b'0' + digit)).collect())
}

fn number() -> impl Strategy<Value = String> {
    let odd = [
        "", "-1", "+1", " 1", "1 ", "\t1", "1_000", "0x10", "1e3", "1.0", "٣", "１", "-0", "0b1", "1\u{0}",
        "NaN", "inf", "²",
    ];
    let bounds = [
        "0",
        "1",
        "4096",
        "8192",
        "4095",
        "4097",
        "4294967295",
        "4294967296",
        "1099511627776",
        "1099511631872",
        "2199023255552",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999",
        "100000000000000000000",
    ];
    let core = prop_oneof![
        4 => (0u64..40).prop_map(|nr| nr.to_string()),
        4 => (1u64..200).prop_map(|pages| (pages * 4096).to_string()),
        2 => select(bounds.to_vec()).prop_map(String::from),
        2 => select(odd.to_vec()).prop_map(String::from),
        1 => digits(15, 45),
        1 => digits(4_290, 5_010),
    ];
    let zeros = prop_oneof![8 => Just(0usize), 2 => 1usize..30, 1 => 4_290usize..5_010];
    (zeros, core).prop_map(|(zeros, core)| "0".repeat(zeros) + &core)
}

fn likely(right: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop_oneof![12 => right, 1 => number()]
}

fn word(words: &[&'static str]) -> impl Strategy<Value = String> {
    let odd = ["", "Alloc", "alloc ", "frees", "\u{e9}"];
    prop_oneof![30 => select(words.to_vec()), 1 => select(odd.to_vec())].prop_map(String::from)
}

fn row() -> impl Strategy<Value = String> {
    let op = word(&["alloc", "alloc", "free", "pre", "purge"]);
    let kind = word(&[
        "vmalloc",
        "vmap",
        "percpu",
        "stack",
        "ioremap",
        "vm_map_ram",
        "vmap_block",
        "drain",
        "unmap_aliases",
    ]);
    let small = |most: u64| (0..most).prop_map(|nr| nr.to_string());
    let pages = (2u64..300).prop_map(|pages| (pages * 4096).to_string());
    let powers = (0u32..24).prop_map(|shift| (1u64 << shift).to_string());
    let columns = (
        likely(small(1000)),
        likely(small(6)),
        op,
        likely(small(5)),
        likely(pages),
        likely(powers),
        kind,
    );
    let extra = prop_oneof![30 => Just(""), 1 => Just(","), 1 => Just(" "), 1 => Just("\r")];
    (columns, extra).prop_map(|((seq, cpu, op, id, size, align, kind), extra)| {
        format!("{seq},{cpu},{op},{id},{size},{align},{kind}{extra}")
    })
}

fn sound(id: u64, seed: u64) -> String {
    let kinds = ["vmalloc", "vmap", "percpu", "ioremap", "stack"];
    let (kind, size) = (kinds[seed as usize % kinds.len()], (seed % 97 + 2) * 4096);
    let mut text = format!("{seed},{},alloc,{id},{size},1,{kind}", seed % 4);
    if seed.is_multiple_of(3) {
        write!(text, "\n{seed},{},free,{id},{size},1,{kind}", seed % 5).unwrap();
    }
    text
}

fn trace() -> impl Strategy<Value = Vec<u8>> {
    let header = prop_oneof![20 => Just(HEADER), 1 => Just("seq,cpu"), 1 => Just("")];
    let before = prop::collection::vec(any::<u32>(), 0..6);
    let rows = prop::collection::vec(row(), 0..3);
    let end = prop_oneof![20 => Just("\n"), 1 => Just("")];
    (header, before, rows, end).prop_map(|(header, before, rows, end)| {
        let sound = (100..).zip(before).map(|(id, seed)| sound(id, u64::from(seed)));
        let lines: Vec<String> = std::iter::once(header.to_string())
            .chain(sound)
            .chain(rows)
            .collect();
        (lines.join("\n") + end).into_bytes()
    })
}

proptest! {
    // Each case runs the host's reader, on hundreds of traces.
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn generated_traces_are_read_as_the_host_reads_them(traces in prop::collection::vec(trace(), 400)) {
        let theirs = read_by_the_host(&traces);
        prop_assert_eq!(theirs.len(), traces.len());
        for (trace, theirs) in traces.iter().zip(theirs) {
            prop_assert_eq!(read_here(trace), theirs, "{:?}", String::from_utf8_lossy(trace));
        }
    }
}

#[test]
fn any_number_of_zeros_is_part_of_a_number_and_no_other_sign_is() {
    let line = |id: &str, size: &str| format!("{HEADER}\n0,0,alloc,{id},{size},1,vmalloc\n").into_bytes();
    let refused = |field: &str| format!("line 2: id: expected a number below 2^64, found `{field}`");
    let zeros = "0".repeat(5000);
    let traces = [
        line("1", &format!("{zeros}8192")),
        line(&zeros, "8192"),
        line(&"9".repeat(5000), "8192"),
        line("18446744073709551615", "8192"),
        line("18446744073709551616", "8192"),
        line("+1", "8192"),
        line("1_0", "8192"),
    ];
    let read = traces.each_ref().map(|trace| read_here(trace));
    let one = "1 areas, 1 events, 1 CPUs, 0 skipped; 1 4096 4096 ";
    for accepted in [0, 1, 3] {
        assert!(read[accepted].starts_with(one), "{}", read[accepted]);
    }
    assert_eq!(read[2], refused(&format!("{}...", "9".repeat(40))));
    assert_eq!(read[4], refused("18446744073709551616"));
    assert_eq!(read[5], refused("+1"));
    assert_eq!(read[6], refused("1_0"));
    assert_eq!(read_by_the_host(&traces), read);
}
