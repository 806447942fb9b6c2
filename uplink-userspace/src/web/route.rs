//! Which answer a request is for.

use hyper::{Method, StatusCode, Uri};

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Resource {
    /// The status page.
    Page,
    Metrics,
    Health,
    Status,
    /// Those after this number.
    Events(u64),
    History,
}

/// The resource, or the status that says why there is none.
pub(super) fn route(method: &Method, uri: &Uri) -> Result<Resource, StatusCode> {
    let resource = match uri.path() {
        "/" => Resource::Page,
        "/metrics" => Resource::Metrics,
        "/health" => Resource::Health,
        "/status.json" => Resource::Status,
        "/events.json" => Resource::Events(after(uri.query())?),
        "/history.json" => Resource::History,
        _ => return Err(StatusCode::NOT_FOUND),
    };
    match *method {
        Method::GET | Method::HEAD => Ok(resource),
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn after(query: Option<&str>) -> Result<u64, StatusCode> {
    match query {
        None | Some("") => Ok(0),
        Some(query) => {
            let number = query.strip_prefix("after=").and_then(|n| n.parse().ok());
            number.ok_or(StatusCode::BAD_REQUEST)
        }
    }
}
