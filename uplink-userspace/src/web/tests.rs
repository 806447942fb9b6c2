use hyper::{Method, StatusCode};

use super::health::Health;
use super::page::page;
use super::route::{Resource, route};
use crate::status::Status;

fn routed(method: Method, uri: &str) -> Result<Resource, StatusCode> {
    route(&method, &uri.parse().expect("a URI"))
}

#[test]
fn only_what_there_is_is_found_and_only_read() {
    assert_eq!(routed(Method::GET, "/"), Ok(Resource::Page));
    assert_eq!(routed(Method::HEAD, "/metrics?x=y"), Ok(Resource::Metrics));
    assert_eq!(routed(Method::GET, "/events.json"), Ok(Resource::Events(0)));
    assert_eq!(
        routed(Method::GET, "/events.json?after=17"),
        Ok(Resource::Events(17))
    );
    for wrong in ["after=", "after=-1", "before=1", "after=99999999999999999999"] {
        let uri = format!("/events.json?{wrong}");
        assert_eq!(routed(Method::GET, &uri), Err(StatusCode::BAD_REQUEST), "{uri}");
    }
    for missing in ["/metrics/", "/../etc/passwd", "/Health", "//"] {
        assert_eq!(routed(Method::GET, missing), Err(StatusCode::NOT_FOUND));
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert_eq!(routed(method, "/metrics"), Err(StatusCode::METHOD_NOT_ALLOWED));
    }
}

/// A status with one uplink, and perhaps a warning.
fn status(state: &str, share: f64, warning: Option<&str>) -> Status {
    let warnings: Vec<_> = warning
        .map(|code| serde_json::json!({ "code": code, "text": "text", "remedy": "" }))
        .into_iter()
        .collect();
    let json = serde_json::json!({
        "version": 1, "config": "", "since": "", "attach": "tcx", "policies": [], "packets": {},
        "warnings": warnings,
        "uplinks": [{ "name": "isp1", "interface": "", "gateway": "", "source": "", "state": state,
            "reason": "", "tier": 1, "weight": 1, "share": share, "rtt_ms": null, "jitter_ms": null,
            "loss": 0.0, "flows": 0, "rx_bytes": 0, "tx_bytes": 0, "mark": "", "table": 1 }],
    });
    serde_json::from_value(json).expect("a status")
}

#[test]
fn healthy_is_who_serves_with_nothing_of_ours_broken() {
    let ok = |state, share, warning| Health::of(&status(state, share, warning)).is_ok();
    assert!(ok("up", 1.0, None));
    assert!(ok("degraded", 0.5, Some("dead-target")));
    assert!(ok("unknown", 0.5, None), "used as if up");
    assert!(ok("draining", 1.0, Some("drained-in-use")), "it was called back");
    assert!(!ok("up", 0.0, None), "stands by for nobody");
    assert!(!ok("down", 1.0, Some("all-down")));
    assert!(!ok("up", 1.0, Some("repair-failed")));
    let failing = Health::of(&status("down", 1.0, Some("all-down")));
    assert_eq!(failing.reasons, ["all-down: text", "no uplink serves"]);
}

#[test]
fn the_page_keeps_to_its_policy() {
    let (body, policy) = page().expect("random bytes");
    let body = std::str::from_utf8(&body).expect("UTF-8");
    let nonce = policy.split("script-src 'nonce-").nth(1).expect("a nonce");
    let nonce = &nonce[..32];
    assert!(nonce.bytes().all(|b| b.is_ascii_hexdigit()), "{policy}");
    assert_eq!(
        body.matches(&format!("nonce=\"{nonce}\"")).count(),
        2,
        "a style and a script"
    );
    assert_eq!(
        (body.matches("<script").count(), body.matches("<style").count()),
        (1, 1)
    );
    // What the policy refuses, or what would load from elsewhere, or write markup from data.
    for refused in [
        "@NONCE@",
        " style=",
        " onclick=",
        "javascript:",
        "http://",
        "https://",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        let found = body.matches(refused).count().saturating_sub(
            body.matches("http://www.w3.org/2000/svg").count() * usize::from(refused == "http://"),
        );
        assert_eq!(found, 0, "{refused} in the page");
    }
    let (_, other) = page().expect("random bytes");
    assert_ne!(policy, other, "a nonce serves once");
}
