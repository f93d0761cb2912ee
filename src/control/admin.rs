//! Health, rooms, sessions and what an operator does to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::Response;
use serde_json::{Value, json};

use super::desk::Desk;
use super::problem::{Problem, json_response};
use crate::chat::{Loud, RoomView};
use crate::config::AuthMode;
use crate::ids::{RoomName, ShardId, UserName};
use crate::reactor::errand::{Outcome, Reader, Top, Wish};
use crate::sys::clock;

/// Entries of a list: where nothing is said, and the most.
const ROOMS_DEFAULT: usize = 100;
const ROOMS_MAX: usize = 1_000;
const TOP_DEFAULT: usize = 10;
const TOP_MAX: usize = 100;

type Parameters = Query<BTreeMap<String, String>>;
type Answer = Result<Response<Body>, Problem>;

pub(super) async fn healthz() -> Response<Body> {
    json_response(200, &json!({"status": "ok"}))
}

/// Whether a load balancer should send clients here.
pub(super) async fn readyz(State(desk): State<Arc<Desk>>) -> Answer {
    if desk.is_draining() {
        return Err(Problem::new(503, "draining", "this server is going"));
    }
    if desk.overload() > 0 {
        return Err(Problem::new(503, "overloaded", "work waits too long: new connections are turned away"));
    }
    Ok(json_response(200, &json!({"status": "ready"})))
}

pub(super) async fn info(State(desk): State<Arc<Desk>>) -> Response<Body> {
    let facts = &desk.facts;
    let auth = match facts.settings.auth.mode {
        AuthMode::Open => "open",
        AuthMode::Jwt => "jwt",
    };
    let sessions: u64 = desk.shards.counters.iter().map(|counters| counters.levels.sessions.get()).sum();
    let up_ms = clock::monotonic_ns().saturating_sub(desk.started_ns) / 1_000_000;
    json_response(
        200,
        &json!({
            "version": env!("CARGO_PKG_VERSION"), "node": facts.node, "epoch": format!("{:x}", facts.epoch), "shards": desk.shards.doors.len(),
            "listen": facts.addresses, "auth": auth, "log": "memory", "io_uring": facts.features, "connections_max": facts.connections_max,
            "sessions": sessions, "up_ms": up_ms, "draining": desk.is_draining(), "overload": desk.overload(),
        }),
    )
}

/// `GET /v1/rooms?limit=&after=`: every room, shard by shard, in pages.
pub(super) async fn rooms(State(desk): State<Arc<Desk>>, Query(parameters): Parameters) -> Answer {
    known(&parameters, &["limit", "after"])?;
    let limit = limit(&parameters, ROOMS_DEFAULT, ROOMS_MAX)?;
    let (first, mut from) = parameters.get("after").map_or(Ok((ShardId(0), 0)), |text| place(&desk, text))?;
    let (mut found, mut next) = (Vec::new(), None);
    for shard in desk.shard_ids().skip(first.index()) {
        let most = limit - found.len();
        if most == 0 {
            next = Some((shard, 0));
            break;
        }
        let Outcome::Rooms { rooms, next: rest } = desk.ask(shard, Wish::Rooms { from, most }).await? else { return Err(Problem::late()) };
        found.extend(rooms.iter().map(room_object));
        from = 0;
        if let Some(slot) = rest {
            next = Some((shard, slot));
            break;
        }
    }
    let next = next.map(|(shard, slot)| format!("{}.{slot}", shard.0));
    Ok(json_response(200, &json!({"rooms": found, "next": next})))
}

pub(super) async fn room(State(desk): State<Arc<Desk>>, Path(name): Path<String>) -> Answer {
    let room = RoomName::parse(&name).map_err(|_| Problem::bad_field("no room can have that name"))?;
    let Outcome::Room(found) = desk.ask(desk.shards.homes.of(room.as_str()), Wish::Room(room)).await? else { return Err(Problem::late()) };
    let (view, users) = found.ok_or_else(|| Problem::new(404, "not_found", "nobody is in that room and nothing of it is retained"))?;
    let mut object = room_object(&view);
    object["truncated"] = json!(users.len() < view.members as usize);
    object["users"] = json!(users);
    Ok(json_response(200, &object))
}

/// `GET /v1/sessions?user=`.
pub(super) async fn sessions(State(desk): State<Arc<Desk>>, Query(parameters): Parameters) -> Answer {
    known(&parameters, &["user"])?;
    let user = parameters.get("user").ok_or_else(|| Problem::bad_field("user is missing: /v1/sessions?user=alice"))?;
    let user = UserName::parse(user).map_err(|_| Problem::bad_field("no user can have that name"))?;
    let wish = Wish::Sessions(user);
    let Outcome::Sessions(readers) = desk.ask(desk.shards.homes.of(user.as_str()), wish).await? else { return Err(Problem::late()) };
    Ok(json_response(200, &json!({"sessions": readers.iter().map(session_object).collect::<Vec<_>>()})))
}

/// `DELETE /v1/sessions/{id}`: `bye` 410 `kicked`.
pub(super) async fn kick(State(desk): State<Arc<Desk>>, Path(id): Path<String>) -> Answer {
    let gone = || Problem::new(404, "not_found", "no such session, or it has ended");
    let public_id =
        u64::from_str_radix(&id, 16).map_err(|_| Problem::bad_field("a session is named by the hexadecimal number in welcome"))?;
    let at = desk.shards.directory.find(public_id).ok_or_else(gone)?.at;
    match desk.ask(at.shard, Wish::Kick { session: at.session, public_id }).await? {
        Outcome::Kicked(true) => Ok(json_response(200, &json!({"kicked": id}))),
        _ => Err(gone()),
    }
}

/// `GET /v1/top?limit=`: per shard the slowest readers, the busiest rooms, the loudest senders.
pub(super) async fn top(State(desk): State<Arc<Desk>>, Query(parameters): Parameters) -> Answer {
    known(&parameters, &["limit"])?;
    let most = limit(&parameters, TOP_DEFAULT, TOP_MAX)?;
    let asked: Vec<_> = desk.shard_ids().map(|shard| desk.send(shard, Wish::Top { most }, super::desk::LOOK_MAX)).collect();
    let mut shards = Vec::new();
    for (shard, asked) in asked.into_iter().enumerate() {
        let Outcome::Top(top) = asked?.answer().await? else { return Err(Problem::late()) };
        shards.push(top_object(shard, &top));
    }
    Ok(json_response(200, &json!({"shards": shards})))
}

pub(super) async fn drain(State(desk): State<Arc<Desk>>) -> Answer {
    desk.drain()?;
    Ok(json_response(202, &json!({"draining": true})))
}

fn known(parameters: &BTreeMap<String, String>, names: &[&str]) -> Result<(), Problem> {
    match parameters.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(Problem::bad_field(format!("unknown parameter {:?}; there are: {}", cut(name), names.join(", ")))),
        None => Ok(()),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

fn limit(parameters: &BTreeMap<String, String>, default: usize, most: usize) -> Result<usize, Problem> {
    let Some(text) = parameters.get("limit") else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| Problem::bad_field(format!("limit is a whole number from 1 to {most}")))
}

/// Where a list goes on, as `next` said.
fn place(desk: &Desk, text: &str) -> Result<(ShardId, u32), Problem> {
    let parts = text.split_once('.').and_then(|(shard, slot)| Some((ShardId(shard.parse().ok()?), slot.parse().ok()?)));
    let there = parts.filter(|(shard, _)| shard.index() < desk.shards.doors.len());
    there.ok_or_else(|| Problem::bad_field("after is what next said in the answer before"))
}

fn room_object(view: &RoomView) -> Value {
    json!({
        "room": view.room, "members": view.members, "sessions": view.sessions, "at": view.at, "retained": view.retained,
        "deferred": view.deferred,
    })
}

fn session_object(reader: &Reader) -> Value {
    let view = &reader.view;
    json!({
        "session": format!("{:x}", reader.public_id), "user": view.user, "device": view.device, "rooms": view.rooms,
        "state": format!("{:?}", reader.state).to_lowercase(), "unanswered": view.unanswered, "queued_bytes": reader.queued_bytes,
        "queued_frames": reader.queued_frames, "stuck_ms": reader.stuck_ms, "quiet_ms": reader.quiet_ms,
    })
}

fn top_object(shard: usize, top: &Top) -> Value {
    let loud = |list: &[Loud], name: &str| list.iter().map(|l| json!({name: l.name, "messages_per_s": l.per_s})).collect::<Vec<_>>();
    let slow = |s: &crate::reactor::errand::Slow| {
        json!({
            "session": format!("{:x}", s.public_id), "user": s.user, "queued_bytes": s.queued_bytes, "queued_frames": s.queued_frames,
            "stuck_ms": s.stuck_ms,
        })
    };
    json!({
        "shard": shard, "slow_readers": top.slow.iter().map(slow).collect::<Vec<_>>(), "busy_rooms": loud(&top.rooms, "room"),
        "loud_senders": loud(&top.senders, "user"),
    })
}
