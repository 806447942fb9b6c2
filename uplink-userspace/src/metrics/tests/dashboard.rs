//! The Grafana dashboard and the alert rules fit what is exported, and the dashboard is one that
//! Grafana takes: every panel in its place, with its data source and a number of its own.

use std::collections::BTreeSet;

use serde_json::Value;

use super::snapshot;
use crate::metrics::Snapshot;

const DASHBOARD: &str = include_str!("../../../../packaging/grafana/uplink.json");
const RULES: &str = include_str!("../../../../packaging/prometheus/uplink.rules.yml");

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).expect("JSON")
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().expect("panels")
}

/// Everything that can be exported, so with every optional metric.
fn everything() -> String {
    let mut all = Snapshot {
        policies: vec![("voip".into(), 1, 1)],
        repairs: vec![("rules", 1)],
        refused: vec![("forged", 1)],
        ..snapshot("isp1")
    };
    all.warnings.insert("all-down".into(), 1);
    all.text()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("uplink_")).collect()
}

fn expect_exported(wanted: &BTreeSet<&str>, whose: &str) {
    let text = everything();
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    let exported: BTreeSet<&str> = lines.filter_map(|l| l.split(['{', ' ']).next()).collect();
    let missing: Vec<_> = wanted.difference(&exported).collect();
    assert!(
        missing.is_empty(),
        "{whose} asks for what nobody exports: {missing:?}"
    );
}

#[test]
fn every_metric_of_the_dashboard_is_exported() {
    let dashboard = dashboard();
    let mut asked = 0;
    for panel in panels(&dashboard).iter().filter(|p| p["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let expr = target["expr"].as_str().expect("an expression");
            let metrics = named(expr);
            assert!(!metrics.is_empty(), "{expr}");
            expect_exported(&metrics, expr);
            asked += 1;
        }
    }
    assert!(asked >= 20, "{asked} expressions");
    expect_exported(&named(&dashboard["templating"].to_string()), "a variable");
}

#[test]
fn every_metric_of_the_rules_is_exported() {
    let rules = RULES.lines().filter(|l| !l.trim_start().starts_with('#'));
    let exprs: Vec<&str> = rules.filter(|l| l.contains("uplink_")).collect();
    assert!(exprs.len() >= 10, "{exprs:?}");
    for expr in exprs {
        expect_exported(&named(expr), expr);
    }
}

#[test]
fn panels_have_numbers_titles_and_data_sources_of_their_own() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for panel in panels(&dashboard) {
        let id = panel["id"].as_u64().expect("an id");
        assert!(id > 0 && ids.insert(id), "two panels with the id {id}");
        let title = panel["title"].as_str().expect("a title");
        assert!(titles.insert(title), "two panels called {title}");
        if panel["type"] == "row" {
            continue;
        }
        let sources = panel["targets"].as_array().expect("targets").iter();
        for source in sources.map(|t| &t["datasource"]).chain([&panel["datasource"]]) {
            assert_eq!(source["uid"], "${datasource}", "{title}");
        }
        let refs = panel["targets"].as_array().expect("targets").iter();
        let refs: BTreeSet<_> = refs.map(|t| t["refId"].as_str().expect("a refId")).collect();
        assert_eq!(refs.len(), panel["targets"].as_array().expect("targets").len());
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables
        .iter()
        .map(|v| v["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["datasource", "instance", "uplink"]);
    assert_eq!(variables[0]["type"], "datasource");
    assert_eq!(
        dashboard["schemaVersion"], 39,
        "Grafana 10.2 and later read it as it is"
    );
}

#[test]
fn no_panel_lies_on_another() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("w") > 0 && at("h") > 0 && at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
}
