//! `[metrics]` and `[hooks]`: who else hears of what the daemon sees.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::At;
use super::problem::shown;
use super::reader::{Reader, Refusal, meant, time_span, wrong};

/// What examples have.
const USUAL_PORT: u16 = 9477;

/// Where HTTP is served: metrics, health and the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Its address and port.
    pub listen: At<SocketAddr>,
}

/// Programs that hear of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Run at each change of an uplink's state; an absolute path.
    pub on_change: At<PathBuf>,
    /// How long it may take before it is killed, 100 ms to 5 min.
    pub timeout: Duration,
}

/// Off unless the file has the table.
pub(super) fn metrics(top: &mut Reader<'_, '_>) -> Option<Metrics> {
    let mut table = top.table("metrics", "[metrics]")?;
    let allowed = "an address with a port, such as \"127.0.0.1:9477\" or \"[::1]:9477\"";
    let listen = table.parsed("listen", allowed, address);
    if listen.is_none() && !table.has("listen") {
        let help = format!("add `listen`: {allowed}");
        table.missing(&["listen"], "[metrics] without `listen`", help);
    }
    table.finish();
    Some(Metrics { listen: listen? })
}

fn address(text: &str) -> Result<SocketAddr, Refusal> {
    let address: SocketAddr = text.parse().map_err(|_| no_address(text))?;
    match address.port() {
        0 => Err(wrong("has port 0")),
        _ => Ok(address),
    }
}

fn no_address(text: &str) -> Refusal {
    const WHAT: &str = "is not an address with a port";
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let with_port = SocketAddr::new(address, USUAL_PORT);
        return meant(
            format!("{WHAT}: the port is missing"),
            shown(&with_port.to_string()),
        );
    }
    let port = text.strip_prefix("localhost").unwrap_or(text);
    let port = port.strip_prefix(':').unwrap_or(port).parse::<u16>();
    match port.ok().filter(|port| *port > 0) {
        Some(port) => meant(
            format!("{WHAT}: the address is missing"),
            shown(&format!("127.0.0.1:{port}")),
        ),
        None => wrong(WHAT),
    }
}

/// Off unless the file has the table.
pub(super) fn hooks(top: &mut Reader<'_, '_>) -> Option<Hooks> {
    let mut table = top.table("hooks", "[hooks]")?;
    let allowed = "the absolute path of a program, such as \"/etc/uplink/hook\"";
    let on_change = table.parsed("on_change", allowed, program);
    if on_change.is_none() && !table.has("on_change") {
        let help = format!("add `on_change`: {allowed}");
        table.missing(&["on_change"], "[hooks] without `on_change`", help);
    }
    let range = Duration::from_millis(100)..=Duration::from_secs(300);
    let timeout = table.parsed("timeout", "100ms to 5min, such as \"10s\"", |text| {
        time_span(text, &range)
    });
    table.finish();
    Some(Hooks {
        on_change: on_change?,
        timeout: timeout.map_or(Duration::from_secs(10), |t| t.value),
    })
}

fn program(text: &str) -> Result<PathBuf, Refusal> {
    match text {
        _ if !text.starts_with('/') => Err(wrong("is not an absolute path")),
        _ if text.contains('\0') => Err(wrong("contains a NUL byte")),
        _ => Ok(text.into()),
    }
}
