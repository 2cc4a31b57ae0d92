use kernel::sync::IrqSpinLock;
use kernel::sync::order::{Graph, Violation};

use crate::options::Planted;
use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect_value};

fn wait(graph: &mut Graph, held: &[&'static str], taken: &'static str) -> Result<(), Violation> {
    let mut numbers = [0; 4];
    for (number, name) in numbers.iter_mut().zip(held) {
        *number = graph.class(name)?;
    }
    let taken = graph.class(taken)?;
    graph.wait_for(taken, &numbers[..held.len()])
}

fn expect(what: &'static str, found: Result<(), Violation>, expected: Result<(), Violation>) -> TestResult {
    expect_value(what, u64::from(found == expected), 1)?;
    Ok(())
}

pub fn order_is_checked(ctx: &Context) -> TestResult {
    let graph = &mut Graph::new();
    expect("a before b", wait(graph, &["a"], "b"), Ok(()))?;
    expect("b before c", wait(graph, &["b"], "c"), Ok(()))?;
    expect("a before c, again", wait(graph, &["a", "b"], "c"), Ok(()))?;
    let (held, taken) = ("b", "a");
    expect(
        "b before a",
        wait(graph, &["b"], "a"),
        Err(Violation::Inversion { held, taken }),
    )?;
    let (held, taken) = ("c", "a");
    expect(
        "c before a, by way of b",
        wait(graph, &["c"], "a"),
        Err(Violation::Inversion { held, taken }),
    )?;
    expect(
        "a in itself",
        wait(graph, &["a"], "a"),
        Err(Violation::Recursion { class: "a" }),
    )?;
    expect(
        "what was refused is not remembered",
        wait(graph, &["a"], "c"),
        Ok(()),
    )?;

    let (held, taken) = ("walks", "vmalloc shard");
    expect(
        "areas in a walk",
        wait(graph, &[held], taken),
        Err(Violation::Level { held, taken }),
    )?;
    expect("a walk in areas", wait(graph, &[taken], held), Ok(()))?;
    let (held, taken) = ("frames", "heap");
    expect(
        "the heap in frames",
        wait(graph, &[held], taken),
        Err(Violation::Level { held, taken }),
    )?;
    expect("frames in the heap", wait(graph, &["heap"], "frames"), Ok(()))?;
    expect(
        "the console in anything",
        wait(graph, &["walks", "frames"], "console"),
        Ok(()),
    )?;
    let (shard, common) = ("vmalloc shard", "vmalloc common shard");
    expect("a piece for a CPU", wait(graph, &[shard], common), Ok(()))?;
    expect(
        "a CPU's shard in the common one",
        wait(graph, &[common], shard),
        Err(Violation::Level {
            held: common,
            taken: shard,
        }),
    )?;

    if ctx.planted == Some(Planted::LockOrder) {
        take_both_ways();
    }
    Ok(())
}

fn take_both_ways() {
    let (first, second) = (IrqSpinLock::new("first", ()), IrqSpinLock::new("second", ()));
    {
        let _first = first.lock();
        let _second = second.lock();
    }
    let _second = second.lock();
    let _first = first.lock();
}
