//! Whole files with the mistakes that people make, and what they are told.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Problem, Problems, parse};

/// A mistake: its file; line and column; what is marked there; what the help has to say; and the text to put in
/// place of what is marked, or of a part of the file, to have a file that is right.
struct Mistake {
    file: &'static str,
    place: &'static str,
    marked: &'static str,
    help: &'static str,
    fix: Fix,
}

enum Fix {
    /// What is marked becomes this.
    Marked(&'static str),
    /// The first text becomes the second one.
    Text(&'static str, &'static str),
}

use Fix::{Marked, Text};

const fn row(
    file: &'static str,
    place: &'static str,
    marked: &'static str,
    help: &'static str,
    fix: Fix,
) -> Mistake {
    Mistake {
        file,
        place,
        marked,
        help,
        fix,
    }
}

#[rustfmt::skip] // One mistake, one line.
const MISTAKES: &[Mistake] = &[
    row("01-gateway-with-prefix", "9:11", "\"10.0.0.1/24\"", "did you mean \"10.0.0.1\"?", Marked("\"10.0.0.1\"")),
    row("02-gatway", "4:1", "gatway", "did you mean \"gateway\"?", Marked("gateway")),
    row("03-network-as-gateway", "9:11", "\"10.0.0.0/24\"", "one address in it, such as \"10.0.0.1\"", Marked("\"10.0.0.1\"")),
    row("04-percent-without-quotes", "12:8", "15%", "did you mean \"15%\"?", Marked("\"15%\"")),
    row("05-weight-quoted", "5:10", "\"3\"", "did you mean 3, without quotes? allowed: an integer from 1 to 1000", Marked("3")),
    row("06-interval-number", "12:12", "500", "did you mean \"500ms\" or \"500s\"? allowed: 50ms to 1h", Marked("\"500ms\"")),
    row("07-smart-quotes", "2:8", "“isp1”", "did you mean \"isp1\"?", Marked("\"isp1\"")),
    row("08-single-table", "6:1", "[uplink]", "did you mean [[uplink]]?", Text("[uplink]", "[[uplink]]")),
    row("09-table-twice", "14:1", "[nat]", "move its keys to [nat] in line 11", Marked("")),
    row("10-boolean-quoted", "12:11", "\"true\"", "did you mean true, without quotes?", Marked("true")),
    row("11-fall-in-uplink", "5:1", "fall", "\"fall\" belongs in [probe], or for this uplink only in probe = { ... }", Text("fall = 3", "probe = { fall = 3 }")),
    row("12-policy-other-case", "14:7", "\"ISP1\"", "did you mean \"isp1\"?", Marked("\"isp1\"")),
    row("13-same-name", "7:8", "\"isp1\"", "each uplink needs a name of its own", Marked("\"isp2\"")),
    row("14-weight-zero", "5:10", "0", "an integer from 1 to 1000", Marked("1")),
    row("15-tier-word", "5:8", "\"backup\"", "a backup has 2", Marked("2")),
    row("16-value-without-quotes", "2:8", "isp1", "did you mean \"isp1\"?", Marked("\"isp1\"")),
    row("17-v6-gateway-under-gateway", "9:11", "\"fd00:1::1\"", "did you mean gateway6 = \"fd00:1::1\"?", Text("gateway = \"fd00:1::1\"", "gateway6 = \"fd00:1::1\"")),
    row("18-octet-too-large", "4:11", "\"192.168.1.256\"", "an IPv4 address such as \"192.168.1.1\"", Marked("\"192.168.1.25\"")),
    row("19-mask-with-hole", "12:15", "\"0x00f0f000\"", "one run of set bits within 32, such as \"0x7f000000\"", Marked("\"0x7f000000\"")),
    row("20-policy-cidr", "13:17", "\"10.0.0.0/33\"", "\"10.0.0.0/8\"", Marked("\"10.0.0.0/8\"")),
    row("21-ports-reversed", "13:34", "\"4000-3000\"", "did you mean \"3000-4000\"?", Marked("\"3000-4000\"")),
    row("22-schedule-words", "13:17", "\"monday\"", "did you mean \"mon\"? allowed: mon, tue", Marked("\"mon\"")),
    row("22-schedule-words", "13:35", "\"8-18\"", "did you mean \"08:00-18:00\"?", Marked("\"08:00-18:00\"")),
    row("23-zone-typo", "13:40", "\"Europe/Viena\"", "did you mean \"Europe/Vienna\"?", Marked("\"Europe/Vienna\"")),
    row("24-quota-small-letters", "5:19", "\"200gb\"", "did you mean \"200GB\"? allowed: 1MB to 1000000TB", Marked("\"200GB\"")),
    row("25-quota-period", "5:34", "\"mounth\"", "did you mean \"month\"? allowed: \"day\", \"week\", \"month\"", Marked("\"month\"")),
    row("26-down-in-mbps", "5:8", "\"500Mbps\"", "did you mean \"500mbit\"? allowed: 8kbit to 1tbit", Marked("\"500mbit\"")),
    row("27-failover-typo", "12:15", "\"rerout\"", "did you mean \"reroute\"? allowed: \"reroute\", \"reset\"", Marked("\"reroute\"")),
    row("28-probe-host-in-icmp", "13:1", "host", "remove it: it is for type = \"http\" or \"https\"", Text("host = \"example.org\"", "")),
    row("29-probe-url", "13:12", "\"https://example.org/\"", "host = \"example.org\" and path = \"/\"", Text("[\"https://example.org/\"]", "[\"192.0.2.1\"]\nhost = \"example.org\"")),
    row("30-lan-not-a-list", "12:14", "\"eth2\"", "did you mean [\"eth2\"], in brackets?", Marked("[\"eth2\"]")),
    row("31-comma-for-newline", "2:14", ",", "remove it", Marked("")),
    row("32-quote-left-open", "3:13", "\"eth0", "did you mean \"eth0\"?", Marked("\"eth0\"")),
    row("33-colon-for-equals", "3:10", ":", "did you mean interface = \"eth0\"?", Text("interface: \"eth0\"", "interface = \"eth0\"")),
    row("34-metrics-without-port", "12:10", "\"127.0.0.1\"", "did you mean \"127.0.0.1:9477\"?", Marked("\"127.0.0.1:9477\"")),
    row("35-hook-relative", "12:13", "\"hook.sh\"", "such as \"/etc/uplink/hook\"", Marked("\"/etc/uplink/hook\"")),
    row("36-kernel-key-at-nat", "12:1", "flows", "\"flows\" belongs in [kernel]", Text("[nat]", "[kernel]")),
    row("37-true-with-capital", "12:11", "True", "did you mean true?", Marked("true")),
    row("38-bracket-left-out", "6:1", "[[uplink]", "did you mean [[uplink]]?", Marked("[[uplink]]")),
    row("39-gateway-names-interface", "9:12", "\"fe80::1%eth1\"", "did you mean \"fe80::1\"?", Marked("\"fe80::1\"")),
    row("40-key-twice", "6:1", "weight", "remove one of the two", Text("weight = 2", "")),
    row("41-duration-without-quotes", "12:12", "500ms", "did you mean \"500ms\"?", Marked("\"500ms\"")),
    row("42-group-in-group", "17:7", "\"all\"", "names of uplinks, or weights such as { isp1 = 3, isp2 = 1 }", Marked("[\"isp1\", \"isp2\"]")),
    row("43-same-table", "11:9", "100", "each uplink needs a table of its own", Marked("101")),
    row("44-spillover-and-by", "17:13", "\"80%\"", "remove one of the two, `spillover` or `by`", Text("by = \"latency\"", "")),
    row("45-match-left-out", "13:1", "dport", "\"dport\" belongs in match = { ... }", Text("dport = 5060", "match = { dport = 5060 }")),
    row("46-interval-without-unit", "12:12", "\"500\"", "did you mean \"500ms\" or \"500s\"?", Marked("\"500ms\"")),
    row("47-key-in-capitals", "9:1", "GATEWAY", "did you mean \"gateway\"?", Marked("gateway")),
    row("48-list-without-brackets", "12:14", "\"eth2\", \"eth3\"", "did you mean [\"eth2\", \"eth3\"]?", Marked("[\"eth2\", \"eth3\"]")),
    row("49-list-in-one-text", "12:12", "\"1.1.1.1, 9.9.9.9\"", "such as [\"1.1.1.1\", \"9.9.9.9\"]", Marked("\"1.1.1.1\", \"9.9.9.9\"")),
    row("50-loss-as-part", "12:8", "0.15", "did you mean \"15%\"?", Marked("\"15%\"")),
    row("51-table-typo", "11:2", "heath", "did you mean [health]?", Marked("health")),
    row("52-uplinks", "1:3", "uplinks", "did you mean [[uplink]]?", Text("uplinks", "uplink")),
    row("53-comment-in-c", "11:1", "//", "did you mean # [local]?", Marked("#")),
    row("54-targets-without-quotes", "12:12", "1.1.1.1", "did you mean \"1.1.1.1\"?", Marked("\"1.1.1.1\"")),
    row("54-targets-without-quotes", "12:21", "9.9.9.9", "did you mean \"9.9.9.9\"?", Marked("\"9.9.9.9\"")),
    row("55-list-left-open", "12:11", "[\"1.1.1.1\", \"9.9.9.9\"", "and ] at its end", Marked("[\"1.1.1.1\", \"9.9.9.9\"]")),
    row("56-same-gateway", "9:11", "\"192.168.1.1\"", "each uplink needs another gateway or interface", Marked("\"192.168.1.2\"")),
    row("57-netmask", "13:17", "\"10.0.0.0/255.255.255.0\"", "did you mean \"10.0.0.0/24\"?", Marked("\"10.0.0.0/24\"")),
    row("58-nothing-there", "1:1", "", "add an [[uplink]] with name, interface and gateway", Marked("[[uplink]]\nname = \"isp1\"\ninterface = \"eth0\"\ngateway = \"10.0.0.1\"\n")),
    row("59-quota-as-text", "10:9", "\"200GB\"", "such as quota = { bytes = \"200GB\", per = \"month\" }", Marked("{ bytes = \"200GB\", per = \"month\" }")),
    row("60-match-without-equals", "13:7", "{ proto = \"udp\" }", "did you mean match = { proto = \"udp\" }?", Text("match {", "match = {")),
    row("61-braces-left-open", "13:9", "{ proto = \"udp\"", "and } at its end", Marked("{ proto = \"udp\" }")),
    row("62-colon-in-braces", "13:16", ":", "did you mean =?", Text("proto:", "proto =")),
    row("63-two-keys-in-a-line", "10:10", "3 tier = 2", "move it to a line of its own", Marked("3\ntier = 2")),
    row("64-protocol-in-capitals", "13:19", "\"TCP\"", "did you mean \"tcp\"?", Marked("\"tcp\"")),
    row("65-url-as-domain", "13:20", "\"https://example.org/\"", "did you mean \"example.org\"?", Marked("\"example.org\"")),
    row("66-table-within-uplink", "10:1", "lan", "[lan] is a table of its own", Text("lan = [\"eth2\"]", "[lan]\ninterfaces = [\"eth2\"]")),
    row("67-host-bits", "13:17", "\"192.168.1.5/24\"", "did you mean \"192.168.1.0/24\"?", Marked("\"192.168.1.0/24\"")),
    row("68-comment-behind-value", "10:12", "// of 4", "did you mean # of 4?", Marked("# of 4")),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/mistakes")
}

/// The names of all files, without their ends.
fn names() -> Vec<String> {
    let paths = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let names = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn text_of(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.toml"))).unwrap()
}

fn problems_of(name: &str) -> Problems {
    let path = PathBuf::from(format!("{name}.toml"));
    parse(&path, text_of(name)).expect_err(name)
}

fn mistakes_in(name: &str) -> Vec<&'static Mistake> {
    MISTAKES.iter().filter(|m| m.file == name).collect()
}

/// What each file is told is kept as a snapshot, to be read as a user would.
#[test]
fn every_mistaken_file_is_explained() {
    let names = names();
    assert!(names.len() >= 50, "{} files", names.len());
    for name in names {
        let problems = problems_of(&name);
        insta::with_settings!({ snapshot_path => "mistakes", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(&*name, problems.to_string());
        });
    }
}

/// One mistake is one problem, with its place, what is wrong there, and what to write instead.
#[test]
fn every_mistake_is_told_once_with_place_value_and_remedy() {
    let mut wrong = String::new();
    for name in names() {
        let (problems, mistakes) = (problems_of(&name), mistakes_in(&name));
        if problems.list.len() != mistakes.len() {
            let (told, made) = (problems.list.len(), mistakes.len());
            wrong += &format!("{name}: {told} problems of {made} mistakes:\n{problems}\n\n");
        }
        for (problem, mistake) in problems.list.iter().zip(mistakes) {
            if let Err(why) = explains(&problems, problem, mistake) {
                wrong += &format!("{name}: {why}:\n{problems}\n\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn explains(problems: &Problems, problem: &Problem, mistake: &Mistake) -> Result<(), String> {
    let text = &problems.file.text;
    let marked = &text[problem.span.clone()];
    let shown = problems.to_string();
    let arrow = format!("--> {}.toml:{}\n", mistake.file, mistake.place);
    // The value without quotes, or the first word of what is marked: lists are not repeated.
    let value = marked.trim_matches(['"', '[', ']', '{', '}', ' ']);
    let value = value.split('"').next().unwrap_or("").trim();
    match () {
        () if !shown.contains(&arrow) => Err(format!("not at {}", mistake.place)),
        () if marked != mistake.marked => Err(format!("marks {marked:?}, not {:?}", mistake.marked)),
        () if !problem.message.contains(value) => Err(format!("the message does not name {value:?}")),
        () if !problem.help.contains(mistake.help) => Err(format!("the help has no {:?}", mistake.help)),
        () if !remedies(problem, mistake) => Err("the help does not say what would be right".into()),
        () => Ok(()),
    }
}

/// A suggestion that can be pasted, what is allowed, or an example.
fn remedies(problem: &Problem, mistake: &Mistake) -> bool {
    let pasted = match mistake.fix {
        Marked(fix) | Text(_, fix) => !fix.is_empty() && problem.help.contains(fix.trim()),
    };
    let ways = [
        "allowed: ",
        "such as ",
        "from ",
        "add ",
        "remove ",
        "move ",
        "each ",
    ];
    pasted || ways.iter().any(|way| problem.help.contains(way))
}

/// Whoever does what the help says has a file that is right: so every mistake was told, and nothing else.
#[test]
fn a_file_is_right_once_its_mistakes_are_mended() {
    for name in names() {
        let problems = problems_of(&name);
        let mut text = text_of(&name);
        let both: Vec<_> = problems.list.iter().zip(mistakes_in(&name)).collect();
        // From the end, so that the places before stay where they are.
        for (problem, mistake) in both.into_iter().rev() {
            match mistake.fix {
                Marked(fix) => text.replace_range(problem.span.clone(), fix),
                Text(from, to) => {
                    assert!(text.contains(from), "{name}: no {from:?}");
                    text = text.replace(from, to);
                }
            }
        }
        if let Err(problems) = parse(Path::new("mended.toml"), text) {
            panic!("{name}:\n{problems}");
        }
    }
}

/// Any file can be cut off or have a character too few, and somebody has to be told.
#[test]
fn no_damage_to_a_file_is_too_much() {
    for name in names() {
        let text = text_of(&name);
        // Every third place: all of them take long, and neighbours are much alike.
        for (at, c) in text.char_indices().step_by(3) {
            let cut = text[..at].to_owned();
            let without = format!("{}{}", &text[..at], &text[at + c.len_utf8()..]);
            for damaged in [cut, without] {
                if let Err(problems) = parse(Path::new("damaged.toml"), damaged) {
                    assert!(!problems.to_string().is_empty());
                }
            }
        }
    }
}
