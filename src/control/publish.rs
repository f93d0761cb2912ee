//! `POST /v1/publish`: a `send` without a session. It is judged by the wire's own decoder and by the room's home, so it has the promises of a `send`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::desk::{Asked, Desk};
use super::problem::{Problem, json_response};
use crate::chat::Publish;
use crate::ids::UserName;
use crate::limits::TCP_HEADER_BYTES;
use crate::protocol::error::Reason;
use crate::protocol::message::{Request, decode};
use crate::reactor::errand::{Outcome, Wish};

/// Messages of one batch: half of what may wait for one shard.
const BATCH_MAX: usize = 128;
const _: () = assert!(BATCH_MAX * 2 <= crate::reactor::errand::ERRANDS_WAITING);
/// Longer than a message may wait in its room's order and for the log together.
const PATIENCE: Duration = Duration::from_secs(12);

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct From {
    from: Option<String>,
}

/// One message, `{"room", "from", "body", "key"?, "ephemeral"?}`, or `{"messages": [...]}`.
pub(super) async fn publish(State(desk): State<Arc<Desk>>, body: Result<Bytes, BytesRejection>) -> Result<Response<Body>, Problem> {
    let body = body.map_err(|why| too_large_or_cut(&why))?;
    let text = std::str::from_utf8(&body).map_err(|_| malformed("the body is not UTF-8"))?;
    let batch: Batch<'_> = serde_json::from_str(text).map_err(|why| malformed(&why.to_string()))?;
    let Some(messages) = batch.messages else {
        let outcome = answer(send(&desk, text)).await?;
        return Ok(json_response(200, &outcome));
    };
    if messages.len() > BATCH_MAX {
        return Err(Problem::new(413, "body_too_large", format!("a batch has at most {BATCH_MAX} messages")));
    }
    // All are on their way, in order, before the first answer is waited for.
    let asked: Vec<_> = messages.iter().map(|message| send(&desk, message.get())).collect();
    let mut results = Vec::new();
    for asked in asked {
        results.push(answer(asked).await.unwrap_or_else(|problem| json!({"error": problem.object()})));
    }
    Ok(json_response(200, &json!({"results": results})))
}

fn send(desk: &Desk, text: &str) -> Result<Asked, Problem> {
    let publish = read(text)?;
    let home = desk.shards.homes.of(publish.room.as_str());
    desk.send(home, Wish::Publish(publish), PATIENCE)
}

/// Reads one message as the wire's `send`, so that the same things are good and bad in both.
fn read(text: &str) -> Result<Publish, Problem> {
    let rest = text.trim_start().strip_prefix('{').ok_or_else(|| malformed("a message is an object"))?;
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    let send = format!("{{\"type\":\"send\"{comma}{rest}");
    let Request::Send(send) = decode(send.as_bytes()).map_err(|refusal| of_reason(refusal.reason, refusal.message))? else {
        return Err(Problem::bad_field("type is not given: every message is a send"));
    };
    let From { from } = serde_json::from_str(text).map_err(|why| malformed(&why.to_string()))?;
    let from = from.ok_or_else(|| Problem::bad_field("from is missing: in whose name is it sent?"))?;
    let from = UserName::parse(&from).map_err(|_| Problem::bad_field("from: no user can have that name"))?;
    Ok(Publish { room: send.room, from, body: send.body.to_owned(), key: send.key.map(String::from), ephemeral: send.ephemeral })
}

/// What a session would have read, as an answer of HTTP.
async fn answer(asked: Result<Asked, Problem>) -> Result<Value, Problem> {
    let Outcome::Said(frame) = asked?.answer().await? else { return Err(Problem::late()) };
    let json = frame.get(TCP_HEADER_BYTES..).unwrap_or_default();
    let mut object: Value = serde_json::from_slice(json).map_err(|why| Problem::new(500, "internal", why.to_string()))?;
    if object["type"] == "error" {
        let reason = Reason::ALL.into_iter().find(|reason| object["reason"] == reason.name()).unwrap_or(Reason::Internal);
        return Err(of_reason(reason, object["message"].as_str().unwrap_or_default()));
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("type");
    }
    Ok(object)
}

fn of_reason(reason: Reason, message: &str) -> Problem {
    Problem::new(reason.code(), reason.name(), message)
}

fn malformed(why: &str) -> Problem {
    Problem::new(400, "malformed", why)
}

fn too_large_or_cut(why: &BytesRejection) -> Problem {
    if why.status() == 413 { Problem::new(413, "body_too_large", "a body has at most 1 MiB") } else { malformed(&why.body_text()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_the_wire_reads_a_send() {
        let good = read(r#" {"room":"lobby","from":"bot","body":{"a": [1]},"key":"k"}"#).unwrap();
        assert_eq!((good.room.as_str(), good.from.as_str(), good.body.as_str()), ("lobby", "bot", "{\"a\": [1]}"));
        assert_eq!((good.key.as_deref(), good.ephemeral), (Some("k"), false));
        let bad = |text: &str| read(text).unwrap_err().reason;
        assert_eq!(bad(r#"{"room":"lobby","body":1}"#), "bad_field");
        assert_eq!(bad(r#"{"room":"lo bby","from":"bot","body":1}"#), "bad_field");
        assert_eq!(bad(r#"{"room":"lobby","from":"b ot","body":1}"#), "bad_field");
        assert_eq!(bad(r#"{"room":"lobby","from":"bot"}"#), "bad_field");
        assert_eq!(bad(r#"{"room":"lobby","room":"x","from":"bot","body":1}"#), "bad_field");
        assert_eq!(bad("{}"), "bad_field");
        assert_eq!(bad("[]"), "malformed");
        let long = format!(r#"{{"room":"lobby","from":"bot","body":"{}"}}"#, "x".repeat(crate::limits::BODY_BYTES_MAX));
        assert_eq!(bad(&long), "body_too_large");
    }
}
