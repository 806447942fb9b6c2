//! A client of the metrics address, in the router's namespace.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use uplink_lab::Lab;

/// Where the lab's daemon listens.
pub const ADDRESS: &str = "127.0.0.1:9477";
/// `[metrics]` for it.
pub const SECTION: &str = "[metrics]\nlisten = \"127.0.0.1:9477\"\n";

const LIMIT: Duration = Duration::from_secs(10);

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub header: String,
    pub body: String,
}

/// Connects from the router itself.
pub fn connect(lab: &Lab, address: &str) -> Result<TcpStream> {
    let stream = lab.router.enter(|| TcpStream::connect(address))?;
    let stream = stream.with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Asks, and takes the response.
pub fn ask(lab: &Lab, address: &str, method: &str, path: &str) -> Result<Response> {
    let mut stream = connect(lab, address)?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: router\r\n\r\n")?;
    read(stream).with_context(|| format!("{method} {path}"))
}

/// GET on the usual address.
pub fn get(lab: &Lab, path: &str) -> Result<Response> {
    ask(lab, ADDRESS, "GET", path)
}

/// GET that must be 200 and JSON.
pub fn json(lab: &Lab, path: &str) -> Result<Value> {
    let response = get(lab, path)?;
    ensure!(response.status == 200, "{path}: {response:?}");
    serde_json::from_str(&response.body).with_context(|| format!("{path}: {}", response.body))
}

/// Reads until the other end closes.
pub fn read(mut stream: TcpStream) -> Result<Response> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).context("a response that is no UTF-8")?;
    let (header, body) = text
        .split_once("\r\n\r\n")
        .with_context(|| format!("no header: {text:?}"))?;
    let status = header.split(' ').nth(1).and_then(|s| s.parse().ok());
    Ok(Response {
        status: status.with_context(|| format!("no status: {header}"))?,
        header: header.to_ascii_lowercase(),
        body: body.into(),
    })
}
