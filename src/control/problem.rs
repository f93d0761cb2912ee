//! An answer that is an error: an HTTP status and a JSON object with code and reason, in the words of the wire where it has one.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    pub(super) fn bad_field(message: impl Into<String>) -> Self {
        Self::new(400, "bad_field", message)
    }

    pub(super) fn late() -> Self {
        Self::new(504, "timeout", "the shard did not answer in time")
    }

    pub(super) fn busy() -> Self {
        Self::new(503, "overloaded", "the shard has too many requests of the control plane waiting")
    }

    pub(super) fn object(&self) -> serde_json::Value {
        json!({"code": self.code, "reason": self.reason, "message": self.message})
    }
}

impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = json_response(self.code, &self.object());
        if self.code == 503 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.code == 401 {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A JSON answer that nobody keeps.
pub(super) fn json_response(code: u16, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
