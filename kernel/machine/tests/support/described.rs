use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use machine::device_tree::{self, Conduit, Cpu, EnableMethod, Path};
use machine::regions::PhysRegion;
use serde_json::{Value, json};

fn region(region: Option<PhysRegion>) -> Value {
    region.map_or(Value::Null, |region| json!([region.start, region.end]))
}

fn method(cpu: Cpu) -> Value {
    match cpu.method {
        Some(EnableMethod::Psci) => json!("psci"),
        Some(EnableMethod::SpinTable(release)) => json!(release),
        None => Value::Null,
    }
}

fn path(path: &Path<'_>) -> String {
    let names: Vec<&str> = path.nodes().skip(1).map(|node| node.name()).collect();
    format!("/{}", names.join("/"))
}

/// # Errors
/// Why the kernel refuses it.
pub fn described(blob: &[u8]) -> Result<Value, String> {
    let machine = device_tree::read(blob, 0, usize::MAX).map_err(|error| error.to_string())?;
    let tree = Fdt::new(blob).map_err(|error| error.to_string())?;
    let stdout = device_tree::stdout(tree);
    let memory = machine.memory.iter().map(|bank| region(Some(*bank)));
    let reserved = machine
        .reserved
        .iter()
        .map(|reserved| json!([reserved.region.start, reserved.region.end, reserved.no_map]));
    Ok(json!({
        "memory": memory.collect::<Vec<_>>(),
        "reserved": reserved.collect::<Vec<_>>(),
        "initrd": region(machine.initrd),
        "bootargs": machine.bootargs,
        "stdout": stdout.as_ref().map(path),
        "stdout_registers": region(stdout.as_ref().and_then(Path::registers)),
        "console": machine.console.map(|console| {
            json!([console.registers.start, console.registers.end, console.uart.model.name])
        }),
        "pl031": region(machine.rtc),
        "ecam": region(machine.ecam),
        "cpus": machine.cpus().map(|cpu| json!([cpu.mpidr, method(cpu)])).collect::<Vec<_>>(),
        "psci": machine.psci.map(|conduit| match conduit {
            Conduit::Hvc => "hvc",
            Conduit::Smc => "smc",
        }),
    }))
}
