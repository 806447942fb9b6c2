//! From a request to a response.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Request, Response, StatusCode};

use super::desk::Desk;
use super::page;
use super::route::{Resource, route};
use crate::metrics;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// Whatever is asked, there is a response. A body is neither wanted nor read. For HEAD, hyper
/// leaves ours out.
pub(super) async fn respond(desk: &Desk, request: &Request<Incoming>) -> Answer {
    match route(request.method(), request.uri()) {
        Ok(Resource::Page) => show_page(),
        Ok(resource) => show(desk, resource).await,
        Err(status) => refuse(status),
    }
}

fn show_page() -> Answer {
    let Ok((body, policy)) = page::page() else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = make(StatusCode::OK, HTML, body);
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn show(desk: &Desk, resource: Resource) -> Answer {
    let content = match resource {
        Resource::Metrics => metrics::CONTENT_TYPE,
        _ => JSON,
    };
    match desk.answer(resource).await {
        Ok((body, true)) => make(StatusCode::OK, content, body),
        Ok((body, false)) => make(StatusCode::SERVICE_UNAVAILABLE, content, body),
        Err(e) if resource == Resource::Health => {
            let body = serde_json::json!({ "status": "failing", "serving": [], "reasons": [e.to_string()] });
            make(StatusCode::SERVICE_UNAVAILABLE, JSON, body.to_string().into())
        }
        Err(e) => make(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{e}\n").into()),
    }
}

fn refuse(status: StatusCode) -> Answer {
    let text = match status {
        StatusCode::NOT_FOUND => {
            "there are /, /metrics, /health, /status.json, /events.json, /history.json\n"
        }
        StatusCode::METHOD_NOT_ALLOWED => "it can only be read: GET or HEAD\n",
        StatusCode::BAD_REQUEST => "the only parameter is after=NUMBER\n",
        _ => "something went wrong\n",
    };
    let mut response = make(status, TEXT, text.into());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn make(status: StatusCode, content: &'static str, body: Bytes) -> Answer {
    const OWN: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let fields = [
        (CONTENT_TYPE, content),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (OWN, "same-origin"),
    ];
    headers.extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}
