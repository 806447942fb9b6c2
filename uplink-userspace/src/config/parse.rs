//! From the text of the file to a [`Config`], or to everything that is wrong with it.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use toml::de::DeTable;

use super::problem::{Problem, Problems};
use super::reader::Reader;
use super::{Config, File};
use super::{health, nat, observe, policy, probe, sections, syntax, uplinks};

/// Far beyond any real file, and small enough to read at a whim.
const LARGEST_FILE: u64 = 1 << 20;

/// A file that is not TOML at all would complain about every line.
const SYNTAX_ERRORS_SHOWN: usize = 20;

/// Reads and parses the file at `path`.
///
/// # Errors
///
/// All that is wrong with it; a file that cannot be read is one problem without a place.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let read = fs::File::open(path).and_then(read_all);
    let bytes = read.map_err(|e| unreadable(path, &e))?;
    match String::from_utf8(bytes) {
        Ok(text) => parse(path, text),
        Err(e) => Err(not_utf8(path, &e)),
    }
}

/// Parses `text`, which stands in `path`.
///
/// # Errors
///
/// All that is wrong with it.
pub fn parse(path: &Path, text: String) -> Result<Config, Problems> {
    // A complaint about an empty file needs a line to point at.
    let text = if text.is_empty() { "\n".into() } else { text };
    let path = path.into();
    let file = File { path, text };
    let mut problems = Vec::new();
    let config = document(&file, &mut problems);
    Problems::check(&file, problems)?;
    Ok(config)
}

fn read_all(file: fs::File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Problems {
    let message = format!("cannot read {}: {error}", path.display());
    let help = "name another file with --config, or write this one: \
                an [[uplink]] with name, interface and gateway for each ISP";
    let text = String::new();
    let path = path.into();
    Problems {
        file: File { path, text },
        list: vec![Problem::new(0..0, message, help)],
    }
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Problems {
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let path = path.into();
    Problems {
        file: File { path, text },
        list: vec![Problem::new(at..at + 3, "not UTF-8", "save the file as UTF-8")],
    }
}

/// The configuration as far as it makes sense; it counts only if there are no problems.
fn document(file: &File, problems: &mut Vec<Problem>) -> Config {
    let (table, errors) = DeTable::parse_recoverable(&file.text);
    // What the parser made of a broken file would only give misleading complaints.
    let broken = !errors.is_empty();
    problems.extend(
        syntax::problems(&file.text, &errors)
            .into_iter()
            .take(SYNTAX_ERRORS_SHOWN),
    );
    let mut ignored = Vec::new();
    let sink = if broken { &mut ignored } else { problems };
    let mut top = Reader::new("", table.get_ref(), 0..0, sink);
    let (kernel, mask, mode) = sections::kernel(&mut top);
    let nat = nat::read(&mut top);
    let probe = probe::read::read(&mut top);
    let uplinks = uplinks::read(&mut top, &kernel, mask, &nat, &probe);
    nat::is_used(&mut top, &nat, &uplinks);
    nat::lets_pass(&mut top, &nat, &mode);
    let health = health::read::health(&mut top);
    let balance = health::read::balance(&mut top, &uplinks);
    let lan = sections::lan(&mut top);
    let config = Config {
        file: file.clone(),
        policies: policy::read::policies(&mut top, file, &uplinks),
        dns: policy::names::dns(&mut top),
        mpath: policy::mpath::mpath(&mut top, &uplinks, &lan),
        metrics: observe::metrics(&mut top),
        hooks: observe::hooks(&mut top),
        lan,
        local: sections::local(&mut top),
        nat,
        probe: probe.probe,
        health,
        balance,
        kernel,
        uplinks,
    };
    top.finish();
    config
}
