//! Every configuration in the documentation is one that works.

use std::path::Path;

use super::super::parse;

const DOCUMENTS: [(&str, &str); 5] = [
    ("README.md", include_str!("../../../../README.md")),
    ("docs/guide.md", include_str!("../../../../docs/guide.md")),
    ("docs/balancing.md", include_str!("../../../../docs/balancing.md")),
    (
        "docs/troubleshooting.md",
        include_str!("../../../../docs/troubleshooting.md"),
    ),
    ("docs/policies.md", include_str!("../../../../docs/policies.md")),
];

/// What stands before a part that has no uplinks of its own.
const AROUND: &str = "[[uplink]]\nname = \"isp1\"\ninterface = \"eth0\"\ngateway = \"192.168.1.1\"\n\
                      down = \"100mbit\"\nup = \"20mbit\"\n\
                      [[uplink]]\nname = \"isp2\"\ninterface = \"eth0\"\ngateway = \"10.0.0.1\"\n\
                      down = \"50mbit\"\nup = \"10mbit\"\n";

/// The TOML blocks of a document, each with the number of its first line.
fn blocks(document: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in document.lines().enumerate() {
        match &mut open {
            None if line.trim_end() == "```toml" => open = Some((number + 2, String::new())),
            Some(_) if line.trim_end() == "```" => blocks.extend(open.take()),
            Some((_, block)) => *block += &format!("{line}\n"),
            None => {}
        }
    }
    blocks
}

/// A part of a file, with what it leaves out because it is about something else.
fn completed(block: &str) -> String {
    match (block.contains("[[uplink]]"), block.contains("gateway")) {
        (true, true) => block.into(),
        (true, false) => block.replace(
            "[[uplink]]",
            "[[uplink]]\ninterface = \"eth0\"\ngateway = \"10.0.0.1\"",
        ),
        (false, _) => format!("{AROUND}{block}"),
    }
}

#[test]
fn every_configuration_in_the_documentation_parses() {
    let mut wrong = String::new();
    let mut seen = 0;
    for (name, document) in DOCUMENTS {
        for (line, block) in blocks(document) {
            seen += 1;
            if let Err(problems) = parse(Path::new(name), completed(&block)) {
                wrong += &format!("{name}, block at line {line}:\n{problems}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen >= 15, "only {seen} blocks");
}
