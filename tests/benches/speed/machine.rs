//! Where and when it was measured.

use serde_json::{Value, json};

/// Processor, cores, kernel, date: absolute times hold for these alone.
pub fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model
        .and_then(|rest| rest.split_once(':'))
        .map_or("unknown", |(_, m)| m.trim());
    let kernel = read("/proc/sys/kernel/osrelease");
    json!({
        "date": today(),
        "processor": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": kernel.trim(),
    })
}

/// In one line.
pub fn line(machine: &Value) -> String {
    let word = |key: &str| machine[key].as_str().unwrap_or("?").to_owned();
    format!(
        "{}, {} cores, Linux {}, {}",
        word("processor"),
        machine["cores"],
        word("kernel"),
        word("date")
    )
}

fn today() -> String {
    let output = std::process::Command::new("date").arg("+%F").output();
    output.map_or_else(
        |_| "unknown".into(),
        |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
    )
}
