//! Every path with its handler, and what stands in front of all of them: the token, the time a request may take.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};

use super::desk::Desk;
use super::http::{BODY_BYTES_MAX, REQUEST_MAX};
use super::problem::Problem;
use super::{admin, gate, metrics, page, publish};

/// Every method and path there is.
pub const ROUTES: [(&str, &str); 13] = [
    ("get", "/"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/v1/info"),
    ("get", "/v1/openapi.json"),
    ("get", "/v1/rooms"),
    ("get", "/v1/rooms/{room}"),
    ("get", "/v1/sessions"),
    ("delete", "/v1/sessions/{id}"),
    ("post", "/v1/publish"),
    ("get", "/v1/top"),
    ("post", "/v1/drain"),
];

/// What says nothing of anybody: a probe and an empty page need no token.
const OPEN: [&str; 3] = ["/", "/healthz", "/readyz"];

pub(super) fn router(desk: Arc<Desk>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.1, handler(route));
    }
    router
        .fallback(async || Problem::new(404, "not_found", "no such path; see /v1/openapi.json"))
        .method_not_allowed_fallback(async || Problem::new(405, "method_not_allowed", "not with this method; see /v1/openapi.json"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(desk.clone(), guard))
        .with_state(desk)
}

fn handler(route: (&str, &str)) -> MethodRouter<Arc<Desk>> {
    match route {
        ("get", "/") => get(page::page),
        ("get", "/healthz") => get(admin::healthz),
        ("get", "/readyz") => get(admin::readyz),
        ("get", "/metrics") => get(metrics::metrics),
        ("get", "/v1/info") => get(admin::info),
        ("get", "/v1/openapi.json") => get(page::openapi),
        ("get", "/v1/rooms") => get(admin::rooms),
        ("get", "/v1/rooms/{room}") => get(admin::room),
        ("get", "/v1/sessions") => get(admin::sessions),
        ("delete", "/v1/sessions/{id}") => delete(admin::kick),
        ("post", "/v1/publish") => post(publish::publish),
        ("get", "/v1/top") => get(admin::top),
        ("post", "/v1/drain") => post(admin::drain),
        _ => unreachable!("ROUTES has no others"),
    }
}

async fn guard(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    if !OPEN.contains(&request.uri().path())
        && let Err(problem) = gate::check(desk.token().as_ref(), request.headers())
    {
        return problem.into_response();
    }
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(408, "timeout", "the request was not whole, or not answered, in time").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_handler() {
        for route in ROUTES {
            let _ = handler(route);
        }
    }
}
