//! A real Prometheus (Debian's) in the router's namespace.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use uplink_lab::Lab;
use uplink_lab::isolate::LAB_DIR;

use super::http;
use crate::support::pause;

const LISTEN: &str = "127.0.0.1:9090";
const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../packaging/prometheus/uplink.rules.yml"
);

/// Runs until dropped. Scrapes every second, and has the alerts.
pub struct Prometheus<'a> {
    lab: &'a Lab,
    child: Child,
}

impl<'a> Prometheus<'a> {
    /// Starts it and waits until it has scraped the daemon a few times.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let dir = PathBuf::from(LAB_DIR).join("prometheus");
        std::fs::create_dir_all(&dir)?;
        let config = dir.join("prometheus.yml");
        std::fs::write(&config, configuration())?;
        let mut command = lab.router.command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .args(["--web.listen-address", LISTEN, "--log.level=warn"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log"))?);
        let child = command.spawn().context("start prometheus")?;
        let prometheus = Self { lab, child };
        prometheus.await_scrapes(&dir)?;
        Ok(prometheus)
    }

    fn await_scrapes(&self, dir: &Path) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(15) {
            let scrapes = self.query("count_over_time(uplink_start_time_seconds[1m]) >= 4");
            if scrapes.is_ok_and(|found| !found.is_empty()) {
                return Ok(());
            }
            pause(0.2);
        }
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        bail!(
            "Prometheus scrapes nothing: {log}\n{:?}",
            self.api("/api/v1/targets")
        )
    }

    /// The series that an expression gives now.
    pub fn query(&self, expr: &str) -> Result<Vec<Value>> {
        let answer = self.api(&format!("/api/v1/query?query={}", escaped(expr)))?;
        ensure!(answer["status"] == "success", "{expr}: {answer}");
        let result = answer["data"]["result"].as_array();
        Ok(result.with_context(|| format!("{expr}: {answer}"))?.clone())
    }

    /// The state of an alert about an uplink: "pending", "firing", or none.
    pub fn alert(&self, name: &str, uplink: &str) -> Result<Option<String>> {
        let answer = self.api("/api/v1/alerts")?;
        let alerts = answer["data"]["alerts"].as_array().context("no alerts")?;
        let mut about = alerts
            .iter()
            .filter(|a| a["labels"]["alertname"] == name && a["labels"]["uplink"] == uplink);
        Ok(about.find_map(|a| Some(a["state"].as_str()?.to_owned())))
    }

    fn api(&self, path: &str) -> Result<Value> {
        // HTTP/1.0, so that the answer comes in one piece and ends with the connection.
        let mut stream = http::connect(self.lab, LISTEN)?;
        std::io::Write::write_all(
            &mut stream,
            format!("GET {path} HTTP/1.0\r\nHost: {LISTEN}\r\n\r\n").as_bytes(),
        )?;
        let response = http::read(stream)?;
        serde_json::from_str(&response.body).with_context(|| format!("{path}: {response:?}"))
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration() -> String {
    format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
         rule_files: [\"{RULES}\"]\n\
         scrape_configs:\n\
         - job_name: uplink\n  static_configs: [ {{ targets: [\"{}\"] }} ]\n",
        http::ADDRESS
    )
}

/// For a query string.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => escaped.push(byte.into()),
            other => escaped += &format!("%{other:02X}"),
        }
    }
    escaped
}
